//! Heads per second: what the provider sends, what a test tool sends, and what a balancer adds; whole, in two reads and in as many
//! as a slow client makes.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use penstock::http1::{Limits, NO_HEADERS, Scan, parse_request};

const LIMITS: Limits = Limits { head: 16 << 10, body: 4 << 20 };

/// The fewest fields that are taken.
const MINIMAL: &str = "POST /webhook HTTP/1.1\r\nHost: a.example\r\nContent-Length: 673\r\n\r\n";

/// As the provider sends it.
const META: &str = "POST /webhook HTTP/1.1\r\n\
    Host: hooks.example.com\r\n\
    Accept: */*\r\n\
    Accept-Encoding: deflate, gzip\r\n\
    User-Agent: facebookexternalua\r\n\
    Content-Type: application/json\r\n\
    X-Hub-Signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
    X-Hub-Signature-256: sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n\
    Content-Length: 673\r\n\r\n";

/// The same behind a balancer.
const BALANCED: &str = "POST /webhook HTTP/1.1\r\n\
    Host: hooks.example.com\r\n\
    X-Forwarded-For: 173.252.127.10\r\n\
    X-Forwarded-Proto: https\r\n\
    X-Forwarded-Port: 443\r\n\
    X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678\r\n\
    X-Amzn-Mtls-Clientcert-Subject: CN=client.webhooks.fbclientcerts.com,O=Meta Platforms\\, Inc.,L=Menlo Park,ST=California,C=US\r\n\
    Accept: */*\r\n\
    Accept-Encoding: deflate, gzip\r\n\
    User-Agent: facebookexternalua\r\n\
    Content-Type: application/json\r\n\
    X-Hub-Signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
    X-Hub-Signature-256: sha256=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n\
    Connection: keep-alive\r\n\
    Content-Length: 673\r\n\r\n";

/// Parses `head` as it arrives up to each of `cuts` and then whole.
fn parse(head: &[u8], cuts: &[usize]) -> usize {
    let mut scan = Scan::default();
    for end in cuts.iter().copied().chain([head.len()]) {
        let mut headers = NO_HEADERS;
        if let Ok(Some((parsed, used))) = parse_request(&head[..end], &mut headers, &mut scan, LIMITS) {
            black_box(&parsed);
            return used;
        }
    }
    0
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("http_head");
    for (name, head) in [("minimal", MINIMAL), ("meta", META), ("balanced", BALANCED)] {
        let head = head.as_bytes();
        let half = [head.len() / 2];
        let crumbs: Vec<usize> = (16..head.len()).step_by(16).collect();
        assert_eq!((parse(head, &[]), parse(head, &half)), (head.len(), head.len()));
        let name = format!("{name}/bytes={}", head.len());
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(format!("{name}/reads=1"), |b| b.iter(|| parse(black_box(head), &[])));
        group.bench_function(format!("{name}/reads=2"), |b| {
            b.iter(|| parse(black_box(head), black_box(&half)))
        });
        group.bench_function(format!("{name}/reads={}", crumbs.len() + 1), |b| {
            b.iter(|| parse(black_box(head), black_box(&crumbs)))
        });
        group.bench_function(format!("{name}/httparse alone"), |b| {
            b.iter(|| {
                let mut headers = NO_HEADERS;
                let mut request = httparse::Request::new(&mut []);
                let used = request.parse_with_uninit_headers(black_box(head), &mut headers);
                black_box(used)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heads);
criterion_main!(benches);
