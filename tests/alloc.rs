//! The way of an ordinary webhook allocates nothing once a core is warm.

// A global allocator is an unsafe trait; this one only counts and hands on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use penstock::config::{Secret, Source, SourceKind};
use penstock::dedupe::{Seen, Sighting};
use penstock::parse::{Parser, conversations};
use penstock::verify::Verifier;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
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
