//! Freeing under a seeded simulation: the world ends at any step, what was not synced is forgotten in
//! any part, and what recovery finds must be the truth: every acknowledged parcel that no durable mark
//! settles, and none that one does.
//!
//! `PENSTOCK_SEED` repeats a run, `PENSTOCK_LIVES` sets how many worlds are tried.

use super::super::account::KEEP;
use super::super::disk::Disk;
use super::super::free::{Freed, Round};
use super::super::spare::segment_path;
use super::memory::{MemoryDisk, Random};
use super::world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Seeds of the worlds to try.
pub(super) fn seeds(count: u64) -> Vec<u64> {
    match number("PENSTOCK_SEED") {
        Some(seed) => vec![seed],
        None => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).unwrap();
            let start = u64::from_le_bytes(bytes) >> 16;
            (start..start + number("PENSTOCK_LIVES").unwrap_or(count)).collect()
        }
    }
}

/// Says which world it was if a test fails in it.
pub(super) struct Said(pub(super) u64);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("repeat with PENSTOCK_SEED={}", self.0);
        }
    }
}

/// Recovers, however often the world ends meanwhile.
fn recover(world: &mut World, disk: &MemoryDisk) -> Vec<super::super::store::FoundJournal> {
    loop {
        disk.set_fuse(world.random.one_in(3).then(|| world.random.below(12)));
        match world.recover(disk) {
            Ok(found) => {
                disk.set_fuse(None);
                return found;
            }
            Err(said) => assert!(said.contains("the world has ended"), "{said}"),
        }
        let power = world.random.one_in(2);
        disk.crash(&mut world.random, power);
    }
}

/// One life of a process, up to its end.
pub(super) fn live(world: &mut World, disk: &MemoryDisk, steps: u64) -> Freed {
    let found = recover(world, disk);
    let cores = 1 + world.random.below(3) as usize;
    let stubborn = world.random.below(4) * 5;
    world.tears = true;
    let mut process = world.start(disk, found, cores);
    for _ in 0..steps {
        let fuse = world.random.one_in(8).then(|| world.random.below(50));
        let ended = match world.random.below(12) {
            0..6 => {
                disk.set_fuse(fuse);
                process.commit(world).is_err()
            }
            6..9 => {
                process.deliver(world, stubborn);
                false
            }
            9 => {
                process.archive(world);
                false
            }
            _ => {
                disk.set_fuse(fuse);
                process.free(world, false).is_err()
            }
        };
        disk.set_fuse(None);
        if ended {
            break;
        }
    }
    world.tears = false;
    let freed = process.freeing.freed();
    let power = world.random.one_in(2);
    disk.crash(&mut world.random, power);
    freed
}

/// All is delivered and archived: what is left is what a journal keeps in any case.
fn drain(world: &mut World, disk: &MemoryDisk) {
    let found = recover(world, disk);
    let mut process = world.start(disk, found, 1);
    process.archive_all(world);
    while !world.open.is_empty() {
        process.deliver(world, 0);
        process.write(world, 0, 0).unwrap();
    }
    while process.free(world, true).unwrap() != Round::Idle {}
    let id = process.places[0].0;
    let files = disk.files();
    let others =
        files.iter().filter(|(path, _)| !path.to_str().unwrap().contains(&super::super::store::hex(&id)));
    assert_eq!(others.count(), 0, "an adopted journal is still there");
    let segments = files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    // Those that wait to be used again are gone as far as the floor goes.
    assert!(segments.count() <= KEEP + 2, "what is settled and archived was not freed");
    drop(process);
    disk.crash(&mut world.random, true);
    recover(world, disk);
}

#[test]
fn nothing_is_lost_or_repeated_whenever_the_world_ends() {
    let mut sum = Freed::default();
    for seed in seeds(60) {
        let said = Said(seed);
        let (mut world, disk) = (World::new(seed), MemoryDisk::default());
        for _ in 0..6 {
            let steps = world.random.below(300);
            let freed = live(&mut world, &disk, steps);
            sum.removed += freed.removed;
            sum.reused += freed.reused;
            sum.thin += freed.thin;
        }
        drain(&mut world, &disk);
        drop(said);
    }
    println!("{sum:?}");
    if number("PENSTOCK_SEED").is_none() {
        assert!(sum.removed > 0 && sum.reused > 0 && sum.thin > 0, "nothing was freed: {sum:?}");
    }
}

/// A process that has much to free in several journals: adopted ones, marks in each other's frames.
/// The world ends before step `fuse` of its round. The steps that the round took.
fn round(seed: u64, fuse: Option<u64>) -> u64 {
    let (mut world, disk) = (World::new(seed), MemoryDisk::default());
    // Two lives without any freeing, so that marks are dealt out differently.
    for cores in [3, 2] {
        let found = world.recover(&disk).unwrap();
        let mut process = world.start(&disk, found, cores);
        for _ in 0..80 {
            process.commit(&mut world).unwrap();
            process.deliver(&mut world, 3);
        }
        drop(process);
        disk.crash(&mut Random(seed), false);
    }
    let found = world.recover(&disk).unwrap();
    let mut process = world.start(&disk, found, 1 + (seed % 2) as usize);
    for _ in 0..40 {
        process.commit(&mut world).unwrap();
        process.deliver(&mut world, 3);
    }
    process.archive_all(&mut world);
    let before = disk.steps();
    disk.set_fuse(fuse);
    let mut freed = Ok(Round::Partly);
    while matches!(freed, Ok(Round::Partly)) {
        freed = process.free(&mut world, true);
    }
    let steps = disk.steps() - before;
    disk.set_fuse(None);
    assert!(freed.is_err() == fuse.is_some(), "{freed:?}");
    drop(process);
    let mut random = Random(seed ^ fuse.unwrap_or_default());
    for power in [fuse.is_none_or(|fuse| fuse % 4 != 0), true] {
        disk.crash(&mut random, power);
        let found = world.recover(&disk).unwrap();
        // And a second time, in a process that gets further.
        let mut process = world.start(&disk, found, 1);
        process.archive_all(&mut world);
        while process.free(&mut world, true).unwrap() != Round::Idle {}
    }
    disk.crash(&mut random, true);
    world.recover(&disk).unwrap();
    steps
}

#[test]
fn a_round_may_end_at_every_step() {
    let mut tried = 0;
    for seed in seeds(2).into_iter().take(2) {
        let said = Said(seed);
        let steps = round(seed, None);
        for step in 0..steps {
            round(seed, Some(step));
        }
        tried += steps;
        drop(said);
    }
    println!("{tried} steps");
    assert!(tried > 50, "too little to do: {tried} steps");
}

/// A disk with thin segments, one of which has its list at the path.
pub(super) fn thinned(seed: u64) -> (World, MemoryDisk, std::path::PathBuf) {
    let (mut world, disk) = (World::new(seed), MemoryDisk::default());
    let found = world.recover(&disk).unwrap();
    let mut process = world.start(&disk, found, 1);
    process.archive_all(&mut world);
    for _ in 0..400 {
        process.commit(&mut world).unwrap();
        process.deliver(&mut world, 3);
        process.free(&mut world, true).unwrap();
    }
    assert!(process.freeing.freed().thin > 0);
    drop(process);
    let lists = disk.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "live"));
    let path = lists.map(|(path, _)| path).next().unwrap();
    (world, disk, path)
}

#[test]
fn a_list_or_floor_that_cannot_be_read_is_refused_and_one_copy_is_enough() {
    let (world, disk, list) = thinned(11);
    for path in [list.clone(), list.with_file_name("floor")] {
        let bytes = disk.files().into_iter().find(|(file, _)| *file == path).unwrap().1;
        let half = bytes.len() / 2;
        for at in [5, half + 5, half - 1, bytes.len() - 1] {
            disk.put(&path, at as u64, &[!bytes[at]]);
            world.recover(&disk).unwrap();
            disk.put(&path, 0, &bytes);
        }
        disk.put(&path, 40, &[!bytes[40]]);
        disk.put(&path, half as u64 + 40, &[!bytes[half + 40]]);
        let said = world.recover(&disk).unwrap_err();
        let name = if path == list { "list" } else { "floor" };
        assert!(said.contains(name) && said.contains("restore it"), "{said}");
        disk.put(&path, 0, &bytes);
    }
    world.recover(&disk).unwrap();
}

#[test]
fn segment_that_cannot_be_listed_stays_and_is_told_once_and_what_needs_it_stays_too() {
    let (mut world, disk) = (World::new(21), MemoryDisk::default());
    let found = world.recover(&disk).unwrap();
    let mut process = world.start(&disk, found, 1);
    process.archive_all(&mut world);
    let dir = process.places[0].1.dir.clone();
    (0..40).for_each(|_| process.commit(&mut world).unwrap());
    // A frame of the first segment in which a parcel waits that nobody takes.
    let stubborn = |world: &World| {
        let waits = |(seq, slot): &&(u64, u16)| (seq + u64::from(*slot)) % 40 < 3;
        world.open.iter().filter(waits).map(|(seq, _)| world.entries[seq].position).min().unwrap()
    };
    let at = stubborn(&world);
    let path = segment_path(&dir, at.segment());
    let byte = disk.read(&path, at.offset() + 150, 1).unwrap()[0];
    disk.put(&path, at.offset() + 150, &[!byte]);
    let mut stuck = Vec::new();
    for _ in 0..300 {
        process.commit(&mut world).unwrap();
        process.deliver(&mut world, 3);
        match process.free(&mut world, true) {
            Ok(_) => {}
            Err(error) => stuck.push(error.to_string()),
        }
    }
    let [said] = &stuck[..] else { panic!("told {} times: {stuck:?}", stuck.len()) };
    assert!(said.contains("is not as it was written") && said.contains(path.to_str().unwrap()), "{said}");
    let there = disk.list(&dir).unwrap();
    let segments = there.iter().filter(|name| name.ends_with(".seg")).count() as u64;
    assert!(there.contains(&path.file_name().unwrap().to_str().unwrap().to_owned()), "it was freed");
    // Its frames and those behind it hold marks that only it could be told of.
    assert!(segments >= process.end().segment() - at.segment(), "{there:?}");
    drop(process);
    disk.put(&path, at.offset() + 150, &[byte]);
    world.recover(&disk).unwrap();
}
