//! An archive that is a folder.
//!
//! ```text
//! <archive>/.tmp/<gateway>-<journal>-<first lsn>                               being written
//! <archive>/dt=YYYY-MM-DD/hour=HH/<gateway>-<journal>-<first lsn>.jsonl.zst    closed
//! ```
//!
//! An object has its final name only once all its bytes are durable, and the name is durable before
//! anybody is told. The folder itself must exist: a disk that is not mounted must not be taken for an
//! empty archive.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::pack::Name;
use crate::fault;

const UNFINISHED: &str = ".tmp";
const ENDING: &str = ".jsonl.zst";

/// The archive of one region.
#[derive(Debug)]
pub struct Folder<D> {
    disk: D,
    root: PathBuf,
    gateway: String,
    /// Ids in hex of the journals of this process: no other process writes objects of these.
    journals: Vec<String>,
    /// What an earlier process left unfinished is gone.
    tidy: bool,
}

/// An object being written.
#[derive(Debug)]
pub struct Unfinished<F> {
    file: F,
    path: PathBuf,
    /// Its final place.
    place: Place,
}

#[derive(Debug)]
struct Place {
    day: PathBuf,
    hour: PathBuf,
    object: PathBuf,
}

/// What came of asking for an object.
#[derive(Debug)]
pub enum Opened<F> {
    New(Unfinished<F>),
    /// It was closed by a process that could not note it any more. The LSN of its last record.
    Closed {
        last_lsn: u64,
    },
}

impl<D: Disk> Folder<D> {
    pub fn new(disk: D, root: PathBuf, gateway: String, journals: Vec<String>) -> Self {
        Self { disk, root, gateway, journals, tidy: false }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what an earlier process left unfinished. Before any object is opened, and never again.
    pub fn tidy(&mut self) -> io::Result<()> {
        if self.tidy {
            return Ok(());
        }
        let folder = self.root.join(UNFINISHED);
        self.disk.make_dir(&folder)?;
        for name in self.disk.list(&folder)? {
            if self.journals.iter().any(|journal| name.contains(journal.as_str())) {
                self.disk.remove(&folder.join(name))?;
            }
        }
        self.tidy = true;
        Ok(())
    }

    pub fn open(&mut self, journal: &str, name: Name) -> io::Result<Opened<D::File>> {
        self.tidy()?;
        let file = format!("{}-{journal}-{}", self.gateway, name.first_lsn);
        let [day, hour] = name.hour.folders();
        let day = self.root.join(day);
        let hour = day.join(hour);
        let place = Place { object: hour.join(format!("{file}{ENDING}")), day, hour };
        if self.disk.exists(&place.object)? && !fault::planted("object-written-twice") {
            let last_lsn = self.last_lsn(journal, name, &place.object).map_err(|error| {
                let path = place.object.display();
                io::Error::new(
                    error.kind(),
                    format!("{path} is not what this gateway writes ({error}); move it away"),
                )
            })?;
            self.sync_place(&place)?;
            return Ok(Opened::Closed { last_lsn });
        }
        let path = self.root.join(UNFINISHED).join(file);
        let file = self.disk.create(&path)?;
        fault::point("object-created");
        Ok(Opened::New(Unfinished { file, path, place }))
    }

    pub fn append(&self, object: &mut Unfinished<D::File>, bytes: &[u8]) -> io::Result<()> {
        fault::io("object-append")?;
        self.disk.append(&mut object.file, bytes)
    }

    /// Gives the object its final name. Once this returns it is there whatever happens.
    pub fn close(&self, object: &Unfinished<D::File>) -> io::Result<()> {
        let Unfinished { file, path, place } = object;
        fault::point("object-written");
        if !fault::planted("object-not-synced") {
            self.disk.sync(file)?;
        }
        fault::point("object-synced");
        self.disk.make_dir(&place.day)?;
        self.disk.make_dir(&place.hour)?;
        self.disk.rename(path, &place.object)?;
        fault::point("object-renamed");
        self.sync_place(place)?;
        fault::point("object-closed");
        Ok(())
    }

    /// Removes what was written so far, as well as can be done.
    pub fn discard(&self, object: Unfinished<D::File>) {
        drop(object.file);
        // It may have its final name already, or its disk may be gone: the next process removes it.
        self.disk.remove(&object.path).ok();
    }

    /// Makes the object's name durable, and those of its folders, which may have been made for it.
    fn sync_place(&self, place: &Place) -> io::Result<()> {
        if fault::planted("object-name-not-synced") {
            return Ok(());
        }
        self.disk.sync_dir(&place.hour)?;
        self.disk.sync_dir(&place.day)?;
        self.disk.sync_dir(&self.root)
    }

    /// Reads a closed object to its end; every frame of it is checked on the way.
    fn last_lsn(&self, journal: &str, name: Name, object: &Path) -> io::Result<u64> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            id: &'a str,
        }
        let mut lines = BufReader::new(zstd::Decoder::new(self.disk.read(object)?)?);
        let (mut line, mut last) = (Vec::new(), Vec::new());
        while lines.read_until(b'\n', &mut line)? > 0 {
            std::mem::swap(&mut line, &mut last);
            line.clear();
        }
        let last: Line<'_> = serde_json::from_slice(&last)?;
        let lsn = last.id.strip_prefix(journal).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
        lsn.filter(|lsn| *lsn >= name.first_lsn)
            .ok_or_else(|| io::Error::other("its last record is not one of this journal from there on"))
    }
}

/// Whether objects can be written to a folder: makes a file in it and removes it again.
pub fn probe<D: Disk>(disk: &D, root: &Path) -> io::Result<()> {
    let path = root.join(".penstock-check");
    let mut file = disk.create(&path)?;
    let written = disk.append(&mut file, b"check\n").and_then(|()| disk.sync(&file));
    disk.remove(&path).and(written)
}
