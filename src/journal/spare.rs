//! Segments made ahead, so that a commit never waits for the file system.
//!
//! Writing into space that was only reserved costs three writes and two flushes, into space that
//! holds zeros one of each. So a segment is filled with zeros, synced, renamed to its final name and
//! its folder synced before a core may use it. One thread does this for all journals; it waits for
//! space when there is none and tries again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::fcntl::OFlag;

use super::buffer::AlignedBuf;

/// Segments kept ready per journal: one to roll into at once, one being made meanwhile.
pub const AHEAD: usize = 2;
/// Space that stays free beside the segment to be made, for the folder's own growth.
const MARGIN: u64 = 1024 * 1024;
const RETRY: Duration = Duration::from_secs(1);

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
pub struct Spare {
    pub number: u64,
    pub file: File,
}

/// An order for a segment.
#[derive(Debug)]
pub struct Order {
    pub dir: PathBuf,
    pub number: u64,
    pub bytes: u64,
    pub mode: OpenMode,
    pub reply: Sender<Spare>,
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

/// Makes a segment: zeros, durable under its final name.
pub fn make(dir: &Path, number: u64, bytes: u64, mode: OpenMode) -> io::Result<Spare> {
    let free = nix::sys::statvfs::statvfs(dir)?;
    if free.blocks_available() as u64 * free.fragment_size() as u64 <= bytes + MARGIN {
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
    std::fs::rename(&temporary, &path)?;
    sync_dir(dir)?;
    Ok(Spare { number, file: open(&path, mode)? })
}

fn fill(path: &Path, bytes: u64, mode: OpenMode) -> io::Result<()> {
    // Direct where possible: the zeros would only push better things out of the page cache.
    let flags = if mode == OpenMode::Direct { OFlag::O_DIRECT } else { OFlag::empty() };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags.bits()).open(path)?;
    let mut zeros = AlignedBuf::with_capacity(1024 * 1024);
    zeros.set_len(1024 * 1024);
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64) as usize;
        file.write_all(&zeros.as_slice()[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The thread that makes spares, in the order of the orders. `short` is true while it waits for space.
pub fn run(orders: &Receiver<Order>, short: &Arc<AtomicBool>) {
    while let Ok(order) = orders.recv() {
        loop {
            match make(&order.dir, order.number, order.bytes, order.mode) {
                Ok(spare) => {
                    short.store(false, Relaxed);
                    // The journal is gone: the process is ending.
                    order.reply.send(spare).ok();
                    break;
                }
                Err(error) => {
                    if !short.swap(true, Relaxed) {
                        tracing::error!(
                            dir = %order.dir.display(), bytes = order.bytes, %error,
                            "no room for a journal segment; new webhooks are answered 503 until there is"
                        );
                    }
                    #[allow(clippy::disallowed_methods)] // This thread has nothing else to do.
                    std::thread::sleep(RETRY);
                }
            }
        }
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
