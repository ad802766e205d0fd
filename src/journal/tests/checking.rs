//! A check finds nothing where nothing is wrong, names what is, and its remedies bring everything back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::super::JournalId;
use super::super::buffer::BLOCK;
use super::super::check::{Checked, Finding, Level, Remedy, check};
use super::super::disk::Disk;
use super::super::folder::{floor_path, live_path};
use super::super::frame::SegmentHeader;
use super::super::spare::segment_path;
use super::super::store::{Folders, Seen, parse_id};
use super::freeing::{Said, live, seeds, thinned};
use super::memory::MemoryDisk;
use super::world::World;

fn dirs(disk: &MemoryDisk) -> Vec<(JournalId, PathBuf)> {
    let dirs: BTreeSet<PathBuf> =
        disk.files().iter().map(|(path, _)| path.parent().unwrap().to_owned()).collect();
    let id = |dir: &Path| parse_id(dir.file_name().unwrap().to_str().unwrap()).unwrap();
    dirs.into_iter().map(|dir| (id(&dir), dir)).collect()
}

fn checked(disk: &MemoryDisk) -> Vec<Checked> {
    check(disk, &dirs(disk)).unwrap()
}

fn findings(disk: &MemoryDisk) -> Vec<Finding> {
    checked(disk).into_iter().flat_map(|journal| journal.findings).collect()
}

/// Those that are more than a note.
fn serious(disk: &MemoryDisk) -> Vec<Finding> {
    findings(disk).into_iter().filter(|finding| finding.level > Level::Note).collect()
}

fn repair(disk: &MemoryDisk, findings: &[Finding]) {
    let mut renamed = Vec::new();
    for finding in findings {
        match &finding.remedy {
            Some(Remedy::Write { bytes }) => disk.write(&finding.file, bytes).unwrap(),
            Some(Remedy::Patch { bytes }) => disk.put(&finding.file, 0, bytes),
            Some(Remedy::Away) => disk.remove(&finding.file).unwrap(),
            Some(Remedy::Rename { to }) => {
                let aside = finding.file.with_extension("aside");
                disk.rename(&finding.file, &aside).unwrap();
                renamed.push((aside, to.clone()));
            }
            None => {}
        }
    }
    renamed.into_iter().for_each(|(from, to)| disk.rename(&from, &to).unwrap());
}

/// Sequence numbers and slots of what a start would deliver.
fn waiting(disk: &MemoryDisk, world: &World) -> BTreeSet<(u64, u16)> {
    let folders = Folders::look(disk, dirs(disk), false).unwrap();
    let (found, _) = folders
        .recover(disk, &mut |what| {
            if let Seen::Entry(entry) = what {
                assert_eq!(entry.body, world.entries[&entry.seq].body, "entry {} was altered", entry.seq);
            }
        })
        .unwrap();
    let place = |id: JournalId, lsn: u64| {
        world.entries.iter().find(|(_, e)| (e.journal, e.lsn) == (id, lsn)).map(|(seq, _)| *seq).unwrap()
    };
    found
        .iter()
        .flat_map(|journal| journal.open.iter().map(|(lsn, slot)| (place(journal.id, lsn), slot)))
        .collect()
}

#[test]
fn nothing_is_found_in_journals_that_were_only_crashed_and_freed() {
    let mut notes = 0;
    for seed in seeds(30) {
        let said = Said(seed);
        let (mut world, disk) = (World::new(seed), MemoryDisk::default());
        for _ in 0..5 {
            let steps = world.random.below(200);
            live(&mut world, &disk, steps);
            let serious = serious(&disk);
            assert!(serious.is_empty(), "{serious:#?}");
            notes += findings(&disk).len();
        }
        drop(said);
    }
    assert!(notes > 0, "no tear and no leftover: the test tested nothing");
}

#[test]
fn list_that_is_gone_is_made_anew_from_the_thin_segment() {
    let (mut all, mut lost) = (0, 0);
    for seed in seeds(6) {
        let said = Said(seed);
        let (world, disk, _) = thinned(seed);
        let lists: Vec<PathBuf> = disk
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .filter(|p| p.extension().is_some_and(|e| e == "live"))
            .collect();
        for (at, list) in lists.iter().enumerate() {
            if at % 2 == 0 {
                disk.remove(list).unwrap();
            } else {
                let bytes = disk.files().into_iter().find(|(path, _)| path == list).unwrap().1;
                disk.put(list, 40, &[!bytes[40]]);
                disk.put(list, (bytes.len() / 2 + 40) as u64, &[!bytes[bytes.len() / 2 + 40]]);
            }
        }
        let found = serious(&disk);
        let stops = found.iter().filter(|f| f.level == Level::Stops && f.remedy.is_some()).count();
        assert!(stops > 0 && found.iter().all(|finding| finding.remedy.is_some()), "{found:#?}");
        repair(&disk, &found);
        assert_eq!(serious(&disk), []);
        let waiting = waiting(&disk, &world);
        all += world.open.len();
        lost += world.open.difference(&waiting).count();
        let unsure = found.iter().any(|finding| finding.means.contains("numbers cannot be told"));
        assert!(unsure || world.open.is_subset(&waiting), "lost without a word");
        drop(said);
    }
    println!("{lost} of {all} parcels could not be found again");
    assert!(lost * 4 < all, "{lost} of {all} parcels could not be found again");
}

#[test]
fn floor_that_is_gone_or_damaged_is_made_anew_and_nothing_is_lost() {
    for (seed, gone) in seeds(4).into_iter().flat_map(|seed| [(seed, true), (seed, false)]) {
        let said = Said(seed);
        let (world, disk, list) = thinned(seed);
        let floor = floor_path(list.parent().unwrap());
        let len = disk.size(&floor).unwrap();
        if gone {
            disk.remove(&floor).unwrap();
        } else {
            disk.put(&floor, 40, &vec![0xee; len as usize - 40]);
        }
        let found = serious(&disk);
        let [finding] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((finding.level == Level::Stops, &finding.file), (!gone, &floor));
        repair(&disk, &found);
        assert_eq!(serious(&disk), []);
        assert!(world.open.is_subset(&waiting(&disk, &world)), "something is lost");
        drop(said);
    }
}

#[test]
fn floor_and_lists_that_are_damaged_together_are_made_anew() {
    for seed in seeds(4) {
        let said = Said(seed);
        let (world, disk, _) = thinned(seed);
        for (path, bytes) in disk.files() {
            if path.extension().is_none_or(|extension| extension == "live") {
                disk.put(&path, 40, &vec![0xee; bytes.len() - 40]);
            }
        }
        let found = serious(&disk);
        assert!(found.iter().all(|finding| finding.remedy.is_some()), "{found:#?}");
        repair(&disk, &found);
        assert_eq!(serious(&disk), []);
        let unsure = found.iter().any(|finding| finding.means.contains("numbers cannot be told"));
        assert!(unsure || world.open.is_subset(&waiting(&disk, &world)), "lost without a word");
        drop(said);
    }
}

#[test]
fn files_under_each_others_names_are_renamed_and_one_too_many_is_put_aside() {
    let (world, disk, list) = thinned(13);
    let dir = list.parent().unwrap();
    let before = waiting(&disk, &world);
    let named = |number: &u64| {
        let bytes = disk.read(&segment_path(dir, *number), 0, 2 * BLOCK).unwrap_or_default();
        matches!(SegmentHeader::decode(&bytes), Ok(Some(_))) && disk.size(&live_path(dir, *number)).is_err()
    };
    let whole: Vec<u64> = (1..200).filter(named).collect();
    let [one, other] = [0, 2].map(|n| segment_path(dir, whole[whole.len() - 1 - n]));
    disk.rename(&one, &dir.join("x")).unwrap();
    disk.rename(&other, &one).unwrap();
    disk.rename(&dir.join("x"), &other).unwrap();
    let found = serious(&disk);
    let renames = found.iter().filter(|f| matches!(f.remedy, Some(Remedy::Rename { .. })));
    assert_eq!(
        (renames.count(), found.iter().filter(|f| f.level == Level::Stops).count()),
        (2, 2),
        "{found:#?}"
    );
    repair(&disk, &found);
    assert_eq!(serious(&disk), []);
    assert_eq!(waiting(&disk, &world), before);

    let copy = segment_path(dir, whole[whole.len() - 1] + 1);
    let bytes = disk.read(&one, 0, usize::MAX >> 1).unwrap();
    disk.write(&copy, &bytes).unwrap();
    let found = serious(&disk);
    let [finding] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((finding.level, &finding.remedy, &finding.file), (Level::Stops, &Some(Remedy::Away), &copy));
    repair(&disk, &found);
    assert_eq!(waiting(&disk, &world), before);
}

#[test]
fn damaged_copy_is_named_and_made_good_from_the_other() {
    let (_, disk, list) = thinned(7);
    let dir = list.parent().unwrap();
    let newest = disk.files().into_iter().rfind(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let newest = newest.unwrap().0;
    let half = |path: &Path| disk.size(path).unwrap() / 2;
    let places = [
        (newest.clone(), 20),
        (newest, BLOCK as u64 + 20),
        (list.clone(), 20),
        (list.clone(), half(&list) + 20),
        (floor_path(dir), 20),
    ];
    for (file, at) in places {
        let byte = disk.read(&file, at, 1).unwrap()[0];
        disk.put(&file, at, &[!byte]);
        let found = serious(&disk);
        let [finding] = &found[..] else { panic!("{found:#?}") };
        assert_eq!((finding.level, &finding.file), (Level::Damage, &file));
        repair(&disk, &found);
        assert_eq!(disk.read(&file, at, 1).unwrap()[0], byte, "{}", file.display());
        assert_eq!(serious(&disk), []);
    }
}

#[test]
fn lost_header_is_made_anew_so_that_the_segment_can_be_freed_again() {
    let (_, disk, list) = thinned(9);
    let dir = list.parent().unwrap();
    let numbers: Vec<u64> = (1..200).filter(|n| disk.size(&segment_path(dir, *n)).is_ok()).collect();
    for number in numbers {
        let path = segment_path(dir, number);
        let before = disk.read(&path, 0, 2 * BLOCK).unwrap();
        if before.iter().all(|byte| *byte == 0) {
            continue;
        }
        disk.put(&path, 0, &[0x11; 2 * BLOCK]);
        let found = serious(&disk);
        if found.is_empty() {
            // Nothing was written to it yet, or all of it was settled.
            assert!(findings(&disk).iter().any(|finding| finding.file == path), "segment {number}");
            continue;
        }
        assert!(found.iter().all(|finding| finding.file == path && finding.remedy.is_some()), "{found:#?}");
        repair(&disk, &found);
        assert_eq!(serious(&disk), []);
        if disk.size(&live_path(dir, number)).is_err() {
            // All but what follows: the segment before it, which may be gone, and the time of its making.
            assert_eq!(disk.read(&path, 0, 88).unwrap(), before[..88], "segment {number}");
        }
    }
}
