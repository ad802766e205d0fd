//! What archiving costs per webhook, from the entry to the compressed frame, and how small it gets.
//!
//! `PENSTOCK_DAY=10000000 cargo bench --bench archive` instead makes a day of so many records in a folder below /tmp,
//! searches it, and removes it again.

#![allow(clippy::print_stdout, reason = "it says how small it gets")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::archive::disk::Os;
use penstock::archive::folder::Folder;
use penstock::archive::index::{IndexBuilder, name_of};
use penstock::archive::pack::{Frames, Name, Pack, Rules};
use penstock::archive::record::{BodyDigest, Records, Webhook};
use penstock::archive::search::{self, Ahead, Query, objects, search};
use penstock::config::{Config, SourceKind};
use penstock::entry::{EventRow, Meta, Verdict, name_id};
use penstock::journal::buffer::AlignedBuf;
use penstock::parse::Parser;
use penstock::stamp::Hour;

mod load;

const WEBHOOKS: usize = 20_000;
const JOURNAL: &str = "000102030405060708090a0b0c0d0e0f";

fn config(archive: &str) -> Config {
    let text = format!(
        "[archive]\n{archive}\n[[source]]\nname = \"main\"\nsecrets = [\"s\"]\n[[region]]\nname = \"eu\"\nendpoint = \"http://10.0.0.1/\"\n\
                [routing]\ndefault = \"eu\"\n"
    );
    Config::from_toml(&text, std::path::Path::new("/")).unwrap_or_else(|invalid| panic!("{invalid}")).0
}

/// Noon of 2026-09-14; a day begins twelve hours before.
const NOON_NS: u64 = 1_789_387_200_000_000_000;

/// Meta and body of webhooks as a business gets them, one event each, received at `at(n)`.
fn webhooks(seed: u64, users: u64, received_ns: impl Fn(usize) -> u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pool = load::pool::Pool::new(seed, WEBHOOKS, users, "/webhook", "secret");
    let mut parser = Parser::new();
    let make = |at: usize| {
        let request = pool.get(at);
        let end = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |end| end + 4);
        let (head, body) = request.split_at(end);
        let mut verdict = Verdict {
            source: name_id("main"),
            received_at_ns: received_ns(at),
            peer: format!("192.0.2.7:{}", 1024 + at % 60_000).parse().ok(),
            ..Verdict::default()
        };
        let signature = String::from_utf8_lossy(head);
        let signature = signature.lines().find_map(|line| line.strip_prefix("X-Hub-Signature-256: "));
        verdict.headers.extend_from_slice(
            format!(
                "user-agent: facebookexternalua\r\ncontent-type: application/json\r\nx-hub-signature-256: {}\r\n",
                signature.unwrap_or_default()
            )
            .as_bytes(),
        );
        parser.parse(SourceKind::Whatsapp, body, &mut |event| {
            let slot = verdict.slot(name_id("eu"));
            let row = EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 };
            verdict.push(row, event.users);
        });
        verdict.finish();
        let mut meta = AlignedBuf::with_capacity(0);
        verdict.write(&mut meta);
        (meta.as_slice().to_vec(), body.to_vec())
    };
    (0..WEBHOOKS).map(make).collect()
}

/// All webhooks into objects; bytes raw, stored, and of the index.
fn archive(
    records: &mut Records,
    frames: &mut Frames,
    webhooks: &[(Vec<u8>, Vec<u8>)],
    proven: bool,
) -> (u64, u64, usize) {
    let mut pack = Pack::new(Rules::new(256 << 20, 300_000, 4).proven(proven));
    pack.open(Name { hour: Hour::of(0), first_lsn: 1 }, 0);
    for (lsn, (meta, body)) in (1..).zip(webhooks) {
        let Ok(meta) = Meta::read(meta) else { continue };
        let sha256 = &BodyDigest::default();
        records
            .write(
                &Webhook { journal: JOURNAL, lsn, slot: 0, meta, body, sha256, raw: false },
                0,
                pack.lines(),
            )
            .ok();
        pack.added(lsn);
        black_box(pack.frame(frames, false).ok());
    }
    black_box(pack.frame(frames, true).ok());
    let contents = pack.contents();
    (contents.raw_bytes, contents.bytes, pack.index().len())
}

fn bench(c: &mut Criterion) {
    if let Ok(records) = std::env::var("PENSTOCK_DAY") {
        day(records.parse().unwrap_or(1_000_000)).unwrap_or_else(|error| panic!("{error}"));
        return;
    }
    // 35 a millisecond, as in the load tests.
    let webhooks = webhooks(1, 5_000, |at| NOON_NS + at as u64 * 28_571);
    let mut records = Records::new(&config(""));
    let mask = "mask = [\"phone\", \"name\", \"text\", \"media\", \"location\", \"contact\", \"bsuid\"]";
    let mut masked =
        Records::new(&config(&format!("{mask}\nmask_key = \"0123456789abcdef0123456789abcdef\"")));
    let Ok(mut frames) = Frames::new(1) else { return };
    let (raw, stored, index) = archive(&mut records, &mut frames, &webhooks, false);
    let bodies: usize = webhooks.iter().map(|(_, body)| body.len()).sum();
    println!(
        "{WEBHOOKS} webhooks: {} bytes of body, {} of record, {} stored each; raw/stored {:.2}; index {:.2} % of stored",
        bodies / WEBHOOKS,
        raw / WEBHOOKS as u64,
        stored / WEBHOOKS as u64,
        raw as f64 / stored as f64,
        index as f64 / stored as f64 * 100.0
    );
    let mut group = c.benchmark_group("archive");
    group.throughput(Throughput::Elements(WEBHOOKS as u64)).sample_size(20);
    let mut lines = Vec::new();
    for (name, records) in [("records/events=1,masked", &mut masked), ("records/events=1", &mut records)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                lines.clear();
                for (lsn, (meta, body)) in (1..).zip(&webhooks) {
                    if let Ok(meta) = Meta::read(meta) {
                        let sha256 = &BodyDigest::default();
                        let webhook =
                            Webhook { journal: JOURNAL, lsn, slot: 0, meta, body, sha256, raw: false };
                        records.write(&webhook, 0, &mut lines).ok();
                    }
                }
                lines.len()
            });
        });
    }
    let written = lines.clone();
    group.bench_function("index/events=1", |b| {
        let mut index = IndexBuilder::default();
        b.iter(|| {
            index.clear();
            let mut bytes = 0;
            for line in written.split_inclusive(|byte| *byte == b'\n') {
                index.record(line.strip_suffix(b"\n").unwrap_or(line));
                bytes += line.len();
                if bytes > 1 << 20 {
                    index.frame(bytes as u64);
                    bytes = 0;
                }
            }
            index.finish().len()
        });
    });
    for (name, proven) in [("all-in/events=1", false), ("all-in/events=1,chain", true)] {
        group.bench_function(name, |b| b.iter(|| archive(&mut records, &mut frames, &webhooks, proven)));
    }
    group.finish();
}

/// A day of records as a gateway leaves it, in a folder, and how long searches in it take.
fn day(count: u64) -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("penstock-day-{}", std::process::id()));
    let made = write_day(&folder, count).and_then(|wanted| search_day(&folder, &wanted));
    fs::remove_dir_all(&folder)?;
    made
}

/// Looked for later: ids, and the user of that record.
fn write_day(folder: &Path, count: u64) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let start = Instant::now();
    let (mut records, mut frames) = (Records::new(&config("")), Frames::new(1)?);
    let mut pack = Pack::new(Rules::new(256 << 20, 300_000, 4));
    let (mut object, mut wanted, mut lsn) = (Vec::new(), Vec::new(), 0);
    let (mut stored, mut indexes, mut all) = (0, 0, 0);
    let step = 24 * 3_600_000_000_000 / count;
    while lsn < count {
        let (first, chunk) = (lsn, lsn / WEBHOOKS as u64);
        // A million users, so that one has about ten records a day.
        for (meta, body) in
            webhooks(1 + chunk, 1_000_000, |at| NOON_NS - 43_200_000_000_000 + (first + at as u64) * step)
        {
            let meta = Meta::read(&meta)?;
            let now_ms = meta.received_at_ns() / 1_000_000;
            let hour = Hour::of(now_ms);
            if pack.is_full() || pack.is_old(now_ms) || pack.ends_before(hour) {
                all += 1;
                (stored, indexes) = close(folder, &mut pack, &mut frames, &mut object, (stored, indexes))?;
            }
            lsn += 1;
            if pack.name().is_none() {
                pack.open(Name { hour, first_lsn: lsn }, now_ms);
            }
            if lsn % (count / 5).max(1) == 0 {
                let text = String::from_utf8_lossy(&body);
                let id = text.split('"').find(|text| text.starts_with("wamid.")).unwrap_or_default();
                wanted.push((id.to_owned(), meta.users().next().flatten().unwrap_or_default().to_owned()));
            }
            let sha256 = &BodyDigest::default();
            let webhook = Webhook { journal: JOURNAL, lsn, slot: 0, meta, body: &body, sha256, raw: false };
            records.write(&webhook, 0, pack.lines())?;
            pack.added(lsn);
            if let Some(frame) = pack.frame(&mut frames, false)? {
                object.extend_from_slice(frame);
            }
        }
    }
    (stored, indexes) = close(folder, &mut pack, &mut frames, &mut object, (stored, indexes))?;
    println!(
        "{lsn} records in {} objects, {} MB, and indexes of {} MB ({:.2} %), made in {:.0?}",
        all + 1,
        stored / 1_000_000,
        indexes / 1_000_000,
        indexes as f64 / stored as f64 * 100.0,
        start.elapsed()
    );
    Ok(wanted)
}

/// Closes the open object; bytes of objects and of indexes so far.
fn close(
    folder: &Path,
    pack: &mut Pack,
    frames: &mut Frames,
    object: &mut Vec<u8>,
    (stored, indexes): (usize, usize),
) -> Result<(usize, usize), Box<dyn Error>> {
    let Some(name) = pack.name() else { return Ok((stored, indexes)) };
    if let Some(frame) = pack.frame(frames, true)? {
        object.extend_from_slice(frame);
    }
    let [day, hour] = name.hour.folders();
    let below = format!("{day}/{hour}/edge-1-{JOURNAL}-{}.jsonl.zst", name.first_lsn);
    let index = (name_of(&below).unwrap_or_default(), pack.index());
    let sizes = (stored + object.len(), indexes + index.1.len());
    for (name, bytes) in [(below, std::mem::take(object)), index] {
        let path = folder.join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, bytes)?;
    }
    pack.end();
    Ok(sizes)
}

fn search_day(folder: &Path, wanted: &[(String, String)]) -> Result<(), Box<dyn Error>> {
    let shelf = Folder::new(Os, folder.into(), String::new());
    let find = |query: &Query| -> Result<u64, Box<dyn Error>> {
        let (mut found, mut told) = (0, |told| panic!("{told:?}"));
        let objects = objects(&shelf, query, &mut told)?;
        for (object, index) in Ahead::new(&shelf, &objects, query) {
            search(&shelf, (object, index), query, &mut told, &mut |_| {
                found += 1;
                Ok(true)
            })?;
        }
        Ok(found)
    };
    let show = |what: &str, query: Query| -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let found = find(&query)?;
        println!("{what}: {found} found in {:.2?}", start.elapsed());
        Ok(())
    };
    for (id, user) in wanted {
        show("by message id", Query { ids: vec![id.clone()], ..Query::default() })?;
        show("by user", Query { users: vec![search::user(user)], ..Query::default() })?;
    }
    show("by an id that is not there", Query { ids: vec!["wamid.none".to_owned()], ..Query::default() })?;
    let lsn = 4_711;
    show("by record id", Query { record: Some((JOURNAL.to_owned(), lsn)), ..Query::default() })
}

criterion_group!(benches, bench);
criterion_main!(benches);
