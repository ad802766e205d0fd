//! Which parcel of a region may be tried next: order per conversation, and nothing but that.
//!
//! A parcel stands in the lane of each of its conversations and may start once it is at the head of
//! all of them. Different conversations never wait for each other, except through a parcel that
//! holds both.
//!
//! Why nobody waits for ever: a parcel joins all its lanes in one [`Lanes::push`], always at the
//! end, so in every lane parcels stand in the order in which they were pushed. Whoever waits, waits
//! for an older one; "waits for" can have no cycle, and the oldest unsettled parcel stands at the
//! head of all its lanes. So while anything is held, something is ready, running or parked.
//!
//! A conversation is any 64-bit number; two that share one share a lane, which costs time but
//! never order.
//!
//! Of those that may start, the fresh and the backlog take turns (`ready`). That decides only who goes first of
//! parcels that do not wait for each other.
//!
//! A parcel that failed holds up who stands behind it: those are *blocked* and counted, so that a
//! caller can bound them apart from what could go out (`block`).
//!
//! Bytes beside the item, one conversation per parcel: 24 in the parcel's slot, 20 for its place
//! and 19 to 39 (27 on average) for the lane in the hash table; a ready parcel takes 16 more. Vectors
//! double as they grow, so just after a growth it is up to twice that; the room of the longest
//! backlog is kept.
//!
//! Deliberately absent: clocks, retries, limits on what is in flight. The caller counts.

use crate::fault;
use std::collections::HashMap;

use foldhash::fast::RandomState;

mod block;
mod ready;
mod split;

pub use ready::Class;
use ready::Ready;

/// Nobody, nothing.
const NONE: u32 = u32::MAX;

/// [`Parcel::waits`] of a parcel that is ready: nobody stands before it.
const READY: u32 = 0;
/// [`Parcel::waits`] of a parcel that was popped. No parcel waits in that many lanes.
const RUNNING: u32 = u32::MAX;
/// [`Parcel::waits`] of a parcel that waits for its retry.
const PARKED: u32 = u32::MAX - 1;

/// Names a parcel from its push to its end. Never used twice; ids of older parcels are smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParcelId {
    sequence: u64,
    index: u32,
}

/// The parcels of one region that are not settled.
#[derive(Debug)]
pub struct Lanes<T> {
    parcels: Vec<Parcel<T>>,
    free_parcels: Vec<u32>,
    places: Vec<Place>,
    free_places: Vec<u32>,
    /// The last place in each lane, by conversation. The first needs no entry: its parcel knows.
    tails: HashMap<u64, u32, RandomState>,
    ready: Ready,
    next_sequence: u64,
    len: usize,
    blocked_len: usize,
    /// Fresh and not blocked.
    fresh_len: usize,
}

#[derive(Debug)]
struct Parcel<T> {
    /// None: the slot is free.
    item: Option<T>,
    sequence: u64,
    /// Its place in the lane of its first conversation; the others hang on [`Place::sibling`].
    first: u32,
    /// Lanes in which someone stands before it; or [`READY`], [`RUNNING`], [`PARKED`].
    waits: u32,
    /// Lanes in which who stands before it holds it up; [`block::FAILING`] if it failed itself.
    blocked: u32,
    class: Class,
}

/// One parcel's stand in one lane. Packed: a backlog holds one or more per parcel.
#[derive(Debug, Clone, Copy)]
#[repr(C, packed(4))]
struct Place {
    conversation: u64,
    /// With [`block::HELD_UP`] if who stands before it in this lane holds it up.
    holder: u32,
    /// The next in this lane, pushed later.
    behind: u32,
    /// The same parcel's place in its next lane.
    sibling: u32,
}

impl Place {
    fn parcel(self) -> u32 {
        self.holder & !block::HELD_UP
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            parcels: Vec::new(),
            free_parcels: Vec::new(),
            places: Vec::new(),
            free_places: Vec::new(),
            tails: HashMap::default(),
            ready: Ready::default(),
            next_sequence: 0,
            len: 0,
            blocked_len: 0,
            fresh_len: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// Puts `item` at the end of the lanes of its `conversations`; the same one twice counts once.
    /// Without conversations it is ready at once.
    pub fn push(&mut self, conversations: &[u64], class: Class, item: T) -> ParcelId {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let parcel = Parcel { item: Some(item), sequence, first: NONE, waits: READY, blocked: 0, class };
        let index = claim(&mut self.parcels, &mut self.free_parcels, parcel);
        for &conversation in conversations {
            self.join(index, conversation);
        }
        self.len += 1;
        let id = ParcelId { sequence, index };
        let Parcel { waits, blocked, .. } = self.parcels[index as usize];
        if waits == READY {
            self.ready.push(id, class);
        }
        self.blocked_len += usize::from(blocked > 0);
        self.fresh_len += usize::from(blocked == 0 && class == Class::Fresh);
        id
    }

    /// The parcel that is to start next, the oldest of its class; it is running until [`Lanes::finish`] or [`Lanes::park`].
    pub fn pop_ready(&mut self) -> Option<ParcelId> {
        let id = self.ready.pop()?;
        self.parcels[id.index as usize].waits = RUNNING;
        Some(id)
    }

    /// Settled: leaves all its lanes, and who stood behind it moves up.
    ///
    /// # Panics
    /// If the parcel is neither running nor parked: only the head of all its lanes can be settled.
    pub fn finish(&mut self, id: ParcelId) -> T {
        self.unblock(id);
        let parcel = self.held(id, &[RUNNING, PARKED]);
        let mut place = parcel.first;
        let item = parcel.item.take();
        let fresh = parcel.class == Class::Fresh;
        self.free_parcels.push(id.index);
        self.len -= 1;
        self.fresh_len -= usize::from(fresh);
        while place != NONE {
            let Place { conversation, behind, sibling, .. } = self.places[place as usize];
            self.free_places.push(place);
            if behind == NONE {
                self.tails.remove(&conversation);
            } else {
                self.move_up(self.places[behind as usize].parcel());
            }
            place = sibling;
        }
        item.expect("`held` has seen the item")
    }

    /// The attempt failed: keeps its lanes and waits for [`Lanes::unpark`]. It is backlog from now on.
    ///
    /// # Panics
    /// If the parcel is not running.
    pub fn park(&mut self, id: ParcelId) {
        let parcel = self.held(id, &[RUNNING]);
        parcel.waits = PARKED;
        let class = std::mem::take(&mut parcel.class);
        self.fresh_len -= usize::from(class == Class::Fresh);
    }

    /// The retry is due: ready again, in its place by age.
    ///
    /// # Panics
    /// If the parcel is not parked.
    pub fn unpark(&mut self, id: ParcelId) {
        let parcel = self.held(id, &[PARKED]);
        parcel.waits = READY;
        let class = parcel.class;
        self.ready.push(id, class);
    }

    /// None once the parcel is settled.
    pub fn get(&self, id: ParcelId) -> Option<&T> {
        self.parcels.get(id.index as usize).filter(|p| p.sequence == id.sequence)?.item.as_ref()
    }

    /// None once the parcel is settled.
    pub fn get_mut(&mut self, id: ParcelId) -> Option<&mut T> {
        self.parcels.get_mut(id.index as usize).filter(|p| p.sequence == id.sequence)?.item.as_mut()
    }

    /// The conversations of a parcel that is not settled.
    pub fn conversations(&self, id: ParcelId) -> impl Iterator<Item = u64> + '_ {
        let parcel = self.parcels.get(id.index as usize).filter(|p| p.sequence == id.sequence);
        let first = parcel.filter(|p| p.item.is_some()).map_or(NONE, |p| p.first);
        let place = |at: u32| self.places.get(at as usize).copied();
        std::iter::successors(place(first), move |last| place(last.sibling)).map(|place| place.conversation)
    }

    /// Parcels that are not settled.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Parcels that [`Lanes::pop_ready`] would give now.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Fresh parcels that are not blocked.
    pub fn fresh_len(&self) -> usize {
        self.fresh_len
    }

    /// All unsettled parcels, in no order (ids sort by age).
    pub fn ids(&self) -> impl Iterator<Item = ParcelId> {
        self.parcels
            .iter()
            .zip(0u32..)
            .filter(|(parcel, _)| parcel.item.is_some())
            .map(|(parcel, index)| ParcelId { sequence: parcel.sequence, index })
    }

    /// Puts a new parcel at the end of a lane.
    fn join(&mut self, index: u32, conversation: u64) {
        let tail = self.tails.get(&conversation).copied();
        // A conversation named twice finds its own parcel at the end of the lane.
        if tail.is_some_and(|tail| self.places[tail as usize].parcel() == index) {
            return;
        }
        let before = tail.map(|tail| self.places[tail as usize].parcel());
        let held_up = before.is_some_and(|before| self.parcels[before as usize].blocked > 0);
        let parcel = &mut self.parcels[index as usize];
        let holder = if held_up { index | block::HELD_UP } else { index };
        let place = Place { conversation, holder, behind: NONE, sibling: parcel.first };
        let place = claim(&mut self.places, &mut self.free_places, place);
        parcel.first = place;
        if let Some(tail) = tail.filter(|_| !fault::planted("lane-not-kept")) {
            parcel.waits += 1;
            parcel.blocked += u32::from(held_up);
            self.places[tail as usize].behind = place;
        }
        self.tails.insert(conversation, place);
    }

    /// One who stood before this parcel is gone.
    fn move_up(&mut self, index: u32) {
        let parcel = &mut self.parcels[index as usize];
        parcel.waits -= 1;
        if parcel.waits == READY {
            let (id, class) = (ParcelId { sequence: parcel.sequence, index }, parcel.class);
            self.ready.push(id, class);
        }
    }

    fn held(&mut self, id: ParcelId, states: &[u32]) -> &mut Parcel<T> {
        let parcel = &mut self.parcels[id.index as usize];
        assert!(
            parcel.item.is_some() && parcel.sequence == id.sequence && states.contains(&parcel.waits),
            "{id:?} is not in a state that allows this: waits {}, sequence {}",
            parcel.waits,
            parcel.sequence,
        );
        parcel
    }
}

/// Puts `value` into a free slot, or a new one.
fn claim<V>(slots: &mut Vec<V>, free: &mut Vec<u32>, value: V) -> u32 {
    if let Some(index) = free.pop() {
        slots[index as usize] = value;
        return index;
    }
    let index = u32::try_from(slots.len()).ok().filter(|i| *i < block::HELD_UP);
    // 2 billion parcels are terabytes of bodies: memory ends long before.
    let index = index.expect("fewer than 2^31 slots");
    slots.push(value);
    index
}

#[cfg(test)]
mod tests;
