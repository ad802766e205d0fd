//! A parcel on its way through a region: what it is, and what became of a try.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::dead::{LetterId, Reason};
use crate::journal::{JournalIndex, Position};

/// [`Item::journal`] of a letter that goes out again; `lsn` is then its id.
pub const DEAD_LETTERS: u32 = crate::handling::LETTERS as u32;

/// One parcel that is not settled, as it comes and as it goes out for a try.
#[derive(Debug, Clone, Default)]
pub struct Item {
    pub journal: u32,
    /// Which parcel of the entry.
    pub slot: u16,
    /// Which part of the parcel, from 1; 0: it was never cut.
    pub part: u16,
    /// An earlier attempt may have been taken.
    pub uncertain: bool,
    /// It is not to be tried, but given up.
    pub quarantined: bool,
    /// As it comes: straight from the hand-over.
    pub live: bool,
    /// Tries that failed.
    pub attempts: u32,
    /// Parcels of its conversations that were given up since the last one that was delivered.
    pub gap: u32,
    pub lsn: u64,
    pub frame: Position,
    /// The record's place in the frame.
    pub offset: u32,
    pub len: u32,
    /// The record, while it is kept.
    pub record: Option<Bytes>,
    /// Places of events that the region has already: they are cut out.
    pub repeats: Option<Rc<[u32]>>,
    /// Of a part: places of its events.
    pub only: Option<Rc<[u32]>>,
}

impl Item {
    /// The dead letter that it is, if it goes out by a person's order.
    pub fn letter(&self) -> Option<LetterId> {
        (self.journal == DEAD_LETTERS).then_some(LetterId(self.lsn))
    }

    /// Its name where the handling of entries is watched.
    pub fn watched(&self) -> (JournalIndex, u64, u16) {
        (self.journal as JournalIndex, self.lsn, self.slot)
    }

    /// Whether the event at this place of the webhook, one of its slot, goes out.
    pub fn holds(&self, place: u32) -> bool {
        let has = |list: &[u32]| list.binary_search(&place).is_ok();
        !self.repeats.as_deref().is_some_and(has) && self.only.as_deref().is_none_or(has)
    }

    /// Whether all events of its slot go out.
    pub fn is_whole(&self) -> bool {
        self.repeats.is_none() && self.only.is_none()
    }
}

/// What a worker is to do with a parcel.
#[derive(Debug)]
pub enum Errand {
    Try(Item),
    Bury(Item, Death),
}

/// Why a parcel is given up, and what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Death {
    pub reason: Reason,
    /// Of the last answer; 0: there was none.
    pub status: u16,
    /// `None`: it never was.
    pub first_tried: Option<Instant>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    Failed(Failed),
}

/// Not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// 0: no answer came.
    pub status: u16,
    /// `Retry-After`.
    pub asked: Option<Duration>,
    /// The region may have taken it in spite of all.
    pub uncertain: bool,
}

impl Failed {
    /// The region has too much to do.
    pub fn is_overload(&self) -> bool {
        matches!(self.status, 429 | 503)
    }

    /// It was answered, and not with "later": what is in it may be why.
    pub fn is_refusal(&self) -> bool {
        !matches!(self.status, 0 | 408 | 425 | 429 | 503)
    }

    /// An answer that no repetition mends, as far as HTTP goes.
    pub fn is_unwanted(&self) -> bool {
        matches!(self.status, 300..=499) && !matches!(self.status, 408 | 409 | 425 | 429)
    }
}
