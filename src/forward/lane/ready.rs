//! Who may start: the oldest of what came while all was well (*fresh*) and the oldest of the rest (*backlog*),
//! by shares.
//!
//! A region that comes back has a backlog in front of it, and people who write to it right now. While both
//! have somebody ready seven of ten starts are fresh; whoever is alone gets all of them and owes nothing for it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ParcelId;

/// In which of the two a parcel waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Came while its region accepted, straight from the hand-over. Until it has failed, or its start was put off.
    Fresh,
    #[default]
    Backlog,
}

/// Fresh starts, of [`STARTS`].
const FRESH: u32 = 7;
const STARTS: u32 = 10;

/// Parcels that may start.
#[derive(Debug)]
pub(super) struct Ready {
    fresh: BinaryHeap<Reverse<ParcelId>>,
    /// The oldest on top, so that what has waited longest goes first, also after a retry's wait.
    backlog: BinaryHeap<Reverse<ParcelId>>,
    /// What the next start has of a whole one that is fresh, in `STARTS`ths. It begins where the first
    /// start of all is fresh.
    credit: u32,
}

impl Default for Ready {
    fn default() -> Self {
        Self { fresh: BinaryHeap::new(), backlog: BinaryHeap::new(), credit: STARTS - FRESH }
    }
}

impl Ready {
    pub(super) fn push(&mut self, id: ParcelId, class: Class) {
        match class {
            Class::Fresh => self.fresh.push(Reverse(id)),
            Class::Backlog => self.backlog.push(Reverse(id)),
        }
    }

    /// The next to start.
    pub(super) fn pop(&mut self) -> Option<ParcelId> {
        let next = match (self.fresh.is_empty(), self.backlog.is_empty()) {
            (_, true) => Class::Fresh,
            (true, false) => Class::Backlog,
            (false, false) => self.turn(),
        };
        let Reverse(id) = match next {
            Class::Fresh => self.fresh.pop(),
            Class::Backlog => self.backlog.pop(),
        }?;
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.backlog.len()
    }

    /// Whose turn it is if both wait: as evenly as whole starts allow.
    fn turn(&mut self) -> Class {
        self.credit += FRESH;
        if self.credit < STARTS {
            return Class::Backlog;
        }
        self.credit -= STARTS;
        Class::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u64) -> ParcelId {
        ParcelId { sequence, index: 0 }
    }

    fn filled(fresh: u64, backlog: u64) -> Ready {
        let mut ready = Ready::default();
        // The youngest first: only their age may count.
        (0..backlog).rev().for_each(|n| ready.push(id(n), Class::Backlog));
        (0..fresh).rev().for_each(|n| ready.push(id(1_000 + n), Class::Fresh));
        ready
    }

    #[test]
    fn of_ten_starts_seven_are_fresh_while_both_wait_and_all_are_anybodys_who_waits_alone() {
        let mut ready = filled(70, 300);
        let first: Vec<u64> = (0..100).filter_map(|_| ready.pop()).map(|id| id.sequence).collect();
        for starts in [10, 20, 50, 100] {
            let fresh = first[..starts].iter().filter(|n| **n >= 1_000).count();
            assert_eq!(fresh, starts * 7 / 10, "of the first {starts}");
        }
        assert!(first[0] >= 1_000, "nobody who writes now waits for the first start of a backlog");
        for old in [true, false] {
            let own: Vec<u64> = first.iter().copied().filter(|n| (*n < 1_000) == old).collect();
            assert!(own.is_sorted(), "the oldest first: {own:?}");
        }
        assert_eq!(ready.len(), 270);
        assert!((0..270).all(|_| ready.pop().is_some_and(|id| id.sequence < 1_000)), "nothing is kept free");
        assert_eq!(ready.pop(), None);
        let mut ready = filled(50, 0);
        assert!((0..50).all(|_| ready.pop().is_some_and(|id| id.sequence >= 1_000)));
    }

    #[test]
    fn who_was_alone_owes_nothing_for_it() {
        let mut ready = filled(0, 1_000);
        assert!((0..500).all(|_| ready.pop().is_some()));
        (0..70).for_each(|n| ready.push(id(5_000 + n), Class::Fresh));
        let fresh = (0..100).filter(|_| ready.pop().is_some_and(|id| id.sequence >= 5_000)).count();
        assert_eq!(fresh, 70);
    }
}
