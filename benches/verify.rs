//! How long it takes to believe a webhook, and to sign one.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::config::{Secret, Source, SourceKind};
use penstock::verify::Verifier;

fn verifier(secrets: usize) -> Verifier {
    Verifier::new(&Source {
        name: "main".into(),
        kind: SourceKind::Whatsapp,
        path: "/webhook".into(),
        secrets: (0..secrets).map(|i| Secret::new(format!("app-secret-{i}"))).collect(),
        verify_tokens: Vec::new(),
    })
}

fn verify(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for (name, len, secrets) in
        [("700 B, 1 secret", 700, 1), ("700 B, 4 secrets", 700, 4), ("3 MB", 3_000_000, 1)]
    {
        let body = vec![b'x'; len];
        let verifier = verifier(secrets);
        let header = verifier.sign(&body);
        group.throughput(Throughput::Bytes(len as u64));
        group
            .bench_function(name, |b| b.iter(|| verifier.verify([black_box(&header[..])], black_box(&body))));
    }
    let (verifier, body) = (verifier(1), vec![b'x'; 700]);
    group.bench_function("sign 700 B", |b| b.iter(|| verifier.sign(black_box(&body))));
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
