//! Power cuts: the journal lies on a real ext4 that is shut down under the running process, at random
//! moments and while the process stands between two steps that touch files. What was not synced is gone.

use std::time::{Duration, Instant};

use crate::stage::{NAMES, PREFIXES, RARE, Stage};
use crate::support::body::World;
use crate::support::disk::{Disk, Log};
use crate::support::gateway::Gateway;
use crate::support::http::{Connection, post};
use crate::support::metrics::DUPLICATES;
use crate::support::region::{Mode, Region};
use crate::support::settings::Settings;
use crate::support::{Random, SECRET, alone, eventually, seed, setting, signature};
use crate::{armed, row};

/// Cuts of one journal before all of it is judged.
const PART: u64 = 10;
/// For a step to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(10);
/// Between a change of a file or a name and the sync that makes it last.
const STEPS: [&str; 19] = [
    "frame-write",
    "frame-durable",
    "sealed",
    "segment-opened",
    "spare-zeroed",
    "spare-synced",
    "spare-renamed",
    "replace-written",
    "replace-synced",
    "list-renamed",
    "floor-renamed",
    "floor-synced",
    "list-removed",
    "reuse-blanked",
    "reuse-renamed",
    "keys-file-made",
    "keys-written",
    "progress-written",
    "progress-renamed",
];

/// Lets the process run into a step and stand there, or for a random while; then the power goes.
fn cut(stage: &mut Stage, disk: &Disk, log: Log, step: Option<&str>, random: &mut Random) {
    let acked = stage.acked();
    let mut reached = "no step";
    if let Some(step) = step {
        let before = stage.fired(step);
        let start = Instant::now();
        let passing = if step.starts_with("frame") { 1 + random.below(20) } else { 1 };
        stage.arm(&format!("{step}=sleep/30000@{passing}"));
        stage.gateway.start_again();
        while stage.fired(step) == before && start.elapsed() < REACHED_WITHIN {
            std::thread::sleep(Duration::from_millis(5));
        }
        if stage.fired(step) > before {
            reached = "reached";
        }
    } else {
        stage.disarm();
        stage.gateway.restart();
        std::thread::sleep(Duration::from_millis(50 + random.below(700) as u64));
    }
    disk.cut(log);
    let acked = stage.acked() - acked;
    // It may have found out by itself that its disk is gone.
    stage.kill();
    disk.replug();
    let how = match step {
        Some(step) => format!("EXT4_IOC_SHUTDOWN at {step} ({reached}), log {log:?}"),
        None => format!("EXT4_IOC_SHUTDOWN at any time, log {log:?}"),
    };
    row("power cut", &how, 1, &format!("{acked} acked before it"));
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_and_keeps_the_order() {
    if !armed() {
        return;
    }
    let _alone = alone();
    let (seed, rounds) = (seed(), setting("PENSTOCK_ROUNDS", 1));
    let cuts = if rounds == 1 { 2 * PART } else { 36 * rounds };
    let mut random = Random(seed);
    let mut done = 0;
    while done < cuts {
        let Some(disk) = Disk::ext4("320M") else { return };
        let cores = [(1, 1), (3, 2)][(done / PART) as usize % 2];
        let mut stage = Stage::start(cores, Some(&disk.folder.join("data")), 300, seed ^ done);
        stage.regions[RARE].set(Mode::Refuse);
        std::thread::sleep(Duration::from_secs(1));
        stage.kill();
        for _ in 0..PART {
            let log = if random.below(2) == 0 { Log::Kept } else { Log::Dropped };
            let step = (random.below(4) > 0).then(|| STEPS[random.below(STEPS.len())]);
            cut(&mut stage, &disk, log, step, &mut random);
            done += 1;
        }
        stage.disarm();
        stage.gateway.restart();
        stage.judge();
    }
    row("power cut", "all of them", done as usize, "0 lost, 0 out of order, archives exact");
}

#[test]
fn what_was_delivered_before_a_power_cut_is_known_as_a_repeat_after_it() {
    let _alone = alone();
    let Some(disk) = Disk::ext4("320M") else { return };
    let regions = NAMES.map(Region::start);
    let mut gateway = Gateway::start_on(Settings::new(&regions, &PREFIXES), &disk.folder.join("data"));
    let (world, mut random) = (World::new(&PREFIXES, 10, 100).without_batches(), Random(seed()));
    let webhooks: Vec<_> = (0..100).map(|_| world.next(&mut random)).collect();
    let send = |gateway: &Gateway| {
        let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
        for webhook in &webhooks {
            let proof = signature(SECRET, &webhook.body);
            connection.send(&post("/webhook", ("x-hub-signature-256", &proof), &webhook.body)).unwrap();
            assert_eq!(connection.answer().unwrap().status(), 200);
        }
    };
    let delivered = || regions.iter().map(Region::count).sum::<usize>();
    send(&gateway);
    eventually("all are delivered", PATIENCE, || delivered() == webhooks.len());
    // Keys wait some 40 ms for their sync.
    std::thread::sleep(Duration::from_millis(500));
    disk.cut(Log::Dropped);
    gateway.kill9();
    disk.replug();
    gateway.restart();
    send(&gateway);
    eventually("all are known", PATIENCE, || {
        gateway.metrics().total(DUPLICATES) == webhooks.len() as f64 || delivered() > webhooks.len()
    });
    assert_eq!(delivered(), webhooks.len(), "delivered again");
    row("power cut, then all said again", "EXT4_IOC_SHUTDOWN, log Dropped", 1, "0 delivered again");
}
