//! The index of an object: which of its frames may hold a record. Pure.
//!
//! A search reads it instead of the object, and then the few frames that it names. It follows from the object's
//! lines and frames alone, so anybody can make it again ([`of`]), and it holds no more than they do: where lines are
//! masked it is of masked texts.
//!
//! ```text
//! "PSTKIDX1" | object's bytes u64 | frames u32 | sources u32                    little endian
//! sources:  (length u16 | name)...                    the first 64, and the rest share their bits
//! frames:   (offset u64 | bytes u64 | records u32 | blocks u32 | first lsn u64 | last lsn u64
//!            | first received u64 | last received u64 (unix ms) | sources u64)...
//! filters:  blocks of 32 bytes...                     of each frame, see `filter`; none: it may have any text
//! CRC-32C of all before u32
//! ```
//!
//! Invariants: the same lines in the same frames give the same bytes; a frame that the index excludes has no record
//! that is looked for; whatever bytes are read as an index, that ends without a panic and takes no more memory than
//! a small multiple of them. Deliberately absent: what proves that nobody changed it. The object's link does.

use std::io::{self, BufRead, Read};

use crc_fast::crc32_iscsi;

mod filter;
pub mod line;

use line::Lines;

use super::read::RECORD_MAX;

const MAGIC: &[u8; 8] = b"PSTKIDX1";
const HEADER: usize = 24;
const FRAME: usize = 64;
/// Distinct sources that have a bit of their own.
const SOURCES: usize = 64;
/// No index is larger, by far: what is, is not read.
pub const INDEX_MAX: u64 = 64 << 20;
/// How many texts are remembered that were seen just now; a power of two.
const SEEN: usize = 1 << 11;

/// Below an archive: the indexes of its objects.
pub const FOLDER: &str = "index";

/// The name of an object's index below the archive; `None` if it is not called like an object.
pub fn name_of(object: &str) -> Option<String> {
    Some(format!("{FOLDER}/{}.idx", object.strip_suffix(".jsonl.zst")?))
}

/// Makes the index of an object while it is written.
pub struct IndexBuilder {
    lines: Lines,
    sources: Vec<Vec<u8>>,
    frames: Vec<u8>,
    filters: Vec<u8>,
    bytes: u64,
    frame: Frame,
    /// Of the frame's texts, nearly each once.
    hashes: Vec<u64>,
    /// By their last bits; 0 = none.
    seen: Box<[u64; SEEN]>,
}

/// A frame of the object, and what its records have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where it starts in the object.
    pub offset: u64,
    pub bytes: u64,
    pub records: u32,
    blocks: u32,
    pub first_lsn: u64,
    pub last_lsn: u64,
    /// Unix milliseconds.
    pub first_ms: u64,
    pub last_ms: u64,
    sources: u64,
}

impl Frame {
    const EMPTY: Self = Self {
        offset: 0,
        bytes: 0,
        records: 0,
        blocks: 0,
        first_lsn: u64::MAX,
        last_lsn: 0,
        first_ms: u64::MAX,
        last_ms: 0,
        sources: 0,
    };

    /// It may hold anything.
    fn widen(&mut self) {
        let Self { offset, bytes, records, .. } = *self;
        *self = Self {
            offset,
            bytes,
            records,
            first_lsn: 0,
            last_lsn: u64::MAX,
            first_ms: 0,
            last_ms: u64::MAX,
            sources: u64::MAX,
            blocks: u32::MAX,
        };
    }

    /// A record of which nothing is known is in it.
    fn is_wide(&self) -> bool {
        self.blocks == u32::MAX
    }
}

impl Default for IndexBuilder {
    fn default() -> Self {
        Self {
            lines: Lines::default(),
            sources: Vec::new(),
            frames: Vec::new(),
            filters: Vec::new(),
            bytes: 0,
            frame: Frame::EMPTY,
            hashes: Vec::new(),
            seen: Box::new([0; SEEN]),
        }
    }
}

impl IndexBuilder {
    /// For the next object.
    pub fn clear(&mut self) {
        self.sources.clear();
        self.frames.clear();
        self.filters.clear();
        self.bytes = 0;
        self.begin_frame();
    }

    fn begin_frame(&mut self) {
        self.frame = Frame { offset: self.bytes, ..Frame::EMPTY };
        self.hashes.clear();
        self.seen.fill(0);
    }

    /// The next record of the frame, as it is written, without its line break.
    pub fn record(&mut self, line: &[u8]) {
        let Self { lines, sources, frame, hashes, seen, .. } = self;
        frame.records += 1;
        if frame.is_wide() {
            return;
        }
        let Some(line) = lines.read(line) else { return frame.widen() };
        frame.first_lsn = frame.first_lsn.min(line.lsn);
        frame.last_lsn = frame.last_lsn.max(line.lsn);
        frame.first_ms = frame.first_ms.min(line.received_ms);
        frame.last_ms = frame.last_ms.max(line.received_ms);
        let source = line.source();
        let known = sources.iter().position(|known| *known == *source);
        match known {
            Some(at) => frame.sources |= 1 << at,
            None if sources.len() < SOURCES && source.len() <= usize::from(u16::MAX) => {
                frame.sources |= 1 << sources.len();
                sources.push(source.into_owned());
            }
            // Hardly any archive has as many.
            None => frame.sources = u64::MAX,
        }
        lines.texts(&line, |text| {
            let hash = filter::hash(text);
            // Most texts were in one of the last records: account, number, sender.
            let seen = &mut seen[hash as usize % SEEN];
            if *seen != hash {
                *seen = hash;
                hashes.push(hash);
            }
        });
    }

    /// The frame is over and takes that many bytes of the object.
    pub fn frame(&mut self, bytes: u64) {
        self.frame.bytes = bytes;
        if !self.frame.is_wide() {
            self.frame.blocks = u32::try_from(filter::blocks(self.hashes.len())).unwrap_or(0);
            if self.frame.blocks > 0 {
                filter::write(&self.hashes, &mut self.filters);
            }
        }
        let Frame { offset, records, blocks, first_lsn, last_lsn, first_ms, last_ms, sources, .. } =
            self.frame;
        let blocks = if self.frame.is_wide() { 0 } else { blocks };
        let mut put = |bytes: &[u8]| self.frames.extend_from_slice(bytes);
        put(&offset.to_le_bytes());
        put(&bytes.to_le_bytes());
        put(&records.to_le_bytes());
        put(&blocks.to_le_bytes());
        [first_lsn, last_lsn, first_ms, last_ms, sources].iter().for_each(|value| put(&value.to_le_bytes()));
        self.bytes += bytes;
        self.begin_frame();
    }

    /// The index of all frames so far.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.frames.len() + self.filters.len() + 1024);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&((self.frames.len() / FRAME) as u32).to_le_bytes());
        out.extend_from_slice(&(self.sources.len() as u32).to_le_bytes());
        for source in &self.sources {
            out.extend_from_slice(&(source.len() as u16).to_le_bytes());
            out.extend_from_slice(source);
        }
        out.extend_from_slice(&self.frames);
        out.extend_from_slice(&self.filters);
        let crc = crc32_iscsi(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Why bytes are no index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("it is not an index of this version")]
    Magic,
    #[error("its checksum is not that of its bytes")]
    Checksum,
    #[error("what it says of itself does not fit")]
    Lengths,
    #[error("it is of an object of {0} bytes")]
    OtherObject(u64),
}

/// An index that was read.
#[derive(Debug)]
pub struct Index {
    sources: Vec<Vec<u8>>,
    frames: Vec<Frame>,
    filters: Vec<u8>,
}

/// A text that is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Text(u64);

impl Text {
    pub fn of(text: &str) -> Self {
        Self(filter::hash(text.as_bytes()))
    }
}

impl Index {
    /// The index of an object of that many bytes.
    pub fn read(bytes: &[u8], object: u64) -> Result<Self, Damage> {
        let (bytes, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::Magic)?;
        let header = bytes.get(..HEADER).filter(|header| header.starts_with(MAGIC)).ok_or(Damage::Magic)?;
        if crc32_iscsi(bytes) != u32::from_le_bytes(*crc) {
            return Err(Damage::Checksum);
        }
        if u64_at(header, 8) != object {
            return Err(Damage::OtherObject(u64_at(header, 8)));
        }
        let (frames, sources) = (u32_at(header, 16) as usize, u32_at(header, 20) as usize);
        let mut rest = &bytes[HEADER..];
        let mut names = Vec::new();
        for _ in 0..sources {
            let (length, behind) = rest.split_first_chunk::<2>().ok_or(Damage::Lengths)?;
            let (name, behind) =
                behind.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(Damage::Lengths)?;
            names.push(name.to_vec());
            rest = behind;
        }
        let (rows, filters) =
            frames.checked_mul(FRAME).and_then(|len| rest.split_at_checked(len)).ok_or(Damage::Lengths)?;
        let read = |row: &[u8]| Frame {
            offset: u64_at(row, 0),
            bytes: u64_at(row, 8),
            records: u32_at(row, 16),
            blocks: u32_at(row, 20),
            first_lsn: u64_at(row, 24),
            last_lsn: u64_at(row, 32),
            first_ms: u64_at(row, 40),
            last_ms: u64_at(row, 48),
            sources: u64_at(row, 56),
        };
        let frames: Vec<Frame> = rows.chunks_exact(FRAME).map(read).collect();
        // Every byte of the object is in a frame, and every block of the filters is one's.
        let end = frames.iter().try_fold(0u64, |end, frame| {
            (frame.offset == end && frame.bytes > 0).then(|| end.checked_add(frame.bytes)).flatten()
        });
        let blocks: u64 = frames.iter().map(|frame| u64::from(frame.blocks)).sum();
        if end != Some(object)
            || names.len() > SOURCES
            || blocks * filter::BLOCK as u64 != filters.len() as u64
        {
            return Err(Damage::Lengths);
        }
        Ok(Self { sources: names, frames, filters: filters.to_vec() })
    }

    /// Each frame, and the filter of its texts.
    pub fn frames(&self) -> impl Iterator<Item = (&Frame, Filter<'_>)> {
        let mut rest = self.filters.as_slice();
        self.frames.iter().map(move |frame| {
            let (filter, behind) =
                rest.split_at_checked(frame.blocks as usize * filter::BLOCK).unwrap_or_default();
            rest = behind;
            (frame, Filter { index: self, sources: frame.sources, filter })
        })
    }
}

/// What one frame may hold.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    index: &'a Index,
    sources: u64,
    filter: &'a [u8],
}

impl Filter<'_> {
    pub fn may_have(&self, text: Text) -> bool {
        filter::may_have(self.filter, text.0)
    }

    pub fn may_be_from(&self, source: &str) -> bool {
        match self.index.sources.iter().position(|known| known == source.as_bytes()) {
            Some(at) => self.sources & 1 << at != 0,
            None => self.sources == u64::MAX,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Makes the index of an object that was written, the same as while it was.
pub fn of(object: impl BufRead) -> io::Result<Vec<u8>> {
    let mut builder = IndexBuilder::default();
    let mut object = Counted { object, bytes: 0 };
    let mut line = Vec::new();
    while !object.fill_buf()?.is_empty() {
        let before = object.bytes;
        let mut lines = io::BufReader::new(zstd::Decoder::with_buffer(&mut object)?.single_frame());
        loop {
            line.clear();
            if lines.by_ref().take(RECORD_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            builder.record(line.strip_suffix(b"\n").unwrap_or(&line));
        }
        drop(lines);
        builder.frame(object.bytes - before);
    }
    Ok(builder.finish())
}

/// Counts what was taken.
struct Counted<R> {
    object: R,
    bytes: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.object.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.object.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.object.consume(amount);
    }
}
