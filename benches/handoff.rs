//! What it costs to give a committed frame to the forwarding cores, and to take it there: per frame.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::handoff::{Handoff, Inlet, Limits, channel};
use penstock::journal::view::Published;
use penstock::journal::{Committed, EntryAt, Position};
use penstock::metrics::IngestCells;
use penstock::wake::Doorbell;

/// Bytes of a webhook's record.
const RECORD: u32 = 1_000;

fn handoff(cores: usize) -> (Handoff, Vec<Inlet>) {
    let limits = Limits::default();
    // Nobody sleeps here: a doorbell costs its fence and no system call, as on a busy core.
    let ends = (0..cores).map(|_| channel(Doorbell::new().expect("an eventfd"), limits));
    let (outlets, inlets) = ends.unzip();
    let (published, cells) = (Arc::new(Published::default()), Arc::new(IngestCells::default()));
    (Handoff::new(0, published, outlets, Arc::new(AtomicUsize::new(0)), limits, cells), inlets)
}

/// Entries for the cores in turn.
fn entries(count: u32, cores: u32) -> Vec<EntryAt> {
    let entry =
        |n: u32| EntryAt { lsn: u64::from(n), tag: 1 << (n % cores), offset: n * RECORD, len: RECORD };
    (0..count).map(entry).collect()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("handoff");
    for cores in [1, 2, 8] {
        for count in [1, 32, 128] {
            let (handoff, inlets) = handoff(cores as usize);
            let frame = Bytes::from(vec![7; (count * RECORD) as usize]);
            let all = entries(count, cores);
            let mut segment = 1;
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(format!("push and take/cores={cores}/entries={count}"), |b| {
                b.iter(|| {
                    segment += 1;
                    let mut entries = black_box(&all).clone();
                    handoff.committed(&mut Committed {
                        position: Position::new(segment, 8192),
                        next: Position::new(segment, 12288),
                        frame: frame.clone(),
                        entries: &mut entries,
                    });
                    for inlet in &inlets {
                        while let Some(handed) = inlet.try_recv() {
                            black_box(handed.entries.len());
                        }
                    }
                });
            });
        }
    }
    // A core that fell behind reads from the journal; what it does not take costs the ingest core little.
    let (handoff, inlets) = handoff(1);
    let all = entries(128, 1);
    group.throughput(Throughput::Elements(128));
    group.bench_function("push to a core that fell behind/cores=1/entries=128", |b| {
        b.iter(|| {
            let mut entries = black_box(&all).clone();
            handoff.committed(&mut Committed {
                position: Position::new(1, 8192),
                next: Position::new(1, 12288),
                frame: Bytes::new(),
                entries: &mut entries,
            });
        });
    });
    drop(inlets);
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
