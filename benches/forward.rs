//! What a parcel costs a forwarding core, whole, without socket and ring: from the hand-over over the question about
//! repeats and the lanes to the request's head, the region's answer and the mark.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringless::Core;
use ringless::forward::Forwarding;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "../tests/support/ringless/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "a test has it, too")]
mod ringless;

/// Users who write one text each before any writes again.
const USERS: usize = 1024;

fn forward(c: &mut Criterion) {
    let config = ringless::config();
    let mut group = c.benchmark_group("forward");
    // What is made for it takes ten times as long and is not measured.
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for commit in [1, 16, 128] {
        let mut core = Core::new(&config);
        let mut forwarding = Forwarding::new(&config, &core.published, &core.held);
        let (mut round, mut ahead) = (0, Vec::new().into_iter());
        group.throughput(Throughput::Elements(commit));
        group.bench_function(format!("texts/users={USERS}/per frame={commit}"), |b| {
            b.iter_custom(|frames| {
                let mut took = Duration::ZERO;
                for frame in 0..frames {
                    for _ in 0..commit {
                        if ahead.len() == 0 {
                            ahead = ringless::texts(&config, USERS, round).into_iter();
                            round += 1;
                        }
                        ahead.next().iter().for_each(|request| core.take(request));
                    }
                    core.commit();
                    let start = Instant::now();
                    forwarding.turn(black_box(&core.inlet));
                    if frame % 32 == 31 {
                        forwarding.tick();
                    }
                    took += start.elapsed();
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
