//! Reading a journal while it is being written: frames in order, or one record alone.
//!
//! Goes around the page cache like the writer does: a page read ahead of the writer would hold the
//! zeros that were there before. Only what a core has published as durable is read. Segments that are
//! gone are stepped over, and of thin ones come the frames in which something waits, with those
//! entries only: whoever has not seen an entry that is left out need not see it, for it was settled.
//! A record that waits is where it was, whatever became of its segment.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
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
use super::folder::live_path;
use super::frame::{self, FIRST_FRAME, FrameFault, FrameHeader, HEADER, JournalId, Salt, SegmentHeader};
use super::live::LiveList;
use super::record::{self, Record, RecordFault};
use super::recover::Span;
use super::segments::SegmentsView;
use super::spare::{OpenMode, segment_path};
use super::twin::TwinFault;
use super::view::JournalView;
use crate::fault;

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
    #[error("the list of what waits in segment {segment}: {fault}")]
    List { segment: u64, fault: TwinFault },
}

/// A frame read back.
#[derive(Debug, Clone)]
pub struct ReadFrame {
    pub position: Position,
    /// Where to go on.
    pub next: Position,
    /// Unix nanoseconds; 0 if that cannot be read any more.
    pub written_at: u64,
    /// The frame, header included: offsets of records count from here. Of a frame in a thin segment
    /// only the records of its entries are there; the rest may be zeros, or missing at the end.
    pub bytes: Bytes,
    /// Its entries in order; in a thin segment those that had a parcel waiting when it was thinned.
    pub entries: Vec<ReadEntry>,
}

/// One entry of a frame that was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadEntry {
    pub seq: u64,
    pub lsn: u64,
    /// The record's place in the frame.
    pub start: usize,
    pub len: usize,
}

impl ReadFrame {
    /// Of a frame that was verified as a whole.
    fn whole(position: Position, header: FrameHeader, bytes: Bytes) -> Self {
        let mut entries = Vec::new();
        let mut start = HEADER;
        for lsn in header.first_lsn..header.next_lsn() {
            let Ok((record, len)) = record::read_known(&bytes[start..]) else { break };
            if let Record::Entry(entry) = record {
                entries.push(ReadEntry { seq: entry.seq, lsn, start, len });
            }
            start += len;
        }
        let len = header.padded as usize;
        let next = Position::new(position.segment(), position.offset() + len as u64);
        Self {
            position,
            next,
            written_at: header.written_at,
            bytes: bytes.slice(..len.min(bytes.len())),
            entries,
        }
    }
}

/// The files of one journal, as whoever reads it needs them.
pub trait Blocks {
    fn exists(&self, segment: u64) -> bool;

    /// Bytes of a segment from `at`: `len` of them, or what there is. Both on block borders.
    fn read(&self, segment: u64, at: u64, len: usize) -> impl Future<Output = io::Result<Bytes>>;

    /// The file with a segment's list.
    fn list(&self, segment: u64) -> impl Future<Output = io::Result<Vec<u8>>>;
}

/// Those on disk, opened as they are needed.
pub struct Files {
    dir: PathBuf,
    mode: OpenMode,
    open: RefCell<HashMap<u64, Rc<File>>>,
    pool: BufferPool,
}

/// Reads the frames of one journal in order.
pub struct JournalReader<B = Files> {
    id: JournalId,
    files: B,
    /// What recovery found: where older segments end and what to jump over.
    spans: Arc<Vec<Span>>,
    segments: SegmentsView,
    chunk: Option<Chunk>,
    /// Of the segment whose end was looked for last; `None` if its header cannot be read.
    salt: Option<(u64, Option<Salt>)>,
    /// Of the thin segment that was read last.
    list: Option<LiveList>,
    /// Of the floor when it was read.
    list_version: u64,
    /// Of thin segments: damage up to there was told.
    told: u64,
}

/// What comes at a position.
enum Step {
    Frame(ReadFrame),
    Move(Position),
    End,
}

/// What a segment is now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Thin,
    Gone,
}

/// Reads single records of one journal, many at a time.
pub struct RecordReader<B = Files> {
    files: B,
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
    pub fn new(view: &JournalView, pool: BufferPool) -> Self {
        Self::over(view, Files::new(view.dir.clone(), view.mode, pool))
    }
}

impl<B: Blocks> JournalReader<B> {
    /// As [`JournalReader::new`], over other files.
    pub fn over(view: &JournalView, files: B) -> Self {
        Self {
            id: view.id,
            files,
            spans: Arc::clone(&view.spans),
            segments: SegmentsView::new(Arc::clone(&view.segments)),
            chunk: None,
            salt: None,
            list: None,
            list_version: 0,
            told: 0,
        }
    }

    /// The frame at or after `at`, if it lies before `upto`.
    pub async fn frame(&mut self, at: Position, upto: Position) -> Result<Option<ReadFrame>, ReadError> {
        let mut at = at;
        while at < upto {
            let segment = at.segment();
            let version = self.segments.version();
            let form = self.form(segment);
            let step = match form {
                Form::Whole => self.whole(at, upto).await,
                Form::Thin => self.thin(at, upto).await,
                Form::Gone => Ok(Step::Move(Position::new(self.segments.now().after(segment), FIRST_FRAME))),
            };
            // The file may have been freed while it was read: then it says nothing about this segment.
            let moved = self.segments.version() != version && !fault::planted("freed-under-a-reader");
            if form != Form::Gone && moved && (step.is_err() || self.form(segment) != form) {
                self.chunk = None;
                self.list = None;
                continue;
            }
            match step? {
                Step::Frame(frame) => return Ok(Some(frame)),
                Step::Move(to) => at = to,
                Step::End => break,
            }
        }
        Ok(None)
    }

    fn form(&mut self, segment: u64) -> Form {
        let floor = self.segments.now();
        match (floor.has(segment), floor.is_thin(segment)) {
            (false, _) => Form::Gone,
            (true, true) => Form::Thin,
            (true, false) => Form::Whole,
        }
    }

    async fn whole(&mut self, at: Position, upto: Position) -> Result<Step, ReadError> {
        let (segment, offset) = (at.segment(), at.offset());
        if offset < FIRST_FRAME && segment != 0 {
            return Ok(Step::Move(Position::new(segment, FIRST_FRAME)));
        }
        let over = if let Some(span) = self.spans.iter().find(|s| s.segment == segment) {
            if let Some((_, to)) = span.holes.iter().find(|(from, to)| (*from..*to).contains(&offset)) {
                return Ok(Step::Move(Position::new(segment, *to)));
            }
            offset >= span.end
        } else if self.salt.is_none_or(|(number, _)| number != segment)
            && segment != upto.segment()
            && !self.files.exists(segment)
        {
            // All up to it went, and its own header was torn when it was taken into use: another took its place.
            true
        } else {
            segment == 0 || segment != upto.segment() && self.sealed_before(at, upto).await?
        };
        if over {
            return self.next_segment(segment, upto).await;
        }
        let damaged = |fault| ReadError::Damaged { segment, at: offset, fault };
        let mut bytes = self.chunk_at(at, CHUNK, upto).await?;
        let header = FrameHeader::decode(&bytes).map_err(damaged)?;
        if bytes.len() < header.padded as usize {
            bytes = self.chunk_at(at, header.padded as usize, upto).await?;
        }
        let (header, _) = frame::read(&bytes).map_err(damaged)?;
        Ok(Step::Frame(ReadFrame::whole(at, header, bytes)))
    }

    async fn thin(&mut self, at: Position, upto: Position) -> Result<Step, ReadError> {
        let (segment, block) = (at.segment(), BLOCK as u64);
        let version = self.segments.version();
        // Thinned once more, it has a shorter list and more holes.
        if self.list_version != version || self.list.as_ref().is_none_or(|list| list.segment != segment) {
            let list = self.files.list(segment).await.map_err(failed(segment, 0))?;
            let list = LiveList::decode(&list, &self.id, segment);
            self.list = Some(list.map_err(|fault| ReadError::List { segment, fault })?);
            self.list_version = version;
        }
        let rows = self.list.as_ref().map_or(&[][..], |list| &list.rows);
        let rows = &rows[rows.partition_point(|row| row.frame < at.offset())..];
        let Some(first) = rows.first().copied() else { return self.next_segment(segment, upto).await };
        let rows = &rows[..rows.partition_point(|row| row.frame == first.frame)];
        let end = rows.last().map_or(0, |row| row.offset as usize + row.len as usize);
        let bytes = self.files.read(segment, first.frame, end.next_multiple_of(BLOCK)).await;
        let bytes = bytes.map_err(failed(segment, first.frame))?;
        if self.segments.version() != version {
            // What is missing in there may have been settled meanwhile.
            return Ok(Step::Move(at));
        }
        let written_at = FrameHeader::decode(&bytes).map_or(0, |header| header.written_at);
        let mut entries = Vec::new();
        for row in rows.chunk_by(|a, b| a.lsn == b.lsn).map(|rows| rows[0]) {
            let (start, len) = (row.offset as usize, row.len as usize);
            let record = bytes.get(start..start + len).ok_or(RecordFault::Short);
            match record.and_then(record::read) {
                Ok(_) => entries.push(ReadEntry { seq: row.seq, lsn: row.lsn, start, len }),
                // Each record answers for itself: the others have not suffered and do not wait for it.
                Err(fault) if row.lsn > self.told => {
                    self.told = row.lsn;
                    let at = first.frame + u64::from(row.offset);
                    tracing::error!(
                        segment, at, lsn = row.lsn, %fault,
                        "damaged journal: this record was durable and is lost"
                    );
                }
                Err(_) => {}
            }
        }
        let position = Position::new(segment, first.frame);
        // Any block behind its first one leads to the next frame of the list.
        let next = Position::new(segment, first.frame + block);
        Ok(Step::Frame(ReadFrame { position, next, written_at, bytes, entries }))
    }

    async fn next_segment(&mut self, segment: u64, upto: Position) -> Result<Step, ReadError> {
        let start = |number| Ok(Step::Move(Position::new(number, FIRST_FRAME)));
        let floor = self.segments.now();
        if segment < floor.first {
            return start(floor.after(segment));
        }
        if let Some(span) = self.spans.iter().find(|s| s.segment > segment) {
            return start(span.segment);
        }
        match self.following(segment).await? {
            Some(next) => start(next),
            None if segment < upto.segment() => Err(ReadError::Missing { segment }),
            None => Ok(Step::End),
        }
    }

    /// Whether no frame starts at `at` in a segment of this run: the seal came before it. What an
    /// earlier use of the file left behind it has another salt.
    async fn sealed_before(&mut self, at: Position, upto: Position) -> Result<bool, ReadError> {
        let segment = at.segment();
        if self.salt.is_none_or(|(number, _)| number != segment) {
            let bytes = self.files.read(segment, 0, 2 * BLOCK).await.map_err(failed(segment, 0))?;
            let header = SegmentHeader::decode(&bytes).ok().flatten();
            self.salt = Some((segment, header.map(|header| header.salt)));
        }
        let salt = self.salt.and_then(|(_, salt)| salt);
        let bytes = self.chunk_at(at, CHUNK, upto).await?;
        Ok(match FrameHeader::decode(&bytes) {
            Ok(header) => salt.is_some_and(|salt| salt != header.salt),
            // Where the seal is the last block of all, or what stood there before was no frame's start.
            Err(FrameFault::NoFrame | FrameFault::Short) => true,
            // A frame of this run that is damaged; or the inside of a webhook of an earlier one, which may look
            // like anything.
            Err(_) => {
                salt.is_some_and(|salt| FrameHeader::salt_in(&bytes) != Some(&salt))
                    && !fault::planted("foreign-text-is-damage")
                    && !self.goes_on(at, salt).await?
            }
        })
    }

    /// Whether a frame with that salt begins behind `at` in its segment.
    async fn goes_on(&mut self, at: Position, salt: Option<Salt>) -> Result<bool, ReadError> {
        let segment = at.segment();
        for from in (at.offset()..).step_by(CHUNK) {
            let bytes = self.files.read(segment, from, CHUNK).await.map_err(failed(segment, from))?;
            let own = |block: &[u8]| FrameHeader::decode(block).is_ok_and(|header| Some(header.salt) == salt);
            if bytes.chunks(BLOCK).any(own) {
                return Ok(true);
            }
            if bytes.len() < CHUNK {
                break;
            }
        }
        Ok(false)
    }

    /// Number of the segment that follows in the chain.
    async fn following(&mut self, segment: u64) -> Result<Option<u64>, ReadError> {
        for number in segment + 1..=segment + NUMBER_GAP {
            if !self.files.exists(number) {
                continue;
            }
            let bytes = self.files.read(number, 0, 2 * BLOCK).await.map_err(failed(number, 0))?;
            if let Ok(Some(header)) = SegmentHeader::decode(&bytes)
                && header.previous_segment <= segment
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
        let bytes = self.files.read(segment, offset, len.next_multiple_of(BLOCK)).await;
        let bytes = bytes.map_err(failed(segment, offset))?;
        self.chunk = Some(Chunk { segment, offset, upto, bytes: bytes.clone() });
        Ok(bytes)
    }
}

impl RecordReader {
    pub fn new(dir: PathBuf, mode: OpenMode, pool: BufferPool) -> Self {
        Self::over(Files::new(dir, mode, pool))
    }
}

impl<B: Blocks> RecordReader<B> {
    /// As [`RecordReader::new`], over other files.
    pub fn over(files: B) -> Self {
        Self { files }
    }

    /// One record, by the frame's position and the record's place in it.
    pub async fn record(&self, frame: Position, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        let start = frame.offset() + u64::from(offset);
        let from = start / BLOCK as u64 * BLOCK as u64;
        let skip = (start - from) as usize;
        let want = (skip + len as usize).next_multiple_of(BLOCK);
        let bytes = self.files.read(frame.segment(), from, want).await;
        let bytes = bytes.map_err(failed(frame.segment(), from))?;
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

impl Blocks for Files {
    fn exists(&self, segment: u64) -> bool {
        segment_path(&self.dir, segment).exists()
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let file = self.file(segment)?;
        // The driver fills the whole buffer: a single record gets one of its own size.
        let mut buf = if len < CHUNK { AlignedBuf::with_capacity(len) } else { self.pool.get() };
        buf.reserve_total(len);
        let (read, mut buf) = file.read_at(buf, at).await;
        buf.set_len(read?);
        Ok(self.pool.share(buf))
    }

    async fn list(&self, segment: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(live_path(&self.dir, segment))?;
        let len = file.metadata()?.len() as usize;
        let mut buf = AlignedBuf::with_capacity(len);
        let mut got = 0;
        let file = File::from_std(file)?;
        // A list is renamed over the one before: an open one never changes.
        if len > 0 {
            let (read, filled) = file.read_at(buf, 0).await;
            (got, buf) = (read?, filled);
        }
        buf.set_len(got.min(len));
        Ok(buf.as_slice().to_vec())
    }
}

fn failed(segment: u64, at: u64) -> impl FnOnce(io::Error) -> ReadError {
    move |source| ReadError::Io { segment, at, source }
}

#[cfg(test)]
mod tests;
