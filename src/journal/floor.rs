//! Which segments of a journal exist: the file `floor` in its folder. Pure.
//!
//! From `first` on all of them, one after the other; below it only those that are kept. A segment
//! file that should not exist was about to be removed when the process ended, and goes at the next
//! start; one that should and does not was lost, and is reported. The floor is durable before anything
//! is removed: the other way round a crash in between would look like a loss.
//!
//! It also says which segments are thin, since that is what makes their marks void: one file decides
//! at one moment for all segments of a journal.

use super::frame::JournalId;
use super::twin::{self, Fields, TwinFault};

const MAGIC: u64 = u64::from_le_bytes(*b"PNSTKFLR");
const ROW: usize = 40;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Floor {
    pub journal: JournalId,
    /// From this segment on none is missing. Above all numbers in use if none is left.
    pub first: u64,
    /// LSN of the first record in it.
    pub base_lsn: u64,
    /// Number of its first frame.
    pub first_frame: u64,
    /// Those that are there below `first`, and those from `first` on that are thin. Ascending.
    pub kept: Vec<Kept>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub number: u64,
    /// LSNs of its records: from, and the first behind it.
    pub base_lsn: u64,
    pub next_lsn: u64,
    /// Offset after its last frame with records.
    pub end: u64,
    /// Only what its list names is there.
    pub thin: bool,
}

impl Floor {
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.journal.to_vec();
        for word in [self.first, self.base_lsn, self.first_frame, self.kept.len() as u64] {
            body.extend_from_slice(&word.to_le_bytes());
        }
        for kept in &self.kept {
            for word in [kept.number, kept.base_lsn, kept.next_lsn, kept.end, u64::from(kept.thin)] {
                body.extend_from_slice(&word.to_le_bytes());
            }
        }
        twin::encode(MAGIC, &body)
    }

    pub fn decode(file: &[u8], journal: &JournalId) -> Result<Self, TwinFault> {
        let mut fields = Fields(twin::decode(MAGIC, file)?);
        let mut floor = Self {
            journal: fields.take()?,
            first: fields.u64()?,
            base_lsn: fields.u64()?,
            first_frame: fields.u64()?,
            kept: Vec::new(),
        };
        let count = fields.u64()?;
        if floor.journal != *journal || count.checked_mul(ROW as u64) != Some(fields.0.len() as u64) {
            return Err(TwinFault::Content);
        }
        for _ in 0..count {
            floor.kept.push(Kept {
                number: fields.u64()?,
                base_lsn: fields.u64()?,
                next_lsn: fields.u64()?,
                end: fields.u64()?,
                thin: fields.u64()? != 0,
            });
        }
        Ok(floor)
    }

    pub fn kept(&self, number: u64) -> Option<&Kept> {
        self.kept.binary_search_by_key(&number, |kept| kept.number).ok().map(|at| &self.kept[at])
    }

    /// Whether a segment of that number may be there.
    pub fn has(&self, number: u64) -> bool {
        number >= self.first || self.kept(number).is_some()
    }

    pub fn is_thin(&self, number: u64) -> bool {
        self.kept(number).is_some_and(|kept| kept.thin)
    }

    /// The segment after `number`, if that lies below `first`; else `first`.
    pub fn after(&self, number: u64) -> u64 {
        let at = self.kept.partition_point(|kept| kept.number <= number);
        self.kept.get(at).map_or(self.first, |kept| kept.number.min(self.first))
    }
}

#[cfg(test)]
mod tests {
    use super::super::twin::tests::never_misread;
    use super::*;

    #[test]
    fn a_floor_is_read_as_it_was_written_or_refused() {
        let row = |number| Kept {
            number,
            base_lsn: number * 100,
            next_lsn: number * 100 + 50,
            end: 8192,
            thin: number != 5,
        };
        for kept in [vec![], vec![row(3), row(5), row(10)]] {
            let floor = Floor { journal: [4; 16], first: 9, base_lsn: 900, first_frame: 77, kept };
            never_misread(&floor.encode(), &floor, |bytes| Floor::decode(bytes, &[4; 16]));
            assert_eq!(Floor::decode(&floor.encode(), &[5; 16]), Err(TwinFault::Content));
            let there: Vec<u64> = (1..12).filter(|number| floor.has(*number)).collect();
            if floor.kept.is_empty() {
                assert_eq!((there, floor.after(3)), (vec![9, 10, 11], 9));
                continue;
            }
            assert_eq!(there, [3, 5, 9, 10, 11]);
            assert_eq!([0, 3, 4, 5, 8].map(|number| floor.after(number)), [3, 5, 5, 9, 9]);
            assert!(floor.is_thin(3) && !floor.is_thin(5) && !floor.is_thin(9) && floor.is_thin(10));
        }
    }
}
