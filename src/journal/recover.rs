//! From the bytes of a journal's segments to its records, and a verdict about every byte that is not
//! a good frame. Pure: segments come through a function.
//!
//! One write is in flight at a time, so a frame that verifies proves that all before it were durable.
//! Hence the rule for a bad frame: if any later frame or segment verifies, the bad one was durable
//! and is damaged, and the range of records lost is known exactly from its neighbours; if none does,
//! it is the torn end of an unfinished write, nothing in it was acknowledged, and the journal ends
//! before it. The honest limit: damage to the very last frame looks like a tear. A tick after 20 ms
//! of idling and a seal at a clean stop keep that window small.

use super::Position;
use super::buffer::BLOCK;
use super::frame::{self, Digest, FIRST_FRAME, FrameFault, FrameHeader, FrameKind, JournalId, SegmentHeader};
use super::record::{self, Record, RecordFault};

/// Where a segment's frames lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub segment: u64,
    /// Offset after the last good frame.
    pub end: u64,
    /// Damaged bytes inside: from, to.
    pub holes: Vec<(u64, u64)>,
}

/// Records that were durable and are lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub first_lsn: u64,
    /// Last lost record; below `first_lsn` if the damaged bytes held none.
    pub last_lsn: u64,
    pub segment: u64,
    /// Offset of the damage.
    pub at: u64,
    pub fault: FrameFault,
}

/// What a journal holds and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    pub journal: Option<JournalId>,
    pub spans: Vec<Span>,
    pub lost: Vec<Lost>,
    /// Segments made ahead and never used.
    pub spares: Vec<u64>,
    /// Segments whose header was torn while they were being taken into use: they hold nothing.
    pub void: Vec<u64>,
    /// The journal ended in an unfinished write: segment and offset of the tear.
    pub torn: Option<(u64, u64)>,
    pub next_frame: u64,
    pub next_lsn: u64,
    pub chain: Digest,
}

/// Why a journal cannot be recovered. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("read segment {segment}: {source}")]
    Io { segment: u64, source: std::io::Error },
    #[error("segment {segment} at byte {at}: {fault}; expected a version this program can read")]
    Newer { segment: u64, at: u64, fault: String },
    #[error("segment {segment} belongs to another journal; move it out of the folder")]
    Foreign { segment: u64 },
}

/// Whether the first two blocks or all of a segment are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Header,
    Whole,
}

/// Walks all records of a journal in order. `numbers` are its segment files, ascending; `load` reads
/// one; `visit` gets each record with its LSN and the position of its frame.
pub fn recover(
    numbers: &[u64],
    mut load: impl FnMut(u64, Part) -> std::io::Result<Vec<u8>>,
    mut visit: impl FnMut(Position, u64, &Record<'_>),
) -> Result<Recovered, RecoverError> {
    let mut headers = Vec::with_capacity(numbers.len());
    for &segment in numbers {
        let bytes = load(segment, Part::Header).map_err(|source| RecoverError::Io { segment, source })?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(Some(header)) if header.number == segment => Head::Good(header),
            Ok(None) => Head::Blank,
            Err(fault @ FrameFault::Version(_)) => {
                return Err(RecoverError::Newer { segment, at: 0, fault: fault.to_string() });
            }
            Ok(Some(_)) | Err(_) => Head::Bad,
        };
        headers.push((segment, header));
    }
    let mut out = Recovered { next_frame: 1, ..Recovered::default() };
    for (segment, head) in &mut headers {
        if matches!(head, Head::Bad) {
            let segment = *segment;
            let bytes = load(segment, Part::Whole).map_err(|source| RecoverError::Io { segment, source })?;
            if let Some(header) = salvage(segment, &bytes) {
                out.lost.push(Lost {
                    first_lsn: 1,
                    last_lsn: 0,
                    segment,
                    at: 0,
                    fault: FrameFault::HeaderCrc,
                });
                *head = Head::Salvaged(header);
            }
        }
    }
    // Segments after the last one in use were made ahead; one whose header was torn while it was
    // being taken into use holds nothing yet.
    let used = headers.iter().rposition(|(_, h)| h.header().is_some()).map_or(0, |at| at + 1);
    for (number, head) in &headers {
        match head {
            Head::Blank => out.spares.push(*number),
            Head::Bad => out.void.push(*number),
            Head::Good(_) | Head::Salvaged(_) => {}
        }
    }
    let mut started = false;
    for at in 0..used {
        let (segment, head) = &headers[at];
        let next = headers[at + 1..used].iter().find_map(|(_, h)| h.header());
        let Some(header) = head.header() else { continue };
        match (head, out.journal) {
            (Head::Good(_), None) => out.journal = Some(header.journal),
            (Head::Good(_), Some(id)) if id != header.journal => {
                return Err(RecoverError::Foreign { segment: *segment });
            }
            _ => {}
        }
        if started && (header.first_frame != out.next_frame || header.previous != out.chain) {
            // A segment before this one is gone or its header is unreadable.
            out.lost.push(Lost {
                first_lsn: out.next_lsn,
                last_lsn: header.base_lsn.wrapping_sub(1),
                segment: *segment - 1,
                at: 0,
                fault: FrameFault::Chain,
            });
        }
        started = true;
        (out.next_frame, out.next_lsn, out.chain) = (header.first_frame, header.base_lsn, header.previous);
        let bytes =
            load(*segment, Part::Whole).map_err(|source| RecoverError::Io { segment: *segment, source })?;
        let end = next.filter(|n| n.previous_segment == *segment).map(|n| n.previous_end);
        walk(header, &bytes, end, next, &mut out, &mut visit)?;
    }
    Ok(out)
}

enum Head {
    Good(SegmentHeader),
    /// Both copies are damaged, but the frames behind them are there.
    Salvaged(SegmentHeader),
    Blank,
    Bad,
}

impl Head {
    fn header(&self) -> Option<&SegmentHeader> {
        match self {
            Self::Good(header) | Self::Salvaged(header) => Some(header),
            Self::Blank | Self::Bad => None,
        }
    }
}

/// What a lost segment header must have said, from the first frame behind it. Where the segment
/// before it ends stays unknown; the scan finds out.
fn salvage(segment: u64, bytes: &[u8]) -> Option<SegmentHeader> {
    let (first, _) = frame::read(bytes.get(FIRST_FRAME as usize..)?).ok()?;
    Some(SegmentHeader {
        journal: JournalId::default(),
        salt: first.salt,
        number: segment,
        base_lsn: first.first_lsn,
        first_frame: first.number,
        previous: first.previous,
        previous_segment: 0,
        previous_end: 0,
        created_at: first.written_at,
    })
}

/// Walks one segment up to `end` (known from its successor) or to where the frames stop.
fn walk(
    segment: &SegmentHeader,
    bytes: &[u8],
    end: Option<u64>,
    next: Option<&SegmentHeader>,
    out: &mut Recovered,
    visit: &mut impl FnMut(Position, u64, &Record<'_>),
) -> Result<(), RecoverError> {
    let limit = end.unwrap_or(bytes.len() as u64).min(bytes.len() as u64);
    let mut span = Span { segment: segment.number, end: FIRST_FRAME, holes: Vec::new() };
    let mut at = FIRST_FRAME;
    while at < limit {
        let expect = Expect {
            salt: &segment.salt,
            number: out.next_frame,
            lsn: out.next_lsn,
            chain: Some(&out.chain),
        };
        match check(&bytes[at as usize..limit as usize], &expect) {
            Ok(header) => {
                accept(segment.number, at, &bytes[at as usize..], &header, out, visit)?;
                at += u64::from(header.padded);
                span.end = at;
                if header.kind == FrameKind::Seal && end.is_none() {
                    break;
                }
            }
            Err(fault @ FrameFault::Version(_)) => {
                return Err(RecoverError::Newer { segment: segment.number, at, fault: fault.to_string() });
            }
            Err(fault) => {
                let later = find_later(&bytes[..limit as usize], at + BLOCK as u64, segment, out.next_frame);
                let (resume, lsn) = match (&later, next) {
                    (Some((offset, header)), _) => (*offset, header.first_lsn),
                    (None, Some(next)) => (limit, next.base_lsn),
                    (None, None) => {
                        // Nothing after it verifies: the end of the journal. All zeros is a clean one.
                        if bytes[at as usize..].iter().take(BLOCK).any(|b| *b != 0) {
                            out.torn = Some((segment.number, at));
                        }
                        break;
                    }
                };
                out.lost.push(Lost {
                    first_lsn: out.next_lsn,
                    last_lsn: lsn.wrapping_sub(1),
                    segment: segment.number,
                    at,
                    fault,
                });
                span.holes.push((at, resume));
                at = resume;
                span.end = at;
                if let Some((_, header)) = later {
                    (out.next_frame, out.next_lsn, out.chain) =
                        (header.number, header.first_lsn, header.previous);
                }
            }
        }
    }
    out.spans.push(span);
    Ok(())
}

/// Hands the records of a verified frame on and moves the expectation behind it.
fn accept(
    segment: u64,
    at: u64,
    bytes: &[u8],
    header: &FrameHeader,
    out: &mut Recovered,
    visit: &mut impl FnMut(Position, u64, &Record<'_>),
) -> Result<(), RecoverError> {
    let position = Position::new(segment, at);
    let newer = |fault: RecordFault| RecoverError::Newer { segment, at, fault: fault.to_string() };
    let payload = &bytes[frame::HEADER..frame::HEADER + header.payload as usize];
    for item in records(payload, header.first_lsn) {
        let (lsn, record) = item.map_err(newer)?;
        visit(position, lsn, &record);
    }
    (out.next_frame, out.next_lsn, out.chain) = (header.number + 1, header.next_lsn(), header.digest());
    Ok(())
}

/// The records of a frame's payload with their LSNs.
pub fn records(
    payload: &[u8],
    first_lsn: u64,
) -> impl Iterator<Item = Result<(u64, Record<'_>), RecordFault>> {
    let mut rest = payload;
    let mut lsn = first_lsn;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match record::read(rest) {
            Ok((record, len)) => {
                rest = &rest[len..];
                lsn += 1;
                Some(Ok((lsn - 1, record)))
            }
            Err(fault) => {
                rest = &[];
                Some(Err(fault))
            }
        }
    })
}

struct Expect<'a> {
    salt: &'a frame::Salt,
    number: u64,
    lsn: u64,
    chain: Option<&'a Digest>,
}

fn check(bytes: &[u8], expect: &Expect<'_>) -> Result<FrameHeader, FrameFault> {
    let (header, payload) = frame::read(bytes)?;
    if header.salt != *expect.salt {
        return Err(FrameFault::Salt);
    }
    if let Some(chain) = expect.chain
        && (header.number != expect.number || header.first_lsn != expect.lsn || header.previous != *chain)
    {
        return Err(FrameFault::Chain);
    }
    // A frame whose checksum is right but whose records do not add up was written wrong; treat it
    // as damaged. A kind we do not know is reported by the caller.
    let mut count = 0;
    for item in records(payload, header.first_lsn) {
        match item {
            Ok(_) => count += 1,
            Err(RecordFault::Unknown(_)) => return Ok(header),
            Err(_) => return Err(FrameFault::PayloadCrc),
        }
    }
    if count != header.records { Err(FrameFault::Lengths) } else { Ok(header) }
}

/// The first verifying frame at or after `from` that is newer than what is expected.
fn find_later(bytes: &[u8], from: u64, segment: &SegmentHeader, expected: u64) -> Option<(u64, FrameHeader)> {
    let mut at = from;
    while at < bytes.len() as u64 {
        let expect = Expect { salt: &segment.salt, number: 0, lsn: 0, chain: None };
        if let Ok(header) = check(&bytes[at as usize..], &expect)
            && header.number > expected
        {
            return Some((at, header));
        }
        at += BLOCK as u64;
    }
    None
}
