//! Dead letters in words: the filters that a person writes, and what is shown of a letter. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Card, Filter, LetterId, Reason, State};
use crate::entry::name_id;
use crate::journal::record::{self, Record};
use crate::parse::phone::Digits;

/// A filter as it is written: options of the command line, a query, a JSON document. Nothing: every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// Ids; any of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub id: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A duration back from now, or RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A phone or an id of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Letters above this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A word that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {found:?}; expected {expected}. {hint}")]
pub struct Misworded {
    pub key: &'static str,
    pub found: String,
    pub expected: String,
    pub hint: String,
}

impl Wanted {
    /// The filter, and the user that is meant as an entry of the journal has it.
    pub fn filter(&self, now: SystemTime) -> Result<(Filter, Option<String>), Misworded> {
        let time = |key, text: &Option<String>| text.as_ref().map(|text| moment(key, text, now)).transpose();
        let filter = Filter {
            ids: self.id.iter().map(|text| id("id", text)).collect::<Result<_, _>>()?,
            region: self.region.clone(),
            source: self.source.as_ref().map(|name| name.parse().unwrap_or_else(|_| name_id(name))),
            since_ms: time("since", &self.since)?,
            until_ms: time("until", &self.until)?,
            reason: self.reason.as_ref().map(|text| choice("reason", text, &Reason::ALL)).transpose()?,
            status: self.status,
            user: None,
            state: self.state.as_ref().map(|text| choice("state", text, &State::ALIVE)).transpose()?,
            after: self.after.as_ref().map(|text| id("after", text)).transpose()?,
        };
        let user = self.user.as_ref().map(|user| match Digits::parse(user) {
            Some(digits) => digits.as_str().to_owned(),
            None => user.clone(),
        });
        Ok((filter, user))
    }
}

/// A letter's id, as a list shows it.
pub fn id(key: &'static str, text: &str) -> Result<LetterId, Misworded> {
    text.parse().map(LetterId).map_err(|_| Misworded {
        key,
        found: text.to_owned(),
        expected: "the number of a letter".to_owned(),
        hint: "Take one from the first column of `penstock dead list`.".to_owned(),
    })
}

fn choice<T: Copy>(key: &'static str, text: &str, choices: &[(T, &str)]) -> Result<T, Misworded> {
    choices.iter().find(|(_, name)| *name == text).map(|(choice, _)| *choice).ok_or_else(|| Misworded {
        key,
        found: text.to_owned(),
        expected: format!("one of {:?}", choices.iter().map(|(_, name)| *name).collect::<Vec<_>>()),
        hint: "Choose one, or leave it out.".to_owned(),
    })
}

/// Unix milliseconds.
fn moment(key: &'static str, text: &str, now: SystemTime) -> Result<u64, Misworded> {
    let back = humantime::parse_duration(text).ok().and_then(|back| now.checked_sub(back));
    let at = back.or_else(|| humantime::parse_rfc3339_weak(text).ok());
    let ms = at.map(|at| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64);
    ms.ok_or_else(|| Misworded {
        key,
        found: text.to_owned(),
        expected: "a time".to_owned(),
        hint:
            "Write how long ago, such as \"2h\" or \"3days\", or a moment, such as \"2026-11-26T08:00:00Z\"."
                .to_owned(),
    })
}

/// RFC 3339; `None` for a time that is not known.
pub fn time(unix_ms: u64) -> Option<String> {
    // Later than year 9999 is damage, and no time.
    let at =
        UNIX_EPOCH + Duration::from_millis(Some(unix_ms).filter(|ms| (1..253_402_300_800_000).contains(ms))?);
    Some(humantime::format_rfc3339_millis(at).to_string())
}

/// What is shown of a letter. Users are hashes, and conversations are counted.
pub fn shown(card: &Card, source: &dyn Fn(u32) -> Option<String>) -> Value {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({
        "id": card.id.0.to_string(),
        "region": card.region,
        "source": source(card.source).unwrap_or_else(|| card.source.to_string()),
        "state": card.state.name(),
        "reason": card.last.reason.name(),
        "status": Some(card.last.status).filter(|status| *status > 0),
        "attempts": card.last.attempts,
        "received_at": time(card.received_at_ms),
        "first_tried_at": time(card.first_tried_ms),
        "died_at": time(card.last.at_ms),
        "events": card.event_count,
        "places": card.events,
        "conversations": card.conversations.len(),
        "users": card.users.iter().map(|user| format!("{user:016x}")).collect::<Vec<_>>(),
        "body_bytes": card.body_len,
        "journal": hex(&card.journal),
        "lsn": card.lsn,
        "slot": card.slot,
        "part": card.part,
    })
}

/// The webhook's body in a letter's record.
pub fn body(record: &[u8]) -> Option<&[u8]> {
    match record::read(record) {
        Ok((Record::Entry(entry), _)) => Some(entry.body),
        _ => None,
    }
}
