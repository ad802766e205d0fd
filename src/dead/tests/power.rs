//! The store over a disk whose power goes at every step: what was said to be durable is there after any crash,
//! once and whole, and what was dropped or replayed durably never comes back.
//!
//! `PENSTOCK_SEEDS` sets how many lives, `PENSTOCK_SEED` repeats one.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::dead::State;
use crate::journal::tests::memory::{MemoryDisk, Random};

const DATA: &str = "/data";
const REGIONS: [&str; 2] = ["eu", "us"];
const NOW_MS: u64 = 1_791_000_000_000;

/// A world: the disk, and what must be found on it.
struct World {
    seed: u64,
    random: Random,
    disk: MemoryDisk,
    /// Every letter that was ever to be buried, with the states that it may be in; [`None`]: not there.
    known: BTreeMap<LetterId, (Letter, Vec<Option<State>>)>,
    named: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::default();
        disk.make_folder(Path::new(DATA));
        Self { seed, random: Random(seed), disk, known: BTreeMap::new(), named: 0 }
    }

    /// What a start finds; the power may go meanwhile.
    fn open(&mut self) -> Graves<MemoryDisk> {
        for _ in 0..20 {
            let fuse = self.random.one_in(3).then(|| self.random.below(12));
            self.disk.set_fuse(fuse);
            // A start on a full disk is one: how else would there be space again.
            self.disk.set_full(self.random.one_in(3));
            let opened = Graves::on(self.disk.clone(), Path::new(DATA));
            self.disk.set_full(false);
            self.disk.set_fuse(None);
            match opened {
                Ok(graves) => {
                    self.check(&graves, true);
                    return graves;
                }
                Err(error) if fuse.is_none() => panic!("seed {}: {error}", self.seed),
                // The power went, or only the process.
                Err(_) if self.random.one_in(2) => self.disk.crash(&mut self.random, true),
                Err(_) => {}
            }
        }
        panic!("seed {}: never open", self.seed)
    }

    /// Each letter is there as it may be; from a start on it is as it was found.
    fn check(&mut self, graves: &Graves<MemoryDisk>, start: bool) {
        let seed = self.seed;
        let cards = graves.cards(&graves.matched(&Filter::default()).unwrap()).unwrap();
        let places: BTreeSet<_> = cards.iter().map(|card| (card.lsn, card.slot, card.part)).collect();
        assert_eq!(places.len(), cards.len(), "seed {seed}: two letters of one parcel");
        let mut found: BTreeMap<LetterId, State> = cards.iter().map(|card| (card.id, card.state)).collect();
        for (id, (letter, may)) in &mut self.known {
            let state = found.remove(id);
            // One that has gone may be gone with all that is known of it.
            let is = |may: &Option<State>| may.filter(|state| state.alive()) == state;
            assert!(may.iter().any(is), "seed {seed}: letter {id:?} is {state:?}, and may be {may:?}");
            if start {
                *may = vec![state];
            }
            if state.is_some() {
                let record = graves.letter(*id).unwrap().unwrap().1;
                assert_eq!(record.as_ref(), Ok(&letter.record), "seed {seed}: letter {id:?}");
            }
        }
        assert!(found.is_empty(), "seed {seed}: letters of nobody: {found:?}");
    }

    /// One thing that happens; false if the power went.
    fn act(&mut self, graves: &mut Graves<MemoryDisk>) -> bool {
        match self.random.below(8) {
            0..3 => {
                let region = REGIONS[self.random.below(2) as usize];
                let count = 1 + self.random.below(3);
                let letters: Vec<(LetterId, Letter)> = (0..count).map(|_| self.letter(graves)).collect();
                let buried: Vec<(LetterId, &Letter)> =
                    letters.iter().map(|(id, letter)| (*id, letter)).collect();
                // As on a full disk: refused, and tried again.
                let full = self.random.one_in(6);
                self.disk.set_full(full);
                let mut result = graves.bury(region, &buried);
                self.disk.set_full(false);
                if full && result.is_err() && !self.disk.has_ended() {
                    if self.random.one_in(4) {
                        self.note(letters.iter().map(|(id, _)| *id), &[None, Some(State::Waiting)], &letters);
                        return true;
                    }
                    result = graves.bury(region, &buried);
                }
                let may: &[Option<State>] = match result {
                    Ok(()) => &[Some(State::Waiting)],
                    Err(_) => &[None, Some(State::Waiting)],
                };
                self.note(letters.iter().map(|(id, _)| *id), may, &letters);
                result.is_ok()
            }
            3..7 => {
                let ids = graves.matched(&Filter::default()).unwrap();
                let ids: Vec<LetterId> = ids.into_iter().filter(|_| self.random.one_in(4)).collect();
                let failure = letter(1).last;
                let choices = [
                    (What::Ordered { rate: 1 }, State::Ordered),
                    (What::Replayed, State::Replayed),
                    (What::Dropped, State::Dropped),
                    (What::Failed(failure), State::Waiting),
                    (What::Kept, State::Waiting),
                ];
                let (what, state) = choices[self.random.below(5) as usize];
                let result = graves.change(what, &ids, NOW_MS);
                for id in ids {
                    let (_, may) = self.known.get_mut(&id).unwrap();
                    match result {
                        Ok(_) => *may = vec![Some(state)],
                        Err(_) => may.push(Some(state)),
                    }
                }
                result.is_ok()
            }
            _ => graves.retire(NOW_MS).is_ok(),
        }
    }

    fn letter(&mut self, graves: &mut Graves<MemoryDisk>) -> (LetterId, Letter) {
        self.named += 1;
        // Some pages long, now and then, and now and then enough for another segment.
        let len = match self.random.below(60) {
            0 => 3 << 20,
            1..20 => self.random.below(20_000),
            _ => self.random.below(300),
        };
        let text = "x".repeat(len as usize);
        let letter = Letter {
            record: webhook("4917139200992", &text),
            conversations: vec![self.random.below(5)],
            ..letter(self.named)
        };
        (graves.name(letter.last.at_ms), letter)
    }

    fn note(
        &mut self,
        ids: impl Iterator<Item = LetterId>,
        may: &[Option<State>],
        letters: &[(LetterId, Letter)],
    ) {
        for (id, (_, letter)) in ids.zip(letters) {
            self.known.insert(id, (letter.clone(), may.to_vec()));
        }
    }
}

#[test]
fn what_is_durable_is_there_after_any_crash_and_what_is_gone_stays_gone() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PENSTOCK_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("PENSTOCK_SEEDS").unwrap_or(200),
    };
    let (mut letters, mut crashes) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed);
        for _ in 0..12 {
            let mut graves = world.open();
            let fuse = world.random.one_in(2).then(|| world.random.below(40));
            world.disk.set_fuse(fuse);
            let acts = 1 + world.random.below(20);
            let lives = (0..acts).all(|_| world.act(&mut graves));
            world.disk.set_fuse(None);
            if lives {
                // What a person sees is what the next start finds.
                world.check(&graves, false);
            }
            // The power goes, or only the process.
            if world.random.one_in(2) {
                world.disk.crash(&mut world.random, true);
                crashes += 1;
            }
        }
        world.open();
        letters += world.known.len();
    }
    println!("{letters} letters, {crashes} power cuts");
}
