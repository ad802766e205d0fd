//! What order per conversation costs a forwarding core, per parcel.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::forward::lane::{Class, Lanes};
use penstock::forward::retry::Rng;

/// Parcels per round: enough to leave the smallest caches.
const PARCELS: usize = 10_000;

/// Lanes that already hold `backlog` parcels of other conversations, `per` parcels in each.
fn behind(backlog: u64, per: u64) -> Lanes<u64> {
    let mut lanes = Lanes::default();
    for parcel in 0..backlog {
        lanes.push(&[(1 << 63) | (parcel / per)], Class::Backlog, parcel);
    }
    lanes
}

fn push_pop_finish(c: &mut Criterion) {
    let mut group = c.benchmark_group("lane/push_pop_finish");
    group.throughput(Throughput::Elements(PARCELS as u64));
    for (name, conversations, each, backlog) in [
        ("conversations=10000/each=1/backlog=0", 10_000, 1, 0),
        ("conversations=100/each=1/backlog=0", 100, 1, 0),
        ("conversations=10000/each=4/backlog=0", 10_000, 4, 0),
        ("conversations=10000/each=1/backlog=1000000", 10_000, 1, 1_000_000),
    ] {
        let mut rng = Rng::new(1);
        let wanted: Vec<Vec<u64>> =
            (0..PARCELS).map(|_| (0..each).map(|_| rng.below(conversations)).collect()).collect();
        let mut lanes = behind(backlog, 10);
        // The backlog's heads run for ever; all that follows is ready only by itself.
        while lanes.pop_ready().is_some() {}
        group.bench_function(name, |b| {
            b.iter(|| {
                for conversations in &wanted {
                    lanes.push(conversations, Class::Fresh, 0);
                }
                while let Some(id) = lanes.pop_ready() {
                    black_box(lanes.finish(id));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, push_pop_finish);
criterion_main!(benches);
