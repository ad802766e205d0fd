//! What the provider says twice arrives once: in other bytes, in other batches, at once over many
//! connections, after a restart and after a kill. What differs arrives, and says that it may be a repeat.
//!
//! `PENSTOCK_KILLS` sets the kills under load (a push: 4), `PENSTOCK_SEED` repeats a run's moments.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

#[path = "../support/mod.rs"]
mod support;
mod waits;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use support::body::{ACCOUNT, NUMBER, World, ids};
use support::gateway::{Gateway, serve};
use support::http::{Connection, find, post};
use support::ledger::Ledger;
use support::metrics::{BACKLOG, CHANGED, DUPLICATES, EVICTED, PARCELS};
use support::region::{Mode, Parcel, Region};
use support::sender::Sent;
use support::settings::Settings;
use support::{Random, SECRET, alone, eventually, seed, setting, signature};

const PREFIXES: [&str; 3] = ["1", "91", "55"];
const PATIENCE: Duration = Duration::from_secs(20);
/// For what should not come.
const PAUSE: Duration = Duration::from_millis(300);

fn regions() -> [Region; 3] {
    [Region::start("us"), Region::start("in"), Region::start("br")]
}

fn start(regions: &[Region], ingest: usize, forward: usize) -> Gateway {
    Gateway::start(Settings { ingest, forward, ..Settings::new(regions, &PREFIXES) })
}

/// An invented person of each region.
const PEOPLE: [&str; 3] = ["12025550123", "919876500001", "5511912345678"];

fn message(person: usize, id: &str, text: &str) -> String {
    let phone = PEOPLE[person];
    format!(
        r#"{{"from":"{phone}","id":"wamid.{id}","timestamp":"1789400020","text":{{"body":"{text}"}},"type":"text"}}"#
    )
}

fn status(person: usize, id: &str, status: &str) -> String {
    let phone = PEOPLE[person];
    format!(r#"{{"id":"wamid.{id}","status":"{status}","timestamp":"1789400130","recipient_id":"{phone}"}}"#)
}

fn webhook(messages: &[String], statuses: &[String]) -> Vec<u8> {
    let contacts: Vec<String> = (0..3)
        .filter(|person| messages.iter().any(|message| message.contains(PEOPLE[*person])))
        .map(|person| format!(r#"{{"profile":{{"name":"P{person}"}},"wa_id":"{}"}}"#, PEOPLE[person]))
        .collect();
    let mut lists = String::new();
    for (name, list) in [("contacts", &contacts[..]), ("messages", messages), ("statuses", statuses)] {
        if !list.is_empty() {
            lists.push_str(&format!(r#","{name}":[{}]"#, list.join(",")));
        }
    }
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783100","phone_number_id":"{NUMBER}"}}{lists}}},"field":"messages"}}]}}]}}"#
    )
    .into_bytes()
}

fn send_to(address: SocketAddr, body: &[u8]) {
    let mut connection = Connection::open(address, PATIENCE).unwrap();
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature(SECRET, body)), body)).unwrap();
    assert_eq!(connection.answer().unwrap().status(), 200);
}

fn send(gateway: &Gateway, body: &[u8]) {
    send_to(gateway.listen, body);
}

/// Waits until nothing is under way; the parcels that the region got since `from`.
fn parcels(gateway: &Gateway, region: &Region, from: usize) -> Vec<Arc<Parcel>> {
    eventually("all is settled", PATIENCE, || gateway.metrics().total(BACKLOG) == 0.0);
    region.parcels_from(from)
}

fn flagged(parcel: &Parcel) -> bool {
    assert_eq!(parcel.header("x-hub-signature-256"), signature(SECRET, parcel.body()), "signed as it is");
    parcel.head.header("penstock-possible-duplicate") == Some("true")
}

#[test]
fn sent_delivered_and_read_of_one_message_are_three_deliveries() {
    let regions = regions();
    let gateway = start(&regions, 2, 2);
    for _ in 0..2 {
        for word in ["sent", "delivered", "read"] {
            send(&gateway, &webhook(&[], &[status(0, "A", word)]));
        }
    }
    let parcels = parcels(&gateway, &regions[0], 0);
    assert_eq!(parcels.len(), 3);
    for word in ["sent", "delivered", "read"] {
        let count = parcels.iter().filter(|p| p.body() == webhook(&[], &[status(0, "A", word)])).count();
        assert_eq!(count, 1, "{word}");
    }
    assert!(parcels.iter().all(|parcel| !flagged(parcel)));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(DUPLICATES, &[("region", "us")]), 3.0);
    assert_eq!(metrics.sum(PARCELS, &[("region", "us"), ("outcome", "delivered")]), 3.0);
    assert_eq!(metrics.sum(PARCELS, &[("region", "us"), ("outcome", "duplicate")]), 3.0);
}

#[test]
fn forty_copies_at_once_over_all_cores_are_one_delivery() {
    let _alone = alone();
    let regions = regions();
    let gateway = start(&regions, 3, 3);
    let rounds = 25;
    for round in 0..rounds {
        let body = webhook(&[message(round % 3, &format!("copy{round}"), "at once")], &[]);
        let address = gateway.listen;
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| send_to(address, &body));
            }
        });
    }
    let all: Vec<_> = regions.iter().flat_map(|region| parcels(&gateway, region, 0)).collect();
    std::thread::sleep(PAUSE);
    assert_eq!(all.len(), rounds);
    assert_eq!(regions.iter().map(Region::count).sum::<usize>(), rounds);
    assert!(all.iter().all(|parcel| !flagged(parcel)));
    assert_eq!(gateway.metrics().total(DUPLICATES), 39.0 * rounds as f64);
}

#[test]
fn the_same_event_in_other_bytes_or_another_batch_is_one() {
    let regions = regions();
    let gateway = start(&regions, 1, 2);
    send(&gateway, &webhook(&[message(0, "A", "ol\u{e1} / you")], &[]));
    let others = [
        r#"{ "id" : "wamid.A", "type":"text","text":{"body":"ol\u00e1 \/ you"}, "timestamp":"1789400020","from":"12025550123"}"#,
        "{\"timestamp\":\"1789400020\",\n\t\"text\":{\"body\":\"ol\u{e1} / y\\u006fu\"},\"from\":\"12025550123\",\"id\":\"wamid.A\",\"type\":\"text\" }",
    ];
    for other in others {
        send(&gateway, &webhook(&[other.to_owned()], &[]));
    }
    // In a batch with somebody of another region, whose webhook that is.
    send(&gateway, &webhook(&[others[0].to_owned(), message(1, "B", "new")], &[]));
    assert_eq!(parcels(&gateway, &regions[0], 0).len(), 1);
    let india = parcels(&gateway, &regions[1], 0);
    assert_eq!((india.len(), ids(india[0].body()).unwrap()), (1, vec!["wamid.B".to_owned()]));
    assert_eq!(gateway.metrics().sum(DUPLICATES, &[("region", "us")]), 3.0);
}

#[test]
fn one_id_twice_in_one_body_is_delivered_once() {
    let regions = regions();
    let gateway = start(&regions, 1, 1);
    let one = message(0, "A", "twice");
    send(&gateway, &webhook(&[one.clone(), message(0, "B", "once"), one.clone()], &[]));
    let parcels = parcels(&gateway, &regions[0], 0);
    assert_eq!(parcels.len(), 1);
    assert_eq!(ids(parcels[0].body()).unwrap(), ["wamid.A", "wamid.B"]);
    assert!(find(parcels[0].body(), one.as_bytes()).is_some() && !flagged(&parcels[0]));
}

#[test]
fn one_id_with_another_text_is_delivered_flagged_and_counted_and_then_known_too() {
    let regions = regions();
    let gateway = start(&regions, 2, 1);
    let (first, other) =
        (webhook(&[message(0, "A", "before")], &[]), webhook(&[message(0, "A", "after")], &[]));
    for body in [&first, &other, &other, &first] {
        send(&gateway, body);
    }
    let parcels = parcels(&gateway, &regions[0], 0);
    let got: Vec<(&[u8], bool)> = parcels.iter().map(|p| (p.body(), flagged(p))).collect();
    assert_eq!(got, [(&first[..], false), (&other[..], true)]);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum(CHANGED, &[("region", "us")]), 1.0);
    assert_eq!(metrics.sum(DUPLICATES, &[("region", "us")]), 2.0);
}

#[test]
fn a_webhook_of_which_only_some_is_new_arrives_without_the_rest() {
    let regions = regions();
    let gateway = start(&regions, 1, 2);
    send(&gateway, &webhook(&[message(0, "A", "old")], &[status(1, "S", "read")]));
    let mut mixed = webhook(
        &[message(0, "A", "old"), message(0, "B", "new"), message(1, "C", "new")],
        &[status(1, "S", "read"), status(0, "T", "read")],
    );
    // What nobody knows stays where it is.
    let at = find(&mixed, b"\"messaging_product\"").unwrap();
    mixed.splice(at..at, br#""unknown":{"kept":[1,2]},"#.iter().copied());
    send(&gateway, &mixed);
    for (region, expected) in [(0, ["wamid.B", "wamid.T"].as_slice()), (1, &["wamid.C"])] {
        let parcels = parcels(&gateway, &regions[region], 0);
        assert_eq!(parcels.len(), 2, "region {region}");
        assert_eq!(ids(parcels[1].body()).unwrap(), expected);
        assert!(!flagged(&parcels[1]) && find(parcels[1].body(), br#""unknown":{"kept":[1,2]}"#).is_some());
    }
    // All of it again is nothing.
    send(&gateway, &mixed);
    assert_eq!(parcels(&gateway, &regions[0], 0).len() + parcels(&gateway, &regions[1], 0).len(), 4);
}

#[test]
fn what_is_new_waits_for_nobody_of_whom_only_a_repeat_stands_beside_it() {
    let mut regions = regions();
    let gateway = start(&regions, 1, 1);
    regions[0].set(Mode::Against(500, "waits"));
    let first = message(0, "A", "waits");
    let other = message(0, "B", "new").replace(PEOPLE[0], "12025550199");
    send(&gateway, &webhook(std::slice::from_ref(&first), &[]));
    eventually("it is refused", PATIENCE, || regions[0].count() >= 1);
    send(&gateway, &webhook(&[first, other], &[]));
    let taken = || -> Vec<Vec<String>> {
        let parcels = regions[0].parcels();
        let delivered = parcels.iter().filter(|parcel| parcel.delivered());
        delivered.map(|parcel| ids(parcel.body()).unwrap()).collect()
    };
    eventually("the other one is delivered", PATIENCE, || taken() == [["wamid.B"]]);
    eventually("only the first waits", PATIENCE, || gateway.metrics().total(BACKLOG) == 1.0);
}

#[test]
fn what_ends_the_process_while_repeats_are_left_out_of_its_lanes_is_delivered_after_three_crashes() {
    let mut regions = regions();
    let command: fn(&Path) -> Command = |config| {
        let mut command = serve(config);
        command.env("PENSTOCK_POISON", "lanes:hemlock");
        command
    };
    let mut gateway = Gateway::start(Settings { command, ..Settings::new(&regions, &PREFIXES) });
    regions[0].set(Mode::Refuse);
    let bodies = [vec![message(0, "A", "waits")], vec![message(0, "A", "waits"), message(0, "B", "hemlock")]];
    let [first, second] = bodies.map(|messages| webhook(&messages, &[]));
    send(&gateway, &first);
    let mut connection = Connection::open(gateway.listen, PATIENCE).unwrap();
    let signature = signature(SECRET, &second);
    connection.send(&post("/webhook", ("x-hub-signature-256", &signature), &second)).unwrap();
    // The process may end before it answers.
    connection.answer().ok();
    for crash in 1..=3 {
        assert_eq!(gateway.wait_exit(PATIENCE).code(), None, "crash {crash}");
        assert_eq!(gateway.said().matches("penstock-fault: poison lanes").count(), crash);
        if crash < 3 {
            gateway.start_again();
        }
    }
    gateway.restart();
    regions[0].set(Mode::Ok);
    let parcels = parcels(&gateway, &regions[0], 0);
    let got: Vec<_> = parcels.iter().map(|parcel| ids(parcel.body()).unwrap()).collect();
    assert_eq!(got, [["wamid.A"], ["wamid.B"]]);
}

#[test]
fn repeats_are_known_after_a_restart_and_after_a_kill_whatever_the_number_of_cores() {
    let _alone = alone();
    let regions = regions();
    let mut gateway = start(&regions, 1, 1);
    let mut said: Vec<Vec<u8>> = Vec::new();
    for (round, (ingest, forward)) in [(2, 3), (1, 2), (3, 1), (1, 1)].into_iter().enumerate() {
        for person in 0..3 {
            said.push(webhook(&[message(person, &format!("{round}-{person}"), "hello")], &[]));
            said.push(webhook(&[], &[status(person, &format!("{round}-{person}"), "read")]));
            said[said.len() - 2..].iter().for_each(|body| send(&gateway, body));
        }
        eventually("all is settled", PATIENCE, || gateway.metrics().total(BACKLOG) == 0.0);
        if round % 2 == 0 {
            assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
        } else {
            // Keys are durable within 100 ms of the delivery; the rest is a loaded test machine.
            std::thread::sleep(Duration::from_secs(1));
            gateway.kill9();
        }
        // All is settled, so the journal may go: the key log must know it alone.
        std::fs::remove_dir_all(gateway.data().join("journal")).unwrap();
        gateway.restart_with(ingest, forward);
        said.iter().for_each(|body| send(&gateway, body));
        let count: usize = regions.iter().map(|region| parcels(&gateway, region, 0).len()).sum();
        std::thread::sleep(PAUSE);
        assert_eq!(
            (count, regions.iter().map(Region::count).sum()),
            (said.len(), said.len()),
            "round {round}"
        );
    }
    assert!(regions.iter().flat_map(Region::parcels).all(|parcel| !flagged(&parcel)));
}

#[test]
fn without_its_key_log_a_gateway_says_that_parcels_may_be_repeats() {
    let regions = regions();
    let mut gateway = start(&regions, 1, 2);
    let bodies = ["A", "B"]
        .map(|id| webhook(&[message(0, id, "hello"), message(1, &format!("{id}{id}"), "hello")], &[]));
    bodies.iter().for_each(|body| send(&gateway, body));
    eventually("all is settled", PATIENCE, || gateway.metrics().total(BACKLOG) == 0.0);
    assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
    std::fs::remove_dir_all(gateway.data().join("keys")).unwrap();
    // The second start finds a key log that looks whole.
    for (cores, body) in [(1, &bodies[0]), (2, &bodies[1])] {
        gateway.restart_with(2, cores);
        send(&gateway, body);
        eventually("all is settled", PATIENCE, || gateway.metrics().total(BACKLOG) == 0.0);
        assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
    }
    for region in &regions[..2] {
        let flags: Vec<bool> = region.parcels_from(0).iter().map(|parcel| flagged(parcel)).collect();
        assert_eq!(flags, [false, false, true, true], "{}", region.name);
    }
}

#[test]
fn copies_that_overtake_each_other_between_cores_are_delivered_after_a_restart() {
    let _alone = alone();
    let mut regions = regions();
    let mut gateway = start(&regions, 2, 1);
    for (round, clean) in [false, true].into_iter().enumerate() {
        regions[0].set(Mode::Refuse);
        let bodies: Vec<_> =
            (0..400).map(|n| webhook(&[message(0, &format!("{round}-{n}"), "once")], &[])).collect();
        let address = gateway.listen;
        // The same on four connections, which lie on both cores: which copy comes first differs.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| bodies.iter().for_each(|body| send_to(address, body)));
            }
        });
        let waiting = bodies.len() as f64;
        eventually("the copies are settled", PATIENCE, || gateway.metrics().total(BACKLOG) == waiting);
        if clean {
            assert_eq!(gateway.terminate().0, Some(0), "{}", gateway.said());
        } else {
            std::thread::sleep(Duration::from_secs(1));
            gateway.kill9();
        }
        let from = regions[0].parcels().len();
        gateway.restart_with(1 + round, 1);
        regions[0].set(Mode::Ok);
        let parcels = parcels(&gateway, &regions[0], from);
        let got: std::collections::HashSet<&[u8]> = parcels.iter().map(|parcel| parcel.body()).collect();
        assert_eq!((parcels.len(), got.len()), (bodies.len(), bodies.len()), "clean: {clean}");
    }
}

#[test]
fn a_repeat_of_what_still_waits_is_dropped_and_the_first_is_delivered_after_a_kill() {
    let _alone = alone();
    let mut regions = regions();
    let mut gateway = start(&regions, 2, 2);
    regions[0].set(Mode::Refuse);
    let bodies: Vec<_> = (0..20).map(|n| webhook(&[message(0, &format!("w{n}"), "waits")], &[])).collect();
    bodies.iter().chain(&bodies).for_each(|body| send(&gateway, body));
    // The repeats are settled long before what they repeat.
    let waiting = bodies.len() as f64;
    eventually("the repeats are settled", PATIENCE, || gateway.metrics().total(BACKLOG) == waiting);
    std::thread::sleep(Duration::from_secs(1));
    gateway.kill9();
    gateway.restart_with(1, 1);
    bodies.iter().for_each(|body| send(&gateway, body));
    regions[0].set(Mode::Ok);
    let parcels = parcels(&gateway, &regions[0], 0);
    let got: Vec<&[u8]> = parcels.iter().map(|parcel| parcel.body()).collect();
    assert_eq!(got, bodies, "each once, in order");
}

#[test]
fn when_memory_is_too_small_the_oldest_are_forgotten_and_every_parcel_says_so() {
    let _alone = alone();
    let regions = regions();
    let tables = "[dedupe]\nmemory = \"1MiB\"\nwindow = \"1h\"".to_owned();
    let gateway = Gateway::start(Settings { tables, ..Settings::new(&regions, &PREFIXES) });
    let batch = |n: usize| {
        let statuses: Vec<String> = (0..1000).map(|m| status(0, &format!("{n}-{m}"), "read")).collect();
        webhook(&[], &statuses)
    };
    send(&gateway, &batch(0));
    assert!(!flagged(&parcels(&gateway, &regions[0], 0)[0]));
    let mut n = 0;
    while gateway.metrics().total(EVICTED) == 0.0 {
        n += 1;
        assert!(n < 60, "60,000 events fit in 1 MiB");
        send(&gateway, &batch(n));
        // Slower than it is sent, the metric would tell too late.
        eventually("it is delivered", PATIENCE, || regions[0].count() == n + 1);
    }
    println!("full after {n} batches of 1,000 events");
    assert!(n > 20, "32 bytes an event are promised");
    let from = regions[0].count();
    send(&gateway, &webhook(&[message(0, "fresh", "new")], &[]));
    assert!(flagged(&parcels(&gateway, &regions[0], from)[0]), "nobody knows whether it is new");
    assert!(gateway.said().contains("dedupe.memory is too small"), "{}", gateway.said());
    // What came a moment ago is known all the same.
    let from = regions[0].count();
    send(&gateway, &webhook(&[message(0, "fresh", "new")], &[]));
    assert!(parcels(&gateway, &regions[0], from).is_empty());
}

/// Each of several threads says everything once to three times, at once or one after the other.
fn stutter(address: SocketAddr, world: &World, mut random: Random, stop: &AtomicBool) -> Vec<Sent> {
    let mut sent = Vec::new();
    let mut lines: Vec<Option<Connection>> = (0..3).map(|_| None).collect();
    while !stop.load(SeqCst) {
        lines.iter_mut().filter(|line| line.is_none()).for_each(|line| {
            *line = Connection::open(address, PATIENCE).ok();
        });
        if lines.iter().any(Option::is_none) {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let webhook = world.next(&mut random);
        let proof = signature(SECRET, &webhook.body);
        let request = post("/webhook", ("x-hub-signature-256", &proof), &webhook.body);
        let (start, copies, at_once) = (Instant::now(), 1 + random.below(3), random.below(2) == 0);
        let mut answered = None;
        for line in &mut lines[..copies] {
            let written = line.as_mut().unwrap().send(&request);
            if written.is_err() || !at_once && !answer(line, &mut answered) {
                *line = None;
            }
        }
        for line in lines[..copies].iter_mut().filter(|_| at_once) {
            if line.is_some() && !answer(line, &mut answered) {
                *line = None;
            }
        }
        sent.push(Sent { webhook, sent: start, answered });
        std::thread::sleep(Duration::from_millis(5));
    }
    sent
}

/// Reads an answer; the last 200 counts, so that whatever it promises is promised.
fn answer(line: &mut Option<Connection>, answered: &mut Option<(Instant, u16)>) -> bool {
    match line.as_mut().map(Connection::answer) {
        Some(Ok(message)) => {
            *answered = Some((Instant::now(), message.status()));
            true
        }
        _ => false,
    }
}

#[test]
fn a_provider_that_says_everything_again_is_heard_once_in_order_through_kills() {
    let _alone = alone();
    let (seed, kills) = (seed(), setting("PENSTOCK_KILLS", 4));
    let mut random = Random(seed);
    let regions = regions();
    let mut gateway = start(&regions, 2, 2);
    let world = World::new(&PREFIXES, 40, 100);
    let stop = AtomicBool::new(false);
    let mut ledger = Ledger::default();
    let address = gateway.listen;
    std::thread::scope(|scope| {
        let (world, stop) = (&world, &stop);
        let threads: Vec<_> = (0..6)
            .map(|n| scope.spawn(move || stutter(address, world, Random(seed ^ (n << 32)), stop)))
            .collect();
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(300 + random.below(700) as u64));
            ledger.killed(gateway.kill9());
            gateway.restart_with(1 + random.below(3), 1 + random.below(3));
        }
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, SeqCst);
        threads.into_iter().for_each(|thread| ledger.add(thread.join().unwrap()));
    });
    let report = ledger.assert_kept(&gateway, &regions, Duration::from_secs(60));
    let dropped = gateway.metrics().total(DUPLICATES);
    println!("{} events, {dropped} repeats dropped since the last start", report.due);
    assert!(dropped > 100.0, "nothing was said again: the test tested nothing");
}
