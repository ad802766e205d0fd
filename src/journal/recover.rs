//! From the bytes of a journal's segments to its records, and a verdict about every byte that is not
//! a good frame. Pure: segments come through a function.
//!
//! One write is in flight at a time, so a frame that verifies proves that all before it were durable.
//! Hence the rule for a bad frame: if any later frame or segment verifies, the bad one was durable
//! and is damaged, and the range of records lost is known exactly from its neighbours; if none does,
//! it is the torn end of an unfinished write, nothing in it was acknowledged, and the journal ends
//! before it. The honest limit: damage to the very last frame looks like a tear. A tick after 20 ms
//! of idling and a seal at a clean stop keep that window small.

use std::ops::Range;

use super::Position;
use super::buffer::BLOCK;
use super::floor::Floor;
use super::frame::{self, Digest, FIRST_FRAME, FrameFault, FrameHeader, FrameKind, JournalId, SegmentHeader};
use super::live::LiveList;
use super::record::{self, Record, RecordFault};
use super::thin::read_thin;
use super::twin::TwinFault;
use crate::fault;

/// Where a segment's frames lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub segment: u64,
    /// Offset after the last good frame.
    pub end: u64,
    /// Damaged bytes inside: from, to.
    pub holes: Vec<(u64, u64)>,
    pub lsns: Range<u64>,
    /// Of its entries; of a thin segment those that are listed.
    pub parcels: u64,
    pub thin: bool,
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
    #[error(
        "the file of segment {segment} ({segment:010}.seg) is that of segment {says}: files were renamed, or put back \
         under other names; `penstock journal fsck` says how they belong"
    )]
    Misnamed { segment: u64, says: u64 },
    #[error(
        "the list of what waits in segment {segment} ({segment:010}.live): {fault}; restore it from a copy, or let \
         `penstock journal fsck --repair` make it anew from what the segment still holds"
    )]
    List { segment: u64, fault: TwinFault },
    #[error(
        "{segment:010}.live is not there, and segment {segment} is thin: only this list says what waits in it; restore \
         it from a copy, or let `penstock journal fsck --repair` make it anew from what the segment still holds"
    )]
    NoList { segment: u64 },
}

/// What is wanted of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first two blocks.
    Header,
    Whole,
    /// That many bytes from there, or what there is of them.
    Bytes {
        at: u64,
        len: usize,
    },
    /// The file with its list.
    List,
}

/// Walks all records of a journal in order; of thin segments those that their lists name. `numbers`
/// are its segment files, ascending; `load` reads one; `visit` gets each record with its LSN and the
/// position of its frame.
pub fn recover(
    numbers: &[u64],
    floor: Option<&Floor>,
    mut load: impl FnMut(u64, Part) -> std::io::Result<Vec<u8>>,
    mut visit: impl FnMut(Position, u64, &Record<'_>),
) -> Result<Recovered, RecoverError> {
    let numbers: Vec<u64> =
        numbers.iter().copied().filter(|number| floor.is_none_or(|floor| floor.has(*number))).collect();
    let io = |segment| move |source| RecoverError::Io { segment, source };
    let mut headers = Vec::with_capacity(numbers.len());
    for &segment in &numbers {
        let bytes = load(segment, Part::Header).map_err(io(segment))?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(Some(header)) if header.number == segment => Head::Good(header),
            // Its frames verify, under their own numbers: read here they would come out of order.
            Ok(Some(header)) => return Err(RecoverError::Misnamed { segment, says: header.number }),
            Ok(None) => Head::Blank,
            Err(fault @ FrameFault::Version(_)) => {
                return Err(RecoverError::Newer { segment, at: 0, fault: fault.to_string() });
            }
            Err(_) => Head::Bad,
        };
        headers.push((segment, header));
    }
    let is_thin = |segment| floor.is_some_and(|floor| floor.is_thin(segment));
    let mut out = Recovered { next_frame: 1, ..Recovered::default() };
    for (segment, head) in &mut headers {
        if matches!(head, Head::Bad) && !is_thin(*segment) {
            let segment = *segment;
            let bytes = load(segment, Part::Whole).map_err(io(segment))?;
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
    if let Some(floor) = floor {
        out.journal = Some(floor.journal);
        missing(floor, &numbers, &mut out);
    }
    // Segments after the last one in use were made ahead; one whose header was torn while it was
    // being taken into use holds nothing yet.
    let used = headers.iter().rposition(|(n, h)| h.header().is_some() || is_thin(*n)).map_or(0, |at| at + 1);
    for (at, (number, head)) in headers.iter().enumerate() {
        match head {
            _ if is_thin(*number) => {}
            Head::Blank => out.spares.push(*number),
            // One with others behind it was in use once: what is left in it is nobody's to remove.
            Head::Bad if at < used => {}
            Head::Bad => out.void.push(*number),
            Head::Good(_) | Head::Salvaged(_) => {}
        }
    }
    // What the next segment must go on from. Where nothing was freed yet, that is where every journal begins.
    let mut expected = match floor {
        Some(floor) => Some((floor.first_frame, floor.base_lsn, None)),
        None => Some((1, 1, Some(Digest::default()))),
    };
    for at in 0..used {
        let (segment, head) = &headers[at];
        let segment = *segment;
        let kept = floor.and_then(|floor| floor.kept(segment));
        let below = floor.is_some_and(|floor| segment < floor.first);
        let next = headers[at + 1..used].iter().find_map(|(_, h)| h.header());
        let list = match floor {
            Some(floor) if is_thin(segment) => {
                let bytes = load(segment, Part::List).map_err(|source| match source.kind() {
                    std::io::ErrorKind::NotFound => RecoverError::NoList { segment },
                    _ => RecoverError::Io { segment, source },
                })?;
                let list = LiveList::decode(&bytes, &floor.journal, segment);
                Some(list.map_err(|fault| RecoverError::List { segment, fault })?)
            }
            _ => None,
        };
        let start = match (&list, head.header()) {
            (Some(list), _) => (list.first_frame, list.base_lsn, None),
            (None, Some(header)) => (header.first_frame, header.base_lsn, Some(header.previous)),
            (None, None) => continue,
        };
        match (head, out.journal) {
            (Head::Good(header), None) => out.journal = Some(header.journal),
            (Head::Good(header), Some(id)) if id != header.journal => {
                return Err(RecoverError::Foreign { segment });
            }
            _ => {}
        }
        if !below && let Some((frame, lsn, chain)) = expected {
            let broken = start.2.zip(chain).is_some_and(|(says, is)| says != is);
            if frame != start.0 || broken {
                // A segment before this one is gone or its header is unreadable.
                out.lost.push(Lost {
                    first_lsn: lsn,
                    last_lsn: start.1.wrapping_sub(1),
                    segment: segment - 1,
                    at: 0,
                    fault: FrameFault::Chain,
                });
            }
        }
        (out.next_frame, out.next_lsn) = (start.0, start.1);
        if let Some(list) = &list {
            read_thin(list, &mut load, &mut out, &mut visit)?;
        } else if let Some(header) = head.header() {
            out.chain = header.previous;
            let bytes = load(segment, Part::Whole).map_err(io(segment))?;
            let (end, after) = match kept {
                // Its successor may be gone.
                Some(kept) => (Some(kept.end), Some((kept.next_lsn, None))),
                None => (
                    next.filter(|n| n.previous_segment == segment).map(|n| n.previous_end),
                    next.map(|n| (n.base_lsn, Some((n.first_frame, n.previous)))),
                ),
            };
            walk(header, &bytes, end, after, &mut out, &mut visit)?;
        }
        if !below {
            expected = Some((out.next_frame, out.next_lsn, Some(out.chain)));
        }
    }
    if let Some((frame, lsn, chain)) = expected {
        let lsn = lsn.saturating_sub(u64::from(fault::planted("numbers-given-twice")));
        (out.next_frame, out.next_lsn, out.chain) = (frame, lsn, chain.unwrap_or_default());
    }
    Ok(out)
}

/// Reports kept segments that are not there.
fn missing(floor: &Floor, numbers: &[u64], out: &mut Recovered) {
    for kept in floor.kept.iter().filter(|kept| numbers.binary_search(&kept.number).is_err()) {
        out.lost.push(Lost {
            first_lsn: kept.base_lsn,
            last_lsn: kept.next_lsn.wrapping_sub(1),
            segment: kept.number,
            at: 0,
            fault: FrameFault::Chain,
        });
    }
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

/// Walks one segment up to `end` (known from its successor) or to where the frames stop. `after`: the LSN
/// of the record behind it, if there is more behind it, and with what the next frame begins.
fn walk(
    segment: &SegmentHeader,
    bytes: &[u8],
    end: Option<u64>,
    after: Option<(u64, Option<(u64, Digest)>)>,
    out: &mut Recovered,
    visit: &mut impl FnMut(Position, u64, &Record<'_>),
) -> Result<(), RecoverError> {
    let limit = end.unwrap_or(bytes.len() as u64).min(bytes.len() as u64);
    let base = out.next_lsn;
    let mut span = Span {
        segment: segment.number,
        end: FIRST_FRAME,
        holes: Vec::new(),
        lsns: base..base,
        parcels: 0,
        thin: false,
    };
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
                span.parcels += accept(segment.number, at, &bytes[at as usize..], &header, out, visit)?;
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
                let (resume, lsn) = match (&later, after) {
                    (Some((offset, header)), _) => (*offset, header.first_lsn),
                    (None, Some((next, _))) => (limit, next),
                    (None, None) => {
                        // Nothing after it verifies: the end of the journal. What an earlier use of the
                        // file left there has another salt.
                        let salt = bytes.get(at as usize..).and_then(FrameHeader::salt_in);
                        if salt == Some(&segment.salt) {
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
                out.next_lsn = lsn;
                let follows = later.map(|(_, header)| (header.number, header.previous));
                if let Some((frame, chain)) = follows.or(after.and_then(|(_, follows)| follows)) {
                    (out.next_frame, out.chain) = (frame, chain);
                }
            }
        }
    }
    span.lsns.end = out.next_lsn;
    out.spans.push(span);
    Ok(())
}

/// Hands the records of a verified frame on and moves the expectation behind it. How many parcels they have.
fn accept(
    segment: u64,
    at: u64,
    bytes: &[u8],
    header: &FrameHeader,
    out: &mut Recovered,
    visit: &mut impl FnMut(Position, u64, &Record<'_>),
) -> Result<u64, RecoverError> {
    let position = Position::new(segment, at);
    let newer = |fault: RecordFault| RecoverError::Newer { segment, at, fault: fault.to_string() };
    let payload = &bytes[frame::HEADER..frame::HEADER + header.payload as usize];
    let mut parcels = 0;
    for item in records(payload, header.first_lsn) {
        let (lsn, record) = item.map_err(newer)?;
        if let Record::Entry(entry) = &record {
            parcels += u64::from(entry.slots);
        }
        visit(position, lsn, &record);
    }
    (out.next_frame, out.next_lsn, out.chain) = (header.number + 1, header.next_lsn(), header.digest());
    Ok(parcels)
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
    // A file that is used again is full of frames with another salt: no need to sum them up, and no newer version
    // wrote what looks like one.
    let decoded = FrameHeader::decode(bytes);
    let foreign = FrameHeader::salt_in(bytes) != Some(expect.salt) && !fault::planted("salt-not-compared");
    if foreign && matches!(decoded, Ok(_) | Err(FrameFault::Version(_))) {
        return Err(FrameFault::Salt);
    }
    decoded?;
    let (header, payload) = frame::read(bytes)?;
    if let Some(chain) = expect.chain.filter(|_| !fault::planted("chain-not-compared"))
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
    let count = count + u32::from(fault::planted("good-frame-refused"));
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
