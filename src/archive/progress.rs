//! Up to where each journal is archived, by region, over restarts.
//!
//! ```text
//! <data_dir>/archive/<journal>.json    a note (see `note`)
//! ```
//!
//! Written anew after objects came into archives.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::note::{self, Stage};
use crate::fault;
use crate::journal::Position;

/// How far one region's archive got in one journal: the journal's entries with a lower LSN that
/// concern the region are in its archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Name of the region.
    pub(super) region: String,
    pub(super) next_lsn: u64,
    /// Segment and byte of the frame to read on from; entries below `next_lsn` in it are done.
    segment: u64,
    offset: u64,
}

impl Row {
    pub(super) fn new(region: String, position: Position, next_lsn: u64) -> Self {
        Self { region, next_lsn, segment: position.segment(), offset: position.offset() }
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
        match note::load::<_, Page>(&self.disk, &self.path(journal))? {
            None => Ok(Vec::new()),
            Some((Page { v: 1, regions }, _)) => Ok(regions),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "another version wrote it")),
        }
    }

    pub(super) fn save(&self, journal: &str, rows: Vec<Row>) -> io::Result<()> {
        if !self.rooted.get() {
            self.disk.make_dir(&self.dir)?;
            self.disk.sync_dir(&self.data_dir)?;
            self.rooted.set(true);
        }
        let page = Page { v: 1, regions: rows };
        note::save(&self.disk, &self.path(journal), &page, &[], |stage| {
            match stage {
                Stage::Written => fault::point("progress-written"),
                Stage::Synced => fault::point("progress-synced"),
                Stage::Renamed => fault::point("progress-renamed"),
                Stage::Durable => fault::point("progress-durable"),
            }
            stage != Stage::Written || !fault::planted("progress-not-synced")
        })
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
