//! A chain on its own: what clocks and strangers do to it.

use std::cell::Cell;
use std::path::Path;

use super::super::chain::verify::{Kind, Problem, verify};
use super::super::chain::{Chain, Head};
use super::super::disk::Disk;
use super::fake::Fake;
use super::*;
use crate::config::SigningKey;

const HOUR_MS: u64 = 3_600_000;
const NOON_MS: u64 = NOON_NS / 1_000_000;
const DIR: &str = "/us/chain/edge";

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(NOON_MS) };
}

struct Scene {
    disk: Fake,
    key: SigningKey,
}

impl Scene {
    fn new() -> Self {
        CLOCK.set(NOON_MS);
        let disk = Fake::with_folders(&["/data", "/us", "/us/.tmp"]);
        Self { disk, key: SigningKey::generate().unwrap().0 }
    }

    fn chain(&self, known: Option<Head>) -> Chain<Fake> {
        let names = ["edge".to_owned(), "us".to_owned()];
        let root = Path::new("/us");
        let clock = || CLOCK.get();
        let unfinished = root.join(".tmp/link");
        Chain::new(self.disk.clone(), root.to_owned(), unfinished, names, self.key.clone(), clock, known)
    }

    fn verify(&self) -> Vec<Problem> {
        verify(&self.disk, Path::new("/us"), &[self.key.public()], &[], &mut |_, _| ()).unwrap().problems
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let mut file = self.disk.create(&Path::new(DIR).join(name)).unwrap();
        self.disk.append(&mut file, bytes).unwrap();
    }
}

/// True if the hour got its digest.
fn at(chain: &mut Chain<Fake>, ms: u64) -> bool {
    CLOCK.set(ms);
    chain.tick().unwrap()
}

#[test]
fn every_hour_gets_its_digest_also_an_empty_one_and_whatever_the_clock_does() {
    let scene = Scene::new();
    let mut chain = scene.chain(None);
    assert!(!at(&mut chain, NOON_MS), "the hour is not over");
    assert!(at(&mut chain, NOON_MS + HOUR_MS));
    assert!(!at(&mut chain, NOON_MS + HOUR_MS + 1), "once an hour");
    assert!(at(&mut chain, NOON_MS + 87_600 * HOUR_MS), "ten years forth");
    assert!(!at(&mut chain, NOON_MS + 2 * HOUR_MS), "and back");
    assert!(at(&mut chain, NOON_MS + 3 * HOUR_MS));
    let mut chain = scene.chain(chain.head().cloned());
    assert!(!at(&mut chain, NOON_MS + 3 * HOUR_MS + 5));
    // A gateway that did not run for a while says so for all hours at once.
    assert!(at(&mut chain, NOON_MS + 9 * HOUR_MS));
    assert_eq!(chain.head().unwrap().number, 3);
    assert_eq!(scene.verify(), []);
}

#[test]
fn what_strangers_put_among_the_links_is_named_and_stops_nobody() {
    for (name, kind) in [
        ("999999999999.json", Kind::Changed),
        ("18446744073709551615.json", Kind::Added),
        ("1000000000000.json", Kind::Added),
        ("1.json", Kind::Added),
        ("000000000001.json", Kind::Changed),
        ("\u{fffd}", Kind::Added),
    ] {
        let scene = Scene::new();
        let mut chain = scene.chain(None);
        at(&mut chain, NOON_MS);
        assert!(at(&mut chain, NOON_MS + HOUR_MS));
        scene.write(name, b"{\"v\":1}\n{}\n");
        let mut chain = scene.chain(None);
        CLOCK.set(NOON_MS + 2 * HOUR_MS);
        chain.has(JOURNAL, 1).unwrap();
        // Where no number is left it says so, every time.
        assert_eq!(chain.tick().is_ok(), name != "999999999999.json", "{name}");
        let problems = scene.verify();
        assert!(problems.iter().any(|p| p.kind == kind && p.place.ends_with(name)), "{name}: {problems:?}");
    }
}
