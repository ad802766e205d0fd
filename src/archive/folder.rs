//! An archive that is a folder.
//!
//! ```text
//! <archive>/.tmp/<gateway>-<journal>         being written
//! <archive>/<name>                           complete and durable
//! <archive>/<name>.aside-<n>                 what somebody else had put there
//! ```
//!
//! A file has its name only once all its bytes are durable, and the name is durable before anybody is told. The folder
//! itself must exist: a disk that is not mounted must not be taken for an empty archive.
//!
//! What is found under a name is never believed: either it is what was to be put there, byte for byte, or it is put aside.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use super::chain;
use super::disk::{Disk, is_no_file, is_nothing};
use super::note::Stage;
use super::shelf::{Entry, EntryKind, Shelf};
use super::store::{Body, Store, StoreFault, sums};
use crate::fault;

const UNFINISHED: &str = ".tmp";
/// Folders whose names are known to be durable: a few hours of them.
const ROOTED_MAX: usize = 16;

/// The archive of one region.
#[derive(Debug)]
pub struct Folder<D> {
    disk: D,
    root: PathBuf,
    /// Below [`UNFINISHED`]: no other gateway writes to it.
    own: String,
    rooted: HashSet<PathBuf>,
}

impl<D: Disk> Folder<D> {
    /// `own`: a name that no other gateway's is.
    pub fn new(disk: D, root: PathBuf, own: String) -> Self {
        Self { disk, root, own, rooted: HashSet::new() }
    }

    /// Removes what processes of this gateway left unfinished that wrote under the id of another journal.
    fn tidy(&self) -> io::Result<()> {
        let Some((gateway, id)) = self.own.rsplit_once('-') else { return Ok(()) };
        let folder = self.root.join(UNFINISHED);
        for entry in self.disk.list(&folder)?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let other = entry.name.strip_prefix(gateway).and_then(|rest| rest.strip_prefix('-'));
            let is_id =
                |other: &str| other.len() == id.len() && other.bytes().all(|byte| byte.is_ascii_hexdigit());
            if other.is_some_and(is_id) {
                self.disk.remove(&folder.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// As [`Store::check`], and leaves the folder as it was.
    pub fn try_once(&mut self) -> Result<(), StoreFault> {
        let folder = self.root.join(UNFINISHED);
        let was_there = self.disk.exists(&folder)?;
        let checked = self.check();
        if !was_there {
            // It may be missing, or a gateway that started just now may use it.
            self.disk.remove_dir(&folder).ok();
        }
        checked
    }

    fn write(&mut self, name: &str, body: &Body<'_>) -> io::Result<()> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        if self.disk.exists(&path)? && !fault::planted("object-written-twice") {
            if self.is_same(&path, body)? {
                return self.root(&folder);
            }
            self.put_aside(&path)?;
        }
        self.make_folders(&folder)?;
        let is_link = name.starts_with(chain::FOLDER);
        let unfinished = self.unfinished();
        let mut file = self.disk.create(&unfinished)?;
        match body {
            Body::Bytes(bytes) => self.disk.append(&mut file, bytes)?,
            Body::File { path, bytes, crc, .. } => {
                let copy = |bytes: &[u8]| self.disk.append(&mut file, bytes);
                if sums(self.disk.read(path, 0)?, copy)? != (*bytes, *crc) {
                    return Err(io::Error::other(format!("{} is not what it was just now", path.display())));
                }
            }
        }
        passed(is_link, Stage::Written);
        let unsynced = match is_link {
            true => fault::planted("link-not-synced"),
            false => fault::planted("object-not-synced"),
        };
        if !unsynced {
            self.disk.sync(&file)?;
        }
        passed(is_link, Stage::Synced);
        self.disk.rename(&unfinished, &path)?;
        passed(is_link, Stage::Renamed);
        let unsynced = match is_link {
            true => fault::planted("link-name-not-synced"),
            false => fault::planted("object-name-not-synced"),
        };
        if !unsynced {
            self.root(&folder)?;
        }
        passed(is_link, Stage::Durable);
        Ok(())
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join(UNFINISHED).join(&self.own)
    }

    /// Whether those bytes are there.
    fn is_same(&self, path: &Path, body: &Body<'_>) -> io::Result<bool> {
        let (bytes, sha256) = match body {
            Body::Bytes(bytes) => (bytes.len() as u64, chain::hash(bytes)),
            Body::File { bytes, sha256, .. } => (*bytes, (*sha256).to_owned()),
        };
        match self.digest(path, bytes) {
            Ok(found) => Ok(found == sha256),
            // Its own files this gateway can read.
            Err(error) if is_no_file(&error) || error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// SHA-256 of a file in hex, as far as one of `bytes` bytes can have it. Others may have put it there, so that a
    /// CRC would not do.
    fn digest(&self, path: &Path, bytes: u64) -> io::Result<String> {
        let mut context = Context::new(&SHA256);
        sums(self.disk.read(path, 0)?.take(bytes + 1), |chunk| {
            context.update(chunk);
            Ok(())
        })?;
        Ok(chain::hex(context.finish().as_ref()))
    }

    /// Somebody put other bytes under a name of this gateway's: they stay, beside it.
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        for number in 1..=u32::MAX {
            let aside = path.with_added_extension(format!("aside-{number}"));
            if !self.disk.exists(&aside)? {
                self.disk.rename(path, &aside)?;
                tracing::error!(
                    file = %path.display(), aside = %aside.display(),
                    "somebody else's file lay under a name of this gateway's; it was put aside: find out who writes \
                     there, and whether another gateway has this gateway.id"
                );
                break;
            }
        }
        Ok(())
    }

    /// Makes the folders down to `folder`.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        if self.rooted.contains(folder) {
            return Ok(());
        }
        let below: Vec<&Path> = folder.ancestors().take_while(|path| *path != self.root).collect();
        below.into_iter().rev().try_for_each(|path| self.make_folder(path))
    }

    /// What is no folder is put aside.
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match self.disk.make_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.put_aside(path)?;
                self.disk.make_dir(path)
            }
            made => made,
        }
    }

    /// Makes the names in a folder durable, and those of its own folders, which may have been made for it.
    fn root(&mut self, folder: &Path) -> io::Result<()> {
        self.disk.sync_dir(folder)?;
        if self.rooted.contains(folder) {
            return Ok(());
        }
        for above in folder.ancestors().skip(1).take_while(|path| path.starts_with(&self.root)) {
            self.disk.sync_dir(above)?;
        }
        if self.rooted.len() >= ROOTED_MAX {
            self.rooted.clear();
        }
        self.rooted.insert(folder.to_owned());
        Ok(())
    }
}

impl<D: Disk> Store for Folder<D> {
    /// Makes a file where unfinished ones are and removes it again.
    fn check(&mut self) -> Result<(), StoreFault> {
        self.make_folder(&self.root.join(UNFINISHED))?;
        self.tidy()?;
        let path = self.unfinished();
        let mut file = self.disk.create(&path)?;
        let written = self.disk.append(&mut file, b"check\n").and_then(|()| self.disk.sync(&file));
        self.disk.remove(&path).and(written)?;
        Ok(())
    }

    fn put(&mut self, name: &str, body: &Body<'_>) -> Result<(), StoreFault> {
        self.write(name, body).inspect_err(|_| {
            // It may be another disk that is mounted there next.
            self.rooted.clear();
        })?;
        Ok(())
    }
}

impl<D: Disk> Shelf for Folder<D> {
    fn names(&self, below: &str) -> io::Result<Vec<Entry>> {
        match self.disk.list(&self.root.join(below)) {
            Ok(mut names) => {
                names.sort_unstable();
                Ok(names)
            }
            // The root itself must be there.
            Err(error) if is_nothing(&error) && !below.is_empty() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        self.from(name, 0)
    }

    fn read_at(&self, name: &str, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.from(name, offset)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

impl<D: Disk> Folder<D> {
    fn from(&self, name: &str, offset: u64) -> io::Result<Option<Box<dyn Read>>> {
        match self.disk.read(&self.root.join(name), offset) {
            Ok(file) => Ok(Some(file)),
            Err(error) if is_nothing(&error) || is_no_file(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A step of putting a link or something else, for faults to be placed.
fn passed(is_link: bool, stage: Stage) {
    match (is_link, stage) {
        (true, Stage::Written) => fault::point("link-written"),
        (true, Stage::Synced) => fault::point("link-synced"),
        (true, Stage::Renamed) => fault::point("link-renamed"),
        (true, Stage::Durable) => fault::point("link-durable"),
        (false, Stage::Written) => fault::point("object-copied"),
        (false, Stage::Synced) => fault::point("object-copy-synced"),
        (false, Stage::Renamed) => fault::point("object-renamed"),
        (false, Stage::Durable) => fault::point("object-closed"),
    }
}
