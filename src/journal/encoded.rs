//! An entry encoded ahead, by a thread that is no core: a large one would keep its core from everybody else. Pure.
//!
//! It lies where it will be written from, in a buffer that becomes a frame. Its sequence number is not known yet, as
//! that is taken when the entry gets its place; it stands in front, and checksums of two parts make that of the whole.

use crc_fast::crc32_iscsi;

use super::buffer::AlignedBuf;
use super::frame::{self, HEADER, Summed};
use super::record::{self, MARKS_MAX, NUMBERED, marks_len};

/// A larger entry gets a frame of its own. To copy one that is not takes less than a commit more.
pub(super) const COPIED_MAX: usize = 128 * 1024;

/// An entry in a frame's buffer of its own.
pub struct Encoded {
    buf: AlignedBuf,
    slots: u16,
    /// Checksum of the record behind its number.
    rest: u32,
}

impl Encoded {
    /// As [`super::Journal::append`] takes it.
    pub fn new(slots: u16, meta_len: usize, meta: impl FnOnce(&mut AlignedBuf), body: &[u8]) -> Self {
        let len = record::entry_len(meta_len, body.len());
        // Marks may be added to its frame, and must not move it.
        let marks = if len > COPIED_MAX { marks_len(MARKS_MAX) } else { 0 };
        let mut buf = AlignedBuf::with_capacity(frame::padded_len(len + marks));
        buf.set_len(HEADER);
        record::write_entry(&mut buf, 0, slots, meta, body);
        let rest = crc32_iscsi(&buf.as_slice()[HEADER + NUMBERED..]);
        Self { buf, slots, rest }
    }

    /// Bytes of the record.
    pub fn record_len(&self) -> usize {
        self.buf.len() - HEADER
    }

    pub(super) fn slots(&self) -> u16 {
        self.slots
    }

    /// The frame's buffer with the entry in it, and that it is summed up.
    pub(crate) fn number(mut self, seq: u64) -> (AlignedBuf, Summed) {
        let record = &mut self.buf.as_mut_slice()[HEADER..];
        let crc = record::number_entry(record, seq, self.rest);
        let bytes = record.len();
        (self.buf, Summed { bytes, crc })
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::header;
    use super::super::record::Record;
    use super::*;

    #[test]
    fn an_entry_encoded_ahead_is_written_byte_for_byte_as_any_other() {
        for (len, marks) in [(0, 0), (1, 3), (5000, 0), (200_000, MARKS_MAX)] {
            let body: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let meta = |buf: &mut AlignedBuf| buf.extend_from_slice(b"meta");
            let mark =
                super::super::Mark { lsn: 1, slot: 0, outcome: super::super::Settled::Delivered, tag: 3 };
            let finish = |buf: &mut AlignedBuf, summed| {
                if marks > 0 {
                    record::write_marks(buf, &[1; 16], &vec![mark; marks]);
                }
                frame::finish_summed(buf, header(), summed)
            };

            let mut usual = AlignedBuf::with_capacity(0);
            usual.set_len(HEADER);
            record::write_entry(&mut usual, 77, 2, meta, &body);
            let expected = finish(&mut usual, Summed::default());

            let encoded = Encoded::new(2, 4, meta, &body);
            assert_eq!((encoded.slots(), encoded.record_len()), (2, record::entry_len(4, len)));
            let (mut buf, summed) = encoded.number(77);
            let capacity = buf.capacity();
            assert_eq!(finish(&mut buf, summed), expected);
            assert_eq!(buf.capacity(), capacity, "it was moved");
            assert_eq!(buf.as_slice(), usual.as_slice());

            let (_, payload) = frame::read(buf.as_slice()).unwrap();
            let (Record::Entry(entry), _) = record::read(payload).unwrap() else { panic!("no entry") };
            assert_eq!((entry.seq, entry.slots, entry.meta, entry.body), (77, 2, &b"meta"[..], &body[..]));
        }
    }
}
