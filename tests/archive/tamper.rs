//! Whatever is done to an archive afterwards, `verify` names it: without the key, and with a key that was stolen later.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use penstock::config::SigningKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chain::{archived, keys, signed, signed_with, verify};
use crate::support::archive;
use crate::support::gateway::run;
use crate::support::{alone, seed};

/// A copy of an archive, and its objects' and links' places below it.
struct Copy {
    _folder: TempDir,
    root: PathBuf,
    objects: Vec<String>,
    links: Vec<String>,
}

impl Copy {
    fn of(archive: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().join("archive");
        assert!(Command::new("cp").arg("-a").args([archive, &root]).status().unwrap().success());
        let below = |path: &PathBuf| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let objects = archive::objects(&root).iter().map(below).collect();
        let links = archive::files(&root.join("chain")).iter().map(below).collect();
        Self { root: root.clone(), _folder: folder, objects, links }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn lines(&self, object: &str) -> Vec<String> {
        let mut text = String::new();
        zstd::Decoder::new(&fs::read(self.path(object)).unwrap()[..])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text.lines().map(|line| format!("{line}\n")).collect()
    }

    /// Writes an object anew, with other records.
    fn write(&self, object: &str, lines: &[String], level: i32) {
        fs::write(self.path(object), zstd::encode_all(lines.concat().as_bytes(), level).unwrap()).unwrap();
    }

    /// What a link says.
    fn link(&self, link: &str) -> Value {
        let text = fs::read_to_string(self.path(link)).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    }

    /// Writes a link that says something else, in the order in which links are written, signed with `key`.
    fn forge(&self, link: &str, key: &SigningKey, edit: impl FnOnce(&mut String)) {
        let text = fs::read_to_string(self.path(link)).unwrap();
        let mut says = text.lines().next().unwrap().to_owned();
        let id = self.link(link)["key"].as_str().unwrap().to_owned();
        says = says.replace(&id, &key.public().id());
        edit(&mut says);
        let signature = json!({ "signature": STANDARD.encode(key.sign(says.as_bytes())) });
        fs::write(self.path(link), format!("{says}\n{signature}\n")).unwrap();
    }

    /// Gives these links the hash of the one before, signed with `key`.
    fn chain_anew(&self, links: Range<usize>, key: &SigningKey) {
        for at in links {
            let before = fs::read(self.path(&self.links[at - 1])).unwrap();
            let hash = digest(&SHA256, &before)
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>();
            let old = self.link(&self.links[at])["previous"].as_str().unwrap().to_owned();
            self.forge(&self.links[at], key, |says| *says = says.replace(&old, &hash));
        }
    }
}

#[test]
fn whatever_is_done_to_an_archive_verify_names_it() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let own = SigningKey::from_pem(&fs::read(&private).unwrap()).unwrap();
    let (stranger, _) = SigningKey::generate().unwrap();
    let mut stage = signed(&private);
    archived(&mut stage, seed(), Duration::from_secs(1));
    let archive = &stage.roots[0];
    let head = verify(archive, &[&public], &[]).1["chains"][0]["head"].as_str().unwrap().to_owned();

    let mut count = 0;
    // What is done, and the kind and place of what must be named.
    let mut check = |what: &str, heads: &[&str], act: &dyn Fn(&Copy) -> (&'static str, String)| {
        let copy = Copy::of(archive);
        assert!(copy.objects.len() > 4 && copy.links.len() > 4, "too little to do something to");
        let (kind, place) = act(&copy);
        let (code, answer) = verify(&copy.root, &[&public], heads);
        assert_eq!(code, Some(1), "{what}: {answer:#}");
        let named = |problem: &Value| problem["kind"] == kind && problem["place"] == place.as_str();
        let problems = answer["problems"].as_array().unwrap();
        assert!(problems.iter().any(named), "{what}: {kind} {place} expected in {answer:#}");
        count += 1;
        println!("{what}: {kind} {place}");
    };
    let object = |copy: &Copy| copy.objects[copy.objects.len() / 2].clone();
    let link = |copy: &Copy| copy.links[copy.links.len() / 2].clone();
    let changed = |_: &Copy, place: String| ("changed", place);

    check("nothing but a head that was never there", &["00".repeat(32).as_str()], &|_| {
        ("removed", "chain".into())
    });
    check("an object is removed", &[], &|copy| {
        fs::remove_file(copy.path(&object(copy))).unwrap();
        ("removed", object(copy))
    });
    check("a bit of an object is flipped", &[], &|copy| {
        let mut bytes = fs::read(copy.path(&object(copy))).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        fs::write(copy.path(&object(copy)), bytes).unwrap();
        changed(copy, object(copy))
    });
    check("an object is cut short", &[], &|copy| {
        let bytes = fs::read(copy.path(&object(copy))).unwrap();
        fs::write(copy.path(&object(copy)), &bytes[..bytes.len() - 9]).unwrap();
        changed(copy, object(copy))
    });
    check("an object is emptied", &[], &|copy| {
        fs::write(copy.path(&object(copy)), []).unwrap();
        changed(copy, object(copy))
    });
    check("a record is removed", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        lines.remove(lines.len() / 2);
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("the last record is removed", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        lines.pop();
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("a record's body and digest are changed", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        lines[0] = lines[0].replacen("wamid", "wbmid", 1);
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("a record's sender is changed", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        lines[0] = lines[0].replacen("127.0.0.1", "127.0.0.2", 1);
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("records change places", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        lines.swap(0, 1);
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("a record is added", &[], &|copy| {
        let mut lines = copy.lines(&object(copy));
        let last = lines.last().unwrap().clone();
        lines.push(last);
        copy.write(&object(copy), &lines, 1);
        changed(copy, object(copy))
    });
    check("an object is compressed anew", &[], &|copy| {
        copy.write(&object(copy), &copy.lines(&object(copy)), 19);
        changed(copy, object(copy))
    });
    check("something stands behind an object's frames", &[], &|copy| {
        let mut bytes = fs::read(copy.path(&object(copy))).unwrap();
        // A frame that decompresses to nothing.
        bytes.extend([0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, b'!']);
        fs::write(copy.path(&object(copy)), bytes).unwrap();
        changed(copy, object(copy))
    });
    check("two objects change places", &[], &|copy| {
        let (one, other) = (copy.path(&copy.objects[0]), copy.path(&copy.objects[1]));
        let aside = copy.path("dt=aside");
        [(&one, &aside), (&other, &one), (&aside, &other)]
            .into_iter()
            .for_each(|(from, to)| fs::rename(from, to).unwrap());
        changed(copy, copy.objects[0].clone())
    });
    check("an object is moved to another hour", &[], &|copy| {
        let name = object(copy);
        let (_, file) = name.rsplit_once('/').unwrap();
        fs::create_dir_all(copy.path("dt=2001-01-01/hour=00")).unwrap();
        fs::rename(copy.path(&name), copy.path(&format!("dt=2001-01-01/hour=00/{file}"))).unwrap();
        ("removed", name)
    });
    check("an object is added", &[], &|copy| {
        let name = object(copy).replace(".jsonl", "9.jsonl");
        fs::copy(copy.path(&object(copy)), copy.path(&name)).unwrap();
        ("added", name)
    });
    check("a file is added", &[], &|copy| {
        fs::write(copy.path("readme"), "trust me").unwrap();
        ("added", "readme".into())
    });
    check("an object is added below a name that is no text", &[], &|copy| {
        let folder = copy.root.join(OsStr::from_bytes(b"dt=\xff"));
        fs::create_dir_all(folder.join("hour=00")).unwrap();
        fs::copy(copy.path(&object(copy)), folder.join("hour=00/x.jsonl.zst")).unwrap();
        ("added", "dt=\u{fffd}".into())
    });
    check("a name leads nowhere", &[], &|copy| {
        symlink("/nowhere", copy.path("dt=2001-01-01")).unwrap();
        ("added", "dt=2001-01-01".into())
    });
    check("an object is where a link leads to", &[], &|copy| {
        let (object, aside) = (object(copy), copy.path(".tmp/aside"));
        fs::rename(copy.path(&object), &aside).unwrap();
        symlink(&aside, copy.path(&object)).unwrap();
        ("added", object)
    });
    check("a pipe that nobody writes to is added", &[], &|copy| {
        let name = object(copy).replace(".jsonl", "9.jsonl");
        assert!(Command::new("mkfifo").arg(copy.path(&name)).status().unwrap().success());
        ("added", name)
    });
    check("a pipe is where an object was", &[], &|copy| {
        fs::remove_file(copy.path(&object(copy))).unwrap();
        assert!(Command::new("mkfifo").arg(copy.path(&object(copy))).status().unwrap().success());
        ("removed", object(copy))
    });
    check("a file is where an hour was", &[], &|copy| {
        let hour = object(copy).rsplit_once('/').unwrap().0.to_owned();
        fs::remove_dir_all(copy.path(&hour)).unwrap();
        fs::write(copy.path(&hour), "no folder").unwrap();
        ("added", hour)
    });
    check("an object is a bomb", &[], &|copy| {
        let zeros = zstd::encode_all(&vec![b'0'; 512 << 20][..], 1).unwrap();
        fs::write(copy.path(&object(copy)), zeros).unwrap();
        changed(copy, object(copy))
    });
    check("a folder is where a link was", &[], &|copy| {
        fs::remove_file(copy.path(&link(copy))).unwrap();
        fs::create_dir(copy.path(&link(copy))).unwrap();
        ("removed", link(copy))
    });
    check("a link is long and nobody's", &[], &|copy| {
        let text = fs::read_to_string(copy.path(&link(copy))).unwrap();
        fs::write(
            copy.path(&link(copy)),
            text.replacen("{\"v\":1", &format!("{{\"v\":{}", "1".repeat(90 << 20)), 1),
        )
        .unwrap();
        changed(copy, link(copy))
    });
    check("a signature is written in another way", &[], &|copy| {
        let last = copy.links.last().unwrap().clone();
        let text = fs::read_to_string(copy.path(&last)).unwrap();
        fs::write(copy.path(&last), text.replacen("{\"signature\":", "{ \"signature\":", 1)).unwrap();
        changed(copy, last)
    });
    check("a link is removed", &[], &|copy| {
        fs::remove_file(copy.path(&link(copy))).unwrap();
        ("removed", link(copy))
    });
    check("the first link is removed", &[], &|copy| {
        fs::remove_file(copy.path(&copy.links[0])).unwrap();
        ("removed", copy.links[0].clone())
    });
    check("an object and its link are removed", &[], &|copy| {
        // Not the last one: nobody knows of that any more.
        let is_object = |at: &usize| copy.link(&copy.links[*at])["object"].is_object();
        let at = (1..copy.links.len() - 1).find(is_object).unwrap();
        let object = copy.link(&copy.links[at])["object"]["name"].as_str().unwrap().to_owned();
        fs::remove_file(copy.path(&object)).unwrap();
        fs::remove_file(copy.path(&copy.links[at])).unwrap();
        ("removed", copy.links[at].clone())
    });
    check("all links are removed", &[], &|copy| {
        fs::remove_dir_all(copy.path("chain")).unwrap();
        ("removed", "chain".into())
    });
    check("links change places", &[], &|copy| {
        let (one, other, aside) =
            (copy.path(&copy.links[1]), copy.path(&copy.links[2]), copy.path("dt=aside"));
        [(&one, &aside), (&other, &one), (&aside, &other)]
            .into_iter()
            .for_each(|(from, to)| fs::rename(from, to).unwrap());
        ("moved", copy.links[1].clone())
    });
    check("a link says something else", &[], &|copy| {
        let text = fs::read_to_string(copy.path(&link(copy))).unwrap();
        fs::write(copy.path(&link(copy)), text.replacen("\"records\":", "\"records\":1", 1)).unwrap();
        ("forged", link(copy))
    });
    check("a link has no signature", &[], &|copy| {
        let text = fs::read_to_string(copy.path(&link(copy))).unwrap();
        fs::write(copy.path(&link(copy)), format!("{}\n", text.lines().next().unwrap())).unwrap();
        changed(copy, link(copy))
    });
    check("a link has a stranger's signature", &[], &|copy| {
        copy.forge(&link(copy), &stranger, |_| ());
        ("forged", link(copy))
    });
    check("the whole chain is made anew with a stranger's key", &[], &|copy| {
        copy.forge(&copy.links[0], &stranger, |_| ());
        copy.chain_anew(1..copy.links.len(), &stranger);
        ("forged", copy.links[0].clone())
    });
    check("a stranger's chain is added", &[], &|copy| {
        fs::create_dir(copy.path("chain/stranger")).unwrap();
        let name = format!("chain/stranger/{}", copy.links[0].rsplit_once('/').unwrap().1);
        fs::copy(copy.path(&copy.links[0]), copy.path(&name)).unwrap();
        copy.forge(&name, &stranger, |says| *says = says.replace("\"edge-test\"", "\"stranger\""));
        ("forged", name)
    });
    check("a link behind the end is added without the key", &[], &|copy| {
        let last = copy.links.last().unwrap();
        let number = copy.links.len();
        let name = format!("chain/edge-test/{number:012}.json");
        fs::copy(copy.path(last), copy.path(&name)).unwrap();
        ("moved", name)
    });
    // Whoever has the key since today, on what was archived yesterday.
    check("a thief of the key changes one link", &[], &|copy| {
        copy.forge(&copy.links[1], &own, |says| *says = says.replacen("\"records\":", "\"records\":1", 1));
        changed(copy, copy.links[2].clone())
    });
    check("a thief of the key removes an object and makes the chain anew", &[&head], &|copy| {
        let at = copy.links.len() - 2;
        let object = copy.link(&copy.links[at])["object"]["name"].as_str().unwrap().to_owned();
        fs::remove_file(copy.path(&object)).unwrap();
        // The last link takes its place.
        let number = format!("\"number\":{}", at + 1);
        copy.forge(&copy.links[at + 1], &own, |says| {
            *says = says.replace(&number, &format!("\"number\":{at}"))
        });
        fs::rename(copy.path(&copy.links[at + 1]), copy.path(&copy.links[at])).unwrap();
        copy.chain_anew(at..at + 1, &own);
        ("removed", "chain".into())
    });
    check("the end is cut off, and a head is known", &[&head], &|copy| {
        let last = copy.links.last().unwrap();
        let object = copy.link(last)["object"]["name"].as_str().unwrap().to_owned();
        fs::remove_file(copy.path(&object)).unwrap();
        fs::remove_file(copy.path(last)).unwrap();
        ("removed", "chain".into())
    });
    println!("{count} kinds of tampering, each named");
    assert_eq!(count, 41);
}

#[test]
fn another_regions_archive_and_another_gateways_key_are_named() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let mut stage = signed(&private);
    archived(&mut stage, seed(), Duration::from_secs(1));
    let us = stage.roots[0].display().to_string();
    let key = public.display().to_string();
    let said = |arguments: &[&str]| {
        let (code, said, _) = run(&[&["archive", "verify", &us], arguments].concat());
        (code, said)
    };
    assert_eq!(said(&["--key", &key, "--region", "us"]).0, Some(0));
    let (code, text) = said(&["--key", &key, "--region", "in"]);
    assert!(code == Some(1) && text.contains("MOVED"), "{text}");
    assert_eq!(said(&["--key", &format!("edge-test={key}")]).0, Some(0));
    let (code, text) = said(&["--key", &format!("edge-2={key}")]);
    assert!(code == Some(1) && text.contains("none of those given for edge-test"), "{text}");
}

#[test]
fn what_honest_people_leave_beside_an_archive_is_no_alarm() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let mut stage = signed(&private);
    archived(&mut stage, seed(), Duration::from_secs(1));
    let root = &stage.roots[0];
    fs::create_dir(root.join("lost+found")).unwrap();
    let (code, _, told) = run(&["check", "--config", stage.gateway.config().to_str().unwrap(), "--online"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, answer) = verify(root, &[&public], &[]);
    assert_eq!(code, Some(0), "{answer:#}");
}

/// A gateway whose key was changed, and whoever still has the old one.
#[test]
fn a_key_that_was_changed_signs_nothing_more() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [first, first_public] = keys(folder.path(), "first.pem");
    let [second, second_public] = keys(folder.path(), "second.pem");
    let old = SigningKey::from_pem(&fs::read(&first).unwrap()).unwrap();
    let mut stage = signed(&first);
    archived(&mut stage, seed(), Duration::from_secs(1));
    stage.gateway.settings.archive = signed_with(&second);
    stage.gateway.restart();
    archived(&mut stage, 1, Duration::from_secs(1));
    let copy = Copy::of(&stage.roots[0]);
    let last = copy.links.len() - 1;
    let lines = copy.lines(copy.link(&copy.links[last])["object"]["name"].as_str().unwrap()).len();
    assert!(lines > 0);
    copy.forge(&copy.links[last], &old, |_| ());
    let (code, answer) = verify(&copy.root, &[&first_public, &second_public], &[]);
    let named = |problem: &Value| problem["kind"] == "wrong" && problem["place"] == copy.links[last].as_str();
    assert!(code == Some(1) && answer["problems"].as_array().unwrap().iter().any(named), "{answer:#}");
}
