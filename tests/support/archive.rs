//! Reads archives as an auditor would, with nothing of the gateway's code, and judges what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::body::ids;
use super::patience;
use super::sender::Sent;

/// One record of one archive.
#[derive(Debug, Clone)]
pub struct Record {
    /// Index of the archive's region.
    pub region: usize,
    pub object: PathBuf,
    pub json: Value,
    /// What it holds of the body, byte for byte.
    pub body: Vec<u8>,
}

/// SHA-256 as records have it.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// All files below a folder, those with a leading dot in their path too.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(root) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The objects of an archive, unfinished ones too.
pub fn objects(root: &Path) -> Vec<PathBuf> {
    let is_beside = |path: &PathBuf| {
        let below = path.strip_prefix(root).unwrap();
        below.starts_with("chain") || below.starts_with("index")
    };
    files(root).into_iter().filter(|path| !is_beside(path)).collect()
}

/// The records of an object.
fn lines(object: &Path) -> Vec<Value> {
    let shown = object.display();
    let mut text = String::new();
    zstd::Decoder::new(&fs::read(object).unwrap()[..])
        .and_then(|mut decoder| decoder.read_to_string(&mut text))
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    assert!(text.ends_with('\n'), "{shown} ends within a record");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until closed objects have every acked webhook, and nothing is open. `limit`: without anything new.
pub fn settle(roots: &[PathBuf], sent: &[&Sent], limit: Duration) {
    settle_copy(roots, sent, limit, || ());
}

/// The same of copies that `renew` brings up to date.
pub fn settle_copy(roots: &[PathBuf], sent: &[&Sent], limit: Duration, mut renew: impl FnMut()) {
    let acked = sent.iter().filter(|sent| sent.acked().is_some());
    let places = acked.flat_map(|sent| {
        let sha256 = sha256(&sent.webhook.body);
        sent.webhook.events.iter().map(move |event| (sha256.clone(), event.region))
    });
    let mut missing: BTreeSet<(String, usize)> = places.collect();
    let mut seen = BTreeSet::new();
    let limit = patience(limit);
    let mut deadline = Instant::now() + limit;
    loop {
        renew();
        let all = roots
            .iter()
            .enumerate()
            .flat_map(|(region, root)| objects(root).into_iter().map(move |path| (region, path)));
        let (open, closed): (Vec<_>, Vec<_>) =
            all.partition(|(_, path)| path.components().any(|part| part.as_os_str() == ".tmp"));
        for (region, object) in closed {
            if seen.insert(object.clone()) {
                deadline = Instant::now() + limit;
                for record in lines(&object) {
                    missing.remove(&(record["sha256"].as_str().unwrap().to_owned(), region));
                }
            }
        }
        if missing.is_empty() && open.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no object came within {limit:?}; {} hold some, {} acked webhooks are in none, and unfinished are {open:?}",
            seen.len(),
            missing.len()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Every record of the archives, region by region; checks the layout on the way, and that nothing unfinished
/// lies about.
pub fn read(roots: &[PathBuf]) -> Vec<Record> {
    let mut records = Vec::new();
    for (region, root) in roots.iter().enumerate() {
        for object in objects(root) {
            let shown = object.strip_prefix(root).unwrap().display().to_string();
            let lines = lines(&object);
            let id = lines[0]["id"].as_str().unwrap().to_owned();
            let received = lines[0]["received_at"].as_str().unwrap().to_owned();
            let expected =
                format!("dt={}/hour={}/edge-test-{id}.jsonl.zst", &received[..10], &received[11..13]);
            assert_eq!(shown, expected, "an object is named by its first record");
            for json in lines {
                let at = json["received_at"].as_str().unwrap();
                assert_eq!(at[..13], received[..13], "{shown} crosses an hour");
                let body = match (&json["body"], &json["body_base64"]) {
                    (Value::String(text), Value::Null) => text.as_bytes().to_vec(),
                    (Value::Null, Value::String(text)) => STANDARD.decode(text).unwrap(),
                    _ => panic!("{shown}: one body expected in {json}"),
                };
                records.push(Record { region, object: object.clone(), json, body });
            }
        }
    }
    records
}

/// Every acked webhook stands exactly once in the archive of each of its regions and in no other, what
/// was not answered at most once, and what stands there is what was sent.
pub fn assert_kept(records: &[Record], sent: &[&Sent], names: &[&str]) {
    let mut found: BTreeMap<(String, usize), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let sha256 = record.json["sha256"].as_str().unwrap().to_owned();
        found.entry((sha256, record.region)).or_default().push(record);
    }
    let (mut acked, mut parts) = (0, 0);
    for sent in sent {
        let webhook = &sent.webhook;
        let sha256 = sha256(&webhook.body);
        let mut regions: Vec<usize> = webhook.events.iter().map(|event| event.region).collect();
        regions.sort_unstable();
        regions.dedup();
        acked += usize::from(sent.acked().is_some());
        for &region in &regions {
            let own = found.remove(&(sha256.clone(), region)).unwrap_or_default();
            if sent.acked().is_some() {
                assert_eq!(own.len(), 1, "records of an acked webhook in {}: {own:#?}", names[region]);
            } else {
                assert!(own.len() <= 1, "records of an unanswered webhook in {}: {own:#?}", names[region]);
            }
            for record in own {
                let concerned = record.json["regions"].as_array().unwrap();
                assert_eq!(concerned.len(), regions.len(), "{record:?}");
                assert!(regions.iter().all(|region| concerned.contains(&names[*region].into())));
                assert_eq!(record.json["region"], names[region]);
                assert_eq!(record.json["source"], "main");
                if regions.len() == 1 {
                    assert!(record.body == webhook.body, "not what was sent: {record:?}");
                    assert_eq!(record.json["ranges"], Value::Null);
                } else {
                    assert_part(record, sent, region);
                    parts += 1;
                }
            }
        }
    }
    assert!(found.is_empty(), "in an archive and never sent to it: {:?}", found.keys().next());
    assert!(acked > 0, "nothing was acked: the test tested nothing");
    println!(
        "{acked} acked webhooks of {} sent in {} records, {parts} of them parts",
        sent.len(),
        records.len()
    );
}

/// The region's own events, byte for byte, and nothing of another's; from where the ranges say.
fn assert_part(record: &Record, sent: &Sent, region: usize) {
    let webhook = &sent.webhook;
    let range = |range: &Value| {
        let [offset, length] = [0, 1].map(|at| range[at].as_u64().unwrap() as usize);
        &webhook.body[offset..offset + length]
    };
    let ranges = record.json["ranges"].as_array().unwrap_or_else(|| panic!("no ranges: {record:?}"));
    let joined = ranges.iter().map(range).collect::<Vec<_>>().concat();
    assert!(joined == record.body, "the ranges are not the body: {record:?}");
    let own = || webhook.events.iter().filter(|event| event.region == region);
    let mut expected: Vec<&str> = own().map(|event| event.id.as_str()).collect();
    let mut there = ids(&record.body).unwrap();
    expected.sort_unstable();
    there.sort_unstable();
    assert_eq!(there, expected, "{record:?}");
    assert_eq!(record.json["events"].as_array().unwrap().len(), expected.len());
    for event in own() {
        let bytes = &webhook.body[event.range.clone()];
        assert!(super::http::find(&record.body, bytes).is_some(), "{} was altered", event.id);
    }
}
