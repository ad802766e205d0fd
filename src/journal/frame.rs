//! Bytes of a segment file: its header and its frames. Pure.
//!
//! ```text
//! segment:  header block | the same block again | frame | frame | ... | seal frame | unused
//! frame:    header (128) | records | trailer (12) | zeros up to 4 KiB
//! ```
//!
//! Little endian throughout. A frame is one group commit. It starts on a 4 KiB border and is never
//! rewritten, so a torn later write cannot touch what was acknowledged earlier. The salt is random
//! per segment: bytes of an older use of the file, or "frames" that somebody sends inside a webhook,
//! never verify. Each header holds a digest of the one before, so that a missing, doubled or moved
//! frame is seen.

use aws_lc_rs::digest;
use crc_fast::{CrcAlgorithm, checksum_combine, crc32_iscsi};

use super::buffer::BLOCK;
use crate::fault;

/// Bytes of a frame's header.
pub const HEADER: usize = 128;
/// Bytes after a frame's records.
pub const TRAILER: usize = 12;
/// Where the first frame of a segment starts: after two copies of the segment's header.
pub const FIRST_FRAME: u64 = 2 * BLOCK as u64;

const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"PNSF");
const END_MAGIC: u32 = u32::from_le_bytes(*b"PNSE");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"PNSTKSEG");
const VERSION: u8 = 1;

/// Half a SHA-256: enough against accident and splice, small enough to repeat in each header.
pub type Digest = [u8; 16];
pub type Salt = [u8; 16];
/// Random name of a journal, given when its folder is made.
pub type JournalId = [u8; 16];

/// What a frame is for beside carrying records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Records.
    Commit = 0,
    /// Nothing: its presence proves the frame before it.
    Tick = 1,
    /// The last frame of a segment.
    Seal = 2,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: FrameKind,
    pub salt: Salt,
    /// Counts the frames of a journal from 1, over all segments.
    pub number: u64,
    /// LSN of the first record; of the next record if there is none.
    pub first_lsn: u64,
    pub records: u32,
    /// Bytes of the records.
    pub payload: u32,
    /// Bytes of the whole frame with padding.
    pub padded: u32,
    pub payload_crc: u32,
    /// All records below this LSN were durable when the frame was submitted.
    pub durable_upto: u64,
    pub previous: Digest,
    /// Wall clock, Unix nanoseconds.
    pub written_at: u64,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Bytes of a frame on disk for `payload` bytes of records.
pub fn padded_len(payload: usize) -> usize {
    (HEADER + payload + TRAILER).next_multiple_of(BLOCK)
}

impl FrameHeader {
    fn encode(&self) -> [u8; HEADER] {
        let mut b = [0u8; HEADER];
        b[0..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        b[4] = VERSION;
        b[5] = self.kind as u8;
        b[8..24].copy_from_slice(&self.salt);
        b[24..32].copy_from_slice(&self.number.to_le_bytes());
        b[32..40].copy_from_slice(&self.first_lsn.to_le_bytes());
        b[40..44].copy_from_slice(&self.records.to_le_bytes());
        b[44..48].copy_from_slice(&self.payload.to_le_bytes());
        b[48..52].copy_from_slice(&self.padded.to_le_bytes());
        b[52..56].copy_from_slice(&self.payload_crc.to_le_bytes());
        b[56..64].copy_from_slice(&self.durable_upto.to_le_bytes());
        b[64..80].copy_from_slice(&self.previous);
        b[80..88].copy_from_slice(&self.written_at.to_le_bytes());
        let crc = crc32_iscsi(&b[..HEADER - 4]);
        b[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// The header at the start of `bytes`, if it verifies. Says nothing about the payload yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameFault> {
        let Some(b) = bytes.get(..HEADER) else { return Err(FrameFault::Short) };
        if u32_at(b, 0) != FRAME_MAGIC {
            return Err(FrameFault::NoFrame);
        }
        if crc32_iscsi(&b[..HEADER - 4]) != u32_at(b, HEADER - 4) {
            return Err(FrameFault::HeaderCrc);
        }
        if b[4] != VERSION {
            return Err(FrameFault::Version(b[4]));
        }
        let kind = match b[5] {
            0 => FrameKind::Commit,
            1 => FrameKind::Tick,
            2 => FrameKind::Seal,
            other => return Err(FrameFault::Version(other)),
        };
        let header = Self {
            kind,
            salt: array(b, 8),
            number: u64_at(b, 24),
            first_lsn: u64_at(b, 32),
            records: u32_at(b, 40),
            payload: u32_at(b, 44),
            padded: u32_at(b, 48),
            payload_crc: u32_at(b, 52),
            durable_upto: u64_at(b, 56),
            previous: array(b, 64),
            written_at: u64_at(b, 80),
        };
        if header.padded as usize != padded_len(header.payload as usize) {
            return Err(FrameFault::Lengths);
        }
        Ok(header)
    }

    /// What stands where a header has its salt. What an earlier use of the file left has another one, and may be
    /// anything: bodies lie in a journal as they were sent, headers in them too.
    pub fn salt_in(bytes: &[u8]) -> Option<&Salt> {
        bytes.get(8..)?.first_chunk()
    }

    /// LSN after the last record.
    pub fn next_lsn(&self) -> u64 {
        self.first_lsn + u64::from(self.records)
    }

    /// What the next frame's `previous` must be. Covers the payload through its CRC.
    pub fn digest(&self) -> Digest {
        let full = digest::digest(&digest::SHA256, &self.encode());
        array(full.as_ref(), 0)
    }
}

/// Why bytes are not a good frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    #[error("fewer bytes than a frame needs")]
    Short,
    #[error("no frame starts here")]
    NoFrame,
    #[error("header checksum does not match")]
    HeaderCrc,
    #[error("written by a newer version (format {0})")]
    Version(u8),
    #[error("lengths in the header contradict each other")]
    Lengths,
    #[error("payload checksum does not match")]
    PayloadCrc,
    #[error("trailer does not match the header")]
    Trailer,
    #[error("belongs to another segment or an earlier use of the file")]
    Salt,
    #[error("does not follow the frame before it")]
    Chain,
}

/// Checksum of so many first bytes of a frame's records, known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summed {
    pub bytes: usize,
    pub crc: u32,
}

impl Summed {
    /// Checksum of all records, of which `rest` is what stands behind those that are summed up.
    fn with(self, rest: &[u8]) -> u32 {
        let crc = crc32_iscsi(rest);
        if self.bytes == 0 { crc } else { crc_of_both(self.crc, crc, rest.len()) }
    }
}

/// Checksum of bytes of which the first part's is known, and that of the `second_len` bytes behind it.
pub fn crc_of_both(first: u32, second: u32, second_len: usize) -> u32 {
    if second_len == 0 {
        return first;
    }
    let (first, second) = (u64::from(first), u64::from(second));
    checksum_combine(CrcAlgorithm::Crc32Iscsi, first, second, second_len as u64) as u32
}

/// Closes a frame: `buf` holds [`HEADER`] bytes of anything and then the records; afterwards it
/// holds the frame as it is written, padding included. Returns the header it wrote.
pub fn finish(buf: &mut super::buffer::AlignedBuf, header: FrameHeader) -> FrameHeader {
    finish_summed(buf, header, Summed::default())
}

/// As [`finish`], where the first records are summed up already: megabytes are not read again.
pub fn finish_summed(
    buf: &mut super::buffer::AlignedBuf,
    mut header: FrameHeader,
    summed: Summed,
) -> FrameHeader {
    let payload = buf.len() - HEADER;
    // A frame is bounded by the segment, which is far below 4 GiB.
    header.payload = u32::try_from(payload).unwrap_or(u32::MAX);
    header.padded = u32::try_from(padded_len(payload)).unwrap_or(u32::MAX);
    header.payload_crc = summed.with(&buf.as_slice()[HEADER + summed.bytes..]);
    let mut trailer = [0u8; TRAILER];
    trailer[0..4].copy_from_slice(&header.payload_crc.to_le_bytes());
    trailer[4..8].copy_from_slice(&header.payload.to_le_bytes());
    trailer[8..12].copy_from_slice(&END_MAGIC.to_le_bytes());
    buf.extend_from_slice(&trailer);
    buf.pad_to_block();
    buf.as_mut_slice()[..HEADER].copy_from_slice(&header.encode());
    header
}

/// The frame at the start of `bytes`: header and records, both verified.
pub fn read(bytes: &[u8]) -> Result<(FrameHeader, &[u8]), FrameFault> {
    let header = FrameHeader::decode(bytes)?;
    let end = HEADER + header.payload as usize;
    let Some(trailer) = bytes.get(end..end + TRAILER) else { return Err(FrameFault::Short) };
    let payload = &bytes[HEADER..end];
    if u32_at(trailer, 0) != header.payload_crc
        || u32_at(trailer, 4) != header.payload
        || u32_at(trailer, 8) != END_MAGIC
    {
        return Err(FrameFault::Trailer);
    }
    if crc32_iscsi(payload) != header.payload_crc && !fault::planted("checksum-not-compared") {
        return Err(FrameFault::PayloadCrc);
    }
    Ok((header, payload))
}

/// First block of a segment, written twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    pub journal: JournalId,
    pub salt: Salt,
    /// Number of the segment, from 1.
    pub number: u64,
    /// LSN of the first record to be written here.
    pub base_lsn: u64,
    /// Number of the first frame to be written here.
    pub first_frame: u64,
    /// Digest of the last good frame before this segment.
    pub previous: Digest,
    /// Number of the segment before this one in the chain; 0 = none.
    pub previous_segment: u64,
    /// Where that segment ends: whatever lies beyond is void.
    pub previous_end: u64,
    /// Wall clock, Unix nanoseconds.
    pub created_at: u64,
}

const SEGMENT_HEADER: usize = 120;

impl SegmentHeader {
    /// Both copies, ready to write at offset 0.
    pub fn encode(&self, buf: &mut super::buffer::AlignedBuf) {
        let mut b = [0u8; SEGMENT_HEADER];
        b[0..8].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
        b[8] = VERSION;
        b[16..32].copy_from_slice(&self.journal);
        b[32..48].copy_from_slice(&self.salt);
        b[48..56].copy_from_slice(&self.number.to_le_bytes());
        b[56..64].copy_from_slice(&self.base_lsn.to_le_bytes());
        b[64..72].copy_from_slice(&self.first_frame.to_le_bytes());
        b[72..88].copy_from_slice(&self.previous);
        b[88..96].copy_from_slice(&self.previous_segment.to_le_bytes());
        b[96..104].copy_from_slice(&self.previous_end.to_le_bytes());
        b[104..112].copy_from_slice(&self.created_at.to_le_bytes());
        let crc = crc32_iscsi(&b[..SEGMENT_HEADER - 8]);
        b[SEGMENT_HEADER - 8..SEGMENT_HEADER - 4].copy_from_slice(&crc.to_le_bytes());
        buf.set_len(0);
        for _ in 0..2 {
            buf.extend_from_slice(&b);
            buf.pad_to_block();
        }
    }

    /// Reads the first copy that verifies. `Ok(None)`: all zeros, a segment made ahead and not used yet.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameFault> {
        let Some(blocks) = bytes.get(..2 * BLOCK) else { return Err(FrameFault::Short) };
        let mut fault = FrameFault::NoFrame;
        for copy in Self::copies(blocks) {
            match copy {
                Err(FrameFault::NoFrame) => {}
                Err(FrameFault::HeaderCrc) => fault = FrameFault::HeaderCrc,
                read => return read.map(Some),
            }
        }
        if blocks.iter().all(|byte| *byte == 0) { Ok(None) } else { Err(fault) }
    }

    /// What each of the two copies at the start of a segment says.
    pub fn copies(bytes: &[u8]) -> [Result<Self, FrameFault>; 2] {
        let copy = |at: usize| match bytes.get(at..at + SEGMENT_HEADER) {
            Some(copy) => Self::copy(copy),
            None => Err(FrameFault::Short),
        };
        [copy(0), copy(BLOCK)]
    }

    fn copy(b: &[u8]) -> Result<Self, FrameFault> {
        if u64_at(b, 0) != SEGMENT_MAGIC {
            return Err(FrameFault::NoFrame);
        }
        if crc32_iscsi(&b[..SEGMENT_HEADER - 8]) != u32_at(b, SEGMENT_HEADER - 8) {
            return Err(FrameFault::HeaderCrc);
        }
        if b[8] != VERSION || u16_at(b, 9) != 0 {
            return Err(FrameFault::Version(b[8]));
        }
        Ok(Self {
            journal: array(b, 16),
            salt: array(b, 32),
            number: u64_at(b, 48),
            base_lsn: u64_at(b, 56),
            first_frame: u64_at(b, 64),
            previous: array(b, 72),
            previous_segment: u64_at(b, 88),
            previous_end: u64_at(b, 96),
            created_at: u64_at(b, 104),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::journal::buffer::AlignedBuf;

    pub(in super::super) fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Commit,
            salt: [7; 16],
            number: 42,
            first_lsn: 1000,
            records: 1,
            payload: 0,
            padded: 0,
            payload_crc: 0,
            durable_upto: 1000,
            previous: [9; 16],
            written_at: 1_789_400_000_000_000_000,
        }
    }

    fn frame(payload: &[u8]) -> (FrameHeader, AlignedBuf) {
        let mut buf = AlignedBuf::with_capacity(0);
        buf.set_len(HEADER);
        buf.extend_from_slice(payload);
        let header = finish(&mut buf, header());
        (header, buf)
    }

    #[test]
    fn frame_reads_back_as_written() {
        for len in [0, 1, BLOCK - HEADER - TRAILER, BLOCK - HEADER - TRAILER + 1, 100_000] {
            let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (written, buf) = frame(&payload);
            assert_eq!(buf.len() % BLOCK, 0);
            let (read_header, read_payload) = read(buf.as_slice()).unwrap();
            assert_eq!((read_header, read_payload), (written, &payload[..]));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_seen_or_is_padding() {
        let (_, buf) = frame(b"one record");
        let used = HEADER + 10 + TRAILER;
        for bit in 0..used * 8 {
            let mut bytes = buf.as_slice().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit} flipped and not seen");
        }
    }

    #[test]
    fn segment_header_survives_the_loss_of_either_copy() {
        let header = SegmentHeader {
            journal: [1; 16],
            salt: [2; 16],
            number: 3,
            base_lsn: 4,
            first_frame: 5,
            previous: [6; 16],
            previous_segment: 2,
            previous_end: 8192,
            created_at: 7,
        };
        let mut buf = AlignedBuf::with_capacity(0);
        header.encode(&mut buf);
        assert_eq!(SegmentHeader::decode(buf.as_slice()).unwrap(), Some(header.clone()));
        for damaged in [0..BLOCK, BLOCK..2 * BLOCK] {
            let mut bytes = buf.as_slice().to_vec();
            bytes[damaged].fill(0xaa);
            assert_eq!(SegmentHeader::decode(&bytes).unwrap(), Some(header.clone()));
        }
        assert!(SegmentHeader::decode(&[0xaa; 2 * BLOCK]).is_err());
        assert_eq!(SegmentHeader::decode(&[0; 2 * BLOCK]).unwrap(), None);
    }
}
