//! Reads a closed object from its first byte to its last, as anybody can: what is in it.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;

use super::chain::merkle::{Hash, Tree};

/// No record is longer: bodies are of a few megabytes, and JSON needs at most six bytes for one of theirs. What a
/// stranger put there must not fill the memory.
pub const RECORD_MAX: u64 = 256 << 20;

/// What a link says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    pub first_lsn: u64,
    pub last_lsn: u64,
    pub records: u64,
    /// Of its records, before compression.
    pub raw_bytes: u64,
    /// Of the object itself.
    pub bytes: u64,
    pub sha256: Hash,
    /// `None`: it was not asked for.
    pub merkle_root: Option<Hash>,
}

/// Reads all of an object of `journal`, which is said to have that many bytes, and its records so many; one that has
/// more is not read on. `each` gets every record, without its line break. Every frame is checked on the way, and that the
/// records are of that journal and in order.
pub fn contents(
    journal: &str,
    object: impl Read,
    (bytes, raw_bytes): (u64, u64),
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Contents> {
    let sums = Rc::new(RefCell::new((Context::new(&SHA256), 0)));
    let counted = Counted { object: object.take(bytes.saturating_add(1)), sums: Rc::clone(&sums) };
    let mut lines = BufReader::new(zstd::Decoder::new(counted)?);
    let (mut line, mut tree) = (Vec::new(), Tree::default());
    let mut found = Contents::default();
    loop {
        line.clear();
        let left = raw_bytes.saturating_sub(found.raw_bytes).saturating_add(1);
        if lines.by_ref().take(RECORD_MAX.min(left)).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        found.raw_bytes += line.len() as u64;
        if found.raw_bytes > raw_bytes {
            return Err(wrong(format!("its records have more than their {raw_bytes} bytes")));
        }
        let record = line.strip_suffix(b"\n").ok_or_else(|| wrong("it ends within a record"))?;
        let lsn = lsn(journal, record)?;
        if found.records == 0 {
            found.first_lsn = lsn;
        } else if lsn <= found.last_lsn {
            return Err(wrong(format!("record {journal}-{lsn} stands behind {}", found.last_lsn)));
        }
        found.last_lsn = lsn;
        found.records += 1;
        tree.push_record(record);
        each(record)?;
    }
    drop(lines);
    found.merkle_root = Some(tree.root());
    let (sha256, bytes) = sums.replace((Context::new(&SHA256), 0));
    found.bytes = bytes;
    found.sha256 = sha256.finish().as_ref().try_into().unwrap_or_default();
    if found.records == 0 { Err(wrong("it has no record")) } else { Ok(found) }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn lsn(journal: &str, record: &[u8]) -> io::Result<u64> {
    #[derive(Deserialize)]
    struct Line<'a> {
        id: &'a str,
    }
    let Line { id } = serde_json::from_slice(record)
        .map_err(|error| wrong(format!("what should be a record is not: {error}")))?;
    let lsn = id.strip_prefix(journal).and_then(|rest| rest.strip_prefix('-')?.parse().ok());
    lsn.ok_or_else(|| wrong(format!("record {id:?} is not one of journal {journal}")))
}

/// Digests what is read from an object, compressed as it is.
struct Counted<R> {
    object: R,
    sums: Rc<RefCell<(Context, u64)>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.object.read(buffer)?;
        let (context, bytes) = &mut *self.sums.borrow_mut();
        context.update(&buffer[..read]);
        *bytes += read as u64;
        Ok(read)
    }
}
