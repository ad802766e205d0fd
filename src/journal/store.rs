//! The data folder at start: one owner, all journals found, recovered and made ready to go on.
//!
//! ```text
//! <data_dir>/lock                      held while the process lives
//! <data_dir>/aside/                    what a repair replaced (`check::repair`); nobody reads it
//! <data_dir>/clean                     the last process left nothing under way; taken away at start
//! <data_dir>/journal/<id>/             a journal (`folder`); an empty one is nobody's and goes
//! ```

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::Position;
use super::account::Start;
use super::buffer::{AlignedBuf, BLOCK};
use super::disk::{Disk, Local};
use super::floor::Floor;
use super::folder::{self, Folder, FolderError};
use super::frame::JournalId;
use super::marks::ParcelSet;
use super::record::Record;
use super::recover::{self, Lost, RecoverError, Recovered};
use super::segments::Segments;
use super::spare::{OpenMode, Spare, is_full, make, open, segment_path, sync_dir};
use crate::fault;

const CLEAN: &str = "clean";
/// After a kill the ring may hold the old process's files for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("data folder {} is in use by another process; stop it, or give this one a folder of its own", .0.display())]
    InUse(PathBuf),
    #[error("cannot {what} {}: {source}; {}", path.display(), advice(source))]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("journal {}: {source}", path.display())]
    Recover { path: PathBuf, source: RecoverError },
    #[error("journal {}: {source}", path.display())]
    Folder { path: PathBuf, source: FolderError },
    #[error(
        "journal {}: records {first} to {last} were durable and are damaged (segment {segment}, byte {at}); \
         journal.on_damage = \"halt\" refuses to start: restore the file, or set \"continue\" to go on without them",
        path.display()
    )]
    Damaged { path: PathBuf, first: u64, last: u64, segment: u64, at: u64 },
}

/// What to do about an error of the data folder.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the folder named by gateway.data_dir must belong to the user that the gateway runs as"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room on the file system of gateway.data_dir, or name another one"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount the file system of gateway.data_dir for writing; if the kernel made it read-only, see dmesg for why"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "something that is no folder has its name: move it, or name another folder as gateway.data_dir"
        }
        io::ErrorKind::NotFound => {
            "files were moved while the gateway started, or its own were: `penstock journal fsck` says which"
        }
        _ => {
            "if it stays, see dmesg for what the disk says, and `penstock doctor` for what the gateway needs"
        }
    }
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
    /// Parcels that are settled, of entries that are still there.
    pub settled: ParcelSet,
    /// Parcels that are not.
    pub open: ParcelSet,
    pub floor: Option<Floor>,
    /// Segments that have a list, and the parcels it names.
    pub listed: Vec<(u64, u64)>,
    /// Damage reported for the first time.
    pub new_damage: Vec<Lost>,
}

impl FoundJournal {
    /// Position after the last record.
    pub fn end(&self) -> Position {
        let end =
            self.recovered.spans.last().map_or(Position::default(), |s| Position::new(s.segment, s.end));
        // If all from the floor on is gone, what comes next comes behind it.
        end.max(Position::new(self.floor.as_ref().map_or(0, |floor| floor.first), 0))
    }

    /// Number of the last segment that was in use, 0 if there was none.
    pub fn last_segment(&self) -> u64 {
        let below = self.floor.as_ref().map_or(0, |floor| floor.first.saturating_sub(1));
        self.recovered.spans.last().map_or(0, |span| span.segment).max(below)
    }

    /// What freeing begins with.
    pub fn start(&self, written: bool) -> Start {
        Start {
            id: self.id,
            written,
            spans: self.recovered.spans.clone(),
            listed: self.listed.clone(),
            open: self.open.clone(),
            floor: self.floor.clone(),
            next_lsn: self.recovered.next_lsn,
            next_frame: self.recovered.next_frame,
        }
    }

    pub fn segments(&self) -> Segments {
        Segments::new(self.floor.clone().unwrap_or_default())
    }

    /// Segments to go on in: those made ahead that fit, and new ones up to two, the second for marks.
    /// Fewer on a disk that is full: it fills the orders once there is room.
    pub fn spares(&self, bytes: u64, mode: OpenMode) -> Result<Vec<Spare>, StoreError> {
        let used = self.last_segment();
        let mut last = used.max(self.recovered.void.last().copied().unwrap_or(0));
        let mut spares = Vec::new();
        for &number in &self.recovered.spares {
            let path = segment_path(&self.dir, number);
            let len = std::fs::metadata(&path).map_err(io_error("look at segment", &path))?.len();
            if number > used && len == bytes {
                let file = open(&path, mode).map_err(io_error("open segment", &path))?;
                spares.push(Spare { number, file });
                last = last.max(number);
            } else {
                // Made for another configured size, or passed over after a damage.
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        while spares.len() < 2 {
            last += 1;
            match make(&self.dir, last, bytes, mode) {
                Ok(spare) => spares.push(spare),
                Err(error) if is_full(&error) => break,
                Err(error) => return Err(io_error("make a segment in", &self.dir)(error)),
            }
        }
        fault::point("spares-found");
        Ok(spares)
    }
}

/// An entry seen while recovering, for whoever counts the backlog.
pub type Visit<'a> = dyn FnMut(Seen<'_>) + 'a;

/// What recovery hands on.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    Entry(&'a super::record::Entry<'a>),
    /// A parcel of an entry that was handed on, or will be, is settled. With the mark's tag.
    Settled(u32),
    /// A parcel of the entry that was handed on last is settled by a list.
    Listed {
        slot: u16,
    },
}

/// Takes the data folder, recovers every journal in it and makes sure that there are at least
/// `cores` of them. `visit` sees every entry that is still there, and once each of its parcels that
/// is settled.
pub fn open_store(options: &StoreOptions, cores: usize, visit: &mut Visit<'_>) -> Result<Store, StoreError> {
    let root = options.data_dir.join("journal");
    std::fs::create_dir_all(&root).map_err(io_error("make folder", &root))?;
    let lock = lock(&options.data_dir)?;
    fault::point("recover-locked");
    let mode = probe(&options.data_dir, options.sync)
        .map_err(io_error("write a test file in", &options.data_dir))?;
    // Recovery reads through the page cache: most of it is read once more soon, and it may be there.
    let disk = Local { mode: if mode == OpenMode::Direct { OpenMode::Buffered } else { mode } };
    let dirs = find(&root)?;
    let folders = Folders::look(&disk, dirs, true)?;
    fault::point("recover-cleared");
    let mut unread = false;
    for (_, dir, folder) in &folders.0 {
        for (segment, fault) in &folder.unread {
            unread = true;
            tracing::error!(
                folder = %dir.display(), segment, %fault,
                "the list of what waits in a segment cannot be read; the segment is read instead, and settled parcels \
                 in it may be sent again"
            );
        }
    }
    let (found, max_seq) = folders.recover(&disk, visit)?;
    fault::point("recovered");
    let mut journals = Vec::new();
    for journal in found {
        for &number in &journal.recovered.void {
            let path = segment_path(&journal.dir, number);
            std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        if let Some((segment, at)) = journal.recovered.torn {
            tracing::warn!(journal = %hex(&journal.id), segment, at, "the last write was not finished; nothing in it was acknowledged");
        }
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
    while journals.len() < cores {
        journals.push(new_journal(&root)?);
    }
    let clean = take_clean_mark(&options.data_dir)? && !unread;
    Ok(Store { journals, mode, max_seq, clean, data_dir: options.data_dir.clone(), _lock: lock })
}

/// The journals' folders, by id. An empty one was about to get its first segment, or to go.
fn find(root: &Path) -> Result<Vec<(JournalId, PathBuf)>, StoreError> {
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(root).map_err(io_error("list folder", root))? {
        let path = entry.map_err(io_error("list folder", root))?.path();
        if let Some(id) = path.file_name().and_then(|n| n.to_str()).and_then(parse_id)
            && std::fs::remove_dir(&path).is_err()
        {
            dirs.push((id, path));
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// All journals of a data folder before they are recovered: marks in one speak of entries in another.
pub struct Folders(pub Vec<(JournalId, PathBuf, Folder)>);

impl Folders {
    /// `clear` removes what an unfinished step left; else nothing is changed.
    pub fn look(disk: &impl Disk, dirs: Vec<(JournalId, PathBuf)>, clear: bool) -> Result<Self, StoreError> {
        let mut folders = Vec::new();
        for (id, dir) in dirs {
            if clear {
                // Nothing may be decided from what is only in the page cache.
                disk.sync_dir(&dir).map_err(io_error("sync folder", &dir))?;
            }
            let folder = Folder::look(disk, &dir, &id)
                .map_err(|source| StoreError::Folder { path: dir.clone(), source })?;
            if clear {
                folder.clear(disk, &dir).map_err(io_error("remove leftovers in", &dir))?;
            }
            folders.push((id, dir, folder));
        }
        Ok(Self(folders))
    }

    /// Recovers them all. The highest sequence number comes with them.
    pub fn recover(
        &self,
        disk: &impl Disk,
        visit: &mut Visit<'_>,
    ) -> Result<(Vec<FoundJournal>, u64), StoreError> {
        let mut max_seq = 0;
        let mut journals = Vec::new();
        let mut marks: HashMap<JournalId, ParcelSet> = HashMap::new();
        let by_id: HashMap<JournalId, &Folder> = self.0.iter().map(|(id, _, folder)| (*id, folder)).collect();
        for (id, dir, folder) in &self.0 {
            let mut reported = Vec::new();
            let (mut open, mut settled) = (ParcelSet::default(), ParcelSet::default());
            let recovered = recover::recover(
                &folder.numbers,
                folder.floor.as_ref(),
                |number, part| folder::load(disk, dir, number, part),
                |_, lsn, record| match record {
                    Record::Entry(entry) => {
                        if !fault::planted("sequence-begins-anew") {
                            max_seq = max_seq.max(entry.seq);
                        }
                        visit(Seen::Entry(entry));
                        let listed = folder.listed.covers(lsn);
                        for slot in 0..entry.slots {
                            if !listed || folder.listed.open.contains(lsn, slot) {
                                open.insert(lsn, slot);
                            } else {
                                settled.insert(lsn, slot);
                                visit(Seen::Listed { slot });
                            }
                        }
                    }
                    Record::Marks(found) => {
                        let shown = by_id.get(&found.journal);
                        let set = marks.entry(found.journal).or_default();
                        for mark in found.iter() {
                            let new = set.insert(mark.lsn, mark.slot);
                            if new && shown.is_some_and(|folder| folder.shows(mark.lsn, mark.slot)) {
                                visit(Seen::Settled(mark.tag));
                            }
                        }
                    }
                    Record::Gap { first_lsn, last_lsn, .. } => reported.push((*first_lsn, *last_lsn)),
                },
            )
            .map_err(|source| StoreError::Recover { path: dir.clone(), source })?;
            let unreported = |lost: &&Lost| !reported.contains(&(lost.first_lsn, lost.last_lsn));
            journals.push(FoundJournal {
                id: *id,
                dir: dir.clone(),
                new_damage: recovered.lost.iter().filter(unreported).cloned().collect(),
                recovered,
                settled,
                open,
                floor: folder.floor.clone(),
                listed: folder.listed.segments.iter().map(|(number, _, count)| (*number, *count)).collect(),
            });
        }
        for journal in &mut journals {
            let marked = marks.remove(&journal.id).unwrap_or_default();
            journal.open.remove_all(&marked);
            // Marks may stand in another journal than the entries they settle. If those entries are gone,
            // their numbers must not be given to new ones, which would count as settled.
            journal.recovered.next_lsn = journal.recovered.next_lsn.max(marked.end());
            journal.settled.insert_all(marked);
        }
        Ok((journals, max_seq))
    }
}

impl Store {
    /// The folder of the journals' folders.
    pub fn root(&self) -> PathBuf {
        self.data_dir.join("journal")
    }

    /// Call at the very end of a stop that left nothing under way.
    pub fn leave_clean(&self) -> io::Result<()> {
        File::create(self.data_dir.join(CLEAN))?.sync_all()?;
        fault::point("clean-mark-left");
        sync_dir(&self.data_dir)
    }
}

/// Whether the mark was there. It is durably gone afterwards: whoever is killed leaves none.
fn take_clean_mark(data_dir: &Path) -> Result<bool, StoreError> {
    let path = data_dir.join(CLEAN);
    match std::fs::remove_file(&path) {
        Ok(()) => {
            fault::point("clean-mark-taken");
            sync_dir(data_dir).map(|()| true).map_err(io_error("sync folder", data_dir))
        }
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
        Err(error) if is_full(&error) => Ok(OpenMode::Direct),
        Err(error) => Err(error),
    }
}

fn new_journal(root: &Path) -> Result<FoundJournal, StoreError> {
    let mut id = JournalId::default();
    random(&mut id).map_err(io_error("draw a journal id for", root))?;
    let dir = root.join(hex(&id));
    std::fs::create_dir(&dir).map_err(io_error("make folder", &dir))?;
    sync_dir(root).map_err(io_error("sync folder", root))?;
    let recovered = Recovered { journal: Some(id), next_frame: 1, next_lsn: 1, ..Recovered::default() };
    Ok(FoundJournal {
        id,
        dir,
        recovered,
        settled: ParcelSet::default(),
        open: ParcelSet::default(),
        floor: None,
        listed: Vec::new(),
        new_damage: Vec::new(),
    })
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
