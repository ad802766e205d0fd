//! What is in a webhook: its events, each with a key and its users.
//!
//! Only what routing, ordering and dedupe need is read; the raw bytes stay as they came. Reading never
//! fails: a body that is not understood is one event without a user, keyed by the body's digest,
//! because an error answer would make the provider repeat it for days.
//!
//! Invariants: events come in the order of the document and do not overlap; what holds
//! no recognised event (a list element, a change, an entry) is itself one event without a user, so
//! every part of the body belongs to an event; time is linear in the body (sorting aside) and
//! no memory is allocated per event. Nothing here logs: ids, phones and bodies are personal data.
//! Deliberately absent: what messages say. Nobody on this side of the region needs it.

use crate::config::SourceKind;

mod canonical;
mod contacts;
mod conversation;
mod document;
mod elements;
mod emit;
mod meta;
pub mod phone;
mod says;
#[cfg(test)]
pub(crate) mod tests;
mod users;
mod walk;
mod wasender;

pub use conversation::conversations;

pub(crate) use contacts::Index;
pub(crate) use document::{Document, Scratch, Spans, Value};
pub(crate) use phone::is_bsuid;
pub(crate) use users::person;
pub(crate) use walk::{Found, Sink, walk};

/// More events than this in one body and it is not taken apart: Meta sends up to 1,000 updates
/// and, for a history, some thousands of messages.
pub const EVENTS_MAX: usize = 65_536;

/// An event's `users` holds no more than this. Only group and poll events name several people.
pub const USERS_MAX: usize = 64;

/// What an event is. Label of `penstock_events_total{kind}` and stored in the journal as its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// Not understood: the whole body, without a user.
    Opaque = 0,
    Message = 1,
    Status = 2,
    Echo = 3,
    History = 4,
    Call = 5,
    StateSync = 6,
    Handover = 7,
    Preference = 8,
    UserIdUpdate = 9,
    Group = 10,
    /// An account-level change, or a part of a body whose meaning is not known.
    Account = 11,
    /// A WASenderApi session event without a user.
    Session = 12,
    /// Errors of a value: they stand for messages that could not be shown, and name no user.
    Errors = 13,
}

impl EventKind {
    /// Every kind at its number, with its name in metrics and archives.
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Opaque, "opaque"),
        (Self::Message, "message"),
        (Self::Status, "status"),
        (Self::Echo, "echo"),
        (Self::History, "history"),
        (Self::Call, "call"),
        (Self::StateSync, "state_sync"),
        (Self::Handover, "handover"),
        (Self::Preference, "preference"),
        (Self::UserIdUpdate, "user_id_update"),
        (Self::Group, "group"),
        (Self::Account, "account"),
        (Self::Session, "session"),
        (Self::Errors, "errors"),
    ];
}

/// One person an event names; either may be missing, both may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct User<'a> {
    /// As it came (maybe with `+`, blanks, dashes), already known to be phone-like: never a group id, LID or BSUID.
    pub phone: Option<&'a str>,
    /// Business-scoped user id, `CC.xxxx` or `CC.ENT.xxxx`.
    pub bsuid: Option<&'a str>,
}

impl User<'_> {
    /// Whether there is any identity at all.
    pub fn is_known(&self) -> bool {
        self.phone.is_some() || self.bsuid.is_some()
    }
}

/// Identity of an event, for dedupe: SHA-256 cut to 128 bits over kind, number and id.
pub type Key = [u8; 16];

/// One event, borrowed from the parser's scratch; lives as long as the visit.
#[derive(Debug)]
pub struct Event<'a> {
    pub kind: EventKind,
    pub key: Key,
    /// What it says, whatever the white space, escapes and order of members: the same key with another
    /// value is no duplicate.
    pub value: u64,
    /// Mostly one; empty for an event without a user.
    pub users: &'a [User<'a>],
    /// It names more people than [`USERS_MAX`]: `users` has the first ones.
    pub more_users: bool,
    /// `phone_number_id` of the business number, for WASenderApi a digest of the session's id
    /// (which may be an API key) in hex; empty if none.
    pub number: &'a str,
    /// `entry[].id`, the WhatsApp business account; empty if none.
    pub account: &'a str,
}

/// What became of a body. Either way at least one event was visited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    Understood {
        events: usize,
    },
    /// One event of kind [`EventKind::Opaque`] was visited.
    Opaque(Opaque),
}

/// Why a body is not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Opaque {
    #[error("not JSON (or a number of more than 64 bits)")]
    NotJson,
    #[error("JSON nested deeper than {} levels", document::DEPTH_MAX)]
    TooDeep,
    #[error("not the envelope of this provider")]
    OtherShape,
    #[error("an envelope with nothing in it")]
    NoEvents,
    #[error("more than {EVENTS_MAX} events")]
    TooManyEvents,
}

/// Reads bodies; one per core. Its memory is reused, and given back after an unusually large body.
#[derive(Default)]
pub struct Parser {
    scratch: Scratch,
    index: Index,
    digester: emit::Digester,
}

impl Parser {
    pub fn new() -> Self {
        Self::default()
    }

    /// Visits the events of `body` in the order of the document.
    pub fn parse(&mut self, kind: SourceKind, body: &[u8], visit: &mut impl FnMut(&Event<'_>)) -> Parsed {
        let Self { scratch, index, digester } = self;
        let read = scratch.read(body, |document| {
            let mut emit = emit::Emit::new(digester, visit);
            walk(kind, document, index, &mut emit)
        });
        match read.and_then(|walked| walked) {
            Ok(events) => Parsed::Understood { events },
            Err(reason) => {
                let key = emit::body_key(body);
                visit(&Event {
                    kind: EventKind::Opaque,
                    // The key is the body's digest and leaves nothing to compare.
                    value: key.first_chunk().copied().map_or(0, u64::from_le_bytes),
                    key,
                    users: &[],
                    more_users: false,
                    number: "",
                    account: "",
                });
                Parsed::Opaque(reason)
            }
        }
    }
}
