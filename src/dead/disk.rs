//! What the dead letters ask of a file system. A trait, so that a simulation can cut the power at every step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Files by path: whatever is done here is done rarely.
pub trait Disk: Clone {
    /// Names of the folders in a folder.
    fn folders(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Names of the files in a folder.
    fn files(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn exists(&self, path: &Path) -> bool;
    /// In a folder that is there.
    fn make_folder(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, dir: &Path) -> io::Result<()>;
    /// A new file for the owner alone, or one that is emptied; its bytes are durable.
    fn create(&self, file: &Path, bytes: &[u8]) -> io::Result<()>;
    fn size(&self, file: &Path) -> io::Result<u64>;
    /// So many bytes; fewer are an error.
    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Into a file that is there.
    fn write(&self, file: &Path, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes durable what a file holds.
    fn sync(&self, file: &Path) -> io::Result<()>;
    /// Gives a file that length.
    fn cut(&self, file: &Path, len: u64) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, file: &Path) -> io::Result<()>;
}

/// The machine's. Calls may wait for the disk.
#[derive(Debug, Clone, Copy)]
pub struct Os {
    /// False: nothing is synced.
    pub sync: bool,
}

fn names(dir: &Path, folders: bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // A name that is no text is none of ours.
        if entry.path().is_dir() == folders {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(names)
}

impl Disk for Os {
    fn folders(&self, dir: &Path) -> io::Result<Vec<String>> {
        names(dir, true)
    }

    fn files(&self, dir: &Path) -> io::Result<Vec<String>> {
        names(dir, false)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn make_folder(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        if self.sync { File::open(dir)?.sync_all() } else { Ok(()) }
    }

    fn create(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        file.write_all(bytes)?;
        if self.sync { file.sync_all() } else { Ok(()) }
    }

    fn size(&self, file: &Path) -> io::Result<u64> {
        Ok(fs::metadata(file)?.len())
    }

    fn read(&self, file: &Path, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(file)?.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn write(&self, file: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.write_all_at(bytes, at)
    }

    fn sync(&self, file: &Path) -> io::Result<()> {
        if self.sync { File::open(file)?.sync_all() } else { Ok(()) }
    }

    fn cut(&self, file: &Path, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(file)?.set_len(len)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }
}
