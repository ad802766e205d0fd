//! What a webhook costs an ingest core, whole, without socket and ring: head, verify, parse, route, its place in the
//! frame, the frame's end, the hand-over and the answer; and what the forwarding core's question about repeats adds.
//!
//! `PENSTOCK_BENCH_PLAIN=200000 cargo bench --bench intake` runs so many webhooks of the mix and nothing else, for a
//! profiler.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringless::{Core, SECRET, config, request};

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod load;

#[path = "../tests/support/ringless/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "a test has it, too")]
mod ringless;

/// Webhooks that are made ahead.
const WEBHOOKS: usize = 4096;
/// One webhook in so many says several things, to two regions.
const BATCHES: usize = 100;

fn sample(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/payloads/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).expect("sample body")
}

/// The load generator's mix: 88 % statuses, texts, and now and then a batch.
fn mix() -> Vec<Vec<u8>> {
    let config = config();
    let pool = load::pool::Pool::new(1, WEBHOOKS, 5_000, &config.sources[0].path, SECRET);
    let batch = request(&config, &sample("own-batch-two-regions"));
    let of = |at: usize| if at % BATCHES == BATCHES - 1 { batch.clone() } else { pool.get(at).to_vec() };
    (0..WEBHOOKS).map(of).collect()
}

/// Gives out webhooks in turn. When all have been there the window passes, so that they are new again.
struct Round<'a> {
    core: Core,
    requests: &'a [Vec<u8>],
    at: usize,
}

impl<'a> Round<'a> {
    fn new(requests: &'a [Vec<u8>]) -> Self {
        Self { core: Core::new(&config()), requests, at: 0 }
    }

    /// Takes that many webhooks, commits and answers them.
    fn commit(&mut self, webhooks: usize, sift: bool) {
        for _ in 0..webhooks {
            self.core.take(black_box(&self.requests[self.at]));
            self.at += 1;
            if self.at == self.requests.len() {
                self.at = 0;
                self.core.forget();
            }
        }
        self.core.commit();
        if sift {
            self.core.sift();
        } else {
            self.core.drop_handed();
        }
    }
}

fn intake(c: &mut Criterion) {
    let mix = mix();
    if let Ok(count) = std::env::var("PENSTOCK_BENCH_PLAIN") {
        let mut round = Round::new(&mix);
        let count = count.parse().unwrap_or(200_000);
        (0..count).step_by(128).for_each(|_| round.commit(128, true));
        return;
    }
    let status = vec![request(&config(), &sample("status-bsuid-no-phone"))];
    let bytes = |requests: &[Vec<u8>]| requests.iter().map(Vec::len).sum::<usize>() / requests.len();
    let mut group = c.benchmark_group("intake");
    for (name, requests, webhooks, sift) in [
        ("status", &status, 128, false),
        ("mix", &mix, 1, false),
        ("mix", &mix, 16, false),
        ("mix", &mix, 128, false),
        ("mix and repeats", &mix, 128, true),
    ] {
        let mut round = Round::new(requests);
        group.throughput(Throughput::Elements(webhooks as u64));
        group.bench_function(format!("{name}/bytes={}/per commit={webhooks}", bytes(requests)), |b| {
            b.iter(|| round.commit(webhooks, sift))
        });
    }
    group.finish();
}

criterion_group!(benches, intake);
criterion_main!(benches);
