//! `<data_dir>/keys`: the files of the key log, and what they tell at a start.
//!
//! A file belongs to one forwarding core of one process; a start reads all of them, whatever the number of
//! cores was, and writes new ones. Each core takes the keys of its own regions, and a file of an earlier process goes
//! when no core needs it any more. Beside them `memory` says what they cannot (`memory`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use super::log::{self, PIECE};
use super::memory::Memory;
use super::seen::Seen;
use crate::fault;

#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Newer { path: PathBuf, source: log::Newer },
}

/// The folder, with the files that were there at the start. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
    files: Arc<Vec<Inherited>>,
    memory: Option<Memory>,
    next: Arc<AtomicU64>,
    /// False: nothing is synced.
    pub sync: bool,
    /// Makes the names in a folder durable. A test has a stricter disk than the machine.
    pub(super) sync_dir: fn(&Path) -> io::Result<()>,
}

/// A file of an earlier process.
#[derive(Debug)]
struct Inherited {
    path: PathBuf,
    /// Cores that need it.
    needed: AtomicUsize,
}

/// A file that nobody writes any more.
#[derive(Debug)]
pub struct Closed {
    pub path: PathBuf,
    /// Up to where something is written; there may be zeros behind it.
    pub bytes: u64,
    /// Minute of its newest record.
    pub newest: u32,
}

impl Closed {
    /// Gives the zeros behind its end back to the disk: a process that was killed could not, and one that
    /// is started again and again would fill the disk with them.
    pub(super) fn trim(&self) -> io::Result<()> {
        let file = File::options().write(true).open(&self.path)?;
        if file.metadata()?.len() > self.bytes { file.set_len(self.bytes) } else { Ok(()) }
    }
}

/// What a start found.
#[derive(Debug, Default)]
pub struct Loaded {
    pub files: Vec<Closed>,
    pub records: u64,
    /// Damaged bytes: keys that are lost.
    pub damaged: u64,
    /// To be kept for the next start.
    pub memory: Memory,
}

impl Folder {
    /// Makes the folder if it is not there, for so many cores. The data folder must be this process's own.
    pub fn open(data_dir: &Path, sync: bool, cores: usize) -> Result<Self, FolderError> {
        let dir = data_dir.join("keys");
        let failed = |what| move |source| FolderError::Io { what, path: data_dir.join("keys"), source };
        fs::create_dir_all(&dir).map_err(failed("make folder"))?;
        if sync {
            File::open(data_dir)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync the folder of"))?;
        }
        let mut files: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed("list folder"))? {
            let path = entry.map_err(failed("list folder"))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(number) = name.and_then(|n| n.strip_suffix(".keys")).and_then(|n| n.parse().ok()) {
                files.push((number, path));
            }
        }
        files.sort();
        let next = files.last().map_or(1, |(number, _)| number + 1);
        let inherited = |path| Inherited { path, needed: AtomicUsize::new(cores) };
        let files = Arc::new(files.into_iter().map(|(_, path)| inherited(path)).collect());
        let memory = Memory::read(&dir).map_err(failed("read what is remembered in"))?;
        Ok(Self { dir, files, memory, next: Arc::new(AtomicU64::new(next)), sync, sync_dir })
    }

    /// Tells `seen` every key of an owned region, and sets its clock to the newest minute of all files. Until
    /// it is said what waits, all that is here is held. `expected`: there should be something.
    pub fn load(
        &self,
        seen: &mut Seen,
        owned: impl Fn(u32) -> bool,
        expected: bool,
    ) -> Result<Loaded, FolderError> {
        seen.hold(0);
        let mut loaded = Loaded::default();
        let mut newest = 0;
        // One buffer for all: each may be 64 MiB.
        let mut bytes = Vec::new();
        let mut counted = seen.expected();
        for Inherited { path, .. } in self.files.iter() {
            read(path, &mut bytes)?;
            // What is wrong with it is told when its keys are read.
            log::read(&bytes, |record| {
                if owned(record.region) {
                    counted.add(record.region, &record.key);
                }
            })
            .ok();
        }
        seen.prepare(&counted);
        for Inherited { path, .. } in self.files.iter() {
            let path = path.clone();
            read(&path, &mut bytes)?;
            let contents = log::read(&bytes, |record| {
                if owned(record.region) {
                    seen.recall(record.region, &record.key, record.value, record.minute);
                }
            });
            let contents = match contents {
                Ok(contents) => contents,
                Err(source) => return Err(FolderError::Newer { path, source }),
            };
            if contents.damaged > 0 {
                loaded.damaged += contents.damaged as u64;
                tracing::error!(
                    file = %path.display(),
                    bytes = contents.damaged,
                    "the key log is damaged: events of before may be delivered once more, and new parcels say so for dedupe.window"
                );
            }
            loaded.records += contents.records;
            newest = newest.max(contents.newest.unwrap_or(0));
            let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
            let used = (bytes.len() - zeros).next_multiple_of(PIECE);
            loaded.files.push(Closed { path, bytes: used as u64, newest: contents.newest.unwrap_or(0) });
        }
        seen.recalled();
        seen.reach(newest);
        if loaded.damaged > 0 {
            seen.lose(newest);
        }
        let memory = Memory::now(self.memory, seen.window(), newest, expected && self.files.is_empty());
        if let Some(minute) = memory.lost {
            seen.lose(minute);
        }
        loaded.memory = memory;
        Ok(loaded)
    }

    /// Keeps what a load found for the next start.
    pub fn keep(&self, memory: &Memory) -> Result<(), FolderError> {
        if self.memory.as_ref() == Some(memory) {
            return Ok(());
        }
        memory.write(&self.dir, self.sync, self.sync_dir).map_err(|source| FolderError::Io {
            what: "write to",
            path: self.dir.clone(),
            source,
        })
    }

    /// A core does not need this file of an earlier process any more: the last one removes it.
    pub(super) fn let_go(&self, path: &Path) -> io::Result<()> {
        match self.files.iter().find(|file| file.path == path) {
            Some(file) if file.needed.fetch_sub(1, SeqCst) > 1 => Ok(()),
            Some(file) => remove(path).inspect_err(|_| {
                file.needed.fetch_add(1, SeqCst);
            }),
            None => remove(path),
        }
    }

    /// A new file and its path; no two cores get the same.
    pub(super) fn create(&self) -> io::Result<(PathBuf, File)> {
        let path = self.dir.join(format!("{:08}.keys", self.next.fetch_add(1, Relaxed)));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok((path, file))
    }

    /// Makes the names of new files durable.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        if self.sync && !fault::planted("keys-folder-not-synced") {
            (self.sync_dir)(&self.dir)
        } else {
            Ok(())
        }
    }
}

/// Removes a file, if nobody has yet.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read(path: &Path, bytes: &mut Vec<u8>) -> Result<(), FolderError> {
    bytes.clear();
    let read = File::open(path).and_then(|mut file| file.read_to_end(bytes));
    read.map(|_| ()).map_err(|source| FolderError::Io { what: "read", path: path.to_owned(), source })
}
