//! The harness judged: a fake gateway with one planted fault each, and the ledger must name it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::body::{World, ids};
use support::http::{Connection, find};
use support::ledger::Ledger;
use support::letters::Letter;
use support::metrics::Metrics;
use support::ports::free_port;
use support::region::{Mode, Region};
use support::sender::{Load, Sender, Sent, send_for};
use support::{SECRET, alone, eventually, loopback, signature};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Double,
    Delay,
    Alter,
    AddBlank,
    MisSign,
    Misroute,
    Invent,
}

/// Answers every POST 200 and passes the webhook on as it came, one at a time; every 20th suffers the fault.
struct Fake {
    regions: Vec<SocketAddr>,
    fault: Fault,
    seen: Mutex<usize>,
}

impl Fake {
    fn start(regions: &[Region], fault: Fault) -> SocketAddr {
        let listener = TcpListener::bind(loopback(free_port())).unwrap();
        let address = listener.local_addr().unwrap();
        let regions = regions.iter().map(|region| region.address).collect();
        let fake = Arc::new(Fake { regions, fault, seen: Mutex::new(0) });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = Arc::clone(&fake);
                std::thread::spawn(move || fake.serve(Connection::over(stream).unwrap()));
            }
        });
        address
    }

    fn serve(self: Arc<Self>, mut connection: Connection) {
        let mut lines = Vec::from_iter(self.regions.iter().map(|address| dial(*address)));
        while let Ok(Some(request)) = connection.read() {
            let mut seen = self.seen.lock().unwrap();
            *seen += 1;
            // Inside the lock: a conversation's next webhook cannot overtake on the other connection.
            connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok();
            let fault = if seen.is_multiple_of(20) { self.fault } else { Fault::None };
            self.pass_on(&mut lines, request.body, fault);
        }
    }

    fn pass_on(&self, lines: &mut [Connection], body: Vec<u8>, fault: Fault) {
        // Phones of region 1 start with 91.
        let home = usize::from(find(&body, b"\"91").is_some());
        let line = &mut lines[home];
        match fault {
            Fault::None => deliver(line, &body, SECRET, false),
            Fault::Lose => {}
            Fault::Double => {
                deliver(line, &body, SECRET, false);
                deliver(line, &body, SECRET, true);
            }
            Fault::Delay => {
                let address = self.regions[home];
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(50));
                    deliver(&mut dial(address), &body, SECRET, false);
                });
            }
            Fault::Alter => {
                let text = String::from_utf8(body).unwrap().replace(r#""timestamp":"1"#, r#""timestamp":"2"#);
                deliver(line, text.as_bytes(), SECRET, false);
            }
            Fault::AddBlank => deliver(line, &[&body[..], b" "].concat(), SECRET, false),
            Fault::MisSign => deliver(line, &body, "another secret", false),
            Fault::Misroute => deliver(&mut lines[1 - home], &body, SECRET, false),
            Fault::Invent => {
                deliver(line, &body, SECRET, false);
                deliver(line, br#"{"messages":[{"id":"wamid.invented"}]}"#, SECRET, false);
            }
        }
    }
}

fn dial(address: SocketAddr) -> Connection {
    Connection::open(address, Duration::from_secs(5)).unwrap()
}

fn deliver(line: &mut Connection, body: &[u8], secret: &str, flagged: bool) {
    let flag = if flagged { "penstock-possible-duplicate: true\r\n" } else { "" };
    let head = format!(
        "POST /webhook HTTP/1.1\r\nhost: region\r\nx-hub-signature-256: {}\r\nwebhook-id: w\r\n\
         penstock-region: r\r\n{flag}content-length: {}\r\n\r\n",
        signature(secret, body),
        body.len()
    );
    line.send(&[head.as_bytes(), body].concat()).unwrap();
    assert_eq!(line.answer().unwrap().status(), 200);
}

/// A short run through a fake gateway; `expected` are the only faults the ledger may report.
fn check(fault: Fault, expected: &[&str]) {
    let _alone = alone();
    let regions = [Region::start("us"), Region::start("in")];
    let address = Fake::start(&regions, fault);
    // Two people only, so that a conversation's webhooks follow each other closely.
    let world = Arc::new(World::new(&["1", "91"], 1, 0).without_batches());
    let load = Load { address, path: "/webhook".into(), world, connections: 2, rate: 500, seed: 7 };
    let mut ledger = Ledger::default();
    ledger.add(send_for(&load, Duration::from_millis(600)));
    std::thread::sleep(Duration::from_secs(1));
    let report = ledger.audit(&regions, &[]);
    assert!(report.acked > 50, "too few webhooks to judge by: {report}");
    for (name, list) in report.faults() {
        assert_eq!(!list.is_empty(), expected.contains(&name), "{fault:?}: {name}\n{report}");
    }
}

#[test]
fn ledger_finds_nothing_wrong_with_a_correct_gateway() {
    check(Fault::None, &[]);
}

#[test]
fn ledger_sees_a_lost_event() {
    check(Fault::Lose, &["lost"]);
}

#[test]
fn ledger_sees_a_doubled_event_even_if_it_is_flagged() {
    check(Fault::Double, &["repeated without excuse"]);
}

#[test]
fn ledger_sees_an_overtaken_event() {
    check(Fault::Delay, &["out of order"]);
}

#[test]
fn ledger_sees_an_altered_event() {
    check(Fault::Alter, &["altered"]);
}

#[test]
fn ledger_sees_a_byte_added_outside_the_events() {
    check(Fault::AddBlank, &["altered"]);
}

#[test]
fn ledger_sees_a_wrong_signature() {
    check(Fault::MisSign, &["wrong signature"]);
}

#[test]
fn ledger_sees_an_event_in_the_wrong_region() {
    check(Fault::Misroute, &["wrong region"]);
}

#[test]
fn ledger_sees_an_event_nobody_sent() {
    check(Fault::Invent, &["never sent"]);
}

#[test]
fn ledger_balances_with_dead_letters_and_sees_wrong_ones() {
    let regions = [Region::start("us"), Region::start("in")];
    // Two people of the first region, one of the second.
    let webhook = World::new(&["1", "91"], 2, 0).webhook(&[(0, false), (1, false), (2, false)]);
    let letter = |region: &str, places: &[usize]| Letter {
        shown: serde_json::json!({ "region": region, "places": places }),
        webhook: webhook.body.clone(),
    };
    let another = World::new(&["1"], 1, 0).webhook(&[(0, false)]).body;
    let altered = Letter { webhook: [&webhook.body[..], b" "].concat(), ..letter("us", &[]) };
    let cases = [
        // Letters, how many events are dead, what is wrong.
        (vec![], 0, vec!["lost"]),
        (vec![letter("us", &[]), letter("in", &[])], 3, vec![]),
        (vec![letter("us", &[0]), letter("us", &[1]), letter("in", &[])], 3, vec![]),
        (vec![letter("us", &[1]), letter("in", &[])], 2, vec!["lost"]),
        (vec![letter("us", &[0, 1]), letter("us", &[1]), letter("in", &[])], 3, vec!["dead twice"]),
        (vec![letter("us", &[0, 1, 2])], 3, vec!["wrong region"]),
        (vec![altered, letter("in", &[])], 3, vec!["altered"]),
        (
            vec![letter("us", &[]), letter("in", &[]), Letter { webhook: another, ..letter("us", &[]) }],
            3,
            vec!["never sent"],
        ),
    ];
    let now = Instant::now();
    let mut ledger = Ledger::default();
    ledger.add(vec![Sent { webhook: webhook.clone(), sent: now, answered: Some((now, 200)) }]);
    for (letters, dead, expected) in cases {
        let report = ledger.audit(&regions, &letters);
        assert_eq!(report.dead.len(), dead, "{report}");
        let wrong = report.faults().into_iter().filter(|(_, list)| !list.is_empty());
        assert_eq!(wrong.map(|(name, _)| name).collect::<Vec<_>>(), expected, "{report}");
    }
    let only = Sent { webhook: World::new(&["1"], 1, 0).webhook(&[(0, false)]), sent: now, answered: None };
    deliver(&mut dial(regions[0].address), &only.webhook.body, SECRET, false);
    let letters = [Letter { webhook: only.webhook.body.clone(), shown: letter("us", &[]).shown }];
    let mut ledger = Ledger::default();
    ledger.add(vec![only]);
    assert_eq!(ledger.audit(&regions, &letters).dead_and_delivered.len(), 1);
}

/// What comes between a delivery and its repeat.
#[derive(Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    Kill,
    /// The region cuts its connections.
    Cut,
}

#[test]
fn repeat_is_excused_only_by_a_near_kill_or_cut_and_mostly_if_flagged() {
    // Pause after the first delivery, what follows, the flag on the repeat; excused?
    let cases = [
        (0, Between::Kill, true, true),
        (0, Between::Kill, false, true),
        (400, Between::Kill, true, true),
        (400, Between::Kill, false, false),
        (1_500, Between::Kill, true, false),
        (0, Between::Cut, true, true),
        (0, Between::Cut, false, false),
        (400, Between::Cut, true, false),
        (0, Between::Nothing, true, false),
    ];
    for (pause, between, flagged, excused) in cases {
        let mut regions = [Region::start("us")];
        let webhook = World::new(&["1"], 1, 0).webhook(&[(0, false)]);
        let mut ledger = Ledger::default();
        deliver(&mut dial(regions[0].address), &webhook.body, SECRET, false);
        std::thread::sleep(Duration::from_millis(pause));
        match between {
            Between::Nothing => {}
            Between::Kill => ledger.killed(Instant::now()),
            Between::Cut => {
                regions[0].set(Mode::Refuse);
                regions[0].set(Mode::Ok);
            }
        }
        deliver(&mut dial(regions[0].address), &webhook.body, SECRET, flagged);
        let now = Instant::now();
        ledger.add(vec![Sent { webhook, sent: now, answered: Some((now, 200)) }]);
        let report = ledger.audit(&regions, &[]);
        assert_eq!(report.repeats, 1);
        assert_eq!(report.is_clean(), excused, "{pause} ms, {between:?}, flagged {flagged}: {report}");
    }
}

#[test]
fn region_does_what_its_mode_says() {
    let mut region = Region::start("scripted");
    let request = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi";
    let answer = |line: &mut Connection| {
        line.send(request)?;
        line.answer().map(|answer| answer.status())
    };
    let mut line = dial(region.address);
    assert_eq!(answer(&mut line).unwrap(), 200);
    region.set(Mode::Status(503));
    assert_eq!(answer(&mut line).unwrap(), 503);
    region.set(Mode::Slow(Duration::from_millis(80)));
    let start = Instant::now();
    assert_eq!(answer(&mut line).unwrap(), 200);
    assert!(start.elapsed() >= Duration::from_millis(80));

    region.set(Mode::Hang);
    line.send(request).unwrap();
    eventually("the hanging region has the parcel", Duration::from_secs(2), || region.count() == 4);
    region.set(Mode::Ok);
    assert!(line.answer().is_err(), "a hung parcel is never answered");

    let mut line = dial(region.address);
    assert_eq!(answer(&mut line).unwrap(), 200);
    region.set(Mode::Refuse);
    assert!(answer(&mut line).is_err(), "open connections are cut");
    assert!(Connection::open(region.address, Duration::from_secs(1)).is_err(), "nobody listens");
    region.set(Mode::Ok);
    assert_eq!(answer(&mut dial(region.address)).unwrap(), 200);

    let statuses: Vec<u16> = region.parcels().iter().map(|parcel| parcel.status).collect();
    assert_eq!(statuses, [200, 503, 200, 0, 200, 200]);
    assert_eq!(region.parcels()[0].body(), b"hi");
}

#[test]
fn region_takes_thousands_of_parcels_a_second() {
    let _alone = alone();
    let region = Region::start("fast");
    let (start, each) = (Instant::now(), 2_000);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut line = dial(region.address);
                (0..each).for_each(|_| {
                    line.send(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi").unwrap();
                    line.answer().unwrap();
                });
            });
        }
    });
    let rate = region.count() as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} parcels/s");
    assert_eq!(region.count(), 4 * each);
    assert!(rate > 2_000.0, "the harness would be the bottleneck: {rate:.0} parcels/s");
}

#[test]
fn sender_notes_what_was_not_acked() {
    let mut region = Region::start("gateway that refuses");
    region.set(Mode::Status(503));
    let world = Arc::new(World::new(&["1"], 3, 0));
    let load = Load { address: region.address, path: "/".into(), world, connections: 1, rate: 100, seed: 1 };
    let sender = Sender::start(&load);
    eventually("some were answered", Duration::from_secs(2), || region.count() > 3);
    region.set(Mode::Refuse);
    assert_eq!(sender.acked(), 0);
    let sent = sender.stop();
    assert!(sent.len() > 3);
    assert!(sent.iter().all(|sent| sent.acked().is_none()));
    assert_eq!(sent[0].answered.unwrap().1, 503);
}

#[test]
fn bodies_are_json_and_tell_their_events() {
    let world = World::new(&["1", "91", "55"], 4, 10);
    let mut random = support::Random(3);
    for _ in 0..500 {
        let webhook = world.next(&mut random);
        let mut known: Vec<String> = webhook.events.iter().map(|event| event.id.clone()).collect();
        let mut found = ids(&webhook.body).unwrap();
        known.sort();
        found.sort();
        assert_eq!(found, known);
        for event in &webhook.events {
            let element = std::str::from_utf8(&webhook.body[event.range.clone()]).unwrap();
            assert!(element.starts_with('{') && element.ends_with('}') && element.contains(&event.id));
            assert!(element.contains(&world.people[event.conversation].phone));
        }
    }
}

#[test]
fn metrics_are_read_with_their_labels() {
    let metrics = Metrics::parse(
        "# HELP penstock_webhooks Webhooks by what became of them.\n# TYPE penstock_webhooks counter\n\
         penstock_webhooks_total{source=\"a\",outcome=\"accepted\"} 3\n\
         penstock_webhooks_total{source=\"a\",outcome=\"refused\"} 4\npenstock_up 1\n# EOF\n",
    );
    assert_eq!(metrics.total("penstock_webhooks_total"), 7.0);
    assert_eq!(metrics.sum("penstock_webhooks_total", &[("outcome", "refused")]), 4.0);
    assert_eq!(metrics.names(), ["penstock_up", "penstock_webhooks_total"]);
    assert!(metrics.is_explained("penstock_webhooks_total"));
    assert!(!metrics.is_explained("penstock_up"));
}
