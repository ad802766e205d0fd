//! A process that ends anywhere on the way: the next one goes on, and one right object comes of it.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Output};

use penstock::archive::bucket::Driver;
use penstock::fault::SHIPPED;

use crate::scene::{BUCKET, LOCK, PART, Scene, key, open, s3_place, spool};
use crate::support::proxy::Proxy;
use crate::support::s3::Kind;

const NAME: &str = "dt=2026-11-27/hour=09/edge-1-0a0b-1.jsonl.zst";
const LARGE: usize = 4 * PART as usize + 100;

/// What a child of the tests does: it puts a file, and tells how much memory it had.
#[test]
#[ignore = "runs in processes that the other tests start"]
fn child_puts() {
    let Ok(work) = std::env::var("PENSTOCK_TEST_PUT") else { return };
    let [url, path, bytes] = work.split(' ').collect::<Vec<_>>()[..] else { panic!("{work}") };
    let driver = Driver::start().unwrap();
    let mut bucket = open(&s3_place(url), Some(LOCK), &driver).unwrap();
    let spooled = spool(Path::new(path), bytes.parse().unwrap(), 1);
    // Only what the putting itself takes is of interest.
    let (before, put) = (memory("VmRSS"), spooled.put(&mut bucket, NAME));
    put.unwrap();
    println!("grown by {} KiB", memory("VmHWM").saturating_sub(before));
}

fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn child(url: &str, path: &Path, bytes: usize, fault: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::child_puts", "--ignored", "--nocapture"])
        .env("PENSTOCK_TEST_PUT", format!("{url} {} {bytes}", path.display()))
        .env("PENSTOCK_FAULT", fault)
        .output()
        .unwrap()
}

#[test]
fn a_process_killed_at_any_step_leaves_one_right_object_to_the_next() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        let proxy = Proxy::start(scene.server.port);
        for (n, point) in SHIPPED.iter().enumerate() {
            for passing in if *point == "part-uploaded" { 1..=5 } else { 1..=1 } {
                let name = format!("{n}-{passing}/{NAME}");
                let path = scene.folder.path().join(format!("spool-{n}-{passing}"));
                let bytes = if *point == "object-put" { 1000 } else { LARGE };
                let url = format!("{}@{n}-{passing}", proxy.url());
                let output = child(&url, &path, bytes, &format!("{point}=abort@{passing}"));
                let said = String::from_utf8_lossy(&output.stderr);
                assert!(!output.status.success() && said.contains(point), "{kind:?} {point}: {said}");
                let before = proxy.requests().len();
                let output = child(&url, &path, bytes, "");
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{kind:?} {point} {passing}: {said}");
                scene.holds_once(&name, &std::fs::read(&path).unwrap());
                assert!(!path.with_extension("upload").exists());
                // What one sent while it was killed may be seen late, and a slow store is asked twice.
                let requests = proxy.requests().split_off(before);
                let sent = requests.iter().filter_map(|request| request.split_once("partNumber="));
                let sent = sent.map(|(_, part)| part.split('&').next()).collect::<HashSet<_>>().len();
                let missing = match *point {
                    "upload-begun" | "upload-noted" => 5,
                    "part-uploaded" => 5 - passing,
                    _ => 0,
                };
                assert_eq!(sent, missing, "{kind:?} {point} {passing}: parts that were sent again");
            }
        }
    }
}

#[test]
fn forgotten_uploads_of_an_object_end_with_the_next_that_begins() {
    for kind in Kind::S3 {
        let Some(scene) = Scene::locked(kind) else { continue };
        let path = format!("/{BUCKET}/{}", key(NAME).replace('=', "%3D"));
        for _ in 0..3 {
            assert_eq!(scene.server.ask("POST", &path, "uploads=", &[]).unwrap().status(), 200);
        }
        assert_eq!(scene.server.uploads(BUCKET, &key(NAME)), 3, "{kind:?}");
        let spooled = scene.file(LARGE, 1);
        spooled.put(&mut scene.bucket(Some(LOCK)), NAME).unwrap();
        scene.holds_once(NAME, &spooled.bytes);
    }
}

#[test]
fn notes_of_another_object_or_of_nothing_are_no_harm() {
    let Some(scene) = Scene::locked(Kind::Minio) else { return };
    let spooled = scene.file(LARGE, 1);
    let notes = scene.folder.path().join("spool-1.upload");
    let lost = "{\"what\":{\"place\":\"s3://audit-eu/whatsapp/eu\",\"key\":\"whatsapp/eu/x\",\"bytes\":1,\"sha256\":\"\",\
                \"part\":1,\"lock\":\"\"},\"id\":\"none\",\"begun\":1,\"until\":null,\"parts\":[]}";
    for (n, text) in ["", "{", lost].iter().enumerate() {
        std::fs::write(&notes, text).unwrap();
        let name = format!("{n}/{NAME}");
        spooled.put(&mut scene.bucket(Some(LOCK)), &name).unwrap();
        scene.holds_once(&name, &spooled.bytes);
        assert!(!notes.exists());
    }
}

#[test]
fn memory_is_that_of_a_few_parts_however_large_the_object() {
    let Some(scene) = Scene::locked(Kind::Versity) else { return };
    let path = scene.folder.path().join("spool");
    let output = child(&format!("{}@large", scene.server.url()), &path, 40 * PART as usize, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let grown = said.split("grown by ").nth(1).unwrap().split(' ').next().unwrap();
    let grown: u64 = grown.parse().unwrap();
    // The parts, what the network has of them, and what the allocator keeps; of the whole it would be 200 MiB.
    assert!(grown < 80 << 10, "{grown} KiB");
}
