//! A chain on its own: what clocks and strangers do to it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::chain::verify::{Expected, Key, Kind, Problem, verify};
use super::super::chain::{Chain, ObjectLink, Signer};
use super::super::disk::Disk;
use super::super::folder::Folder;
use super::super::read::Contents;
use super::super::shelf::Shelf as _;
use super::super::shipper::{Shipper, dock};
use super::super::store::Store as _;
use super::fake::Fake;
use super::*;
use crate::config::SigningKey;
use crate::metrics::archive::ArchiveCells;

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
        let disk = Fake::with_folders(&["/data", "/us"]);
        let scene = Self { disk, key: SigningKey::generate().unwrap().0 };
        scene.store().check().unwrap();
        scene
    }

    fn store(&self) -> Folder<Fake> {
        Folder::new(self.disk.clone(), "/us".into(), "edge".to_owned())
    }

    fn chain(&self) -> Chain<Fake> {
        let (gateway, region, place) = ("edge".to_owned(), "us".to_owned(), "/us".to_owned());
        let signer = Signer { key: self.key.clone(), gateway, region, place, clock: || CLOCK.get() };
        Chain::new(self.disk.clone(), Path::new("/data"), signer)
    }

    /// True if the hour got its digest.
    fn at(&self, chain: &mut Chain<Fake>, ms: u64) -> bool {
        CLOCK.set(ms);
        let before = self.links();
        chain.tick(&mut self.store()).unwrap();
        self.links() > before
    }

    fn add(&self, chain: &mut Chain<Fake>, lsn: u64) {
        let contents = Contents { first_lsn: lsn, last_lsn: lsn, records: 1, ..Contents::default() };
        let object =
            ObjectLink::new(format!("dt=2026-09-14/hour=12/edge-{JOURNAL}-{lsn}"), JOURNAL.into(), &contents);
        chain.add(&mut self.store(), &object).unwrap();
    }

    /// Where the gateway notes the chain's end.
    fn note(&self) -> PathBuf {
        let notes = self.disk.files().into_keys().filter(|path| path.starts_with("/data/archive/chain"));
        let notes: Vec<PathBuf> = notes.collect();
        assert_eq!(notes.len(), 1, "{notes:?}");
        notes[0].clone()
    }

    /// Files of the chain.
    fn links(&self) -> usize {
        self.store().names("chain/edge").unwrap().len()
    }

    fn verify(&self) -> Vec<Problem> {
        let keys = [Key { gateway: None, public: self.key.public() }];
        let expected = Expected { keys: &keys, ..Expected::default() };
        verify(&self.store(), &expected, &mut |_, _| ()).unwrap().problems
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let mut file = self.disk.create(&Path::new(DIR).join(name)).unwrap();
        self.disk.append(&mut file, bytes).unwrap();
    }
}

#[test]
fn every_hour_gets_its_digest_also_an_empty_one_and_whatever_the_clock_does() {
    let scene = Scene::new();
    let mut chain = scene.chain();
    assert!(!scene.at(&mut chain, NOON_MS), "the hour is not over");
    assert!(scene.at(&mut chain, NOON_MS + HOUR_MS));
    assert!(!scene.at(&mut chain, NOON_MS + HOUR_MS + 1), "once an hour");
    assert!(scene.at(&mut chain, NOON_MS + 87_600 * HOUR_MS), "ten years forth");
    assert!(!scene.at(&mut chain, NOON_MS + 2 * HOUR_MS), "and back");
    assert!(scene.at(&mut chain, NOON_MS + 3 * HOUR_MS));
    let mut chain = scene.chain();
    assert!(!scene.at(&mut chain, NOON_MS + 3 * HOUR_MS + 5));
    // A gateway that did not run for a while says so for all hours at once.
    assert!(scene.at(&mut chain, NOON_MS + 9 * HOUR_MS));
    assert_eq!(chain.head().unwrap().number, 3);
    assert_eq!(scene.verify(), []);
}

/// Also if the archive was away when the hour was over, and the newest once more at each start.
#[test]
fn the_link_of_every_hour_is_published_as_the_chain_has_it() {
    let scene = Scene::new();
    let (heads, published) = crossbeam_channel::unbounded();
    let shipper = || {
        let (dock, pier) = dock();
        let cells = (Arc::new(vec![ArchiveCells::default(), ArchiveCells::default()]), 1);
        let (store, disk, chain) = (scene.store(), scene.disk.clone(), scene.chain());
        let shipper = Shipper::new(store, disk, Some(chain), pier, cells, "us".into());
        (dock, shipper.publishing(Some(heads.clone()), "us/edge".to_owned()))
    };
    let (_dock, mut first) = shipper();
    let mut now_ms = 0;
    let mut turns = |shipper: &mut Shipper<_, _>, hour| {
        CLOCK.set(NOON_MS + hour * HOUR_MS);
        for _ in 0..3 {
            now_ms += 60_000;
            shipper.turn(now_ms);
        }
    };
    (0..3).for_each(|hour| turns(&mut first, hour));
    ["/us/.tmp", "/us"].into_iter().for_each(|folder| scene.disk.remove_dir(Path::new(folder)).unwrap());
    turns(&mut first, 3);
    assert_eq!(published.len(), 2, "once for each hour that is over");
    scene.disk.make_dir(Path::new("/us")).unwrap();
    turns(&mut first, 3);
    assert_eq!(published.len(), 3, "the archive is back");
    let (_other, mut second) = shipper();
    turns(&mut second, 3);
    for (number, link) in [0, 1, 2, 2].into_iter().zip(published.try_iter()) {
        let file = scene.disk.files().remove(&Path::new(DIR).join(format!("{number:012}.json")));
        assert_eq!((link.newest.number, Some(link.newest.link)), (number, file));
        assert_eq!((link.region, link.folder.as_str()), (1, "us/edge"));
    }
    assert_eq!(published.len(), 0);
}

#[test]
fn what_strangers_put_among_the_links_is_named_and_stops_nobody() {
    for (name, kind) in [
        ("999999999999.json", Kind::Changed),
        ("18446744073709551615.json", Kind::Added),
        ("1000000000000.json", Kind::Added),
        ("1.json", Kind::Added),
        ("000000000001.json", Kind::Added),
    ] {
        for noted in [true, false] {
            let scene = Scene::new();
            let mut chain = scene.chain();
            scene.at(&mut chain, NOON_MS);
            assert!(scene.at(&mut chain, NOON_MS + HOUR_MS));
            scene.write(name, b"{\"v\":1}\n{}\n");
            if !noted {
                scene.disk.remove(&scene.note()).unwrap();
            }
            let mut chain = scene.chain();
            assert!(scene.at(&mut chain, NOON_MS + 2 * HOUR_MS), "{name}");
            assert_eq!(chain.head().unwrap().number, 1, "{name}: what a stranger put there is no link");
            let problems = scene.verify();
            assert!(
                problems.iter().any(|p| p.kind == kind && p.place.contains(name)),
                "{name}: {problems:?}"
            );
        }
    }
}

#[test]
fn a_gateway_without_its_note_goes_on_behind_its_newest_link() {
    let scene = Scene::new();
    let mut chain = scene.chain();
    scene.at(&mut chain, NOON_MS);
    scene.add(&mut chain, 1);
    assert!(scene.at(&mut chain, NOON_MS + HOUR_MS));
    scene.add(&mut chain, 5);
    scene.disk.remove(&scene.note()).unwrap();
    let mut chain = scene.chain();
    // It knows what has a link since the last digest.
    scene.add(&mut chain, 5);
    assert_eq!(scene.links(), 3);
    scene.add(&mut chain, 9);
    assert_eq!(chain.head().unwrap().number, 3);
    assert!(scene.at(&mut chain, NOON_MS + 2 * HOUR_MS));
    // There are no such objects, and nothing else is wrong.
    let problems = scene.verify();
    assert!(
        problems.iter().all(|p| p.kind == Kind::Wrong && p.what.contains("no name of an object")),
        "{problems:?}"
    );
}

#[test]
fn a_data_folder_of_before_goes_on_behind_what_came_after_it() {
    let scene = Scene::new();
    let mut chain = scene.chain();
    scene.at(&mut chain, NOON_MS);
    assert!(scene.at(&mut chain, NOON_MS + HOUR_MS));
    let note = scene.note();
    let before = scene.disk.files()[&note].clone();
    assert!(scene.at(&mut chain, NOON_MS + 2 * HOUR_MS));
    assert!(scene.at(&mut chain, NOON_MS + 3 * HOUR_MS));
    let mut file = scene.disk.create(&note).unwrap();
    scene.disk.append(&mut file, &before).unwrap();
    let mut chain = scene.chain();
    assert!(scene.at(&mut chain, NOON_MS + 4 * HOUR_MS));
    assert_eq!(chain.head().unwrap().number, 3, "no number is signed twice");
    assert_eq!(scene.verify(), []);
}

#[test]
fn a_chain_that_the_key_did_not_sign_is_not_gone_on_with() {
    let mut scene = Scene::new();
    let mut chain = scene.chain();
    scene.at(&mut chain, NOON_MS);
    assert!(scene.at(&mut chain, NOON_MS + HOUR_MS));
    scene.disk.remove(&scene.note()).unwrap();
    scene.key = SigningKey::generate().unwrap().0;
    let told = scene.chain().tick(&mut scene.store()).unwrap_err().to_string();
    assert!(told.contains("none that this key signed"), "{told}");
    assert_eq!(scene.links(), 1);
}
