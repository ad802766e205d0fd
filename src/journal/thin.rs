//! Recovery of a thin segment: the records that its list names, few reads for many. Pure.

use super::Position;
use super::frame::FrameFault;
use super::live::{LiveList, LiveRow};
use super::record::{self, Record, RecordFault};
use super::recover::{Lost, Part, RecoverError, Recovered, Span};

/// Records of a thin segment that lie this close are read at once.
const NEAR: u64 = 64 * 1024;
/// Most that is read of a thin segment at once, unless one record is longer.
const AT_ONCE: u64 = 1024 * 1024;

/// Hands on the records that a thin segment's list names; each has its own checksum to answer for it.
pub(super) fn read_thin(
    list: &LiveList,
    load: &mut impl FnMut(u64, Part) -> std::io::Result<Vec<u8>>,
    out: &mut Recovered,
    visit: &mut impl FnMut(Position, u64, &Record<'_>),
) -> Result<(), RecoverError> {
    let segment = list.segment;
    let place = |row: &LiveRow| (row.frame + u64::from(row.offset), u64::from(row.len));
    let records: Vec<&LiveRow> = list.records().map(|rows| &rows[0]).collect();
    let mut rest = &records[..];
    while let Some(first) = rest.first() {
        let (from, mut to) = (place(first).0, place(first).0 + place(first).1);
        let mut count = 1;
        for (at, len) in rest[1..].iter().map(|row| place(row)) {
            if at > to + NEAR || at + len > from + AT_ONCE {
                break;
            }
            to = to.max(at + len);
            count += 1;
        }
        let part = Part::Bytes { at: from, len: (to - from) as usize };
        let bytes = load(segment, part).map_err(|source| RecoverError::Io { segment, source })?;
        for row in &rest[..count] {
            let (at, len) = place(row);
            let start = (at - from) as usize;
            let record = bytes.get(start..start + len as usize).ok_or(RecordFault::Short);
            match record.and_then(record::read) {
                Ok((record, _)) => visit(Position::new(segment, row.frame), row.lsn, &record),
                Err(fault @ RecordFault::Unknown(_)) => {
                    return Err(RecoverError::Newer { segment, at, fault: fault.to_string() });
                }
                Err(_) => out.lost.push(Lost {
                    first_lsn: row.lsn,
                    last_lsn: row.lsn,
                    segment,
                    at,
                    fault: FrameFault::PayloadCrc,
                }),
            }
        }
        rest = &rest[count..];
    }
    out.spans.push(Span {
        segment,
        end: list.end,
        holes: Vec::new(),
        lsns: list.base_lsn..list.next_lsn,
        parcels: list.rows.len() as u64,
        thin: true,
    });
    (out.next_frame, out.next_lsn, out.chain) = (list.next_frame, list.next_lsn, list.chain);
    Ok(())
}
