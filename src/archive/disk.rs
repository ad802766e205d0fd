//! What the archiver asks of a file system. A trait, so that tests can cut the power at every step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::shelf::{Entry, EntryKind};

/// A file system. Nothing is durable before it is synced: bytes by [`Disk::sync`], names by
/// [`Disk::sync_dir`] of their folder.
pub trait Disk {
    type File;
    /// A new, empty file; one of that name is removed, and never emptied: it may have another name, too.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// In a folder that is there. One that is there already is fine.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether there is anything of that name, a link that leads nowhere, too.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// A file to be read from that byte on. What is no file is an error, and nobody waits for it.
    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read>>;
    /// What is in a folder, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// One that has nothing in it.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// The machine's. Calls may wait for the disk: for the archiver's own thread only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Os;

impl Disk for Os {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(path)?;
                OpenOptions::new().write(true).create_new(true).open(path)
            }
            made => made,
        }
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Where a link leads to is not the archive.
                if fs::symlink_metadata(path)?.is_dir() { Ok(()) } else { Err(error) }
            }
            result => result,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if is_nothing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &Path, offset: u64) -> io::Result<Box<dyn Read>> {
        // A pipe must not be waited for, nor a link be followed out of the archive.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is no file"));
        }
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        Ok(Box::new(file))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_text = entry.file_name().to_str().is_some();
            let name = entry.file_name().to_string_lossy().into_owned();
            let (kind, bytes) = match entry.metadata() {
                Ok(it) if it.is_file() && is_text => (EntryKind::File, it.len()),
                Ok(it) if it.is_dir() && is_text => (EntryKind::Folder, 0),
                Ok(_) => (EntryKind::Other, 0),
                // It went meanwhile.
                Err(error) if is_nothing(&error) => continue,
                Err(error) => return Err(error),
            };
            found.push(Entry { name, kind, bytes });
        }
        Ok(found)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// Whether there is something of that name, and it is no file.
pub(super) fn is_no_file(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    // A link, or a socket.
    let others = [Errno::ELOOP, Errno::ENXIO].map(|errno| Some(errno as i32));
    error.kind() == io::ErrorKind::IsADirectory || others.contains(&code)
}

/// Whether there is nothing of that name.
pub(super) fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
