//! How long it takes to believe a webhook, and to sign one.

use std::hint::black_box;
use std::ops::Range;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::config::{Secret, Source, SourceKind};
use penstock::verify::Verifier;

fn verifier(secrets: Range<usize>) -> Verifier {
    Verifier::new(&Source {
        name: "main".into(),
        kind: SourceKind::Whatsapp,
        path: "/webhook".into(),
        secrets: secrets.map(|i| Secret::new(format!("app-secret-{i}"))).collect(),
        verify_tokens: Vec::new(),
    })
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for len in [500, 700, 4_096, 65_536, 3_000_000] {
        let body = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        // The last secret signed, so that all are tried: the worst of a change of secrets, and as much as a forgery
        // costs.
        for secrets in [1, 2, 4] {
            let verifier = self::verifier(0..secrets);
            let header = self::verifier(secrets - 1..secrets).sign(&body);
            assert!(verifier.verify([&header[..]], &body).is_ok());
            group.bench_function(format!("verify/bytes={len}/secrets={secrets}"), |b| {
                b.iter(|| verifier.verify([black_box(&header[..])], black_box(&body)))
            });
        }
        let verifier = self::verifier(0..1);
        group.bench_function(format!("sign/bytes={len}"), |b| b.iter(|| verifier.sign(black_box(&body))));
    }
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
