//! What intake costs for a webhook, from its head to its place in the frame: admit, verify, parse,
//! route, journal. No socket, no ring, no commit.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use penstock::config::Config;
use penstock::http1::{Limits, NO_HEADERS, Scan, parse_request};
use penstock::intake::Intake;
use penstock::journal::Journal;
use penstock::journal::buffer::BufferPool;
use penstock::journal::spare::{OpenMode, Spare};
use penstock::journal::writer::Seed;
use penstock::listen::{Answer, Handler};
use penstock::metrics::{Counter, IngestCells, SourceCells};
use penstock::verify::Verifier;

/// Webhooks per frame: they fit in a buffer as it comes from the pool.
const BATCH: u64 = 128;

const CONFIG: &str = r#"
    [[source]]
    name = "main"
    secrets = ["env:PATH"]
    verify_tokens = ["env:PATH"]
    [[region]]
    name = "eu"
    endpoint = "http://10.0.0.1:8080/in"
    prefixes = ["44"]
    [[region]]
    name = "in"
    endpoint = "http://10.0.0.2:8080/in"
    countries = ["IN"]
    [routing]
    default = "eu"
"#;

fn journal(cells: Arc<IngestCells>) -> Rc<Journal> {
    let seed = Seed {
        id: [1; 16],
        dir: "/nowhere".into(),
        next_frame: 1,
        next_lsn: 1,
        chain: [0; 16],
        last_segment: 0,
        last_end: 0,
        spares: [1, 2].map(|number| Spare { number, file: tempfile::tempfile().expect("a file") }).into(),
        damage: vec![],
        mode: OpenMode::Unsynced,
        segment_bytes: 64 << 20,
        commit_delay: Duration::ZERO,
    };
    let (orders, _) = crossbeam_channel::unbounded();
    let (wrote, _) = crossbeam_channel::unbounded();
    Journal::new(seed, orders, wrote, BufferPool::new(4, Arc::new(AtomicUsize::new(0))), cells)
}

fn intake(c: &mut Criterion) {
    let (config, _) = Config::from_toml(CONFIG, Path::new("/tmp")).expect("a configuration");
    let path = format!("{}/tests/data/payloads/status-bsuid-no-phone.json", env!("CARGO_MANIFEST_DIR"));
    let body = std::fs::read(path).expect("sample body");
    let signature = Verifier::new(&config.sources[0]).sign(&body);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: hooks.example.com\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip\r\n\
         User-Agent: facebookexternalua\r\nContent-Type: application/json\r\n\
         X-Hub-Signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
         X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        config.sources[0].path,
        String::from_utf8_lossy(&signature),
        body.len()
    );
    let peer = "192.0.2.7:4711".parse().expect("an address");
    let limits = Limits { head: 16 << 10, body: 4 << 20 };
    let cells = Arc::new(IngestCells {
        sources: vec![SourceCells::default()],
        parcels: vec![Counter::default(), Counter::default()],
        ..IngestCells::default()
    });
    c.bench_function(&format!("intake/status/bytes={}", body.len()), |b| {
        b.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            let mut left = rounds;
            while left > 0 {
                let batch = left.min(BATCH);
                left -= batch;
                let journal = journal(Arc::clone(&cells));
                let intake =
                    Intake::new(&config, &[0, 0], journal, Arc::new(AtomicU64::new(1)), Arc::clone(&cells));
                let one = || {
                    let mut headers = NO_HEADERS;
                    let head =
                        parse_request(black_box(head.as_bytes()), &mut headers, &mut Scan::default(), limits);
                    let (head, _) = head.expect("a good head").expect("a whole head");
                    let pass = intake.admit(&head, peer).expect("a pass");
                    intake.accept(pass, &head, peer, black_box(&body))
                };
                // Grows what is reused.
                assert!(matches!(one(), Answer::Later(_)));
                let start = Instant::now();
                for _ in 0..batch {
                    black_box(one());
                }
                took += start.elapsed();
            }
            took
        });
    });
}

criterion_group!(benches, intake);
criterion_main!(benches);
