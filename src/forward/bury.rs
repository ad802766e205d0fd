//! What is given up, and what comes back by a person's order.
//!
//! A parcel that is given up keeps its lanes until its letter is durable: what stands behind it must not
//! be delivered before a crash can no longer bring it back.

use std::rc::Rc;

use bytes::Bytes;

use super::attempt::{Attempts, Hand, events};
use super::region::{Item, Region};
use super::sift::News;
use crate::dead::{Failure, Held, Letter, Replay};
use crate::entry::Meta;
use crate::journal::read::Blocks;
use crate::journal::record::{self, Record};
use crate::journal::{Mark, Position, Settled};

/// [`Item::journal`] of a letter that goes out again; `lsn` is then its id.
pub const DEAD_LETTERS: u32 = u32::MAX;

impl<C: Hand, B: Blocks> Attempts<C, B> {
    /// Makes a parcel a dead letter, then settles it; call while it holds its lanes, and give them up
    /// after. A letter that failed again stays one.
    pub async fn bury(
        &self,
        region: &Region,
        item: &Item,
        record: &Bytes,
        first_tried_ms: u64,
        last: Failure,
    ) {
        if let Some(id) = item.letter() {
            return self.dead.failed_again(id, last);
        }
        // It was read before the attempt.
        let Ok((Record::Entry(entry), _)) = record::read_known(record) else { return };
        let Ok(meta) = Meta::read(entry.meta) else { return };
        let journal = item.journal as usize;
        let Some(reader) = self.journals.get(journal) else { return };
        let whole = item.repeats.is_none();
        let letter = Letter {
            journal: *reader,
            lsn: item.lsn,
            slot: item.slot,
            part: 0,
            region: region.id,
            source: meta.source(),
            last,
            first_tried_ms,
            received_at_ms: meta.received_at_ns() / 1_000_000,
            conversations: meta.conversations(item.slot).collect(),
            events: if whole { Vec::new() } else { events(&meta, item).map(|(at, _)| at as u32).collect() },
            record: record.clone(),
        };
        self.dead.bury(letter).await;
        region.cells().dead.add(1);
        let mark = Mark { lsn: item.lsn, slot: item.slot, outcome: Settled::Dead, tag: region.id };
        self.settler.settle(journal, mark, region.id, events(&meta, item).map(|(_, event)| event));
    }
}

/// What of a parcel is left to be tried if part of it is held as dead letters; `None`: nothing.
pub(super) fn rest(held: &Held, news: Option<News>, meta: &Meta<'_>, slot: u16) -> Option<News> {
    let News { repeats, uncertain } = news?;
    let Held::Events(dead) = held else { return None };
    let mut done: Vec<u32> = repeats.as_deref().unwrap_or_default().iter().chain(dead).copied().collect();
    done.sort_unstable();
    done.dedup();
    let mine = meta.events().filter(|event| event.slot == slot).count();
    (done.len() < mine).then(|| News { repeats: Some(done.into()), uncertain })
}

/// Puts the letters that are due into their regions, at the end of their lanes.
pub fn bring_back<C, B>(attempts: &Attempts<C, B>, regions: &[Rc<Region>]) {
    while let Some(replay) = attempts.dead.replay() {
        let Replay { id, region, slot, attempts, conversations, events, record, .. } = replay;
        let Some(region) = regions.iter().find(|r| r.id == region) else { continue };
        let item = Item {
            journal: DEAD_LETTERS,
            slot,
            uncertain: true,
            attempts,
            lsn: id.0,
            frame: Position::default(),
            offset: 0,
            len: record.len() as u32,
            record: None,
            repeats: others(&record, slot, &events),
        };
        region.push(item, conversations.into_iter(), || record);
        region.kick();
    }
}

/// The slot's events that are not the letter's.
fn others(record: &[u8], slot: u16, events: &[u32]) -> Option<Rc<[u32]>> {
    let Ok((Record::Entry(entry), _)) = record::read_known(record) else { return None };
    let meta = Meta::read(entry.meta).ok().filter(|_| !events.is_empty())?;
    let mine = (0u32..).zip(meta.events()).filter(|(_, event)| event.slot == slot).map(|(at, _)| at);
    Some(mine.filter(|at| events.binary_search(at).is_err()).collect())
}
