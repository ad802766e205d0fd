//! What waits to be written: the batch that is being filled, and those before it that are complete. Pure.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Instant;

use super::EntryAt;
use super::buffer::AlignedBuf;
use super::commit::Waiting;
use super::frame::{self, HEADER, Summed};

/// What becomes one frame.
pub(super) struct Batch {
    pub(super) buf: AlignedBuf,
    pub(super) entries: Vec<EntryAt>,
    pub(super) records: u32,
    /// Entries with another number of parcels than one: place among the entries, parcels.
    pub(super) wide: Vec<(u32, u16)>,
    pub(super) oldest: Option<Instant>,
    pub(super) waiters: Vec<Waker>,
    /// How much of the records is summed up already.
    pub(super) summed: Summed,
}

impl Batch {
    /// Nothing, in a buffer that is free.
    pub(super) fn new(mut buf: AlignedBuf) -> Self {
        buf.set_len(HEADER);
        Self::of(buf, Summed::default())
    }

    /// What is encoded in `buf` already.
    pub(super) fn of(buf: AlignedBuf, summed: Summed) -> Self {
        Self {
            buf,
            entries: Vec::new(),
            records: 0,
            wide: Vec::new(),
            oldest: None,
            waiters: Vec::new(),
            summed,
        }
    }

    /// Counts an entry in that was written to the buffer. Its LSN is only known when the frame is closed; until then
    /// it counts from the frame's start.
    pub(super) fn count(&mut self, tag: u64, offset: usize, len: usize, slots: u16) {
        let lsn = u64::from(self.records);
        self.records += 1;
        if slots != 1 {
            let place = self.entries.len() as u32;
            self.wide.push((place, slots));
        }
        self.entries.push(EntryAt { lsn, tag, offset: offset as u32, len: len as u32 });
    }

    /// Whether `more` bytes of records can be added without moving megabytes.
    pub(super) fn takes(&self, more: usize) -> bool {
        self.summed.bytes == 0 || frame::padded_len(self.buf.len() - HEADER + more) <= self.buf.capacity()
    }
}

/// All that waits, in the order in which it is written. Batches are numbered in that order.
pub(super) struct Batches {
    /// The one that is being filled.
    pub(super) open: Batch,
    /// Number of that one.
    filling: u64,
    /// Those before it: an entry that was encoded ahead is a batch of its own.
    closed: VecDeque<Batch>,
    /// Bytes that the frames of these take.
    closed_bytes: usize,
}

impl Batches {
    pub(super) fn new(open: Batch) -> Self {
        Self { open, filling: 1, closed: VecDeque::new(), closed_bytes: 0 }
    }

    pub(super) fn filling(&self) -> u64 {
        self.filling
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.closed_bytes + self.open.buf.len()
    }

    /// Bytes of frames that are written before the one that is being filled.
    pub(super) fn closed_bytes(&self) -> usize {
        self.closed_bytes
    }

    /// Puts a batch behind all that waits. Returns its number. `fresh` makes the next one to be filled.
    pub(super) fn push(&mut self, batch: Batch, fresh: impl FnOnce() -> Batch) -> u64 {
        if self.open.records > 0 {
            let filled = std::mem::replace(&mut self.open, fresh());
            self.close(filled);
        }
        let number = self.filling;
        self.close(batch);
        number
    }

    fn close(&mut self, batch: Batch) {
        self.closed_bytes += frame::padded_len(batch.buf.len() - HEADER);
        self.closed.push_back(batch);
        self.filling += 1;
    }

    /// Takes the first of those that are complete.
    pub(super) fn pop_closed(&mut self) -> Option<Batch> {
        let batch = self.closed.pop_front()?;
        self.closed_bytes -= frame::padded_len(batch.buf.len() - HEADER);
        Some(batch)
    }

    /// Takes the one that is being filled; `next` takes its place.
    pub(super) fn take_open(&mut self, next: Batch) -> Batch {
        self.filling += 1;
        std::mem::replace(&mut self.open, next)
    }

    /// Undoes [`Batches::take_open`] while nothing has come since. Returns the other's buffer.
    pub(super) fn put_back(&mut self, batch: Batch) -> AlignedBuf {
        self.filling -= 1;
        std::mem::replace(&mut self.open, batch).buf
    }

    /// Who waits for batch `number`; `None` if that is no longer here.
    pub(super) fn waiters(&mut self, number: u64) -> Option<&mut Vec<Waker>> {
        let behind = self.filling.checked_sub(number)? as usize;
        if behind == 0 {
            return Some(&mut self.open.waiters);
        }
        let at = self.closed.len().checked_sub(behind)?;
        self.closed.get_mut(at).map(|batch| &mut batch.waiters)
    }

    /// Everybody who waits, for whatever batch.
    pub(super) fn take_waiters(&mut self) -> Vec<Waker> {
        let all = self.closed.iter_mut().chain([&mut self.open]);
        all.flat_map(|batch| std::mem::take(&mut batch.waiters)).collect()
    }

    pub(super) fn waiting(&self, oldest_mark: Option<Instant>) -> Waiting {
        let closed: usize = self.closed.iter().map(|batch| batch.records as usize).sum();
        Waiting {
            bytes: self.bytes(),
            entries: closed + self.open.records as usize,
            oldest_entry: self.closed.iter().chain([&self.open]).find_map(|batch| batch.oldest),
            oldest_mark,
        }
    }
}
