//! Disks that fail, lie about their size, stand still, or change what they hold.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::stage::{PREFIXES, Stage};
use crate::support::body::World;
use crate::support::disk::Disk;
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, find, post};
use crate::support::ledger::Ledger;
use crate::support::metrics::MEMORY;
use crate::support::region::{Mode, Region};
use crate::support::sender::{Load, Sender};
use crate::support::settings::Settings;
use crate::support::{SECRET, alone, signature};
use crate::{armed, row};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_failed_or_short_write_ends_the_process_with_74_and_nothing_is_lost() {
    if !armed() {
        return;
    }
    let _alone = alone();
    let mut stage = Stage::start((1, 1), None, 300, 1);
    stage.shipped(true);
    stage.kill();
    let faults = [
        "frame-write=eio@30",
        "frame-written=eio@30",
        "frame-written=enospc@30",
        "frame-written=short@30",
        "keys-write=eio@3",
        "keys-written=eio@3",
    ];
    for fault in faults {
        let point = fault.split('=').next().unwrap();
        let before = stage.fired(point);
        stage.arm(fault);
        stage.gateway.start_again();
        let status = stage.wait_ended(PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{fault}: it goes on:\n{}", stage.gateway.said()));
        assert_eq!(status.code(), Some(74), "{fault}: {}", stage.gateway.said());
        assert_eq!(stage.fired(point), before + 1, "{fault}");
        row("a write fails", fault, 1, "ended with 74");
    }
    stage.disarm();
    stage.gateway.restart();
    stage.judge();
}

#[test]
fn device_that_is_smaller_than_it_says_ends_the_process_and_a_healthy_copy_goes_on() {
    let _alone = alone();
    let Some(disk) = Disk::thin("600M", "160M") else { return };
    let mut regions = ["us", "in", "br"].map(Region::start);
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let data = disk.folder.join("data");
    let mut gateway = Gateway::start_on(Settings::new(&regions, &PREFIXES), &data);
    let world = World::new(&PREFIXES, 30, 2 << 10).into();
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate: 300, seed: 1 };
    let sender = Sender::start(&load);
    std::thread::sleep(Duration::from_secs(1));
    // The device is full before its file system is; what is acked must be there all the same.
    let ballast = format!("of={}", disk.folder.join("ballast").display());
    Command::new("dd").args(["if=/dev/urandom", &ballast, "bs=1M", "conv=fsync"]).output().unwrap();
    let status = gateway.wait_exit(Duration::from_secs(60));
    assert_eq!(status.code(), Some(74), "{}", gateway.said());
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    ledger.killed(Instant::now());
    let healthy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(&data).arg(healthy.path()).status().unwrap();
    assert!(copied.success());
    drop(gateway);
    let gateway = Gateway::start_on(Settings::new(&regions, &PREFIXES), &healthy.path().join("data"));
    regions.iter_mut().for_each(|region| region.set(Mode::Ok));
    let report = ledger.assert_kept(&gateway, &regions, Duration::from_secs(60));
    let result = format!("ended with 74, {} acked, 0 lost on a healthy copy", report.acked);
    row("device full below its file system", "sparse image on a small tmpfs", 1, &result);
}

#[test]
fn slow_disk_costs_time_alone() {
    if !armed() {
        return;
    }
    let _alone = alone();
    // The second one is slow for each write.
    for (fault, seconds, gap) in
        [("frame-write=sleep/5000@50", 7, 4.0), ("frame-write=sleep/100@20+", 3, 0.09)]
    {
        let mut stage = Stage::start((1, 1), None, 1000, 1);
        stage.shipped(true);
        stage.kill();
        stage.arm(fault);
        stage.gateway.restart();
        let before = stage.gateway.metrics().total(MEMORY);
        let (mut last, mut longest) = ((stage.acked(), Instant::now()), Duration::ZERO);
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
            longest = longest.max(last.1.elapsed());
            if stage.acked() > last.0 {
                last = (stage.acked(), Instant::now());
            }
        }
        let grown = (stage.gateway.metrics().total(MEMORY) - before) / f64::from(1 << 20);
        assert_eq!(stage.fired("frame-write"), 1);
        assert!(longest.as_secs_f64() > gap, "the disk was not slow: {longest:?}");
        assert!(grown < 64.0, "memory grew by {grown} MiB");
        stage.judge();
        let result = format!("longest without an ack {longest:.1?}, memory {grown:+.0} MiB, no end");
        row("slow disk", fault, 1, &result);
    }
}

/// Where some bytes lie in the segments of a journal.
fn whereabouts(data: &Path, bytes: &[u8]) -> Option<(PathBuf, u64)> {
    let journals = fs::read_dir(data.join("journal")).unwrap();
    for journal in journals.map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|ending| ending == "seg")
                && let Some(at) = find(&fs::read(&file).unwrap(), bytes)
            {
                return Some((file, at as u64));
            }
        }
    }
    None
}

/// After a stop in good order, or an idle moment before a kill, even the newest frame is proven: that it
/// is damaged is said, and not taken for a write that was never finished.
#[test]
fn damage_to_the_newest_webhook_is_reported_and_not_taken_for_a_tear() {
    let _alone = alone();
    for stopped in [true, false] {
        // Nobody takes it: no mark comes after it.
        let mut regions = ["us", "in", "br"].map(Region::start);
        regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
        let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
        let webhook = World::new(&PREFIXES, 1, 0).webhook(&[(0, false)]);
        let proof = signature(SECRET, &webhook.body);
        let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
        connection.send(&post("/webhook", ("x-hub-signature-256", &proof), &webhook.body)).unwrap();
        assert_eq!(connection.answer().unwrap().status(), 200);
        if stopped {
            assert_eq!(gateway.terminate().0, Some(0));
        } else {
            std::thread::sleep(Duration::from_millis(500));
            gateway.kill9();
        }
        let (file, at) = whereabouts(gateway.data(), webhook.events[0].id.as_bytes()).unwrap();
        fs::File::options().write(true).open(file).unwrap().write_all_at(b"?", at).unwrap();
        gateway.restart();
        let said = gateway.said();
        assert!(said.contains("damaged journal: these records were durable and are lost"), "{said}");
        let how = if stopped { "flipped byte after a stop" } else { "flipped byte after an idle moment" };
        row("damaged newest webhook", how, 1, "reported with its range");
    }
}
