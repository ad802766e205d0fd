//! A list or a floor that is gone, made anew from what segments still hold. Pure.
//!
//! What a thin segment keeps beside its waiting records are pieces of blocks, so a list made from it may
//! name parcels that were settled: they are sent again, which is better than lost. A record is listed
//! only where its number is certain: counted from the start of its frame, or back from the frame's end.
//! A wrong number could be that of a settled one.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::JournalId;
use super::super::buffer::BLOCK;
use super::super::floor::{Floor, Kept};
use super::super::frame::{self, FIRST_FRAME, FrameHeader, HEADER, SegmentHeader};
use super::super::live::{LiveList, LiveRow};
use super::super::record::{self, Record};
use super::super::twin::TwinFault;

/// What one segment's bytes tell by themselves.
pub(super) struct Segment {
    pub(super) header: Option<SegmentHeader>,
    number: u64,
    rows: Vec<LiveRow>,
    /// Records that are whole and whose numbers are not certain.
    unsure: u64,
    /// Frames that are whole.
    whole: u64,
    /// Behind the last frame whose header is there: offset, number, LSN.
    end: (u64, u64, u64),
    /// Offset after the last frame with records.
    records_end: u64,
    chain: frame::Digest,
}

impl Segment {
    pub(super) fn of(number: u64, bytes: &[u8], journal: &JournalId) -> Self {
        let header = SegmentHeader::decode(bytes).ok().flatten();
        let header = header.filter(|h| h.journal == *journal && h.number == number);
        let mut segment = Self {
            number,
            rows: Vec::new(),
            unsure: 0,
            whole: 0,
            end: header.as_ref().map_or((FIRST_FRAME, 0, 0), |h| (FIRST_FRAME, h.first_frame, h.base_lsn)),
            records_end: FIRST_FRAME,
            chain: header.as_ref().map_or_else(Default::default, |h| h.previous),
            header,
        };
        let Some(salt) = segment.header.as_ref().map(|header| header.salt) else { return segment };
        let mut at = FIRST_FRAME;
        while let Some(rest) = bytes.get(at as usize..).filter(|rest| rest.len() >= BLOCK) {
            match FrameHeader::decode(rest) {
                Ok(frame) if frame.salt == salt && frame.padded as usize <= rest.len() => {
                    segment.whole += u64::from(frame::read(rest).is_ok());
                    segment.frame(at, &frame, &rest[..frame.padded as usize]);
                    at += u64::from(frame.padded);
                    segment.end = (at, frame.number + 1, frame.next_lsn());
                    segment.chain = frame.digest();
                    if frame.records > 0 {
                        segment.records_end = at;
                    }
                }
                _ => at += BLOCK as u64,
            }
        }
        segment
    }

    /// As many frames of it are whole as should be there. Behind them may be one that was not finished.
    fn is_whole(&self, frames: Range<u64>) -> bool {
        self.whole >= frames.end.saturating_sub(frames.start)
    }

    fn frame(&mut self, at: u64, frame: &FrameHeader, bytes: &[u8]) {
        let end = HEADER + frame.payload as usize;
        let Some(payload) = bytes.get(..end) else { return };
        let mut start = HEADER;
        let mut lsn = frame.first_lsn;
        while let Some((next, row)) = entry(payload, start, at, lsn) {
            self.rows.extend(row.into_iter().flat_map(slots));
            (start, lsn) = (next, lsn + 1);
        }
        // Behind the first hole: runs of records. The one that ends where the frame does is counted back.
        while start < end {
            let mut run = Vec::new();
            let mut next = start;
            while let Some((after, row)) = entry(payload, next, at, 0) {
                run.push(row);
                next = after;
            }
            if run.is_empty() {
                start += 1;
                continue;
            }
            let first = frame.next_lsn().saturating_sub(run.len() as u64);
            if next == end && first >= lsn {
                for (row, lsn) in run.into_iter().zip(first..) {
                    self.rows.extend(row.map(|row| LiveRow { lsn, ..row }).into_iter().flat_map(slots));
                }
            } else {
                self.unsure += run.iter().flatten().count() as u64;
            }
            start = next;
        }
    }
}

/// The record at `start` of a frame, if it is whole: where the next one begins, and its row if it is an entry.
fn entry(frame: &[u8], start: usize, at: u64, lsn: u64) -> Option<(usize, Option<LiveRow>)> {
    let (record, len) = record::read(frame.get(start..)?).ok()?;
    let row =
        |slots, seq| LiveRow { frame: at, offset: start as u32, len: len as u32, slot: 0, slots, lsn, seq };
    match record {
        Record::Entry(entry) => Some((start + len, Some(row(entry.slots, entry.seq)))),
        Record::Marks(_) | Record::Gap { .. } => Some((start + len, None)),
    }
}

fn slots(row: LiveRow) -> impl Iterator<Item = LiveRow> {
    (0..row.slots).map(move |slot| LiveRow { slot, ..row })
}

/// The list of a thin segment, and how many records it lacks because their numbers are not certain. `next`
/// is the header of the segment that follows, which says how this one ended.
pub(super) fn list(
    journal: &JournalId,
    segment: &Segment,
    next: Option<&SegmentHeader>,
    floor: &Floor,
) -> Option<(LiveList, u64)> {
    let header = segment.header.as_ref()?;
    let kept = floor.kept(segment.number)?;
    let list = LiveList {
        journal: *journal,
        segment: segment.number,
        base_lsn: kept.base_lsn,
        next_lsn: kept.next_lsn,
        first_frame: header.first_frame,
        next_frame: next.map_or(segment.end.1, |next| next.first_frame),
        chain: next.map_or(segment.chain, |next| next.previous),
        end: kept.end,
        rows: segment
            .rows
            .iter()
            .filter(|row| (kept.base_lsn..kept.next_lsn).contains(&row.lsn))
            .copied()
            .collect(),
    };
    Some((list, segment.unsure))
}

/// The floor of a journal. `None` if there is nothing to stand on.
pub(super) fn floor(
    journal: &JournalId,
    segments: &BTreeMap<u64, Segment>,
    lists: &BTreeMap<u64, Result<LiveList, TwinFault>>,
) -> Option<Floor> {
    let list = |number: &u64| lists.get(number).and_then(|list| list.as_ref().ok());
    let used =
        || segments.iter().filter_map(|(number, segment)| Some((number, segment, segment.header.as_ref()?)));
    let thin = |number: &u64, segment: &Segment, header: &SegmentHeader| match list(number) {
        // An empty list may be of a whole segment; then all of it is settled, and it may count as thin.
        Some(list) => !segment.is_whole(list.first_frame..list.next_frame),
        // One whose list cannot be read: if in doubt it counts as thin, and gets a list of all that is in it.
        None if lists.contains_key(number) => {
            let next = used().find(|(next, ..)| *next > number).map(|(_, _, next)| next.first_frame);
            !segment.is_whole(header.first_frame..next.unwrap_or(segment.end.1))
        }
        None => false,
    };
    // The newest ones that follow each other are all that should be there from the first of them on.
    let used =
        || segments.iter().filter_map(|(number, segment)| Some((number, segment, segment.header.as_ref()?)));
    let (mut first, mut wanted) = (None, None);
    for (number, _, header) in used().rev() {
        if wanted.is_some_and(|wanted| wanted != *number) {
            break;
        }
        (first, wanted) = (Some(*number), Some(header.previous_segment));
    }
    let first = first?;
    let kept = used().filter_map(|(number, segment, header)| {
        let thin = thin(number, segment, header);
        let (base_lsn, next_lsn, end) = match list(number) {
            Some(list) if thin => (list.base_lsn, list.next_lsn, list.end),
            _ => (header.base_lsn, segment.end.2, segment.records_end),
        };
        (*number < first || thin).then_some(Kept { number: *number, base_lsn, next_lsn, end, thin })
    });
    let header = segments.get(&first)?.header.as_ref()?;
    Some(Floor {
        journal: *journal,
        first,
        base_lsn: header.base_lsn,
        first_frame: header.first_frame,
        kept: kept.collect(),
    })
}
