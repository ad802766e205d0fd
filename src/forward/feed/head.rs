//! Where the journals of a pass stand: a frame of each, merged by sequence number.

use crate::fault;
use crate::journal::JournalIndex;
use crate::journal::read::{ReadEntry, ReadFrame};

/// The journal whose next entry has the lowest sequence number.
pub(super) fn lowest(heads: &[Option<Head>]) -> Option<JournalIndex> {
    heads
        .iter()
        .enumerate()
        .filter_map(|(journal, head)| head.as_ref().and_then(Head::next_seq).map(|seq| (seq, journal)))
        .min_by_key(|(seq, journal)| (if fault::planted("journals-not-merged") { 0 } else { *seq }, *journal))
        .map(|(_, journal)| journal)
}

/// A frame in a pass.
pub(super) struct Head {
    pub(super) frame: ReadFrame,
    /// Place of the next entry among the frame's.
    at: usize,
}

impl Head {
    /// Entries from LSN `from` on.
    pub(super) fn new(frame: ReadFrame, from: u64) -> Self {
        let at = frame.entries.partition_point(|entry| entry.lsn < from);
        Self { frame, at }
    }

    pub(super) fn next_seq(&self) -> Option<u64> {
        self.frame.entries.get(self.at).map(|e| e.seq)
    }

    pub(super) fn done(&self) -> bool {
        self.at >= self.frame.entries.len()
    }

    /// Only called when not done.
    pub(super) fn pop(&mut self) -> ReadEntry {
        let entry = self.frame.entries[self.at];
        self.at += 1;
        entry
    }
}
