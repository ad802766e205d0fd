//! Reading a journal whose segments are freed meanwhile.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;

use super::super::buffer::BufferPool;
use super::super::disk::Disk;
use super::super::floor::Floor;
use super::super::folder::{floor_path, live_path};
use super::super::live::LiveList;
use super::super::read::{Blocks, JournalReader};
use super::super::record::{self, Record};
use super::super::segments::Segments;
use super::super::spare::{OpenMode, segment_path};
use super::super::view::{Archived, JournalView};
use super::super::{JournalId, Position};
use super::freeing::{Said, seeds, thinned};
use super::memory::MemoryDisk;
use super::world::World;

/// A journal of this run alone up to `end`, of which nothing is archived or settled.
fn view(id: JournalId, dir: &Path, end: Position, segments: Arc<Segments>) -> JournalView {
    JournalView {
        id,
        dir: dir.to_owned(),
        mode: OpenMode::Buffered,
        spans: Arc::default(),
        end,
        clean: true,
        settled: Arc::default(),
        published: None,
        archived: Arc::new(Archived::never_asked()),
        segments,
    }
}

/// Puts what the disk of memory holds into a real folder. A file that is there already stays the same
/// file: a reader may have it open.
fn export(disk: &MemoryDisk, dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let files = disk.files();
    for there in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if files.iter().all(|(path, _)| path.file_name() != there.file_name()) {
            std::fs::remove_file(there).unwrap();
        }
    }
    for (path, bytes) in files {
        let path = dir.join(path.file_name().unwrap());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
    }
}

/// Reads entries from `at` on until there are no more or `most` of them. What was read by LSN, and
/// where to go on: position, and the first LSN of that frame that was not read.
async fn read(
    reader: &mut JournalReader,
    mut at: (Position, u64),
    upto: Position,
    most: usize,
    world: &World,
    id: JournalId,
) -> (Vec<u64>, (Position, u64)) {
    let mut found = Vec::new();
    while let Some(frame) = reader.frame(at.0, upto).await.unwrap() {
        let from = if frame.position == at.0 { at.1 } else { 0 };
        for entry in frame.entries.iter().filter(|entry| entry.lsn >= from) {
            if found.len() == most {
                return (found, (frame.position, entry.lsn));
            }
            let truth = &world.entries[&entry.seq];
            assert_eq!((truth.journal, truth.lsn, truth.position), (id, entry.lsn, frame.position));
            let bytes = &frame.bytes[entry.start..entry.start + entry.len];
            let Ok((Record::Entry(read), _)) = record::read(bytes) else { panic!("no entry") };
            assert_eq!(read.body, truth.body);
            assert!(found.last().is_none_or(|last| *last < entry.lsn), "not in order");
            found.push(entry.lsn);
        }
        at = (frame.next, 0);
    }
    (found, at)
}

#[test]
fn reader_misses_nothing_that_waits_and_reads_nothing_of_another_use_of_a_file() {
    let (mut thin, mut reused) = (0, 0);
    for seed in seeds(8) {
        let said = Said(seed);
        let (mut world, disk) = (World::new(seed), MemoryDisk::default());
        // Two lives: what the second one writes is in none of the spans that it recovered.
        let found = world.recover(&disk).unwrap();
        let mut process = world.start(&disk, found, 1);
        (0..60).for_each(|_| process.commit(&mut world).unwrap());
        drop(process);
        let found = world.recover(&disk).unwrap();
        let spans = Arc::new(found[0].recovered.spans.clone());
        let end = found[0].end();
        let mut process = world.start(&disk, found, 1);
        process.archive_all(&mut world);
        let (id, place) = process.places[0].clone();
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        let view = JournalView { spans, ..view(id, &dir, end, Arc::clone(&place.segments)) };
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        runtime.block_on(async {
            // One reader goes on where it was, with what it holds in memory; others begin anew.
            let mut reader = JournalReader::new(&view, BufferPool::new(1, Arc::default()));
            let mut at = (Position::default(), 0);
            for _ in 0..40 {
                for _ in 0..8 {
                    process.commit(&mut world).unwrap();
                    process.deliver(&mut world, 1);
                    process.deliver(&mut world, 1);
                }
                process.free(&mut world, true).unwrap();
                export(&disk, &dir);
                let upto = process.end();
                let most = world.random.below(40) as usize;
                let before = at;
                let (read_now, next) = read(&mut reader, at, upto, most, &world, id).await;
                at = next;
                let waits = |lsn: u64, position: Position| {
                    (position, lsn) >= (before.0, before.1) && (position, lsn) < (at.0, at.1)
                };
                for (seq, _) in &world.open {
                    let entry = &world.entries[seq];
                    if waits(entry.lsn, entry.position) {
                        assert!(read_now.contains(&entry.lsn), "entry {seq} waits and was not read");
                    }
                }
                let mut anew = JournalReader::new(&view, BufferPool::new(1, Arc::default()));
                let (all, _) = read(&mut anew, (Position::default(), 0), upto, usize::MAX, &world, id).await;
                for (seq, _) in &world.open {
                    assert!(all.contains(&world.entries[seq].lsn), "entry {seq} waits and was not read");
                }
            }
        });
        thin += process.freeing.freed().thin;
        reused += process.freeing.freed().reused;
        drop(said);
    }
    println!("{thin} thin, {reused} used again");
    assert!(thin > 0 && reused > 0, "nothing was freed: the test tested nothing");
}

/// The files of a journal of which some are freed whenever one is read.
struct Moving<F> {
    disk: MemoryDisk,
    dir: PathBuf,
    free: F,
}

impl<F: Fn()> Blocks for Moving<F> {
    fn exists(&self, segment: u64) -> bool {
        self.disk.has(&segment_path(&self.dir, segment))
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        (self.free)();
        Ok(Disk::read(&self.disk, &segment_path(&self.dir, segment), at, len)?.into())
    }

    async fn list(&self, segment: u64) -> io::Result<Vec<u8>> {
        let path = live_path(&self.dir, segment);
        Disk::read(&self.disk, &path, 0, Disk::size(&self.disk, &path)? as usize)
    }
}

#[test]
fn reader_under_which_segments_are_freed_misses_nothing_that_waits() {
    let mut thin = 0;
    for seed in seeds(20) {
        let said = Said(seed);
        let (mut world, disk) = (World::new(seed), MemoryDisk::default());
        let found = world.recover(&disk).unwrap();
        let mut process = world.start(&disk, found, 1);
        (0..200).for_each(|_| process.commit(&mut world).unwrap());
        process.archive_all(&mut world);
        let (id, place) = process.places[0].clone();
        let upto = process.end();
        let view = view(id, &place.dir, Position::default(), Arc::clone(&place.segments));
        let both = RefCell::new((world, process));
        let free = || {
            let (world, process) = &mut *both.borrow_mut();
            (0..3).for_each(|_| process.deliver(world, 1));
            // Marks count once they are durable.
            process.commit(world).unwrap();
            process.free(world, true).unwrap();
        };
        let mut reader =
            JournalReader::over(&view, Moving { disk: disk.clone(), dir: place.dir.clone(), free });
        let (mut at, mut found) = (Position::default(), Vec::new());
        while let Some(frame) = reader.frame(at, upto).now_or_never().unwrap().unwrap() {
            found.extend(frame.entries.iter().map(|entry| entry.lsn));
            at = frame.next;
        }
        let (world, process) = &*both.borrow();
        for (seq, _) in &world.open {
            let entry = &world.entries[seq];
            assert!(entry.position >= upto || found.contains(&entry.lsn), "{seq} waits and was not read");
        }
        thin += process.freeing.freed().thin;
        drop(said);
    }
    assert!(thin > 0, "nothing was freed: the test tested nothing");
}

#[test]
fn damaged_record_of_a_thin_segment_is_left_out_and_those_around_it_are_read() {
    let (world, disk, list) = thinned(3);
    let source = list.parent().unwrap();
    let id = super::super::store::parse_id(source.file_name().unwrap().to_str().unwrap()).unwrap();
    let bytes = |path: &Path| disk.files().into_iter().find(|(file, _)| file == path).unwrap().1;
    let floor = Floor::decode(&bytes(&floor_path(source)), &id).unwrap();
    let number = floor.kept.iter().find(|kept| kept.thin).unwrap().number;
    let waiting = LiveList::decode(&bytes(&live_path(source, number)), &id, number).unwrap();
    let lsns: Vec<u64> = waiting.records().map(|rows| rows[0].lsn).collect();
    let victim = waiting.rows[waiting.rows.len() / 2];
    let at = victim.frame + u64::from(victim.offset) + 30;
    let segment = segment_path(source, number);
    disk.put(&segment, at, &[!bytes(&segment)[at as usize]]);

    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    export(&disk, &dir);
    let view = view(id, &dir, Position::new(number + 1, 0), Arc::new(Segments::new(floor)));
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
    runtime.block_on(async {
        let mut reader = JournalReader::new(&view, BufferPool::new(1, Arc::default()));
        let start = Position::new(number, 0);
        // Twice: a region that lags reads the same place again.
        for _ in 0..2 {
            let (found, _) = read(&mut reader, (start, 0), view.end, usize::MAX, &world, id).await;
            let expected: Vec<u64> = lsns.iter().copied().filter(|lsn| *lsn != victim.lsn).collect();
            assert_eq!(found, expected);
        }
    });
}
