//! Power cuts: the journal lies on a real ext4 that is shut down under the running process, at random
//! moments and while the process stands between two steps that touch files. What was not synced is gone.

use std::time::{Duration, Instant};

use crate::stage::{RARE, Stage};
use crate::support::disk::{Disk, Log};
use crate::support::region::Mode;
use crate::support::{Random, alone, seed, setting};
use crate::{armed, row};

/// Cuts of one journal before all of it is judged.
const PART: u64 = 10;
/// For a step to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(8);
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
