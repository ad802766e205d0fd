//! Is what lies in the journals' folders as it was written? What is wrong, what that means, what a start
//! would do by itself, and what a person would do by hand. Reads only; [`repair`] carries out.
//!
//! The verdict about frames and records is that of recovery itself ([`super::recover`]), so that a check
//! says what a start would do; around it stands what recovery takes as given: both copies of each header,
//! list and floor, the names of files, and what the marks of one journal say of another. Where a list or
//! the floor stops a start, the check goes on with what `rebuild` makes of the segments.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::journal::disk::Disk;
use crate::journal::marks::ParcelSet;
use crate::journal::store::hex;
use crate::journal::{JournalId, Position};

mod files;
mod journal;
mod rebuild;
pub mod repair;
mod words;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is lost, and the next start sees to it.
    Note,
    /// Something is lost, or one copy of two is.
    Damage,
    /// The next start ends before it takes a webhook.
    Stops,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub file: PathBuf,
    /// Byte in the file.
    pub at: Option<u64>,
    /// Records that are concerned: the first and the last.
    pub lsns: Option<(u64, u64)>,
    pub found: String,
    /// For what was answered 200.
    pub means: String,
    /// What the next start does by itself.
    pub start: String,
    /// What `--repair` does; `None`: nothing that a program should do by itself.
    pub remedy: Option<Remedy>,
}

/// What puts it right. Whatever it replaces is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Remedy {
    /// The whole file gets this content.
    Write { bytes: Vec<u8> },
    /// The first bytes of the file get this content.
    Patch { bytes: Vec<u8> },
    /// The file goes out of the folder.
    Away,
    /// The file gets the name that its content asks for.
    Rename { to: PathBuf },
}

/// One journal, checked.
#[derive(Debug)]
pub struct Checked {
    pub id: JournalId,
    pub dir: PathBuf,
    /// Segments in use.
    pub segments: u64,
    pub entries: u64,
    pub next_lsn: u64,
    /// Segment and byte behind the last record.
    pub end: Position,
    pub findings: Vec<Finding>,
}

/// Checks journals; marks in one speak of entries in another, so all of a data folder at once.
pub fn check(disk: &impl Disk, dirs: &[(JournalId, PathBuf)]) -> io::Result<Vec<Checked>> {
    let mut marks: HashMap<JournalId, ParcelSet> = HashMap::new();
    let mut journals = Vec::new();
    for (id, dir) in dirs {
        journals.push(journal::check(disk, *id, dir, &mut marks)?);
    }
    for journal in &mut journals {
        let end = marks.remove(&journal.id).unwrap_or_default().end();
        if end > journal.next_lsn {
            journal.findings.push(beyond(&journal.dir, journal.next_lsn, end));
        }
    }
    Ok(journals)
}

/// Marks settle entries that the journal does not reach.
fn beyond(dir: &Path, next_lsn: u64, end: u64) -> Finding {
    Finding {
        level: Level::Damage,
        file: dir.to_owned(),
        at: None,
        lsns: Some((next_lsn, end - 1)),
        found: format!(
            "marks say that records up to LSN {} were settled, and this journal ends before LSN {next_lsn}: its newest \
             segment is gone, or older than the others (put back from a copy?)",
            end - 1
        ),
        means: "those that the marks name were delivered; others between them were acknowledged and are lost"
            .to_owned(),
        start: format!("goes on behind LSN {}, so that no number is given twice", end - 1),
        remedy: None,
    }
}

impl Finding {
    fn note(file: PathBuf, found: String, means: &str, start: &str) -> Self {
        let (means, start) = (means.to_owned(), start.to_owned());
        Self { level: Level::Note, file, at: None, lsns: None, found, means, start, remedy: None }
    }

    /// The same thing, seen again: for a folder that is being written.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.file, self.at, self.level) == (&other.file, other.at, other.level)
    }
}

impl Remedy {
    /// What it does, in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Write { .. } => {
                "writes this file anew from what is readable, and keeps the old one aside".to_owned()
            }
            Self::Patch { .. } => {
                "writes the header's two copies anew, and keeps the old bytes aside".to_owned()
            }
            Self::Away => "moves this file aside".to_owned(),
            Self::Rename { to } => {
                format!("renames this file to {}", to.file_name().unwrap_or_default().display())
            }
        }
    }
}

impl std::fmt::Debug for Remedy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// A journal's name for a sentence.
fn short(id: &JournalId) -> String {
    hex(id)[..8].to_owned()
}
