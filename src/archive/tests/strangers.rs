//! Somebody else can write to the archive, or the machine's own disk lies: nothing that is found is believed.

use std::path::{Path, PathBuf};

use super::super::chain::verify::{Kind, Problem};
use super::super::disk::Disk;
use super::super::folder::Folder;
use super::super::shelf::Shelf as _;
use super::super::store::{Body, Store as _};
use super::fake::{Crash, Fake};
use super::power::{IDS, World, disk, nothing};
use crate::journal::Position;
use crate::journal::store::hex;
use crate::parse::tests::Rng;
use crate::stamp::Hour;

fn put(disk: &Fake, path: &Path, bytes: &[u8]) {
    for folder in
        path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev().filter(|path| path.parent().is_some())
    {
        disk.make_dir(folder).unwrap();
    }
    let mut file = disk.create(path).unwrap();
    disk.append(&mut file, bytes).unwrap();
}

/// An object under every name that may come, which says that it has all there will ever be.
fn lie(disk: &Fake) -> Vec<PathBuf> {
    let mut made = Vec::new();
    for (region, journal, lsn) in ["us", "in"]
        .into_iter()
        .flat_map(|r| IDS.iter().flat_map(move |j| (0..120).map(move |lsn| (r, j, lsn))))
    {
        for hour in 0..6 {
            let [day, hour] = Hour::of(super::NOON_NS / 1_000_000 + hour * 3_600_000).folders();
            let name = format!("/{region}/{day}/{hour}/edge-{}-{lsn}.jsonl.zst", hex(journal));
            let record = format!(
                "{{\"id\":\"{}-{}\"}}\n",
                hex(journal),
                if lsn % 2 == 0 { u64::MAX } else { lsn + 500 }
            );
            let bytes = match lsn % 3 {
                0 => b"no object at all".to_vec(),
                _ => zstd::encode_all(record.as_bytes(), 1).unwrap(),
            };
            put(disk, Path::new(&name), &bytes);
            made.push(name.into());
        }
    }
    made
}

#[test]
fn what_lies_under_the_name_of_an_object_is_not_believed_and_nothing_is_lost() {
    let mut rng = Rng::from_env();
    for signed in [false, true] {
        let world = World::new(&mut rng, 24);
        let world = if signed { world.signed() } else { world };
        let found = disk();
        let lies = lie(&found);
        let before = found.files();
        world.run(&found, &mut rng, &mut nothing());
        let aside = found.files().keys().filter(|path| path.to_string_lossy().contains(".aside-1")).count();
        assert!(aside > 3, "{aside} put aside");
        for region in ["us", "in"] {
            let problems = world.verify(&found, region);
            assert!(problems.iter().all(|problem| problem.kind == Kind::Added), "{region}: {problems:#?}");
        }
        // Without what the stranger left, all is as it was to be.
        for path in found.files().into_keys().filter(|path| path.to_string_lossy().contains(".aside-")) {
            found.remove(&path).unwrap();
        }
        for path in lies {
            if found.files().get(&path) == before.get(&path) {
                found.remove(&path).unwrap();
            }
        }
        world.assert_done(&found);
    }
}

#[test]
fn a_spooled_object_that_its_disk_lost_is_made_anew() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let world = World::new(&mut rng, 24).signed();
        let (found, mut gone) = (disk(), nothing());
        // Where objects wait for an archive that is not there.
        found.remove(Path::new("/us")).unwrap();
        world.run(&found, &mut rng, &mut gone);
        let spooled: Vec<PathBuf> =
            found.files().into_keys().filter(|path| path.starts_with("/data/archive/spool/us")).collect();
        assert!(spooled.len() > 1, "{spooled:?}");
        for path in &spooled {
            match rng.below(3) {
                0 => found.remove(path).unwrap(),
                1 => put(&found, path, b"other bytes"),
                _ => {}
            }
        }
        let found = found.after(Crash::Process, &mut rng);
        for path in found.files().keys().filter(|path| path.starts_with("/data/archive/spool/us")) {
            if path.extension().is_none_or(|ending| ending != "ticket") && rng.one_in(4) {
                found.break_file(path);
            }
        }
        found.make_dir(Path::new("/us")).unwrap();
        world.run(&found, &mut rng, &mut gone);
        world.assert_done(&found);
    }
}

/// Its link was noted, and then the process ended: whatever becomes of the file here, and of the configuration, it is archived
/// once.
#[test]
fn a_spooled_object_that_its_disk_lost_once_it_has_its_link_is_archived_once() {
    let mut rng = Rng::from_env();
    let mut lost = 0;
    for steps in 20..160 {
        let mut world = World::new(&mut rng, 12).signed();
        let (dying, mut gone) = (disk(), nothing());
        dying.die_after(Some(steps));
        world.run(&dying, &mut rng, &mut gone);
        let found = dying.after(Crash::Process, &mut rng);
        let files = found.files();
        let is_note = |path: &&PathBuf| {
            path.starts_with("/data/archive/chain")
                && path.to_str().unwrap().contains("/us-")
                && path.extension().is_none()
        };
        let note = files.keys().find(is_note).map(|path| String::from_utf8_lossy(&files[path]));
        for path in files.keys().filter(|path| path.starts_with("/data/archive/spool/us")) {
            let object = format!("{}.jsonl.zst", path.file_name().unwrap().to_str().unwrap());
            if note.as_ref().is_some_and(|note| note.contains(&object)) {
                found.break_file(path);
                lost += 1;
            }
        }
        world.roll_at(64 << 10);
        world.run(&found, &mut rng, &mut gone);
        world.run(&found, &mut rng, &mut gone);
        world.assert_done(&found);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn objects_wait_on_this_machine_only_so_many_and_the_journal_has_the_rest() {
    let mut rng = Rng::from_env();
    let world = World::new(&mut rng, 60);
    let (found, mut gone) = (disk(), nothing());
    found.remove(Path::new("/us")).unwrap();
    world.run(&found, &mut rng, &mut gone);
    let spooled = found.files().into_keys().filter(|path| path.starts_with("/data/archive/spool/us")).count();
    // Each with its ticket, of two journals, and what a frame brings on top.
    assert!((4..=2 * 2 * 8).contains(&spooled), "{spooled}");
    assert!(gone.iter().all(|gone| *gone < Position::new(5, 0)), "{gone:?}");
    found.make_dir(Path::new("/us")).unwrap();
    world.run(&found, &mut rng, &mut gone);
    world.assert_done(&found);
}

#[test]
fn a_folder_that_is_there_twice_has_the_same_bytes_once() {
    let disk = disk();
    let mut store = Folder::new(disk.clone(), "/us".into(), "own".to_owned());
    store.check().unwrap();
    for _ in 0..2 {
        store.put("dt=1/hour=2/x", &Body::Bytes(b"bytes")).unwrap();
    }
    store.put("dt=1/hour=2/x", &Body::Bytes(b"others")).unwrap();
    store.put("dt=1/hour=2/x", &Body::Bytes(b"third")).unwrap();
    let names: Vec<String> =
        store.names("dt=1/hour=2").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["x", "x.aside-1", "x.aside-2"]);
    assert_eq!(store.read_at("dt=1/hour=2/x", 2, 2).unwrap().unwrap(), b"ir");
    assert!(store.read_at("dt=1/hour=2/y", 0, 2).unwrap().is_none());
}

#[test]
fn what_was_closed_is_kept_although_the_journal_has_it_no_more() {
    let mut rng = Rng::from_env();
    let world = World::new(&mut rng, 24).signed();
    let (found, mut gone) = (disk(), nothing());
    found.remove(Path::new("/us")).unwrap();
    world.run(&found, &mut rng, &mut gone);
    let spooled = |disk: &Fake| -> Vec<PathBuf> {
        disk.files().into_keys().filter(|path| path.starts_with("/data/archive/spool/us")).collect()
    };
    let before = spooled(&found);
    assert!(before.len() > 1, "{before:?}");
    found.make_dir(Path::new("/us")).unwrap();
    world.run(&found, &mut rng, &mut [Position::new(u32::MAX.into(), 0); 2]);
    assert_eq!(spooled(&found), before);
}

#[test]
fn objects_from_before_links_were_signed_are_made_anew_to_get_theirs() {
    let mut rng = Rng::from_env();
    let world = World::new(&mut rng, 24);
    let (found, mut gone) = (disk(), nothing());
    found.remove(Path::new("/us")).unwrap();
    world.run(&found, &mut rng, &mut gone);
    found.make_dir(Path::new("/us")).unwrap();
    let world = world.signed();
    world.run(&found, &mut rng, &mut gone);
    assert_eq!(world.verify(&found, "us"), []);
    assert!(found.files().into_keys().any(|path| path.starts_with("/us/chain")));
}

/// A folder of its own was removed by a person: webhooks may be there twice, and nothing is without a link.
#[test]
fn a_gateway_that_lost_its_notes_links_all_that_it_archives() {
    let mut rng = Rng::from_env();
    for _ in 0..20 {
        let world = World::new(&mut rng, 24).signed();
        let (found, mut gone) = (disk(), nothing());
        world.run(&found, &mut rng, &mut gone);
        for path in found.files().into_keys().filter(|path| path.starts_with("/data/archive")) {
            found.remove(&path).unwrap();
        }
        let mut left = gone.map(|gone| Position::new(gone.segment().saturating_sub(1), 0));
        world.run(&found, &mut rng, &mut left);
        for region in ["us", "in"] {
            let problems = world.verify(&found, region);
            let is_added =
                |problem: &Problem| problem.kind == Kind::Added && !problem.place.contains(".aside-");
            assert!(!problems.iter().any(is_added), "{region}: {problems:#?}");
        }
    }
}

#[test]
fn what_a_process_with_other_journals_left_unfinished_is_removed() {
    let disk = disk();
    let [one, other] = [IDS[0], IDS[1]].map(|id| hex(&id));
    put(&disk, Path::new(&format!("/us/.tmp/edge-{one}")), b"half");
    put(&disk, Path::new(&format!("/us/.tmp/edge-2-{one}")), b"another gateway's");
    Folder::new(disk.clone(), "/us".into(), format!("edge-{other}")).check().unwrap();
    let left: Vec<PathBuf> = disk.files().into_keys().collect();
    assert_eq!(left, [PathBuf::from(format!("/us/.tmp/edge-2-{one}"))]);
}
