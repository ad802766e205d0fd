//! What archiving costs per webhook, from the entry to the compressed frame, and how small it gets.

#![allow(clippy::print_stdout, reason = "it says how small it gets")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::archive::pack::{Frames, Name, Pack, Rules};
use penstock::archive::record::{BodyDigest, Records, Webhook};
use penstock::config::{Config, SourceKind};
use penstock::entry::{EventRow, Meta, Verdict, name_id};
use penstock::journal::buffer::AlignedBuf;
use penstock::parse::Parser;
use penstock::stamp::Hour;

#[path = "../loadtest/src/pool.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "it is the load generator's, which uses more of it"
)]
mod pool;

const WEBHOOKS: usize = 20_000;
const JOURNAL: &str = "000102030405060708090a0b0c0d0e0f";

fn config(archive: &str) -> Config {
    let text = format!(
        "[archive]\n{archive}\n[[source]]\nname = \"main\"\nsecrets = [\"s\"]\n[[region]]\nname = \"eu\"\nendpoint = \"http://10.0.0.1/\"\n\
                [routing]\ndefault = \"eu\"\n"
    );
    Config::from_toml(&text, std::path::Path::new("/")).unwrap_or_else(|invalid| panic!("{invalid}")).0
}

/// Meta and body of webhooks as a business gets them, one event each.
fn webhooks() -> Vec<(Vec<u8>, Vec<u8>)> {
    let pool = pool::Pool::new(1, WEBHOOKS, 5_000, "/webhook", "secret");
    let mut parser = Parser::new();
    let make = |at: usize| {
        let request = pool.get(at);
        let end = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |end| end + 4);
        let (head, body) = request.split_at(end);
        let mut verdict = Verdict {
            source: name_id("main"),
            // 35 a millisecond, as in the load tests.
            received_at_ns: 1_789_387_200_000_000_000 + at as u64 * 28_571,
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

/// All webhooks into objects; raw and stored bytes.
fn archive(
    records: &mut Records,
    frames: &mut Frames,
    webhooks: &[(Vec<u8>, Vec<u8>)],
    proven: bool,
) -> (u64, u64) {
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
    (contents.raw_bytes, contents.bytes)
}

fn bench(c: &mut Criterion) {
    let webhooks = webhooks();
    let mut records = Records::new(&config(""));
    let mask = "mask = [\"phone\", \"name\", \"text\", \"media\", \"location\", \"contact\", \"bsuid\"]";
    let mut masked =
        Records::new(&config(&format!("{mask}\nmask_key = \"0123456789abcdef0123456789abcdef\"")));
    let Ok(mut frames) = Frames::new(1) else { return };
    let (raw, stored) = archive(&mut records, &mut frames, &webhooks, false);
    let bodies: usize = webhooks.iter().map(|(_, body)| body.len()).sum();
    println!(
        "{WEBHOOKS} webhooks: {} bytes of body, {} of record, {} stored each; raw/stored {:.2}",
        bodies / WEBHOOKS,
        raw / WEBHOOKS as u64,
        stored / WEBHOOKS as u64,
        raw as f64 / stored as f64
    );
    let mut group = c.benchmark_group("archive");
    group.throughput(Throughput::Elements(WEBHOOKS as u64)).sample_size(20);
    let mut lines = Vec::new();
    for (name, records) in [("records/events=1", &mut records), ("records/events=1,masked", &mut masked)] {
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
    for (name, proven) in [("all-in/events=1", false), ("all-in/events=1,chain", true)] {
        group.bench_function(name, |b| b.iter(|| archive(&mut records, &mut frames, &webhooks, proven)));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
