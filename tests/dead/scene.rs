//! A gateway, and a region that does not take what some people write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::support::body::World;
use crate::support::gateway::{Gateway, run};
use crate::support::http::{self, Connection, Message};
use crate::support::region::{Mode, Region};
use crate::support::sender::{Load, Sender};
use crate::support::settings::{Rule, Settings};
use crate::support::{SECRET, eventually, seed, signature};

/// What people write who are refused.
pub const POISON: &str = "\"from\":\"44";
/// A parcel dies when its second try is due, if enough others were taken.
pub const DEATH: Duration = Duration::from_secs(60);

/// A region that takes everybody's parcels but those of some.
pub struct Scene {
    pub region: Region,
    pub gateway: Gateway,
    pub unwanted: World,
    pub sender: Option<Sender>,
}

impl Scene {
    pub fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let region = Region::start("eu");
        let rule = Rule::new(&region, "prefixes = [\"49\", \"44\"]\nretry = { attempts = 1 }");
        let mut settings = Settings::of(vec![rule]);
        change(&mut settings);
        let gateway = Gateway::start(settings);
        let unwanted = World::new(&["44"], 100, 0);
        Self { region, gateway, unwanted, sender: None }
    }

    /// `count` parcels die, of a conversation each, while others are taken. Their bodies.
    pub fn kill(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.others();
        let bodies = self.send(count);
        self.wait_for_letters(count);
        self.quiet();
        bodies
    }

    pub fn others(&mut self) {
        self.region.set(Mode::Against(500, POISON));
        let load = Load {
            address: self.gateway.listen,
            path: "/webhook".to_owned(),
            world: Arc::new(World::new(&["49"], 300, 0).without_batches()),
            connections: 2,
            rate: 300,
            seed: seed(),
        };
        self.sender = Some(Sender::start(&load));
        std::thread::sleep(Duration::from_secs(1));
    }

    pub fn quiet(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.stop();
        }
    }

    pub fn wait_settled(&self) {
        let backlog = || self.gateway.metrics().total("penstock_backlog_parcels");
        eventually("all is settled", Duration::from_secs(20), || backlog() == 0.0);
    }

    pub fn send(&self, count: usize) -> Vec<Vec<u8>> {
        let bodies: Vec<Vec<u8>> = (0..count).map(|n| self.unwanted.webhook(&[(n, false)]).body).collect();
        for body in &bodies {
            let mut connection = Connection::open(self.gateway.listen, Duration::from_secs(10)).unwrap();
            let header = ("x-hub-signature-256", signature(SECRET, body));
            connection.send(&http::post("/webhook", (header.0, &header.1), body)).unwrap();
            assert_eq!(connection.answer().unwrap().status(), 200);
        }
        bodies
    }

    pub fn letters(&self) -> usize {
        self.gateway.metrics().sum("penstock_dead_letters", &[("region", "eu")]) as usize
    }

    pub fn wait_for_letters(&self, count: usize) {
        eventually(&format!("{count} dead letters"), DEATH, || self.letters() == count);
    }

    /// `penstock dead ...` with the configuration; what it printed.
    pub fn dead(&self, arguments: &[&str]) -> String {
        let (code, out, errors) = self.dead_code(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{errors}");
        out
    }

    pub fn dead_code(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let config = self.gateway.config().display().to_string();
        let mut all = vec!["dead", arguments[0], "--config", &config];
        all.extend(&arguments[1..]);
        run(&all)
    }

    pub fn list(&self, filters: &[&str]) -> Vec<Value> {
        let mut arguments = vec!["list", "--json", "--limit", "0"];
        arguments.extend(filters);
        self.dead(&arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn ids(&self) -> Vec<String> {
        self.list(&[]).iter().map(|letter| letter["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Deliveries of unwanted bodies that were taken, by body.
    pub fn taken(&self) -> HashMap<Vec<u8>, usize> {
        let mut taken = HashMap::new();
        for parcel in self.region.parcels().iter().filter(|parcel| parcel.delivered()) {
            if http::find(parcel.body(), POISON.as_bytes()).is_some() {
                *taken.entry(parcel.body().to_vec()).or_default() += 1;
            }
        }
        taken
    }

    pub fn ask(&self, method: &str, target: &str, token: Option<&str>, body: &str) -> Message {
        let mut connection = Connection::open(self.gateway.admin, Duration::from_secs(10)).unwrap();
        let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\n{token}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.send(head.as_bytes()).unwrap();
        connection.answer().unwrap()
    }
}
