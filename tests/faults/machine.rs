//! A machine that freezes the process, sets its clock, refuses it descriptors, or starts it again and again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::row;
use crate::stage::{PREFIXES, Stage};
use crate::support::body::World;
use crate::support::gateway::Gateway;
use crate::support::http::Connection;
use crate::support::ledger::Ledger;
use crate::support::region::Region;
use crate::support::sender::{Load, Sender};
use crate::support::settings::Settings;
use crate::support::{Random, alone, eventually, seed};

const PATIENCE: Duration = Duration::from_secs(20);
const CPU: &str = "process_cpu_seconds_total";

#[test]
fn frozen_process_goes_on_where_it_was() {
    let _alone = alone();
    let stage = Stage::start((2, 2), None, 300, 1);
    std::thread::sleep(Duration::from_secs(1));
    stage.gateway.signal("STOP");
    std::thread::sleep(Duration::from_millis(200));
    let frozen = stage.acked();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(stage.acked(), frozen, "it was not frozen");
    stage.gateway.signal("CONT");
    eventually("it answers again", PATIENCE, || stage.acked() > frozen + 20);
    stage.judge();
    row("process frozen", "SIGSTOP for 5 s, SIGCONT", 1, "went on, 0 lost, 0 out of order");
}

#[test]
fn starts_that_are_killed_at_once_change_nothing() {
    let _alone = alone();
    let mut random = Random(seed());
    let mut stage = Stage::start((3, 2), None, 300, 1);
    std::thread::sleep(Duration::from_secs(1));
    stage.kill();
    for _ in 0..10 {
        stage.gateway.start_and_kill_after(Duration::from_millis(random.below(100) as u64));
        std::thread::sleep(Duration::from_millis(50));
        stage.ledger.killed(Instant::now());
    }
    stage.gateway.restart_with(1, 1);
    stage.judge();
    row("restart loop", "kill -9 within 100 ms of the start", 10, "0 lost, 0 out of order");
}

/// The library that tells a process another time, where it is installed.
fn false_clock() -> Option<PathBuf> {
    let found = ["x86_64", "aarch64"]
        .map(|machine| PathBuf::from(format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1")));
    let found = found.into_iter().find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED: clocks that jump need libfaketime (apt install faketime)");
    }
    found
}

#[test]
fn clock_that_jumps_at_run_and_between_starts_loses_repeats_and_reorders_nothing() {
    let _alone = alone();
    let Some(library) = false_clock() else { return };
    let folder = TempDir::new().unwrap();
    let clock = folder.path().join("clock");
    let mut stage = Stage::start((2, 1), None, 200, 1);
    stage.kill();
    stage.gateway.settings.environment = vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
        // Only the wall clock: the other one never jumps.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let jumps = ["+3h", "-5h", "+3650d", "+1h", "-3650d", "-2h"];
    for (at, jump) in jumps.into_iter().enumerate() {
        fs::write(&clock, format!("{jump}\n")).unwrap();
        if at % 2 == 0 {
            if at > 0 {
                stage.kill();
            }
            stage.gateway.restart();
        }
        std::thread::sleep(Duration::from_millis(1500));
    }
    let hours = stage.hours().len();
    assert!(hours >= 5, "the clock did not jump: objects of {hours} hours");
    stage.judge();
    let result = format!("archives of {hours} hours, each webhook in one; 0 out of order");
    row("clock jumps", &format!("libfaketime: {}", jumps.join(" ")), jumps.len(), &result);
}

/// A gateway that may open 64 files.
fn with_few_files(config: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = "ulimit -n 64; exec \"$0\" serve --config \"$1\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_penstock")]).arg(config);
    command
}

#[test]
fn with_64_descriptors_a_crowd_is_kept_waiting_and_those_inside_are_served() {
    let _alone = alone();
    let regions = ["us", "in", "br"].map(Region::start);
    let settings = Settings { command: with_few_files, ..Settings::new(&regions, &PREFIXES) };
    let gateway = Gateway::start(settings);
    let world = World::new(&PREFIXES, 30, 8 << 10).into();
    let load =
        Load { address: gateway.listen, path: "/webhook".into(), world, connections: 4, rate: 200, seed: 1 };
    let sender = Sender::start(&load);
    eventually("the sender is inside", PATIENCE, || sender.acked() > 20);
    let cpu = gateway.metrics().total(CPU);
    let start = Instant::now();
    let crowd: Vec<_> = (0..200).filter_map(|_| Connection::open(gateway.listen, PATIENCE).ok()).collect();
    assert_eq!(crowd.len(), 200);
    let mut acked = sender.acked();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        assert!(sender.acked() > acked, "whoever was inside is served no more");
        acked = sender.acked();
    }
    let crowded = start.elapsed();
    drop(crowd);
    let mut metrics = None;
    eventually("all is as before", PATIENCE, || {
        metrics = gateway.try_metrics();
        metrics.is_some() && Connection::open(gateway.listen, PATIENCE).is_ok()
    });
    let cpu = metrics.unwrap().total(CPU) - cpu;
    let share = cpu / start.elapsed().as_secs_f64();
    assert!(share < 0.7, "it spins: {share:.2} of a core");
    let mut ledger = Ledger::default();
    ledger.add(sender.stop());
    let report = ledger.assert_kept(&gateway, &regions, Duration::from_secs(60));
    let result = format!("{} acked, {share:.2} of a core over {crowded:.0?} of a crowd of 200", report.acked);
    row("64 file descriptors", "ulimit -n 64", 1, &result);
}
