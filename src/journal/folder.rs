//! What lies in a journal's folder, and which of it belongs there.
//!
//! ```text
//! N.seg     a segment; all zeros at its start = made ahead
//! N.live    the parcels of segment N that are not settled (`live`)
//! floor     which segments exist, and which are thin (`floor`)
//! *.tmp     unfinished, removed
//! ```

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::buffer::BLOCK;
use super::disk::Disk;
use super::floor::Floor;
use super::frame::JournalId;
use super::live::LiveList;
use super::marks::ParcelSet;
use super::recover::Part;
use super::spare::segment_path;
use super::twin::TwinFault;
use crate::fault;

pub fn live_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.live"))
}

pub fn floor_path(dir: &Path) -> PathBuf {
    dir.join("floor")
}

/// Makes `bytes` the durable content of `path`; at every moment the old or the new is there. The name
/// itself is durable after a [`Disk::sync_dir`].
pub fn replace(disk: &impl Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let written = disk.write(&temporary, bytes).and_then(|()| {
        fault::io("replace-written")?;
        if fault::planted("list-not-synced") { Ok(()) } else { disk.sync(&temporary) }
    });
    if let Err(error) = written {
        // What was written so far is needed by somebody else now; if it stays, the next start removes it.
        disk.remove(&temporary).ok();
        return Err(error);
    }
    fault::point("replace-synced");
    disk.rename(&temporary, path)
}

/// Why a folder cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(
        "its file `floor`: {0}; restore it from a copy, or let `penstock journal fsck --repair` make it anew from the \
         segments"
    )]
    Floor(TwinFault),
}

/// A journal's folder as it was found.
#[derive(Debug, Default)]
pub struct Folder {
    pub floor: Option<Floor>,
    /// Segments that should be there and are, ascending.
    pub numbers: Vec<u64>,
    /// Files that are there and should not be.
    pub leftovers: Vec<PathBuf>,
    /// What the lists say.
    pub listed: Listed,
    /// Lists that cannot be read, of segments that are whole: only repeats are at stake.
    pub unread: Vec<(u64, TwinFault)>,
}

/// What the lists of a journal say, together.
#[derive(Debug, Default)]
pub struct Listed {
    /// Segments with a list, their LSNs, and how many parcels the list names.
    pub segments: Vec<(u64, Range<u64>, u64)>,
    /// Parcels that are not settled.
    pub open: ParcelSet,
}

impl Listed {
    /// Whether a list answers for that entry.
    pub fn covers(&self, lsn: u64) -> bool {
        let at = self.segments.partition_point(|(_, lsns, _)| lsns.start <= lsn);
        // A segment without records may begin where the next one does.
        self.segments[..at].iter().rev().take(2).any(|(_, lsns, _)| lsns.contains(&lsn))
    }
}

impl Folder {
    /// Changes nothing.
    pub fn look(disk: &impl Disk, dir: &Path, id: &JournalId) -> Result<Self, FolderError> {
        let mut folder = Self::default();
        let mut lists = Vec::new();
        let names = disk.list(dir)?;
        if names.iter().any(|name| name == "floor") {
            let path = floor_path(dir);
            let bytes = disk.read(&path, 0, disk.size(&path)? as usize)?;
            folder.floor = Some(Floor::decode(&bytes, id).map_err(FolderError::Floor)?);
        }
        for name in names {
            let number = |stem: &str| stem.parse::<u64>().ok();
            match name.rsplit_once('.') {
                Some((_, "tmp")) => folder.leftovers.push(dir.join(name)),
                Some((stem, "seg")) => folder.numbers.extend(number(stem)),
                Some((stem, "live")) => lists.extend(number(stem)),
                _ => {}
            }
        }
        folder.numbers.sort_unstable();
        lists.sort_unstable();
        if let Some(floor) = &folder.floor {
            folder.numbers.retain(|number| {
                let stays = floor.has(*number);
                if !stays {
                    folder.leftovers.push(segment_path(dir, *number));
                }
                stays
            });
        }
        for number in lists {
            // Without its segment a list names nothing that can be had.
            if folder.numbers.binary_search(&number).is_err() {
                folder.leftovers.push(live_path(dir, number));
                continue;
            }
            let path = live_path(dir, number);
            let bytes = disk.read(&path, 0, disk.size(&path)? as usize)?;
            match LiveList::decode(&bytes, id, number) {
                Ok(list) => folder.listed.add(&list),
                Err(fault) => folder.unread.push((number, fault)),
            }
        }
        Ok(folder)
    }

    /// Removes what should not be there.
    pub fn clear(&self, disk: &impl Disk, dir: &Path) -> io::Result<()> {
        for path in &self.leftovers {
            disk.remove(path)?;
        }
        if self.leftovers.is_empty() { Ok(()) } else { disk.sync_dir(dir) }
    }

    /// LSNs below this are of segments that are gone, if no list covers them.
    pub fn base_lsn(&self) -> u64 {
        self.floor.as_ref().map_or(0, |floor| floor.base_lsn)
    }

    /// Whether recovery hands on the entry of that parcel, if it was not damaged.
    pub fn shows(&self, lsn: u64, slot: u16) -> bool {
        if self.listed.covers(lsn) {
            return self.listed.open.contains(lsn, slot);
        }
        let kept =
            || self.floor.iter().flat_map(|f| &f.kept).any(|k| (k.base_lsn..k.next_lsn).contains(&lsn));
        lsn >= self.base_lsn() || kept()
    }
}

impl Listed {
    fn add(&mut self, list: &LiveList) {
        for row in &list.rows {
            self.open.insert(row.lsn, row.slot);
        }
        self.segments.push((list.segment, list.base_lsn..list.next_lsn, list.rows.len() as u64));
    }
}

/// Reads a part of a segment for recovery. What is read must be what is on disk: a page that was
/// written but never synced must not be taken for durable now and be gone after the next power cut.
pub fn load(disk: &impl Disk, dir: &Path, number: u64, part: Part) -> io::Result<Vec<u8>> {
    let path = match part {
        Part::List => live_path(dir, number),
        Part::Header | Part::Whole | Part::Bytes { .. } => segment_path(dir, number),
    };
    fault::io("recover-read")?;
    if part == Part::Header || part == Part::List {
        disk.sync(&path)?;
    }
    let len = disk.size(&path)?;
    match part {
        Part::Header => disk.read(&path, 0, len.min(2 * BLOCK as u64) as usize),
        Part::Whole | Part::List => disk.read(&path, 0, len as usize),
        Part::Bytes { at, len } => disk.read(&path, at, len),
    }
}
