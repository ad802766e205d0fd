//! What it costs to find a region, over the number of prefixes. The walk must stay below 100 ns
//! with 100,000 prefixes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use penstock::config::{Endpoint, Region, Retry};
use penstock::parse::phone;
use penstock::route::Router;

/// Regions that share the prefixes out among themselves.
const REGIONS: usize = 50;
/// Phones per measurement: more than the nearest cache holds the paths of.
const PHONES: usize = 4096;
/// Digits of a phone.
const DIGITS: usize = 12;

/// A seeded sequence, so that every run asks the same.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// Digits, the first of them not zero.
    fn digits(&mut self, first: &str, length: usize) -> String {
        let mut digits = first.to_owned();
        while digits.len() < length {
            let least = u64::from(digits.is_empty());
            digits.push(char::from(b'0' + (least + self.below(10 - least)) as u8));
        }
        digits
    }
}

fn region(index: usize, prefixes: Vec<String>) -> Region {
    Region {
        name: format!("region-{index}"),
        endpoint: Endpoint {
            host: "127.0.0.1".into(),
            port: 80,
            authority: "127.0.0.1".into(),
            target: "/".into(),
        },
        prefixes,
        countries: vec![],
        phone_number_ids: vec![],
        accounts: vec![],
        signing_secret: None,
        in_flight: 1,
        timeout: Duration::from_secs(1),
        source_address: None,
        archive: None,
        rate: 0,
        retry: Retry::default(),
    }
}

fn bench(c: &mut Criterion) {
    for count in [10, 100, 1_000, 10_000, 100_000] {
        let mut sequence = Sequence(count);
        // Uniform digits are the hardest case: real prefixes share their beginnings.
        let mut prefixes: Vec<String> = (0..count)
            .map(|_| {
                let length = 4 + sequence.below(6) as usize;
                sequence.digits("", length)
            })
            .collect();
        prefixes.sort();
        prefixes.dedup();
        let share = prefixes.len().div_ceil(REGIONS);
        let mut regions: Vec<Region> =
            prefixes.chunks(share).enumerate().map(|(i, chunk)| region(i, chunk.to_vec())).collect();
        regions[0].countries = vec!["IN".into(), "BR".into()];
        let router = Router::new(&regions, 0);

        // In one piece, as the digits of a phone are at hand when it is routed.
        let hits: String = (0..PHONES)
            .map(|_| {
                let prefix = &prefixes[sequence.below(prefixes.len() as u64) as usize];
                sequence.digits(prefix, DIGITS)
            })
            .collect();
        // Seven zeros begin no prefix and no row.
        let misses: String = (0..PHONES).map(|_| sequence.digits("00", DIGITS)).collect();
        let ids: String = (0..PHONES)
            .map(|i| format!("{}.{}", ["IN", "BR", "US", "DE"][i % 4], sequence.digits("", DIGITS - 3)))
            .collect();

        let mut group = c.benchmark_group(format!("route/prefixes={count}"));
        let mut at = 0;
        let mut next = move || {
            at = (at + DIGITS) % (PHONES * DIGITS);
            at..at + DIGITS
        };
        group.bench_function("hit", |b| {
            b.iter(|| router.route(Some(black_box(&hits[next()])), None, "", ""));
        });
        group.bench_function("miss", |b| {
            b.iter(|| router.route(Some(black_box(&misses[next()])), None, "", ""));
        });
        group.bench_function("bsuid", |b| {
            b.iter(|| router.route(None, Some(black_box(&ids[next()])), "", ""));
        });
        group.finish();
    }
    c.bench_function("route/canonical/characters=17", |b| {
        b.iter(|| phone::canonical(black_box("+55 31 98765-4321")))
    });
}

criterion_group!(benches, bench);
criterion_main!(benches);
