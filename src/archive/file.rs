//! An archive that is a folder.
//!
//! ```text
//! <archive>/.tmp/<gateway>-<journal>-<first lsn>                               being written
//! <archive>/dt=YYYY-MM-DD/hour=HH/<gateway>-<journal>-<first lsn>.jsonl.zst    closed
//! <archive>/chain/<gateway>/<number>.json                                      its link, if links are signed
//! ```
//!
//! An object has its final name only once all its bytes are durable, and the name is durable, and so is its link, before
//! anybody is told. The folder itself must exist: a disk that is not mounted must not be taken for an
//! empty archive.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::{Chain, Head, ObjectLink};
use super::disk::Disk;
use super::pack::Name;
use super::read::{Contents, contents};
use crate::config::SigningKey;
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
    /// The hour whose folders have durable names.
    rooted: Option<PathBuf>,
    chain: Option<Chain<D>>,
}

/// Who signs an archive's links.
#[derive(Debug)]
pub struct Signer {
    pub key: SigningKey,
    /// Name of the region.
    pub region: String,
    /// Unix milliseconds.
    pub clock: fn() -> u64,
    /// The newest link that was noted.
    pub known: Option<Head>,
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
    /// Of the object, below the archive.
    name: String,
    journal: String,
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

impl<D: Disk + Clone> Folder<D> {
    pub fn new(
        disk: D,
        root: PathBuf,
        gateway: String,
        journals: Vec<String>,
        signer: Option<Signer>,
    ) -> Self {
        let chain = signer.zip(journals.first()).map(|(signer, journal)| {
            let Signer { key, region, clock, known } = signer;
            let unfinished = root.join(UNFINISHED).join(format!("{gateway}-{journal}-link"));
            Chain::new(disk.clone(), root.clone(), unfinished, [gateway.clone(), region], key, clock, known)
        });
        Self { disk, root, gateway, journals, tidy: false, rooted: None, chain }
    }
}

impl<D: Disk> Folder<D> {
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
            let is_own = self.journals.iter().any(|journal| name.contains(journal.as_str()));
            // No gateway's own name is no UTF-8.
            if is_own && !name.contains(char::REPLACEMENT_CHARACTER) {
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
        let below = format!("{day}/{hour}/{file}{ENDING}");
        let day = self.root.join(day);
        let hour = day.join(hour);
        let object = self.root.join(&below);
        let place = Place { object, day, hour, name: below, journal: journal.to_owned() };
        if self.disk.exists(&place.object)? && !fault::planted("object-written-twice") {
            let found = self.found(name, &place).map_err(|error| {
                let path = place.object.display();
                io::Error::new(
                    error.kind(),
                    format!("{path} is not what this gateway writes ({error}); move it away"),
                )
            })?;
            self.sync_place(&place)?;
            // By whom nobody knows: a process may have ended between the object and its link.
            let linked = |chain: &mut Chain<D>| chain.has(journal, found.first_lsn);
            if !self.chain.as_mut().map_or(Ok(true), linked)? {
                self.link(&place, &found)?;
            }
            return Ok(Opened::Closed { last_lsn: found.last_lsn });
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

    /// Gives the object its final name, and its link. Once this returns both are there whatever happens.
    pub fn close(&mut self, object: &Unfinished<D::File>, contents: &Contents) -> io::Result<()> {
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
        self.link(place, contents)
    }

    fn link(&mut self, place: &Place, contents: &Contents) -> io::Result<()> {
        match &mut self.chain {
            Some(chain) if !fault::planted("object-not-linked") => {
                chain.add(ObjectLink::new(place.name.clone(), place.journal.clone(), contents))
            }
            _ => Ok(()),
        }
    }

    /// Adds the digest of the hours that are over to the chain; false if there is nothing to add.
    pub fn prove(&mut self) -> io::Result<bool> {
        if self.chain.is_some() {
            self.tidy()?;
        }
        self.chain.as_mut().map_or(Ok(false), Chain::tick)
    }

    /// The newest link of the chain that is known to be durable.
    pub fn head(&self) -> Option<&Head> {
        self.chain.as_ref().and_then(Chain::head)
    }

    /// Removes what was written so far, as well as can be done.
    pub fn discard(&mut self, object: Unfinished<D::File>) {
        drop(object.file);
        // It may be another disk that is mounted there next.
        self.rooted = None;
        // It may have its final name already, or its disk may be gone: the next process removes it.
        self.disk.remove(&object.path).ok();
    }

    /// Makes the object's name durable, and those of its folders, which may have been made for it.
    fn sync_place(&mut self, place: &Place) -> io::Result<()> {
        if fault::planted("object-name-not-synced") {
            return Ok(());
        }
        self.disk.sync_dir(&place.hour)?;
        if self.rooted.as_ref() != Some(&place.hour) {
            self.disk.sync_dir(&place.day)?;
            self.disk.sync_dir(&self.root)?;
            self.rooted = Some(place.hour.clone());
        }
        Ok(())
    }

    /// What a closed object has; every frame of it is checked on the way.
    fn found(&self, name: Name, place: &Place) -> io::Result<Contents> {
        let found = contents(&place.journal, self.disk.read(&place.object)?, |_| Ok(()))?;
        if found.first_lsn == name.first_lsn {
            Ok(found)
        } else {
            Err(io::Error::other(format!("its first record is {}", found.first_lsn)))
        }
    }
}

/// Whether objects can be written to a folder: makes a file in it and removes it again.
pub fn probe<D: Disk>(disk: &D, root: &Path) -> io::Result<()> {
    let path = root.join(".penstock-check");
    let mut file = disk.create(&path)?;
    let written = disk.append(&mut file, b"check\n").and_then(|()| disk.sync(&file));
    disk.remove(&path).and(written)
}
