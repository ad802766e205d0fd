//! Recovery against images of disks: torn, flipped, missing, and cut twice.

use std::collections::{BTreeMap, BTreeSet};

use super::buffer::{AlignedBuf, BLOCK};
use super::frame::{self, Digest, FIRST_FRAME, FrameHeader, FrameKind, HEADER, SegmentHeader};
use super::record::{self, Record};
use super::recover::{Part, RecoverError, Recovered, recover};

mod checking;
mod exhaustive;
mod freeing;
/// The disk that the simulation of the whole gateway has, too.
#[path = "../../tests/sim/disk.rs"]
#[allow(dead_code, reason = "each of the two uses a part of it")]
pub(crate) mod memory;
mod reading;
mod sparse;
mod world;

/// A journal on a disk of memory, written as the writer does it.
#[derive(Clone, Default)]
struct Image {
    segments: BTreeMap<u64, Vec<u8>>,
    /// Offset after the last frame of the newest segment.
    end: u64,
    next_frame: u64,
    next_lsn: u64,
    chain: Digest,
}

const SEGMENT: usize = 16 * BLOCK;
const JOURNAL: [u8; 16] = [0xab; 16];

impl Image {
    fn new() -> Self {
        let mut image = Self { next_frame: 1, next_lsn: 1, ..Self::default() };
        image.open(1, 0, 0);
        image
    }

    fn newest(&self) -> u64 {
        *self.segments.keys().last().unwrap()
    }

    fn open(&mut self, number: u64, previous_segment: u64, previous_end: u64) {
        let mut buf = AlignedBuf::with_capacity(0);
        SegmentHeader {
            journal: JOURNAL,
            salt: [number as u8; 16],
            number,
            base_lsn: self.next_lsn,
            first_frame: self.next_frame,
            previous: self.chain,
            previous_segment,
            previous_end,
            created_at: 0,
        }
        .encode(&mut buf);
        let mut bytes = vec![0; SEGMENT];
        bytes[..buf.len()].copy_from_slice(buf.as_slice());
        self.segments.insert(number, bytes);
        self.end = FIRST_FRAME;
    }

    fn frame(&mut self, kind: FrameKind, bodies: &[&[u8]]) {
        let number = self.newest();
        let mut buf = AlignedBuf::with_capacity(0);
        buf.set_len(HEADER);
        for (at, body) in bodies.iter().enumerate() {
            record::write_entry(
                &mut buf,
                self.next_lsn + at as u64,
                1,
                |b| b.extend_from_slice(b"meta"),
                body,
            );
        }
        let header = frame::finish(
            &mut buf,
            FrameHeader {
                kind,
                salt: [number as u8; 16],
                number: self.next_frame,
                first_lsn: self.next_lsn,
                records: bodies.len() as u32,
                payload: 0,
                padded: 0,
                payload_crc: 0,
                durable_upto: self.next_lsn,
                previous: self.chain,
                written_at: 0,
            },
        );
        let end = self.end as usize;
        self.segments.get_mut(&number).unwrap()[end..end + buf.len()].copy_from_slice(buf.as_slice());
        self.end += buf.len() as u64;
        (self.next_frame, self.next_lsn, self.chain) =
            (header.number + 1, header.next_lsn(), header.digest());
    }

    fn commit(&mut self, bodies: &[&[u8]]) {
        self.frame(FrameKind::Commit, bodies);
    }

    fn roll(&mut self) {
        self.frame(FrameKind::Seal, &[]);
        let (number, end) = (self.newest(), self.end);
        self.open(number + 1, number, end);
    }

    /// What recovery makes of it: its verdict, and the bodies by LSN.
    fn recover(&self) -> (Recovered, BTreeMap<u64, Vec<u8>>) {
        self.try_recover().unwrap()
    }

    fn try_recover(&self) -> Result<(Recovered, BTreeMap<u64, Vec<u8>>), RecoverError> {
        let numbers: Vec<u64> = self.segments.keys().copied().collect();
        let mut found = BTreeMap::new();
        let recovered = recover(
            &numbers,
            None,
            |number, part| {
                let bytes = &self.segments[&number];
                Ok(if part == Part::Header {
                    bytes.iter().copied().take(2 * BLOCK).collect()
                } else {
                    bytes.clone()
                })
            },
            |_, lsn, record| {
                if let Record::Entry(entry) = record {
                    assert!(found.insert(lsn, entry.body.to_vec()).is_none(), "LSN {lsn} came twice");
                }
            },
        )?;
        Ok((recovered, found))
    }
}

/// Three segments, nine frames, fourteen entries.
fn sample() -> (Image, BTreeMap<u64, Vec<u8>>) {
    let mut image = Image::new();
    image.commit(&[b"one"]);
    image.commit(&[b"two", b"three"]);
    image.frame(FrameKind::Tick, &[]);
    image.commit(&[&[b'4'; 5000]]);
    image.roll();
    image.commit(&[b"five", b"six", b"seven"]);
    image.commit(&[b"eight"]);
    image.roll();
    image.commit(&[b"nine", b"ten"]);
    image.commit(&[b"eleven", b"twelve", b"thirteen", b"fourteen"]);
    let (recovered, found) = image.recover();
    assert_eq!((recovered.lost.len(), recovered.torn, found.len()), (0, None, 14));
    (image, found)
}

#[test]
fn what_was_written_is_recovered_and_the_journal_goes_on_behind_it() {
    let (image, _) = sample();
    let (recovered, _) = image.recover();
    assert_eq!((recovered.next_lsn, recovered.next_frame), (image.next_lsn, image.next_frame));
    assert_eq!(recovered.chain, image.chain);
    assert_eq!(recovered.spans.last().map(|s| (s.segment, s.end)), Some((3, image.end)));
}

#[test]
fn a_write_torn_at_any_byte_costs_only_what_was_not_acknowledged() {
    let (mut image, before) = sample();
    let start = image.end as usize;
    image.commit(&[b"torn", &[b't'; 3000], b"tail"]);
    let end = image.end as usize;
    let whole = image.segments[&3].clone();
    for cut in start..end {
        for fill in [0x00u8, 0xff, 0x5a] {
            let mut torn = image.clone();
            torn.segments.get_mut(&3).unwrap()[cut..end].fill(fill);
            if torn.segments[&3] == whole {
                continue;
            }
            let (recovered, found) = torn.recover();
            let used = cut >= start + HEADER + frame::TRAILER && found.len() > before.len();
            if used {
                // Only padding was torn: the frame is whole, and keeping it is right too.
                continue;
            }
            assert_eq!(found, before, "cut at {cut}, fill {fill:#x}");
            assert!(recovered.lost.is_empty(), "a tear was taken for damage: cut at {cut}, fill {fill:#x}");
            assert_eq!(recovered.spans.last().unwrap().end, start as u64);
        }
    }
}

#[test]
fn pages_of_the_last_write_in_any_subset_are_a_tear() {
    let (mut image, before) = sample();
    let start = image.end as usize;
    image.commit(&[&[b'p'; 20_000]]);
    let end = image.end as usize;
    let pages = (end - start) / BLOCK;
    for subset in 0..(1u32 << pages) - 1 {
        let mut torn = image.clone();
        for page in (0..pages).filter(|p| subset & (1 << p) == 0) {
            torn.segments.get_mut(&3).unwrap()[start + page * BLOCK..start + (page + 1) * BLOCK].fill(0);
        }
        let (recovered, found) = torn.recover();
        assert_eq!(found, before, "pages {subset:b}");
        assert!(recovered.lost.is_empty(), "pages {subset:b}");
    }
}

/// Every entry is either there unchanged or inside a reported range; the last frame may also be gone
/// silently, since damage to it looks like a tear.
fn check_damage(image: &Image, before: &BTreeMap<u64, Vec<u8>>, last_frame: u64, what: &str) {
    let (recovered, found) = image.recover();
    let mut lost = BTreeSet::new();
    for range in &recovered.lost {
        lost.extend(range.first_lsn..=range.last_lsn.min(100));
    }
    for (lsn, body) in before {
        match found.get(lsn) {
            Some(there) => {
                assert_eq!(there, body, "{what}: LSN {lsn} was altered");
                assert!(!lost.contains(lsn), "{what}: LSN {lsn} is there and reported lost");
            }
            None => {
                assert!(lost.contains(lsn) || *lsn >= last_frame, "{what}: LSN {lsn} vanished without a word")
            }
        }
    }
    assert!(found.keys().all(|lsn| before.contains_key(lsn)), "{what}: something was invented");
}

/// `exhaustive` leaves none out, in smaller segments.
#[test]
fn flipped_bits_all_over_a_journal_are_harmless_or_reported_with_the_exact_range() {
    let (image, before) = sample();
    for (number, bytes) in image.segments.clone() {
        let used = if number == 3 { image.end as usize } else { SEGMENT };
        let mut damaged = image.clone();
        for bit in (0..used * 8).step_by(97) {
            damaged.segments.get_mut(&number).unwrap()[bit / 8] = bytes[bit / 8] ^ (1 << (bit % 8));
            check_damage(&damaged, &before, 11, &format!("segment {number} bit {bit}"));
            damaged.segments.get_mut(&number).unwrap()[bit / 8] = bytes[bit / 8];
        }
    }
}

#[test]
fn zeroed_and_misplaced_blocks_are_reported() {
    let (image, before) = sample();
    for (number, bytes) in &image.segments {
        let blocks = if *number == 3 { image.end as usize / BLOCK } else { SEGMENT / BLOCK };
        for block in 0..blocks {
            let at = block * BLOCK;
            for source in [None, Some(0), Some(2 * BLOCK), Some(3 * BLOCK)] {
                let mut damaged = image.clone();
                let target = &mut damaged.segments.get_mut(number).unwrap()[at..at + BLOCK];
                match source {
                    None => target.fill(0),
                    Some(from) => target.copy_from_slice(&bytes[from..from + BLOCK]),
                }
                check_damage(
                    &damaged,
                    &before,
                    11,
                    &format!("segment {number} block {block} from {source:?}"),
                );
            }
        }
    }
}

#[test]
fn a_missing_segment_is_a_range_not_a_silence() {
    let (mut image, before) = sample();
    image.segments.remove(&2);
    let (recovered, found) = image.recover();
    let ranges: Vec<_> = recovered.lost.iter().map(|l| (l.first_lsn, l.last_lsn)).collect();
    assert_eq!(ranges, [(5, 8)]);
    assert_eq!(found.len(), before.len() - 4);
}

#[test]
fn a_lost_segment_header_does_not_lose_its_frames() {
    let (mut image, before) = sample();
    for number in [1, 2, 3] {
        let mut damaged = image.clone();
        damaged.segments.get_mut(&number).unwrap()[..2 * BLOCK].fill(0x11);
        let (recovered, found) = damaged.recover();
        assert_eq!(found, before, "segment {number}");
        assert!(!recovered.lost.is_empty(), "segment {number}: the damage is reported");
    }
    image.segments.insert(4, vec![0; SEGMENT]);
    assert_eq!(image.recover().0.spares, [4], "a segment made ahead holds nothing");
}

#[test]
fn a_cut_stays_where_the_first_recovery_made_it() {
    let (mut image, before) = sample();
    let cut = image.end;
    image.commit(&[b"torn"]);
    // The header of the torn frame is damaged: it was never acknowledged.
    let stale = image.clone();
    image.segments.get_mut(&3).unwrap()[cut as usize + 30] ^= 1;
    let (recovered, _) = image.recover();
    let mut next = Image { segments: image.segments.clone(), ..Image::default() };
    (next.next_frame, next.next_lsn, next.chain) =
        (recovered.next_frame, recovered.next_lsn, recovered.chain);
    next.open(4, 3, cut);
    next.commit(&[b"after"]);
    // The old bytes come back, as a page that reached the disk late would: they stay void.
    next.segments.insert(3, stale.segments[&3].clone());
    let (recovered, found) = next.recover();
    assert!(recovered.lost.is_empty());
    assert_eq!(found.len(), before.len() + 1);
    assert_eq!(found[&15], b"after");
}

#[test]
fn a_frame_sent_inside_a_webhook_is_never_taken_for_one() {
    let mut inner = Image { next_frame: 50, next_lsn: 500, ..Image::default() };
    inner.open(9, 0, 0);
    inner.commit(&[b"evil"]);
    let smuggled = inner.segments[&9][FIRST_FRAME as usize..FIRST_FRAME as usize + BLOCK].to_vec();
    let mut image = Image::new();
    // So long that the smuggled frame starts on a block border, where a scan looks.
    let mut body = vec![0; BLOCK - HEADER - record::entry_len(4, 0)];
    body.extend_from_slice(&smuggled);
    image.commit(&[b"before"]);
    image.commit(&[&body]);
    image.commit(&[b"behind"]);
    let bytes = image.segments.get_mut(&1).unwrap();
    let at = FIRST_FRAME as usize + BLOCK;
    assert!(frame::read(&bytes[at + BLOCK..]).is_ok(), "the smuggled frame is where a scan finds it");
    // The header in front of it is damaged, so recovery scans. The salt gives the smuggled one away.
    bytes[at + 5] ^= 0xff;
    let (recovered, found) = image.recover();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(recovered.lost.iter().map(|l| (l.first_lsn, l.last_lsn)).collect::<Vec<_>>(), [(2, 2)]);
}

/// With `PNSF` and a checksum of four printable characters a text can be the header of a frame, and it lies in the
/// journal as it was sent.
#[test]
fn what_users_sent_in_an_earlier_use_of_a_file_is_no_newer_version() {
    let mut inner = Image { next_frame: 50, next_lsn: 500, ..Image::default() };
    inner.open(9, 0, 0);
    inner.commit(&[b"sent"]);
    let mut sent = inner.segments[&9][FIRST_FRAME as usize..FIRST_FRAME as usize + BLOCK].to_vec();
    for (at, value) in [(4, b'A'), (5, 9)] {
        sent[at] = value;
        let crc = crc_fast::crc32_iscsi(&sent[..HEADER - 4]);
        sent[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(FrameHeader::decode(&sent), Err(frame::FrameFault::Version(_))));
        let mut image = Image::new();
        image.commit(&[b"stored"]);
        let end = image.end as usize;
        image.segments.get_mut(&1).unwrap()[end..end + BLOCK].copy_from_slice(&sent);
        let (recovered, found) = image.recover();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1]);
        assert!(recovered.lost.is_empty() && recovered.torn.is_none());
    }
}
