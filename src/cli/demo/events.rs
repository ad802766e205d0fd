//! What a region's own program would find in a parcel: its events, by the ids that the provider gave them.
//!
//! Written apart from the gateway's parser on purpose: the ledger must not share its mistakes. An
//! event's digest is over its exact JSON text, so that a cut parcel can be held against the
//! webhook it was cut from, byte for byte.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::value::RawValue;

/// SHA-256.
pub type Digest = [u8; 32];

/// One event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unique among all events of a source.
    pub id: String,
    /// Business number and user; `None` where order means nothing.
    pub conversation: Option<String>,
    /// Of the event's JSON text.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    changes: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
struct Value<'a> {
    #[serde(default, borrow)]
    metadata: Metadata<'a>,
    #[serde(default, borrow)]
    messages: Vec<&'a RawValue>,
    #[serde(default, borrow)]
    statuses: Vec<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Metadata<'a> {
    #[serde(default, borrow)]
    phone_number_id: Cow<'a, str>,
}

/// A message or a status.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "recipient_id")]
    from: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "recipient_user_id")]
    from_user_id: Option<Cow<'a, str>>,
}

/// The events of a body in its order; an error if it is not one of Meta's.
///
/// Messages and statuses one by one; any other change as a whole, named after its digest.
pub fn events_in(body: &[u8]) -> Result<Vec<Event>, serde_json::Error> {
    let envelope: Envelope<'_> = serde_json::from_slice(body)?;
    let mut events = Vec::new();
    for change in envelope.entry.iter().flat_map(|entry| &entry.changes) {
        let value: Value<'_> = serde_json::from_str(change.value.get())?;
        if value.messages.is_empty() && value.statuses.is_empty() {
            let digest = digest_of(change.value.get().as_bytes());
            let id = format!("change:{}", crate::cli::sign::hex(&digest[..16]));
            events.push(Event { id, conversation: None, digest });
        }
        for raw in value.messages.iter().chain(&value.statuses) {
            let element: Element<'_> = serde_json::from_str(raw.get())?;
            let id = match &element.status {
                Some(status) => format!("status:{}:{status}", element.id),
                None => format!("message:{}", element.id),
            };
            let user = element.from_user_id.or(element.from);
            let conversation = user.map(|user| format!("{}/{user}", value.metadata.phone_number_id));
            events.push(Event { id, conversation, digest: digest_of(raw.get().as_bytes()) });
        }
    }
    Ok(events)
}

/// SHA-256 of `bytes`.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::super::webhooks::{Mint, PEOPLE, WITHOUT_PHONE};
    use super::*;

    #[test]
    fn every_made_webhook_holds_the_events_it_says() {
        let mut mint = Mint::new(3, 1_789_400_000);
        let id = mint.sent_message(PEOPLE[4]);
        let webhooks = [
            mint.message(PEOPLE[0], "hi"),
            mint.message(WITHOUT_PHONE, "hi"),
            mint.status(PEOPLE[4], &id, "sent"),
            mint.status(PEOPLE[4], &id, "read"),
            mint.messages(&[(PEOPLE[0], "1"), (PEOPLE[1], "2"), (PEOPLE[0], "3")]),
            mint.account_change(),
            mint.account_change(),
        ];
        let mut ids = std::collections::HashSet::new();
        for webhook in &webhooks {
            let events = events_in(&webhook.body).unwrap();
            assert_eq!(events.len(), webhook.users.len(), "{}", webhook.label);
            for (event, user) in events.iter().zip(&webhook.users) {
                assert!(ids.insert(event.id.clone()), "{} has an id of another event", webhook.label);
                assert_eq!(event.conversation.is_some(), user.is_some(), "{}", webhook.label);
            }
        }
    }

    #[test]
    fn digest_is_of_the_exact_text() {
        let of = |message: &str| {
            let body = format!(r#"{{"entry":[{{"changes":[{{"value":{{"messages":[{message}]}}}}]}}]}}"#);
            events_in(body.as_bytes()).unwrap().remove(0)
        };
        let plain = of(r#"{"id":"a","from":"1"}"#);
        assert_eq!(plain.digest, digest_of(br#"{"id":"a","from":"1"}"#));
        let spaced = of(r#"{"id":"a", "from":"1"}"#);
        assert_eq!(plain.id, spaced.id);
        assert_ne!(plain.digest, spaced.digest);
        assert!(events_in(b"[]").is_err());
        assert!(events_in(b"{\"entry\":").is_err());
    }
}
