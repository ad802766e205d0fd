//! Segments made ahead, so that a commit never waits for the file system.
//!
//! Writing into space that was only reserved costs three writes and two flushes, into space that
//! holds zeros one of each. So a segment is filled with zeros, synced, renamed to its final name and
//! its folder synced before a core may use it. One thread does this for all journals; it waits for
//! space when there is none and tries again. It frees, too ([`super::free`]): what is free is used again
//! before anything is made, which halves what the disk has to write.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::fcntl::OFlag;

use super::account::Wrote;
use super::buffer::AlignedBuf;
use super::disk::Local;
use super::free::{FreeError, Freeing, Round};
use crate::fault;
use crate::metrics::render::ProcessCells;

/// Segments kept ready per journal: one to roll into at once, one being made meanwhile, and one that
/// only takes marks.
pub const AHEAD: usize = 3;
/// Space that stays free beside the segment to be made, at least, and by the segment's size: for the folder's own
/// growth, and for the lists and floors without which nothing can be freed.
const MARGIN: u64 = 1024 * 1024;
const MARGIN_SHARE: u64 = 16;
/// Pause after something failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked at what may go. Nothing waits for it unless space is short, and then there
/// is an order.
const LOOK: Duration = Duration::from_millis(250);

/// How segment files are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// `O_DIRECT|O_DSYNC`: a write that completes is durable.
    Direct,
    /// Page cache, then `fdatasync`: file systems without direct I/O.
    Buffered,
    /// Page cache only: `journal.sync = false`.
    Unsynced,
}

/// A segment that holds zeros and waits for its header.
#[derive(Debug)]
pub struct Spare<F = File> {
    pub number: u64,
    pub file: F,
}

/// An order for a segment.
#[derive(Debug)]
pub struct Order<F = File> {
    pub dir: PathBuf,
    pub number: u64,
    pub bytes: u64,
    pub mode: OpenMode,
    pub reply: Sender<Spare<F>>,
}

pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

/// Opens a segment file for writing.
pub fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    let flags = match mode {
        OpenMode::Direct => OFlag::O_DIRECT | OFlag::O_DSYNC,
        OpenMode::Buffered | OpenMode::Unsynced => OFlag::empty(),
    };
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)
}

/// Whether there is no space: on the disk, or for this user.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes a segment: zeros, durable under its final name.
pub fn make(dir: &Path, number: u64, bytes: u64, mode: OpenMode) -> io::Result<Spare> {
    let free = nix::sys::statvfs::statvfs(dir)?;
    if free.blocks_available() as u64 * free.fragment_size() as u64
        <= bytes + MARGIN.max(bytes / MARGIN_SHARE)
    {
        return Err(io::Error::from(io::ErrorKind::StorageFull));
    }
    let temporary = dir.join(format!("{number:010}.tmp"));
    let path = segment_path(dir, number);
    let written = fill(&temporary, bytes, mode);
    if let Err(error) = written {
        // What was written so far is needed by somebody else now.
        std::fs::remove_file(&temporary).ok();
        return Err(error);
    }
    fault::point("spare-synced");
    std::fs::rename(&temporary, &path)?;
    fault::point("spare-renamed");
    sync_dir(dir)?;
    fault::point("spare-ready");
    Ok(Spare { number, file: open(&path, mode)? })
}

fn fill(path: &Path, bytes: u64, mode: OpenMode) -> io::Result<()> {
    // Direct where possible: the zeros would only push better things out of the page cache.
    let flags = if mode == OpenMode::Direct { OFlag::O_DIRECT } else { OFlag::empty() };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags.bits()).open(path)?;
    fault::io("spare-made")?;
    let mut zeros = AlignedBuf::with_capacity(1024 * 1024);
    zeros.set_len(1024 * 1024);
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros.as_slice()[..part])?;
        left -= part as u64;
    }
    fault::io("spare-zeroed")?;
    file.sync_all()
}

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The thread that makes spares and frees what is settled. Takes the orders in their order; one that
/// finds no room waits for a segment that can be used again, or for space.
pub struct Maker {
    pub orders: Receiver<Order>,
    /// Every frame that became durable, of all journals.
    pub wrote: Receiver<Wrote>,
    pub freeing: Freeing<Local>,
    pub cells: Arc<ProcessCells>,
}

impl Maker {
    /// Until nobody orders any more: the process is ending.
    pub fn run(mut self) {
        let mut waiting = VecDeque::new();
        let (mut short, mut more, mut failed) = (false, false, Pause::default());
        loop {
            match self.orders.recv_timeout(if more { Duration::ZERO } else { LOOK }) {
                Ok(order) => waiting.push_back(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            waiting.extend(self.orders.try_iter());
            more = self.free(short, &mut failed);
            while let Some(order) = waiting.front() {
                match self.fill(order) {
                    Ok(spare) => {
                        short = false;
                        // The journal is gone: the process is ending.
                        order.reply.send(spare).ok();
                        waiting.pop_front();
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut short, true) {
                            tracing::error!(
                                dir = %order.dir.display(), bytes = order.bytes, %error,
                                "no room for a journal segment; new webhooks are answered 503 until there is"
                            );
                        }
                        break;
                    }
                }
                more = self.free(short, &mut failed);
            }
        }
    }

    /// True if the next round should come soon.
    fn free(&mut self, short: bool, failed: &mut Pause) -> bool {
        for wrote in self.wrote.try_iter() {
            self.freeing.wrote(&wrote);
        }
        let mut more = false;
        if failed.over() {
            match self.freeing.round(short) {
                Ok(round) => {
                    failed.ended();
                    more = round == Round::Partly;
                }
                Err(error) => failed.begin(&error),
            }
        }
        let freed = self.freeing.freed();
        self.cells.segments_removed.set(freed.removed);
        self.cells.segments_reused.set(freed.reused);
        self.cells.thin_segments.set(freed.thin);
        more
    }

    fn fill(&mut self, order: &Order) -> io::Result<Spare> {
        match self.freeing.reuse(&order.dir, order.number, order.bytes) {
            Ok(true) => {
                let file = open(&segment_path(&order.dir, order.number), order.mode)?;
                return Ok(Spare { number: order.number, file });
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "a free segment cannot be used again"),
        }
        make(&order.dir, order.number, order.bytes, order.mode)
    }
}

/// A pause after a failure, which is told once as long as it lasts.
#[derive(Default)]
struct Pause {
    until: Option<Instant>,
    told: bool,
}

impl Pause {
    fn over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    fn begin(&mut self, error: &FreeError) {
        self.until = Some(Instant::now() + RETRY);
        if !std::mem::replace(&mut self.told, true) {
            tracing::error!(%error, "cannot free what is settled; trying again, and the journal grows meanwhile");
        }
    }

    fn ended(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_is_zeros_under_its_final_name() {
        let dir = tempfile::tempdir().unwrap();
        let spare = make(dir.path(), 3, 1024 * 1024, OpenMode::Buffered).unwrap();
        assert_eq!(spare.number, 3);
        let bytes = std::fs::read(segment_path(dir.path(), 3)).unwrap();
        assert_eq!(bytes.len(), 1024 * 1024);
        assert!(bytes.iter().all(|b| *b == 0));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
