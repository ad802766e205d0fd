//! An archive in a bucket: what is put is there once, as it was, locked as asked, whatever the store, the network and
//! the process do meanwhile. Against real stores on loopback.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod faults;
mod others;
mod resume;
mod scene;

use std::io::Read;
use std::time::{Duration, SystemTime};

use penstock::archive::shelf::{Entry, EntryKind, Shelf};
use penstock::archive::store::{Body, Reason, Store};
use penstock::config::{Lock, LockMode};

use scene::{BUCKET, LOCK, PART, Scene, key, path};
use support::s3::Kind;

const NAME: &str = "dt=2026-11-27/hour=09/edge-1-0a0b-1.jsonl.zst";

#[test]
fn what_is_put_is_there_once_and_locked() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        for (mode, told) in [(LockMode::Governance, "GOVERNANCE"), (LockMode::Compliance, "COMPLIANCE")] {
            let mut bucket = scene.bucket(Some(Lock { mode, ..LOCK }));
            // In one request, in parts, and in parts of which the last is whole.
            for (seed, bytes) in [(1, 1000), (2, 2 * PART as usize + 1), (3, 2 * PART as usize), (4, 0)] {
                let (spooled, name) = (scene.file(bytes, seed), format!("{told}/{seed}-{NAME}"));
                for _ in 0..2 {
                    spooled.put(&mut bucket, &name).unwrap();
                    scene.holds_once(&name, &spooled.bytes);
                }
                assert_eq!(scene.mode(&name).as_deref(), Some(told), "{kind:?}");
                let until = scene.server.head(&path(&name), "x-amz-object-lock-retain-until-date").unwrap();
                let until = humantime::parse_rfc3339_weak(&until).unwrap();
                let days = until.duration_since(SystemTime::now()).unwrap();
                assert!(
                    days <= Duration::from_hours(48) && days > Duration::from_hours(47),
                    "{kind:?} {days:?}"
                );
                assert!(!spooled.path.with_file_name(format!("spool-{seed}.upload")).exists());
            }
            bucket.put(&format!("{told}/link.json"), &Body::Bytes(b"{}")).unwrap();
            scene.holds_once(&format!("{told}/link.json"), b"{}");
        }
    }
}

#[test]
fn locked_versions_stay_whoever_comes() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        let mut bucket = scene.bucket(Some(Lock { mode: LockMode::Compliance, ..LOCK }));
        bucket.put(NAME, &Body::Bytes(b"first")).unwrap();
        let versions = scene.server.versions(BUCKET, &key(NAME));
        let version = format!("versionId={}", versions[0]);
        for bypass in [&[][..], &[("x-amz-bypass-governance-retention", "true")]] {
            let reply = scene.server.ask("DELETE", &path(NAME), &version, bypass).unwrap();
            assert!(reply.status() >= 400, "{kind:?}: {}", reply.first);
        }
        // Other bytes are put over it, and it is there all the same.
        bucket.put(NAME, &Body::Bytes(b"second")).unwrap();
        assert_eq!(scene.stored(NAME).body, b"second");
        assert_eq!(scene.server.ask("GET", &path(NAME), &version, &[]).unwrap().body, b"first");
        assert_eq!(scene.server.versions(BUCKET, &key(NAME)).len(), 2, "{kind:?}");
        // Removed, it is put again.
        assert_eq!(scene.server.ask("DELETE", &path(NAME), "", &[]).unwrap().status(), 204);
        bucket.put(NAME, &Body::Bytes(b"second")).unwrap();
        assert_eq!(scene.stored(NAME).body, b"second", "{kind:?}");
    }
}

#[test]
fn what_others_put_where_no_versions_are_kept_stays() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::plain(kind) else { continue };
        let mut bucket = scene.bucket(None);
        let (small, large) = (scene.file(10, 1), scene.file(PART as usize + 1, 2));
        for (name, ours) in [("small", &small), ("large", &large)] {
            ours.put(&mut bucket, name).unwrap();
            ours.put(&mut bucket, name).unwrap();
            let fault = bucket.put(name, &Body::Bytes(b"others")).unwrap_err();
            assert_eq!(fault.reason, Reason::Taken, "{kind:?} {fault}");
            assert!(scene.stored(name).body == ours.bytes);
        }
        let fault = large.put(&mut bucket, "small").unwrap_err();
        assert_eq!(fault.reason, Reason::Taken, "{kind:?} {fault}");
    }
}

#[test]
fn an_object_that_lacks_its_lock_is_put_again_with_it() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        scene.bucket(None).put(NAME, &Body::Bytes(b"first")).unwrap();
        scene.bucket(Some(LOCK)).put(NAME, &Body::Bytes(b"first")).unwrap();
        assert_eq!(scene.mode(NAME).as_deref(), Some("GOVERNANCE"), "{kind:?}");
        assert_eq!(scene.server.versions(BUCKET, &key(NAME)).len(), 2, "{kind:?}");
    }
}

#[test]
fn thousands_of_names_are_listed_and_any_part_is_read() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::plain(kind) else { continue };
        let bucket = scene.bucket(None);
        assert_eq!(bucket.names("").unwrap(), []);
        assert!(bucket.open("none").unwrap().is_none() && bucket.read_at("none", 0, 1).unwrap().is_none());
        // More than a store lists at once.
        let names: Vec<String> = (0..1100).map(|n| format!("hour=09/{n:06}.json")).collect();
        for name in &names {
            assert_eq!(
                scene.server.send("PUT", &path(name), "", &[], name.as_bytes()).unwrap().status(),
                200
            );
        }
        scene.server.send("PUT", &path("top"), "", &[], b"0123456789").unwrap();
        let listed: Vec<String> =
            bucket.names("hour=09").unwrap().into_iter().map(|entry| entry.name).collect();
        let expected: Vec<&str> = names.iter().map(|name| name.strip_prefix("hour=09/").unwrap()).collect();
        assert_eq!(listed, expected, "{kind:?}");
        let folder = Entry { name: "hour=09".into(), kind: EntryKind::Folder, bytes: 0 };
        let file = Entry { name: "top".into(), kind: EntryKind::File, bytes: 10 };
        assert_eq!(bucket.names("").unwrap(), [folder, file], "{kind:?}");
        assert_eq!(bucket.names("hour").unwrap(), [], "{kind:?}: part of a name is no folder");

        let mut text = String::new();
        bucket.open("top").unwrap().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "0123456789");
        let part = |offset, len| bucket.read_at("top", offset, len).unwrap().unwrap();
        assert_eq!(
            (part(3, 4), part(8, 9), part(10, 1), part(0, 0)),
            (b"3456".into(), b"89".into(), vec![], vec![])
        );
    }
}

/// Whoever may write to a bucket may put them there: they are told, and hide nothing else.
#[test]
fn names_that_no_file_has_are_listed_and_hide_nothing() {
    let mut told = 0;
    for kind in Kind::S3 {
        let Some(scene) = Scene::plain(kind) else { continue };
        let bucket = scene.bucket(None);
        for name in ["%0A", "a%1B[2J", "%2B b", "hour=09//x", "./x"] {
            // Not every store takes every one.
            let reply = scene.server.send("PUT", &path(name), "", &[], b"x");
            told += usize::from(reply.is_some_and(|reply| reply.status() == 200));
        }
        scene.server.send("PUT", &path("hour=09/right"), "", &[], b"right").unwrap();
        let names = bucket.names("").unwrap();
        assert!(names.iter().any(|entry| entry.name == "hour=09" && entry.kind == EntryKind::Folder));
        let is_plain = |entry: &&Entry| entry.name.chars().all(|c| !c.is_control()) && entry.name != ".";
        assert!(names.iter().filter(|entry| !is_plain(entry)).all(|entry| entry.kind == EntryKind::Other));
        assert!(names.iter().filter(is_plain).all(|entry| bucket.open(&entry.name).is_ok()), "{names:?}");
        let below = bucket.names("hour=09").unwrap();
        assert!(
            below.iter().any(|entry| entry.name == "right" && entry.kind == EntryKind::File),
            "{below:?}"
        );
        println!("{kind:?}: {names:?} {below:?}");
    }
    assert!(told == 0 || told >= 4, "{told} were taken");
}

#[test]
fn a_whole_object_is_read_as_it_was_put() {
    let Some(scene) = Scene::plain(Kind::Minio) else { return };
    let (mut bucket, spooled) = (scene.bucket(None), scene.file(3 * PART as usize + 7, 1));
    spooled.put(&mut bucket, NAME).unwrap();
    let mut read = Vec::new();
    bucket.open(NAME).unwrap().unwrap().read_to_end(&mut read).unwrap();
    assert!(read == spooled.bytes);
    assert!(bucket.read_at(NAME, PART, 100).unwrap().unwrap() == spooled.bytes[PART as usize..][..100]);
}
