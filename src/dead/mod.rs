//! Dead letters: parcels that were given up, kept on disk until a person replays or drops them.
//!
//! ```text
//! desk     what a forwarding core asks for: bury, replay, gaps
//! office   what a person asks for while the gateway runs: find, show, replay, drop
//! keeper   who owns the folder while the gateway runs
//! thread   the keeper's
//! graves   the folder: all regions; without a gateway the command line has it
//! shelf    one region: its segments, and the gaps in its conversations
//! segment  a file of letters and its index
//! record   their bytes (pure)
//! disk     what of a file system they need
//! damage   what can be wrong with their files
//! words    filters and letters as people read and write them (pure)
//! ```
//!
//! A parcel is given up in this order: its letter is durable here, then its keys are in the key log, then
//! its mark [`crate::journal::Settled::Dead`] is in the journal. A crash in between leaves a letter of a
//! parcel that the journal still takes for unsettled: at the next start [`Desk::held`] knows it, and it is
//! settled without a try. So there are never two letters of one parcel. Such a letter stays on the disk until
//! a start finds the mark, also if it is dropped or replayed before.

use bytes::Bytes;

use crate::fault;
use crate::journal::JournalId;

mod damage;
pub mod desk;
pub mod disk;
pub mod filter;
mod gaps;
pub mod graves;
pub mod keeper;
pub mod office;
pub mod record;
mod segment;
mod shelf;
#[cfg(test)]
mod tests;
mod thread;
mod users;
pub mod words;

pub use damage::{Damage, DeadError};
pub use desk::{Desk, Held};
pub use filter::Filter;
pub use gaps::{Gap, Gaps};
pub use graves::{Graves, Stock};
pub use keeper::{Start, Way};
pub use office::Office;
pub use record::What;
pub use thread::start;

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

impl Reason {
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Attempts, "attempts"),
        (Self::Window, "window"),
        (Self::Refused, "refused"),
        (Self::Quarantined, "quarantined"),
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().map(|(reason, _)| *reason).find(|reason| *reason as u8 == byte)
    }

    pub fn name(self) -> &'static str {
        named(&Self::ALL, self)
    }
}

/// What becomes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// For a person.
    Waiting = 1,
    /// It is to go out again.
    Ordered = 2,
    /// The region has it: no letter any more.
    Replayed = 3,
    /// Given up: no letter any more.
    Dropped = 4,
}

impl State {
    /// Those that a list shows.
    pub const ALIVE: [(Self, &'static str); 2] = [(Self::Waiting, "waiting"), (Self::Ordered, "ordered")];

    pub fn name(self) -> &'static str {
        named(&Self::ALIVE, self)
    }

    fn alive(self) -> bool {
        matches!(self, Self::Waiting | Self::Ordered)
    }
}

fn named<T: PartialEq>(names: &[(T, &'static str)], of: T) -> &'static str {
    names.iter().find(|(other, _)| *other == of).map_or("gone", |(_, name)| name)
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

/// What a list shows of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub id: LetterId,
    /// Name.
    pub region: String,
    pub state: State,
    /// `entry::name_id` of its name.
    pub source: u32,
    pub last: Failure,
    /// Unix milliseconds, as the others; 0: not known.
    pub first_tried_ms: u64,
    pub received_at_ms: u64,
    pub journal: JournalId,
    pub lsn: u64,
    pub slot: u16,
    pub part: u16,
    /// Of the whole webhook.
    pub body_len: u32,
    pub event_count: u32,
    /// As numbers of the journal: from them one could find a phone, so they are not shown.
    pub conversations: Vec<u64>,
    /// Keyed hashes.
    pub users: Vec<u64>,
    /// As in [`Letter::events`].
    pub events: Vec<u32>,
}

/// A mistake on request: a change that is not written.
fn is_forgotten(what: What) -> bool {
    what == What::Dropped && fault::planted("drop-forgotten")
        || what == What::Replayed && fault::planted("replay-not-noted")
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
