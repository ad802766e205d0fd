//! Bytes of a record: one thing a frame carries. Pure.
//!
//! ```text
//! record:  length u32 | crc32c u32 | kind u8 | 0 u8 | slots u16 | fields
//! entry:   seq u64 | meta length u32 | body length u32 | meta | body
//! marks:   journal id | (lsn u64 | tag u32 | slot u16 | outcome u8 | 0)...
//! gap:     journal id | first lost lsn u64 | last lost lsn u64
//! ```
//!
//! `meta` and `body` are opaque here: what a webhook means is not the journal's business. An entry
//! has `slots` parcels to settle; a mark settles one of them. The CRC covers all that follows it,
//! so that one record can be read alone.

use crc_fast::crc32_iscsi;

use super::buffer::AlignedBuf;
use super::frame::{JournalId, crc_of_both};

/// Bytes before a record's fields.
const PREFIX: usize = 12;
const ENTRY_FIELDS: usize = 16;
/// Bytes of an entry up to the end of its sequence number.
pub(super) const NUMBERED: usize = PREFIX + 8;
const MARK: usize = 16;

const ENTRY_KIND: u8 = 1;
const MARKS_KIND: u8 = 2;
const GAP_KIND: u8 = 3;

/// Marks of one record, 64 KiB: what has piled up on a full disk goes in small steps.
pub(super) const MARKS_MAX: usize = 4096;

/// How a parcel was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Settled {
    Delivered = 1,
    /// The region had everything in it already.
    Duplicate = 2,
    /// Given up: it is a dead letter, or was one.
    Dead = 3,
}

impl Settled {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Delivered),
            2 => Some(Self::Duplicate),
            3 => Some(Self::Dead),
            _ => None,
        }
    }
}

/// One parcel is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub lsn: u64,
    /// Which parcel of the entry.
    pub slot: u16,
    pub outcome: Settled,
    /// Opaque here; forwarding puts the region's id in, so that a backlog can be counted by region
    /// without reading the entries again.
    pub tag: u32,
}

/// A record, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    Entry(Entry<'a>),
    Marks(Marks<'a>),
    /// Records that recovery found damaged: they were durable once and are lost.
    Gap {
        journal: JournalId,
        first_lsn: u64,
        last_lsn: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Order over all journals of a process, and over restarts.
    pub seq: u64,
    /// Parcels to settle.
    pub slots: u16,
    pub meta: &'a [u8],
    pub body: &'a [u8],
}

/// Marks for the entries of one journal, not necessarily the one they are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks<'a> {
    pub journal: JournalId,
    items: &'a [u8],
}

impl Marks<'_> {
    pub fn iter(&self) -> impl Iterator<Item = Mark> + '_ {
        self.items.chunks_exact(MARK).map(|b| Mark {
            lsn: u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            tag: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            slot: u16::from_le_bytes([b[12], b[13]]),
            // Checked by `read`.
            outcome: Settled::from_byte(b[14]).unwrap_or(Settled::Delivered),
        })
    }
}

/// Why bytes are not a good record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    #[error("fewer bytes than the record needs")]
    Short,
    #[error("record checksum does not match")]
    Crc,
    #[error("lengths in the record contradict each other")]
    Lengths,
    /// The checksum is right, so a newer version wrote it: never skipped.
    #[error("record kind {0} is not known to this version; start the version that wrote it")]
    Unknown(u8),
}

/// Bytes an entry takes.
pub fn entry_len(meta: usize, body: usize) -> usize {
    PREFIX + ENTRY_FIELDS + meta + body
}

/// Appends an entry whose meta is written by `meta` straight into the frame (no copy in between).
/// Returns the record's length.
pub fn write_entry(
    buf: &mut AlignedBuf,
    seq: u64,
    slots: u16,
    meta: impl FnOnce(&mut AlignedBuf),
    body: &[u8],
) -> usize {
    let start = begin(buf, ENTRY_KIND, slots);
    let mut fields = [0u8; ENTRY_FIELDS];
    fields[0..8].copy_from_slice(&seq.to_le_bytes());
    fields[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    buf.extend_from_slice(&fields);
    let meta_at = buf.len();
    meta(buf);
    let meta_len = (buf.len() - meta_at) as u32;
    buf.as_mut_slice()[meta_at - 8..meta_at - 4].copy_from_slice(&meta_len.to_le_bytes());
    buf.extend_from_slice(body);
    end(buf, start)
}

/// Gives the entry that `record` holds the number `seq`. `rest` is the checksum of all that stands behind the number,
/// which is not read again. Returns that of the whole record.
pub(super) fn number_entry(record: &mut [u8], seq: u64, rest: u32) -> u32 {
    let rest_len = record.len() - NUMBERED;
    let start = &mut record[..NUMBERED];
    start[PREFIX..].copy_from_slice(&seq.to_le_bytes());
    let crc = crc_of_both(crc32_iscsi(&start[8..]), rest, rest_len);
    start[4..8].copy_from_slice(&crc.to_le_bytes());
    crc_of_both(crc32_iscsi(start), rest, rest_len)
}

/// Appends marks for the entries of `journal`.
pub fn write_marks(buf: &mut AlignedBuf, journal: &JournalId, marks: &[Mark]) -> usize {
    let start = begin(buf, MARKS_KIND, 0);
    buf.extend_from_slice(journal);
    for mark in marks {
        buf.extend_from_slice(&mark.lsn.to_le_bytes());
        buf.extend_from_slice(&mark.tag.to_le_bytes());
        buf.extend_from_slice(&mark.slot.to_le_bytes());
        buf.extend_from_slice(&[mark.outcome as u8, 0]);
    }
    end(buf, start)
}

/// Upper bound of the bytes that so many marks take in a frame.
pub(super) fn marks_len(marks: usize) -> usize {
    entry_len(0, MARK * (marks + 1))
}

/// Appends the report of a lost range.
pub fn write_gap(buf: &mut AlignedBuf, journal: &JournalId, first_lsn: u64, last_lsn: u64) -> usize {
    let start = begin(buf, GAP_KIND, 0);
    buf.extend_from_slice(journal);
    buf.extend_from_slice(&first_lsn.to_le_bytes());
    buf.extend_from_slice(&last_lsn.to_le_bytes());
    end(buf, start)
}

fn begin(buf: &mut AlignedBuf, kind: u8, slots: u16) -> usize {
    let start = buf.len();
    let mut prefix = [0u8; PREFIX];
    prefix[8] = kind;
    prefix[10..12].copy_from_slice(&slots.to_le_bytes());
    buf.extend_from_slice(&prefix);
    start
}

fn end(buf: &mut AlignedBuf, start: usize) -> usize {
    let record = &mut buf.as_mut_slice()[start..];
    let len = record.len();
    record[0..4].copy_from_slice(&(len as u32).to_le_bytes());
    let crc = crc32_iscsi(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    len
}

/// The record at the start of `bytes` and its length.
pub fn read(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordFault> {
    let record = cut(bytes)?;
    if crc32_iscsi(&record[8..]) != word(record, 4) {
        return Err(RecordFault::Crc);
    }
    Ok((fields(record)?, record.len()))
}

/// As [`read`], without a look at the checksum: for bytes that this process encoded itself, and for
/// those of a frame whose own checksum was right.
pub fn read_known(bytes: &[u8]) -> Result<(Record<'_>, usize), RecordFault> {
    let record = cut(bytes)?;
    Ok((fields(record)?, record.len()))
}

/// The bytes of the record at the start of `bytes`: at least a prefix.
fn cut(bytes: &[u8]) -> Result<&[u8], RecordFault> {
    let prefix = bytes.get(..PREFIX).ok_or(RecordFault::Short)?;
    let len = word(prefix, 0) as usize;
    if len < PREFIX {
        return Err(RecordFault::Lengths);
    }
    bytes.get(..len).ok_or(RecordFault::Short)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn fields(record: &[u8]) -> Result<Record<'_>, RecordFault> {
    let long = |b: &[u8], at: usize| {
        u64::from_le_bytes([
            b[at],
            b[at + 1],
            b[at + 2],
            b[at + 3],
            b[at + 4],
            b[at + 5],
            b[at + 6],
            b[at + 7],
        ])
    };
    let fields = &record[PREFIX..];
    let journal = || -> Result<JournalId, RecordFault> {
        fields.get(..16).and_then(|id| id.try_into().ok()).ok_or(RecordFault::Lengths)
    };
    Ok(match record[8] {
        ENTRY_KIND => {
            if fields.len() < ENTRY_FIELDS {
                return Err(RecordFault::Lengths);
            }
            let meta_len = word(fields, 8) as usize;
            let body_len = word(fields, 12) as usize;
            if fields.len() != ENTRY_FIELDS + meta_len + body_len {
                return Err(RecordFault::Lengths);
            }
            let (meta, body) = fields[ENTRY_FIELDS..].split_at(meta_len);
            Record::Entry(Entry {
                seq: long(fields, 0),
                slots: u16::from_le_bytes([record[10], record[11]]),
                meta,
                body,
            })
        }
        MARKS_KIND => {
            let items = fields.get(16..).ok_or(RecordFault::Lengths)?;
            if items.len() % MARK != 0 {
                return Err(RecordFault::Lengths);
            }
            if let Some(bad) = items.chunks_exact(MARK).find(|m| Settled::from_byte(m[14]).is_none()) {
                return Err(RecordFault::Unknown(bad[14]));
            }
            Record::Marks(Marks { journal: journal()?, items })
        }
        GAP_KIND if fields.len() == 32 => {
            Record::Gap { journal: journal()?, first_lsn: long(fields, 16), last_lsn: long(fields, 24) }
        }
        GAP_KIND => return Err(RecordFault::Lengths),
        other => return Err(RecordFault::Unknown(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let mut buf = AlignedBuf::with_capacity(0);
        write_entry(&mut buf, 77, 3, |b| b.extend_from_slice(b"meta"), b"{\"a\":1}");
        let marks = [
            Mark { lsn: 5, slot: 2, outcome: Settled::Delivered, tag: 9 },
            Mark { lsn: u64::MAX, slot: u16::MAX, outcome: Settled::Duplicate, tag: u32::MAX },
            Mark { lsn: 6, slot: 0, outcome: Settled::Dead, tag: 9 },
        ];
        write_marks(&mut buf, &[8; 16], &marks);
        write_gap(&mut buf, &[8; 16], 10, 12);
        let bytes = buf.as_slice();
        let (first, n) = read(bytes).unwrap();
        assert_eq!(first, Record::Entry(Entry { seq: 77, slots: 3, meta: b"meta", body: b"{\"a\":1}" }));
        let (second, m) = read(&bytes[n..]).unwrap();
        let Record::Marks(read_marks) = second else { panic!("marks expected") };
        assert_eq!(read_marks.iter().collect::<Vec<_>>(), marks);
        let (third, k) = read(&bytes[n + m..]).unwrap();
        assert_eq!(third, Record::Gap { journal: [8; 16], first_lsn: 10, last_lsn: 12 });
        assert_eq!(n + m + k, bytes.len());
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let mut buf = AlignedBuf::with_capacity(0);
        write_entry(&mut buf, 1, 1, |b| b.extend_from_slice(b"m"), b"body");
        for bit in 0..buf.len() * 8 {
            let mut bytes = buf.as_slice().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit} flipped and not seen");
        }
    }

    #[test]
    fn known_records_are_read_within_their_bounds_whatever_they_hold() {
        let mut buf = AlignedBuf::with_capacity(0);
        write_entry(&mut buf, 1, 1, |b| b.extend_from_slice(b"meta"), b"body");
        let bytes = buf.as_slice();
        assert_eq!(read_known(bytes), read(bytes));
        for len in 0..bytes.len() {
            assert_eq!(read_known(&bytes[..len]), Err(RecordFault::Short), "cut at {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok((_, len)) = read_known(&bytes) {
                assert_eq!(len, bytes.len());
            }
        }
    }
}
