//! Dead letters of a real gateway: nothing given up is lost or doubled, and a person decides what becomes of it.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use scene::{DEATH, POISON, Scene};
use support::body::World;
use support::http;
use support::region::{Mode, Region};
use support::settings::Rule;
use support::{TOKEN, eventually};

mod scene;
#[path = "../support/mod.rs"]
mod support;

#[test]
fn a_crash_between_a_letter_and_its_mark_makes_no_second_letter() {
    let fault = ("PENSTOCK_FAULT", "letter-durable=abort".to_owned());
    let mut scene = Scene::start(|settings| settings.environment.push(fault));
    scene.others();
    let bodies = scene.send(1);
    let status = scene.gateway.wait_exit(DEATH);
    assert_eq!(status.code(), None, "killed");
    scene.quiet();
    assert!(scene.gateway.said().contains("penstock-fault: letter-durable"), "it did not happen");
    let tries = scene.region.parcels().iter().filter(|parcel| parcel.body() == bodies[0]).count();

    scene.gateway.settings.environment.clear();
    for _ in 0..2 {
        scene.gateway.restart();
        scene.wait_settled();
        assert_eq!(scene.letters(), 1);
        assert_eq!(scene.list(&[]).len(), 1);
        let now = scene.region.parcels().iter().filter(|parcel| parcel.body() == bodies[0]).count();
        assert_eq!(now, tries, "what is a letter is not tried");
        // A clean stop: the mark is there, and the letter is one still.
        assert_eq!(scene.gateway.terminate().0, Some(0));
    }
}

#[test]
fn a_crash_before_a_letter_is_durable_leaves_its_parcel_to_be_tried() {
    let fault = ("PENSTOCK_FAULT", "letter-write=sleep/60000".to_owned());
    let mut scene = Scene::start(|settings| settings.environment.push(fault));
    scene.others();
    scene.send(1);
    eventually("its letter is being written", DEATH, || {
        scene.gateway.said().contains("penstock-fault: letter-write")
    });
    // Longer than any mark waits.
    std::thread::sleep(Duration::from_secs(1));
    scene.gateway.kill9();
    scene.quiet();
    scene.gateway.settings.environment.clear();
    scene.region.set(Mode::Ok);
    scene.gateway.restart();
    scene.wait_settled();
    assert_eq!((scene.letters(), scene.taken().len()), (0, 1));
}

#[test]
fn a_gap_is_told_once_over_restarts() {
    let mut scene = Scene::start(|_| {});
    scene.kill(1);
    scene.region.set(Mode::Ok);
    let mut told = Vec::new();
    for _ in 0..3 {
        scene.gateway.kill9();
        scene.gateway.restart();
        let before = scene.taken().len();
        scene.send(1);
        eventually("the next one of its conversation is taken", DEATH, || scene.taken().len() > before);
        // Longer than what was told waits to be written.
        std::thread::sleep(Duration::from_secs(1));
        let parcels = scene.region.parcels();
        let last = parcels.iter().rfind(|parcel| http::find(parcel.body(), POISON.as_bytes()).is_some());
        told.push(last.unwrap().head.header("penstock-gap-before").map(str::to_owned));
    }
    assert_eq!(told, [Some("1".to_owned()), None, None]);
}

#[test]
fn a_letter_of_a_part_holds_the_events_of_that_part_alone() {
    // With one attempt it could die before it was refused twice.
    let mut scene = Scene::start(|settings| {
        let lines = &mut settings.regions[0].lines;
        *lines = lines.replace("attempts = 1", "attempts = 2");
    });
    scene.others();
    // One that is refused and one that is not.
    let webhook = World::new(&["44", "49"], 1, 0).webhook(&[(0, false), (1, false)]);
    support::sender::post_one(scene.gateway.listen, webhook);
    scene.wait_for_letters(1);
    scene.quiet();
    let letter = scene.gateway.letters().remove(0);
    assert_eq!((letter.places(), letter.shown["part"].as_u64()), (vec![0], Some(1)));
}

#[test]
fn a_letter_whose_region_is_not_configured_stays_one_and_its_replay_says_what_to_do() {
    let mut scene = Scene::start(|_| {});
    scene.kill(2);
    let known = scene.list(&[]);
    let other = Region::start("other");
    scene.gateway.terminate();
    let eu = std::mem::replace(
        &mut scene.gateway.settings.regions,
        vec![Rule::new(&other, "prefixes = [\"49\", \"44\"]")],
    );
    // With the gateway, and without: the file of the configuration is that of the last start.
    scene.gateway.restart();
    for runs in [true, false] {
        if !runs {
            scene.gateway.terminate();
        }
        for more in [&["replay"][..], &["replay", "--yes"]] {
            let (code, said, errors) = scene.dead_code(more);
            assert_eq!(code, Some(1), "{said}{errors}");
            for part in ["2 dead letters cannot go out", "not in the configuration", "configure it again"] {
                assert!(said.contains(part), "{said}");
            }
        }
        assert_eq!(scene.list(&[]), known, "they stay as they are");
    }
    scene.gateway.settings.regions = eu;
    scene.region.set(Mode::Ok);
    scene.gateway.restart();
    scene.dead(&["replay", "--yes"]);
    scene.wait_for_letters(0);
    assert_eq!(scene.taken().len(), 2);
}

#[test]
fn a_replay_goes_on_after_a_kill_and_sends_nothing_twice_without_saying_so() {
    let mut scene = Scene::start(|_| {});
    let bodies = scene.kill(30);
    scene.region.set(Mode::Ok);
    let first_ids: HashMap<Vec<u8>, String> = scene
        .region
        .parcels()
        .iter()
        .map(|parcel| (parcel.body().to_vec(), parcel.header("webhook-id").to_owned()))
        .collect();

    let counted = scene.dead(&["replay", "--region", "eu"]);
    assert!(counted.contains("30 dead letters would go out again") && counted.contains("--yes"), "{counted}");
    assert_eq!((scene.letters(), scene.taken().len()), (30, 0), "a dry run does nothing");
    let ordered = scene.dead(&["replay", "--region", "eu", "--rate", "10/s", "--yes"]);
    assert!(ordered.contains("30 dead letters are going out again"), "{ordered}");
    eventually("some went out", DEATH, || scene.taken().len() >= 5);
    let again = scene.dead(&["replay", "--region", "eu", "--rate", "10/s", "--yes"]);
    assert!(again.contains("so it was already"), "{again}");
    scene.gateway.kill9();
    let before = scene.taken().len();
    assert!(before < 30, "killed too late to show anything");
    scene.gateway.restart();
    scene.wait_for_letters(0);

    let taken = scene.taken();
    assert!(bodies.iter().all(|body| taken.contains_key(body)), "{} of 30 came", taken.len());
    let twice = taken.values().filter(|times| **times > 1).count();
    // What was under way at the kill, and what a sync of the letters had not reached.
    assert!(twice <= 5, "{twice} of 30 came twice");
    for parcel in scene.region.parcels().iter().filter(|parcel| parcel.delivered()) {
        if taken.contains_key(parcel.body()) {
            assert_eq!(parcel.header("penstock-possible-duplicate"), "true");
            assert_eq!(parcel.header("webhook-id"), first_ids[parcel.body()]);
        }
    }
    // The journal knows of none of it any more.
    let metrics = scene.gateway.metrics();
    assert_eq!(metrics.total("penstock_backlog_parcels"), 0.0);
    assert_eq!(scene.list(&[]).len(), 0);
}

#[test]
fn letters_are_read_dropped_and_ordered_without_a_gateway_too() {
    let mut scene = Scene::start(|_| {});
    let bodies = scene.kill(12);
    let up = scene.list(&[]);
    let phone = |n: usize| scene.unwanted.people[n].phone.clone();
    let found = scene.list(&["--user", &format!("+{}", phone(3))]);
    assert_eq!(found.len(), 1);
    let shown = scene.dead(&["show", found[0]["id"].as_str().unwrap(), "--body"]);
    assert!(shown.contains(std::str::from_utf8(&bodies[3]).unwrap()), "{shown}");
    assert_eq!(scene.gateway.terminate().0, Some(0));

    assert_eq!(scene.list(&[]), up, "the same with the gateway and without");
    assert_eq!(scene.list(&["--user", &phone(3)]), found);
    assert_eq!(scene.dead(&["show", found[0]["id"].as_str().unwrap(), "--body"]), shown);
    assert_eq!(scene.list(&["--status", "422"]).len(), 0);
    assert_eq!(scene.list(&["--status", "500", "--since", "1h", "--reason", "attempts"]).len(), 12);
    let ids = scene.ids();
    let dropped: Vec<&str> = ids[..4].iter().map(String::as_str).collect();
    let arguments = [&["drop"][..], &dropped].concat();
    assert!(scene.dead(&arguments).contains("4 dead letters would be dropped"));
    assert_eq!(scene.ids(), ids, "a dry run does nothing");
    assert!(scene.dead(&[&arguments[..], &["--yes"]].concat()).contains("4 dead letters were dropped"));
    assert_eq!(scene.ids(), ids[4..]);
    let said = scene.dead(&["replay", "--rate", "1000/s", "--yes"]);
    assert!(said.contains("8 dead letters go out again when the gateway starts"), "{said}");
    let kept = scene.dead(&["replay", &ids[11], "--stop", "--yes"]);
    assert!(kept.contains("1 dead letter do not go out"), "{kept}");
    let plain = scene.dead(&["list", "--state", "ordered"]);
    assert_eq!(plain.lines().count(), 1 + 7 + 1, "{plain}");

    scene.region.set(Mode::Ok);
    scene.gateway.restart();
    scene.wait_for_letters(1);
    assert_eq!(scene.ids(), ids[11..]);
    let taken: HashSet<Vec<u8>> = scene.taken().into_keys().collect();
    assert_eq!(taken.len(), 7);
    let (code, out, errors) = scene.dead_code(&["show", &ids[0]]);
    assert!(code == Some(1) || out.contains("gone"), "{out}{errors}");
}

#[test]
fn a_letter_that_fails_again_stays_one_and_its_tries_are_counted() {
    let mut scene = Scene::start(|_| {});
    scene.kill(1);
    let before = scene.list(&[])[0]["attempts"].as_u64().unwrap();
    scene.others();
    scene.dead(&["replay", "--yes"]);
    let attempts = || scene.list(&[])[0]["attempts"].as_u64().unwrap();
    eventually("it failed again", DEATH, || {
        attempts() > before && scene.list(&["--state", "waiting"]).len() == 1
    });
    scene.quiet();
    assert_eq!((scene.letters(), scene.taken().len()), (1, 0));
}

#[test]
fn a_letter_that_is_dropped_on_its_way_does_not_hold_up_its_conversation() {
    let mut scene = Scene::start(|_| {});
    scene.kill(1);
    let tries = |scene: &Scene| {
        let parcels = scene.region.parcels();
        parcels.iter().filter(|parcel| http::find(parcel.body(), POISON.as_bytes()).is_some()).count()
    };
    let before = tries(&scene);
    scene.dead(&["replay", "--yes"]);
    eventually("it is refused again, and waits", DEATH, || tries(&scene) > before);
    scene.dead(&["drop", "--yes"]);
    scene.region.set(Mode::Ok);
    let next = scene.send(1).remove(0);
    eventually("the next one of its conversation is taken", DEATH, || scene.taken().contains_key(&next));
    assert_eq!((scene.letters(), scene.taken().len()), (0, 1), "what was dropped does not go out");
}

#[test]
fn a_damaged_letter_is_counted_and_told_and_stays_while_others_go_out() {
    let mut scene = Scene::start(|_| {});
    scene.kill(2);
    scene.gateway.terminate();
    let file = scene.gateway.data().join("dead/eu/00000001.letters");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    scene.region.set(Mode::Ok);
    scene.gateway.restart();
    let damaged = || scene.gateway.metrics().sum("penstock_dead_letters_damaged_total", &[("region", "eu")]);
    assert_eq!(damaged(), 0.0, "a start reads no bodies");
    scene.dead(&["replay", "--yes"]);
    scene.wait_for_letters(1);
    eventually("the damage is counted", DEATH, || damaged() == 1.0);
    // It is counted first.
    eventually("the damage is told", DEATH, || {
        scene.gateway.said().contains("a dead letter cannot go out; it stays where it is")
    });
    assert_eq!((scene.taken().len(), scene.list(&["--state", "waiting"]).len()), (1, 1));
}

#[test]
fn nobody_without_the_token_sees_or_changes_letters() {
    let scene = Scene::start(|_| {});
    let check = |method: &str, target: &str, token: Option<&str>, body: &str, status: u16, part: &str| {
        let answer = scene.ask(method, target, token, body);
        let said = String::from_utf8(answer.body.clone()).unwrap();
        assert_eq!(answer.status(), status, "{method} {target}: {said}");
        assert!(said.contains(part), "{method} {target}: {said}");
    };
    let drop = "{\"dry_run\":false}";
    for (method, target, body) in [
        ("GET", "/api/v1/dead", ""),
        ("GET", "/api/v1/dead/1", ""),
        ("POST", "/api/v1/dead/replay", drop),
        ("POST", "/api/v1/dead/drop", drop),
    ] {
        check(method, target, None, body, 401, "Bearer TOKEN");
        check(method, target, Some("another-token-that-is-long-enough-too"), body, 401, "admin.token");
        check(method, target, Some(&TOKEN[..TOKEN.len() - 1]), body, 401, "admin.token");
    }
    check("GET", "/api/v1/dead", Some(TOKEN), "", 200, "\"count\":0");
    check("GET", "/api/v1/dead/1", Some(TOKEN), "", 404, "GET /api/v1/dead");
    check("GET", "/api/v1/dead?since=soon", Some(TOKEN), "", 400, "2h");
    check("GET", "/api/v1/dead?colour=red", Some(TOKEN), "", 400, "colour");
    check("POST", "/api/v1/dead/drop", Some(TOKEN), "{}", 400, "dry_run");
    check("POST", "/api/v1/dead/drop", Some(TOKEN), drop, 200, "\"changed\":0");
    check("POST", "/api/v1/dead/replay", Some(TOKEN), "{\"dry_run\":true,\"rate\":0}", 400, "rate");
    // Nothing is done by looking.
    check("GET", "/api/v1/dead/drop", Some(TOKEN), "", 405, "");
    check("GET", "/metrics", None, "", 200, "penstock_dead_letters");
    assert!(scene.gateway.said().contains("\"action\":\"drop\""), "what is done is logged");

    let closed = Scene::start(|settings| settings.admin.clear());
    let answer = closed.ask("GET", "/api/v1/dead", Some(TOKEN), "");
    let said = String::from_utf8(answer.body.clone()).unwrap();
    assert!(answer.status() == 403 && said.contains("Set admin.token"), "{said}");
    let (code, _, errors) = closed.dead_code(&["list"]);
    assert!(code == Some(78) && errors.contains("admin.token"), "{code:?} {errors}");
}

#[test]
fn users_are_nowhere_but_in_the_letters_themselves() {
    let mut scene = Scene::start(|_| {});
    scene.kill(3);
    let phone = scene.unwanted.people[1].phone.clone();
    let found = scene.list(&["--user", &phone]);
    let id = found[0]["id"].as_str().unwrap();
    scene.dead(&["replay", "--user", &phone, "--yes"]);
    let answer = scene.ask("GET", &format!("/api/v1/dead?user={phone}"), Some(TOKEN), "");
    let mut said = String::from_utf8(answer.body.clone()).unwrap();
    assert!(said.contains("\"count\":1"), "{said}");
    said.push_str(&scene.dead(&["list"]));
    said.push_str(&scene.dead(&["show", id]));
    said.push_str(&scene.gateway.said());
    scene.gateway.terminate();
    said.push_str(&scene.dead(&["list", "--json"]));
    said.push_str(&scene.dead(&["show", id]));
    assert!(!said.contains(&phone), "a phone is shown");
    assert!(scene.dead(&["show", id, "--body"]).contains(&phone));
}

#[test]
fn a_full_disk_makes_what_is_given_up_wait_and_is_said_once() {
    let fault = ("PENSTOCK_FAULT", "letter-write=enospc@1,index-write=enospc@1".to_owned());
    let mut scene = Scene::start(|settings| settings.environment.push(fault));
    let bodies = scene.kill(1);
    let said = scene.gateway.said();
    assert!(said.contains("penstock-fault: index-write"), "it did not happen: {said}");
    assert_eq!(said.matches("no space for dead letters").count(), 1, "{said}");
    assert!(said.contains("dead letters have space again"), "{said}");
    scene.gateway.kill9();
    scene.gateway.restart();
    assert_eq!(scene.list(&[]).len(), 1);
    let shown = scene.dead(&["show", &scene.ids()[0], "--body"]);
    assert!(shown.contains(std::str::from_utf8(&bodies[0]).unwrap()));
}

#[test]
fn a_disk_that_fails_ends_the_process_and_loses_nothing() {
    let fault = ("PENSTOCK_FAULT", "index-write=eio@1".to_owned());
    let mut scene = Scene::start(|settings| settings.environment.push(fault));
    scene.others();
    let bodies = scene.send(1);
    assert_eq!(scene.gateway.wait_exit(DEATH).code(), Some(74));
    scene.quiet();
    scene.gateway.settings.environment.clear();
    scene.region.set(Mode::Ok);
    scene.gateway.restart();
    scene.wait_settled();
    // A letter, or delivered; never both and never neither.
    assert_eq!(scene.letters() + scene.taken().len(), 1);
    assert!(bodies.iter().all(|body| scene.letters() == 1 || scene.taken().contains_key(body)));
}

#[test]
fn a_full_list_is_paged_through_a_running_gateway() {
    let mut scene = Scene::start(|_| {});
    scene.kill(5);
    let start = Instant::now();
    let page = scene.ask("GET", "/api/v1/dead?limit=2", Some(TOKEN), "");
    let page: Value = serde_json::from_slice(&page.body).unwrap();
    assert_eq!((page["count"].as_u64(), page["letters"].as_array().map(Vec::len)), (Some(5), Some(2)));
    let next = page["next"].as_str().unwrap();
    let rest = scene.ask("GET", &format!("/api/v1/dead?after={next}"), Some(TOKEN), "");
    let rest: Value = serde_json::from_slice(&rest.body).unwrap();
    assert_eq!((rest["count"].as_u64(), rest["next"].as_str()), (Some(3), None));
    println!("two pages in {:?}", start.elapsed());
    let plain = scene.dead(&["list", "--limit", "2"]);
    assert!(plain.contains("the oldest 2 of 5 dead letters"), "{plain}");
}
