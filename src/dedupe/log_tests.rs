//! The key log's bytes under tears and damage, and its files through a life.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::folder::Folder;
use super::keeper::{Batch, Clock, Keeper, Start};
use super::log::{self, Contents, PIECE, Record};
use super::seen::{Seen, Sighting};
use crate::metrics::ForwardCells;
use crate::parse::tests::Rng;

/// No byte at the end of a record is zero, as the space made ahead is.
const REGION: u32 = 0xf1e2_d377;

fn record(n: u8) -> Record {
    Record { key: [n; 16], value: u64::from(n) << 60 | 5, minute: 1000 + u32::from(n), region: REGION }
}

/// A file of blocks with so many records each, then `ahead` zeros.
fn file(blocks: &[u8], ahead: usize) -> Vec<u8> {
    let mut bytes = log::header().to_vec();
    let mut n = 0;
    for count in blocks {
        let mut records = Vec::new();
        for _ in 0..*count {
            n += 1;
            log::push(&record(n), &mut records);
        }
        bytes.extend_from_slice(&log::block(&records));
        bytes.extend_from_slice(&records);
    }
    bytes.resize(bytes.len() + ahead, 0);
    bytes
}

fn read(bytes: &[u8]) -> (Vec<Record>, Contents) {
    let mut records = Vec::new();
    let contents = log::read(bytes, |record| records.push(*record)).unwrap();
    assert_eq!(records.len() as u64, contents.records);
    (records, contents)
}

#[test]
fn records_read_back_as_written_with_or_without_space_made_ahead() {
    for ahead in [0, 1, 31, 32, 4096] {
        let (records, contents) = read(&file(&[3, 1, 5], ahead));
        assert_eq!(records, (1..=9).map(record).collect::<Vec<_>>());
        assert_eq!(contents, Contents { records: 9, newest: Some(1009), damaged: 0, torn: ahead % PIECE });
    }
    assert_eq!(read(&[]).1, Contents::default());
    assert_eq!(read(&[0; 4096]).1, Contents::default());
}

#[test]
fn a_file_that_ends_anywhere_has_its_whole_blocks_and_no_damage() {
    let whole = file(&[3, 1, 5], 0);
    let ends = [32, 32 + 4 * 32, 32 + 6 * 32, 32 + 12 * 32];
    let counts = [0, 3, 4, 9];
    for len in 0..=whole.len() {
        let expected = ends.iter().zip(counts).filter(|(end, _)| **end <= len).map(|(_, n)| n).max();
        for ahead in [0, 1000] {
            let mut bytes = whole[..len].to_vec();
            bytes.resize(len + ahead, 0);
            let (records, contents) = read(&bytes);
            assert_eq!(records.len(), expected.unwrap_or(0), "cut at {len}");
            assert_eq!(contents.damaged, 0, "cut at {len}");
        }
    }
}

#[test]
fn any_flipped_bit_loses_its_own_block_and_is_reported_unless_it_is_the_last() {
    let whole = file(&[3, 1, 5], 256);
    let (all, _) = read(&whole);
    // From, to, records of each block.
    let blocks = [(32, 160, 0..3), (160, 224, 3..4), (224, 416, 4..9)];
    for bit in 0..416 * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = log::read(&bytes, |_| {});
        let (records, contents) = match found {
            Ok(_) => read(&bytes),
            Err(newer) => panic!("bit {bit}: {newer}"),
        };
        match blocks.iter().position(|(from, to, _)| (*from..*to).contains(&(bit / 8))) {
            // The header: all blocks are found without it.
            None => assert_eq!((records.len(), contents.damaged), (9, 32), "bit {bit}"),
            Some(block) => {
                let (from, to, lost) = blocks[block].clone();
                let expected: Vec<Record> =
                    all.iter().enumerate().filter(|(n, _)| !lost.contains(n)).map(|(_, r)| *r).collect();
                assert_eq!(records, expected, "bit {bit}");
                assert_eq!(contents.damaged, if block == 2 { 0 } else { to - from }, "bit {bit}");
            }
        }
    }
}

#[test]
fn a_newer_file_is_refused_and_not_skipped() {
    let mut header = log::header();
    header[8] = 9;
    let crc = crc_fast::crc32_iscsi(&header[..28]);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(log::read(&header, |_| {}), Err(log::Newer(9)));
}

#[test]
fn random_bytes_never_make_a_reader_fail() {
    let mut rng = Rng::from_env();
    for _ in 0..2000 {
        let mut bytes = file(&[2, 2, 2, 2], 64);
        for _ in 0..=rng.below(20) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        }
        bytes.truncate(rng.below(bytes.len() + 1));
        if let Ok(contents) = log::read(&bytes, |_| {}) {
            assert!(contents.records <= 8 && contents.damaged + contents.torn <= bytes.len());
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// A keeper whose marks are numbers that are noted as they go on.
fn keeper(dir: &Path, now: u32, seen: &mut Seen, on: Arc<AtomicUsize>) -> Keeper<usize> {
    let folder = Folder::open(dir, true, 1).unwrap();
    let inherited = folder.load(seen, |region| region == REGION, false).unwrap().files;
    let start = Start {
        core: 0,
        folder,
        inherited,
        now: now.max(seen.now()),
        cells: Arc::new(ForwardCells::default()),
        go_on: Box::new(move |mark: &mut usize| {
            on.fetch_add(*mark, SeqCst);
            true
        }),
        failed: Box::new(|error| panic!("{error}")),
    };
    Keeper::start(start).unwrap()
}

/// As strict as a file system may be: a name is durable once its folder was synced, and not before. What would
/// outlive a power cut is noted beside the folder.
fn strict(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        fs::write(dir.with_extension(name), "")?;
    }
    Ok(())
}

#[test]
fn a_key_whose_mark_went_on_is_in_a_file_that_a_power_cut_cannot_take_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::open(dir.path(), true, 1).unwrap();
    folder.sync_dir = strict;
    let start = Start {
        core: 0,
        folder,
        inherited: Vec::new(),
        now: 1,
        cells: Arc::new(ForwardCells::default()),
        go_on: Box::new(|_| true),
        failed: Box::new(|error| panic!("{error}")),
    };
    let mut keeper: Keeper<usize> = Keeper::start(start).unwrap();
    keeper.keep(batch(0..3, 1)).unwrap();
    until("the mark has gone on", || keeper.idle());
    drop(keeper);
    let keys = dir.path().join("keys");
    for name in names(dir.path()) {
        if !keys.with_extension(&name).exists() {
            fs::remove_file(keys.join(&name)).unwrap();
        }
    }
    let mut seen = Seen::new(DAY, 1 << 20, 1);
    assert_eq!(
        Folder::open(dir.path(), true, 1).unwrap().load(&mut seen, |_| true, true).unwrap().records,
        3
    );
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        #[allow(clippy::disallowed_methods, reason = "a test that waits for a thread")]
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn batch(numbers: std::ops::Range<u8>, minute: u32) -> Batch<usize> {
    let mut records = Vec::new();
    for n in numbers.clone() {
        log::push(&Record { minute, ..record(n) }, &mut records);
    }
    Batch { records, then: numbers.len() }
}

fn names(dir: &Path) -> Vec<String> {
    let list = fs::read_dir(dir.join("keys")).unwrap();
    let mut names: Vec<String> = list.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_process_left_unused_is_given_back_and_its_keys_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let known = |seen: &mut Seen| keeper(dir.path(), 1, seen, Arc::default());
    let mut seen = Seen::new(DAY, 1 << 20, 1);
    let mut first = known(&mut seen);
    first.keep(batch(0..3, 1)).unwrap();
    until("the keys are durable", || first.idle());
    drop(first);
    let file = dir.path().join("keys").join(&names(dir.path())[0]);
    let length = || fs::metadata(&file).unwrap().len();
    assert!(length() > 100 << 10, "space was made ahead");
    let _next = known(&mut seen);
    // A header, a block's head, three records.
    until("the space is given back", || length() == 5 * 32);
    let mut seen = Seen::new(DAY, 1 << 20, 1);
    assert_eq!(
        Folder::open(dir.path(), true, 1).unwrap().load(&mut seen, |_| true, true).unwrap().records,
        3
    );
}

#[test]
fn what_was_kept_is_known_at_the_next_start_and_deleted_once_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let seen = || Seen::new(DAY, 1 << 20, 5);
    let on = Arc::new(AtomicUsize::new(0));
    let mut first = keeper(folder.path(), 10, &mut seen(), Arc::clone(&on));
    assert!(names(folder.path()).is_empty(), "no file before there is something for it");
    first.keep(batch(0..3, 10)).unwrap();
    until("the first goes on", || first.idle());
    // An hour later it is another file.
    first.tell(Clock { minute: 70, oldest: 0 });
    first.keep(batch(3..5, 70)).unwrap();
    until("the second goes on", || first.idle());
    assert_eq!((on.load(SeqCst), names(folder.path()).len()), (5, 2));
    // As after a kill: nothing is closed.
    std::mem::forget(first);

    let mut next = seen();
    let mut second = keeper(folder.path(), 0, &mut next, Arc::clone(&on));
    assert_eq!((next.now(), next.keys()), (70, 5));
    for n in 0..5u8 {
        let Record { key, value, region, .. } = record(n);
        assert_eq!(next.claim(region, &key, value), Sighting::Repeat, "{n}");
        assert_eq!(next.claim(region + 1, &key, value), Sighting::New, "a key is its region's");
    }
    // A window later than the first file's newest record, and nothing waits since before.
    next.hold(u32::MAX);
    next.reach(10 + 1440);
    second.tell(Clock { minute: next.now(), oldest: next.oldest() });
    second.keep(batch(6..7, 1450)).unwrap();
    until("it is looked at", || second.idle());
    next.pass(1);
    assert_eq!(names(folder.path()), ["00000001.keys", "00000002.keys", "00000003.keys"]);
    second.tell(Clock { minute: next.now(), oldest: next.oldest() });
    second.keep(batch(5..6, 1451)).unwrap();
    until("old files go", || names(folder.path()) == ["00000002.keys", "00000003.keys"]);
    assert!(!next.forgets());
}

#[test]
fn a_damaged_file_costs_its_block_and_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = keeper(folder.path(), 10, &mut Seen::new(DAY, 1 << 20, 5), Arc::default());
    for n in 0..3 {
        first.keep(batch(n..n + 1, 10)).unwrap();
        until("it goes on", || first.idle());
    }
    let path = folder.path().join("keys/00000001.keys");
    let mut bytes = fs::read(&path).unwrap();
    bytes[32 + 32 + 3] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut seen = Seen::new(DAY, 1 << 20, 5);
    let loaded = Folder::open(folder.path(), true, 1).unwrap().load(&mut seen, |_| true, true).unwrap();
    assert_eq!((loaded.records, loaded.damaged, seen.keys(), seen.forgets()), (2, 64, 2, true));
}

#[test]
fn nothing_goes_on_before_its_keys_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_owned();
    let open = Folder::open(&dir, true, 1).unwrap();
    let early = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&early);
    let start = Start {
        core: 0,
        folder: open,
        inherited: Vec::new(),
        now: 0,
        cells: Arc::new(ForwardCells::default()),
        go_on: Box::new(move |last: &mut u8| {
            let bytes = fs::read(dir.join("keys/00000001.keys")).unwrap();
            let (records, _) = read(&bytes);
            noted.fetch_add(usize::from(!records.iter().any(|r| r.key == [*last; 16])), SeqCst);
            true
        }),
        failed: Box::new(|error| panic!("{error}")),
    };
    let mut keeper = Keeper::start(start).unwrap();
    for n in 0..100 {
        let mut records = Vec::new();
        log::push(&record(n), &mut records);
        until("the queue takes it", || keeper.keep(Batch { records: records.clone(), then: n }).is_ok());
    }
    until("all go on", || keeper.idle());
    assert_eq!(early.load(SeqCst), 0);
}
