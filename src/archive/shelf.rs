//! An archive to read from: a folder or a bucket.

use std::io::{self, Read};

/// An archive to read from. What is in it may be a stranger's.
pub trait Shelf {
    /// Names of the files and folders below a folder of the archive ("" = its root), sorted; nothing if there is no such
    /// folder.
    fn names(&self, below: &str) -> io::Result<Vec<Entry>>;
    /// `None`: there is no such file; what has the name and is no file does not count.
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>>;
    /// A part of a file: `len` bytes from `offset`, fewer at its end.
    fn read_at(&self, name: &str, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>>;
    /// How many files are read at once with [`Shelf::read_each`], because that takes as long as one.
    fn at_once(&self) -> usize {
        1
    }
    /// Each of some files, whole. One of more than `most` bytes is [`io::ErrorKind::FileTooLarge`].
    fn read_each(&self, names: Vec<String>, most: u64) -> Vec<io::Result<Option<Vec<u8>>>> {
        names.iter().map(|name| read_whole(self.open(name)?, most)).collect()
    }
}

fn read_whole(file: Option<Box<dyn Read>>, most: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = file else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(most)) } else { Ok(Some(bytes)) }
}

pub(super) fn too_large(most: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes"))
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: String,
    pub kind: EntryKind,
    /// Of a file.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    File,
    Folder,
    /// Neither, or its name is not UTF-8, or none that a file system would take: no gateway makes such a thing, and nobody
    /// opens it.
    Other,
}
