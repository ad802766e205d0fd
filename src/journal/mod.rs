//! Is it safe? The journal: what was answered 200 is here until it is settled.
//!
//! One journal per ingest core, a folder of segment files. Webhooks are grouped into frames, a frame
//! is one write, and a write that completes is durable (`O_DIRECT|O_DSYNC` into space that was
//! written with zeros before). The 200 leaves when the [`Ticket`] of its webhook resolves.
//!
//! # Invariants
//!
//! - A frame never shares a block with another and is never rewritten.
//! - One write is in flight per journal, by one task that nobody cancels.
//! - A short write or any error poisons the journal: no further ack, the process ends with exit code
//!   74, and recovery trusts only the disk. A failed sync is never retried: the kernel may have
//!   dropped the pages and would report success.
//! - A segment's directory entry is durable before its first frame.
//! - Segments are made ahead, by a thread of their own, never on the way of a webhook.
//! - No spare and no room left is planned, not an error: [`Journal::accepting`] turns false, the
//!   listener answers 503 before it reads bodies, and all heals when there is space again.
//! - Sequence numbers rise with LSNs within a journal.
//! - The last segment made ahead takes marks only, so that a journal that cannot grow drains.
//! - What is settled and archived goes: whole segments, and of those in which something still waits all
//!   but that ([`account`] decides, [`free`] does it, one thread for all journals).
//!
//! # Deliberately absent
//!
//! What a webhook means: `meta` and `body` of an entry are opaque. Replication. Repair by itself: a start
//! changes nothing that a person could still want; [`check`] says what is wrong, and repairs when asked to.

pub mod account;
mod batch;
pub mod buffer;
pub mod check;
pub mod commit;
pub mod disk;
pub mod encoded;
pub mod floor;
pub mod folder;
pub mod frame;
pub mod free;
pub mod ground;
pub mod live;
pub mod marks;
pub mod read;
pub mod record;
pub mod recover;
pub mod scan;
pub mod segments;
pub mod spare;
pub mod store;
mod tail;
mod thin;
pub mod twin;
pub mod view;
pub mod writer;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod writer_tests;

pub use encoded::Encoded;
pub use frame::JournalId;
pub use record::{Mark, Settled};
pub use writer::{Committed, EntryAt, Full, Journal, Poisoned, Ticket};

use buffer::BLOCK;

/// Index of a journal in this process's list.
pub type JournalIndex = usize;

/// Where a frame starts: segment number and block within it. Orders as the journal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// `offset` is a multiple of 4 KiB below 16 TiB.
    pub fn new(segment: u64, offset: u64) -> Self {
        Self(segment << 32 | (offset / BLOCK as u64))
    }

    pub fn segment(self) -> u64 {
        self.0 >> 32
    }

    /// Bytes from the start of the segment.
    pub fn offset(self) -> u64 {
        (self.0 & 0xffff_ffff) * BLOCK as u64
    }

    /// For an atomic that one core publishes and others read.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}
