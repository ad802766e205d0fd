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
    // The last secret signed, so that all are tried: the worst of a change of secrets.
    for (len, secrets) in [(500, 1), (700, 1), (700, 4), (65_536, 1), (3_000_000, 1)] {
        let body = vec![b'x'; len];
        let verifier = self::verifier(0..secrets);
        let header = self::verifier(secrets - 1..secrets).sign(&body);
        assert!(verifier.verify([&header[..]], &body).is_ok());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("verify/bytes={len}/secrets={secrets}"), |b| {
            b.iter(|| verifier.verify([black_box(&header[..])], black_box(&body)))
        });
    }
    let (verifier, body) = (self::verifier(0..1), vec![b'x'; 700]);
    group.bench_function("sign/bytes=700", |b| b.iter(|| verifier.sign(black_box(&body))));
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
