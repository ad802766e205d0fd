//! What was answered 200 is in the archive of each of its regions, exactly, once: through kills at any
//! moment, and whatever becomes of the archive's disk.
//!
//! `PENSTOCK_KILLS` sets the kills (a push runs 6, the full form is `PENSTOCK_KILLS=40 cargo test
//! --test archive`), `PENSTOCK_SEED` repeats a run's moments and layouts.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

#[path = "../support/mod.rs"]
mod support;

mod buckets;
mod chain;
mod masked;
mod residency;
mod search;
mod tamper;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use support::archive::{self, Record};
use support::body::World;
use support::disk::Disk;
use support::gateway::{Gateway, run};
use support::http::{Connection, post};
use support::ledger::Ledger;
use support::region::Region;
use support::sender::{Load, Sender, Sent, send_for};
use support::settings::{Rule, Settings};
use support::{Random, SECRET, WASENDER_SECRET, alone, eventually, seed, setting, signature};

const PREFIXES: [&str; 3] = ["1", "91", "55"];
const NAMES: [&str; 3] = ["us", "in", "br"];
const LAYOUTS: [(usize, usize); 3] = [(1, 1), (3, 2), (2, 1)];
const PATIENCE: Duration = Duration::from_secs(20);
/// Objects as small as they may be, so that many are closed within a second.
const TINY: &str = "roll_bytes = \"4KiB\"\nroll_after = \"1s\"";

/// A gateway whose regions archive below a folder of the test's own.
struct Stage {
    gateway: Gateway,
    regions: [Region; 3],
    roots: [PathBuf; 3],
    _folder: TempDir,
}

impl Stage {
    fn start(lines: &str, make: impl FnOnce(&mut [PathBuf; 3])) -> Self {
        let folder = TempDir::new().unwrap();
        let mut roots = NAMES.map(|name| folder.path().join(name));
        roots.iter().for_each(|root| fs::create_dir(root).unwrap());
        make(&mut roots);
        let regions = NAMES.map(Region::start);
        let rule = |((region, prefix), root): ((&Region, &str), &PathBuf)| {
            let archive = format!("archive = \"file://{}\"", root.display());
            Rule::new(region, &format!("prefixes = [\"{prefix}\"]\n{archive}"))
        };
        let rules = regions.iter().zip(PREFIXES).zip(&roots).map(rule).collect();
        let settings = Settings { ingest: 2, archive: lines.to_owned(), ..Settings::of(rules) };
        Self { gateway: Gateway::start(settings), regions, roots, _folder: folder }
    }

    fn load(&self, seed: u64) -> Load {
        let world = Arc::new(World::new(&PREFIXES, 40, 100));
        let (address, path) = (self.gateway.listen, "/webhook".into());
        Load { address, path, world, connections: 8, rate: 800, seed }
    }

    /// Stops the gateway in good order: that closes every object. What is in the archives then.
    fn stop_and_read(&mut self) -> Vec<Record> {
        // Of many small ones some may still be on their way; a stop waits only so long.
        if self.gateway.settings.archive.contains(TINY) {
            eventually("all is archived", PATIENCE * 2, || {
                (0..3).all(|region| self.metric("lag_seconds", region) == 0.0)
            });
        }
        let (code, took) = self.gateway.terminate();
        assert_eq!(code, Some(0), "{}", self.gateway.said());
        println!("stopped after {took:.1?}");
        archive::read(&self.roots)
    }

    fn metric(&self, name: &str, region: usize) -> f64 {
        self.gateway.metrics().sum(&format!("penstock_archive_{name}"), &[("region", NAMES[region])])
    }
}

/// Posts one body that is not the ledger's; answers 200.
fn send(gateway: &Gateway, path: &str, secret: &str, body: &[u8]) {
    let proof = signature(secret, body);
    let header = match path {
        "/wasender" => ("x-webhook-signature", secret),
        _ => ("x-hub-signature-256", proof.as_str()),
    };
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    connection.send(&post(path, header, body)).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200, "{}", String::from_utf8_lossy(body));
}

#[test]
fn every_verified_webhook_is_in_the_archives_of_its_regions_exactly_as_it_came() {
    let _alone = alone();
    let mut stage = Stage::start("", |_| ());
    let sent = send_for(&stage.load(seed()), Duration::from_secs(2));
    // What the parser does not understand goes to the default region, and so to its archive.
    let odd: [&[u8]; 6] = [
        b"not JSON at all",
        b"\xff\x00\xfe bytes that are no text",
        "{\"control\":\"\u{1}\u{7f}\\u0000\t\r\n\u{2028}\"}".as_bytes(),
        b"{\"object\":\"whatsapp_business_account\",\"entry\":[]}",
        "\"\u{1f6b0} \\\" \\\\ \"".as_bytes(),
        b"{",
    ];
    for body in odd {
        send(&stage.gateway, "/webhook", SECRET, body);
    }
    // The provider repeats: each arrival is a webhook of its own.
    let repeated = stage.load(1).world.webhook(&[(0, false)]);
    (0..3).for_each(|_| send(&stage.gateway, "/webhook", SECRET, &repeated.body));
    let session =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads/wasender-own-sent.json")).unwrap();
    send(&stage.gateway, "/wasender", WASENDER_SECRET, &session);
    // A forgery is in no archive.
    let mut connection = Connection::open(stage.gateway.listen, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature("wrong", b"{}")), b"{}")).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 401);

    let records = stage.stop_and_read();
    let (mut own, rest): (Vec<Record>, Vec<Record>) = records.into_iter().partition(|record| {
        odd.iter().any(|body| *body == record.body) || record.body == repeated.body || record.body == session
    });
    archive::assert_kept(&rest, &sent.iter().collect::<Vec<_>>(), &NAMES);
    assert_eq!(own.len(), odd.len() + 3 + 1);
    own.retain(|record| {
        assert_eq!(record.json["v"], 1);
        assert_eq!(record.json["gateway"], "edge-test");
        assert_eq!(record.json["sha256"], archive::sha256(&record.body));
        assert!(record.json["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(record.json["headers"]["content-type"], "application/json");
        if odd.iter().any(|body| *body == record.body) {
            assert_eq!(record.region, 0, "not understood: the default region's");
            assert_eq!(record.json["events"][0]["kind"], "opaque");
            assert_eq!(record.json["events"][0]["user"], serde_json::Value::Null);
            assert_eq!(record.json.get("body").is_some(), std::str::from_utf8(&record.body).is_ok());
            return false;
        }
        true
    });
    for record in own.iter().filter(|record| record.body == repeated.body) {
        assert_eq!(record.json["events"][0]["kind"], "message");
        assert_eq!(record.json["events"][0]["user"], "100000000000");
        let signature = signature(SECRET, &repeated.body);
        assert_eq!(record.json["headers"]["x-hub-signature-256"], signature);
    }
    let session = own.iter().find(|record| record.body == session).unwrap();
    assert_eq!(session.json["source"], "sessions");
    assert!(!session.json.to_string().contains(WASENDER_SECRET), "the session's secret is not kept");
    let mut ids: Vec<&str> =
        own.iter().chain(&rest).filter_map(|record| record.json["id"].as_str()).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    // A webhook over several regions has one id in all their archives.
    assert!(ids.len() < count, "no webhook went to two regions");
}

#[test]
fn whole_webhooks_are_kept_by_every_region_concerned_if_asked() {
    let _alone = alone();
    let mut stage = Stage::start("mixed = \"whole\"", |_| ());
    let webhook = stage.load(1).world.webhook(&[(0, false), (40, true), (80, false)]);
    send(&stage.gateway, "/webhook", SECRET, &webhook.body);
    let records = stage.stop_and_read();
    assert_eq!(records.iter().map(|record| record.region).collect::<Vec<_>>(), [0, 1, 2]);
    for record in records {
        assert_eq!(record.body, webhook.body);
        assert_eq!(record.json["events"].as_array().unwrap().len(), 3);
        assert!(record.json.get("ranges").is_none());
    }
}

#[test]
fn no_kill_loses_a_webhook_or_brings_it_into_a_second_object() {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 6));
    let mut random = Random(seed);
    let mut stage = Stage::start(TINY, |_| ());
    let sender = Sender::start(&stage.load(seed));
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(50 + random.below(1500) as u64));
        stage.gateway.kill9();
        let (ingest, forward) = LAYOUTS[random.below(LAYOUTS.len())];
        // Sometimes it does not even get to its first webhook.
        if random.below(3) == 0 {
            stage.gateway.start_and_kill_after(Duration::from_millis(random.below(300) as u64));
        }
        let objects: usize = stage.roots.iter().map(|root| archive::files(root).len()).sum();
        println!("kill {kill}/{kills}, {objects} files in the archives");
        stage.gateway.restart_with(ingest, forward);
    }
    std::thread::sleep(Duration::from_millis(300));
    let sent = sender.stop();
    let sent: Vec<&Sent> = sent.iter().collect();
    // A stop waits for an archiver only so long, and each of these objects costs a slow disk five syncs.
    archive::settle(&stage.roots, &sent, PATIENCE * 2);
    // Acks and deliveries were not its business: they are as without an archive.
    let records = stage.stop_and_read();
    archive::assert_kept(&records, &sent, &NAMES);
    let mut objects: Vec<&Path> = records.iter().map(|record| record.object.as_path()).collect();
    objects.dedup();
    assert!(
        objects.len() > 10 * kills as usize,
        "only {} objects: too few to be killed between",
        objects.len()
    );
}

/// While `broken` its archive takes nothing; the others do, and nobody else notices.
fn heals(stage: &mut Stage, broken: usize, trouble: &str, heal: impl FnOnce()) {
    let mut ledger = Ledger::default();
    ledger.add(send_for(&stage.load(7), Duration::from_secs(2)));
    eventually("the alarm", PATIENCE, || stage.metric("failing", broken) == 1.0);
    assert!(stage.metric("failures_total", broken) >= 1.0);
    eventually("the others archive", PATIENCE, || {
        (0..3).filter(|region| *region != broken).all(|region| stage.metric("objects_total", region) > 0.0)
    });
    assert!((0..3).filter(|region| *region != broken).all(|region| stage.metric("failing", region) == 0.0));
    let lag = stage.metric("lag_seconds", broken);
    assert!((0.5..60.0).contains(&lag), "lag {lag}");
    let said = stage.gateway.said();
    assert_eq!(said.matches("cannot archive").count(), 1, "one line per episode: {said}");
    assert!(said.contains(trouble), "the log says why: {said}");
    ledger.settle(&stage.gateway, &stage.regions, PATIENCE);
    heal();
    eventually("it archives again", PATIENCE * 2, || stage.metric("failing", broken) == 0.0);
    ledger.add(send_for(&stage.load(8), Duration::from_secs(1)));
    ledger.assert_kept(&stage.gateway, &stage.regions, PATIENCE);
    archive::settle(&stage.roots, &ledger.sent().iter().collect::<Vec<&Sent>>(), PATIENCE);
    eventually("no lag", PATIENCE, || (0..3).all(|region| stage.metric("lag_seconds", region) == 0.0));
    assert!(ledger.sent().iter().all(|sent| sent.acked().is_some()), "an answer failed");
    let records = stage.stop_and_read();
    archive::assert_kept(&records, &ledger.sent().iter().collect::<Vec<&Sent>>(), &NAMES);
}

#[test]
fn an_archive_that_is_not_mounted_catches_up_once_it_is() {
    let _alone = alone();
    let mut stage = Stage::start(TINY, |roots| fs::remove_dir(&roots[1]).unwrap());
    let root = stage.roots[1].clone();
    heals(&mut stage, 1, "No such file", || fs::create_dir(root).unwrap());
}

#[test]
fn a_full_archive_catches_up_once_there_is_room() {
    let _alone = alone();
    let Some(disk) = Disk::tmpfs("4M") else { return };
    let ballast = disk.folder.join("ballast");
    let folder = disk.folder.join("br");
    fs::create_dir(&folder).unwrap();
    let mut stage = Stage::start(TINY, |roots| roots[2].clone_from(&folder));
    // Fills what is left; the last write fails.
    fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
    heals(&mut stage, 2, "No space left", || fs::remove_file(ballast).unwrap());
}

#[test]
fn a_region_without_an_archive_leaves_no_trace() {
    let regions = [Region::start("us")];
    let mut gateway = Gateway::start(Settings::new(&regions, &["1"]));
    let world = World::new(&["1"], 1, 0);
    send(&gateway, "/webhook", SECRET, &world.webhook(&[(0, false)]).body);
    assert_eq!(gateway.metrics().total("penstock_archive_lag_seconds"), 0.0);
    assert_eq!(gateway.terminate().0, Some(0));
    assert!(!gateway.data().join("archive").exists());
}

#[test]
fn a_stop_in_good_order_archives_everything_and_a_start_repeats_nothing() {
    let _alone = alone();
    let mut stage = Stage::start("", |_| ());
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.extend(send_for(&stage.load(seed()), Duration::from_millis(500)));
        let records = stage.stop_and_read();
        archive::assert_kept(&records, &sent.iter().collect::<Vec<_>>(), &NAMES);
        stage.gateway.restart_with(1, 1);
    }
}

#[test]
fn check_tells_where_regions_archive_and_whether_they_can() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("us");
    let region = Region::start("us");
    let rule = Rule::new(&region, &format!("archive = \"file://{}\"", root.display()));
    let path = folder.path().join("penstock.toml");
    fs::write(&path, Settings::of(vec![rule]).toml(&folder.path().join("data"), 20_000, 20_001)).unwrap();
    let file = path.to_str().unwrap();
    let (code, said, _) = run(&["check", "--config", file]);
    assert_eq!(code, Some(0));
    assert!(said.contains(&format!("archive  us: file://{}", root.display())), "{said}");
    let (code, _, said) = run(&["check", "--config", file, "--online"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("region \"us\".archive") && said.contains("to do"), "{said}");
    fs::create_dir(&root).unwrap();
    let (code, said, _) = run(&["check", "--config", file, "--online"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("takes files"), "{said}");
    assert!(archive::files(&root).is_empty());
}

#[test]
fn objects_are_read_by_the_tools_that_auditors_have() {
    let _alone = alone();
    let mut stage = Stage::start(TINY, |_| ());
    send_for(&stage.load(seed()), Duration::from_secs(2));
    send(&stage.gateway, "/webhook", SECRET, b"\xff no text");
    let records = stage.stop_and_read();
    let root = stage.roots[0].to_str().unwrap();
    let own = records.iter().filter(|record| record.region == 0).count();

    let jq = "set -o pipefail; find \"$0\" -name '*.zst' -print0 | xargs -0 zstdcat | jq -es \
              'all(.v == 1 and .region == \"us\" and (.events | length) > 0) and length'";
    match Command::new("bash").args(["-c", "command -v zstdcat jq"]).output() {
        Ok(found) if found.status.success() => {
            let count = Command::new("bash").args(["-c", jq, root]).output().unwrap();
            assert!(count.status.success(), "{}", String::from_utf8_lossy(&count.stderr));
        }
        _ => println!("SKIPPED: zstdcat and jq are not installed; `bash .ci/run tools` installs them"),
    }

    let script = "import duckdb, sys\n\
        rows = duckdb.sql(f\"select count(*), count(distinct id), min(dt) <= max(dt), count(hour), \
        sum(len(events)) > 0 from read_json('{sys.argv[1]}/*/*/*.jsonl.zst', hive_partitioning = true)\")\n\
        print(rows.fetchall()[0])\n";
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/python");
    if !Path::new(packages).join("duckdb").exists() {
        println!("SKIPPED: DuckDB is not installed; `bash .ci/run tools` installs it");
        return;
    }
    // The records of one user, as README.md has it.
    let user = records
        .iter()
        .filter(|record| record.region == 0)
        .find_map(|record| record.json["events"][0]["user"].as_str());
    let user = user.unwrap();
    let has = |record: &&Record| {
        let events = record.json["events"].as_array().unwrap();
        record.region == 0 && events.iter().any(|event| event["user"] == user)
    };
    let theirs = records.iter().filter(has).count();
    let query = "import duckdb, sys\n\
        rows = duckdb.sql(f\"SELECT received_at, id, body FROM read_json('{sys.argv[1]}/*/*/*.jsonl.zst', hive_partitioning = true) \
        WHERE dt >= '2026-01-01' AND list_contains(list_transform(events, lambda e: e.user), '{sys.argv[2]}') \
        ORDER BY received_at\")\n\
        print(len(rows.fetchall()))\n";
    let read =
        Command::new("python3").args(["-c", query, root, user]).env("PYTHONPATH", packages).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), theirs.to_string());

    let start = Instant::now();
    let read =
        Command::new("python3").args(["-c", script, root]).env("PYTHONPATH", packages).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let said = String::from_utf8_lossy(&read.stdout);
    assert_eq!(said.trim(), format!("({own}, {own}, True, {own}, True)"));
    println!("DuckDB read {own} records in {:.1?}", start.elapsed());
}
