//! The journal of one core at work: append, group commit, roll over. Shell around `commit`, `frame`
//! and `record`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use monoio::fs::File;

use super::Position;
use super::buffer::{AlignedBuf, BufferPool};
use super::commit::{CommitPolicy, Decision, Waiting};
use super::frame::{
    self, Digest, FIRST_FRAME, FrameHeader, FrameKind, HEADER, JournalId, Salt, SegmentHeader,
};
use super::record::{self, Mark};
use super::recover::Lost;
use super::spare::{AHEAD, OpenMode, Order, Spare};
use super::store::random;
use crate::metrics::IngestCells;
use crate::wake::{Notify, Timer};

/// A frame may not carry more than this, so that one commit stays short even on a slow disk.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room in a segment that entries may not take: the marks and the seal that let a full disk drain.
const RESERVED: u64 = 256 * 1024;

/// All that a core needs to go on with a journal; made by `store` before the core starts.
#[derive(Debug)]
pub struct Seed {
    pub id: JournalId,
    pub dir: PathBuf,
    pub next_frame: u64,
    pub next_lsn: u64,
    pub chain: Digest,
    /// Segment before the first one to be written, and where it ends; 0 = none.
    pub last_segment: u64,
    pub last_end: u64,
    pub spares: Vec<Spare>,
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

struct Pending {
    buf: AlignedBuf,
    entries: Vec<EntryAt>,
    records: u32,
    oldest: Option<Instant>,
    waiters: Vec<Waker>,
}

struct Active {
    file: Option<Rc<File>>,
    segment: u64,
    salt: Salt,
    /// Where the next frame goes.
    offset: u64,
}

/// The journal of one core. Cheap to share on it.
pub struct Journal {
    id: JournalId,
    mode: OpenMode,
    segment_bytes: u64,
    pending: RefCell<Pending>,
    /// Number of the batch that is being filled; all below `done` are durable.
    filling: Cell<u64>,
    done: Cell<u64>,
    flying: RefCell<Vec<Waker>>,
    marks: RefCell<Vec<(JournalId, Vec<Mark>)>>,
    oldest_mark: Cell<Option<Instant>>,
    active: RefCell<Active>,
    next_frame: Cell<u64>,
    next_lsn: Cell<u64>,
    chain: Cell<Digest>,
    previous: Cell<(u64, u64)>,
    spares: Receiver<Spare>,
    ready: RefCell<VecDeque<Spare>>,
    order: Box<dyn Fn(u64)>,
    ordered: Cell<u64>,
    policy: RefCell<CommitPolicy>,
    pool: BufferPool,
    notify: Rc<Notify>,
    poisoned: Cell<bool>,
    /// A new segment is being taken into use.
    rolling: Cell<bool>,
    stopping: Cell<bool>,
    /// Whether the stop ends in a seal.
    seal: Cell<bool>,
    cells: std::sync::Arc<IngestCells>,
}

impl Journal {
    /// Call on the core that owns it, then run [`Journal::run`] as a task.
    pub fn new(
        seed: Seed,
        orders: Sender<Order>,
        pool: BufferPool,
        cells: std::sync::Arc<IngestCells>,
    ) -> Rc<Self> {
        let (reply, spares) = crossbeam_channel::bounded(AHEAD + 1);
        let (dir, mode, bytes) = (seed.dir.clone(), seed.mode, seed.segment_bytes);
        let order = Box::new(move |number| {
            let order = Order { dir: dir.clone(), number, bytes, mode, reply: reply.clone() };
            // The maker of spares is gone: the process is ending.
            orders.send(order).ok();
        });
        let ordered = seed.spares.last().map_or(seed.last_segment, |s| s.number);
        let journal = Rc::new(Self {
            id: seed.id,
            mode: seed.mode,
            segment_bytes: seed.segment_bytes,
            pending: RefCell::new(Pending::new(pool.get())),
            filling: Cell::new(1),
            done: Cell::new(1),
            flying: RefCell::default(),
            marks: RefCell::default(),
            oldest_mark: Cell::new(None),
            active: RefCell::new(Active {
                file: None,
                segment: 0,
                salt: Salt::default(),
                offset: seed.segment_bytes,
            }),
            next_frame: Cell::new(seed.next_frame),
            next_lsn: Cell::new(seed.next_lsn),
            chain: Cell::new(seed.chain),
            previous: Cell::new((seed.last_segment, seed.last_end)),
            spares,
            ready: RefCell::new(seed.spares.into()),
            order,
            ordered: Cell::new(ordered),
            policy: RefCell::new(CommitPolicy::new(seed.commit_delay)),
            pool,
            notify: Rc::new(Notify::default()),
            poisoned: Cell::new(false),
            rolling: Cell::new(false),
            stopping: Cell::new(false),
            seal: Cell::new(true),
            cells,
        });
        {
            let mut pending = journal.pending.borrow_mut();
            for lost in seed.damage.iter().filter(|l| l.last_lsn >= l.first_lsn) {
                record::write_gap(&mut pending.buf, &seed.id, lost.first_lsn, lost.last_lsn);
                pending.records += 1;
                pending.oldest = Some(Instant::now());
            }
        }
        journal.keep_ahead();
        journal
    }

    pub fn id(&self) -> JournalId {
        self.id
    }

    /// False while new webhooks must be refused.
    pub fn accepting(&self) -> bool {
        !self.poisoned.get() && !self.stopping.get() && self.room(0)
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
    ) -> Result<Ticket, Full> {
        if self.poisoned.get() || self.stopping.get() || !self.room(record::entry_len(meta_len, body.len())) {
            return Err(Full);
        }
        let mut pending = self.pending.borrow_mut();
        let offset = pending.buf.len();
        let len = record::write_entry(&mut pending.buf, seq, slots, meta, body);
        // The LSN is only known when the frame is closed; until then it counts from the frame's start.
        let lsn = u64::from(pending.records);
        pending.records += 1;
        pending.entries.push(EntryAt { lsn, tag, offset: offset as u32, len: len as u32 });
        let first = pending.oldest.is_none();
        pending.oldest.get_or_insert_with(Instant::now);
        if first || pending.buf.len() >= 256 * 1024 {
            self.notify.notify();
        }
        Ok(Ticket { journal: Rc::clone(self), batch: self.filling.get() })
    }

    /// Adds marks for entries of `journal` to one of the next commits.
    pub fn append_marks(&self, journal: JournalId, marks: Vec<Mark>) {
        if self.oldest_mark.get().is_none() {
            self.oldest_mark.set(Some(Instant::now()));
            self.notify.notify();
        }
        self.marks.borrow_mut().push((journal, marks));
    }

    /// Ends [`Journal::run`] after everything pending is durable. `seal` says that nothing is under
    /// way any more: the next start then knows that no parcel may have been delivered unmarked.
    pub fn stop(&self, seal: bool) {
        self.seal.set(seal);
        self.stopping.set(true);
        self.notify.notify();
    }

    /// Whether `more` bytes of entries can be stored: in the segment in use or in one made ahead.
    fn room(&self, more: usize) -> bool {
        let pending = self.pending.borrow().buf.len() + more;
        // Two frames fit in a fresh segment: the one that opens it and the one that waits meanwhile.
        if pending > FRAME_BYTES_MAX.min((self.segment_bytes / 2 - RESERVED) as usize) {
            return false;
        }
        let left = self.segment_bytes.saturating_sub(self.active.borrow().offset);
        left >= frame::padded_len(pending) as u64 + RESERVED || self.rolling.get() || self.spares_ready() > 0
    }

    /// Segments made ahead.
    pub fn spares_ready(&self) -> usize {
        self.ready.borrow().len() + self.spares.len()
    }

    fn keep_ahead(&self) {
        let newest_used = self.active.borrow().segment.max(self.previous.get().0);
        while self.ordered.get() < newest_used + AHEAD as u64 {
            self.ordered.set(self.ordered.get() + 1);
            (self.order)(self.ordered.get());
        }
    }

    /// The writer: the only one who touches the file. Ends with the first error, or after [`Journal::stop`].
    pub async fn run(self: Rc<Self>, mut sink: impl FnMut(&mut Committed<'_>)) -> io::Result<()> {
        let timer = Timer::start(Rc::clone(&self.notify))?;
        loop {
            let now = Instant::now();
            let waiting = self.waiting();
            let decision = self.policy.borrow().decide(now, &waiting);
            let stopping = self.stopping.get();
            match decision {
                Decision::Write => {}
                _ if stopping && (waiting.entries > 0 || waiting.oldest_mark.is_some()) => {}
                _ if stopping && !self.seal.get() => return Ok(()),
                _ if stopping => {
                    return self.poison_on_error(self.write_empty(FrameKind::Seal).await);
                }
                Decision::Tick => {
                    // A tick never opens a segment.
                    if self.fits(0) {
                        self.poison_on_error(self.write_empty(FrameKind::Tick).await)?;
                    } else {
                        self.policy.borrow_mut().proven();
                    }
                    continue;
                }
                Decision::Until(at) => {
                    timer.arm(at.saturating_duration_since(now))?;
                    self.notify.notified().await;
                    continue;
                }
                Decision::Idle => {
                    self.notify.notified().await;
                    continue;
                }
            }
            let written = self.write_pending(&mut sink).await;
            self.poison_on_error(written)?;
        }
    }

    fn waiting(&self) -> Waiting {
        let pending = self.pending.borrow();
        Waiting {
            bytes: pending.buf.len(),
            entries: pending.records as usize,
            oldest_entry: pending.oldest,
            oldest_mark: self.oldest_mark.get(),
        }
    }

    fn poison_on_error(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.poisoned.set(true);
            let mut waiters = std::mem::take(&mut *self.flying.borrow_mut());
            waiters.append(&mut self.pending.borrow_mut().waiters);
            waiters.into_iter().for_each(Waker::wake);
        }
        result
    }

    fn fits(&self, payload: usize) -> bool {
        let active = self.active.borrow();
        // Room for the seal stays.
        let need = frame::padded_len(payload) + frame::padded_len(0);
        active.file.is_some() && active.offset + need as u64 <= self.segment_bytes
    }

    /// Writes the batch that waits, with the marks that wait, as one frame.
    async fn write_pending(&self, sink: &mut impl FnMut(&mut Committed<'_>)) -> io::Result<()> {
        let mut batch = self.pending.replace(Pending::new(self.pool.get()));
        self.filling.set(self.filling.get() + 1);
        *self.flying.borrow_mut() = std::mem::take(&mut batch.waiters);
        let payload = batch.buf.len() - HEADER;
        let with_marks = payload + self.marks.borrow().first().map_or(0, |(_, marks)| marks_len(marks));
        if !self.fits(with_marks) && !self.roll().await? && (payload == 0 || !self.fits(payload)) {
            // No entries are waiting then (`append` saw to that). Marks wait for space; at the end
            // they are given up, which costs duplicates.
            if self.stopping.get() {
                self.marks.borrow_mut().clear();
            }
            self.oldest_mark.set((!self.marks.borrow().is_empty()).then(Instant::now));
            self.restore(batch);
            return Ok(());
        }
        self.add_marks(&mut batch);
        let entries = batch.entries.len();
        let first_lsn = self.next_lsn.get();
        for entry in &mut batch.entries {
            entry.lsn += first_lsn;
        }
        let (position, buf) = self.write_frame(batch.buf, FrameKind::Commit, batch.records, entries).await?;
        self.cells.commits.add(1);
        self.cells.committed_entries.add(entries as u64);
        self.cells.committed_bytes.add(buf.len() as u64);
        let active = self.active.borrow();
        let next = Position::new(active.segment, active.offset);
        drop(active);
        if batch.entries.is_empty() {
            self.pool.put(buf);
        } else {
            let frame = self.pool.share(buf);
            sink(&mut Committed { position, next, frame, entries: &mut batch.entries });
        }
        self.done.set(self.filling.get());
        self.flying.take().into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Puts a batch back that holds nothing but a gap report or nothing at all.
    fn restore(&self, batch: Pending) {
        self.pool.put(self.pending.replace(batch).buf);
        self.filling.set(self.filling.get() - 1);
    }

    fn add_marks(&self, batch: &mut Pending) {
        self.oldest_mark.set(None);
        let mut waiting = self.marks.borrow_mut();
        let mut taken = 0;
        for (journal, marks) in waiting.iter() {
            if !self.fits(batch.buf.len() - HEADER + marks_len(marks)) {
                break;
            }
            record::write_marks(&mut batch.buf, journal, marks);
            batch.records += 1;
            taken += 1;
        }
        waiting.drain(..taken);
        if !waiting.is_empty() {
            self.oldest_mark.set(Some(Instant::now()));
        }
    }

    async fn write_empty(&self, kind: FrameKind) -> io::Result<()> {
        if self.active.borrow().file.is_none() {
            return Ok(());
        }
        let mut buf = self.pool.get();
        buf.set_len(HEADER);
        let (_, buf) = self.write_frame(buf, kind, 0, 0).await?;
        self.pool.put(buf);
        Ok(())
    }

    /// Closes the frame in `buf` and makes it durable at the end of the segment in use.
    async fn write_frame(
        &self,
        mut buf: AlignedBuf,
        kind: FrameKind,
        records: u32,
        entries: usize,
    ) -> io::Result<(Position, AlignedBuf)> {
        let (file, offset, segment, salt) = {
            let active = self.active.borrow();
            let file = active.file.clone().ok_or_else(|| io::Error::other("no segment in use"))?;
            (file, active.offset, active.segment, active.salt)
        };
        let header = frame::finish(
            &mut buf,
            FrameHeader {
                kind,
                salt,
                number: self.next_frame.get(),
                first_lsn: self.next_lsn.get(),
                records,
                payload: 0,
                padded: 0,
                payload_crc: 0,
                durable_upto: self.next_lsn.get(),
                previous: self.chain.get(),
                written_at: unix_ns(),
            },
        );
        // Before the write: what comes in meanwhile must count with this space taken.
        self.active.borrow_mut().offset = offset + u64::from(header.padded);
        let start = Instant::now();
        self.policy.borrow_mut().started(start, entries);
        let buf = self.write_durably(&file, buf, offset).await?;
        let end = Instant::now();
        self.policy.borrow_mut().finished(end, entries == 0);
        self.cells.commit_seconds.observe_ns(end.duration_since(start).as_nanos() as u64);
        self.next_frame.set(header.number + 1);
        self.next_lsn.set(header.next_lsn());
        self.chain.set(header.digest());
        Ok((Position::new(segment, offset), buf))
    }

    async fn write_durably(&self, file: &File, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        let len = buf.len();
        let (written, buf) = file.write_at(buf, offset).await;
        let written = written?;
        if written != len {
            // The rest may or may not be there: nothing about this frame is known any more.
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("journal write at byte {offset} was short: {written} of {len} bytes"),
            ));
        }
        if self.mode == OpenMode::Buffered {
            file.sync_data().await?;
        }
        Ok(buf)
    }

    /// Seals the segment in use and takes the next one. False if there is none.
    async fn roll(&self) -> io::Result<bool> {
        let spare = match self.ready.borrow_mut().pop_front() {
            Some(spare) => spare,
            None => match self.spares.try_recv() {
                Ok(spare) => spare,
                Err(_) => return Ok(false),
            },
        };
        self.rolling.set(true);
        self.write_empty(FrameKind::Seal).await?;
        let file = Rc::new(File::from_std(spare.file)?);
        let mut salt = Salt::default();
        random(&mut salt)?;
        let (last_segment, last_end) = {
            let active = self.active.borrow();
            if active.file.is_some() { (active.segment, active.offset) } else { self.previous.get() }
        };
        let mut buf = self.pool.get();
        SegmentHeader {
            journal: self.id,
            salt,
            number: spare.number,
            base_lsn: self.next_lsn.get(),
            first_frame: self.next_frame.get(),
            previous: self.chain.get(),
            previous_segment: last_segment,
            previous_end: last_end,
            created_at: unix_ns(),
        }
        .encode(&mut buf);
        let buf = self.write_durably(&file, buf, 0).await?;
        self.pool.put(buf);
        self.previous.set((last_segment, last_end));
        *self.active.borrow_mut() =
            Active { file: Some(file), segment: spare.number, salt, offset: FIRST_FRAME };
        self.rolling.set(false);
        self.keep_ahead();
        Ok(true)
    }
}

impl Pending {
    fn new(mut buf: AlignedBuf) -> Self {
        buf.set_len(HEADER);
        Self { buf, entries: Vec::new(), records: 0, oldest: None, waiters: Vec::new() }
    }
}

/// Upper bound of the bytes that these marks take in a frame.
fn marks_len(marks: &[Mark]) -> usize {
    record::entry_len(0, 16 * (marks.len() + 1))
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

/// Resolves when the webhook is durable and handed over. Dropping it changes nothing: the webhook stays.
pub struct Ticket {
    journal: Rc<Journal>,
    batch: u64,
}

impl Future for Ticket {
    type Output = Result<(), Poisoned>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let journal = &self.journal;
        if journal.done.get() > self.batch {
            return Poll::Ready(Ok(()));
        }
        if journal.poisoned.get() {
            return Poll::Ready(Err(Poisoned));
        }
        let waker = cx.waker().clone();
        if self.batch == journal.filling.get() {
            journal.pending.borrow_mut().waiters.push(waker);
        } else {
            journal.flying.borrow_mut().push(waker);
        }
        Poll::Pending
    }
}
