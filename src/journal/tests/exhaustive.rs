//! Every tear, every bit, every subset of pages, every way to lose or mix up a segment: of small journals,
//! all of them. What was acknowledged is there unchanged or its exact range is named; what comes behind it
//! is kept; nothing is invented, and nothing is read as what it is not.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use super::super::disk::Disk;
use super::super::floor::Floor;
use super::super::folder::floor_path;
use super::super::frame::{FrameHeader, TRAILER};
use super::super::live::LiveList;
use super::super::recover::RecoverError;
use super::super::store::parse_id;
use super::freeing::{seeds, thinned};
use super::memory::Random;
use super::*;

/// One frame of an image: segment, bytes, LSNs.
type Framed = (u64, Range<u64>, Range<u64>);

/// Sealed, sealed, in use; frames of one block and of several; a small file so that all of it can be tried.
fn small() -> (Image, BTreeMap<u64, Vec<u8>>, Vec<Framed>) {
    let mut image = Image::new();
    image.commit(&[b"one", b"two"]);
    image.commit(&[&[b'3'; 3900], b"four"]);
    image.roll();
    image.commit(&[b"five"]);
    image.frame(FrameKind::Tick, &[]);
    image.commit(&[b"six", b"seven"]);
    image.roll();
    image.commit(&[b"eight"]);
    image.commit(&[b"nine", b"ten"]);
    // What was made ahead and not written is left out: it is zeros, and says nothing.
    for (number, bytes) in &mut image.segments {
        let used = frames_in(bytes).last().map_or(0, |(bytes, _)| bytes.end as usize);
        bytes.truncate(used + usize::from(*number == 3) * BLOCK);
    }
    let frames = frames(&image);
    let (recovered, found) = image.recover();
    assert!(recovered.lost.is_empty() && recovered.torn.is_none() && found.len() == 10);
    (image, found, frames)
}

fn frames_in(bytes: &[u8]) -> Vec<(Range<u64>, Range<u64>)> {
    let mut frames = Vec::new();
    let mut at = FIRST_FRAME;
    while let Some(Ok(header)) = bytes.get(at as usize..).map(FrameHeader::decode) {
        let end = at + u64::from(header.padded);
        frames.push((at..end, header.first_lsn..header.next_lsn()));
        at = end;
    }
    frames
}

fn frames(image: &Image) -> Vec<Framed> {
    let of = |(number, bytes): (&u64, &Vec<u8>)| {
        let number = *number;
        frames_in(bytes).into_iter().map(move |(bytes, lsns)| (number, bytes, lsns)).collect::<Vec<_>>()
    };
    image.segments.iter().flat_map(of).collect()
}

/// What an earlier use of a file may have left: whole frames of another salt, at every block.
fn earlier_use(len: usize) -> Vec<u8> {
    let mut old = Image { next_frame: 500, next_lsn: 5000, ..Image::default() };
    old.open(77, 0, 0);
    old.commit(&[b"settled long ago"]);
    let frame = old.segments[&77][FIRST_FRAME as usize..FIRST_FRAME as usize + BLOCK].to_vec();
    frame.iter().copied().cycle().take(len).collect()
}

/// LSNs that are named as lost.
fn named(recovered: &Recovered) -> Vec<u64> {
    recovered
        .lost
        .iter()
        .filter(|l| l.last_lsn >= l.first_lsn)
        .flat_map(|l| l.first_lsn..=l.last_lsn)
        .collect()
}

/// A change inside the blocks of one frame, or of one header: exact, and never more than that frame.
fn judge(
    image: &Image,
    before: &BTreeMap<u64, Vec<u8>>,
    frames: &[Framed],
    (number, at): (u64, u64),
    what: &str,
) {
    let (recovered, found) = image.recover();
    for (lsn, body) in &found {
        assert_eq!(before.get(lsn), Some(body), "{what}: LSN {lsn} was altered or invented");
    }
    let missing: Vec<u64> = before.keys().filter(|lsn| !found.contains_key(lsn)).copied().collect();
    let last = frames.last().unwrap();
    let hit = frames.iter().find(|(segment, bytes, _)| *segment == number && bytes.contains(&at));
    match hit {
        Some(frame) if frame == last => {
            // Damage to the very last frame looks like a tear.
            let lsns: Vec<u64> = frame.2.clone().collect();
            assert!(missing.is_empty() || missing == lsns, "{what}: {missing:?} are missing");
            assert!(recovered.torn.is_none() || !missing.is_empty(), "{what}");
            assert_eq!(named(&recovered), [0; 0], "{what}");
        }
        Some((.., lsns)) => {
            let lsns: Vec<u64> = lsns.clone().collect();
            assert!(missing.is_empty() || missing == lsns, "{what}: {missing:?} are missing");
            assert_eq!(named(&recovered), missing, "{what}");
            assert_eq!(recovered.torn, None, "{what}");
        }
        None => {
            assert_eq!((missing.len(), named(&recovered).len()), (0, 0), "{what}");
        }
    }
    let next = if hit == Some(last) && !missing.is_empty() { last.2.start } else { last.2.end };
    assert_eq!(recovered.next_lsn, next, "{what}: goes on at another LSN");
}

/// Where each bit has a meaning of its own: headers, the first record's, trailers. The others are those of
/// one long body, and of padding.
fn is_dense(frames: &[Framed], number: u64, byte: usize) -> bool {
    let end = |bytes: &Range<u64>| {
        let image = bytes.end as usize;
        image.saturating_sub(64)..image
    };
    byte % BLOCK < 200 || frames.iter().any(|(n, bytes, _)| *n == number && end(bytes).contains(&byte))
}

/// `PENSTOCK_EVERY_BIT=1` leaves out none (minutes); else of padding and of a long body's middle every 57th.
#[test]
fn every_flipped_bit_of_small_segments_costs_at_most_its_frame_and_says_exactly_which() {
    let (image, before, frames) = small();
    let all = std::env::var_os("PENSTOCK_EVERY_BIT").is_some();
    let mut images = 0;
    for number in 1..=3 {
        let len = image.segments[&number].len();
        let mut damaged = image.clone();
        for bit in (0..len * 8).filter(|bit| all || is_dense(&frames, number, bit / 8) || bit % 57 == 0) {
            damaged.segments.get_mut(&number).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let at = (number, (bit / 8) as u64);
            judge(&damaged, &before, &frames, at, &format!("segment {number} bit {bit}"));
            damaged.segments.get_mut(&number).unwrap()[bit / 8] ^= 1 << (bit % 8);
            images += 1;
        }
    }
    println!("{images} images");
}

#[test]
fn write_torn_at_every_byte_over_zeros_old_data_or_noise_is_cut_off_and_nothing_else() {
    let (image, before, _) = small();
    let mut random = Random(seeds(1)[0]);
    println!("PENSTOCK_SEED={}", random.0);
    let start = image.end as usize;
    let mut whole = image.clone();
    whole.segments.get_mut(&3).unwrap().resize(start + 4 * BLOCK, 0);
    whole.commit(&[b"torn", &[b't'; 5000], b"tail"]);
    let end = whole.end as usize;
    let header = FrameHeader::decode(&whole.segments[&3][start..]).unwrap();
    let used = start + HEADER + header.payload as usize + TRAILER;
    let noise: Vec<u8> = (0..end - start).map(|_| random.below(256) as u8).collect();
    for (name, fill) in [("zeros", vec![0; end - start]), ("old", earlier_use(end - start)), ("noise", noise)]
    {
        let mut torn = whole.clone();
        // From behind, so that each image is the one before and a byte more of what was there.
        for cut in (start..end).rev() {
            torn.segments.get_mut(&3).unwrap()[cut] = fill[cut - start];
            let intact = torn.segments[&3][start..used] == whole.segments[&3][start..used];
            let (recovered, found) = torn.recover();
            let said = format!("{name}, cut at {cut}");
            assert!(recovered.lost.is_empty(), "{said}: a tear was taken for damage");
            let end_of = |image: &Image| image.recover().1;
            if intact {
                assert_eq!(found, end_of(&whole), "{said}: only padding is torn");
            } else {
                assert_eq!(found, before, "{said}");
                assert_eq!(
                    (recovered.next_lsn, recovered.next_frame),
                    (image.next_lsn, image.next_frame),
                    "{said}"
                );
                assert_eq!(
                    (recovered.chain, recovered.spans.last().unwrap().end),
                    (image.chain, start as u64)
                );
            }
        }
    }
}

#[test]
fn pages_of_the_last_write_in_every_subset_are_a_tear_over_zeros_and_over_old_data() {
    let (image, before, _) = small();
    let start = image.end as usize;
    let mut whole = image.clone();
    whole.segments.get_mut(&3).unwrap().resize(start + 13 * BLOCK, 0);
    let bodies = [&[b'p'; 20_000][..], &[b'q'; 20_000], &[b'r'; 8_000]];
    whole.commit(&bodies);
    let pages = (whole.end as usize - start) / BLOCK;
    assert_eq!(pages, 12);
    for fill in [vec![0; BLOCK], earlier_use(BLOCK)] {
        for subset in 0..(1u32 << pages) - 1 {
            let mut torn = whole.clone();
            for page in (0..pages).filter(|page| subset & (1 << page) == 0) {
                let at = start + page * BLOCK;
                torn.segments.get_mut(&3).unwrap()[at..at + BLOCK].copy_from_slice(&fill);
            }
            let (recovered, found) = torn.recover();
            assert_eq!(found, before, "pages {subset:b}");
            assert!(recovered.lost.is_empty(), "pages {subset:b}: a tear was taken for damage");
            assert_eq!((recovered.next_lsn, recovered.chain), (image.next_lsn, image.chain));
        }
    }
}

#[test]
fn every_block_zeroed_misdirected_or_old_costs_at_most_its_frame_and_says_exactly_which() {
    let (image, before, frames) = small();
    let old = earlier_use(BLOCK);
    for (number, bytes) in &image.segments {
        for at in (0..bytes.len()).step_by(BLOCK) {
            let mut others = vec![vec![0; BLOCK], vec![0xff; BLOCK], old.clone()];
            // Every other block of the journal, as a write to the wrong place leaves it.
            let blocks =
                image.segments.iter().flat_map(|(n, b)| b.chunks(BLOCK).enumerate().map(move |c| (n, c)));
            others.extend(
                blocks.filter(|(n, (i, _))| (*n, i * BLOCK) != (number, at)).map(|(_, (_, b))| b.to_vec()),
            );
            for (source, other) in others.iter().enumerate() {
                let mut damaged = image.clone();
                damaged.segments.get_mut(number).unwrap()[at..at + BLOCK].copy_from_slice(other);
                let what = format!("segment {number} byte {at} from {source}");
                match damaged.try_recover() {
                    // A header of another segment in the place of this one's first copy.
                    Err(RecoverError::Misnamed { segment, .. }) => {
                        assert!(segment == *number && at == 0, "{what}")
                    }
                    Err(error) => panic!("{what}: {error}"),
                    Ok(_) => judge(&damaged, &before, &frames, (*number, at as u64), &what),
                }
            }
        }
    }
}

#[test]
fn segment_that_is_missing_cut_or_older_is_a_range_and_one_under_another_name_is_refused() {
    let (image, before, frames) = small();
    let lsns = |from: &[Framed]| -> Vec<u64> { from.iter().flat_map(|(.., lsns)| lsns.clone()).collect() };
    let of = |number: u64| -> Vec<Framed> { frames.iter().filter(|f| f.0 == number).cloned().collect() };
    let expect = |image: &Image, lost: Vec<u64>, what: &str| {
        let (recovered, found) = image.recover();
        let there: Vec<u64> = before.keys().filter(|lsn| !lost.contains(lsn)).copied().collect();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), there, "{what}");
        assert_eq!(named(&recovered), lost, "{what}");
        assert_eq!(recovered.next_lsn, 11, "{what}");
    };
    // Missing; the floor is what tells that the first one is.
    let mut gone = image.clone();
    gone.segments.remove(&2);
    expect(&gone, lsns(&of(2)), "segment 2 missing");

    // Cut at every block and within one; put back as it was after each of its frames.
    for number in [1, 2] {
        let frames = of(number);
        let len = image.segments[&number].len();
        for cut in (0..len).step_by(BLOCK / 2) {
            // A frame of which only padding is cut is whole.
            let used = |start: u64| {
                let header = FrameHeader::decode(&image.segments[&number][start as usize..]).unwrap();
                start as usize + HEADER + header.payload as usize + TRAILER
            };
            let kept = frames.partition_point(|(_, bytes, _)| used(bytes.start) <= cut);
            let mut damaged = image.clone();
            damaged.segments.get_mut(&number).unwrap().truncate(cut);
            expect(&damaged, lsns(&frames[kept..]), &format!("segment {number} cut at {cut}"));
            if cut as u64 >= FIRST_FRAME {
                let mut older = image.clone();
                older.segments.get_mut(&number).unwrap()[cut..].fill(0);
                expect(&older, lsns(&frames[kept..]), &format!("segment {number} as it was at {cut}"));
            }
        }
        // As it was before it was used.
        let mut blank = image.clone();
        blank.segments.get_mut(&number).unwrap().fill(0);
        expect(&blank, lsns(&frames), &format!("segment {number} blank"));
    }

    // Two files that were swapped, and one that stands in for another.
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        let mut swapped = image.clone();
        swapped.segments.insert(one, image.segments[&other].clone());
        let error = swapped.try_recover().unwrap_err();
        assert!(
            matches!(error, RecoverError::Misnamed { segment, says } if (segment, says) == (one, other)),
            "{error}"
        );
        swapped.segments.insert(other, image.segments[&one].clone());
        let error = swapped.try_recover().unwrap_err();
        assert!(matches!(error, RecoverError::Misnamed { segment, .. } if segment == one), "{error}");
        assert!(error.to_string().contains("fsck"), "{error}");
    }

    // Of another journal, under the right name.
    let mut foreign = Image::new();
    foreign.commit(&[b"not ours"]);
    let bytes = foreign.segments.get_mut(&1).unwrap();
    bytes[16] ^= 1;
    bytes[BLOCK..2 * BLOCK].fill(0);
    let crc = crc_fast::crc32_iscsi(&bytes[..112]);
    bytes[112..116].copy_from_slice(&crc.to_le_bytes());
    let mut mixed = image.clone();
    mixed.segments.insert(1, bytes.clone());
    let error = mixed.try_recover().unwrap_err();
    assert!(matches!(error, RecoverError::Foreign { .. }), "{error}");
}

#[test]
fn every_flipped_bit_of_a_thin_segments_blocks_costs_at_most_one_record_and_says_which() {
    let (world, disk, path) = thinned(5);
    let dir = path.parent().unwrap();
    let id = parse_id(dir.file_name().unwrap().to_str().unwrap()).unwrap();
    let read = |path: &std::path::Path| disk.read(path, 0, usize::MAX >> 1).unwrap();
    let floor = Floor::decode(&read(&floor_path(dir)), &id).unwrap();
    let number = floor.kept.iter().find(|kept| kept.thin).unwrap().number;
    let list = LiveList::decode(&read(&super::super::folder::live_path(dir, number)), &id, number).unwrap();
    let mut bytes = read(&super::super::spare::segment_path(dir, number));
    let waits: Vec<u64> = list.records().map(|rows| rows[0].lsn).collect();
    assert!(waits.len() > 1);
    let mut hits = 0;
    for bit in (0..bytes.len() * 8)
        .filter(|bit| bytes[bit / 8 / BLOCK * BLOCK..][..BLOCK].iter().any(|b| *b != 0) || bit % 999 == 0)
        .collect::<Vec<_>>()
    {
        let at = (bit / 8) as u64;
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut found = Vec::new();
        let load = |_, part| {
            Ok(match part {
                Part::Header => bytes[..2 * BLOCK].to_vec(),
                Part::List => list.encode(),
                Part::Bytes { at, len } => {
                    assert!(at as usize + len <= bytes.len(), "{len} bytes were asked for at {at}");
                    bytes[at as usize..at as usize + len].to_vec()
                }
                Part::Whole => return Err(io::Error::other("a thin segment is not read whole")),
            })
        };
        let recovered = recover(&[number], Some(&floor), load, |_, lsn, record| {
            let Record::Entry(entry) = record else { panic!("LSN {lsn} is no entry") };
            assert_eq!(entry.body, world.entries[&entry.seq].body, "bit {bit}: LSN {lsn} was altered");
            found.push(lsn);
        })
        .unwrap();
        let inside = |row: &&super::super::live::LiveRow| {
            let start = row.frame + u64::from(row.offset);
            (start..start + u64::from(row.len)).contains(&at)
        };
        let lost: Vec<u64> = list.rows.iter().find(inside).map(|row| row.lsn).into_iter().collect();
        let named: Vec<u64> =
            recovered.lost.iter().filter(|l| l.segment == number).map(|l| l.first_lsn).collect();
        assert_eq!(named, lost, "bit {bit}");
        found.extend(&lost);
        found.sort_unstable();
        assert_eq!(found, waits, "bit {bit}");
        hits += lost.len();
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(hits > 0);
}
