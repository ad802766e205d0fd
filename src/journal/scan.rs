//! Making the list of a segment that has none yet: its frames are read once, in order.

use std::io;
use std::path::Path;

use super::account::Segment;
use super::buffer::BLOCK;
use super::disk::Disk;
use super::frame::{self, FIRST_FRAME, FrameFault, FrameHeader, HEADER, JournalId, SegmentHeader};
use super::live::{LiveList, LiveRow};
use super::record::{self, Record, RecordFault};
use super::spare::segment_path;

/// One read.
const CHUNK: usize = 1024 * 1024;

/// Why a segment cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("frame at byte {at}: {fault}")]
    Frame { at: u64, fault: FrameFault },
    #[error("record in the frame at byte {at}: {fault}")]
    Record { at: u64, fault: RecordFault },
    #[error(
        "it should have {expected} parcels that wait up to LSN {next_lsn}, and {found} were found up to LSN {upto}"
    )]
    Count { expected: u64, found: u64, next_lsn: u64, upto: u64 },
}

/// The parcels in a segment for which `open` says that they wait. What is known of the segment must
/// agree with what is found: a list that lacks something would lose it.
pub fn scan(
    disk: &impl Disk,
    dir: &Path,
    journal: JournalId,
    number: u64,
    known: &Segment,
    open: impl Fn(u64, u16) -> bool,
) -> Result<LiveList, ScanError> {
    let path = segment_path(dir, number);
    let size = disk.size(&path)?;
    let header = SegmentHeader::decode(&disk.read(&path, 0, 2 * BLOCK)?)
        .and_then(|header| header.ok_or(FrameFault::NoFrame))
        .map_err(|fault| ScanError::Frame { at: 0, fault })?;
    let mut list = LiveList {
        journal,
        segment: number,
        base_lsn: header.base_lsn,
        next_lsn: header.base_lsn,
        first_frame: header.first_frame,
        next_frame: header.first_frame,
        chain: header.previous,
        end: FIRST_FRAME,
        rows: Vec::new(),
    };
    let (mut chunk, mut chunk_at) = (Vec::new(), 0);
    let mut at = FIRST_FRAME;
    while at < size {
        if let Some((_, to)) = known.holes.iter().find(|(from, to)| (*from..*to).contains(&at)) {
            at = *to;
            continue;
        }
        // From the chunk if it holds all of the frame, else the frame is where a new chunk begins.
        let whole = |bytes: &[u8]| {
            FrameHeader::decode(bytes).is_ok_and(|header| header.padded as usize <= bytes.len())
        };
        let ahead = |chunk: &[u8], chunk_at: u64| chunk.get((at - chunk_at) as usize..).is_some_and(whole);
        if !ahead(&chunk, chunk_at) {
            (chunk, chunk_at) = (disk.read(&path, at, CHUNK)?, at);
            if let Ok(header) = FrameHeader::decode(&chunk)
                && header.padded as usize > chunk.len()
            {
                chunk = disk.read(&path, at, header.padded as usize)?;
            }
        }
        let bytes = chunk.get((at - chunk_at) as usize..).unwrap_or_default();
        let frame = match FrameHeader::decode(bytes) {
            Ok(frame) if frame.salt == header.salt => frame,
            // Behind the last frame: zeros, or what an earlier use of the file left.
            _ if at >= known.end => break,
            Ok(_) => return Err(ScanError::Frame { at, fault: FrameFault::Salt }),
            Err(fault) => return Err(ScanError::Frame { at, fault }),
        };
        match frame::read(bytes) {
            Ok((_, payload)) => rows(&mut list, at, &frame, payload, &open)?,
            // Unfinished, and nobody was told that it was written.
            Err(_) if at >= known.end => break,
            Err(fault) => return Err(ScanError::Frame { at, fault }),
        }
        at += u64::from(frame.padded);
        (list.next_frame, list.chain, list.end) = (frame.number + 1, frame.digest(), at);
        list.next_lsn = frame.next_lsn();
    }
    let (expected, found) = (known.open, list.rows.len() as u64);
    if expected != found || list.next_lsn != known.next_lsn || list.base_lsn != known.base_lsn {
        return Err(ScanError::Count { expected, found, next_lsn: known.next_lsn, upto: list.next_lsn });
    }
    Ok(list)
}

fn rows(
    list: &mut LiveList,
    at: u64,
    frame: &FrameHeader,
    payload: &[u8],
    open: impl Fn(u64, u16) -> bool,
) -> Result<(), ScanError> {
    let mut start = 0;
    for lsn in frame.first_lsn..frame.next_lsn() {
        let read = record::read_known(payload.get(start..).unwrap_or_default());
        let (record, len) = read.map_err(|fault| ScanError::Record { at, fault })?;
        if let Record::Entry(entry) = record {
            list.rows.extend((0..entry.slots).filter(|slot| open(lsn, *slot)).map(|slot| LiveRow {
                frame: at,
                offset: (HEADER + start) as u32,
                len: len as u32,
                slot,
                slots: entry.slots,
                lsn,
                seq: entry.seq,
            }));
        }
        start += len;
    }
    Ok(())
}
