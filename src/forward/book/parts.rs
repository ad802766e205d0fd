//! How a parcel ends: delivered, buried, or cut into parts of which each ends by itself.

use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;

use super::{Book, Done, Held, Side};
use crate::dead::{Gap, LetterId};
use crate::fault;
use crate::forward::lane::ParcelId;
use crate::forward::slab;
use crate::journal::Settled;

/// What one part is made from.
#[derive(Debug, Clone)]
pub struct Part {
    /// From 1, by the first event, of all parts that the parcel could have.
    pub number: u16,
    /// Of its events. Together the parts have all of the parcel's, each once.
    pub conversations: Vec<u64>,
    /// Places of its events, rising.
    pub events: Rc<[u32]>,
}

/// The parts of one parcel.
#[derive(Debug)]
pub(super) struct Group {
    /// Not settled.
    left: u32,
    died: bool,
}

impl Book {
    /// Parcels of this conversation were given up before the start, and the region was not told.
    pub fn gap(&mut self, conversation: u64, gap: Gap) {
        self.gaps.set(conversation, gap);
    }

    /// The conversations of a parcel that is not settled.
    pub fn conversations(&self, id: ParcelId) -> Vec<u64> {
        self.lanes.conversations(id).collect()
    }

    /// The parcel is a dead letter, durably. `Some`: all of the parcel is settled, and how.
    pub fn buried(&mut self, id: ParcelId, letter: LetterId) -> Option<Settled> {
        self.burying = None;
        if self.letter(id).is_none() {
            for conversation in self.lanes.conversations(id) {
                self.gaps.died(conversation, letter);
            }
        }
        self.leave(id, true)
    }

    /// A letter that was to be tried is not to go out any more; the others go on without it.
    pub fn let_go(&mut self, id: ParcelId) {
        self.trying -= 1;
        self.end_probe(id);
        self.leave(id, false);
    }

    /// Replaces a parcel that waits by its parts, each with `record` if that is at hand; they are due now.
    /// False: the parts do not make up the parcel, which waits on as it is.
    pub fn split(&mut self, id: ParcelId, parts: Vec<Part>, record: &Option<Bytes>, now: Instant) -> bool {
        let Some(held) = self.lanes.get(id).copied() else { return false };
        let group = Group { left: parts.len() as u32, died: false };
        let group = self.groups.insert(group);
        let pieces = parts.into_iter().map(|Part { number, conversations, events }| {
            let side = Side { part: number, group: Some(group), only: Some(events), ..Side::default() };
            let record = record.clone().map_or(slab::NONE, |record| self.records.insert(record));
            (conversations, Held { record, side: self.sides.insert(side), ..held })
        });
        let pieces: Vec<(Vec<u64>, Held)> = pieces.collect();
        match self.lanes.split(id, pieces) {
            Ok((held, ids)) => {
                self.due.remove(id);
                self.forget(held);
                for id in ids {
                    self.due.push(now, id);
                }
                true
            }
            Err(pieces) => {
                for (_, piece) in pieces {
                    self.sides.take(piece.side);
                    self.records.take(piece.record);
                }
                self.groups.take(group);
                false
            }
        }
    }

    pub(super) fn delivered(&mut self, id: ParcelId) -> Done {
        let mut told = Vec::new();
        let letter = self.letter(id);
        for conversation in self.lanes.conversations(id) {
            self.standing.take(conversation);
            match letter {
                _ if self.gaps.is_empty() => {}
                Some(letter) => self.gaps.replayed(conversation, letter),
                None => told.extend(self.gaps.told(conversation).then_some(conversation)),
            }
        }
        Done::Delivered { mark: self.leave(id, false), told }
    }

    /// The dead letter that a parcel is, if it goes out by a person's order.
    fn letter(&self, id: ParcelId) -> Option<LetterId> {
        self.lanes.get(id).filter(|held| held.journal == u16::MAX).map(|held| LetterId(held.lsn))
    }

    /// Takes the parcel out of its lanes.
    fn leave(&mut self, id: ParcelId, died: bool) -> Option<Settled> {
        let held = self.lanes.finish(id);
        let group = self.forget(held);
        let outcome = |died| if died { Settled::Dead } else { Settled::Delivered };
        let Some(place) = group else { return Some(outcome(died)) };
        let group = self.groups.get_mut(place)?;
        group.left -= 1;
        group.died |= died && !fault::planted("dead-part-called-delivered");
        if group.left > 0 && !fault::planted("settled-with-its-first-part") {
            return None;
        }
        self.groups.take(place).map(|group| outcome(group.died))
    }

    /// Frees what is kept aside; the place of its group.
    fn forget(&mut self, held: Held) -> Option<u32> {
        self.records.take(held.record);
        let side = self.sides.take(held.side)?;
        if side.first_tried.is_some() {
            self.standing.settle();
        }
        side.group
    }
}
