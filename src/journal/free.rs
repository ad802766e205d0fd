//! Freeing at work: carries out what `account` decides, on the thread that makes spares.
//!
//! # One round
//!
//! ```text
//! 1  lists   every list that is needed: N.tmp, sync, rename to N.live; then each folder synced
//! 2  floors  per journal: floor.tmp, sync, rename to floor, folder synced
//! 3  readers of this process are told
//! 4  files   gone: emptied and removed, or kept to be used again; thin: holes punched; folder synced
//! ```
//!
//! # Why no crash loses or repeats anything
//!
//! Recovery takes for waiting what the lists name and, in segments without one, all entries; less
//! what a mark in frames that are not dropped settles.
//!
//! - *Lost* would be a parcel that waits and that recovery does not show. Step 1 writes a list only of
//!   parcels that durable marks do not settle, counted twice (`scan`). Step 2 names as gone only
//!   segments in which all are settled by durable marks. Step 4 touches no byte that a row needs.
//! - *Repeated* would be a parcel that a durable mark settles and that recovery shows. Frames count as
//!   dropped from the moment the floor is durable, not before; by then, since step 1 is over, every
//!   segment that their marks speak of has a list that leaves the parcel out, or went with the same floor.
//! - A crash within 1 leaves some lists: each says what the marks, which are all there, say too. Within
//!   2 some journals have the new floor: the lists they lean on are all there. Within 4 files are left
//!   that the floor does not want: the next start removes them, and thin segments are punched again.
//! - A file that is used again carries its old number, which the floor does not want, until its header
//!   and the place of its first frame are durably zero; then it is a segment made ahead. The rest of it
//!   has another salt than any frame to come.
//! - A folder goes last of all, when its floor says that nothing is left and all but the floor is
//!   durably gone; an empty folder is nobody's journal.
//!
//! A round that fails before its files are touched is done again; files that could not be removed stay
//! until the next start.
//!
//! The files are done in pieces, one a round: where each freed extent is discarded at once, a segment with
//! thousands of holes takes many seconds, and the journals must get their new segments meanwhile.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::JournalIndex;
use super::account::{Account, Drop, Wrote};
use super::buffer::BLOCK;
use super::disk::Disk;
use super::floor::Floor;
use super::folder::{floor_path, live_path, replace};
use super::frame::{FIRST_FRAME, SegmentHeader};
use super::live::LiveList;
use super::scan::{ScanError, scan};
use super::segments::Segments;
use super::spare::segment_path;
use super::view::Archived;
use crate::fault;

/// Free segments that wait to be used again; the others are removed.
const REUSED: usize = 2;
/// Segments that are read in one round to make their lists. Orders for segments wait meanwhile.
const SCANS: usize = 2;
/// Zeroed before a file is used again: both copies of the header, and the place where a first frame
/// would let a torn header be believed.
const BLANK: usize = FIRST_FRAME as usize + BLOCK;

/// Where a journal lies and who else looks at it.
#[derive(Debug, Clone)]
pub struct Place {
    pub dir: PathBuf,
    pub segments: Arc<Segments>,
    pub archived: Arc<Archived>,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// There was nothing to do.
    Idle,
    Done,
    /// Some of it; the rest comes with the next round.
    Partly,
}

/// How much of a file is done in one round: holes that are punched, bytes that are cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) holes: usize,
    pub(super) bytes: u64,
}

/// What is to be done to the files of a drop whose floor is durable.
#[derive(Debug)]
enum Work {
    /// Removed if it is there.
    List(PathBuf),
    /// The file and what is left of it.
    Segment(PathBuf, u64),
    /// The file and the holes to come, the last one first.
    Holes(PathBuf, Vec<(u64, u64)>),
    /// All of a drop is done.
    Folder { journal: JournalIndex, vanishes: bool },
}

/// What came of freeing since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Segments removed.
    pub removed: u64,
    /// Segments used again.
    pub reused: u64,
    /// Segments that are thin now.
    pub thin: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FreeError {
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "segment {} is not as it was written: {source}; it stays, and the next start says what is damaged",
        path.display()
    )]
    Stuck { path: PathBuf, source: ScanError },
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> FreeError + 'a {
    move |source| FreeError::Io { what, path: path.to_owned(), source }
}

/// The account of all journals of a data folder, and the disk they lie on.
pub struct Freeing<D> {
    disk: D,
    /// The folder of the journals' folders.
    root: PathBuf,
    account: Account,
    places: Vec<Place>,
    /// Whole segment files that are gone.
    free: Vec<PathBuf>,
    work: VecDeque<Work>,
    pub(super) piece: Piece,
    /// The file system refused to punch: said once.
    cannot_punch: bool,
    freed: Freed,
}

impl<D: Disk> Freeing<D> {
    /// `places` in the order of the account's journals.
    pub fn new(disk: D, root: PathBuf, account: Account, places: Vec<Place>) -> Self {
        let freed = Freed { thin: account.thin_segments() as u64, ..Freed::default() };
        Self {
            disk,
            root,
            account,
            places,
            free: Vec::new(),
            work: VecDeque::new(),
            piece: Piece { holes: 64, bytes: 4 << 20 },
            cannot_punch: false,
            freed,
        }
    }

    /// A frame became durable.
    pub fn wrote(&mut self, wrote: &Wrote) {
        self.account.wrote(wrote);
    }

    pub fn freed(&self) -> Freed {
        self.freed
    }

    /// Frees what may go now.
    pub fn round(&mut self, short: bool) -> Result<Round, FreeError> {
        if let Some(work) = self.work.pop_front() {
            self.do_piece(work)?;
            return Ok(Round::Partly);
        }
        let plan = self.account.plan(|journal| self.places[journal].archived.upto(), short);
        let scans: Vec<_> = plan
            .lists
            .iter()
            .copied()
            .filter(|(journal, number)| self.account.needs_scan(*journal, *number))
            .collect();
        if scans.len() > SCANS {
            self.write_lists(&scans[..SCANS])?;
            return Ok(Round::Partly);
        }
        self.write_lists(&plan.lists)?;
        if fault::planted("unlink-before-floor") {
            plan.drops.iter().try_for_each(|drop| self.free_files(drop))?;
            while let Some(work) = self.work.pop_front() {
                self.do_piece(work)?;
            }
        }
        let mut floors = Vec::with_capacity(plan.drops.len());
        for drop in &plan.drops {
            floors.push(self.write_floor(drop)?);
        }
        for (drop, floor) in plan.drops.iter().zip(floors) {
            self.account.dropped(drop, &floor);
            self.places[drop.journal].segments.set(floor);
        }
        self.freed.thin = self.account.thin_segments() as u64;
        for drop in &plan.drops {
            self.free_files(drop)?;
        }
        Ok(match (plan.drops.is_empty(), self.work.is_empty()) {
            (true, _) => Round::Idle,
            (false, true) => Round::Done,
            (false, false) => Round::Partly,
        })
    }

    /// Gives a free file of `bytes` bytes the name of a segment made ahead. False if there is none.
    pub fn reuse(&mut self, dir: &Path, number: u64, bytes: u64) -> Result<bool, FreeError> {
        while let Some(path) = self.free.pop() {
            let size = self.disk.size(&path).map_err(failed("look at", &path))?;
            if size != bytes {
                self.work.push_back(Work::Segment(path, size));
                continue;
            }
            if !fault::planted("reuse-not-blanked") {
                self.disk.blank(&path, BLANK).map_err(failed("write", &path))?;
            }
            fault::point("reuse-blanked");
            let to = segment_path(dir, number);
            self.disk.rename(&path, &to).map_err(failed("rename", &path))?;
            fault::point("reuse-renamed");
            self.disk.sync_dir(dir).map_err(failed("sync folder", dir))?;
            self.freed.reused += 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn sync_dir(&self, journal: JournalIndex) -> Result<(), FreeError> {
        let dir = &self.places[journal].dir;
        if fault::planted("folder-not-synced") {
            return Ok(());
        }
        self.disk.sync_dir(dir).map_err(failed("sync folder", dir))
    }

    /// Writes lists; afterwards they are durable with their names.
    fn write_lists(&mut self, lists: &[(JournalIndex, u64)]) -> Result<(), FreeError> {
        for (journal, number) in lists {
            self.write_list(*journal, *number)?;
            fault::point("list-renamed");
        }
        let mut folders: Vec<JournalIndex> = lists.iter().map(|(journal, _)| *journal).collect();
        folders.dedup();
        for journal in folders {
            self.sync_dir(journal)?;
            fault::point("lists-synced");
        }
        for (journal, number) in lists {
            self.account.listed(*journal, *number);
        }
        Ok(())
    }

    fn write_list(&mut self, journal: JournalIndex, number: u64) -> Result<(), FreeError> {
        let Some(known) = self.account.segment(journal, number) else { return Ok(()) };
        let (id, dir) = (self.account.id(journal), &self.places[journal].dir);
        let path = live_path(dir, number);
        let open = |lsn, slot| self.account.is_open(journal, lsn, slot);
        let list = if known.listed.is_some() {
            let mut list = self.read_list(journal, number)?;
            list.rows.retain(|row| open(row.lsn, row.slot));
            let (expected, found) = (known.open, list.rows.len() as u64);
            let (next_lsn, upto) = (known.next_lsn, list.next_lsn);
            let count = ScanError::Count { expected, found, next_lsn, upto };
            if expected == found { Ok(list) } else { Err(count) }
        } else if known.open == 0 {
            // It never becomes thin, so what else a list says is never asked for.
            let (base_lsn, next_lsn) = (known.base_lsn, known.next_lsn);
            Ok(LiveList { journal: id, segment: number, base_lsn, next_lsn, ..LiveList::default() })
        } else {
            scan(&self.disk, dir, id, number, known, open)
        };
        let list = match list {
            Ok(mut list) => {
                if fault::planted("list-lacks-a-parcel") {
                    list.rows.pop();
                }
                list
            }
            Err(ScanError::Io(source)) => return Err(failed("read", &segment_path(dir, number))(source)),
            Err(source) => {
                let path = segment_path(dir, number);
                self.account.stuck(journal, number);
                return Err(FreeError::Stuck { path, source });
            }
        };
        replace(&self.disk, &path, &list.encode()).map_err(failed("write", &path))
    }

    fn read_list(&self, journal: JournalIndex, number: u64) -> Result<LiveList, FreeError> {
        let path = live_path(&self.places[journal].dir, number);
        let size = self.disk.size(&path).map_err(failed("look at", &path))?;
        let bytes = self.disk.read(&path, 0, size as usize).map_err(failed("read", &path))?;
        LiveList::decode(&bytes, &self.account.id(journal), number)
            .map_err(io::Error::other)
            .map_err(failed("read", &path))
    }

    fn write_floor(&self, drop: &Drop) -> Result<Floor, FreeError> {
        let mut floor = self.account.floor(drop);
        let dir = &self.places[drop.journal].dir;
        if self.account.segment(drop.journal, floor.first).is_some() {
            let path = segment_path(dir, floor.first);
            let bytes = self.disk.read(&path, 0, 2 * BLOCK).map_err(failed("read", &path))?;
            // Of one whose header is damaged recovery says so, and that nothing is lost with it.
            floor.first_frame = SegmentHeader::decode(&bytes).ok().flatten().map_or(0, |h| h.first_frame);
        }
        let path = floor_path(dir);
        replace(&self.disk, &path, &floor.encode()).map_err(failed("write", &path))?;
        fault::point("floor-renamed");
        self.sync_dir(drop.journal)?;
        fault::point("floor-synced");
        Ok(floor)
    }

    /// Notes what is to be done to the files of a drop.
    fn free_files(&mut self, drop: &Drop) -> Result<(), FreeError> {
        let dir = self.places[drop.journal].dir.clone();
        for number in &drop.gone {
            self.work.push_back(Work::List(live_path(&dir, *number)));
            let path = segment_path(&dir, *number);
            // A thin one has holes: writing into them would cost three writes instead of one.
            if drop.whole.contains(number) && !drop.vanishes && self.free.len() < REUSED {
                self.free.push(path);
            } else {
                let size = self.disk.size(&path).map_err(failed("look at", &path))?;
                self.work.push_back(Work::Segment(path, size));
            }
        }
        for number in &drop.thin {
            let path = segment_path(&dir, *number);
            let list = self.read_list(drop.journal, *number)?;
            let size = self.disk.size(&path).map_err(failed("look at", &path))?;
            let mut holes = list.unneeded(size);
            holes.reverse();
            self.work.push_back(Work::Holes(path, holes));
        }
        self.work.push_back(Work::Folder { journal: drop.journal, vanishes: drop.vanishes });
        Ok(())
    }

    /// Does a piece of it; the rest is the next work.
    fn do_piece(&mut self, work: Work) -> Result<(), FreeError> {
        match work {
            Work::List(path) => {
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", &path)(error));
                    }
                    _ => {}
                }
                fault::point("list-removed");
            }
            Work::Segment(path, size) if size > 0 => {
                // Emptied first: whoever still has it open holds no space then.
                let left = size.saturating_sub(self.piece.bytes);
                self.disk.cut(&path, left).map_err(failed("cut", &path))?;
                fault::point("segment-emptied");
                self.work.push_front(Work::Segment(path, left));
            }
            Work::Segment(path, _) => {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
                fault::point("segment-removed");
                self.freed.removed += 1;
            }
            Work::Holes(path, mut holes) => {
                let rest = holes.len().saturating_sub(self.piece.holes);
                for (from, to) in holes.drain(rest..).rev() {
                    self.punch(&path, from, to)?;
                }
                if holes.is_empty() || self.cannot_punch {
                    fault::point("thinned");
                } else {
                    self.work.push_front(Work::Holes(path, holes));
                }
            }
            Work::Folder { journal, vanishes } => {
                self.sync_dir(journal)?;
                if vanishes {
                    self.remove_folder(&self.places[journal].dir)?;
                }
            }
        }
        Ok(())
    }

    fn punch(&mut self, path: &Path, from: u64, to: u64) -> Result<(), FreeError> {
        if self.cannot_punch {
            return Ok(());
        }
        match self.disk.punch(path, from, to) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.cannot_punch = true;
                tracing::warn!(
                    folder = %self.root.display(),
                    "this file system cannot punch holes: a segment of the journal stays whole until the last \
                     parcel in it is settled; use ext4, xfs, btrfs or tmpfs"
                );
            }
            done => done.map_err(failed("punch holes in", path))?,
        }
        fault::point("punched");
        Ok(())
    }

    fn remove_folder(&self, dir: &Path) -> Result<(), FreeError> {
        let floor = floor_path(dir);
        for name in self.disk.list(dir).map_err(failed("list folder", dir))? {
            let path = dir.join(name);
            if path != floor {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        self.disk.sync_dir(dir).map_err(failed("sync folder", dir))?;
        fault::point("folder-emptied");
        self.disk.remove(&floor).map_err(failed("remove", &floor))?;
        self.disk.sync_dir(dir).map_err(failed("sync folder", dir))?;
        self.disk.remove_dir(dir).map_err(failed("remove folder", dir))?;
        fault::point("folder-removed");
        self.disk.sync_dir(&self.root).map_err(failed("sync folder", &self.root))
    }
}
