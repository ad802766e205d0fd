//! Up to where each journal is archived, by region, over restarts.
//!
//! ```text
//! <data_dir>/archive/<journal>.json    one line of JSON, one of its CRC-32C; N.tmp = unfinished
//! ```
//!
//! Written anew after objects closed: under another name, synced, renamed, and the folder synced.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crc_fast::crc32_iscsi;
use serde::{Deserialize, Serialize};

use super::chain::Head;
use super::disk::Disk;
use crate::fault;
use crate::journal::Position;

/// How far one region's archive got in one journal: the journal's entries with a lower LSN that
/// concern the region are in closed objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Name of the region.
    pub(super) region: String,
    pub(super) next_lsn: u64,
    /// Segment and byte of the frame to read on from; entries below `next_lsn` in it are done.
    segment: u64,
    offset: u64,
    /// The newest link of the region's chain when this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<Noted>,
}

/// A chain as it was: another folder has another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    pub(super) folder: PathBuf,
    pub(super) head: Head,
}

impl Row {
    pub(super) fn new(region: String, position: Position, next_lsn: u64, chain: Option<Noted>) -> Self {
        Self { region, next_lsn, segment: position.segment(), offset: position.offset(), chain }
    }

    pub(super) fn position(&self) -> Position {
        Position::new(self.segment, self.offset)
    }
}

#[derive(Serialize, Deserialize)]
struct Page {
    v: u32,
    regions: Vec<Row>,
}

/// Where progress is kept.
#[derive(Debug)]
pub(super) struct Progress<D> {
    disk: D,
    data_dir: PathBuf,
    dir: PathBuf,
    /// The folder's own name is durable.
    rooted: Cell<bool>,
}

impl<D: Disk> Progress<D> {
    pub(super) fn new(disk: D, data_dir: &Path) -> Self {
        Self { disk, dir: data_dir.join("archive"), data_dir: data_dir.to_owned(), rooted: Cell::new(false) }
    }

    /// What was saved last; nothing for a journal that is new here.
    pub(super) fn load(&self, journal: &str) -> io::Result<Vec<Row>> {
        let path = self.path(journal);
        if !self.disk.exists(&path)? {
            return Ok(Vec::new());
        }
        let mut text = String::new();
        self.disk.read(&path)?.read_to_string(&mut text)?;
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (page, crc) = text.trim_end().split_once('\n').ok_or_else(|| damaged("it is cut short"))?;
        if u32::from_str_radix(crc, 16).ok() != Some(crc32_iscsi(page.as_bytes())) {
            return Err(damaged("its checksum does not match"));
        }
        let page: Page = serde_json::from_str(page)?;
        if page.v != 1 {
            return Err(damaged("another version wrote it"));
        }
        Ok(page.regions)
    }

    /// Removes what an earlier process left unfinished, as well as can be done.
    pub(super) fn tidy(&self, journal: &str) {
        self.disk.remove(&self.unfinished(journal)).ok();
    }

    pub(super) fn save(&self, journal: &str, rows: Vec<Row>) -> io::Result<()> {
        if !self.rooted.get() {
            self.disk.make_dir(&self.dir)?;
            self.disk.sync_dir(&self.data_dir)?;
            self.rooted.set(true);
        }
        let page = serde_json::to_string(&Page { v: 1, regions: rows })?;
        let text = format!("{page}\n{:08x}\n", crc32_iscsi(page.as_bytes()));
        let unfinished = self.unfinished(journal);
        let mut file = self.disk.create(&unfinished)?;
        self.disk.append(&mut file, text.as_bytes())?;
        fault::point("progress-written");
        if !fault::planted("progress-not-synced") {
            self.disk.sync(&file)?;
        }
        fault::point("progress-synced");
        self.disk.rename(&unfinished, &self.path(journal))?;
        fault::point("progress-renamed");
        self.disk.sync_dir(&self.dir)?;
        fault::point("progress-durable");
        Ok(())
    }

    fn unfinished(&self, journal: &str) -> PathBuf {
        self.dir.join(format!("{journal}.tmp"))
    }

    fn path(&self, journal: &str) -> PathBuf {
        self.dir.join(format!("{journal}.json"))
    }
}

/// Up to where a journal is archived, by region: for whoever only looks.
pub fn noted(data_dir: &Path, journal: &str) -> io::Result<Vec<(String, Position)>> {
    let rows = Progress::new(super::disk::Os, data_dir).load(journal)?;
    Ok(rows.into_iter().map(|row| (row.region.clone(), row.position())).collect())
}
