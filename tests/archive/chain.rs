//! Links of real gateways: every object has one, whatever kills them, and what was cut off stays missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock::archive::index;
use penstock::fault::LINKED;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::archive::{self, Record};
use crate::support::gateway::run;
use crate::support::sender::{Sender, Sent, send_for};
use crate::support::{Random, alone, eventually, seed, setting};
use crate::{LAYOUTS, NAMES, PATIENCE, Stage, TINY};

/// A new key: the private file, and the public one.
pub fn keys(folder: &Path, name: &str) -> [PathBuf; 2] {
    let private = folder.join(name);
    let (code, said, told) = run(&["archive", "keygen", private.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    let public = folder.join(format!("{name}.pub"));
    assert!(said.contains(public.to_str().unwrap()), "{said}");
    [private, public]
}

/// A gateway whose archives are signed with `key`.
pub fn signed(key: &Path) -> Stage {
    Stage::start(&signed_with(key), |_| ())
}

pub fn signed_with(key: &Path) -> String {
    format!("{TINY}\nsigning_key = \"file:{}\"", key.display())
}

/// What `penstock archive verify` says: its exit code, and its answer as JSON.
pub fn verify(root: &Path, keys: &[&Path], heads: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["archive".to_owned(), "verify".to_owned(), format!("file://{}", root.display())];
    arguments.push("--json".to_owned());
    keys.iter().for_each(|key| arguments.extend(["--key".to_owned(), key.display().to_string()]));
    heads.iter().for_each(|head| arguments.extend(["--head".to_owned(), (*head).to_owned()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, said, told) = run(&arguments);
    let answer = serde_json::from_str(&said).unwrap_or_else(|_| panic!("exit {code:?}: {said}{told}"));
    (code, answer)
}

/// Sends for a while, waits until all is archived (a stop waits only so long), and stops.
pub fn archived(stage: &mut Stage, seed: u64, time: Duration) -> (Vec<Sent>, Vec<Record>) {
    let sent = send_for(&stage.load(seed), time);
    archive::settle(&stage.roots, &sent.iter().collect::<Vec<_>>(), PATIENCE * 2);
    let records = stage.stop_and_read();
    (sent, records)
}

fn assert_whole(stage: &Stage, public: &[&Path], heads: &[String; 3], records: &[Record]) {
    for (region, root) in stage.roots.iter().enumerate() {
        let heads: &[&str] = if heads[region].is_empty() { &[] } else { &[&heads[region]] };
        let (code, answer) = verify(root, public, heads);
        assert_eq!((code, answer["problems"].as_array().map(Vec::len)), (Some(0), Some(0)), "{answer:#}");
        let own = records.iter().filter(|record| record.region == region).count();
        let chain = &answer["chains"][0];
        assert_eq!((&chain["records"], &chain["region"]), (&own.into(), &NAMES[region].into()), "{answer:#}");
    }
}

/// What the admin listener says: the newest link of every archive.
fn heads(stage: &Stage) -> [String; 3] {
    let answer = stage.gateway.admin_get("/api/v1/archive/heads");
    assert_eq!(answer.status(), 200);
    let found: Vec<Value> = serde_json::from_slice(&answer.body).unwrap();
    let head = |name: &str| found.iter().find(|head| head["region"] == name).map(|head| head["hash"].clone());
    NAMES.map(|name| head(name).map_or_else(String::new, |hash| hash.as_str().unwrap().to_owned()))
}

#[test]
fn every_object_has_its_link_through_kills_at_any_moment() {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 6));
    let mut random = Random(seed);
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let mut stage = signed(&private);
    let sender = Sender::start(&stage.load(seed));
    for kill in 1..=kills {
        std::thread::sleep(Duration::from_millis(50 + random.below(1500) as u64));
        stage.gateway.kill9();
        let (ingest, forward) = LAYOUTS[random.below(LAYOUTS.len())];
        println!("kill {kill}/{kills}");
        stage.gateway.restart_with(ingest, forward);
    }
    for point in LINKED {
        stage.gateway.kill9();
        stage.gateway.settings.environment = vec![("PENSTOCK_FAULT", format!("{point}=abort@1"))];
        stage.gateway.start_again();
        stage.gateway.wait_exit(PATIENCE * 2);
        assert!(
            stage.gateway.said().contains(&format!("penstock-fault: {point} ")),
            "{point} was not reached"
        );
        println!("killed at {point}");
        stage.gateway.settings.environment.clear();
        stage.gateway.restart();
    }
    std::thread::sleep(Duration::from_millis(300));
    let sent = sender.stop();
    let sent: Vec<&Sent> = sent.iter().collect();
    archive::settle(&stage.roots, &sent, PATIENCE * 2);
    eventually("every archive has a head", PATIENCE, || heads(&stage).iter().all(|head| !head.is_empty()));
    let heads = heads(&stage);
    let records = stage.stop_and_read();
    archive::assert_kept(&records, &sent, &NAMES);
    assert_whole(&stage, &[&public], &heads, &records);
}

#[test]
fn what_was_cut_off_stays_missing_although_the_gateway_goes_on() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let mut stage = signed(&private);
    archived(&mut stage, seed(), Duration::from_secs(1));
    let mut links = archive::files(&stage.roots[0].join("chain"));
    let mut cut = Vec::new();
    for link in links.split_off(links.len() - 2) {
        let text = fs::read_to_string(&link).unwrap();
        let link_says: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        let object = link_says["object"]["name"].as_str().unwrap().to_owned();
        fs::remove_file(stage.roots[0].join(&object)).unwrap();
        fs::remove_file(stage.roots[0].join(index::name_of(&object).unwrap())).unwrap();
        fs::remove_file(&link).unwrap();
        cut.push((link.file_name().unwrap().to_str().unwrap().to_owned(), object));
    }
    let (code, _) = verify(&stage.roots[0], &[&public], &[]);
    assert_eq!(code, Some(0), "a chain that was cut off is a whole one");

    stage.gateway.restart();
    send_for(&stage.load(1), Duration::from_secs(1));
    stage.gateway.terminate();
    assert!(stage.gateway.said().contains("links were removed or changed"), "{}", stage.gateway.said());
    let (code, answer) = verify(&stage.roots[0], &[&public], &[]);
    assert_eq!(code, Some(1), "{answer:#}");
    // The last link may have been put there again: it was noted whole. Its object is missing all the same.
    let problems = answer["problems"].as_array().unwrap();
    let named = |problem: &Value, place: &str| problem["kind"] == "removed" && problem["place"] == place;
    let first = format!("chain/edge-test/{}", cut[0].0);
    assert!(problems.iter().any(|problem| named(problem, &first)), "{cut:?}: {answer:#}");
    let both =
        |problem: &Value| problem["what"].as_str().unwrap().contains(&cut[1].0) || named(problem, &cut[1].1);
    assert!(problems.iter().any(both), "{cut:?}: {answer:#}");
}

#[test]
fn a_change_of_keys_leaves_old_links_as_good_as_they_were() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [first, first_public] = keys(folder.path(), "first.pem");
    let [second, second_public] = keys(folder.path(), "second.pem");
    let mut stage = signed(&first);
    let (mut sent, _) = archived(&mut stage, seed(), Duration::from_secs(1));
    stage.gateway.settings.archive = signed_with(&second);
    stage.gateway.restart();
    let (more, records) = archived(&mut stage, 1, Duration::from_secs(1));
    sent.extend(more);
    archive::assert_kept(&records, &sent.iter().collect::<Vec<_>>(), &NAMES);
    let none = [const { String::new() }; 3];
    assert_whole(&stage, &[&first_public, &second_public], &none, &records);
    for key in [&first_public, &second_public] {
        let (code, answer) = verify(&stage.roots[0], &[key], &[]);
        assert_eq!(code, Some(1), "one key does for both: {answer:#}");
        // And what a link says that is not believed nobody knows.
        let of_the_other = |problem: &Value| problem["kind"] == "forged" || problem["kind"] == "added";
        assert!(answer["problems"].as_array().unwrap().iter().all(of_the_other), "{answer:#}");
    }
}

#[test]
fn a_body_is_printed_as_it_came() {
    let _alone = alone();
    let mut stage = Stage::start(TINY, |_| ());
    let (_, records) = archived(&mut stage, seed(), Duration::from_millis(500));
    let root = stage.roots[0].to_str().unwrap();
    let own: Vec<&Record> = records.iter().filter(|record| record.region == 0).collect();
    let id = own[own.len() / 2].json["id"].as_str().unwrap();
    let (code, said, told) = run(&["archive", "cat", root, "--id", id]);
    assert_eq!((code, said.as_bytes()), (Some(0), &own[own.len() / 2].body[..]), "{told}");
    let (code, said, _) = run(&["archive", "cat", &format!("file://{root}")]);
    assert_eq!((code, said.lines().count()), (Some(0), own.len()));
    let (code, said, _) = run(&["archive", "cat", root, "--id", "0-1"]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    let (code, _, told) = run(&["archive", "cat", "ftp://bucket"]);
    assert!(code == Some(64) && told.contains("expected a folder"), "{told}");
}

#[test]
fn check_names_the_key_as_links_do() {
    let _alone = alone();
    let folder = TempDir::new().unwrap();
    let [private, _] = keys(folder.path(), "archive.pem");
    let mut stage = signed(&private);
    archived(&mut stage, seed(), Duration::from_millis(300));
    let (code, said, told) = run(&["check", "--config", stage.gateway.config().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{told}");
    let key = said.split("signed with key ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
    let link = fs::read_to_string(&archive::files(&stage.roots[0].join("chain"))[0]).unwrap();
    assert!(link.contains(&format!("\"key\":\"{key}\"")), "{key}: {link}");
}

#[test]
fn no_key_is_overwritten() {
    let folder = TempDir::new().unwrap();
    let [private, public] = keys(folder.path(), "archive.pem");
    let before = [&private, &public].map(|path| fs::read(path).unwrap());
    let (code, _, told) = run(&["archive", "keygen", private.to_str().unwrap()]);
    assert!(code == Some(64) && told.contains("exists"), "{told}");
    fs::remove_file(&private).unwrap();
    let (code, _, told) = run(&["archive", "keygen", private.to_str().unwrap()]);
    assert!(code == Some(64) && told.contains("exists"), "{told}");
    assert!(!private.exists(), "half a key");
    assert_eq!(fs::read(&public).unwrap(), before[1]);
}
