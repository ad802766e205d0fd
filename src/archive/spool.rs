//! Objects on their way: closed, on this machine's disk, and not certainly in the archive yet.
//!
//! ```text
//! <data_dir>/archive/spool/<region>/<gateway>-<journal>-<first lsn>           an object: complete if it has a ticket
//! <data_dir>/archive/spool/<region>/<gateway>-<journal>-<first lsn>.ticket    what it is, its CRC-64, its index
//! <data_dir>/archive/spool/<region>/<gateway>-<journal>-<first lsn>.upload    how far a bucket has it
//! ```
//!
//! So whoever was killed while it was sent sends the same bytes again, whatever version or configuration comes after; and
//! nobody has to believe what lies in an archive.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::ObjectLink;
use super::disk::Disk;
use super::note::{self, Stage};
use super::shelf::EntryKind;
use crate::fault;

const TICKET: &str = "ticket";
/// What a bucket notes beside the file that it is given.
const UPLOAD: &str = "upload";

/// A closed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub object: ObjectLink,
    /// Its bytes, and their CRC-64/NVME as they were written.
    pub file: PathBuf,
    pub crc: u64,
    /// What is put beside it, for whoever searches.
    pub index: Vec<u8>,
}

/// What is closed and not in the archive yet, of one region.
#[derive(Debug)]
pub(super) struct Spool<D> {
    disk: D,
    data_dir: PathBuf,
    dir: PathBuf,
    /// By journal: what is below is noted as archived.
    noted: BTreeMap<String, u64>,
    /// An object that is in the archive, and its link may be missing.
    linking: Option<ObjectLink>,
    /// What an earlier process closed, once that is known.
    found: Option<Vec<Ticket>>,
}

#[derive(Serialize, Deserialize)]
struct Page {
    v: u32,
    object: ObjectLink,
    crc: u64,
}

impl<D: Disk> Spool<D> {
    /// `noted`: by journal, the LSN before which all is noted as archived. `linking`: the object whose link is under way.
    pub(super) fn new(
        disk: D,
        data_dir: &Path,
        region: &str,
        noted: BTreeMap<String, u64>,
        linking: Option<ObjectLink>,
    ) -> Self {
        let dir = data_dir.join("archive").join("spool").join(region);
        Self { disk, data_dir: data_dir.to_owned(), dir, noted, linking, found: None }
    }

    /// Finds out what an earlier process closed, and removes what is not needed any more. Before any object is made.
    pub(super) fn look(&mut self) -> io::Result<&mut Vec<Ticket>> {
        let found = match self.found.take() {
            Some(found) => found,
            None => self.read()?,
        };
        Ok(self.found.insert(found))
    }

    /// The LSN before which all of that journal is in the archive, since a link that is under way says so of an object
    /// that is not here any more. One that is here waits for its link like any other.
    pub(super) fn lost(&mut self, journal: &str) -> io::Result<u64> {
        let linking = self.linking.clone().filter(|object| object.journal == journal);
        let found = self.look()?;
        let is_lost = |object: &ObjectLink| found.iter().all(|ticket| ticket.object != *object);
        Ok(linking.filter(is_lost).map_or(0, |object| object.last_lsn.saturating_add(1)))
    }

    /// The object of that journal that begins with that entry, if it was closed.
    pub(super) fn take(&mut self, journal: &str, first_lsn: u64) -> io::Result<Option<Ticket>> {
        let found = self.look()?;
        let is_it =
            |ticket: &Ticket| ticket.object.journal == journal && ticket.object.first_lsn == first_lsn;
        Ok(found.iter().position(is_it).map(|at| found.swap_remove(at)))
    }

    /// That entry is in an object that is made now: one that was closed and has it, too, is not asked for any more.
    pub(super) fn supersede(&mut self, journal: &str, lsn: u64) {
        let Some(found) = self.found.as_mut().filter(|found| !found.is_empty()) else { return };
        let has = |ticket: &mut Ticket| {
            ticket.object.journal == journal
                && (ticket.object.first_lsn..=ticket.object.last_lsn).contains(&lsn)
        };
        let others: Vec<Ticket> = found.extract_if(.., has).collect();
        // Otherwise the next process does it.
        others.iter().for_each(|ticket| self.remove(ticket).unwrap_or_default());
    }

    /// All of that journal before that LSN is noted as archived.
    pub(super) fn forget(&mut self, journal: &str, next_lsn: u64) {
        let Some(found) = self.found.as_mut().filter(|found| !found.is_empty()) else { return };
        let is_over =
            |ticket: &mut Ticket| ticket.object.journal == journal && ticket.object.last_lsn < next_lsn;
        for ticket in found.extract_if(.., is_over) {
            tracing::error!(
                file = %ticket.file.display(), records = ticket.object.records,
                "a closed object is in no archive, and its journal has nothing of it any more; it is kept here"
            );
        }
    }

    /// They are asked for once more.
    pub(super) fn put_back(&mut self, tickets: impl Iterator<Item = Ticket>) {
        self.found.get_or_insert_default().extend(tickets);
    }

    fn read(&self) -> io::Result<Vec<Ticket>> {
        let mut dir = self.data_dir.clone();
        for below in self.dir.strip_prefix(&self.data_dir).unwrap_or(&self.dir) {
            let above = dir.clone();
            dir.push(below);
            self.disk.make_dir(&dir)?;
            self.disk.sync_dir(&above)?;
        }
        let (mut tickets, mut objects) = (Vec::new(), Vec::new());
        for entry in self.disk.list(&self.dir)?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let path = self.dir.join(&entry.name);
            if path.extension().is_none_or(|ending| ending != TICKET) {
                objects.push(path);
                continue;
            }
            let file = path.with_extension("");
            match note::load::<_, Page>(&self.disk, &path) {
                Ok(Some((Page { v: 1, object, crc }, index))) => {
                    tickets.push(Ticket { object, file, crc, index });
                }
                // The journal still has what is in it.
                found => {
                    let error =
                        found.err().map_or_else(|| "another version wrote it".to_owned(), |e| e.to_string());
                    tracing::error!(ticket = %path.display(), error, "an object that was to be archived is made anew");
                    self.disk.remove(&path)?;
                }
            }
        }
        let is_done = |ticket: &Ticket| {
            self.noted.get(&ticket.object.journal).is_some_and(|next| ticket.object.last_lsn < *next)
        };
        let (done, left): (Vec<Ticket>, Vec<Ticket>) = tickets.into_iter().partition(is_done);
        done.iter().try_for_each(|ticket| self.remove(ticket))?;
        for path in objects {
            let is_of =
                |ticket: &&Ticket| path == ticket.file || path == ticket.file.with_added_extension(UPLOAD);
            if !left.iter().any(|ticket| is_of(&ticket)) && self.disk.exists(&path)? {
                self.disk.remove(&path)?;
            }
        }
        Ok(left)
    }

    /// A new object, to be appended to.
    pub(super) fn create(&mut self, file: &str) -> io::Result<Unfinished<D::File>> {
        self.look()?;
        let path = self.dir.join(file);
        // One that was closed, but not certainly: it is another one now.
        let ticket = ticket_of(&path);
        if self.disk.exists(&ticket)? {
            self.disk.remove(&ticket)?;
        }
        let file = self.disk.create(&path)?;
        fault::point("object-created");
        Ok(Unfinished { file, path })
    }

    pub(super) fn append(&self, object: &mut Unfinished<D::File>, bytes: &[u8]) -> io::Result<()> {
        fault::io("object-append")?;
        self.disk.append(&mut object.file, bytes)
    }

    /// Gives the object its ticket. Once this returns it stays until [`Spool::remove`], whatever happens.
    pub(super) fn close(
        &self,
        unfinished: &Unfinished<D::File>,
        object: ObjectLink,
        crc: u64,
        index: Vec<u8>,
    ) -> io::Result<Ticket> {
        fault::point("object-written");
        if !fault::planted("spool-not-synced") {
            self.disk.sync(&unfinished.file)?;
        }
        fault::point("object-synced");
        let ticket = Ticket { object, file: unfinished.path.clone(), crc, index };
        let page = Page { v: 1, object: ticket.object.clone(), crc };
        note::save(&self.disk, &ticket_of(&ticket.file), &page, &ticket.index, |stage| {
            if stage == Stage::Durable {
                fault::point("object-spooled");
            }
            true
        })?;
        Ok(ticket)
    }

    /// Removes what was written so far, as well as can be done.
    pub(super) fn discard(&self, object: Unfinished<D::File>) {
        drop(object.file);
        // The next process removes it otherwise.
        self.disk.remove(&object.path).ok();
    }

    /// It is in the archive, and that is noted.
    pub(super) fn remove(&self, ticket: &Ticket) -> io::Result<()> {
        let upload = ticket.file.with_added_extension(UPLOAD);
        for path in [ticket_of(&ticket.file), upload, ticket.file.clone()] {
            if self.disk.exists(&path)? {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }
}

fn ticket_of(file: &Path) -> PathBuf {
    file.with_added_extension(TICKET)
}

/// An object being written.
#[derive(Debug)]
pub(super) struct Unfinished<F> {
    file: F,
    path: PathBuf,
}
