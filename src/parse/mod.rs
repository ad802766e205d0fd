//! What is in a webhook: its events, each with a key, its users and its byte range.

use std::ops::Range;

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
    Account = 11,
    /// A WASenderApi session event without a user.
    Session = 12,
}

/// One person an event names; either may be missing, both may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct User<'a> {
    /// As it came (maybe with `+`, blanks, dashes), already known to be phone-like: never a group id, LID or BSUID.
    pub phone: Option<&'a str>,
    /// Business-scoped user id, `CC.xxxx` or `CC.ENT.xxxx`.
    pub bsuid: Option<&'a str>,
}

/// Identity of an event, for dedupe: SHA-256 cut to 128 bits over kind, number and id.
pub type Key = [u8; 16];

/// One event, borrowed from the parser's scratch; lives as long as the visit.
#[derive(Debug)]
pub struct Event<'a> {
    pub kind: EventKind,
    pub key: Key,
    /// Mostly one; empty for an event without a user.
    pub users: &'a [User<'a>],
    /// `phone_number_id` of the business number; empty if none.
    pub number: &'a str,
    /// `entry[].id`, the WhatsApp business account; empty if none.
    pub account: &'a str,
    /// The event's own JSON element in the raw body.
    pub range: Range<usize>,
}
