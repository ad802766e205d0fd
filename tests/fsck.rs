//! `penstock journal fsck` beside a real gateway: nothing is found where nothing is wrong, what is wrong is
//! named without changing a byte, and a repair brings back what a start would refuse.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use penstock::handoff::Limits;
use serde_json::Value;

use support::body::World;
use support::gateway::{Gateway, run};
use support::hosted;
use support::ledger::Ledger;
use support::metrics::THIN_SEGMENTS;
use support::region::{Mode, Region};
use support::sender::{Load, send_for};
use support::settings::Settings;
use support::{alone, eventually};

const PREFIXES: [&str; 2] = ["1", "91"];
const SEGMENT: u64 = 1 << 20;
const SETTLE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "is the gateway of the other tests"]
fn host() {
    hosted::run(Limits::default(), |config| config.journal.segment = SEGMENT);
}

fn load(gateway: &Gateway, prefix: &str, padding: usize, rate: u32) -> Load {
    let world = Arc::new(World::new(&[prefix], 20, padding));
    Load { address: gateway.listen, path: "/webhook".into(), world, connections: 4, rate, seed: 1 }
}

/// Exit code and what it said, as JSON.
fn fsck(data: &Path, more: &[&str]) -> (i32, Value) {
    let data = data.to_str().unwrap();
    let (code, stdout, stderr) = run(&[&["journal", "fsck", "--json", "--data-dir", data], more].concat());
    let said = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    (code.unwrap(), said)
}

fn levels<'a>(said: &'a Value, of: &str) -> Vec<&'a str> {
    said[of].as_array().unwrap().iter().map(|finding| finding["level"].as_str().unwrap()).collect()
}

/// Every file of a folder with what it holds.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    files
}

fn files(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = contents(&data.join("journal")).into_keys();
    all.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

/// A killed gateway with thin segments: one region took all, the other was down and little was for it: the
/// ledger has that.
fn thinned(regions: &mut [Region; 2]) -> (Gateway, Ledger) {
    regions[1].set(Mode::Refuse);
    let settings = Settings { command: hosted::command, ..Settings::new(&regions[..], &PREFIXES) };
    let mut gateway = Gateway::start(settings);
    let mut ledger = Ledger::default();
    for seed in 0..30 {
        let few = Load { seed, connections: 1, ..load(&gateway, PREFIXES[1], 300, 10) };
        ledger.add(send_for(&few, Duration::from_millis(200)));
        let many = Load { seed, ..load(&gateway, PREFIXES[0], 8 << 10, 1000) };
        send_for(&many, Duration::from_millis(400));
        if gateway.metrics().total(THIN_SEGMENTS) >= 2.0 {
            break;
        }
    }
    eventually("segments are thin", SETTLE, || gateway.metrics().total(THIN_SEGMENTS) >= 2.0);
    ledger.killed(gateway.kill9());
    (gateway, ledger)
}

#[test]
fn nothing_is_found_beside_a_gateway_that_runs_was_killed_or_was_stopped() {
    let _alone = alone();
    let regions = [Region::start("us"), Region::start("in")];
    let mut gateway = Gateway::start(Settings { ingest: 2, ..Settings::new(&regions, &PREFIXES) });
    let mut ledger = Ledger::default();
    for round in 0..3 {
        ledger.add(send_for(&load(&gateway, PREFIXES[0], 200, 500), Duration::from_millis(500)));
        let data = gateway.data().to_owned();
        let (code, said) = fsck(&data, &[]);
        assert_eq!(
            (code, &said["running"], levels(&said, "findings").len()),
            (0, &Value::Bool(true), 0),
            "{said}"
        );
        let before = gateway.said();
        let (code, _, stderr) = run(&["journal", "fsck", "--repair", "--data-dir", data.to_str().unwrap()]);
        assert_eq!(code, Some(69), "{stderr}");
        assert!(stderr.contains("stop it first"), "{stderr}");
        assert_eq!(gateway.said(), before, "the gateway was disturbed");
        match round {
            0 => ledger.killed(gateway.kill9()),
            _ => drop(gateway.terminate()),
        }
        let before = contents(&data);
        let (code, said) = fsck(&data, &[]);
        assert!(code == 0 && said["running"] == false, "{said}");
        assert!(
            said["journals"].as_array().unwrap().iter().any(|j| j["entries"].as_u64() > Some(0)),
            "{said}"
        );
        assert_eq!(contents(&data), before, "a look changed something");
        gateway.restart();
    }
    ledger.assert_kept(&gateway, &regions, SETTLE);
}

#[test]
fn damage_is_named_with_its_range_and_a_start_reports_the_same() {
    let _alone = alone();
    let mut regions = [Region::start("us"), Region::start("in")];
    regions.iter_mut().for_each(|region| region.set(Mode::Refuse));
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    send_for(&load(&gateway, PREFIXES[0], 200, 300), Duration::from_millis(500));
    gateway.terminate();
    let data = gateway.data().to_owned();
    let segment = &files(&data, "seg")[0];
    let file = fs::File::options().write(true).open(segment).unwrap();
    // Inside the records of the second frame, or of the first where that is longer than a block.
    file.write_all_at(&[0xee; 64], 3 * 4096 + 200).unwrap();
    let before = contents(&data);
    let (code, said) = fsck(&data, &["--repair"]);
    assert_eq!(code, 1, "{said}");
    let [finding] = &said["findings"].as_array().unwrap()[..] else { panic!("{said}") };
    assert_eq!((finding["level"].as_str(), &finding["repair"]), (Some("damage"), &Value::Null), "{said}");
    let (first, last) = (finding["first_lsn"].as_u64().unwrap(), finding["last_lsn"].as_u64().unwrap());
    assert!(first >= 1 && last >= first, "{said}");
    assert_eq!(contents(&data), before, "there was nothing to be repaired");
    let (code, text, _) = run(&["journal", "fsck", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("LSN {first} to {last}")) && text.contains("were answered 200"), "{text}");
    gateway.restart();
    let said = gateway.said();
    assert!(said.contains(&format!("\"first\":{first},\"last\":{last}")), "{said}");
    send_for(&load(&gateway, PREFIXES[0], 0, 100), Duration::from_millis(100));
    gateway.terminate();
    let (code, said) = fsck(&data, &[]);
    assert_eq!(
        (code, levels(&said, "findings")),
        (0, vec!["note"]),
        "what was reported is news no more: {said}"
    );
}

#[test]
fn start_without_the_list_of_a_thin_segment_says_what_to_do_and_a_repair_brings_all_back() {
    let _alone = alone();
    let mut regions = [Region::start("us"), Region::start("in")];
    let (mut gateway, ledger) = thinned(&mut regions);
    let data = gateway.data().to_owned();
    // Segments of which something waits may have a list and be whole.
    let blocks = |list: &Path| fs::metadata(list.with_extension("seg")).unwrap().blocks() * 512;
    let list = files(&data, "live").into_iter().find(|list| blocks(list) < SEGMENT / 2).unwrap();
    let name = list.file_name().unwrap().to_str().unwrap().to_owned();
    let (code, _, _) = run(&["journal", "inspect", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, Some(0));
    fs::remove_file(&list).unwrap();
    let config = gateway.config();
    let (code, _, stderr) = run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(74), "{stderr}");
    assert!(
        stderr.contains(&name) && stderr.contains("fsck --repair") && stderr.contains("only this list"),
        "{stderr}"
    );

    let (code, said) = fsck(&data, &[]);
    assert_eq!((code, levels(&said, "findings")), (1, vec!["stops"]), "{said}");
    let (code, said) = fsck(&data, &["--repair"]);
    assert_eq!((code, &said["left"]), (0, &Value::Array(vec![])), "{said}");
    assert!(list.exists());
    regions[1].set(Mode::Ok);
    gateway.restart();
    ledger.assert_kept(&gateway, &regions[1..], SETTLE);
}

#[test]
fn floor_list_and_headers_that_are_damaged_are_repaired_and_what_was_there_is_kept_aside() {
    let _alone = alone();
    let mut regions = [Region::start("us"), Region::start("in")];
    let (mut gateway, ledger) = thinned(&mut regions);
    let data = gateway.data().to_owned();
    let list = files(&data, "live").pop().unwrap();
    let floor = list.with_file_name("floor");
    let newest =
        files(&data, "seg").into_iter().rfind(|path| fs::read(path).unwrap()[..8] != [0; 8]).unwrap();
    let mut damaged = BTreeMap::new();
    for (path, at) in [(&list, 30), (&floor, 30), (&newest, 40)] {
        let mut bytes = fs::read(path).unwrap();
        let copies = if *path == newest { vec![at] } else { vec![at, bytes.len() / 2 + at] };
        copies.into_iter().for_each(|at| bytes[at] ^= 0xff);
        fs::write(path, &bytes).unwrap();
        damaged.insert(path.file_name().unwrap().to_owned(), bytes);
    }
    fs::write(list.with_extension("tmp"), "unfinished").unwrap();
    let (code, said) = fsck(&data, &["--repair"]);
    assert_eq!(code, 0, "{said}");
    let mut before = levels(&said, "findings");
    before.sort_unstable();
    assert_eq!(before, ["damage", "note", "stops", "stops"], "{said}");
    let aside = contents(Path::new(said["aside"].as_str().unwrap()));
    let kept =
        |name: &Path| aside.iter().find(|(path, _)| path.ends_with(name)).map(|(_, bytes)| bytes.clone());
    for (name, bytes) in &damaged {
        let header = Path::new(name).with_extension("seg.header");
        let there = kept(Path::new(name)).or_else(|| kept(&header)).unwrap();
        assert!(bytes.starts_with(&there), "{name:?} is not as it was");
    }
    regions[1].set(Mode::Ok);
    gateway.restart();
    ledger.assert_kept(&gateway, &regions[1..], SETTLE);
    gateway.terminate();
    let (code, said) = fsck(&data, &[]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn exit_codes_tell_a_wrong_command_line_a_missing_folder_and_an_unknown_entry_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(run(&["journal", "fsck"]).0, Some(64));
    let (code, _, stderr) = run(&["journal", "fsck", "--data-dir", path]);
    assert_eq!(code, Some(74));
    assert!(stderr.contains("data_dir"), "{stderr}");
    fs::create_dir(folder.path().join("journal")).unwrap();
    assert_eq!(run(&["journal", "fsck", "--data-dir", path]).0, Some(0));

    let regions = [Region::start("us"), Region::start("in")];
    let mut gateway = Gateway::start(Settings::new(&regions, &PREFIXES));
    send_for(&load(&gateway, PREFIXES[0], 0, 50), Duration::from_millis(100));
    gateway.terminate();
    let data = gateway.data().to_str().unwrap();
    let (code, stdout, _) = run(&["journal", "inspect", "--data-dir", data, "--body", "1"]);
    assert!(code == Some(0) && stdout.starts_with('{'), "{stdout}");
    let (code, stdout, stderr) = run(&["journal", "inspect", "--data-dir", data, "--body", "99999"]);
    assert_eq!((code, &stdout[..]), (Some(1), ""));
    assert!(stderr.contains("no entry with LSN 99999"), "{stderr}");
}
