//! Archives in buckets of real object stores, through kills of the gateway and outages of the store.
//!
//! `PENSTOCK_KILLS` and `PENSTOCK_WEBHOOKS` set how much (a push runs 4 kills; the full form is `PENSTOCK_KILLS=40
//! PENSTOCK_WEBHOOKS=1000000 PENSTOCK_BIN=target/release/penstock cargo test --test archive -- --nocapture minio`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{LAYOUTS, NAMES, PATIENCE, PREFIXES, TINY};
use crate::chain::keys;
use crate::support::archive;
use crate::support::body::World;
use crate::support::gateway::Gateway;
use crate::support::ledger::Ledger;
use crate::support::metrics::MEMORY;
use crate::support::region::Region;
use crate::support::s3::{Kind, PASSWORD, REGION, Server, USER};
use crate::support::sender::{Load, Sender, Sent};
use crate::support::settings::{Rule, Settings};
use crate::support::{Random, alone, eventually, seed, setting};

/// Buffers of connections and cores, three regions' parts on their way, and a million remembered events at 31 bytes.
const RESIDENT_MIB: f64 = 512.0;

/// A gateway whose regions archive in buckets of one store, locked and signed.
struct Stage {
    gateway: Gateway,
    regions: [Region; 3],
    server: Server,
    public: PathBuf,
    /// What was read of the buckets.
    mirror: [PathBuf; 3],
    _folder: TempDir,
}

impl Stage {
    fn start(kind: Kind, lines: &str) -> Option<Self> {
        let server = Server::start(kind)?;
        let folder = TempDir::new().unwrap();
        let [private, public] = keys(folder.path(), "archive.pem");
        let regions = NAMES.map(Region::start);
        let rule = |(region, prefix): (&Region, &str)| {
            server.make_locked_bucket(&bucket(&region.name));
            let (url, name) = (server.url(), bucket(&region.name));
            let lines = format!(
                "prefixes = [\"{prefix}\"]\narchive = \"s3://{name}/whatsapp\"\narchive_store = {{ endpoint = \"{url}\", region = \"{REGION}\", \
                 access_key = \"{USER}\", secret_key = \"{PASSWORD}\" }}"
            );
            Rule::new(region, &lines)
        };
        let rules = regions.iter().zip(PREFIXES).map(rule).collect();
        let archive = format!(
            "{lines}\nsigning_key = \"file:{}\"\nlock = {{ mode = \"compliance\", days = 1 }}",
            private.display()
        );
        let settings = Settings { ingest: 2, archive, ..Settings::of(rules) };
        let mirror = NAMES.map(|name| folder.path().join(name));
        mirror.iter().for_each(|root| fs::create_dir(root).unwrap());
        Some(Self { gateway: Gateway::start(settings), regions, server, public, mirror, _folder: folder })
    }

    fn load(&self, seed: u64, rate: u32) -> Load {
        let world = Arc::new(World::new(&PREFIXES, 40, 100));
        let (address, path) = (self.gateway.listen, "/webhook".into());
        Load { address, path, world, connections: 8, rate, seed }
    }

    fn metric(&self, name: &str, region: &str) -> f64 {
        self.gateway.metrics().sum(&format!("penstock_archive_{name}"), &[("region", region)])
    }

    /// Copies what is new in the buckets, read as their owner with nothing of the gateway's code.
    fn read(&self) {
        for (name, root) in NAMES.iter().zip(&self.mirror) {
            for key in self.server.keys(&bucket(name)) {
                let path = root.join(key.strip_prefix("whatsapp/").unwrap_or(&key));
                if !path.exists() {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, self.server.get(&bucket(name), &key)).unwrap();
                }
            }
        }
    }

    /// Every webhook that was answered is in each of its buckets once, locked, and all chains are whole: read as they are,
    /// and straight from the store.
    fn judge(&mut self, sent: &[&Sent]) {
        // A gateway that started just now does not know yet what it lacks.
        archive::settle_copy(&self.mirror, sent, PATIENCE * 3, || self.read());
        eventually("no archive lags", PATIENCE * 6, || {
            NAMES
                .iter()
                .all(|name| self.metric("lag_seconds", name) == 0.0 && self.metric("failing", name) == 0.0)
        });
        let (code, took) = self.gateway.terminate();
        assert_eq!(code, Some(0), "{}", self.gateway.said());
        println!("stopped after {took:.1?}");
        self.read();
        let records = archive::read(&self.mirror);
        archive::assert_kept(&records, sent, &NAMES);
        for (at, (name, root)) in NAMES.iter().zip(&self.mirror).enumerate() {
            let own = records.iter().filter(|record| record.region == at).count();
            for url in [format!("s3://{}/whatsapp", bucket(name)), root.display().to_string()] {
                let answer = self.verify(&url, name);
                assert_eq!(answer["problems"], Value::Array(Vec::new()), "{url}: {answer:#}");
                assert_eq!(answer["chains"][0]["records"], own, "{url}");
                let (code, found, told) = self.run(&["archive", "search", &url, "--source", "main"]);
                assert_eq!((code, told.as_str()), (Some(0), ""), "{url}");
                assert_eq!(found.lines().count(), own, "{url}");
            }
            for key in self.server.keys(&bucket(name)) {
                assert_eq!(self.server.versions(&bucket(name), &key).len(), 1, "{key} was put twice");
            }
            let key = &self.server.keys(&bucket(name))[0];
            let version = &self.server.versions(&bucket(name), key)[0];
            let query = format!("versionId={version}");
            let path = format!("/{}/{}", bucket(name), key.replace('=', "%3D"));
            let reply = self.server.ask("DELETE", &path, &query, &[]).unwrap();
            assert!(reply.status() >= 400, "a locked version was deleted: {}", reply.status());
        }
        println!(
            "{} records in the buckets, all chains whole, each object there once and locked",
            records.len()
        );
    }

    fn verify(&self, url: &str, region: &str) -> Value {
        let key = self.public.display().to_string();
        let (_, said, told) =
            self.run(&["archive", "verify", url, "--json", "--key", &key, "--region", region]);
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{url}: {told}"))
    }

    /// Whoever reads, with the store's keys; exit code, what was printed and told.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_penstock"))
            .args(arguments)
            .env("AWS_ACCESS_KEY_ID", USER)
            .env("AWS_SECRET_ACCESS_KEY", PASSWORD)
            .env("AWS_REGION", REGION)
            .env("AWS_ENDPOINT_URL", self.server.url())
            .env("AWS_ALLOW_HTTP", "true")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

fn bucket(region: &str) -> String {
    format!("audit-{region}")
}

/// Kills of the gateway and outages of the store, at any moment.
fn trouble(kind: Kind) {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 4));
    let webhooks = setting("PENSTOCK_WEBHOOKS", 0);
    let mut random = Random(seed);
    let (rate, lines) = match webhooks {
        0 => (500, "roll_bytes = \"64KiB\"\nroll_after = \"1s\""),
        _ => (4_000, "roll_bytes = \"4MiB\"\nroll_after = \"5s\""),
    };
    let Some(mut stage) = Stage::start(kind, lines) else { return };
    let sender = Sender::start(&stage.load(seed, rate));
    let mut resident: f64 = 0.0;
    let pause = (webhooks / u64::from(rate) * 1000 / kills.max(1)).max(1500);
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(pause / 2 + random.below(pause as usize / 2) as u64));
        let is_out = kill % 2 == 0;
        if is_out {
            stage.server.signal("STOP");
            std::thread::sleep(Duration::from_millis(random.below(1500) as u64));
        }
        resident = resident.max(stage.gateway.metrics().total(MEMORY));
        stage.gateway.kill9();
        let (ingest, forward) = LAYOUTS[random.below(LAYOUTS.len())];
        stage.gateway.restart_with(ingest, forward);
        if is_out {
            std::thread::sleep(Duration::from_millis(random.below(2000) as u64));
            stage.server.signal("CONT");
        }
        println!("{kind:?}: kill {kill}/{kills}, {} acknowledged", sender.acked());
    }
    eventually("as many as were asked for", Duration::from_secs(3600), || sender.acked() >= webhooks);
    std::thread::sleep(Duration::from_millis(300));
    let sent = sender.stop();
    resident = resident.max(stage.gateway.metrics().total(MEMORY));
    let cells = |name: &str| NAMES.iter().map(|region| stage.metric(name, region)).sum::<f64>();
    let (raw, stored) = (cells("raw_bytes_total"), cells("stored_bytes_total"));
    let mib = resident / f64::from(1 << 20);
    println!("at most {mib:.0} MiB resident; raw / stored so far {:.2}", raw / stored.max(1.0));
    assert!(mib < RESIDENT_MIB, "{mib:.0} MiB resident");
    stage.judge(&sent.iter().collect::<Vec<_>>());
}

#[test]
fn kills_and_outages_lose_nothing_and_put_nothing_twice_into_minio() {
    trouble(Kind::Minio);
}

#[test]
fn kills_and_outages_lose_nothing_and_put_nothing_twice_into_versitygw() {
    trouble(Kind::Versity);
}

/// The store is away: answers and deliveries do not feel it, and it catches up by itself.
#[test]
fn a_store_that_is_away_is_an_alarm_and_nothing_else() {
    let _alone = alone();
    let Some(mut stage) = Stage::start(Kind::Versity, TINY) else { return };
    let mut ledger = Ledger::default();
    let sender = Sender::start(&stage.load(1, 300));
    std::thread::sleep(Duration::from_secs(2));
    stage.server.stop();
    eventually("the alarm", PATIENCE, || NAMES.iter().all(|name| stage.metric("failing", name) == 1.0));
    std::thread::sleep(Duration::from_secs(3));
    let spooled: f64 = NAMES.iter().map(|name| stage.metric("spool_bytes", name)).sum();
    assert!(spooled > 0.0 && spooled < 3e6, "{spooled} bytes wait");
    let unreachable =
        stage.gateway.metrics().sum("penstock_archive_failures_total", &[("reason", "unreachable")]);
    assert!(unreachable > 0.0);
    stage.server.start_again();
    ledger.add(sender.stop());
    ledger.assert_kept(&stage.gateway, &stage.regions, PATIENCE);
    assert!(ledger.sent().iter().all(|sent| sent.acked().is_some()), "an answer failed");
    let said = stage.gateway.said();
    assert_eq!(said.matches("cannot archive").count(), 3, "one line per region and episode: {said}");
    stage.judge(&ledger.sent().iter().collect::<Vec<&Sent>>());
}

/// What was asked for and cannot be is said loudly, and nothing counts as archived.
#[test]
fn a_bucket_that_cannot_lock_archives_nothing() {
    let _alone = alone();
    let Some(mut stage) = Stage::start(Kind::Minio, TINY) else { return };
    stage.gateway.kill9();
    let plain = bucket("us") + "-plain";
    stage.server.make_bucket(&plain);
    for rule in &mut stage.gateway.settings.regions {
        rule.lines = rule.lines.replace(&format!("s3://{}/", bucket("us")), &format!("s3://{plain}/"));
    }
    stage.gateway.restart();
    let sender = Sender::start(&stage.load(1, 300));
    eventually("the alarm", PATIENCE, || stage.metric("failing", "us") == 1.0);
    eventually("the others archive", PATIENCE, || stage.metric("objects_total", "in") > 0.0);
    let sent = sender.stop();
    assert!(stage.metric("failures_total", "us") > 0.0 && stage.metric("objects_total", "us") == 0.0);
    let said = stage.gateway.said();
    assert!(said.contains("unlocked"), "{said}");
    assert!(!stage.server.keys(&plain).iter().any(|key| key.contains("dt=")));
    let config = stage.gateway.config();
    let (code, _, told) = check(&config);
    assert!(code == Some(1) && told.contains("region \"us\".archive"), "{told}");
    // The bucket of before, and all is well.
    stage.gateway.kill9();
    for rule in &mut stage.gateway.settings.regions {
        rule.lines = rule.lines.replace(&format!("s3://{plain}/"), &format!("s3://{}/", bucket("us")));
    }
    stage.gateway.restart();
    let (code, said, told) = check(&stage.gateway.config());
    assert_eq!(code, Some(0), "{said}{told}");
    eventually("it archives what it lacked", PATIENCE, || stage.metric("objects_total", "us") > 0.0);
    stage.judge(&sent.iter().collect::<Vec<_>>());
}

fn check(config: &Path) -> (Option<i32>, String, String) {
    crate::support::gateway::run(&["check", "--config", config.to_str().unwrap(), "--online"])
}
