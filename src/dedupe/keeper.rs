//! The thread that writes the key log of one forwarding core, and lets go on what waits for it.
//!
//! A batch comes with something that may only happen once its keys are durable (the marks of the parcels
//! they were in), so that a parcel that is settled for good has its keys on disk, and one whose mark was
//! lost finds its own keys at the next start. A batch is one block and one sync; batches that came
//! meanwhile are one block together.
//!
//! A file is closed after an hour or 64 MiB and deleted when no key in it is needed any more. Space is
//! made ahead by writing zeros: a sync then has no size to write, and a full disk does not stop those
//! who drain it at once. When there is no space at all, everything waits; any other error ends the process, as it
//! does in the journal: what a failed sync left behind is not known.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::folder::{Closed, Folder, remove};
use super::log::{self, PIECE};
use crate::fault;
use crate::metrics::ForwardCells;

/// Batches that may wait for the disk; then they wait with the core.
const QUEUE: usize = 64;
/// A file is closed at this size,
const FILE_BYTES: u64 = 64 << 20;
/// or after so many minutes, so that it can be deleted when its time comes.
const FILE_MINUTES: u32 = 60;
/// Zeros written ahead at a time: 8,192 records.
const AHEAD: usize = 256 << 10;
/// Records of one block.
const BLOCK_RECORDS: usize = 64 << 10;
/// Pause before what could not go on is tried again.
const AGAIN: Duration = Duration::from_millis(10);
/// Pause when the disk is full.
const FULL: Duration = Duration::from_millis(500);
/// How often files are looked at that may be old enough.
const LOOK: Duration = Duration::from_secs(10);

/// What a core's clock shows, in minutes that the gateway ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Clock {
    pub minute: u32,
    /// Keys of before are not needed any more.
    pub oldest: u32,
}

/// Keys, as [`log::push`] writes them, and what waits for them to be durable.
#[derive(Debug)]
pub struct Batch<M> {
    pub records: Vec<u8>,
    pub then: M,
}

/// The thread, as its core sees it.
#[derive(Debug)]
pub struct Keeper<M> {
    batches: Sender<Batch<M>>,
    sent: u64,
    done: Arc<AtomicU64>,
    clock: Arc<AtomicClock>,
}

#[derive(Debug, Default)]
struct AtomicClock {
    minute: AtomicU32,
    oldest: AtomicU32,
}

/// What the thread is started with.
pub struct Start<M> {
    /// Number of the core.
    pub core: usize,
    pub folder: Folder,
    /// Files of earlier processes.
    pub inherited: Vec<Closed>,
    /// Minute of the clock.
    pub now: u32,
    pub cells: Arc<ForwardCells>,
    /// Goes on with what has waited; false while that is not possible.
    pub go_on: Box<dyn FnMut(&mut M) -> bool + Send>,
    /// The log could not be written.
    pub failed: Box<dyn FnOnce(io::Error) + Send>,
}

impl<M> Keeper<M> {
    /// A core's end and the other, for whoever writes the log. `now` is the clock's minute.
    pub fn pair(now: u32) -> (Self, Inbox<M>) {
        let (give, take) = crossbeam_channel::bounded(QUEUE);
        let done = Arc::new(AtomicU64::new(0));
        let clock = Arc::new(AtomicClock { minute: AtomicU32::new(now), oldest: AtomicU32::new(0) });
        let keeper = Self { batches: give, sent: 0, done: Arc::clone(&done), clock: Arc::clone(&clock) };
        (keeper, Inbox { batches: take, unwritten: Vec::new(), waiting: VecDeque::new(), done, clock })
    }

    /// Hands a batch over; gives it back if too many wait.
    pub fn keep(&mut self, batch: Batch<M>) -> Result<(), Batch<M>> {
        match self.batches.try_send(batch) {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) => Err(batch),
        }
    }

    /// True if everything that was handed over is durable and has gone on.
    pub fn idle(&self) -> bool {
        self.done.load(SeqCst) == self.sent
    }

    /// What the clock shows now.
    pub fn tell(&self, clock: Clock) {
        self.clock.minute.store(clock.minute, SeqCst);
        self.clock.oldest.store(clock.oldest, SeqCst);
    }
}

impl<M: Send + 'static> Keeper<M> {
    pub fn start(start: Start<M>) -> io::Result<Self> {
        let (keeper, inbox) = Self::pair(start.now);
        let Start { core, folder, inherited, cells, go_on, failed, .. } = start;
        if core == 0 {
            for closed in &inherited {
                if let Err(error) = closed.trim() {
                    tracing::warn!(file = %closed.path.display(), %error, "cannot give back what this key log does not use");
                }
            }
        }
        let log = Log {
            counts_inherited: core == 0,
            folder,
            inherited,
            open: None,
            closed: Vec::new(),
            full: false,
            cells,
        };
        let mut work = Work { inbox, log, go_on };
        std::thread::Builder::new().name(format!("keys-{core}")).spawn(move || {
            match catch_unwind(AssertUnwindSafe(|| work.run())) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failed(error),
                Err(_) => {
                    tracing::error!(core, "the key log's thread panicked; ending the process");
                    std::process::abort();
                }
            }
        })?;
        Ok(keeper)
    }
}

/// What came from a core: its keys wait to be written, then what came with them waits to go on.
#[derive(Debug)]
pub struct Inbox<M> {
    batches: Receiver<Batch<M>>,
    /// Batches whose keys are not durable.
    unwritten: Vec<Batch<M>>,
    /// What may go on and could not yet.
    waiting: VecDeque<M>,
    done: Arc<AtomicU64>,
    clock: Arc<AtomicClock>,
}

impl<M> Inbox<M> {
    /// Takes what came. True if something is to be written, or to go on.
    pub fn take(&mut self) -> bool {
        self.unwritten.extend(self.batches.try_iter().take(QUEUE));
        !self.unwritten.is_empty() || !self.waiting.is_empty()
    }

    /// What the clock shows.
    pub fn clock(&self) -> Clock {
        Clock { minute: self.clock.minute.load(SeqCst), oldest: self.clock.oldest.load(SeqCst) }
    }

    /// The keys that are to be written, in blocks.
    pub fn blocks(&self) -> Vec<u8> {
        blocks(self.unwritten.iter().map(|batch| batch.records.as_slice()))
    }

    /// They are durable.
    pub fn written(&mut self) {
        self.waiting.extend(self.unwritten.drain(..).map(|batch| batch.then));
    }

    /// Lets go on what has waited, as far as that is possible.
    pub fn go_on(&mut self, mut go_on: impl FnMut(&mut M) -> bool) {
        if fault::planted("mark-before-keys") {
            for batch in &mut self.unwritten {
                go_on(&mut batch.then);
            }
        }
        while let Some(next) = self.waiting.front_mut()
            && go_on(next)
        {
            self.waiting.pop_front();
            self.done.fetch_add(1, SeqCst);
        }
    }
}

struct Work<M> {
    inbox: Inbox<M>,
    log: Log,
    go_on: Box<dyn FnMut(&mut M) -> bool + Send>,
}

impl<M> Work<M> {
    /// Until the core is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let pause = match (self.log.full, self.inbox.waiting.is_empty()) {
                (true, _) => FULL,
                (false, false) => AGAIN,
                (false, true) => LOOK,
            };
            if self.log.full {
                // Not from the channel: what comes meanwhile is to wait with the core.
                crossbeam_channel::after(pause).recv().ok();
            } else {
                match self.inbox.batches.recv_timeout(pause) {
                    Ok(batch) => self.inbox.unwritten.push(batch),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                self.inbox.take();
            }
            let Clock { minute, oldest } = self.inbox.clock();
            if fault::planted("mark-before-keys") {
                self.inbox.go_on(&mut self.go_on);
            }
            if self.log.append(&self.inbox.blocks(), minute)? {
                self.inbox.written();
            }
            self.inbox.go_on(&mut self.go_on);
            self.log.delete_old(oldest);
        }
    }
}

/// The files of one core.
struct Log {
    folder: Folder,
    open: Option<Open>,
    closed: Vec<Closed>,
    /// Files of earlier processes: they go when no core needs them.
    inherited: Vec<Closed>,
    /// Of one core only, since all have the same.
    counts_inherited: bool,
    /// There is no space.
    full: bool,
    cells: Arc<ForwardCells>,
}

struct Open {
    path: PathBuf,
    file: File,
    /// Where the next block goes.
    end: u64,
    /// Up to where zeros were written.
    ahead: u64,
    since: u32,
    newest: u32,
}

impl Log {
    /// Makes records durable; false if there is no space.
    fn append(&mut self, bytes: &[u8], minute: u32) -> io::Result<bool> {
        if bytes.is_empty() {
            self.has_space(true);
            return Ok(true);
        }
        match self.write(bytes, minute) {
            Ok(()) => {
                self.has_space(true);
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                self.has_space(false);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn has_space(&mut self, yes: bool) {
        match (yes, std::mem::replace(&mut self.full, !yes)) {
            (false, false) => tracing::error!(
                "no space for the key log: parcels are delivered but stay unsettled until there is"
            ),
            (true, true) => tracing::info!("the key log has space again"),
            _ => {}
        }
    }

    fn write(&mut self, bytes: &[u8], minute: u32) -> io::Result<()> {
        let over = |open: &Open| open.end >= FILE_BYTES || minute.saturating_sub(open.since) >= FILE_MINUTES;
        if self.open.as_ref().is_some_and(over) {
            self.close()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open::create(&self.folder, minute)?),
        };
        open.make_room(bytes.len() as u64)?;
        fault::io("keys-write")?;
        open.file.write_all_at(bytes, open.end)?;
        let sync = || fault::io("keys-written").and_then(|()| open.file.sync_data());
        if self.folder.sync && !fault::planted("keys-not-synced") {
            sync().or_else(|error| if fault::planted("sync-tried-again") { sync() } else { Err(error) })?;
        }
        fault::point("keys-synced");
        open.end += bytes.len() as u64;
        open.newest = minute;
        self.count();
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if let Some(Open { path, file, end, newest, .. }) = self.open.take() {
            file.set_len(end)?;
            self.closed.push(Closed { path, bytes: end, newest });
        }
        Ok(())
    }

    fn delete_old(&mut self, oldest: u32) {
        let old = |closed: &Closed| closed.newest < oldest;
        if !self.closed.iter().chain(&self.inherited).any(old) {
            return;
        }
        let folder = &self.folder;
        // One that cannot go is tried again.
        self.closed.retain(|closed| !(old(closed) && remove(&closed.path).is_ok()));
        self.inherited.retain(|closed| !(old(closed) && folder.let_go(&closed.path).is_ok()));
        self.count();
    }

    fn count(&self) {
        let inherited = self.inherited.iter().filter(|_| self.counts_inherited);
        let closed: u64 = self.closed.iter().chain(inherited).map(|closed| closed.bytes).sum();
        self.cells.key_log_bytes.set(closed + self.open.as_ref().map_or(0, |open| open.ahead));
    }
}

fn blocks<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Each block's head is known when its records are together.
    let mut from = 0;
    for record in parts.flat_map(|records| records.chunks_exact(PIECE)) {
        if bytes.len() - from == BLOCK_RECORDS * PIECE + PIECE {
            close_block(&mut bytes, from);
            from = bytes.len();
        }
        if bytes.len() == from {
            bytes.extend_from_slice(&[0; PIECE]);
        }
        bytes.extend_from_slice(record);
    }
    if !bytes.is_empty() {
        close_block(&mut bytes, from);
    }
    bytes
}

fn close_block(bytes: &mut [u8], from: usize) {
    if let Some((head, records)) = bytes.get_mut(from..).and_then(|block| block.split_at_mut_checked(PIECE)) {
        head.copy_from_slice(&log::block(records));
    }
}

impl Open {
    fn create(folder: &Folder, minute: u32) -> io::Result<Self> {
        let (path, file) = folder.create()?;
        let mut open = Self { path, file, end: PIECE as u64, ahead: 0, since: minute, newest: minute };
        let made = open.make_room(1).and_then(|()| open.file.write_all_at(&log::header(), 0));
        let made = made.and_then(|()| if folder.sync { open.file.sync_all() } else { Ok(()) });
        fault::point("keys-file-made");
        if let Err(error) = made.and_then(|()| folder.sync_names()) {
            // Without a header it holds nothing; one that stays is read as empty.
            fs::remove_file(&open.path).ok();
            return Err(error);
        }
        Ok(open)
    }

    /// Writes zeros until `more` bytes fit.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; AHEAD];
        while self.ahead < self.end + more {
            self.file.write_all_at(ZEROS, self.ahead)?;
            self.ahead += ZEROS.len() as u64;
        }
        Ok(())
    }
}
