//! What the head of an attempt costs: made, and given back for the next one.

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use penstock::config::{Endpoint, Region, Retry, Secret};
use penstock::forward::envelope::{Envelope, Stamp};

fn region(signing_secret: Option<Secret>) -> Region {
    Region {
        name: "us-east".into(),
        endpoint: Endpoint {
            host: "127.0.0.1".into(),
            port: 80,
            authority: "127.0.0.1".into(),
            target: "/webhook".into(),
        },
        prefixes: vec![],
        countries: vec![],
        phone_number_ids: vec![],
        accounts: vec![],
        signing_secret,
        in_flight: 1,
        timeout: Duration::from_secs(1),
        source_address: None,
        archive: None,
        rate: 0,
        retry: Retry::default(),
    }
}

fn envelope(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let body = [b'x'; 700];
    for (name, secret) in [("plain", None), ("signed", Some(Secret::new("secret")))] {
        let envelope = Envelope::new("edge-1", "main", &region(secret)).expect("an envelope");
        let mut buffer = BytesMut::new();
        let mut now = 1_789_400_000_u64;
        group.bench_function(format!("{name}/body={}", body.len()), |b| {
            b.iter(|| {
                now += 1;
                let id = envelope.id(black_box(&[7; 32]), 0);
                let stamp = Stamp {
                    id: &id,
                    body: &body,
                    hub_signature: &[0xA5; 32],
                    received_at_ms: now * 1000,
                    now_s: now,
                    attempt: 1,
                    gap_before: 0,
                    possible_duplicate: false,
                };
                envelope.give_back(black_box(envelope.head(&stamp, &mut buffer)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, envelope);
criterion_main!(benches);
