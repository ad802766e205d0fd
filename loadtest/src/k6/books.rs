//! What arrives at the regions, event by event.
//!
//! The script's ids tell run, region and number (`wamid.<anything>.<seed>.<region>.<number>`); a status has its
//! state besides. An event is told apart by these alone, whatever parcel it comes in.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::Context;
use aws_lc_rs::hmac;
use serde_json::Value;

use super::regions::Regions;
use crate::sink::Answer;
use crate::{http, sink};

/// Everything that arrived.
#[derive(Debug, Default)]
pub struct Books {
    pub parcels: u64,
    /// Parcels whose `x-hub-signature-256` is wrong.
    pub unsigned: u64,
    /// Events without an id of this run, or of another region than they came to.
    pub strangers: u64,
    /// Events that were never sent with a right signature.
    pub forged: u64,
    /// How often each event came to each region.
    times: HashMap<(usize, String), u64>,
}

/// What one region got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Distinct events.
    pub events: u64,
    /// Arrivals beyond the first of each.
    pub again: u64,
    /// Sum over the names of distinct events: two sets of the same size that differ have different ones.
    pub digest: u64,
}

impl Books {
    /// One event at a region's door; true if it is the first time.
    pub fn take(&mut self, region: usize, event: String) -> bool {
        if event.starts_with(FORGED) {
            self.forged += 1;
            return false;
        }
        let times = self.times.entry((region, event)).or_default();
        *times += 1;
        *times == 1
    }

    pub fn of(&self, region: usize) -> Arrived {
        let mine = self.times.iter().filter(|((at, _), _)| *at == region);
        mine.fold(Arrived::default(), |sum, ((_, name), times)| Arrived {
            events: sum.events + 1,
            again: sum.again + times - 1,
            digest: sum.digest + digest_of(name),
        })
    }

    /// A whole request to `/region-N`; how many events were new.
    fn parcel(&mut self, request: &[u8], key: &hmac::Key, seed: u64) -> u64 {
        self.parcels += 1;
        let body = request.windows(4).position(|four| four == b"\r\n\r\n").map_or(request.len(), |at| at + 4);
        let body = &request[body..];
        let signature = http::header(request, "x-hub-signature-256").and_then(digest);
        self.unsigned += u64::from(signature.is_none_or(|digest| hmac::verify(key, body, &digest).is_err()));
        let found: Vec<Option<(usize, String)>> =
            serde_json::from_slice(body).map_or_else(|_| vec![None], |body| events(&body, seed));
        let mut new = 0;
        for event in found {
            match (event, region_of(request)) {
                (Some((home, event)), Some(region)) if home == region => {
                    new += u64::from(self.take(region, event));
                }
                _ => self.strangers += 1,
            }
        }
        new
    }
}

/// What the names of forged events begin with.
const FORGED: char = 'f';

/// FNV-1a, 24 bits of it, as the scripts make it.
fn digest_of(name: &str) -> u64 {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash & 0x00ff_ffff)
}

/// `POST /region-7 HTTP/1.1`.
fn region_of(request: &[u8]) -> Option<usize> {
    let rest = request.strip_prefix(b"POST /region-")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

fn digest(header: &[u8]) -> Option<Vec<u8>> {
    let hex = std::str::from_utf8(header).ok()?.strip_prefix("sha256=")?;
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

/// Home and name of each event of a body; `None` for one that the script did not make.
fn events(body: &Value, seed: u64) -> Vec<Option<(usize, String)>> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut found = Vec::new();
    for change in list(&body["entry"]).iter().flat_map(|entry| list(&entry["changes"])) {
        let value = &change["value"];
        if let Some(id) = value["waba_info"]["waba_id"].as_str() {
            found.push(name(id, "", seed));
        }
        let threads = list(&value["history"]).into_iter().flat_map(|chunk| list(&chunk["threads"]));
        let told: Vec<Value> = threads.flat_map(|thread| list(&thread["messages"])).collect();
        for element in list(&value["messages"]).iter().chain(&list(&value["statuses"])).chain(&told) {
            let state = element["status"].as_str().unwrap_or_default();
            found.push(element["id"].as_str().and_then(|id| name(id, state, seed)));
        }
    }
    found
}

fn name(id: &str, state: &str, seed: u64) -> Option<(usize, String)> {
    let mut parts = id.strip_prefix("wamid.")?.splitn(4, '.').skip(1);
    let run: u64 = parts.next()?.parse().ok()?;
    let region = parts.next()?.parse().ok()?;
    (run == seed).then(|| (region, format!("{}/{state}", parts.next().unwrap_or_default())))
}

/// What the thread of the books is told.
enum Told {
    Parcel(Vec<u8>),
    Close,
}

/// The regions, and the books that they keep.
pub struct Arrivals {
    pub address: SocketAddr,
    distinct: Arc<AtomicU64>,
    tell: Sender<Told>,
    books: JoinHandle<Books>,
}

impl Arrivals {
    /// Starts one server for all regions; `/region-N` says which is meant.
    pub fn start(secret: &str, seed: u64, regions: Arc<Regions>) -> anyhow::Result<Self> {
        let distinct = Arc::new(AtomicU64::new(0));
        let (tell, told) = channel();
        let counted = Arc::clone(&distinct);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        // A thread of its own, so that counting keeps no answer waiting.
        let books = std::thread::Builder::new().name("books".into()).spawn(move || {
            let mut books = Books::default();
            while let Ok(Told::Parcel(request)) = told.recv() {
                counted.fetch_add(books.parcel(&request, &key, seed), Relaxed);
            }
            books
        })?;
        let parcels = tell.clone();
        let address = sink::serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None, move || {
            move |request: &[u8]| {
                let answer = regions.answer(region_of(request), request);
                if matches!(answer, Answer::Taken | Answer::TakenAfter(_)) {
                    // Once the books are closed nobody listens any more.
                    parcels.send(Told::Parcel(request.to_vec())).ok();
                }
                answer
            }
        })?;
        Ok(Self { address, distinct, tell, books })
    }

    /// Distinct events so far.
    pub fn distinct(&self) -> u64 {
        self.distinct.load(Relaxed)
    }

    /// The books as they stand.
    pub fn close(self) -> anyhow::Result<Books> {
        self.tell.send(Told::Close).ok().context("the thread of the books has ended")?;
        self.books.join().ok().context("the thread of the books has panicked")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(region: usize, body: &str, secret: &[u8]) -> Vec<u8> {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let length = body.len();
        let head = format!(
            "POST /region-{region} HTTP/1.1\r\nX-Hub-Signature-256: sha256={hex}\r\ncontent-length: {length}\r\n\r\n"
        );
        format!("{head}{body}").into_bytes()
    }

    fn body(list: &str, elements: &str) -> String {
        format!(r#"{{"entry":[{{"changes":[{{"value":{{"{list}":[{elements}]}}}}]}}]}}"#)
    }

    #[test]
    fn events_are_counted_by_region_and_strangers_apart() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s");
        let mut books = Books::default();
        let life = r#"{"id":"wamid.HB.7.1.s3.0","status":"sent"},{"id":"wamid.HB.7.1.s3.0","status":"read"}"#;
        assert_eq!(
            books.parcel(&request(1, &body("statuses", life), b"s"), &key, 7),
            2,
            "two states of one id"
        );
        assert_eq!(books.parcel(&request(1, &body("statuses", life), b"s"), &key, 7), 0);
        assert_eq!(
            books.parcel(
                &request(
                    0,
                    r#"{"entry":[{"changes":[{"value":{"waba_info":{"waba_id":"wamid.HB.7.0.a9"}}}]}]}"#,
                    b"s"
                ),
                &key,
                7
            ),
            1
        );
        let counted = [0, 1, 2].map(|region| (books.of(region).events, books.of(region).again));
        assert_eq!(counted, [(1, 0), (2, 2), (0, 0)]);
        assert_eq!((books.parcels, books.unsigned, books.strangers), (3, 0, 0));
        for (region, id) in [(0, "wamid.HB.7.1.m1.0"), (1, "wamid.HB.8.1.m1.0"), (1, "other")] {
            let parcel = request(region, &body("messages", &format!(r#"{{"id":"{id}"}}"#)), b"s");
            assert_eq!(books.parcel(&parcel, &key, 7), 0, "{id} at {region}");
        }
        assert_eq!(books.parcel(&request(1, "no JSON", b"wrong"), &key, 7), 0);
        assert_eq!((books.unsigned, books.strangers), (1, 4));
    }

    #[test]
    fn every_message_of_a_history_counts_and_forged_ones_apart() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"s");
        let mut books = Books::default();
        let messages = r#"{"id":"wamid.HB.7.1.h1.0.0"},{"id":"wamid.HB.7.1.h1.0.1"}"#;
        let history = body("history", &format!(r#"{{"threads":[{{"messages":[{messages}]}}]}}"#));
        assert_eq!(books.parcel(&request(1, &history, b"s"), &key, 7), 2);
        assert_eq!(
            books.parcel(&request(1, &body("messages", r#"{"id":"wamid.HB.7.1.fm1.0"}"#), b"s"), &key, 7),
            0
        );
        assert_eq!((books.of(1).events, books.forged, books.strangers), (2, 1, 0));
    }

    #[test]
    fn digest_is_that_of_the_scripts_and_tells_sets_apart() {
        // FNV-1a of "a" is e40c292c.
        assert_eq!(digest_of("a"), 0x000c_292c);
        let digest = |names: &[&str]| {
            let mut books = Books::default();
            names.iter().for_each(|name| assert!(books.take(0, (*name).to_owned())));
            books.of(0).digest
        };
        assert_eq!(digest(&["m1.0/", "s2.0/sent"]), digest(&["s2.0/sent", "m1.0/"]));
        assert_ne!(digest(&["m1.0/", "s2.0/sent"]), digest(&["m1.0/", "s2.0/read"]));
    }
}
