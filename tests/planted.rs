//! The tests are tested: each mistake of `fault::PLANTED` is made on purpose, and the cheapest test that should
//! find it must fail. A mistake that nobody finds is a promise that nobody holds.
//!
//! Prints who found what, and how fast. A push makes the mistakes that unit tests and simulations find, and
//! by its seed a quarter of those that take a process; `PENSTOCK_ROUNDS=2 cargo test --workspace --test planted` makes
//! all of them, and `PENSTOCK_ONLY=gap` those whose names have that in them. In each case the test must pass with
//! nothing planted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use penstock::fault::PLANTED;

use support::{Random, seed, setting};

/// The unit tests and simulations.
const LIB: &str = "penstock";
/// A test that does not end has found something, too; with nothing planted it has time for others' load.
const LIMIT: Duration = Duration::from_secs(60);
const LIMIT_CLEAN: Duration = Duration::from_secs(180);
/// Seconds that a test waits for what does not come, with a mistake and without.
const PATIENCE: &str = "10";
const PATIENCE_CLEAN: &str = "90";
/// Tries of a test that draws its own seeds.
const TRIES: usize = 3;
/// Of the tests with a process a push runs one in so many.
const PART: usize = 4;

/// Mistake, test program, which of its tests.
const FOUND_BY: &[(&str, &str, &str)] = &[
    ("list-not-synced", LIB, "journal::tests::freeing::a_round"),
    ("folder-not-synced", LIB, "journal::tests::freeing::a_round"),
    ("unlink-before-floor", LIB, "journal::tests::freeing::a_round"),
    ("list-lacks-a-parcel", LIB, "journal::tests::freeing::a_round"),
    ("reuse-not-blanked", LIB, "journal::tests::freeing::nothing"),
    ("marks-dropped-without-lists", LIB, "journal::tests::freeing::nothing"),
    ("freed-before-archived", LIB, "journal::tests::freeing::nothing"),
    ("hole-too-long", LIB, "journal::live"),
    ("thinned-while-it-drains", LIB, "journal::tests::sparse"),
    ("good-frame-refused", LIB, "journal::tests::a_cut_stays"),
    ("salt-not-compared", LIB, "journal::tests::a_frame_sent"),
    ("chain-not-compared", LIB, "journal::tests::zeroed"),
    ("checksum-not-compared", LIB, "journal::frame"),
    ("numbers-given-twice", LIB, "journal::tests::a_cut_stays"),
    ("mark-before-keys", LIB, "dedupe::log_tests::nothing_goes_on"),
    ("torn-keys-believed", LIB, "dedupe::log_tests::a_file_that_ends"),
    ("value-not-compared", LIB, "dedupe::seen_tests::same_is_a_repeat"),
    ("regions-share-keys", LIB, "dedupe::seen_tests::same_is_a_repeat"),
    ("key-cut-short", LIB, "dedupe::seen_tests::a_burst"),
    ("keys-not-held", "dedupe", "repeat_that_waited_longer"),
    ("loss-forgotten", LIB, "dedupe::memory"),
    ("orphans-share-an-id", "dedupe", "what_waited_for_a_region"),
    ("old-secret-believed", "routing", "what_waited_while_the_secrets"),
    ("keys-die-early", LIB, "dedupe::seen_tests::an_event_is_remembered"),
    ("lane-not-kept", LIB, "forward::lane"),
    ("fresh-overtakes-own-conversation", LIB, "forward::lag"),
    ("fresh-offered-twice", LIB, "forward::lag"),
    ("fresh-too-early", LIB, "forward::lag"),
    ("overflow-not-counted", LIB, "forward::lag"),
    ("second-secret-forgotten", LIB, "verify"),
    ("breaker-never-opens", LIB, "forward::breaker"),
    ("breaker-opens-for-poison", LIB, "forward::breaker"),
    ("closed-by-one-probe", LIB, "forward::breaker"),
    ("pauses-do-not-grow", LIB, "forward::breaker"),
    ("wish-of-the-region-ignored", LIB, "forward::book::tests::wish_of"),
    ("any-wish-believed", LIB, "forward::retry"),
    ("retries-unpaid", LIB, "forward::budget"),
    ("retries-at-once", LIB, "forward::retry"),
    ("rate-not-kept", LIB, "forward::budget"),
    ("ramp-begins-full", LIB, "forward::ramp"),
    ("ramp-ignores-failures", LIB, "forward::ramp"),
    ("outage-waits-on", LIB, "forward::book::tests::what_failed"),
    ("outage-counts-as-tries", LIB, "forward::poison"),
    ("brown-out-counts-as-tries", LIB, "forward::poison"),
    ("dies-without-evidence", LIB, "forward::poison"),
    ("quarantined-tried", LIB, "forward::book::tests::quarantined"),
    ("crash-not-counted", LIB, "handling"),
    ("panic-accuses-all", LIB, "handling"),
    ("nobody-acquitted", LIB, "handling"),
    ("gap-not-told", LIB, "forward::book::tests::gap"),
    ("gap-told-twice", LIB, "forward::book::tests::gap"),
    ("freed-under-a-reader", LIB, "journal::tests::reading::reader_under"),
    ("foreign-text-is-damage", LIB, "journal::read"),
    ("replay-leaves-its-gap", LIB, "forward::book::tests::gap"),
    ("part-loses-an-event", LIB, "forward::parts"),
    ("parts-numbered-anew", LIB, "forward::parts"),
    ("settled-with-its-first-part", LIB, "forward::book::tests::parcel_refused"),
    ("dead-part-called-delivered", LIB, "forward::book::tests::part_that"),
    ("letter-goes-too-early", LIB, "dead::tests::keeper"),
    ("drop-forgotten", LIB, "dead::tests::lists"),
    ("replay-not-noted", LIB, "dead::tests::lists"),
    ("gaps-go-with-their-segment", LIB, "dead::tests::gaps"),
    ("letters-not-synced", LIB, "dead::tests::power"),
    ("no-start-on-a-full-disk", LIB, "dead::tests::power"),
    ("index-not-synced", LIB, "dead::tests::power"),
    ("letter-names-not-synced", LIB, "dead::tests::power"),
    ("index-before-letters", LIB, "dead::tests::power"),
    ("letters-believed-unsynced", LIB, "dead::tests::power"),
    ("index-goes-first", LIB, "dead::tests::power"),
    ("keys-folder-not-synced", LIB, "dedupe::log_tests::a_key_whose"),
    ("redirect-taken", LIB, "forward::attempt"),
    ("spool-not-synced", LIB, "archive::tests::power"),
    ("object-not-synced", LIB, "archive::tests::power"),
    ("object-name-not-synced", LIB, "archive::tests::power"),
    ("object-written-twice", LIB, "archive::tests::power"),
    ("object-not-linked", LIB, "archive::tests::power"),
    ("link-not-synced", LIB, "archive::tests::power"),
    ("link-name-not-synced", LIB, "archive::tests::power"),
    ("progress-not-synced", LIB, "archive::tests::power"),
    ("progress-before-object", LIB, "archive::tests::power"),
    ("progress-before-archive", LIB, "archive::tests::power"),
    ("archived-told-early", LIB, "archive::tests::power"),
    ("archive-drops-some", LIB, "archive::tests::power"),
    ("ack-before-commit", "acks", "no_answer_leaves"),
    ("write-error-ignored", "faults", "disk::a_failed"),
    ("short-write-ignored", "faults", "disk::a_failed"),
    ("sync-tried-again", "faults", "disk::a_failed"),
    ("newest-frame-unproven", "faults", "disk::damage"),
    ("keys-not-synced", "faults", "power::what_was"),
    ("frame-overwritten", "crash", "kill_during_recovery"),
    ("mark-before-delivered", "crash", "kill_during_recovery"),
    ("sequence-begins-anew", "crash", "three_and_two"),
    ("journals-not-merged", "crash", "three_and_two"),
    ("overtaken-after-refusal", "crash", "come_and_go"),
    ("waiter-forgotten", "crash", "second_process"),
    ("marks-lost", "freeing", "journals_of_cores"),
    ("claimed-before-delivered", "dedupe", "a_repeat_of_what_still_waits"),
    ("repeats-left-in", "dedupe", "only_some_is_new"),
    ("overflow-not-told", "overflow", "nothing_is_lost"),
    ("cursor-forgotten", "overflow", "nothing_is_lost"),
    ("entry-offered-twice", "overflow", "nothing_is_lost"),
    ("doubt-not-told", "lifecycle", "only_a_start_after_a_kill"),
    ("id-changes-with-attempts", "routing", "webhook_id"),
    ("refusal-taken", "routing", "webhook_id"),
    ("doubt-taken-back", "client", "doubt_about_the_first"),
    ("part-named-as-the-whole", "poison", "cut_once_it_was_refused_twice"),
    ("letter-forgotten", "dead", "a_crash_between"),
    ("mark-before-letter", "dead", "a_crash_before"),
    ("letter-without-its-events", "dead", "a_letter_of_a_part"),
    ("gap-forgotten", "dead", "a_gap_is_told_once"),
    ("dropped-letter-blocks", "dead", "a_letter_that_is_dropped"),
    ("repeats-stand-in-line", "dedupe", "what_is_new_waits_for_nobody"),
    ("told-gap-not-kept", "dead", "a_gap_is_told_once"),
    ("signed-with-another-secret", "routing", "older_secret"),
];

/// Mistakes that no test finds, and why.
const ESCAPED: &[(&str, &str)] = &[];

/// How a run of a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Hung,
}

/// The test programs, built as they are for this run.
fn programs() -> BTreeMap<String, PathBuf> {
    let names: BTreeSet<&str> = FOUND_BY.iter().map(|(_, program, _)| *program).collect();
    let mut build = Command::new(env!("CARGO"));
    build.args(["test", "--workspace", "--locked", "--no-run", "--message-format=json", "--lib"]);
    names.iter().filter(|name| **name != LIB).for_each(|name| {
        build.args(["--test", name]);
    });
    // What cargo tells a test is nothing for a build: dependencies that look at it would be built anew, and with
    // them programs that others run now.
    let told = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_EXE_"].iter().any(|start| name.starts_with(start))
    });
    told.for_each(|name| {
        build.env_remove(name);
    });
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let lines = String::from_utf8(built.stdout).unwrap();
    let artifacts = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = artifacts.filter_map(|artifact| {
        let is_test = artifact["profile"]["test"] == true && artifact["target"]["kind"][0] != "bin";
        let path = artifact["executable"].as_str().filter(|_| is_test)?;
        Some((artifact["target"]["name"].as_str()?.to_owned(), path.into()))
    });
    programs.collect()
}

/// Runs tests of a program with a mistake, or with none; how they ended, when, and what they said.
fn run(program: &PathBuf, filter: &str, planted: &str) -> (End, Duration, String) {
    let (limit, patience) =
        if planted.is_empty() { (LIMIT_CLEAN, PATIENCE_CLEAN) } else { (LIMIT, PATIENCE) };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let file = File::create(&log).unwrap();
    let start = Instant::now();
    // A group of its own, so that what it started ends with it.
    let mut child = Command::new(program)
        .args([filter, "--nocapture"])
        .envs([("PENSTOCK_PLANTED", planted), ("PENSTOCK_KILLS", "2"), ("PENSTOCK_PATIENCE", patience)])
        .env_remove("PENSTOCK_SEED")
        .env_remove("PENSTOCK_SEEDS")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .process_group(0)
        .spawn()
        .unwrap();
    let mut end = None;
    while end.is_none() && start.elapsed() < limit {
        end = child.try_wait().unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let took = start.elapsed();
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
    child.wait().unwrap();
    let said = String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned();
    let end = match end {
        Some(status) if status.success() => End::Passed,
        Some(_) => End::Failed,
        None => End::Hung,
    };
    assert!(!said.contains("running 0 tests"), "{filter} names no test of {}", program.display());
    (end, took, said)
}

#[test]
fn every_planted_mistake_is_found() {
    if !cfg!(debug_assertions) || std::env::var_os("PENSTOCK_BIN").is_some() {
        println!("SKIPPED: mistakes can be planted in debug builds only");
        return;
    }
    let listed: Vec<&str> =
        FOUND_BY.iter().map(|(name, ..)| *name).chain(ESCAPED.iter().map(|(name, _)| *name)).collect();
    assert!(PLANTED.iter().all(|name| listed.contains(name)), "a mistake has no row in FOUND_BY");
    assert!(listed.iter().all(|name| PLANTED.contains(name)), "a row's mistake is not in PLANTED");
    let only = std::env::var("PENSTOCK_ONLY").ok();
    let (mut random, all) = (Random(seed()), setting("PENSTOCK_ROUNDS", 1) > 1 || only.is_some());
    let programs = programs();
    let (mut clean, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    let (mut times, mut missed) = (Vec::new(), Vec::new());
    let offset = random.below(PART);
    let cases = FOUND_BY.iter().enumerate().filter(|(at, case)| case.1 == LIB || all || at % PART == offset);
    for (_, (name, program, filter)) in cases {
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let path = &programs[*program];
        if clean.insert((program, filter)) {
            let (end, took, said) = run(path, filter, "");
            assert_eq!(
                end,
                End::Passed,
                "{program} {filter} with nothing planted, after {took:.1?}:\n{said}"
            );
            if said.contains("SKIPPED") {
                skipped.insert((program, filter));
            }
        }
        if skipped.contains(&(program, filter)) {
            println!("PLANTED | {name:<28} | SKIPPED: {program} {filter} cannot run here");
            continue;
        }
        let mut spent = Duration::ZERO;
        let mut found = End::Passed;
        for _ in 0..TRIES {
            let (end, took, _) = run(path, filter, name);
            spent += took;
            found = end;
            if end != End::Passed {
                break;
            }
        }
        println!("PLANTED | {name:<28} | {program} {filter:<44} | {found:?} after {spent:.1?}");
        times.push(spent);
        if found == End::Passed {
            missed.push(name);
        }
    }
    for (name, why) in ESCAPED {
        println!("PLANTED | {name:<28} | ESCAPES: {why}");
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("{} of {} mistakes planted, median {median:.1?}", times.len(), PLANTED.len());
    assert!(missed.is_empty(), "nobody found {missed:?}");
    assert!(only.is_some() || median < Duration::from_secs(10), "median {median:?}");
}
