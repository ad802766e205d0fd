//! The way of an ordinary webhook allocates next to nothing once a core is warm: what is left is for a whole commit.
//!
//! `PENSTOCK_ALLOCATIONS=1 cargo test --test alloc -- --nocapture` says where from.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it found"
)]
// A global allocator is an unsafe trait; this one only counts and hands on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use penstock::config::{Secret, Source, SourceKind};
use penstock::dedupe::{Seen, Sighting};
use penstock::parse::{Parser, conversations};
use penstock::verify::Verifier;
use ringless::Core;
use ringless::forward::Forwarding;

#[path = "support/ringless/mod.rs"]
#[allow(unreachable_pub, dead_code, reason = "a bench has it, too")]
mod ringless;

/// Webhooks of a commit: what comes in between two at 100,000 a second.
const COMMIT: usize = 128;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Each allocation is told.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

fn tell(layout: Layout) {
    if TOLD.with(|told| told.replace(false)) {
        let trace = std::backtrace::Backtrace::force_capture();
        println!("{} bytes\n{trace}", layout.size());
        TOLD.with(|told| told.set(true));
    }
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        tell(layout);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// As [`allocations`], for something that is to be rare: says where each comes from if that is wanted.
fn told_allocations(work: impl FnOnce()) -> usize {
    TOLD.with(|told| told.set(std::env::var_os("PENSTOCK_ALLOCATIONS").is_some()));
    let count = allocations(work);
    TOLD.with(|told| told.set(false));
    count
}

/// Webhooks of all kinds, as they are posted.
fn requests() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    paths.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with("wasender"));
    paths.sort();
    paths.iter().map(|path| ringless::request(&ringless::config(), &std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_webhook_at_ingest_costs_a_twentieth_of_an_allocation() {
    let requests = requests();
    let mut core = Core::new(&ringless::config());
    let mut taken = requests.iter().cycle();
    let mut round = |commits: usize| {
        for _ in 0..commits {
            taken.by_ref().take(COMMIT).for_each(|request| core.take(request));
            core.commit();
            core.sift();
        }
    };
    round(50);
    let commits = 100;
    let count = if std::env::var_os("PENSTOCK_ALLOCATIONS").is_some() {
        told_allocations(|| round(1)) * commits
    } else {
        allocations(|| round(commits))
    };
    let each = count as f64 / (commits * COMMIT) as f64;
    println!("{each:.3} allocations a webhook");
    assert!(each <= 0.05, "{each:.3} allocations a webhook");
}

#[test]
fn a_parcel_costs_one_allocation_at_most() {
    let config = ringless::config();
    let mut core = Core::new(&config);
    let mut forwarding = Forwarding::new(&config, &core.published, &core.held);
    let (users, told) = (4096, std::env::var_os("PENSTOCK_ALLOCATIONS").is_some());
    let mut count = 0;
    for round in 0..4 {
        let requests = ringless::texts(&config, users, round);
        for (at, commit) in requests.chunks(COMMIT).enumerate() {
            commit.iter().for_each(|request| core.take(request));
            core.commit();
            let mut turn = || {
                forwarding.turn(&core.inlet);
                // About every 40 ms at 100,000 webhooks a second.
                if at % 32 == 31 {
                    forwarding.tick();
                }
            };
            match round {
                // The lanes, the book and what is remembered grow.
                0..3 => turn(),
                _ if told && at == 0 => count += told_allocations(turn),
                _ => count += allocations(turn),
            }
        }
    }
    assert_eq!(forwarding.delivered(), 4 * users as u64);
    let each = count as f64 / users as f64;
    println!("{each:.3} allocations a parcel");
    assert!(each <= 1.0, "{each:.3} allocations a parcel");
}

#[test]
fn asking_for_what_was_seen_allocates_nothing() {
    let mut seen = Seen::new(std::time::Duration::from_secs(3600), 1 << 20, 99);
    let key = |n: u32| [n.to_le_bytes(); 4].concat().try_into().unwrap();
    for n in 0..1000 {
        assert_eq!(seen.claim(1, &key(n), 5), Sighting::New);
    }
    let asked: Vec<_> = (0..1000).map(key).collect();
    let all = || assert!(asked.iter().all(|key| seen.claim(1, key, 5) == Sighting::Repeat));
    assert_eq!(allocations(all), 0);
}

#[test]
fn verifying_parsing_and_signing_allocate_nothing() {
    let verifier = Verifier::new(&Source {
        name: "main".into(),
        kind: SourceKind::Whatsapp,
        path: "/webhook".into(),
        secrets: vec![Secret::new("sample-app-secret"), Secret::new("another")],
        verify_tokens: Vec::new(),
    });
    let mut parser = Parser::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
    let mut bodies = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = if name.starts_with("wasender") { SourceKind::Wasender } else { SourceKind::Whatsapp };
        let body = std::fs::read(&path).unwrap();
        let mut round = || {
            let signature = verifier.sign(&body);
            assert!(verifier.verify([&signature[..]], &body).is_ok());
            let mut waits = 0;
            parser.parse(kind, &body, &mut |event| waits ^= conversations(event.number, event.users).count());
            std::hint::black_box(waits);
        };
        round();
        assert_eq!(allocations(round), 0, "{name}");
        bodies += 1;
    }
    assert!(bodies > 80);
    assert!(allocations(|| drop(std::hint::black_box(vec![1u8]))) > 0, "the counter counts");
}
