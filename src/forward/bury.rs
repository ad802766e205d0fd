//! What is given up, and what comes back by a person's order.
//!
//! A parcel that is given up keeps its lanes until its letter is durable: what stands behind it must not
//! be delivered before a crash can no longer bring it back.

use std::rc::Rc;
use std::time::SystemTime;

use super::attempt::{Attempts, Hand, events};
use super::item::{DEAD_LETTERS, Death, Item};
use super::lane::ParcelId;
use super::region::Region;
use super::sift::News;
use crate::dead::{Failure, Held, Letter, Replay};
use crate::entry::Meta;
use crate::fault;
use crate::handling::Step;
use crate::journal::read::Blocks;
use crate::journal::record::{self, Record};

impl<C: Hand, B: Blocks> Attempts<C, B> {
    /// Makes a parcel a dead letter, then settles it. A letter that failed again stays one.
    pub(super) async fn bury(&self, region: &Region, id: ParcelId, mut item: Item, death: Death) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let Death { reason, status, first_tried } = death;
        let last = Failure { reason, status, attempts: item.attempts, at_ms: now.as_millis() as u64 };
        if let Some(letter) = item.letter() {
            self.dead.failed_again(letter, last);
            region.buried(id, letter);
            return;
        }
        let Some(record) = self.record(region, &mut item).await else {
            return region.put_back(id, region.clock());
        };
        // It was read before, if it was tried.
        let (Ok((Record::Entry(entry), _)), Some(journal)) =
            (record::read_known(&record), self.journal(&item))
        else {
            return region.put_back(id, region.clock());
        };
        let Ok(meta) = Meta::read(entry.meta) else { return region.put_back(id, region.clock()) };
        let first_tried =
            first_tried.map(|at| now.saturating_sub(region.clock().saturating_duration_since(at)));
        let places = events(&meta, &item).map(|(at, _)| at as u32);
        let letter = Letter {
            journal,
            lsn: item.lsn,
            slot: item.slot,
            part: item.part,
            region: region.id,
            source: meta.source(),
            last,
            first_tried_ms: first_tried.map_or(0, |at| at.as_millis() as u64),
            received_at_ms: meta.received_at_ns() / 1_000_000,
            conversations: region.conversations(id),
            events: if item.is_whole() || fault::planted("letter-without-its-events") {
                Vec::new()
            } else {
                places.collect()
            },
            record: record.clone(),
        };
        if fault::planted("mark-before-letter") {
            self.keep(region, &item, &meta, Some(crate::journal::Settled::Dead));
        }
        let letter = self.dead.bury(letter).await;
        let mark = region.buried(id, letter);
        self.keep(region, &item, &meta, mark);
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
        let Replay { id, region, slot, part, attempts: tries, conversations, events, record } = replay;
        let Some(region) = regions.iter().find(|r| r.id == region) else { continue };
        let item = Item {
            journal: DEAD_LETTERS,
            slot,
            uncertain: true,
            attempts: tries,
            lsn: id.0,
            len: record.len() as u32,
            part,
            only: (!events.is_empty()).then(|| events.into()),
            ..Item::default()
        };
        let quarantined = attempts.watch.is_quarantined(Step::Cut, item.watched());
        let item = Item { quarantined, ..item };
        region.push(item, conversations.into_iter(), || record);
        region.kick();
    }
}
