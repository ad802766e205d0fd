//! The journal of one core at work: append, group commit, release. Shell around `commit` and `record`;
//! where the bytes go is `tail`'s.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;

use super::Position;
use super::account::Wrote;
use super::batch::{Batch, Batches};
use super::buffer::{AlignedBuf, BufferPool};
use super::commit::{CommitPolicy, Decision};
use super::encoded::{COPIED_MAX, Encoded};
use super::frame::{Digest, FrameKind, HEADER, JournalId};
use super::ground::{Ground, Ring};
use super::record::{self, MARKS_MAX, Mark, marks_len};
use super::recover::Lost;
use super::spare::{OpenMode, Order, Spare};
use super::tail::Tail;
use crate::fault;
use crate::metrics::IngestCells;
use crate::wake::Notify;

/// A frame may not carry more than this, so that one commit stays short even on a slow disk.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room in a segment that entries may not take: the marks and the seal that let a full disk drain. Of a
/// segment smaller than any that can be configured, an eighth.
const RESERVED: u64 = 256 * 1024;
/// Waiting bytes from which on each append asks the commit policy again.
const ASK_AGAIN: usize = 256 * 1024;

/// All that a core needs to go on with a journal; made by `store` before the core starts.
#[derive(Debug)]
pub struct Seed<F = std::fs::File> {
    pub id: JournalId,
    pub dir: PathBuf,
    pub next_frame: u64,
    pub next_lsn: u64,
    pub chain: Digest,
    /// Segment before the first one to be written, and where it ends; 0 = none.
    pub last_segment: u64,
    pub last_end: u64,
    pub spares: Vec<Spare<F>>,
    /// Damage to be recorded.
    pub damage: Vec<Lost>,
    pub mode: OpenMode,
    pub segment_bytes: u64,
    pub commit_delay: Duration,
}

/// The journal cannot take more now: answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal is full")]
pub struct Full;

/// The journal could not be written; the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the journal failed")]
pub struct Poisoned;

/// One entry of a committed frame.
#[derive(Debug, Clone, Copy)]
pub struct EntryAt {
    pub lsn: u64,
    /// As given to [`Journal::append`].
    pub tag: u64,
    /// The record's place in the frame.
    pub offset: u32,
    pub len: u32,
}

/// A frame that just became durable.
#[derive(Debug)]
pub struct Committed<'a> {
    pub position: Position,
    /// Position after the frame.
    pub next: Position,
    pub frame: Bytes,
    pub entries: &'a mut Vec<EntryAt>,
}

/// The journal of one core. Cheap to share on it.
pub struct Journal<G: Ground = Ring> {
    id: JournalId,
    /// Whoever frees what is settled is told of every durable frame.
    wrote: Sender<Wrote>,
    tail: Tail<G>,
    /// Most bytes of a batch.
    batch_max: usize,
    /// Room in a segment that entries may not take.
    reserved: u64,
    pending: RefCell<Batches>,
    /// All batches below this one are durable.
    done: Cell<u64>,
    /// Who waits for the batch that is being written.
    flying: RefCell<Vec<Waker>>,
    /// An empty list for the batch after the next one.
    list: Cell<Vec<EntryAt>>,
    marks: RefCell<Vec<(JournalId, Vec<Mark>)>>,
    oldest_mark: Cell<Option<Instant>>,
    policy: RefCell<CommitPolicy>,
    pool: BufferPool,
    notify: Rc<Notify>,
    poisoned: Cell<bool>,
    stopping: Cell<bool>,
    /// Marks were given up at the end for want of space.
    gave_up: Cell<bool>,
    cells: Arc<IngestCells>,
}

impl Journal {
    /// Call on the core that owns it, then run [`Journal::run`] as a task.
    pub fn new(
        seed: Seed,
        orders: Sender<Order>,
        wrote: Sender<Wrote>,
        pool: BufferPool,
        cells: Arc<IngestCells>,
    ) -> Rc<Self> {
        Self::on(Ring, seed, orders, wrote, pool, cells)
    }
}

impl<G: Ground> Journal<G>
where
    G::Raw: 'static,
{
    /// As [`Journal::new`], on another ground.
    pub fn on(
        ground: G,
        seed: Seed<G::Raw>,
        orders: Sender<Order<G::Raw>>,
        wrote: Sender<Wrote>,
        pool: BufferPool,
        cells: Arc<IngestCells>,
    ) -> Rc<Self> {
        let mut pending = Batch::new(pool.get());
        for lost in seed.damage.iter().filter(|l| l.last_lsn >= l.first_lsn) {
            record::write_gap(&mut pending.buf, &seed.id, lost.first_lsn, lost.last_lsn);
            pending.records += 1;
            pending.oldest = Some(ground.now());
        }
        // Two batches fit in a fresh segment: the one that opens it and the one that waits meanwhile.
        let reserved = RESERVED.min(seed.segment_bytes / 8);
        let batch_max = FRAME_BYTES_MAX.min((seed.segment_bytes / 2 - reserved) as usize);
        Rc::new(Self {
            id: seed.id,
            wrote,
            batch_max,
            reserved,
            pending: RefCell::new(Batches::new(pending)),
            done: Cell::new(1),
            flying: RefCell::default(),
            list: Cell::default(),
            marks: RefCell::default(),
            oldest_mark: Cell::new(None),
            policy: RefCell::new(CommitPolicy::new(seed.commit_delay)),
            tail: Tail::new(ground, seed, orders, pool.clone()),
            pool,
            notify: Rc::new(Notify::default()),
            poisoned: Cell::new(false),
            stopping: Cell::new(false),
            gave_up: Cell::new(false),
            cells,
        })
    }

    /// False while new webhooks must be refused.
    pub fn accepting(&self) -> bool {
        self.takes(0)
    }

    /// Segments made ahead.
    pub fn spares_ready(&self) -> usize {
        self.tail.spares_ready()
    }

    /// Adds a webhook to the next commit. `tag` comes back in [`EntryAt`]; `meta` writes the entry's
    /// meta, of about `meta_len` bytes, straight into the frame.
    pub fn append(
        self: &Rc<Self>,
        seq: u64,
        slots: u16,
        tag: u64,
        meta_len: usize,
        meta: impl FnOnce(&mut AlignedBuf),
        body: &[u8],
    ) -> Result<Ticket<G>, Full> {
        if !self.takes(record::entry_len(meta_len, body.len())) {
            return Err(Full);
        }
        let mut pending = self.pending.borrow_mut();
        let offset = pending.open.buf.len();
        let len = record::write_entry(&mut pending.open.buf, seq, slots, meta, body);
        Ok(self.count(&mut pending, tag, offset, len, slots))
    }

    /// Counts an entry in that was written to the batch that is being filled.
    fn count(
        self: &Rc<Self>,
        pending: &mut Batches,
        tag: u64,
        offset: usize,
        len: usize,
        slots: u16,
    ) -> Ticket<G> {
        let batch = &mut pending.open;
        batch.count(tag, offset, len, slots);
        let first = batch.oldest.is_none();
        batch.oldest.get_or_insert_with(|| self.now());
        if first || batch.buf.len() >= ASK_AGAIN {
            self.notify.notify();
        }
        Ticket { journal: Rc::clone(self), batch: pending.filling() }
    }

    /// As [`Journal::append`], of an entry that was encoded ahead: whatever its size, next to nothing is left to do.
    pub fn append_encoded(self: &Rc<Self>, seq: u64, tag: u64, entry: Encoded) -> Result<Ticket<G>, Full> {
        let (slots, len) = (entry.slots(), entry.record_len());
        if !self.takes(len) {
            return Err(Full);
        }
        let (buf, summed) = entry.number(seq);
        let mut pending = self.pending.borrow_mut();
        if len <= COPIED_MAX {
            let offset = pending.open.buf.len();
            pending.open.buf.extend_from_slice(&buf.as_slice()[HEADER..]);
            return Ok(self.count(&mut pending, tag, offset, len, slots));
        }
        let mut batch = Batch { oldest: Some(self.now()), ..Batch::of(buf, summed) };
        batch.count(tag, HEADER, len, slots);
        let number = pending.push(batch, || Batch::new(self.pool.get()));
        self.notify.notify();
        Ok(Ticket { journal: Rc::clone(self), batch: number })
    }

    /// Whether an entry of `len` bytes can be stored.
    fn takes(&self, len: usize) -> bool {
        !self.poisoned.get() && !self.stopping.get() && self.room(len)
    }

    /// Adds marks for entries of `journal` to one of the next commits.
    pub fn append_marks(&self, journal: JournalId, marks: Vec<Mark>) {
        fault::point("marks-queued");
        if fault::planted("marks-lost") {
            return;
        }
        if self.oldest_mark.get().is_none() {
            self.oldest_mark.set(Some(self.now()));
            self.notify.notify();
        }
        let mut waiting = self.marks.borrow_mut();
        waiting.extend(marks.chunks(MARKS_MAX).map(|part| (journal, part.to_vec())));
    }

    /// Ends [`Journal::run`] after everything pending is durable and the segment is sealed.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.notify.notify();
    }

    /// After the stop: every mark that came is durable.
    pub fn all_marked(&self) -> bool {
        !self.gave_up.get()
    }

    /// Whether `more` bytes of entries can be stored: in the segment in use or in one made ahead.
    fn room(&self, more: usize) -> bool {
        let pending = self.pending.borrow().bytes() + more;
        pending <= self.batch_max && self.tail.room(pending, self.reserved)
    }

    /// The writer: the only one who touches the file. Ends with the first error, or after [`Journal::stop`].
    pub async fn run(self: Rc<Self>, mut sink: impl FnMut(&mut Committed<'_>)) -> io::Result<()> {
        let timer = self.tail.ground().timer(Rc::clone(&self.notify))?;
        loop {
            let now = self.now();
            let waiting = self.pending.borrow().waiting(self.oldest_mark.get());
            let decision = self.policy.borrow().decide(now, &waiting);
            let stopping = self.stopping.get();
            let written = match decision {
                Decision::Write => self.write_pending(&mut sink).await,
                _ if stopping && (waiting.entries > 0 || waiting.oldest_mark.is_some()) => {
                    self.write_pending(&mut sink).await
                }
                _ if stopping => {
                    fault::point("stop-seal");
                    if fault::planted("newest-frame-unproven") {
                        return Ok(());
                    }
                    return self.poison_on_error(self.tail.write_empty(FrameKind::Seal).await);
                }
                Decision::Tick => self.tick().await,
                Decision::Until(at) => {
                    self.tail.ground().arm(&timer, at.saturating_duration_since(now))?;
                    self.notify.notified().await;
                    Ok(())
                }
                Decision::Idle => {
                    self.notify.notified().await;
                    Ok(())
                }
            };
            self.poison_on_error(written)?;
        }
    }

    fn now(&self) -> Instant {
        self.tail.ground().now()
    }

    fn poison_on_error(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.poisoned.set(true);
            let mut waiters = std::mem::take(&mut *self.flying.borrow_mut());
            waiters.append(&mut self.pending.borrow_mut().take_waiters());
            waiters.into_iter().for_each(Waker::wake);
        }
        result
    }

    /// Proves the newest frame by an empty one, if there is room for it: a tick never opens a segment.
    async fn tick(&self) -> io::Result<()> {
        if self.tail.fits(0) && !fault::planted("newest-frame-unproven") {
            self.policy.borrow_mut().started(self.now(), 0);
            self.tail.write_empty(FrameKind::Tick).await?;
            self.policy.borrow_mut().finished(self.now(), true);
        } else {
            self.policy.borrow_mut().proven();
        }
        Ok(())
    }

    /// Writes the batch that waits, with the marks that wait, as one frame.
    async fn write_pending(&self, sink: &mut impl FnMut(&mut Committed<'_>)) -> io::Result<()> {
        let complete = self.pending.borrow_mut().pop_closed();
        let mut batch = complete.unwrap_or_else(|| self.take_open());
        *self.flying.borrow_mut() = std::mem::take(&mut batch.waiters);
        let payload = batch.buf.len() - HEADER;
        let with_marks = payload + self.marks.borrow().first().map_or(0, |(_, marks)| marks_len(marks.len()));
        if !self.tail.fits(with_marks)
            && !self.tail.roll().await?
            && (payload == 0 || !self.tail.fits(payload))
        {
            self.put_back(batch);
            return Ok(());
        }
        let marks = self.add_marks(&mut batch);
        let entries = batch.entries.len();
        let first_lsn = self.tail.next_lsn();
        for entry in &mut batch.entries {
            entry.lsn += first_lsn;
        }
        let start = self.now();
        self.policy.borrow_mut().started(start, entries);
        let (position, buf) =
            self.tail.write_frame(batch.buf, FrameKind::Commit, batch.records, batch.summed).await?;
        let end = self.now();
        fault::point("frame-durable");
        self.policy.borrow_mut().finished(end, entries == 0);
        self.cells.commit_seconds.observe_ns(end.duration_since(start).as_nanos() as u64);
        self.cells.commits.add(1);
        self.cells.committed_entries.add(entries as u64);
        self.cells.committed_bytes.add(buf.len() as u64);
        let next = self.tail.position();
        if !marks.is_empty() {
            fault::point("marks-durable");
        }
        // Before anybody can settle what is in it. Nobody reads this when the process is ending.
        self.wrote
            .send(Wrote {
                journal: self.id,
                position,
                next,
                first_lsn,
                records: batch.records,
                first_entry: batch.entries.first().map_or(0, |entry| entry.lsn),
                entries: entries as u32,
                wide: std::mem::take(&mut batch.wide),
                marks,
            })
            .ok();
        if batch.entries.is_empty() {
            self.pool.put(buf);
        } else {
            let frame = self.pool.share(buf);
            sink(&mut Committed { position, next, frame, entries: &mut batch.entries });
            fault::point("handed-over");
        }
        batch.entries.clear();
        self.list.set(batch.entries);
        self.done.set(self.done.get() + 1);
        let forgotten = usize::from(fault::planted("waiter-forgotten"));
        let mut woken = self.flying.take();
        woken.drain(..).skip(forgotten).for_each(Waker::wake);
        // For those who wait for the batch after the next one.
        self.flying.replace(woken);
        Ok(())
    }

    /// Takes the batch that is being filled, and begins the next one.
    fn take_open(&self) -> Batch {
        let mut pending = self.pending.borrow_mut();
        let mut entries = self.list.take();
        // About as many will come again: nothing has to grow step by step meanwhile.
        let last = pending.open.entries.len();
        entries.reserve(last + last / 4 + 4);
        pending.take_open(Batch { entries, waiters: self.flying.take(), ..Batch::new(self.pool.get()) })
    }

    /// There is no room, not even for marks. No entries wait then (`append` saw to that), and nothing
    /// was awaited since the batch was taken. Marks wait for space, and with them what recovery reported as
    /// lost; at the end both are given up, which costs duplicates, and the same report at the next start.
    fn put_back(&self, mut batch: Batch) {
        batch.waiters = self.flying.take();
        if batch.entries.is_empty() {
            // Reports alone are not due at once: nothing else on this core would ever have its turn.
            batch.oldest = None;
            if self.stopping.get() {
                batch.buf.set_len(HEADER);
                batch.records = 0;
            }
        }
        if self.stopping.get() {
            let given_up = std::mem::take(&mut *self.marks.borrow_mut());
            self.gave_up.set(self.gave_up.get() || !given_up.is_empty());
        }
        let waits = batch.records > 0 || !self.marks.borrow().is_empty();
        self.oldest_mark.set(waits.then(|| self.now()));
        let unused = self.pending.borrow_mut().put_back(batch);
        self.pool.put(unused);
    }

    /// Puts marks that wait into the batch, as many as fit, and returns them.
    fn add_marks(&self, batch: &mut Batch) -> Vec<(JournalId, Vec<Mark>)> {
        let mut waiting = self.marks.borrow_mut();
        let behind = self.pending.borrow().closed_bytes();
        let (mut taken, mut bytes) = (0, 0);
        for (journal, marks) in waiting.iter() {
            let len = marks_len(marks.len());
            bytes += len;
            // No more than is kept free for them: entries that came while the segment was being taken
            // into use were promised the rest of it.
            let too_many = taken > 0 && bytes as u64 > self.reserved;
            let fits = batch.takes(len) && self.tail.fits(batch.buf.len() - HEADER + len + behind);
            if too_many || !fits {
                break;
            }
            record::write_marks(&mut batch.buf, journal, marks);
            batch.records += 1;
            taken += 1;
        }
        let written = waiting.drain(..taken).collect();
        self.oldest_mark.set((!waiting.is_empty()).then(|| self.now()));
        written
    }
}

/// Resolves when the webhook is durable and handed over. Dropping it changes nothing: the webhook stays.
pub struct Ticket<G: Ground = Ring> {
    journal: Rc<Journal<G>>,
    batch: u64,
}

impl<G: Ground> Future for Ticket<G> {
    type Output = Result<(), Poisoned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let journal = &self.journal;
        if journal.done.get() > self.batch || fault::planted("ack-before-commit") {
            return Poll::Ready(Ok(()));
        }
        if journal.poisoned.get() {
            return Poll::Ready(Err(Poisoned));
        }
        let waker = cx.waker().clone();
        match journal.pending.borrow_mut().waiters(self.batch) {
            Some(waiters) => waiters.push(waker),
            None => journal.flying.borrow_mut().push(waker),
        }
        Poll::Pending
    }
}
