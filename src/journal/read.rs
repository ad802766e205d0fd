//! Reading a journal while it is being written: frames in order, or one record alone.
//!
//! Goes around the page cache like the writer does: a page read ahead of the writer would hold the
//! zeros that were there before. Only what a core has published as durable is read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use monoio::fs::File;
use nix::fcntl::OFlag;

use super::Position;
use super::buffer::{AlignedBuf, BLOCK, BufferPool};
use super::frame::{self, FIRST_FRAME, FrameFault, FrameHeader, HEADER, SegmentHeader};
use super::recover::Span;
use super::spare::{OpenMode, segment_path};

/// One read: large enough for the disk's bandwidth, small enough that a core's readers fit in memory.
const CHUNK: usize = 256 * 1024;
/// Open files kept. A reader moves forward, and single records come from a few recent segments.
const FILES: usize = 8;
/// How far numbers of consecutive segments may lie apart (those between were void).
const NUMBER_GAP: u64 = 64;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("read segment {segment} at byte {at}: {source}")]
    Io { segment: u64, at: u64, source: io::Error },
    #[error("frame in segment {segment} at byte {at} was durable and is damaged: {fault}")]
    Damaged { segment: u64, at: u64, fault: FrameFault },
    #[error("no segment follows segment {segment}, although the journal goes on")]
    Missing { segment: u64 },
}

/// A frame read back.
#[derive(Debug, Clone)]
pub struct ReadFrame {
    pub position: Position,
    /// Where to go on.
    pub next: Position,
    pub header: FrameHeader,
    /// The frame, header included: offsets of records count from here.
    pub bytes: Bytes,
}

impl ReadFrame {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..HEADER + self.header.payload as usize]
    }
}

/// The segment files of one journal, opened as they are needed.
struct Files {
    dir: PathBuf,
    mode: OpenMode,
    open: RefCell<HashMap<u64, Rc<File>>>,
    pool: BufferPool,
}

/// Reads the frames of one journal in order.
pub struct JournalReader {
    files: Files,
    /// What recovery found: where older segments end and what to jump over.
    spans: Arc<Vec<Span>>,
    chunk: Option<Chunk>,
}

/// Reads single records of one journal, many at a time.
pub struct RecordReader {
    files: Files,
}

struct Chunk {
    segment: u64,
    offset: u64,
    /// What was durable when it was read. Bytes behind that may be zeros, or half of a frame that was
    /// being written in that moment.
    upto: Position,
    bytes: Bytes,
}

impl JournalReader {
    pub fn new(dir: PathBuf, mode: OpenMode, spans: Arc<Vec<Span>>, pool: BufferPool) -> Self {
        Self { files: Files::new(dir, mode, pool), spans, chunk: None }
    }

    /// The frame at or after `at`, if it lies before `upto`.
    pub async fn frame(&mut self, at: Position, upto: Position) -> Result<Option<ReadFrame>, ReadError> {
        let mut at = at;
        loop {
            if at >= upto {
                return Ok(None);
            }
            match self.skip(at, upto).await? {
                Some(moved) if moved != at => at = moved,
                Some(_) => break,
                None => return Ok(None),
            }
        }
        let (segment, offset) = (at.segment(), at.offset());
        let damaged = |fault| ReadError::Damaged { segment, at: offset, fault };
        let mut bytes = self.chunk_at(at, CHUNK, upto).await?;
        let header = FrameHeader::decode(&bytes).map_err(damaged)?;
        if bytes.len() < header.padded as usize {
            bytes = self.chunk_at(at, header.padded as usize, upto).await?;
        }
        let (header, _) = frame::read(&bytes).map_err(damaged)?;
        let len = header.padded as usize;
        let next = Position::new(segment, offset + len as u64);
        Ok(Some(ReadFrame { position: at, next, header, bytes: bytes.slice(..len.min(bytes.len())) }))
    }

    /// Moves over ends of segments and holes. `None`: nothing more before `upto`.
    async fn skip(&mut self, at: Position, upto: Position) -> Result<Option<Position>, ReadError> {
        let segment = at.segment();
        if at.offset() < FIRST_FRAME && segment != 0 {
            return Ok(Some(Position::new(segment, FIRST_FRAME)));
        }
        if let Some(span) = self.spans.iter().find(|s| s.segment == segment) {
            if let Some((_, to)) = span.holes.iter().find(|(from, to)| (*from..*to).contains(&at.offset())) {
                return Ok(Some(Position::new(segment, *to)));
            }
            if at.offset() < span.end {
                return Ok(Some(at));
            }
        } else if segment != 0 && (segment == upto.segment() || !self.sealed_before(at, upto).await?) {
            return Ok(Some(at));
        }
        if let Some(span) = self.spans.iter().find(|s| s.segment > segment) {
            return Ok(Some(Position::new(span.segment, FIRST_FRAME)));
        }
        let Some(next) = self.following(segment).await? else {
            return if segment < upto.segment() { Err(ReadError::Missing { segment }) } else { Ok(None) };
        };
        Ok(Some(Position::new(next, FIRST_FRAME)))
    }

    /// Whether no frame starts at `at` in a segment of this run: the seal came before it.
    async fn sealed_before(&mut self, at: Position, upto: Position) -> Result<bool, ReadError> {
        let bytes = self.chunk_at(at, CHUNK, upto).await?;
        Ok(matches!(FrameHeader::decode(&bytes), Err(FrameFault::NoFrame | FrameFault::Short)))
    }

    /// Number of the segment that follows in the chain.
    async fn following(&mut self, segment: u64) -> Result<Option<u64>, ReadError> {
        for number in segment + 1..=segment + NUMBER_GAP {
            if !segment_path(&self.files.dir, number).exists() {
                continue;
            }
            let bytes = self.files.read(number, 0, 2 * BLOCK).await?;
            if let Ok(Some(header)) = SegmentHeader::decode(&bytes)
                && header.previous_segment == segment
            {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// At least `len` bytes from there, or what the file has; from the last chunk if it holds the
    /// frame that starts there. All before `upto` is durable.
    async fn chunk_at(&mut self, at: Position, len: usize, upto: Position) -> Result<Bytes, ReadError> {
        let (segment, offset) = (at.segment(), at.offset());
        if let Some(chunk) = &self.chunk
            && chunk.segment == segment
            && chunk.offset <= offset
            && at < chunk.upto
        {
            let skip = (offset - chunk.offset) as usize;
            if let Some(rest) = chunk.bytes.get(skip..)
                && let Ok(header) = FrameHeader::decode(rest)
                && header.padded as usize <= rest.len()
            {
                return Ok(chunk.bytes.slice(skip..));
            }
        }
        let bytes = self.files.read(segment, offset, len.next_multiple_of(BLOCK)).await?;
        self.chunk = Some(Chunk { segment, offset, upto, bytes: bytes.clone() });
        Ok(bytes)
    }
}

impl RecordReader {
    pub fn new(dir: PathBuf, mode: OpenMode, pool: BufferPool) -> Self {
        Self { files: Files::new(dir, mode, pool) }
    }

    /// One record, by the frame's position and the record's place in it.
    pub async fn record(&self, frame: Position, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        let start = frame.offset() + u64::from(offset);
        let from = start / BLOCK as u64 * BLOCK as u64;
        let skip = (start - from) as usize;
        let want = (skip + len as usize).next_multiple_of(BLOCK);
        let bytes = self.files.read(frame.segment(), from, want).await?;
        if bytes.len() < skip + len as usize {
            return Err(ReadError::Damaged { segment: frame.segment(), at: start, fault: FrameFault::Short });
        }
        Ok(bytes.slice(skip..skip + len as usize))
    }
}

impl Files {
    fn new(dir: PathBuf, mode: OpenMode, pool: BufferPool) -> Self {
        Self { dir, mode, open: RefCell::default(), pool }
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> Result<Bytes, ReadError> {
        let failed = |source| ReadError::Io { segment, at, source };
        let file = self.file(segment).map_err(failed)?;
        // The driver fills the whole buffer: a single record gets one of its own size.
        let mut buf = if len < CHUNK { AlignedBuf::with_capacity(len) } else { self.pool.get() };
        buf.reserve_total(len);
        let (read, mut buf) = file.read_at(buf, at).await;
        let read = read.map_err(failed)?;
        buf.set_len(read);
        Ok(self.pool.share(buf))
    }

    fn file(&self, segment: u64) -> io::Result<Rc<File>> {
        let mut files = self.open.borrow_mut();
        if let Some(file) = files.get(&segment) {
            return Ok(Rc::clone(file));
        }
        if files.len() >= FILES {
            files.clear();
        }
        let flags = if self.mode == OpenMode::Direct { OFlag::O_DIRECT } else { OFlag::empty() };
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(segment_path(&self.dir, segment))?;
        let file = Rc::new(File::from_std(file)?);
        files.insert(segment, Rc::clone(&file));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::AlignedBuf;
    use super::super::frame::FrameKind;
    use super::super::record;
    use super::*;

    /// A frame with one entry.
    fn frame_of(number: u64, body: &[u8]) -> Vec<u8> {
        let mut buf = AlignedBuf::with_capacity(0);
        buf.set_len(HEADER);
        record::write_entry(&mut buf, number, 1, |_| (), body);
        let header = FrameHeader {
            kind: FrameKind::Commit,
            salt: [1; 16],
            number,
            first_lsn: number,
            records: 1,
            payload: 0,
            padded: 0,
            payload_crc: 0,
            durable_upto: number,
            previous: [0; 16],
            written_at: 0,
        };
        frame::finish(&mut buf, header);
        buf.as_slice().to_vec()
    }

    #[test]
    fn a_frame_read_ahead_while_it_was_being_written_is_read_again_once_it_is_durable() {
        use std::os::unix::fs::FileExt;

        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(segment_path(folder.path(), 1)).unwrap();
        file.set_len(64 * BLOCK as u64).unwrap();
        let (first, second) = (frame_of(1, b"first"), frame_of(2, &[b'2'; 3 * BLOCK]));
        file.write_all_at(&first, FIRST_FRAME).unwrap();
        let at = FIRST_FRAME + first.len() as u64;
        // Its first block is on disk, the others are on their way.
        file.write_all_at(&second[..BLOCK], at).unwrap();
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async {
            let pool = BufferPool::new(1, Arc::default());
            let dir = folder.path().to_owned();
            let mut reader = JournalReader::new(dir, OpenMode::Buffered, Arc::default(), pool);
            let (start, middle) = (Position::new(1, FIRST_FRAME), Position::new(1, at));
            let frame = reader.frame(start, middle).await.unwrap().unwrap();
            assert_eq!((frame.header.number, frame.next), (1, middle));
            file.write_all_at(&second, at).unwrap();
            let end = Position::new(1, at + second.len() as u64);
            let frame = reader.frame(middle, end).await.unwrap().unwrap();
            assert_eq!((frame.header.number, frame.next), (2, end));
            assert!(reader.frame(end, end).await.unwrap().is_none());
        });
    }
}
