//! What it costs to know whether an event was here before, and to know it again after a restart.
//!
//! `PENSTOCK_BENCH_LONG=1` asks the same of 10 million keys, and prints their memory and how long a
//! start takes to read them.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::dedupe::{Batch, Folder, Keeper, Seen, Sighting, keeper, log};
use penstock::metrics::ForwardCells;
use penstock::parse::Key;

/// As the program has it: it decides what a shard really takes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: u64 = 1_000_000;
const MIXER: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
const HOUR: Duration = Duration::from_secs(3600);

/// Stands for a digest.
fn key(n: u64) -> Key {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = Key::default();
    for half in key.chunks_exact_mut(8) {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        half.copy_from_slice(&z.to_le_bytes());
    }
    key
}

fn table() -> Seen {
    Seen::new(HOUR, 1 << 30, MIXER)
}

fn filled(keys: u64) -> Seen {
    let mut seen = table();
    for n in 0..keys {
        black_box(seen.claim(1, &key(n), n));
    }
    seen
}

fn sizes() -> Vec<u64> {
    if std::env::var_os("PENSTOCK_BENCH_LONG").is_some() {
        vec![MILLION, 10 * MILLION]
    } else if std::env::args().any(|argument| argument == "--bench") {
        vec![MILLION]
    } else {
        // Nothing is measured: that it runs is all that is wanted.
        vec![MILLION / 20]
    }
}

fn claims(c: &mut Criterion) {
    let mut group = c.benchmark_group("dedupe");
    group.sample_size(20).throughput(Throughput::Elements(1));
    for keys in sizes() {
        let mut seen = filled(keys);
        let mut n = 0u64;
        group.bench_function(format!("repeat/keys={keys}"), |b| {
            b.iter(|| {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let known = (n >> 20) % keys;
                assert_eq!(seen.claim(1, black_box(&key(known)), known), Sighting::Repeat);
            });
        });
        drop(seen);
        // A window full of keys, all the time: each new one follows one that dies, and its memory is found again.
        let mut seen = table();
        let per_minute = keys / 60;
        let mut n = 0u64;
        let mut next = move || {
            n += 1;
            if n.is_multiple_of(per_minute) {
                seen.pass(1);
            }
            // At 30,000 events a second there is a sweep for each 600 of them.
            if n.is_multiple_of(600) {
                seen.sweep();
            }
            seen.claim(1, black_box(&key(n)), n)
        };
        (0..2 * keys).for_each(|_| assert_eq!(next(), Sighting::New));
        group.bench_function(format!("new while old ones die/keys={keys}"), |b| b.iter(&mut next));
        group.sample_size(10);
        group.bench_function(format!("new, from nothing/keys={keys}"), |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                black_box(filled(keys));
                start.elapsed().mul_f64(rounds as f64 / keys as f64)
            });
        });
    }
    group.finish();
}

/// A key log of that many keys, in a folder.
fn write(folder: &Path, keys: u64) {
    let start = keeper::Start {
        core: 0,
        folder: Folder::open(folder, false, 1).expect("a folder"),
        inherited: Vec::new(),
        now: 0,
        cells: Arc::new(ForwardCells::default()),
        go_on: Box::new(|(): &mut ()| true),
        failed: Box::new(|error| panic!("{error}")),
    };
    let mut keeper = Keeper::start(start).expect("a thread");
    for from in (0..keys).step_by(1000) {
        let mut records = Vec::new();
        for n in from..(from + 1000).min(keys) {
            log::push(&log::Record { key: key(n), value: n, minute: 0, region: 1 }, &mut records);
        }
        let mut batch = Batch { records, then: () };
        while let Err(back) = keeper.keep(batch) {
            batch = back;
            std::thread::yield_now();
        }
    }
    while !keeper.idle() {
        std::thread::yield_now();
    }
}

fn start(c: &mut Criterion) {
    let mut group = c.benchmark_group("key log");
    group.sample_size(10);
    for keys in sizes() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), keys);
        let load = || {
            let mut seen = table();
            let open = Folder::open(folder.path(), false, 1).expect("a folder");
            let loaded = open.load(&mut seen, |_| true, true);
            assert_eq!(loaded.expect("a key log").records, keys);
            seen
        };
        let begun = Instant::now();
        let seen = load();
        let took = begun.elapsed();
        #[allow(clippy::print_stdout, reason = "a measurement says what it found")]
        {
            println!("{keys} keys read in {took:?}; {:.1} bytes a key", seen.bytes() as f64 / keys as f64);
        }
        drop(seen);
        group.throughput(Throughput::Elements(keys));
        group.bench_function(format!("read at a start/keys={keys}"), |b| b.iter(load));
    }
    group.finish();
}

criterion_group!(benches, start, claims);
criterion_main!(benches);
