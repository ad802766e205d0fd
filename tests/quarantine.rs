//! One webhook that ends the process whenever it is handled: after three crashes it is a dead letter, and
//! everything else is delivered and archived as if nothing had been.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::body::World;
use support::gateway::{Gateway, run, serve};
use support::http::{Connection, find, post};
use support::ledger::Ledger;
use support::region::{Mode, Region};
use support::sender::{Load, Sender, Sent, post_one, send_for};
use support::settings::{Rule, Settings};
use support::{SECRET, archive, eventually, signature};

const PREFIXES: [&str; 2] = ["1", "91"];
const PATIENCE: Duration = Duration::from_secs(20);
/// Stands in the text of one message.
const POISON: &str = "hemlock";
/// Of who sends it, and of the first person of [`load`].
const PHONE: &str = "100000000000";

fn poisoned(config: &Path, step: &str) -> Command {
    let mut command = serve(config);
    command.env("PENSTOCK_POISON", format!("{step}:{POISON}"));
    command
}

fn regions() -> [Region; 2] {
    [Region::start("us"), Region::start("in")]
}

fn load(gateway: &Gateway, seed: u64) -> Load {
    let world = Arc::new(World::new(&PREFIXES, 20, 50));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 4, rate: 300, seed }
}

/// Sends the poison, and gives it back. Whether an answer comes before the end of the process is open.
fn send_poison(gateway: &Gateway) -> Sent {
    let mut webhook = World::new(&PREFIXES, 1, POISON.len()).webhook(&[(0, false)]);
    let filling = "x".repeat(POISON.len());
    webhook.body = String::from_utf8(webhook.body).unwrap().replace(&filling, POISON).into_bytes();
    let signature = signature(SECRET, &webhook.body);
    let request = post("/webhook", ("x-hub-signature-256", &signature), &webhook.body);
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    let sent = Instant::now();
    connection.send(&request).unwrap();
    let answered = connection.answer().ok().map(|answer| (Instant::now(), answer.status()));
    Sent { webhook, sent, answered }
}

/// Three crashes, and a fourth start that stays. What the ledger had before and gets after is kept.
fn three_crashes(settings: Settings, regions: &[Region]) -> (Gateway, Ledger) {
    let mut gateway = Gateway::start(settings);
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load(&gateway, 1), Duration::from_millis(400)));
    ledger.add(vec![send_poison(&gateway)]);
    for crash in 1..=3 {
        let status = gateway.wait_exit(PATIENCE);
        assert_eq!(status.code(), None, "it was to be killed: {status}");
        ledger.killed(Instant::now());
        assert!(gateway.said().matches("penstock-fault: poison").count() == crash, "{}", gateway.said());
        if crash < 3 {
            gateway.start_again();
        }
    }
    gateway.restart();
    ledger.add(send_for(&load(&gateway, 2), Duration::from_millis(400)));
    ledger.assert_kept_but(&gateway, regions, PATIENCE * 3);
    assert_eq!(gateway.said().matches("\"quarantined: ").count(), 1, "{}", gateway.said());
    assert_eq!(gateway.metrics().total("penstock_quarantined_total"), 1.0);
    (gateway, ledger)
}

fn letters(gateway: &Gateway) -> Vec<serde_json::Value> {
    gateway.letters().into_iter().map(|letter| letter.shown).collect()
}

/// One for the poison, and the next parcel of its conversation was told.
fn assert_given_up_once(gateway: &Gateway, regions: &[Region]) {
    let letters = letters(gateway);
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((&letter["reason"], &letter["region"]), (&"quarantined".into(), &"us".into()), "{letter}");
    assert_eq!(letter["state"], "waiting");
    let told = |region: &Region| {
        let mut delivered: Vec<_> = region.parcels();
        delivered.retain(|parcel| parcel.delivered() && find(parcel.body(), PHONE.as_bytes()).is_some());
        delivered.sort_by_key(|parcel| parcel.done);
        let gap = |parcel: &std::sync::Arc<support::region::Parcel>| {
            parcel.head.header("penstock-gap-before").map(str::to_owned)
        };
        delivered.iter().filter_map(gap).collect::<Vec<_>>()
    };
    assert_eq!(told(&regions[0]), ["1"], "told once");
    assert!(told(&regions[1]).is_empty());
}

fn forwarding_goes_on(step: fn(&Path) -> Command) {
    let regions = regions();
    let (mut gateway, mut ledger) = three_crashes(
        Settings { command: step, ingest: 2, forward: 2, ..Settings::new(&regions, &PREFIXES) },
        &regions,
    );
    assert_given_up_once(&gateway, &regions);
    // It stays a letter, for a person, over any number of starts.
    ledger.killed(gateway.kill9());
    gateway.restart();
    ledger.add(send_for(&load(&gateway, 3), Duration::from_millis(200)));
    assert_eq!(ledger.assert_kept_but(&gateway, &regions, PATIENCE * 3).dead.len(), 1, "the poison alone");
    assert_eq!(gateway.metrics().total("penstock_quarantined_total"), 1.0);
    assert_given_up_once(&gateway, &regions);
    gateway.terminate();
    let taken = regions.iter().flat_map(Region::parcels);
    assert!(taken.into_iter().all(|parcel| find(parcel.body(), POISON.as_bytes()).is_none()));
    let data = gateway.data().to_str().unwrap();
    let (_, said, _) = run(&["journal", "inspect", "--data-dir", data, "--entries", "--waiting"]);
    let waiting: Vec<&str> =
        said.lines().filter(|line| line.contains("waiting") && line.contains(" entry ")).collect();
    assert!(waiting.is_empty(), "{said}");
}

#[test]
fn webhook_that_ends_the_process_while_repeats_are_looked_for_is_quarantined_and_the_rest_flows() {
    forwarding_goes_on(|config| poisoned(config, "sift"));
}

#[test]
fn webhook_that_ends_the_process_while_its_parcel_is_made_is_quarantined_and_the_rest_flows() {
    forwarding_goes_on(|config| poisoned(config, "cut"));
}

/// It must be refused twice first, while others of its region are taken.
#[test]
fn webhook_that_ends_the_process_while_its_parcel_is_taken_apart_becomes_a_dead_letter_and_the_rest_flows() {
    let mut regions = regions();
    let command: fn(&Path) -> Command = |config| poisoned(config, "split");
    let rule = |n: usize| {
        let lines = format!("prefixes = [\"{}\"]\nretry = {{ attempts = 3 }}", PREFIXES[n]);
        Rule::new(&regions[n], &lines)
    };
    let rules = vec![rule(0), rule(1)];
    regions[0].set(Mode::Against(500, POISON));
    let mut gateway = Gateway::start(Settings { command, ..Settings::of(rules) });
    let sender = Sender::start(&load(&gateway, 1));
    let mut webhook = World::new(&["1"], 40, POISON.len()).webhook(&[(30, false), (31, false)]);
    let filling = "x".repeat(POISON.len());
    webhook.body = String::from_utf8(webhook.body).unwrap().replace(&filling, POISON).into_bytes();
    let mut ledger = Ledger::default();
    ledger.add(vec![post_one(gateway.listen, webhook)]);
    for crash in 1..=3 {
        assert_eq!(gateway.wait_exit(PATIENCE * 3).code(), None, "crash {crash}");
        ledger.killed(Instant::now());
        assert_eq!(gateway.said().matches("penstock-fault: poison split").count(), crash);
        gateway.start_again();
    }
    eventually("it is given up, whole", PATIENCE * 3, || {
        gateway.is_ready() && gateway.metrics().total("penstock_dead_letters") == 1.0
    });
    assert_eq!(gateway.metrics().total("penstock_quarantined_total"), 1.0);
    ledger.add(sender.stop());
    let report = ledger.assert_kept_but(&gateway, &regions, PATIENCE * 3);
    assert_eq!(report.dead.len(), 2, "both events of the poison, and nothing else: {report}");
    let letter = &letters(&gateway)[0];
    assert_eq!((letter["part"].as_u64(), letter["status"].as_u64()), (Some(0), Some(500)));
}

/// A version that can handle it gets it out; until then replays do no more harm than the webhook did.
#[test]
fn replay_that_ends_the_process_is_a_letter_again_and_one_that_does_not_is_delivered() {
    let regions = regions();
    let poison: fn(&Path) -> Command = |config| poisoned(config, "cut");
    let settings = Settings { command: poison, ..Settings::new(&regions, &PREFIXES) };
    let (mut gateway, _) = three_crashes(settings, &regions);
    let replay = |gateway: &Gateway| {
        let config = gateway.config().display().to_string();
        let (code, said, errors) =
            run(&["dead", "replay", "--config", &config, "--reason", "quarantined", "--yes"]);
        assert_eq!(code, Some(0), "{said}{errors}");
    };
    replay(&gateway);
    for crash in 1..=3 {
        assert_eq!(gateway.wait_exit(PATIENCE).code(), None, "crash {crash}");
        gateway.start_again();
    }
    eventually("ready at last", PATIENCE, || gateway.is_ready());
    eventually("a letter for a person again", PATIENCE, || letters(&gateway)[0]["state"] == "waiting");
    assert_eq!(letters(&gateway)[0]["reason"], "quarantined");
    assert_eq!(gateway.metrics().total("penstock_quarantined_total"), 2.0);

    gateway.terminate();
    gateway.settings.command = serve;
    std::fs::remove_file(gateway.data().join("handling")).unwrap();
    gateway.restart();
    replay(&gateway);
    eventually("no letter is left", PATIENCE, || letters(&gateway).is_empty());
    let mut taken = regions.iter().flat_map(Region::parcels);
    assert!(taken.any(|parcel| parcel.delivered() && find(parcel.body(), POISON.as_bytes()).is_some()));
}

#[test]
fn webhook_that_panics_is_quarantined_and_nobody_else_is_suspected() {
    let regions = regions();
    let command: fn(&Path) -> Command = |config| poisoned(config, "cut:panic");
    let settings = Settings { command, forward: 2, ..Settings::new(&regions, &PREFIXES) };
    let (gateway, _) = three_crashes(settings, &regions);
    assert_eq!(
        gateway.said().matches("after three times it is quarantined").count(),
        2,
        "{}",
        gateway.said()
    );
}

#[test]
fn webhook_that_ends_the_process_while_it_is_archived_is_archived_as_it_came() {
    let (regions, root) = (regions(), tempfile::tempdir().unwrap());
    let folder = |n: usize| root.path().join(["us", "in"][n]);
    let rule = |n: usize| {
        let lines = format!("prefixes = [\"{}\"]\narchive = \"file://{}\"", PREFIXES[n], folder(n).display());
        Rule::new(&regions[n], &lines)
    };
    (0..2).for_each(|n| std::fs::create_dir(folder(n)).unwrap());
    let command: fn(&Path) -> Command = |config| poisoned(config, "archive");
    let settings = Settings { command, ..Settings::of(vec![rule(0), rule(1)]) };
    let (mut gateway, ledger) = three_crashes(settings, &regions);
    gateway.terminate();
    let records = archive::read(&[folder(0), folder(1)]);
    let raw: Vec<_> = records.iter().filter(|record| record.json["body_base64"].is_string()).collect();
    assert_eq!(raw.len(), 1);
    assert!(find(&raw[0].body, POISON.as_bytes()).is_some());
    let others: Vec<_> = records.iter().filter(|record| record.json["body"].is_string()).cloned().collect();
    let is_poison = |sent: &Sent| find(&sent.webhook.body, POISON.as_bytes()).is_some();
    let sent: Vec<_> = ledger.sent().iter().filter(|sent| !is_poison(sent)).collect();
    archive::assert_kept(&others, &sent, &["us", "in"]);
}

#[test]
fn webhook_that_can_be_archived_in_no_way_is_kept_as_it_came_and_the_rest_is_archived() {
    let (regions, root) = (regions(), tempfile::tempdir().unwrap());
    let lines = format!("prefixes = [\"1\"]\narchive = \"file://{}\"", root.path().display());
    let command: fn(&Path) -> Command = |config| {
        let mut command = serve(config);
        command.env("PENSTOCK_POISON", format!("archive*:{POISON}"));
        command
    };
    let settings = Settings { command, ..Settings::of(vec![Rule::new(&regions[0], &lines)]) };
    let mut gateway = Gateway::start(settings);
    let poison = send_poison(&gateway);
    for crash in 0..6 {
        assert_eq!(gateway.wait_exit(PATIENCE).code(), None, "crash {crash}");
        gateway.start_again();
    }
    eventually("ready at last", PATIENCE, || gateway.is_ready());
    let sent = send_for(
        &Load { world: Arc::new(World::new(&["1"], 5, 0)), ..load(&gateway, 1) },
        Duration::from_millis(300),
    );
    gateway.terminate();
    assert!(!sent.is_empty());
    assert_eq!(archive::read(&[root.path().to_owned()]).len(), sent.len());
    let kept = std::fs::read_dir(gateway.data().join("unarchived")).unwrap();
    let [kept] = &kept.map(|kept| std::fs::read(kept.unwrap().path()).unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("one webhook was to be kept");
    };
    let head = find(kept, b"\n\n").unwrap();
    assert!(find(&kept[..head], b"x-hub-signature-256: ").is_some());
    assert!(kept[head + 2..] == poison.webhook.body, "not what was sent");
}
