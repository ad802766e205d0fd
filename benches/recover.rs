//! Reading a journal back: all of it at a start, and frame by frame behind a writer that is ahead. The segment lies in
//! memory: this is what comes on top of the disk.

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::config::SourceKind;
use penstock::entry::{EventRow, Meta, Verdict, name_id};
use penstock::journal::Position;
use penstock::journal::buffer::AlignedBuf;
use penstock::journal::floor::Floor;
use penstock::journal::frame::{self, FIRST_FRAME, FrameHeader, FrameKind, HEADER, SegmentHeader};
use penstock::journal::marks::ParcelSet;
use penstock::journal::read::{Blocks, JournalReader};
use penstock::journal::record::{self, Record};
use penstock::journal::recover::{Part, recover};
use penstock::journal::segments::Segments;
use penstock::journal::spare::OpenMode;
use penstock::journal::view::{Archived, JournalView};
use penstock::parse::Parser;

/// Records of a segment: some 16 MB.
const RECORDS: usize = 16_384;
const JOURNAL: [u8; 16] = [1; 16];
const SALT: [u8; 16] = [7; 16];

/// Meta and body of a status.
fn webhook() -> (Verdict, Vec<u8>) {
    let path = format!("{}/tests/data/payloads/status-bsuid-no-phone.json", env!("CARGO_MANIFEST_DIR"));
    let body = std::fs::read(path).expect("sample body");
    let mut verdict = Verdict { source: name_id("main"), signature: [5; 32], ..Verdict::default() };
    let slot = verdict.slot(name_id("eu"));
    Parser::new().parse(SourceKind::Whatsapp, &body, &mut |event| {
        verdict
            .push(EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 }, event.users);
    });
    verdict.headers.extend_from_slice(
        b"user-agent: facebookexternalua\r\ncontent-type: application/json\r\n\
          x-hub-signature-256: sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n",
    );
    verdict.finish();
    (verdict, body)
}

/// A sealed segment of frames that hold so many entries each.
fn segment(entries: usize) -> Vec<u8> {
    let (verdict, body) = webhook();
    let mut buf = AlignedBuf::with_capacity(256 * 1024);
    let mut header = FrameHeader {
        kind: FrameKind::Commit,
        salt: SALT,
        number: 1,
        first_lsn: 1,
        records: entries as u32,
        payload: 0,
        padded: 0,
        payload_crc: 0,
        durable_upto: 1,
        previous: [0; 16],
        written_at: 1_789_400_000_000_000_000,
    };
    SegmentHeader {
        journal: JOURNAL,
        salt: SALT,
        number: 1,
        base_lsn: 1,
        first_frame: 1,
        previous: [0; 16],
        previous_segment: 0,
        previous_end: 0,
        created_at: header.written_at,
    }
    .encode(&mut buf);
    let mut segment = buf.as_slice().to_vec();
    for frame in 0..=RECORDS / entries {
        buf.set_len(HEADER);
        if frame == RECORDS / entries {
            header = FrameHeader { kind: FrameKind::Seal, records: 0, ..header };
        }
        for at in 0..u64::from(header.records) {
            record::write_entry(&mut buf, header.first_lsn + at, 1, |out| verdict.write(out), &body);
        }
        let written = frame::finish(&mut buf, header.clone());
        segment.extend_from_slice(buf.as_slice());
        header.number += 1;
        header.first_lsn = written.next_lsn();
        header.durable_upto = written.next_lsn();
        header.previous = written.digest();
    }
    segment
}

/// What a start does with each segment: checks it all, and looks at every entry.
fn start(segment: &[u8]) -> u64 {
    let load = |_, part| match part {
        Part::Header => Ok(segment[..FIRST_FRAME as usize].to_vec()),
        Part::Whole => Ok(segment.to_vec()),
        Part::Bytes { .. } | Part::List => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let (mut open, mut sources) = (ParcelSet::default(), 0u64);
    let recovered = recover(&[1], None, load, |_, lsn, record| {
        if let Record::Entry(entry) = record {
            (0..entry.slots).for_each(|slot| {
                open.insert(lsn, slot);
            });
            sources ^= Meta::read(entry.meta).map_or(0, |meta| u64::from(meta.source()));
        }
    });
    black_box((open, sources));
    recovered.map_or(0, |recovered| recovered.next_lsn - 1)
}

/// The segment as a file that is read without a copy.
struct Memory(Bytes);

impl Blocks for Memory {
    fn exists(&self, segment: u64) -> bool {
        segment == 1
    }

    async fn read(&self, _segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let at = (at as usize).min(self.0.len());
        Ok(self.0.slice(at..(at + len).min(self.0.len())))
    }

    async fn list(&self, _segment: u64) -> io::Result<Vec<u8>> {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}

/// What a forwarding core or an archiver does that reads from the journal.
fn follow(segment: &Bytes) -> u64 {
    let end = Position::new(1, segment.len() as u64);
    let view = JournalView {
        id: JOURNAL,
        dir: "/nowhere".into(),
        mode: OpenMode::Direct,
        spans: Arc::default(),
        end: Position::default(),
        clean: true,
        settled: Arc::default(),
        published: None,
        archived: Arc::new(Archived::never_asked()),
        segments: Arc::new(Segments::new(Floor { journal: JOURNAL, first: 1, ..Floor::default() })),
    };
    let mut reader = JournalReader::over(&view, Memory(segment.clone()));
    let (mut at, mut entries) = (Position::new(1, FIRST_FRAME), 0);
    while let Poll::Ready(Ok(Some(frame))) =
        pin!(reader.frame(at, end)).poll(&mut Context::from_waker(Waker::noop()))
    {
        at = frame.next;
        entries += frame.entries.len() as u64;
        black_box(&frame.entries);
    }
    entries
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("recover");
    group.sample_size(20);
    for entries in [1, 32, 128] {
        let segment = segment(entries);
        let name = format!("entries per frame={entries}/bytes={}", segment.len());
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function(format!("start/{name}"), |b| {
            b.iter(|| assert_eq!(start(black_box(&segment)), RECORDS as u64));
        });
        let segment = Bytes::from(segment);
        group.bench_function(format!("follow/{name}"), |b| {
            b.iter(|| assert_eq!(follow(black_box(&segment)), RECORDS as u64));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
