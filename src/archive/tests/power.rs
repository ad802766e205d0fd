//! The whole archiver over a disk whose power goes at every step: nothing is lost, nothing is in two
//! objects, and nothing was called archived that a power cut can take away.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::super::archiver::{Archiver, Read};
use super::super::chain::verify::{Expected, Key, Kind, Problem, verify};
use super::super::chain::{Chain, Signer};
use super::super::disk::Disk;
use super::super::folder::Folder;
use super::super::shipper::{Shipper, dock};
use super::fake::{Crash, Fake};
use super::*;
use crate::config::SourceKind::Whatsapp;
use crate::config::{ArchivePlace, SigningKey};
use crate::journal::read::ReadEntry;
use crate::journal::record::write_entry;
use crate::journal::view::Archived;
use crate::journal::{JournalId, Position};
use crate::metrics::archive::ArchiveCells;
use crate::parse::tests::Rng;

const REGIONS: [&str; 3] = ["us", "in", "br"];
/// In a segment.
const FRAMES: u64 = 7;
pub(super) const IDS: [JournalId; 2] = [[1; 16], [2; 16]];

struct Frame {
    position: Position,
    next: Position,
    bytes: Vec<u8>,
    entries: Vec<ReadEntry>,
}

/// A journal, and of every entry its frame and the archives it belongs to.
struct Journal {
    frames: Vec<Frame>,
    entries: BTreeMap<u64, (Position, Vec<usize>)>,
}

fn journal(rng: &mut Rng, frames: usize) -> Journal {
    let (mut lsn, mut clock) = (1, NOON_NS);
    let mut made = Journal { frames: Vec::new(), entries: BTreeMap::new() };
    for at in 0..frames {
        // Segments hold several objects, and objects reach over segments.
        let (segment, place) = (1 + at as u64 / FRAMES, at as u64 % FRAMES);
        let position = Position::new(segment, 8192 + place * 4096);
        let mut bytes = AlignedBuf::with_capacity(0);
        let mut entries = Vec::new();
        for _ in 0..rng.below(5) {
            clock += if rng.one_in(20) { 3600 } else { 1 } * SECOND_NS;
            let several = rng.one_in(4);
            let homes: Vec<&'static str> =
                (0..if several { 3 } else { 1 }).map(|_| *rng.pick(&REGIONS)).collect();
            let messages: Vec<String> = (0..homes.len())
                .map(|n| format!(r#"{{"id":"wamid.{lsn}.{n}","text":"{:032x}"}}"#, rng.next()))
                .collect();
            let body = format!(
                r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"value":{{"messages":[{}]}},"field":"messages"}}]}}]}}"#,
                messages.join(",")
            );
            let verdict = verdict(Whatsapp, body.as_bytes(), clock, |event| homes[event]);
            let start = bytes.len();
            let len = write_entry(&mut bytes, lsn, 1, |out| verdict.write(out), body.as_bytes());
            entries.push(ReadEntry { seq: lsn, lsn, start, len });
            let archives = (0..2).filter(|region| homes.contains(&REGIONS[*region])).collect();
            made.entries.insert(lsn, (position, archives));
            lsn += 1;
        }
        let bytes = bytes.as_slice().to_vec();
        made.frames.push(Frame {
            position,
            next: Position::new(segment, 8192 + (place + 1) * 4096),
            bytes,
            entries,
        });
    }
    made
}

impl Journal {
    fn end(&self) -> Position {
        self.frames.last().map_or(Position::default(), |frame| frame.next)
    }
}

pub(super) struct World {
    journals: [Journal; 2],
    config: Config,
}

thread_local! {
    /// What chains take for the time of day, Unix milliseconds.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}
/// An hour is soon over: a second of the archiver's is more than a minute of the day.
const FAST: u64 = 100;

fn clock() -> u64 {
    CLOCK.get()
}

impl World {
    pub(super) fn new(rng: &mut Rng, frames: usize) -> Self {
        let journals = [journal(rng, frames), journal(rng, frames / 2)];
        Self { journals, config: config("roll_bytes = \"4KiB\"\nroll_after = \"5s\"") }
    }

    /// Its archives have chains.
    pub(super) fn signed(mut self) -> Self {
        self.config.archive.signing_key = Some(SigningKey::generate().unwrap().0);
        self
    }

    /// Its objects close at that size from now on.
    pub(super) fn roll_at(&mut self, bytes: u64) {
        self.config.archive.roll_bytes = bytes;
    }

    /// A process: archives until all is done or the power goes. What it said is archived; of that, whole
    /// segments are gone for the processes after it, as the journals let them go.
    pub(super) fn run(&self, disk: &Fake, rng: &mut Rng, gone: &mut [Position; 2]) {
        let archived: [Arc<Archived>; 2] = std::array::from_fn(|_| Arc::new(Archived::not_yet()));
        let cells: Arc<Vec<ArchiveCells>> =
            Arc::new(REGIONS.iter().map(|_| ArchiveCells::default()).collect());
        let known = IDS.into_iter().zip(archived.iter().cloned());
        CLOCK.set(NOON_NS / 1_000_000);
        let (mut docks, mut shippers) = (Vec::new(), Vec::new());
        for (at, region) in self.config.regions.iter().enumerate() {
            let Some(ArchivePlace::Folder(root)) = region.archive.clone() else {
                docks.push(None);
                continue;
            };
            let (dock, pier) = dock();
            docks.push(Some(dock));
            let chain = self.config.archive.signing_key.clone().map(|key| {
                let (gateway, region) = (self.config.gateway.id.clone(), region.name.clone());
                let signer =
                    Signer { key, gateway, region, place: format!("file://{}", root.display()), clock };
                Chain::new(disk.clone(), Path::new("/data"), signer)
            });
            let store = Folder::new(disk.clone(), root, "edge-1".to_owned());
            let cells = (Arc::clone(&cells), at);
            shippers.push(Shipper::new(store, disk.clone(), chain, pier, cells, region.name.clone()));
        }
        let mut archiver = Archiver::new(disk, &self.config, known, Arc::clone(&cells), docks).unwrap();
        let ends = [0, 1].map(|at: usize| self.journals[at].end());
        let mut now_ms = 0;
        let (mut idle, mut waited) = (0, false);
        // Long enough for every pause after a failure, and for many in a row while objects wait.
        while (idle < 100 || archiver.waits() && idle < 1_000) && !disk.is_dead() {
            now_ms += rng.below(1_500) as u64;
            CLOCK.set(NOON_NS / 1_000_000 + now_ms * FAST);
            idle += 1;
            for (at, journal) in self.journals.iter().enumerate() {
                let places = archiver.places(at, ends[at], now_ms);
                if places.is_empty() {
                    continue;
                }
                let mut asked = *rng.pick(&places);
                for _ in 0..1 + rng.below(4) {
                    let is_here = |frame: &&Frame| {
                        frame.position >= asked && frame.position.segment() >= gone[at].segment()
                    };
                    let Some(frame) = journal.frames.iter().find(is_here) else { break };
                    let Frame { position, next, ref bytes, ref entries } = *frame;
                    let read = Read { asked, position, next, written_ms: 1, bytes, entries };
                    archiver.take(at, &read, now_ms).unwrap();
                    (asked, idle) = (next, 0);
                }
            }
            if rng.one_in(2) {
                shippers.iter_mut().for_each(|shipper| shipper.turn(now_ms));
            }
            if rng.one_in(2) {
                archiver.tick(&ends, now_ms);
            }
            if std::mem::replace(&mut waited, archiver.waits()) != archiver.waits() {
                idle = 0;
            }
        }
        archiver.finish(&ends, now_ms);
        for _ in 0..8 {
            shippers.iter_mut().for_each(|shipper| shipper.turn(now_ms));
        }
        archiver.tick(&ends, now_ms);
        for (gone, archived) in gone.iter_mut().zip(&archived) {
            *gone = (*gone).max(archived.upto());
        }
    }

    /// What is wrong with the chain of an archive.
    pub(super) fn verify(&self, disk: &Fake, region: &str) -> Vec<Problem> {
        let Some(key) = &self.config.archive.signing_key else { return Vec::new() };
        // Looking is no step of the archiver's.
        let disk = disk.after(Crash::Process, &mut Rng::new(1));
        let root = PathBuf::from(format!("/{region}"));
        let keys = [Key { gateway: None, public: key.public() }];
        let expected = Expected { keys: &keys, region: Some(region), ..Expected::default() };
        let shelf = Folder::new(disk, root, String::new());
        let report = verify(&shelf, &expected, &mut |_, _| ()).unwrap_or_else(|error| panic!("{error}"));
        report.problems
    }

    /// Reads the archives: of each journal, region and LSN how often it is there. Unfinished files do not count, nor does
    /// what is in `without`.
    pub(super) fn read(
        &self,
        disk: &Fake,
        without: &BTreeSet<String>,
    ) -> BTreeMap<(usize, usize, u64), usize> {
        let mut found = BTreeMap::new();
        for (path, bytes) in disk.files() {
            let Some(region) = (0..2).find(|region| path.starts_with(format!("/{}", REGIONS[*region])))
            else {
                continue;
            };
            let shown = path.to_str().unwrap();
            if ["/.tmp/", "/chain/", "/index/"].iter().any(|folder| shown.contains(folder))
                || without.contains(shown)
            {
                continue;
            }
            let mut text = String::new();
            zstd::Decoder::new(&bytes[..])
                .and_then(|mut decoder| decoder.read_to_string(&mut text))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let [.., day, hour, _] = path.to_str().unwrap().split('/').collect::<Vec<_>>()[..] else {
                panic!("{}", path.display())
            };
            for line in text.lines() {
                let json: Value = serde_json::from_str(line).unwrap();
                let received = json["received_at"].as_str().unwrap();
                assert_eq!(day, format!("dt={}", &received[..10]), "{}", path.display());
                assert_eq!(hour, format!("hour={}", &received[11..13]), "{}", path.display());
                let (journal, lsn) = json["id"].as_str().unwrap().split_once('-').unwrap();
                let journal = IDS.iter().position(|id| crate::journal::store::hex(id) == journal).unwrap();
                *found.entry((journal, region, lsn.parse().unwrap())).or_default() += 1;
            }
        }
        found
    }

    /// All that lies before what was called archived is there.
    fn assert_safe(&self, disk: &Fake, archived: [Position; 2]) {
        // A process may have ended between an object and its link; nothing else is wrong with a chain at any moment.
        let mut unlinked = BTreeSet::new();
        for region in &REGIONS[..2] {
            for problem in self.verify(disk, region) {
                let nothing_yet = problem.kind == Kind::Removed && problem.place.starts_with("chain");
                assert!(nothing_yet || problem.kind == Kind::Added, "{region}: {problem}");
                unlinked.insert(format!("/{region}/{}", problem.place));
            }
        }
        let found = self.read(disk, &unlinked);
        for (at, journal) in self.journals.iter().enumerate() {
            for (lsn, (position, archives)) in
                journal.entries.iter().filter(|(_, (at_frame, _))| *at_frame < archived[at])
            {
                for region in archives {
                    let there = found.get(&(at, *region, *lsn));
                    assert_eq!(
                        there,
                        Some(&1),
                        "entry {lsn} at {position} for {}: called archived",
                        REGIONS[*region]
                    );
                }
            }
        }
    }

    pub(super) fn assert_done(&self, disk: &Fake) {
        for region in &REGIONS[..2] {
            let problems = self.verify(disk, region);
            assert!(problems.is_empty(), "{region}: {problems:#?}");
        }
        let found = self.read(disk, &BTreeSet::new());
        let mut expected = BTreeMap::new();
        for (at, journal) in self.journals.iter().enumerate() {
            for (lsn, (_, archives)) in &journal.entries {
                expected.extend(archives.iter().map(|region| ((at, *region, *lsn), 1)));
            }
        }
        assert_eq!(found, expected, "every entry once in each of its archives");
        let left: Vec<PathBuf> = disk
            .files()
            .into_keys()
            .filter(|path| {
                let text = path.to_str().unwrap();
                text.contains("/.tmp/")
                    || text.ends_with(".tmp")
                    || text.contains("/spool/")
                    || text.contains("aside")
            })
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Nothing was called archived yet.
pub(super) fn nothing() -> [Position; 2] {
    [Position::default(); 2]
}

pub(super) fn disk() -> Fake {
    Fake::with_folders(&["/data", "/us", "/in"])
}

#[test]
fn power_cut_at_every_single_step_loses_nothing_and_repeats_nothing() {
    let mut rng = Rng::from_env();
    let worlds = if std::env::var_os("SIM_LONG").is_some() { 200 } else { 5 };
    for _ in 0..worlds {
        cut_at_every_step(&World::new(&mut rng, 20), &mut rng);
    }
    cut_at_every_step(&World::new(&mut rng, 8).signed(), &mut rng);
}

fn cut_at_every_step(world: &World, rng: &mut Rng) {
    let seed = rng.next();
    let (whole, mut gone) = (disk(), nothing());
    world.run(&whole, &mut Rng::new(seed), &mut gone);
    world.assert_done(&whole);
    world.assert_safe(&whole.after(Crash::Strict, rng), gone);
    assert_eq!(gone, [0, 1].map(|at: usize| world.journals[at].end()), "all is archived");
    let steps = whole.taken();
    println!("{steps} steps");
    for cut in 1..=steps {
        let (dying, mut gone) = (disk(), nothing());
        dying.die_after(Some(cut));
        world.run(&dying, &mut Rng::new(seed), &mut gone);
        assert!(dying.is_dead());
        world.assert_safe(&dying.after(Crash::Strict, rng), gone);
        for crash in [Crash::Strict, Crash::Process, Crash::Some] {
            let (found, mut gone) = (dying.after(crash, rng), gone);
            world.assert_safe(&found, gone);
            world.run(&found, rng, &mut gone);
            world.assert_done(&found);
            world.assert_safe(&found.after(Crash::Strict, rng), gone);
        }
    }
}

#[test]
fn many_crashes_in_a_row_lose_nothing_and_repeat_nothing() {
    let mut rng = Rng::from_env();
    let rounds = if std::env::var_os("SIM_LONG").is_some() { 3_000 } else { 60 };
    for _ in 0..rounds {
        let world = World::new(&mut rng, 24);
        let world = if rng.one_in(4) { world.signed() } else { world };
        let (mut found, mut gone) = (disk(), nothing());
        for _ in 0..6 {
            found.die_after(Some(1 + rng.below(120)));
            world.run(&found, &mut rng, &mut gone);
            world.assert_safe(&found.after(Crash::Strict, &mut rng), gone);
            let crash = *rng.pick(&[Crash::Strict, Crash::Process, Crash::Some]);
            found = found.after(crash, &mut rng);
        }
        world.run(&found, &mut rng, &mut gone);
        world.assert_done(&found);
    }
}

#[test]
fn a_disk_that_fails_now_and_then_costs_time_alone() {
    let mut rng = Rng::from_env();
    for _ in 0..60 {
        let world = World::new(&mut rng, 24);
        let world = if rng.one_in(4) { world.signed() } else { world };
        let (found, mut gone) = (disk(), nothing());
        found.fail_one_in(12 + rng.below(40), rng.next());
        world.run(&found, &mut rng, &mut gone);
        world.assert_safe(&found.after(Crash::Strict, &mut rng), gone);
        found.fail_one_in(0, 0);
        // What could not be closed at the stop, and removed, is redone by the next process.
        world.run(&found, &mut rng, &mut gone);
        world.assert_done(&found);
    }
}

#[test]
fn a_region_that_archives_again_goes_on_where_it_was() {
    let mut rng = Rng::from_env();
    let mut world = World::new(&mut rng, 24).signed();
    let found = disk();
    found.die_after(Some(40 + rng.below(60)));
    world.run(&found, &mut rng, &mut nothing());
    let found = found.after(Crash::Process, &mut rng);
    let archive = world.config.regions[1].archive.take();
    world.run(&found, &mut rng, &mut nothing());
    world.config.regions[1].archive = archive;
    world.run(&found, &mut rng, &mut nothing());
    world.assert_done(&found);
}

/// Changes a bit in the progress of every journal.
fn damage_progress(disk: &Fake, rng: &mut Rng) {
    let notes: Vec<PathBuf> =
        disk.files().into_keys().filter(|path| path.parent() == Some(Path::new("/data/archive"))).collect();
    assert_eq!(notes.len(), 2);
    for path in notes {
        let mut bytes = disk.files().remove(&path).unwrap();
        let at = rng.below(bytes.len() - 1);
        bytes[at] ^= 1;
        let mut file = disk.create(&path).unwrap();
        disk.append(&mut file, &bytes).unwrap();
    }
}

#[test]
fn damaged_progress_is_not_believed_and_objects_that_are_there_are_found() {
    let mut rng = Rng::from_env();
    let world = World::new(&mut rng, 24).signed();
    let found = disk();
    world.run(&found, &mut rng, &mut nothing());
    damage_progress(&found, &mut rng);
    world.run(&found, &mut rng, &mut nothing());
    world.assert_done(&found);
}

#[test]
fn objects_that_repeat_webhooks_since_progress_was_lost_have_links_all_the_same() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let world = World::new(&mut rng, 24).signed();
        let (found, mut gone) = (disk(), nothing());
        world.run(&found, &mut rng, &mut gone);
        damage_progress(&found, &mut rng);
        // What is left of the journals begins within objects of before.
        let mut left = gone.map(|gone| Position::new(gone.segment().saturating_sub(1), 0));
        world.run(&found, &mut rng, &mut left);
        for region in &REGIONS[..2] {
            let problems = world.verify(&found, region);
            assert!(problems.is_empty(), "{region}: {problems:#?}");
        }
    }
}
