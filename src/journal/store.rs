//! The data folder at start: one owner, all journals found, recovered and made ready to go on.
//!
//! ```text
//! <data_dir>/lock                      held while the process lives
//! <data_dir>/clean                     the last process left nothing under way; taken away at start
//! <data_dir>/journal/<id>/N.seg        segments; all zeros = made ahead; N.tmp = unfinished, removed
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::buffer::{AlignedBuf, BLOCK};
use super::frame::JournalId;
use super::marks::SettledSet;
use super::record::Record;
use super::recover::{self, Lost, Part, RecoverError, Recovered};
use super::spare::{OpenMode, Spare, make, open, segment_path, sync_dir};
use super::{JournalIndex, Position};

const CLEAN: &str = "clean";
/// After a kill the ring may hold the old process's files for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("data folder {} is in use by another process; stop it, or give this one a folder of its own", .0.display())]
    InUse(PathBuf),
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("journal {}: {source}", path.display())]
    Recover { path: PathBuf, source: RecoverError },
    #[error(
        "journal {}: records {first} to {last} were durable and are damaged (segment {segment}, byte {at}); \
         journal.on_damage = \"halt\" refuses to start: restore the file, or set \"continue\" to go on without them",
        path.display()
    )]
    Damaged { path: PathBuf, first: u64, last: u64, segment: u64, at: u64 },
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}

/// What the configuration says about journals.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub data_dir: PathBuf,
    pub segment_bytes: u64,
    pub sync: bool,
    pub halt_on_damage: bool,
}

/// The data folder, owned.
#[derive(Debug)]
pub struct Store {
    pub journals: Vec<FoundJournal>,
    /// How segments are opened in this folder.
    pub mode: OpenMode,
    /// Highest sequence number found.
    pub max_seq: u64,
    /// The process before this one left nothing under way: no parcel was delivered without its mark.
    pub clean: bool,
    data_dir: PathBuf,
    _lock: Flock<File>,
}

/// A journal as recovery left it.
#[derive(Debug)]
pub struct FoundJournal {
    pub id: JournalId,
    pub dir: PathBuf,
    pub recovered: Recovered,
    /// Parcels that are settled, by any journal's marks.
    pub settled: SettledSet,
    /// Damage reported for the first time.
    pub new_damage: Vec<Lost>,
}

impl FoundJournal {
    /// Position after the last record.
    pub fn end(&self) -> Position {
        self.recovered.spans.last().map_or(Position::default(), |s| Position::new(s.segment, s.end))
    }

    /// Segments to go on in: those made ahead that fit, or a new one.
    pub fn spares(&self, bytes: u64, mode: OpenMode) -> Result<Vec<Spare>, StoreError> {
        let used = self.recovered.spans.last().map_or(0, |s| s.segment);
        let mut spares = Vec::new();
        for &number in &self.recovered.spares {
            let path = segment_path(&self.dir, number);
            let len = std::fs::metadata(&path).map_err(io_error("look at segment", &path))?.len();
            if number > used && len == bytes {
                let file = open(&path, mode).map_err(io_error("open segment", &path))?;
                spares.push(Spare { number, file });
            } else {
                // Made for another configured size, or passed over after a damage.
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        if spares.is_empty() {
            let number = used.max(self.recovered.void.last().copied().unwrap_or(0)) + 1;
            spares.push(
                make(&self.dir, number, bytes, mode).map_err(io_error("make a segment in", &self.dir))?,
            );
        }
        Ok(spares)
    }
}

/// An entry seen while recovering, for whoever counts the backlog.
pub type Visit<'a> = dyn FnMut(JournalIndex, u64, &Record<'_>) + 'a;

/// Takes the data folder, recovers every journal in it and makes sure that there are at least
/// `cores` of them. `visit` sees every entry and every mark that settles something for the first time.
pub fn open_store(options: &StoreOptions, cores: usize, visit: &mut Visit<'_>) -> Result<Store, StoreError> {
    let root = options.data_dir.join("journal");
    std::fs::create_dir_all(&root).map_err(io_error("make folder", &root))?;
    let lock = lock(&options.data_dir)?;
    let mode = probe(&options.data_dir, options.sync)
        .map_err(io_error("write a test file in", &options.data_dir))?;
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(&root).map_err(io_error("list folder", &root))? {
        let path = entry.map_err(io_error("list folder", &root))?.path();
        if let Some(id) = path.file_name().and_then(|n| n.to_str()).and_then(parse_id) {
            dirs.push((id, path));
        }
    }
    dirs.sort();
    let mut journals = Vec::new();
    let mut max_seq = 0;
    let mut marks: HashMap<JournalId, SettledSet> = HashMap::new();
    for (index, (id, dir)) in dirs.into_iter().enumerate() {
        let journal = recover_one(id, dir, &mut |lsn, record| {
            match record {
                Record::Entry(entry) => max_seq = max_seq.max(entry.seq),
                Record::Marks(found) => {
                    let set = marks.entry(found.journal).or_default();
                    for mark in found.iter() {
                        set.insert(mark.lsn, mark.slot);
                    }
                }
                Record::Gap { .. } => {}
            }
            visit(index, lsn, record);
        })?;
        for lost in &journal.new_damage {
            let (first, last) = (lost.first_lsn, lost.last_lsn);
            if last < first {
                tracing::warn!(
                    journal = %hex(&journal.id), segment = lost.segment, at = lost.at, fault = %lost.fault,
                    "damaged journal: no record is lost"
                );
                continue;
            }
            tracing::error!(
                journal = %hex(&journal.id), segment = lost.segment, at = lost.at, first, last, fault = %lost.fault,
                "damaged journal: these records were durable and are lost"
            );
            if options.halt_on_damage {
                let path = journal.dir.clone();
                return Err(StoreError::Damaged { path, first, last, segment: lost.segment, at: lost.at });
            }
        }
        journals.push(journal);
    }
    for journal in &mut journals {
        journal.settled = marks.remove(&journal.id).unwrap_or_default();
        // Marks may stand in another journal than the entries they settle. If those entries are gone,
        // their numbers must not be given to new ones, which would count as settled.
        journal.recovered.next_lsn = journal.recovered.next_lsn.max(journal.settled.end());
    }
    while journals.len() < cores {
        journals.push(new_journal(&root)?);
    }
    let clean = take_clean_mark(&options.data_dir)?;
    Ok(Store { journals, mode, max_seq, clean, data_dir: options.data_dir.clone(), _lock: lock })
}

impl Store {
    /// Call at the very end of a stop that left nothing under way.
    pub fn leave_clean(&self) -> io::Result<()> {
        File::create(self.data_dir.join(CLEAN))?.sync_all()?;
        sync_dir(&self.data_dir)
    }
}

/// Whether the mark was there. It is durably gone afterwards: whoever is killed leaves none.
fn take_clean_mark(data_dir: &Path) -> Result<bool, StoreError> {
    let path = data_dir.join(CLEAN);
    match std::fs::remove_file(&path) {
        Ok(()) => sync_dir(data_dir).map(|()| true).map_err(io_error("sync folder", data_dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("remove", &path)(error)),
    }
}

fn lock(data_dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = data_dir.join("lock");
    let start = Instant::now();
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err(_) if start.elapsed() < LOCK_PATIENCE => {
                #[allow(clippy::disallowed_methods)] // Before any core runs.
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(_) => return Err(StoreError::InUse(data_dir.to_owned())),
        }
    }
}

/// Finds out how this file system can be written.
fn probe(data_dir: &Path, sync: bool) -> io::Result<OpenMode> {
    if !sync {
        return Ok(OpenMode::Unsynced);
    }
    let path = data_dir.join("probe.tmp");
    let direct = (|| {
        let flags = OFlag::O_DIRECT | OFlag::O_DSYNC;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags.bits())
            .open(&path)?;
        let mut block = AlignedBuf::with_capacity(BLOCK);
        block.set_len(BLOCK);
        file.write_all_at(block.as_slice(), 0)
    })();
    std::fs::remove_file(&path).ok();
    match direct {
        Ok(()) => Ok(OpenMode::Direct),
        // EINVAL: no direct I/O here.
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINVAL as i32) => {
            tracing::warn!(
                folder = %data_dir.display(),
                "this file system has no direct I/O; the journal goes through the page cache and fdatasync, which is \
                 slower and only as honest as the file system; use ext4 or xfs on a local disk"
            );
            Ok(OpenMode::Buffered)
        }
        // Full: segments are refused one by one later, with the right answer.
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(OpenMode::Direct),
        Err(error) => Err(error),
    }
}

fn recover_one(
    id: JournalId,
    dir: PathBuf,
    visit: &mut dyn FnMut(u64, &Record<'_>),
) -> Result<FoundJournal, StoreError> {
    // Nothing may be decided from what is only in the page cache.
    sync_dir(&dir).map_err(io_error("sync folder", &dir))?;
    let mut reported = Vec::new();
    let recovered = recover::recover(
        &segment_numbers(&dir, true)?,
        |number, part| load(&dir, number, part),
        |_, lsn, record| {
            if let Record::Gap { first_lsn, last_lsn, .. } = record {
                reported.push((*first_lsn, *last_lsn));
            }
            visit(lsn, record);
        },
    )
    .map_err(|source| StoreError::Recover { path: dir.clone(), source })?;
    let new_damage =
        recovered.lost.iter().filter(|l| !reported.contains(&(l.first_lsn, l.last_lsn))).cloned().collect();
    for &number in &recovered.void {
        let path = segment_path(&dir, number);
        std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
    }
    if let Some((segment, at)) = recovered.torn {
        tracing::warn!(journal = %hex(&id), segment, at, "the last write was not finished; nothing in it was acknowledged");
    }
    Ok(FoundJournal { id, dir, recovered, settled: SettledSet::default(), new_damage })
}

/// Segment files of a journal, ascending. `clean` removes what an unfinished creation left.
pub fn segment_numbers(dir: &Path, clean: bool) -> Result<Vec<u64>, StoreError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error("list folder", dir))? {
        let path = entry.map_err(io_error("list folder", dir))?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("seg") => {
                let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
                numbers.extend(number);
            }
            Some("tmp") if clean => std::fs::remove_file(&path).map_err(io_error("remove", &path))?,
            _ => {}
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads a segment file.
pub fn load(dir: &Path, number: u64, part: Part) -> io::Result<Vec<u8>> {
    let file = File::open(segment_path(dir, number))?;
    // What is read must be what is on disk: a page that was written but never synced must not be
    // taken for durable now and be gone after the next power cut.
    file.sync_all()?;
    let len = file.metadata()?.len() as usize;
    let mut bytes = vec![0; if part == Part::Header { len.min(2 * BLOCK) } else { len }];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn new_journal(root: &Path) -> Result<FoundJournal, StoreError> {
    let mut id = JournalId::default();
    random(&mut id).map_err(io_error("draw a journal id for", root))?;
    let dir = root.join(hex(&id));
    std::fs::create_dir(&dir).map_err(io_error("make folder", &dir))?;
    sync_dir(root).map_err(io_error("sync folder", root))?;
    let recovered = Recovered { journal: Some(id), next_frame: 1, next_lsn: 1, ..Recovered::default() };
    Ok(FoundJournal { id, dir, recovered, settled: SettledSet::default(), new_damage: Vec::new() })
}

pub(super) fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
}

/// A journal's id as its folder is named.
pub fn hex(id: &JournalId) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn parse_id(name: &str) -> Option<JournalId> {
    let mut id = JournalId::default();
    if name.len() != 32 || !name.is_ascii() {
        return None;
    }
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(id)
}
