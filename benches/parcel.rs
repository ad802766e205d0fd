//! How long it takes to cut one region's part out of a batch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::config::SourceKind;
use penstock::cut::Cutter;

/// One change with `n` messages and their contacts, of two regions in turn.
fn batch(n: usize) -> String {
    let phone = |i: usize| format!("{}{i:08}", if i.is_multiple_of(2) { "9198" } else { "4477" });
    let contacts: Vec<_> =
        (0..n).map(|i| format!(r#"{{"profile":{{"name":"Person {i}"}},"wa_id":"{}"}}"#, phone(i))).collect();
    let messages: Vec<_> = (0..n)
        .map(|i| {
            format!(
                r#"{{"from":"{}","id":"wamid.HBgMOTE5ODc2NTAwMDAx{i:05}","timestamp":"1789400020","text":{{"body":"Body Text"}},"type":"text"}}"#,
                phone(i)
            )
        })
        .collect();
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"value":{{"metadata":{{"phone_number_id":"106500000000101"}},"contacts":[{}],"messages":[{}]}},"field":"messages"}}]}}]}}"#,
        contacts.join(","),
        messages.join(",")
    )
}

fn parcel(c: &mut Criterion) {
    let mut group = c.benchmark_group("parcel");
    for (n, kept) in [(2, 1), (10, 1), (10, 5), (1000, 1), (1000, 500), (1000, 999)] {
        let body = batch(n);
        let (mut cutter, mut out) = (Cutter::new(), Vec::new());
        // Spread over the batch, so that there is a cut at every border.
        let keep = |index: usize| index * kept / n != (index + 1) * kept / n;
        assert_eq!((0..n).filter(|index| keep(*index)).count(), kept);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("cut/events={n}/kept={kept}/bytes={}", body.len()), |b| {
            b.iter(|| {
                out.clear();
                let body = black_box(body.as_bytes());
                cutter.cut(SourceKind::Whatsapp, body, keep, false, &mut out)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parcel);
criterion_main!(benches);
