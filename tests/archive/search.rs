//! `penstock archive search` and `cat` on what real gateways left: found by id, user, time and source, with indexes and
//! without.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use penstock::archive::index;

use crate::support::archive::{self, Record};
use crate::support::gateway::run;
use crate::support::sender::send_for;
use crate::support::{WASENDER_SECRET, alone, seed};
use crate::{NAMES, Stage, TINY, send};

/// Exit code, what was printed, what was told.
fn search(root: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = format!("file://{}", root.display());
    run(&[&["archive", "search", &url], arguments].concat())
}

/// Ids of the records that a search finds.
fn ids(root: &Path, arguments: &[&str]) -> Vec<String> {
    let (code, said, told) = search(root, arguments);
    let mut ids: Vec<String> =
        said.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    ids.sort_unstable();
    assert_eq!(code, Some(i32::from(ids.is_empty())), "{told}");
    ids
}

fn id(record: &Record) -> String {
    record.json["id"].as_str().unwrap().to_owned()
}

fn expected(records: &[Record], region: usize, is: impl Fn(&Record) -> bool) -> Vec<String> {
    let mut ids: Vec<String> =
        records.iter().filter(|record| record.region == region && is(record)).map(id).collect();
    ids.sort_unstable();
    ids
}

/// What the gateway put beside each object is what anybody makes of it.
fn assert_indexed(root: &Path) {
    let objects = archive::objects(root);
    assert!(!objects.is_empty());
    for object in objects {
        let name = object.strip_prefix(root).unwrap().to_str().unwrap();
        let found = fs::read(root.join(index::name_of(name).unwrap())).unwrap();
        assert!(found == index::of(BufReader::new(File::open(&object).unwrap())).unwrap(), "{name}");
    }
}

/// Makes the index of every object that has none, as its gateway does.
fn with_indexes(root: &Path) -> usize {
    let objects = archive::objects(root);
    let objects = objects.iter().filter(|path| path.extension().is_some_and(|extension| extension == "zst"));
    let mut made = 0;
    for object in objects {
        let name = object.strip_prefix(root).unwrap().to_str().unwrap();
        let path = root.join(index::name_of(name).unwrap());
        let bytes = index::of(BufReader::new(File::open(object).unwrap())).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        made += 1;
    }
    made
}

#[test]
fn a_url_below_which_nothing_was_archived_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said, told) = search(folder.path(), &["--id", "wamid.none"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(told.contains("not one object"), "{told}");
}

#[test]
fn records_are_found_by_id_user_time_and_source_whatever_becomes_of_the_indexes() {
    let _alone = alone();
    let mut stage = Stage::start(TINY, |_| ());
    send_for(&stage.load(seed()), Duration::from_secs(2));
    let session =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads/wasender-own-sent.json")).unwrap();
    send(&stage.gateway, "/wasender", WASENDER_SECRET, &session);
    let records = stage.stop_and_read();

    stage.roots.iter().for_each(|root| assert_indexed(root));
    for round in ["none", "whole", "damaged"] {
        println!("indexes: {round}");
        for root in &stage.roots {
            match round {
                "none" => drop(fs::remove_dir_all(root.join("index"))),
                "whole" => assert!(with_indexes(root) > 0),
                _ => archive::files(&root.join("index")).iter().enumerate().for_each(|(at, path)| {
                    let mut bytes = fs::read(path).unwrap();
                    let middle = bytes.len() / 2;
                    match at % 3 {
                        0 => bytes[middle] ^= 1,
                        1 => bytes.truncate(middle),
                        _ => return,
                    }
                    fs::write(path, bytes).unwrap();
                }),
            }
        }
        for (region, root) in stage.roots.iter().enumerate() {
            let own: Vec<&Record> = records.iter().filter(|record| record.region == region).collect();
            for record in own.iter().step_by(own.len().div_ceil(4)) {
                let text = String::from_utf8_lossy(&record.body);
                if let Some(wamid) = text.split('"').find(|text| text.starts_with("wamid.")) {
                    let has = format!("\"{wamid}\"");
                    let is = |other: &Record| String::from_utf8_lossy(&other.body).contains(&has);
                    assert_eq!(
                        ids(root, &["--id", wamid]),
                        expected(&records, region, is),
                        "{} {wamid}",
                        NAMES[region]
                    );
                }
                let is_same = |other: &Record| id(other) == id(record);
                assert_eq!(ids(root, &["--id", &id(record)]), expected(&records, region, is_same));
                if let Some(user) = record.json["events"][0]["user"].as_str() {
                    let is = |other: &Record| {
                        let events = other.json["events"].as_array().unwrap();
                        events.iter().any(|event| event["user"] == user)
                    };
                    let found = ids(root, &["--user", &format!("+{user}")]);
                    let expected = expected(&records, region, is);
                    assert!(
                        expected.iter().all(|id| found.contains(id)),
                        "{user}: {found:?} and {expected:?}"
                    );
                }
                let moment = record.json["received_at"].as_str().unwrap();
                let is = |other: &Record| other.json["received_at"].as_str().unwrap() < moment;
                assert_eq!(ids(root, &["--until", moment]), expected(&records, region, is));
                let key = record.json["events"][0]["key"].as_str().unwrap();
                assert!(ids(root, &["--key", key, "--from", moment]).contains(&id(record)));
                let (code, body, _) = run(&["archive", "cat", root.to_str().unwrap(), "--id", &id(record)]);
                assert_eq!((code, body.as_bytes()), (Some(0), record.body.as_slice()));
            }
            let sources: BTreeSet<&str> =
                own.iter().map(|record| record.json["source"].as_str().unwrap()).collect();
            for source in sources {
                let is = |other: &Record| other.json["source"] == source;
                assert_eq!(ids(root, &["--source", source]), expected(&records, region, is));
            }
            assert_eq!(ids(root, &["--id", "wamid.none"]), Vec::<String>::new());
            let told = search(root, &["--id", "wamid.none"]).2;
            assert_eq!(told.contains("is read whole"), round != "whole", "{round}: {told}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_printed() {
    let _alone = alone();
    let mut stage = Stage::start(TINY, |_| ());
    send_for(&stage.load(seed()), Duration::from_secs(2));
    let records = stage.stop_and_read();
    let root = &stage.roots[0];
    with_indexes(root);
    let objects: Vec<_> =
        records.iter().filter(|record| record.region == 0).map(|record| &record.object).collect();
    let damaged = objects[0];
    let hour = damaged.parent().unwrap();
    fs::write(hour.join("notes.txt"), b"a stray file").unwrap();
    let mut bytes = fs::read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(damaged, bytes).unwrap();

    let (code, said, told) = run(&["archive", "cat", root.to_str().unwrap()]);
    assert_eq!(code, Some(74), "{told}");
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(told.contains("notes.txt") && told.contains(name) && told.contains("cannot be read"), "{told}");
    let good: Vec<&Record> =
        records.iter().filter(|record| record.region == 0 && record.object != *damaged).collect();
    assert!(good.len() > 10);
    assert!(good.iter().all(|record| said.contains(&*String::from_utf8_lossy(&record.body))));

    let (code, said, told) = search(root, &["--from", "1h", "--json"]);
    assert_eq!(code, Some(74), "{told}");
    assert!(good.iter().all(|record| said.contains(&id(record))));
    let (code, said, _) = search(root, &["--from", "1h", "--body", "--limit", "2"]);
    assert!(code == Some(0) || code == Some(74));
    assert_eq!(said.lines().count(), 2);
    for wrong in [&["--key", "xyz"][..], &["--from", "noon"], &[]] {
        assert_eq!(search(root, wrong).0, Some(64), "{wrong:?}");
    }
}
