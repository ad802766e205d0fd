//! The list of a segment's parcels that are not settled: `N.live` beside `N.seg`. Pure.
//!
//! Once it is there it is the authority for the entries of its segment: what it does not name is
//! settled, whatever became of the mark. So the frames that held the marks may go, and of the segment
//! itself everything may go that no row needs ([`LiveList::unneeded`]). Positions, offsets and lengths
//! are those of the whole segment: nothing that is kept ever moves.

use super::buffer::BLOCK;
use super::frame::{Digest, FIRST_FRAME, JournalId};
use super::twin::{self, Fields, TwinFault};
use crate::fault;

const MAGIC: u64 = u64::from_le_bytes(*b"PNSTKLIV");
const FIXED: usize = 88;
const ROW: usize = 32;

/// Smaller holes are not worth it. A hole costs 20 to 70 us of CPU whatever its size, and where one parcel in seven
/// waits those of one block are two in five of all and give back one byte in seven.
const HOLE_MIN: u64 = 2 * BLOCK as u64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveList {
    pub journal: JournalId,
    pub segment: u64,
    /// LSNs of the segment's records: from, and the first behind it.
    pub base_lsn: u64,
    pub next_lsn: u64,
    /// Numbers of its frames: from, and the first behind it.
    pub first_frame: u64,
    pub next_frame: u64,
    /// What the next segment's header must say of the last frame.
    pub chain: Digest,
    /// Offset after the last good frame.
    pub end: u64,
    /// By LSN, then slot.
    pub rows: Vec<LiveRow>,
}

/// One parcel that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRow {
    /// Where its frame starts in the segment; a multiple of the block.
    pub frame: u64,
    /// Its record's place in the frame.
    pub offset: u32,
    pub len: u32,
    pub slot: u16,
    /// Parcels of the entry; those that have no row are settled.
    pub slots: u16,
    pub lsn: u64,
    /// The entry's sequence number.
    pub seq: u64,
}

impl LiveList {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED + self.rows.len() * ROW);
        body.extend_from_slice(&self.journal);
        for word in [self.segment, self.base_lsn, self.next_lsn, self.first_frame, self.next_frame, self.end]
        {
            body.extend_from_slice(&word.to_le_bytes());
        }
        body.extend_from_slice(&self.chain);
        body.extend_from_slice(&(self.rows.len() as u64).to_le_bytes());
        for row in &self.rows {
            body.extend_from_slice(&((row.frame / BLOCK as u64) as u32).to_le_bytes());
            body.extend_from_slice(&row.offset.to_le_bytes());
            body.extend_from_slice(&row.len.to_le_bytes());
            body.extend_from_slice(&row.slot.to_le_bytes());
            body.extend_from_slice(&row.slots.to_le_bytes());
            body.extend_from_slice(&row.lsn.to_le_bytes());
            body.extend_from_slice(&row.seq.to_le_bytes());
        }
        twin::encode(MAGIC, &body)
    }

    /// The list in a file that says it is that of `segment` of `journal`.
    pub fn decode(file: &[u8], journal: &JournalId, segment: u64) -> Result<Self, TwinFault> {
        let mut fields = Fields(twin::decode(MAGIC, file)?);
        let mut list = Self { journal: fields.take()?, segment: fields.u64()?, ..Self::default() };
        list.base_lsn = fields.u64()?;
        list.next_lsn = fields.u64()?;
        list.first_frame = fields.u64()?;
        list.next_frame = fields.u64()?;
        list.end = fields.u64()?;
        list.chain = fields.take()?;
        let count = fields.u64()?;
        if list.journal != *journal
            || list.segment != segment
            || count.checked_mul(ROW as u64) != Some(fields.0.len() as u64)
        {
            return Err(TwinFault::Content);
        }
        list.rows.reserve_exact(count as usize);
        for _ in 0..count {
            list.rows.push(LiveRow {
                frame: u64::from(fields.u32()?) * BLOCK as u64,
                offset: fields.u32()?,
                len: fields.u32()?,
                slot: fields.u16()?,
                slots: fields.u16()?,
                lsn: fields.u64()?,
                seq: fields.u64()?,
            });
        }
        Ok(list)
    }

    /// Rows by record: those of one entry together.
    pub fn records(&self) -> impl Iterator<Item = &[LiveRow]> {
        self.rows.chunk_by(|a, b| a.lsn == b.lsn)
    }

    /// Parts of a segment file of `len` bytes that no row needs and that are worth a hole: from, to, on block
    /// borders. What stays is the segment's header, the first block of each frame that has a row, the rows'
    /// records, and single blocks between.
    pub fn unneeded(&self, len: u64) -> Vec<(u64, u64)> {
        let block = BLOCK as u64;
        let mut holes = Vec::new();
        let mut kept = FIRST_FRAME;
        let mut keep = |from: u64, to: u64| {
            let (from, to) = (from / block * block, to.next_multiple_of(block));
            if from >= kept + HOLE_MIN {
                let from = if fault::planted("hole-too-long") { from + block } else { from };
                holes.push((kept, from));
            }
            kept = kept.max(to);
        };
        for row in &self.rows {
            keep(row.frame, row.frame + block);
            let start = row.frame + u64::from(row.offset);
            keep(start, start + u64::from(row.len));
        }
        if len > kept {
            holes.push((kept, len));
        }
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::super::twin::tests::never_misread;
    use super::*;

    fn row(lsn: u64, slot: u16, frame: u64, offset: u32, len: u32) -> LiveRow {
        LiveRow { frame, offset, len, slot, slots: 2, lsn, seq: lsn * 10 }
    }

    fn list(rows: Vec<LiveRow>) -> LiveList {
        LiveList {
            journal: [7; 16],
            segment: 3,
            base_lsn: 100,
            next_lsn: 200,
            first_frame: 40,
            next_frame: 50,
            chain: [9; 16],
            end: 1 << 20,
            rows,
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_or_refused() {
        for rows in [vec![], vec![row(101, 0, 8192, 128, 900), row(101, 1, 8192, 128, 900)]] {
            let list = list(rows);
            never_misread(&list.encode(), &list, |bytes| LiveList::decode(bytes, &[7; 16], 3));
        }
    }

    #[test]
    fn a_list_under_another_name_is_refused() {
        let file = list(vec![]).encode();
        assert_eq!(LiveList::decode(&file, &[7; 16], 4), Err(TwinFault::Content));
        assert_eq!(LiveList::decode(&file, &[8; 16], 3), Err(TwinFault::Content));
    }

    #[test]
    fn everything_goes_but_what_a_row_needs() {
        let block = BLOCK as u64;
        let at = |n: u64| n * block;
        assert_eq!(list(vec![]).unneeded(at(100)), [(at(2), at(100))]);
        let list = list(vec![
            // In the first block of its frame, over a border, and in a later frame right behind it.
            row(1, 0, at(2), 128, 100),
            row(5, 0, at(10), 4 * BLOCK as u32 - 10, 20),
            // Behind a single block that is not needed.
            row(6, 0, at(16), 200, 100),
            row(6, 1, at(16), 200, 100),
        ]);
        assert_eq!(list.unneeded(at(100)), [(at(3), at(10)), (at(11), at(13)), (at(17), at(100))]);
        assert_eq!(list.unneeded(at(17)), [(at(3), at(10)), (at(11), at(13))]);
        assert_eq!(list.records().map(<[LiveRow]>::len).collect::<Vec<_>>(), [1, 1, 2]);
    }
}
