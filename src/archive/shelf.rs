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
    /// Neither, or its name is not UTF-8: no gateway makes such a thing.
    Other,
}
