//! How long it takes to find the events of a body. Goal: at most 0.8 us for a status of 700 bytes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::config::SourceKind;
use penstock::parse::{Parser, conversations};

fn sample(name: &str) -> String {
    let path = format!("{}/tests/data/payloads/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("sample body")
}

/// `n` changes like the one of a text message, each with a user of its own and `filler` more bytes.
fn batch(n: usize, filler: usize) -> String {
    let text = sample("text");
    let (from, to) = (text.find(r#"{"value""#).expect("change"), text.rfind("]}]}").expect("end of changes"));
    let change = text[from..to].replace("Body Text", &format!("Body Text{}", "x".repeat(filler)));
    let changes: Vec<_> = (0..n).map(|i| change.replace("919876500001", &format!("9198{i:08}"))).collect();
    format!("{}{}{}", &text[..from], changes.join(","), &text[to..])
}

/// Nothing but brackets where the events should be.
fn nested(open: &str, close: &str, depth: usize) -> String {
    let before = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[{"value":"#;
    format!(r#"{before}{}1{},"field":"messages"}}]}}]}}"#, open.repeat(depth), close.repeat(depth))
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let escapes = sample("text").replace("Body Text", &r"\u00e4\u00f6\ud83d\ude00\/".repeat(20));
    let bodies = [
        ("status", sample("status-bsuid-no-phone")),
        ("text", sample("text")),
        ("escapes", escapes),
        ("batch/events=10", batch(10, 0)),
        ("batch/events=1000", batch(1000, 2_500)),
        ("history", sample("own-history")),
        ("nested arrays/depth=1000", nested("[", "]", 1_000)),
        ("nested arrays/depth=1000000", nested("[", "]", 1_000_000)),
        ("nested objects/depth=100000", nested(r#"{"a":"#, "}", 100_000)),
        ("account", sample("template-status-rejected")),
        ("opaque", sample("own-unknown-object")),
    ];
    for (name, body) in &bodies {
        let mut parser = Parser::new();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}/bytes={}", body.len()), |b| {
            b.iter(|| {
                parser.parse(SourceKind::Whatsapp, black_box(body.as_bytes()), &mut |event| {
                    black_box(event.key);
                })
            });
        });
    }
    let mut parser = Parser::new();
    group.bench_function(format!("status with conversations/bytes={}", bodies[0].1.len()), |b| {
        b.iter(|| {
            parser.parse(SourceKind::Whatsapp, black_box(bodies[0].1.as_bytes()), &mut |event| {
                conversations(event.number, event.users).for_each(|id| {
                    black_box(id);
                });
            })
        });
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
