//! What it costs to put a webhook into a frame, and to close a frame.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::entry::{EventRow, Meta, Verdict, name_id};
use penstock::journal::buffer::AlignedBuf;
use penstock::journal::frame::{self, FrameHeader, FrameKind, HEADER};
use penstock::journal::record;

/// Of one status, as intake makes it.
fn verdict() -> Verdict {
    let mut verdict = Verdict {
        source: name_id("main"),
        received_at_ns: 1_789_400_000_123_456_789,
        peer: "192.0.2.7:4711".parse().ok(),
        signature: [5; 32],
        ..Verdict::default()
    };
    let slot = verdict.slot(name_id("eu"));
    verdict.conversations.extend([(slot, 3), (slot, 9)]);
    verdict.push(EventRow { key: [1; 16], value: 1, slot, kind: 2 }, &[]);
    verdict.headers.extend_from_slice(
        b"user-agent: facebookexternalua\r\ncontent-type: application/json\r\n\
          x-hub-signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
          x-hub-signature-256: sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n",
    );
    verdict.finish();
    verdict
}

fn header() -> FrameHeader {
    FrameHeader {
        kind: FrameKind::Commit,
        salt: [7; 16],
        number: 42,
        first_lsn: 1000,
        records: 1,
        payload: 0,
        padded: 0,
        payload_crc: 0,
        durable_upto: 1000,
        previous: [9; 16],
        written_at: 1_789_400_000_000_000_000,
    }
}

fn journal(c: &mut Criterion) {
    let mut group = c.benchmark_group("journal");
    let (verdict, body) = (verdict(), [b'x'; 700]);
    let mut buf = AlignedBuf::with_capacity(256 * 1024);
    group.bench_function("encode/entry/body=700", |b| {
        b.iter(|| {
            buf.set_len(HEADER);
            let body = black_box(&body);
            record::write_entry(&mut buf, 1, 1, |out| black_box(&verdict).write(out), body)
        });
    });
    let entry = buf.as_slice()[HEADER..].to_vec();
    group.bench_function("decode/entry/body=700", |b| {
        b.iter(|| match record::read(black_box(&entry)) {
            Ok((record::Record::Entry(entry), _)) => Meta::read(entry.meta).map_or(0, |meta| meta.source()),
            _ => 0,
        });
    });
    group.bench_function("decode known/entry/body=700", |b| {
        b.iter(|| match record::read_known(black_box(&entry)) {
            Ok((record::Record::Entry(entry), _)) => Meta::read(entry.meta).map_or(0, |meta| meta.source()),
            _ => 0,
        });
    });
    for entries in [1, 32] {
        group.throughput(Throughput::Bytes((entries * entry.len()) as u64));
        group.bench_function(format!("close frame/entries={entries}/bytes={}", entries * entry.len()), |b| {
            b.iter(|| {
                buf.set_len(HEADER + entries * entry.len());
                frame::finish(&mut buf, header()).digest()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, journal);
criterion_main!(benches);
