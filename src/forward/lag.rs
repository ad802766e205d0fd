//! How far a lagging region got in the journals, and what of the traffic since goes ahead of that.
//!
//! A region that comes back after hours reads its backlog for a long time. A message that comes meanwhile need
//! not wait for it, unless something of its own conversation stands in there unread. So while a region lags,
//! each of its entries that comes over the channel is either *taken ahead*, and remembered so that the pass
//! leaves it out, or left to the pass, and its conversations are counted until the pass has come to it.
//!
//! # What is known
//!
//! All entries of a journal from `seen` on, up to where the core stands, came over the channel while the region
//! lagged, so each is counted or was taken ahead. Of what lies before that nothing is known: it came before
//! the region lagged, before this process, or in an overflow. So nothing is taken ahead before the cursors are
//! past `seen` in every journal; an overflow moves `seen` behind itself, and what was counted before it need no
//! longer be.
//!
//! # Invariants
//!
//! - What is taken ahead has no conversation of which the region has something unread. What of them it had
//!   before stands in its lanes already, what comes later will stand behind it.
//! - A repeat never overtakes what it repeats wrongly. It says the same, so it names the same users, and so it is
//!   counted with it: it waits until its first copy was sifted. One that names nobody has no order to break,
//!   and whichever of the two is sifted first is the one that is delivered. Of the same key with
//!   another value both are delivered, and the one that is sifted later says that it may be a repeat.
//! - Each entry is given to the region once: ahead, or by the pass.
//! - Memory is bounded: 2 MiB of counts, and 8 MiB of what was taken ahead (up to twice that with many journals),
//!   which at 1000 records a second in the journals lasts for nine hours; where it ends, entries are left to the pass.
//!
//! A crash forgets all of this: which parcels are settled is said by their marks, in any order.
//!
//! Pure. Deliberately absent: counting what lies before `seen` by reading it ahead of the pass. After a start in
//! the middle of an outage everything waits in one queue until what was there at the start is through.

use crate::fault;
use crate::journal::{JournalIndex, Position};

mod ahead;
mod unread;

use ahead::Ahead;
use unread::Unread;

/// How far a lagging region got in one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Cursor {
    pub frame: Position,
    /// Entries of that frame below this LSN are taken. By number and not by count: when a segment is
    /// thinned, a frame loses entries.
    pub lsn: u64,
}

impl Cursor {
    /// Before the first entry of a frame.
    pub fn before(frame: Position) -> Self {
        Self { frame, lsn: 0 }
    }
}

/// One lagging region's.
#[derive(Debug)]
pub struct Lag {
    /// By journal: all before it was given to the region.
    cursors: Vec<Cursor>,
    /// By journal: all from there on came over the channel since the region lags.
    seen: Vec<Position>,
    /// The cursors are past `seen`: nothing unread is unknown.
    complete: bool,
    unread: Unread,
    ahead: Ahead,
}

impl Lag {
    /// To be read from `cursors` on; all from `seen` on will come by [`Lag::comes`].
    pub fn new(cursors: Vec<Cursor>, seen: &[Position]) -> Self {
        let ahead = Ahead::new(cursors.len());
        let mut lag =
            Self { cursors, seen: seen.to_vec(), complete: false, unread: Unread::default(), ahead };
        lag.look();
        lag
    }

    pub fn cursor(&self, journal: JournalIndex) -> Cursor {
        self.cursors.get(journal).copied().unwrap_or_default()
    }

    /// A pass got as far as `at`: all before it was given to the region.
    pub fn reach(&mut self, at: &[Cursor]) {
        for (mine, at) in self.cursors.iter_mut().zip(at) {
            *mine = (*mine).max(*at);
        }
        self.look();
    }

    /// Entries before `seen` may not have come by.
    pub fn miss(&mut self, seen: &[Position]) {
        if fault::planted("overflow-not-counted") {
            return;
        }
        self.seen = seen.to_vec();
        // All that is counted lies before it.
        self.unread = Unread::default();
        self.look();
    }

    fn look(&mut self) {
        let past = |(cursor, seen): (&Cursor, &Position)| *cursor >= Cursor::before(*seen);
        self.complete = self.cursors.iter().zip(&self.seen).all(past) || fault::planted("fresh-too-early");
    }

    /// An entry came over the channel, with a parcel of these conversations. True: the region takes it now, which
    /// it must have room for. Else the pass will come to it.
    pub fn comes(&mut self, journal: JournalIndex, lsn: u64, room: bool, conversations: &[u64]) -> bool {
        let own = |conversation: &u64| {
            self.unread.may_have(*conversation) && !fault::planted("fresh-overtakes-own-conversation")
        };
        // A parcel without a conversation has no order: whoever sends it can wait.
        let free = room && self.complete && !conversations.is_empty() && !conversations.iter().any(own);
        if free && self.ahead.take(journal, lsn) {
            return true;
        }
        conversations.iter().for_each(|conversation| self.unread.add(*conversation));
        false
    }

    /// A pass came to an entry, with a parcel of these conversations. True: the region takes it now. Else it took
    /// it ahead.
    pub fn passes(&mut self, journal: JournalIndex, at: Cursor, conversations: &[u64]) -> bool {
        if self.ahead.has(journal, at.lsn) && !fault::planted("fresh-offered-twice") {
            return false;
        }
        if self.seen.get(journal).is_some_and(|seen| at.frame >= *seen) {
            conversations.iter().for_each(|conversation| self.unread.remove(*conversation));
        }
        true
    }

    /// Whether something is unread that what comes now could be taken ahead of.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}

#[cfg(test)]
mod tests;
