//! What goes out: parcels to try as the breaker, the ramp and the rate allow, and parcels to bury.

use std::time::Instant;

use super::{Book, Death, Errand, Item};
use crate::dead::Reason;
use crate::fault;
use crate::forward::breaker::Room;
use crate::forward::item::DEAD_LETTERS;
use crate::forward::lane::ParcelId;
use crate::forward::slab;

impl Book {
    /// For how many errands workers should come now.
    pub fn startable(&mut self, now: Instant) -> usize {
        let tries = match self.breaker.room(self.probes.len() as u32, now) {
            Room::Free => {
                let room = self.limit().saturating_sub(self.trying);
                let allowed = self.allowed.unwrap_or(usize::MAX);
                self.lanes.ready_len().min(room).min(self.rate.left(now)).min(allowed)
            }
            Room::Probes(most) => {
                let room = self.rules.in_flight.saturating_sub(self.trying);
                (self.lanes.ready_len() + self.due.len()).min(room).min(most as usize)
            }
        };
        tries + usize::from(self.burying.is_none() && !self.graves.is_empty())
    }

    /// The next errand. Each ends with [`Book::done`] or [`Book::buried`], with [`Book::put_back`] or
    /// [`Book::let_go`].
    pub fn next(&mut self, now: Instant) -> Option<(ParcelId, Errand)> {
        // While one to try was looked for, one to bury may have been found.
        self.next_grave().or_else(|| self.next_try(now)).or_else(|| self.next_grave())
    }

    /// While the core has other things to do: so many tries may begin until it is told again. Probes may in any case.
    pub fn give_way(&mut self, allowed: Option<usize>) {
        self.allowed = allowed;
    }

    fn next_grave(&mut self) -> Option<(ParcelId, Errand)> {
        if self.burying.is_some() {
            return None;
        }
        let (id, reason) = self.graves.pop_front()?;
        let item = self.item(id)?;
        let side = self.side(id);
        let (status, first_tried) = side.map_or((0, None), |side| (side.status, side.first_tried));
        self.burying = Some(id);
        Some((id, Errand::Bury(item, Death { reason, status, first_tried })))
    }

    fn next_try(&mut self, now: Instant) -> Option<(ParcelId, Errand)> {
        if self.rate.left(now) == 0 {
            return None;
        }
        let id = match self.breaker.room(self.probes.len() as u32, now) {
            Room::Free if self.trying < self.limit() && self.allowed != Some(0) => {
                self.pop_ready().inspect(|_| self.allowed = self.allowed.map(|allowed| allowed - 1))
            }
            Room::Probes(1..) if self.trying < self.rules.in_flight => {
                self.pop_probe(now).inspect(|id| self.probes.push(*id))
            }
            Room::Free | Room::Probes(_) => None,
        }?;
        self.rate.take();
        self.trying += 1;
        Some((id, Errand::Try(self.item(id)?)))
    }

    /// The oldest parcel that may be tried. Quarantined ones before it are at the head of their lanes, so
    /// their time has come too.
    fn pop_ready(&mut self) -> Option<ParcelId> {
        while let Some(id) = self.lanes.pop_ready() {
            let quarantined = |held: &super::Held| held.quarantined && !fault::planted("quarantined-tried");
            if self.lanes.get(id).is_some_and(|held| !quarantined(held)) {
                return Some(id);
            }
            self.lanes.park(id);
            self.graves.push_back((id, Reason::Quarantined));
        }
        None
    }

    /// The oldest parcel, but rather one that says something about its region.
    fn pop_probe(&mut self, now: Instant) -> Option<ParcelId> {
        while let Some(id) = self.pop_ready() {
            if !self.is_suspect(id) {
                return Some(id);
            }
            self.lanes.park(id);
            self.due.push(now, id);
        }
        let (lanes, sides) = (&self.lanes, &self.sides);
        let tells = |id| {
            lanes.get(id).is_some_and(|held| {
                !held.put_back && sides.get(held.side).is_none_or(|side| !side.tries.is_suspect())
            })
        };
        let id = self.due.take_first(tells).or_else(|| self.due.pop(now))?;
        self.lanes.unpark(id);
        self.pop_ready()
    }

    /// The parcel as it goes out. Its kept record goes with it: should the try fail, the parcel waits,
    /// maybe long, and is read again when its time comes.
    fn item(&mut self, id: ParcelId) -> Option<Item> {
        let held = self.lanes.get_mut(id)?;
        held.put_back = false;
        let record = self.records.take(std::mem::replace(&mut held.record, slab::NONE));
        let held = *held;
        let letter = held.journal == u16::MAX;
        let mut item = Item {
            journal: if letter { DEAD_LETTERS } else { u32::from(held.journal) },
            slot: held.slot,
            uncertain: held.uncertain,
            quarantined: held.quarantined,
            lsn: held.lsn,
            frame: held.frame,
            offset: held.offset,
            len: held.len,
            record,
            ..Item::default()
        };
        if let Some(side) = self.sides.get(held.side) {
            item.attempts = side.attempts;
            item.part = side.part;
            item.repeats.clone_from(&side.repeats);
            item.only.clone_from(&side.only);
        }
        if !self.gaps.is_empty() && !letter {
            item.gap = self.gaps.before(self.lanes.conversations(id));
        }
        Some(item)
    }
}
