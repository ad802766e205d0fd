//! Real-shaped webhooks of invented people. Every event's id tells its person and a number that
//! grows with every webhook of that person, so that any event found anywhere can be traced.

use std::fmt::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Random;

/// The business number that all people of a [`World`] write to.
pub const NUMBER: &str = "106500000000101";
pub const ACCOUNT: &str = "215900000000001";

/// One event as the ledger knows it.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    /// Index of the person: one person at one number is one conversation.
    pub conversation: usize,
    /// Index of the region it belongs to.
    pub region: usize,
    /// Its JSON element in the body.
    pub range: Range<usize>,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub body: Vec<u8>,
    pub events: Vec<Event>,
}

#[derive(Debug)]
pub struct Person {
    pub phone: String,
    pub region: usize,
    sent: AtomicU64,
}

/// Who writes. Shared by all connections of a sender.
#[derive(Debug)]
pub struct World {
    pub people: Vec<Person>,
    /// In every id: two runs never make the same one.
    run: u64,
    /// Bytes of filling in the text of a message.
    padding: usize,
    /// False: every webhook has one event.
    batches: bool,
    /// A region of which only one in so many webhooks is.
    rare: Option<(usize, usize)>,
}

impl World {
    /// `each` people per region; a region is given by the prefix of its phones.
    pub fn new(prefixes: &[&str], each: usize, padding: usize) -> Self {
        let person = |(region, prefix): (usize, &str), n: usize| Person {
            phone: format!("{prefix}{n:0width$}", width = 12 - prefix.len()),
            region,
            sent: AtomicU64::new(0),
        };
        let regions = prefixes.iter().copied().enumerate();
        let people = regions.flat_map(|region| (0..each).map(move |n| person(region, n))).collect();
        Self { people, run: super::random_seed(), padding, batches: true, rare: None }
    }

    pub fn without_batches(self) -> Self {
        Self { batches: false, ..self }
    }

    /// The people of `region` write `times` more rarely than the others.
    pub fn with_rare(self, region: usize, times: usize) -> Self {
        Self { rare: Some((region, times)), ..self }
    }

    /// A webhook as they come: mostly one message or status, sometimes several people at once.
    pub fn next(&self, random: &mut Random) -> Webhook {
        let mut someone = random.below(self.people.len());
        if let Some((region, times)) = self.rare {
            while self.people[someone].region == region && random.below(times) > 0 {
                someone = random.below(self.people.len());
            }
        }
        match random.below(if self.batches { 20 } else { 17 }) {
            0..14 => self.webhook(&[(someone, false)]),
            14..17 => self.webhook(&[(someone, true)]),
            17 => self.webhook(&self.neighbours(someone, 3)),
            // Each of the others has somebody of every region.
            _ if self.rare.is_some_and(|(_, times)| random.below(times) > 0) => {
                self.webhook(&self.neighbours(someone, 4))
            }
            _ => {
                // Evenly spread over all people, and so over all regions.
                let step = (self.people.len() / 4).max(1);
                let all: Vec<_> =
                    (0..4).map(|n| ((someone + n * step) % self.people.len(), n == 3)).collect();
                self.webhook(&all)
            }
        }
    }

    /// One webhook with an event for each `(person, is a status)`.
    pub fn webhook(&self, parts: &[(usize, bool)]) -> Webhook {
        let mut parts = parts.to_vec();
        parts.sort_unstable();
        parts.dedup_by_key(|(person, _)| *person);
        let (statuses, messages): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(_, status)| *status);
        let mut text = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{ACCOUNT}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783100","phone_number_id":"{NUMBER}"}}"#
        );
        let mut events = Vec::new();
        if !messages.is_empty() {
            text.push_str(r#","contacts":["#);
            for (at, (person, _)) in messages.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let phone = &self.people[*person].phone;
                write!(text, r#"{comma}{{"profile":{{"name":"P{person}"}},"wa_id":"{phone}"}}"#).unwrap();
            }
            text.push(']');
        }
        for (list, people) in [("messages", &messages), ("statuses", &statuses)] {
            if people.is_empty() {
                continue;
            }
            write!(text, r#","{list}":["#).unwrap();
            for (at, (person, status)) in people.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                events.push(self.event(*person, *status, &mut text));
            }
            text.push(']');
        }
        text.push_str(r#"},"field":"messages"}]}]}"#);
        Webhook { body: text.into_bytes(), events }
    }

    fn event(&self, person: usize, status: bool, text: &mut String) -> Event {
        let Person { phone, region, sent } = &self.people[person];
        let number = sent.fetch_add(1, SeqCst);
        // The layout of a real id: the phone, the direction and a number, in base64.
        let inside = format!("\x1c\x18\x0c{phone}\x15\x02\0\x12\x18\x20{:016X}{number:016X}\0", self.run);
        let id = format!("wamid.{}", STANDARD.encode(inside));
        let start = text.len();
        let written = if status {
            write!(
                text,
                r#"{{"id":"{id}","status":"delivered","timestamp":"1789400130","recipient_id":"{phone}","pricing":{{"billable":true,"pricing_model":"PMP","type":"regular","category":"utility"}}}}"#
            )
        } else {
            let filling = "x".repeat(self.padding);
            write!(
                text,
                r#"{{"from":"{phone}","id":"{id}","timestamp":"1789400020","text":{{"body":"ol\u00e1 {number} {filling}"}},"type":"text"}}"#
            )
        };
        written.unwrap();
        Event { id, conversation: person, region: *region, range: start..text.len() }
    }

    /// People of the same region.
    fn neighbours(&self, someone: usize, count: usize) -> Vec<(usize, bool)> {
        let region = self.people[someone].region;
        let all: Vec<usize> =
            (0..self.people.len()).filter(|person| self.people[*person].region == region).collect();
        let at = all.iter().position(|person| *person == someone).unwrap_or(0);
        (0..count).map(|n| (all[(at + n) % all.len()], false)).collect()
    }
}

/// Ids of all events in a body, found by walking the JSON: independent of the gateway's parser.
pub fn ids(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    fn walk(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    match value.as_str() {
                        Some(id) if name == "id" && id.starts_with("wamid.") => found.push(id.to_owned()),
                        _ => walk(value, found),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_slice(body)?, &mut found);
    Ok(found)
}
