//! Dead letters: parcels that were given up, kept on disk until a person replays or drops them.
//!
//! ```text
//! desk     what a forwarding core asks for: bury, replay, gaps
//! keeper   the thread that owns the folder while the gateway runs
//! ```
//!
//! A parcel is given up in this order: its letter is durable here, then its keys are in the key log, then
//! its mark [`crate::journal::Settled::Dead`] is in the journal. A crash in between leaves a letter of a
//! parcel that the journal still takes for unsettled: at the next start [`Desk::held`] knows it, and it is
//! settled without a try. So there are never two letters of one parcel.

use bytes::Bytes;

use crate::journal::JournalId;

pub mod desk;
mod keeper;

pub use desk::{Desk, Held};
pub use keeper::{Start, start};

/// Names a letter for ever; rises with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub u64);

/// Why a parcel was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// `region.retry.attempts` are used up.
    Attempts = 1,
    /// `region.retry.window` is over.
    Window = 2,
    /// The region does not want it: a 4xx.
    Refused = 3,
    /// It harms whoever touches it.
    Quarantined = 4,
}

/// A parcel that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Where its entry is.
    pub journal: JournalId,
    pub lsn: u64,
    /// Which parcel of the entry.
    pub slot: u16,
    /// Which part of the parcel, from 1; 0: it was never cut.
    pub part: u16,
    /// `entry::name_id` of the region's name.
    pub region: u32,
    /// `entry::name_id` of the source's name.
    pub source: u32,
    pub last: Failure,
    /// Unix milliseconds; 0: not known.
    pub first_tried_ms: u64,
    pub received_at_ms: u64,
    /// Its own, each once.
    pub conversations: Vec<u64>,
    /// Places of its events among those of the webhook, rising; empty: all of the slot.
    pub events: Vec<u32>,
    /// The journal's record: the webhook as it came, with its meta.
    pub record: Bytes,
}

/// How the last try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    /// Of the last answer; 0: there was none.
    pub status: u16,
    /// Tries so far, those of replays too.
    pub attempts: u32,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// A letter that goes out again, by a person's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    pub id: LetterId,
    pub region: u32,
    pub slot: u16,
    pub part: u16,
    pub attempts: u32,
    pub conversations: Vec<u64>,
    /// As in [`Letter::events`].
    pub events: Vec<u32>,
    pub record: Bytes,
}
