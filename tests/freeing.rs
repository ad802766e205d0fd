//! The disk holds what still waits and little else: a run that writes several times the disk's size,
//! with kills, with other numbers of cores after each, and with a region that is down all the time.
//!
//! `PENSTOCK_FREEING_SECONDS` sets how long (a push: 20; the full form is 3600), `PENSTOCK_KILLS` the
//! kills, `PENSTOCK_RATE` the webhooks per second, `PENSTOCK_SEED` repeats the moments. The gateway is this program itself, started once more
//! with segments of 1 MiB and little memory between the commit and the delivery ([`host`]).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use penstock::handoff::Limits;

use support::body::World;
use support::disk::Disk;
use support::gateway::{Gateway, run};
use support::hosted;
use support::http::{Connection, post};
use support::ledger::Ledger;
use support::metrics::{DUPLICATES, MEMORY, OPEN_FILES, SEGMENTS_REMOVED, SEGMENTS_REUSED, THIN_SEGMENTS};
use support::region::{Mode, Region};
use support::sender::{Load, Sender, send_for};
use support::settings::{Rule, Settings};
use support::{Random, SECRET, alone, eventually, seed, setting, signature};

/// Two regions that take what they get, and one that is down.
const PREFIXES: [&str; 3] = ["1", "91", "55"];
const DOWN: usize = 2;
const SEGMENT: u64 = 1 << 20;
/// So small that regions are fed from the journals all the time, while these are freed.
const LIMITS: Limits = Limits { frames: 4, held_bytes: 512 << 10, window: 200, kept: 20 };
/// Ingest and forwarding cores of each start.
const LAYOUTS: [(usize, usize); 4] = [(1, 1), (3, 2), (2, 1), (1, 2)];
const SETTLE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
/// One judged part of a run.
const PART: Duration = Duration::from_secs(4);
/// In which more comes for the region that is down.
const PARTS_WITH_OLD: u64 = 12;

#[test]
#[ignore = "is the gateway of the other tests"]
fn host() {
    hosted::run(LIMITS, |config| config.journal.segment = SEGMENT);
}

fn regions() -> [Region; 3] {
    ["us", "in", "br"].map(Region::start)
}

fn settings(regions: &[Region], ingest: usize, forward: usize) -> Settings {
    let rule = |(region, prefix): (&Region, &str)| Rule::new(region, &format!("prefixes = [\"{prefix}\"]"));
    let rules = regions.iter().zip(PREFIXES).map(rule).collect();
    Settings { ingest, forward, command: hosted::command, ..Settings::of(rules) }
}

fn load(gateway: &Gateway, prefixes: &[&str], padding: usize, rate: u32, seed: u64) -> Load {
    let world = Arc::new(World::new(prefixes, 30, padding));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate, seed }
}

/// Bytes of the webhooks that were answered 200.
fn bytes(ledger: &Ledger) -> u64 {
    let acked = ledger.sent().iter().filter(|sent| sent.acked().is_some());
    acked.map(|sent| sent.webhook.body.len() as u64).sum()
}

fn folders(data: &Path) -> usize {
    std::fs::read_dir(data.join("journal")).unwrap().count()
}

fn inspect(data: &Path) -> String {
    let (code, stdout, stderr) = run(&["journal", "inspect", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    stdout
}

#[test]
fn disk_stays_flat_while_many_times_its_size_goes_through_between_kills_and_one_region_is_down() {
    let _alone = alone();
    let Some(disk) = Disk::ext4("96M") else { return };
    let (seed, seconds, kills) =
        (seed(), setting("PENSTOCK_FREEING_SECONDS", 20), setting("PENSTOCK_KILLS", 4));
    let rate = setting("PENSTOCK_RATE", 1_000) as u32;
    let mut random = Random(seed);
    let mut regions = regions();
    regions[DOWN].set(Mode::Refuse);
    let data = disk.folder.join("data");
    let empty = disk.used();
    let mut gateway = Gateway::start_on(settings(&regions, 2, 2), &data);
    let mut old = Ledger::default();
    old.add(send_for(&load(&gateway, &[PREFIXES[DOWN]], 500, 50, seed), Duration::from_millis(500)));

    let start = Instant::now();
    let (mut written, mut part, mut killed) = (0, 0, 0);
    let (mut removed, mut reused, mut thin) = (0.0, 0.0, 0.0f64);
    let (mut most, mut memory, mut files) = (0, Vec::new(), Vec::new());
    while start.elapsed() < Duration::from_secs(seconds) || written < 3 * (96 << 20) {
        let mut ledger = Ledger::default();
        let sender = Sender::start(&load(&gateway, &PREFIXES[..DOWN], 14 << 10, rate, seed + part));
        // A few more of those that nobody takes; no more later, as what waits must have its room.
        if part < PARTS_WITH_OLD {
            old.add(send_for(&load(&gateway, &[PREFIXES[DOWN]], 500, 20, seed + part), PART / 4));
        }
        let mut pause = |random: &mut Random| {
            let end = Instant::now() + PART / 4 + Duration::from_millis(random.below(1000) as u64);
            while Instant::now() < end {
                most = most.max(disk.used() - empty);
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        pause(&mut random);
        let metrics = gateway.metrics();
        removed += metrics.total(SEGMENTS_REMOVED);
        reused += metrics.total(SEGMENTS_REUSED);
        thin = thin.max(metrics.total(THIN_SEGMENTS));
        memory.push(metrics.total(MEMORY));
        files.push(metrics.total(OPEN_FILES));
        if killed < kills && seconds * killed <= start.elapsed().as_secs() * kills {
            killed += 1;
            let at = gateway.kill9();
            ledger.killed(at);
            old.killed(at);
            let (ingest, forward) = LAYOUTS[random.below(LAYOUTS.len())];
            gateway.restart_with(ingest, forward);
            pause(&mut random);
        }
        pause(&mut random);
        ledger.add(sender.stop());
        let report = ledger.assert_kept(&gateway, &regions[..DOWN], SETTLE);
        let refused = report.sent - report.acked;
        written += bytes(&ledger);
        println!("part {part}: {} MiB in all, disk {} MiB, {refused} not acked", written >> 20, most >> 20);
        // What comes again from here on was never sent, as far as the next ledger knows.
        regions[..DOWN].iter().for_each(Region::forget);
        part += 1;
    }
    println!(
        "{} MiB through 96 MiB of disk, at most {} MiB used; {removed} segments removed, {reused} used again, at most \
         {thin} thin; {killed} kills",
        written >> 20,
        most >> 20
    );
    let mib = |bytes: &f64| bytes / f64::from(1 << 20);
    println!("memory MiB {:?}, open files {files:?}", memory.iter().map(mib).collect::<Vec<_>>());
    assert!(removed > 0.0 && reused > 0.0 && thin > 0.0, "nothing was freed: the test tested nothing");
    assert!(most < 64 << 20, "the disk was not kept free: {most} bytes");
    assert!(files.iter().all(|count| *count < 250.0), "{files:?}");
    assert!(memory.iter().all(|bytes| *bytes < f64::from(64 << 20)), "{memory:?}");
    let said = inspect(&data);
    assert!(said.contains("thin") && said.contains("floor"), "{said}");

    regions[DOWN].set(Mode::Ok);
    old.assert_kept(&gateway, &regions[DOWN..], SETTLE);
    eventually("only the journals in use are left, and little of them", PATIENCE, || {
        folders(&data) == gateway.settings.ingest && !inspect(&data).contains("thin")
    });
    // And nothing of all that comes back.
    let before: Vec<usize> = regions.iter().map(Region::count).collect();
    gateway.kill9();
    gateway.restart();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        regions.iter().map(Region::count).collect::<Vec<_>>(),
        before,
        "settled parcels were sent again"
    );
}

#[test]
fn repeat_is_dropped_although_the_segment_of_the_first_was_freed_also_after_a_kill() {
    let _alone = alone();
    let regions = regions();
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_on(settings(&regions, 1, 1), folder.path());
    let first = World::new(&PREFIXES, 1, 100).webhook(&[(0, false)]);
    let post = post("/webhook", ("x-hub-signature-256", &signature(SECRET, &first.body)), &first.body);
    let send = |gateway: &Gateway| {
        let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
        connection.send(&post).unwrap();
        assert_eq!(connection.answer().unwrap().status(), 200);
    };
    send(&gateway);
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load(&gateway, &PREFIXES, 14 << 10, 400, 1), Duration::from_secs(2)));
    let journal = std::fs::read_dir(folder.path().join("journal")).unwrap().next().unwrap().unwrap().path();
    eventually("the first segment is gone", PATIENCE, || !journal.join("0000000001.seg").exists());
    ledger.settle(&gateway, &regions, SETTLE);
    let before: Vec<usize> = regions.iter().map(Region::count).collect();
    let dropped = |gateway: &Gateway| {
        send(gateway);
        eventually("the repeat is known", PATIENCE, || gateway.metrics().total(DUPLICATES) >= 1.0);
        assert_eq!(regions.iter().map(Region::count).collect::<Vec<_>>(), before, "it was delivered again");
    };
    dropped(&gateway);
    gateway.kill9();
    gateway.restart();
    dropped(&gateway);
}

#[test]
fn journals_of_cores_that_are_no_more_go_with_their_folders() {
    let _alone = alone();
    let regions = regions();
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start_on(settings(&regions, 3, 1), folder.path());
    let mut ledger = Ledger::default();
    for (ingest, forward) in [(1, 1), (2, 2), (1, 1), (3, 1), (2, 1)] {
        ledger.add(send_for(&load(&gateway, &PREFIXES, 4 << 10, 800, 1), Duration::from_secs(1)));
        ledger.killed(gateway.kill9());
        gateway.restart_with(ingest, forward);
        eventually("journals that nobody writes are gone", PATIENCE, || folders(folder.path()) == ingest);
    }
    ledger.assert_kept(&gateway, &regions, SETTLE);
}

#[test]
fn full_disk_drains_and_takes_webhooks_again_once_the_regions_are_back() {
    let _alone = alone();
    let Some(disk) = Disk::tmpfs("40m") else { return };
    let mut regions = regions();
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let mut gateway = Gateway::start_on(settings(&regions, 1, 1), &disk.folder.join("data"));
    let mut ledger = Ledger::default();
    // Small webhooks: the marks of a segment take more room than is left anywhere.
    let sender = Sender::start(&load(&gateway, &PREFIXES, 200, 0, 1));
    eventually("readiness goes off", Duration::from_secs(120), || !gateway.is_ready());
    ledger.add(sender.stop());
    // A restart finds as little room as there was.
    ledger.killed(gateway.kill9());
    gateway.start_again();
    regions.iter_mut().for_each(|region| region.set(Mode::Ok));
    eventually("ready again", Duration::from_secs(60), || gateway.is_ready());
    ledger.add(send_for(&load(&gateway, &PREFIXES, 200, 200, 2), Duration::from_millis(500)));
    assert!(ledger.sent().last().is_some_and(|sent| sent.acked().is_some()));
    ledger.assert_kept(&gateway, &regions, SETTLE);
    eventually("the disk is free", PATIENCE, || disk.used() < 16 << 20);
}
