//! kill -9 at each named step of the program, with one core each and with several.

use std::time::{Duration, Instant};

use penstock::fault::POINTS;

use crate::stage::{RARE, Stage};
use crate::support::region::Mode;
use crate::support::{Random, alone, eventually, seed, setting};
use crate::{armed, row};

const LAYOUTS: [(usize, usize); 2] = [(1, 1), (3, 2)];
/// For a step to be reached. What a journal frees must have come together first: 16 segments and more.
const REACHED_WITHIN: Duration = Duration::from_secs(60);
/// The same for a step of [`LATE`]: it does not come any more in this start then.
const LATE_WITHIN: Duration = Duration::from_secs(30);
/// Starts until a step is reached that not every one reaches, least of all on a loaded machine.
const TRIES: usize = 8;
/// For segments to fill up and to be thinned because something waits in them.
const OUTAGE: Duration = Duration::from_secs(8);
/// Steps of every webhook or parcel: killed at any of the first so many of them.
const OFTEN: u64 = 40;
/// Of these the start sees a few, and then none.
const FEW: [&str; 2] = ["accept", "recover-read"];
/// Steps of the end of a region's outage, of a stop, and of a start with fewer cores; in this order.
const LATE: [&str; 10] = [
    "list-removed",
    "reuse-blanked",
    "reuse-renamed",
    "segment-emptied",
    "segment-removed",
    "stop-seal",
    "clean-mark-left",
    "clean-mark-taken",
    "folder-emptied",
    "folder-removed",
];

/// Steps that come so often that it is worth while to let some pass.
fn is_often(name: &str) -> bool {
    let first = POINTS.iter().position(|point| *point == "head-read").unwrap();
    let last = POINTS.iter().position(|point| *point == "answer-half").unwrap();
    let at = POINTS.iter().position(|point| *point == name).unwrap();
    (first..=last).contains(&at) || ["sifted", "request-sent", "answer-read", "object-append"].contains(&name)
}

/// Runs into `point` and is killed there.
fn kill_at(stage: &mut Stage, point: &'static str, random: &mut Random) {
    let passing = match point {
        _ if is_often(point) => 1 + random.next() % OFTEN,
        _ if FEW.contains(&point) => 1 + random.next() % 3,
        // The first one of a start seals nothing.
        "sealed" => 2,
        _ => 1,
    };
    // A write is killed before the kernel has it, and while it has it.
    let beside = point == "frame-write" && random.below(2) == 0;
    let how = if beside { "abort/150" } else { "abort" };
    let before = stage.fired(point);
    let start = Instant::now();
    let mut tries = 0;
    while stage.fired(point) == before {
        tries += 1;
        assert!(tries <= TRIES, "{point} was not reached");
        prepare(stage, point, tries);
        stage.arm(&format!("{point}={how}@{passing}"));
        stage.shipped(point.starts_with("stop-") || point.starts_with("clean-"));
        stage.gateway.start_again();
        if point == "stop-seal" || point == "clean-mark-left" {
            stage.gateway.wait_ready();
            // A stop leaves no clean mark before what an unclean end left in doubt was read, and that takes as long
            // as the machine is slow.
            std::thread::sleep(Duration::from_millis(300) * (tries * tries) as u32);
            stage.gateway.send_term();
        }
        // A stop on a slow machine may end before all is done, and leaves no mark then.
        let late = LATE.contains(&point);
        let limit = if late { LATE_WITHIN } else { REACHED_WITHIN };
        if stage.wait_ended(limit).is_none() {
            assert!(late, "{point}, passing {passing}, was not reached within {limit:?}");
            stage.kill();
            outage(stage);
        }
    }
    let cores = (stage.gateway.settings.ingest, stage.gateway.settings.forward);
    let result = format!("fired after {:.1?}", start.elapsed());
    row("killed at a step", &format!("{point}={how}@{passing}, {}+{} cores", cores.0, cores.1), 1, &result);
}

/// The runs before may have freed all that an outage had left to be freed: another one.
fn outage(stage: &mut Stage) {
    stage.regions[RARE].set(Mode::Refuse);
    stage.shipped(false);
    stage.disarm();
    stage.gateway.restart();
    std::thread::sleep(OUTAGE);
    stage.kill();
    stage.regions[RARE].set(Mode::Ok);
}

/// Leaves what a start must find to come to `point`.
fn prepare(stage: &mut Stage, point: &str, tries: usize) {
    match point {
        "clean-mark-taken" => leave_clean(stage, tries),
        "folder-emptied" | "folder-removed" => {
            // Journals of cores that the next start has not.
            start(stage, (3, 2));
            std::thread::sleep(Duration::from_millis(500));
            stage.kill();
            (stage.gateway.settings.ingest, stage.gateway.settings.forward) = (1, 1);
        }
        _ => {}
    }
}

/// As well as a stop can: see where the mark is left.
fn leave_clean(stage: &mut Stage, tries: usize) {
    stage.shipped(true);
    stage.disarm();
    stage.gateway.restart();
    std::thread::sleep(Duration::from_millis(500) * (tries * tries) as u32);
    assert_eq!(stage.gateway.terminate().0, Some(0), "{}", stage.gateway.said());
}

fn start(stage: &mut Stage, cores: (usize, usize)) {
    stage.disarm();
    stage.gateway.restart_with(cores.0, cores.1);
}

/// Kills at all `points` in turn, and judges.
fn survive(cores: (usize, usize), points: &[&'static str], seed: u64) {
    let mut random = Random(seed);
    let mut stage = Stage::start(cores, None, 300, seed);
    stage.regions[RARE].set(Mode::Refuse);
    std::thread::sleep(Duration::from_secs(1));
    stage.kill();
    for point in points.iter().filter(|point| !LATE.contains(point)) {
        kill_at(&mut stage, point, &mut random);
    }
    stage.regions[RARE].set(Mode::Ok);
    for point in LATE.into_iter().filter(|point| points.contains(point)) {
        kill_at(&mut stage, point, &mut random);
    }
    stage.shipped(false);
    start(&mut stage, cores);
    stage.judge();
}

#[test]
fn a_kill_at_any_step_loses_nothing_and_keeps_the_order() {
    if !armed() {
        return;
    }
    let _alone = alone();
    let (seed, rounds) = (seed(), setting("PENSTOCK_ROUNDS", 1));
    let mut random = Random(seed);
    let mut kills = 0;
    for round in 0..rounds {
        let mut points = POINTS.to_vec();
        for at in (1..points.len()).rev() {
            points.swap(at, random.below(at + 1));
        }
        // A push meets each step once, with the one or the other number of cores.
        let half = points.len() / 2;
        let parts = if rounds == 1 { [&points[..half], &points[half..]] } else { [&points[..]; 2] };
        for (cores, part) in LAYOUTS.into_iter().zip(parts) {
            survive(cores, part, seed.wrapping_add(round));
            kills += part.len();
        }
    }
    row("killed at a step", "all steps", kills, "0 lost, 0 out of order, archives exact");
}

/// An object closes after the webhook that filled it, at the same one after each start.
#[test]
fn webhook_at_which_the_process_is_killed_again_and_again_is_not_blamed_for_what_it_waits_for() {
    if !armed() {
        return;
    }
    let _alone = alone();
    for point in ["object-created", "object-append", "object-synced"] {
        let mut stage = Stage::start((1, 1), None, 100, 1);
        std::thread::sleep(Duration::from_secs(1));
        stage.kill();
        for kill in 1..=4 {
            stage.arm(&format!("{point}=abort"));
            stage.gateway.start_again();
            assert!(stage.wait_ended(REACHED_WITHIN).is_some(), "{point} was not reached");
            assert_eq!(stage.fired(point), kill);
        }
        start(&mut stage, (1, 1));
        stage.judge();
        row(
            "killed at a step",
            &format!("{point}, four starts in a row"),
            4,
            "archived, nothing quarantined",
        );
    }
}

#[test]
fn journal_whose_last_segment_was_opened_and_never_used_goes_once_it_is_archived() {
    if !armed() {
        return;
    }
    let _alone = alone();
    let mut stage = Stage::start((3, 2), None, 300, 1);
    std::thread::sleep(Duration::from_secs(1));
    stage.kill();
    // Every core stands behind the header of its first segment, and nothing follows it.
    stage.arm("segment-opened=sleep/60000@1+");
    stage.gateway.start_again();
    eventually("it stands there", REACHED_WITHIN, || stage.fired("segment-opened") > 0);
    std::thread::sleep(Duration::from_secs(1));
    stage.kill();
    start(&mut stage, (1, 1));
    let journals = stage.gateway.data().join("journal");
    eventually("only the journal in use is left", REACHED_WITHIN, || {
        std::fs::read_dir(&journals).unwrap().count() == 1
    });
    stage.judge();
    row(
        "killed at a step",
        "all cores behind segment-opened, 3+2 cores",
        1,
        "adopted journals archived and gone",
    );
}
