//! The dead letters of a world: as they lie on its disk, read as another process would read them, and
//! whether that is right.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use penstock::dead::{Card, Filter, Graves, LetterId};
use penstock::journal::JournalId;

use super::disk::MemoryDisk;
use super::truth::{REGIONS, Truth, number_after, region_of};

/// One letter.
#[derive(Debug)]
struct Known {
    webhook: usize,
    events: Vec<u32>,
    conversations: BTreeSet<u32>,
}

/// What is known of all.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// Those that are there.
    alive: BTreeMap<LetterId, Known>,
    /// Every event of every parcel that was given up.
    given_up: HashSet<(JournalId, u64, u16, u32)>,
    /// Letters that a region was not told of and did not get after all, by conversation.
    untold: HashMap<u32, BTreeSet<LetterId>>,
    /// Conversations of all letters that there ever were.
    ever: HashSet<u32>,
    /// A person may have dropped some.
    pub(crate) dropping: bool,
    /// A person may have sent some out again.
    pub(crate) replaying: bool,
    pub(crate) count: u64,
    pub(crate) replayed: u64,
    pub(crate) dropped: u64,
}

impl Letters {
    pub(crate) fn is_empty(&self) -> bool {
        self.alive.is_empty()
    }

    /// A region takes a letter: these events are all or some of its own. True if there is such a letter.
    pub(crate) fn takes(&mut self, webhook: usize, events: &[u32]) -> bool {
        let mine = |letter: &Known| {
            letter.webhook == webhook && events.iter().any(|event| letter.events.contains(event))
        };
        let ids: Vec<LetterId> = self.alive.iter().filter(|(_, l)| mine(l)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.untold.values_mut().for_each(|letters| {
                letters.remove(id);
            });
        }
        !ids.is_empty()
    }

    /// A region takes a parcel with these conversations that says so many were given up before it. What is
    /// wrong with that.
    pub(crate) fn told(&mut self, conversations: &BTreeSet<u32>, gap: u32) -> Option<String> {
        let untold = |c: &u32| self.untold.get(c).map_or(0, BTreeSet::len);
        let owed = conversations.iter().map(untold).max().unwrap_or(0);
        let wrong = if (gap as usize) < owed {
            Some(format!("{gap} given up before it, and it were {owed}"))
        } else if gap > 0 && conversations.iter().all(|conversation| !self.ever.contains(conversation)) {
            Some(format!("{gap} given up before it, and none was"))
        } else {
            None
        };
        conversations.iter().for_each(|conversation| {
            self.untold.remove(conversation);
        });
        wrong
    }
}

impl Truth {
    /// Compares what is on the disk with what was there before; the keeper has just written, or a process
    /// has just started.
    pub(crate) fn look_at_letters(&self, disk: &MemoryDisk) {
        let graves = Graves::on(disk.copy(), Path::new("/data")).expect("the disk can be read");
        let ids = graves.matched(&Filter::default()).expect("an index can be read");
        let cards = graves.cards(&ids).expect("an index can be read");
        for damage in &graves.damages {
            self.wrong(format!("I1: letters are damaged, and nobody damaged them: {damage}"));
        }
        let found: BTreeSet<LetterId> = cards.iter().map(|card| card.id).collect();
        for card in cards {
            if !self.letters(|letters| letters.alive.contains_key(&card.id)) {
                let record = graves.letter(card.id).ok().flatten().and_then(|(_, record)| record.ok());
                match record.and_then(|record| number_after(&record, b"\"id\":\"hook.")) {
                    Some(number) => self.came(&card, number as usize),
                    None => self.wrong("I1: a letter cannot be read".to_owned()),
                }
            }
        }
        let gone = self.letters(|letters| {
            let gone = letters.alive.extract_if(.., |id, _| !found.contains(id));
            gone.map(|(_, letter)| letter).collect::<Vec<_>>()
        });
        gone.into_iter().for_each(|letter| self.went(&letter));
    }

    /// A letter is there that was not: right only if its region never takes what is in it.
    fn came(&self, card: &Card, webhook: usize) {
        let own = |event: u32| REGIONS[region_of(self.event(event).conversation)].0 == card.region;
        let all = self.webhook(webhook, |webhook| webhook.events.clone());
        let places = (0u32..)
            .zip(all)
            .filter(|(at, event)| own(*event) && (card.events.is_empty() || card.events.contains(at)));
        let places: Vec<(u32, u32)> = places.collect();
        let events: Vec<u32> = places.iter().map(|(_, event)| *event).collect();
        let conversations: BTreeSet<u32> =
            events.iter().map(|event| self.event(*event).conversation).collect();
        self.note(format_args!("given up: {events:?} of webhook {webhook}"));
        let twice = self.letters(|letters| {
            letters.count += 1;
            let mut new = |at: u32| letters.given_up.insert((card.journal, card.lsn, card.slot, at));
            let news = places.iter().filter(|(at, _)| new(*at)).count();
            for conversation in &conversations {
                letters.ever.insert(*conversation);
                letters.untold.entry(*conversation).or_default().insert(card.id);
            }
            let known = Known { webhook, events: events.clone(), conversations: conversations.clone() };
            letters.alive.insert(card.id, known);
            news < places.len()
        });
        if twice {
            self.wrong(format!("I5: two letters of {events:?} of webhook {webhook}"));
        }
        self.dies(&events);
    }

    /// A letter is gone.
    fn went(&self, letter: &Known) {
        let Known { webhook, events, conversations } = letter;
        let taken = events.iter().all(|event| self.event(*event).taken > 0);
        self.note(format_args!("no letter any more: {events:?} of webhook {webhook}, taken {taken}"));
        let dropping = self.letters(|letters| {
            if taken {
                letters.replayed += 1
            } else {
                letters.dropped += 1
            }
            letters.dropping
        });
        if !taken && !dropping {
            self.wrong(format!(
                "I3: the letter of {events:?} of {conversations:?} is gone, and nobody has it"
            ));
        }
    }
}
