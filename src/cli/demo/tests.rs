//! The whole demo against a fake gateway that can be told to make the mistakes a real one must not make.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver as Rx, Sender as Tx};
use std::thread;
use std::time::Duration;

use serde_json::value::RawValue;

use super::events::digest_of;
use super::ledger::Balance;
use super::receiver::{Incoming, read_request};
use super::*;
use crate::cli::client::{Client, Url};
use crate::cli::sign::{hex, signature, verifies};

const SECRET: &[u8] = b"demo secret";

/// What the fake does to the third parcel of europe (or, for a forgery, to all).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Double,
    Alter,
    SignWrongly,
    /// Holds it back until the next one has gone.
    Swap,
    Misroute,
    TakeForgeries,
    ForgetRepeats,
    ArchiveTwice,
    ArchiveNothing,
}

/// Verifies, answers, cuts by country and forwards in order: everything but durable.
struct Fake {
    url: Url,
    closed: Arc<AtomicBool>,
    dead: Arc<AtomicBool>,
    archives: Archives,
    /// Region and line of each record; written when it is started again and when it stops.
    records: Rx<(&'static str, String)>,
    written: Vec<(&'static str, String)>,
    _folder: tempfile::TempDir,
}

/// What was taken is forwarded all the same; only nobody answers meanwhile.
impl Process for Fake {
    fn kill(&mut self) -> anyhow::Result<u32> {
        self.dead.store(true, Ordering::SeqCst);
        // Until its connection has noticed.
        #[allow(clippy::disallowed_methods, reason = "a test's thread")]
        thread::sleep(Duration::from_millis(50));
        Ok(1)
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        self.dead.store(false, Ordering::SeqCst);
        self.write_archives();
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.write_archives();
        Ok(())
    }

    fn archives(&self) -> &Archives {
        &self.archives
    }
}

impl Fake {
    fn start(receivers: &[Receiver], fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}/webhook", listener.local_addr().unwrap())).unwrap();
        let closed = Arc::new(AtomicBool::new(false));
        let lanes: HashMap<String, Tx<Vec<u8>>> = receivers
            .iter()
            .map(|receiver| {
                let (tx, parcels) = mpsc::channel::<Vec<u8>>();
                let (url, closed) = (Url::parse(&receiver.endpoint()).unwrap(), Arc::clone(&closed));
                let fault = if receiver.name() == "europe" { fault } else { Fault::None };
                thread::spawn(move || forward(url, parcels.into_iter(), fault, &closed));
                (receiver.name().to_owned(), tx)
            })
            .collect();
        let dead = Arc::new(AtomicBool::new(false));
        let (theirs, their_dead) = (Arc::clone(&closed), Arc::clone(&dead));
        let (kept, records) = mpsc::channel();
        thread::spawn(move || {
            let mut seen = HashSet::new();
            for stream in listener.incoming().flatten() {
                let open = || !theirs.load(Ordering::SeqCst) && !their_dead.load(Ordering::SeqCst);
                intake(stream, &lanes, fault, &open, &mut seen, &kept);
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let names = TERRITORIES.iter().map(|territory| territory.name);
        let archives = Archives::create(folder.path().join("archive"), names).unwrap();
        Self { url, closed, dead, archives, records, written: Vec::new(), _folder: folder }
    }

    /// One object per region, with all there is.
    fn write_archives(&mut self) {
        self.written.extend(self.records.try_iter());
        for territory in TERRITORIES {
            let own = self.written.iter().filter(|(region, _)| *region == territory.name);
            let lines: String = own.map(|(_, line)| line.as_str()).collect();
            let object = self.archives.of(territory.name).join("all.jsonl.zst");
            std::fs::write(object, zstd::encode_all(lines.as_bytes(), 1).unwrap()).unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

fn intake(
    mut stream: TcpStream,
    lanes: &HashMap<String, Tx<Vec<u8>>>,
    fault: Fault,
    open: &dyn Fn() -> bool,
    seen: &mut HashSet<String>,
    kept: &Tx<(&'static str, String)>,
) {
    if !open() {
        return;
    }
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut bytes = Vec::new();
    let mut europeans = 0;
    while let Ok(Incoming::Request(request)) = read_request(&mut stream, &mut bytes, open) {
        let right = verifies(SECRET, &request.body, &request.headers["x-hub-signature-256"]);
        let status = if right || fault == Fault::TakeForgeries { 200 } else { 401 };
        write!(stream, "HTTP/1.1 {status} -\r\ncontent-length: 0\r\n\r\n").unwrap();
        if status == 200 {
            let own = records_of(std::str::from_utf8(&request.body).unwrap());
            let times = match fault {
                Fault::ArchiveNothing => 0,
                Fault::ArchiveTwice => 2,
                _ => 1,
            };
            own.iter().for_each(|record| (0..times).for_each(|_| kept.send(record.clone()).unwrap()));
            for (region, parcel) in cut(std::str::from_utf8(&request.body).unwrap(), seen) {
                europeans += usize::from(region == "europe");
                let astray = fault == Fault::Misroute && region == "europe" && europeans == 3;
                lanes[if astray { "asia" } else { region }].send(parcel).unwrap();
            }
            if fault == Fault::ForgetRepeats {
                seen.clear();
            }
        }
    }
}

/// One record per region, as far as the demo reads them.
fn records_of(body: &str) -> Vec<(&'static str, String)> {
    let sha256 = hex(&digest_of(body.as_bytes()));
    let line = |part: &str, ranges: &str| {
        let part = serde_json::to_string(part).unwrap();
        format!("{{\"id\":\"a-1\",\"sha256\":\"{sha256}\"{ranges},\"body\":{part}}}\n")
    };
    if body.starts_with(REWRITTEN) {
        let compact: serde_json::Value = serde_json::from_str(body).unwrap();
        return vec![(region_of(&compact.to_string()), line(body, ""))];
    }
    let parts = cut(body, &mut HashSet::new());
    let ranges = if parts.len() > 1 { ",\"ranges\":[]" } else { "" };
    parts
        .into_iter()
        .map(|(region, part)| (region, line(std::str::from_utf8(&part).unwrap(), ranges)))
        .collect()
}

/// What the demo does with a repeat of one message only.
const REWRITTEN: &str = "{\n";

/// By the country of the user id.
fn region_of(json: &str) -> &'static str {
    let country = json.split_once("_user_id\":\"").and_then(|(_, id)| id.get(..2));
    home(country.map(|country| Person { name: "", country, phone: None, bsuid: None }))
}

/// One body per region, every event byte for byte.
fn cut(body: &str, seen: &mut HashSet<String>) -> Vec<(&'static str, Vec<u8>)> {
    const LIST: &str = "\"messages\":[";
    if body.starts_with(REWRITTEN) {
        return Vec::new();
    }
    let Some(at) = body.find(LIST).map(|at| at + LIST.len()) else {
        return vec![(region_of(body), body.into())];
    };
    let end = body.rfind("]},\"field\"").unwrap();
    let mut messages: Vec<&RawValue> = serde_json::from_str(&body[at - 1..=end]).unwrap();
    messages.retain(|message| {
        let message: serde_json::Value = serde_json::from_str(message.get()).unwrap();
        seen.insert(message["id"].as_str().unwrap().to_owned())
    });
    let mut parcels: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for message in messages {
        match parcels.iter_mut().find(|(region, _)| *region == region_of(message.get())) {
            Some((_, list)) => list.push(message.get()),
            None => parcels.push((region_of(message.get()), vec![message.get()])),
        }
    }
    let parcel = |list: Vec<&str>| format!("{}{}{}", &body[..at], list.join(","), &body[end..]).into_bytes();
    parcels.into_iter().map(|(region, list)| (region, parcel(list))).collect()
}

/// One parcel after the other, each until it is taken.
fn forward(url: Url, parcels: impl Iterator<Item = Vec<u8>>, fault: Fault, closed: &AtomicBool) {
    let mut client = Client::new(url, Duration::from_secs(5));
    let mut deliver = |body: &[u8], secret: &[u8]| {
        for attempt in 1_u32.. {
            let (signature, attempt) = (signature(secret, body), attempt.to_string());
            let headers =
                [("x-hub-signature-256", signature.as_str()), ("penstock-attempt", attempt.as_str())];
            let taken = client.request("POST", &headers, body).is_ok_and(|answer| answer.status == 200);
            if taken || closed.load(Ordering::SeqCst) {
                return;
            }
            #[allow(clippy::disallowed_methods, reason = "a test's thread")]
            thread::sleep(Duration::from_millis(10));
        }
    };
    let mut held: Option<Vec<u8>> = None;
    for (number, mut body) in (1..).zip(parcels) {
        match fault {
            Fault::Lose if number == 3 => continue,
            Fault::Double if number == 3 => deliver(&body, SECRET),
            Fault::Alter if number == 3 => body.insert(1, b' '),
            Fault::SignWrongly if number == 3 => {
                deliver(&body, b"another secret");
                continue;
            }
            Fault::Swap if number == 3 => {
                held = Some(body);
                continue;
            }
            _ => {}
        }
        deliver(&body, SECRET);
        if let Some(body) = held.take() {
            deliver(&body, SECRET);
        }
    }
}

/// Plays the demo's acts in short against the fake; returns the books and what was printed.
fn played(
    fault: Fault,
    acts: fn(&mut Stage<&mut Vec<u8>, Fake>, &mut Mint) -> anyhow::Result<()>,
) -> (Balance, String) {
    let (deliveries, arrivals) = mpsc::channel();
    let receivers: Vec<_> = TERRITORIES
        .iter()
        .map(|territory| Receiver::start(territory.name, SECRET, deliveries.clone()).unwrap())
        .collect();
    let fake = Fake::start(&receivers, fault);
    let mut out = Vec::new();
    let sender = Sender::new(fake.url.clone(), SECRET);
    let screen = Screen::plain(&mut out);
    let mut stage = Stage::new(fake, screen, sender, (receivers, arrivals), home, Stop::default(), 0.1);
    acts(&mut stage, &mut Mint::new(1, 1_789_400_000)).unwrap();
    let balance = stage.close(Duration::from_secs(if fault == Fault::None { 10 } else { 1 })).unwrap();
    (balance, String::from_utf8(out).unwrap())
}

/// One event of americas in four webhooks.
fn repeats(stage: &mut Stage<&mut Vec<u8>, Fake>, mint: &mut Mint) -> anyhow::Result<()> {
    repeats_are_dropped(stage, mint)
}

/// Three events of one conversation in europe, and a forgery.
fn short(stage: &mut Stage<&mut Vec<u8>, Fake>, mint: &mut Mint) -> anyhow::Result<()> {
    nobodys_event(stage, mint)?;
    for text in ["one", "two", "three"] {
        stage.send(&mint.message(PEOPLE[0], text))?;
    }
    forgery_is_refused(stage, mint)
}

fn europe(fault: Fault) -> Balance {
    let (balance, text) = played(fault, short);
    assert_eq!(balance.is_balanced(), fault == Fault::None, "{fault:?}\n{text}");
    assert_eq!(text.contains("DOES NOT BALANCE"), fault != Fault::None, "{text}");
    balance
}

#[test]
fn all_acts_balance_with_an_honest_gateway() {
    let (balance, text) = played(Fault::None, |stage, mint| play(stage, mint, true, Files::Gone));
    assert!(balance.is_balanced(), "{text}");
    assert_eq!(balance.forged, 1);
    assert!(balance.parcels > balance.whole, "a batch was cut:\n{text}");
    assert!(balance.lines.iter().all(|line| line.expected > 0), "{text}");
    // On a busy machine the 503 itself may come after the row was printed.
    assert!(text.contains("waits") && text.contains("caught up"), "asia was down:\n{text}");
    assert!(
        text.contains("asia got: IN 1, 4, 8; JP 2, 6") || text.contains("asia got: JP 2, 6; IN 1, 4, 8"),
        "{text}"
    );
    assert_eq!(balance.repeated, 3);
    assert!(balance.kept.due > balance.accepted, "parts are kept one by one:\n{text}");
    assert!(text.contains("\"ranges\": []") && text.contains("zstdcat try/"), "a record is shown:\n{text}");
    assert_eq!(text.matches("dropped").count(), 3, "three repeats:\n{text}");
    let killed = text.split("kill -9 1, with 5 events").nth(1).unwrap_or_default();
    assert!(
        killed.contains("no answer") && killed.contains("ready after"),
        "the gateway was killed:\n{text}"
    );
    let states: Vec<_> =
        ["sent", "delivered", "read"].iter().map(|state| text.find(&format!("US status {state}"))).collect();
    assert!(states.iter().all(Option::is_some) && states.is_sorted(), "three rows in order:\n{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn first_and_last_words_fit_a_plain_terminal() {
    let mut out = Vec::new();
    let mut screen = Screen::plain(&mut out);
    let address = SocketAddr::from(([127, 0, 0, 1], 54321));
    introduce(&mut screen, address, address, Path::new("/tmp/penstock-demo-0123456789abcdef")).unwrap();
    say_what_is_next(&mut screen, address, None).unwrap();
    say_what_is_next(&mut screen, address, Some(Path::new("./try"))).unwrap();
    for line in String::from_utf8(out).unwrap().lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn honest_gateway_balances_in_short() {
    assert_eq!(europe(Fault::None).lines[0].delivered, 4);
}

#[test]
fn lost_parcel_breaks_the_balance() {
    assert_eq!(europe(Fault::Lose).lines[0].lost, 1);
}

#[test]
fn doubled_parcel_breaks_the_balance() {
    assert_eq!(europe(Fault::Double).lines[0].doubled, 1);
}

#[test]
fn repeat_that_is_delivered_is_shown_and_breaks_the_balance() {
    let (balance, text) = played(Fault::ForgetRepeats, repeats);
    assert!(!balance.is_balanced() && text.contains("DOUBLED"), "{text}");
}

#[test]
fn archive_with_too_few_or_too_many_records_breaks_the_balance() {
    let kept = europe(Fault::ArchiveNothing).kept;
    assert_eq!((kept.due, kept.missing, kept.extra), (4, 4, 0));
    let kept = europe(Fault::ArchiveTwice).kept;
    assert_eq!((kept.missing, kept.extra, kept.altered), (0, 4, 0));
}

#[test]
fn altered_body_breaks_the_balance() {
    assert_eq!(europe(Fault::Alter).lines[0].altered, 1);
}

#[test]
fn wrong_signature_breaks_the_balance() {
    let balance = europe(Fault::SignWrongly);
    assert_eq!(balance.parcels - balance.signed, 1);
}

#[test]
fn changed_order_breaks_the_balance() {
    assert_eq!(europe(Fault::Swap).lines[0].disordered, 1);
}

#[test]
fn wrong_region_breaks_the_balance() {
    let balance = europe(Fault::Misroute);
    assert_eq!((balance.lines[0].lost, balance.lines[2].strangers), (1, 1));
}

#[test]
fn accepted_forgery_breaks_the_balance() {
    let balance = europe(Fault::TakeForgeries);
    assert_eq!((balance.forged_accepted, balance.forged_delivered), (1, 1));
}
