//! Bytes of the key log. Pure.
//!
//! ```text
//! file:    header 32 | block... | zeros
//! header:  "PENSTKEY" | version u32 | 0... | crc32c u32
//! block:   "KEYS" | records u32 | 0 u64 | crc32c of the records u32 | 0 u64 | crc32c u32 | record 32...
//! record:  key 16 | value u64 | minute u32 | region id u32
//! ```
//!
//! All is in pieces of 32 bytes, little endian. A file is only ever appended to, by one process, so that
//! what is wrong at its end was never finished, and what is wrong before a good block is damage. The limit
//! is the journal's: damage to the very last block looks like an unfinished one.

use crc_fast::crc32_iscsi;

use crate::fault;
use crate::parse::Key;

const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"PENSTKEY";
const BLOCK: &[u8; 4] = b"KEYS";
/// Bytes of a header, a block's head and a record.
pub const PIECE: usize = 32;

/// An event that was delivered, or found to have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    /// What it said: [`crate::parse::Event::value`].
    pub value: u64,
    /// Of the clock that counts while the gateway runs.
    pub minute: u32,
    /// `entry::name_id` of the region's name.
    pub region: u32,
}

/// What a file held beside its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    pub records: u64,
    /// Minute of its newest record.
    pub newest: Option<u32>,
    /// Bytes that were written and are damaged.
    pub damaged: usize,
    /// Bytes at the end that were not written to their end.
    pub torn: usize,
}

/// The file is of a version that this program does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key log format {0} is not known to this version; start the version that wrote it")]
pub struct Newer(pub u32);

/// What a file begins with.
pub fn header() -> [u8; PIECE] {
    let mut header = [0; PIECE];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    seal(header)
}

fn seal(mut piece: [u8; PIECE]) -> [u8; PIECE] {
    let crc = crc32_iscsi(&piece[..PIECE - 4]);
    piece[PIECE - 4..].copy_from_slice(&crc.to_le_bytes());
    piece
}

fn sealed(piece: &[u8; PIECE]) -> bool {
    crc32_iscsi(&piece[..PIECE - 4]) == word(piece, PIECE - 4)
}

fn word(piece: &[u8; PIECE], at: usize) -> u32 {
    u32::from_le_bytes([piece[at], piece[at + 1], piece[at + 2], piece[at + 3]])
}

/// Appends one record; [`block`] goes before the first of a block.
pub fn push(record: &Record, out: &mut Vec<u8>) {
    let mut piece = [0; PIECE];
    piece[..16].copy_from_slice(&record.key);
    piece[16..24].copy_from_slice(&record.value.to_le_bytes());
    piece[24..28].copy_from_slice(&record.minute.to_le_bytes());
    piece[28..].copy_from_slice(&record.region.to_le_bytes());
    out.extend_from_slice(&piece);
}

/// The head of a block of these records.
pub fn block(records: &[u8]) -> [u8; PIECE] {
    let mut head = [0; PIECE];
    head[..4].copy_from_slice(BLOCK);
    head[4..8].copy_from_slice(&((records.len() / PIECE) as u32).to_le_bytes());
    head[16..20].copy_from_slice(&crc32_iscsi(records).to_le_bytes());
    seal(head)
}

fn record(piece: &[u8; PIECE]) -> Record {
    let mut key = Key::default();
    key.copy_from_slice(&piece[..16]);
    let value = u64::from(word(piece, 16)) | u64::from(word(piece, 20)) << 32;
    Record { key, value, minute: word(piece, 24), region: word(piece, 28) }
}

/// Visits the records of a file in order.
pub fn read(file: &[u8], mut visit: impl FnMut(&Record)) -> Result<Contents, Newer> {
    let (pieces, cut) = file.as_chunks::<PIECE>();
    let mut contents = Contents { torn: cut.len(), ..Contents::default() };
    let Some((header, pieces)) = pieces.split_first() else { return Ok(contents) };
    let good = sealed(header) && header.starts_with(MAGIC);
    match word(header, 8) {
        VERSION => {}
        newer if good => return Err(Newer(newer)),
        _ => {}
    }
    // Pieces since the last good block: damage if another one follows.
    let mut bad = usize::from(!good);
    let mut rest = pieces;
    // Nothing but zeros was made ahead.
    while let Some((head, after)) = rest.split_first()
        && (bad > 0 || *head != [0; PIECE] || rest.iter().any(|piece| *piece != [0; PIECE]))
    {
        let Some(records) = records(head, after) else {
            bad += 1;
            rest = after;
            continue;
        };
        contents.damaged += bad * PIECE;
        bad = 0;
        for record in records.iter().map(record) {
            contents.newest = contents.newest.max(Some(record.minute));
            visit(&record);
        }
        contents.records += records.len() as u64;
        rest = after.get(records.len()..).unwrap_or_default();
    }
    let ahead = file.iter().rev().take_while(|byte| **byte == 0).count();
    contents.torn += (bad * PIECE).saturating_sub(ahead);
    Ok(contents)
}

/// The records of the block that begins with `head`, if it is whole.
fn records<'a>(head: &[u8; PIECE], after: &'a [[u8; PIECE]]) -> Option<&'a [[u8; PIECE]]> {
    if !head.starts_with(BLOCK) || !sealed(head) {
        return None;
    }
    let records = after.get(..word(head, 4) as usize)?;
    let good = crc32_iscsi(records.as_flattened()) == word(head, 16);
    (good || fault::planted("torn-keys-believed")).then_some(records)
}
