//! The elements of Meta's lists: which fields hold the id, which hold the person.
//!
//! Each reader is one row of the tables of fields and identifiers. `context.from` is the business, a
//! message's own `contacts` are cards the person shared, and a group's id is no phone: none is read.

use super::document::Value;
use super::meta::Around;
use super::users::{Users, person, user};
use super::{EventKind, User};

/// What an element says about itself.
pub(crate) struct Element<'t> {
    pub(crate) kind: EventKind,
    pub(crate) user: User<'t>,
    pub(crate) family: Family,
    pub(crate) parts: [&'t str; 3],
    pub(crate) values: [Option<Value<'t>>; 2],
    /// `contacts[]` may add the other identity, or the only one.
    pub(crate) may_ask_contacts: bool,
}

/// Families of keys.
#[derive(Clone, Copy)]
pub(crate) enum Family {
    Message,
    Status,
    Call,
    History,
    Automatic,
    /// No id: what it says is what it is.
    Said,
}

impl Family {
    pub(crate) fn plain(self) -> &'static str {
        match self {
            Self::Message => "meta m",
            Self::Status => "meta s",
            Self::Call => "meta c",
            Self::History => "meta h",
            Self::Automatic => "meta a",
            Self::Said => "meta v",
        }
    }

    pub(crate) fn standby(self) -> &'static str {
        match self {
            Self::Message => "meta standby m",
            Self::Status => "meta standby s",
            Self::Call => "meta standby c",
            Self::History => "meta standby h",
            Self::Automatic => "meta standby a",
            Self::Said => "meta standby v",
        }
    }
}

/// An element by what it says: field, account and time keep equal values of different changes apart.
pub(crate) fn unknown<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    Element {
        kind: EventKind::Account,
        user: User::default(),
        family: Family::Said,
        parts: [around.field, around.account, ""],
        values: [Some(value), around.time],
        may_ask_contacts: false,
    }
}

/// An element by its id and up to two more words; by what it says if it has none.
fn known<'t>(
    kind: EventKind,
    user: User<'t>,
    (family, parts): (Family, [Option<&'t str>; 3]),
    (value, around): (Value<'t>, &Around<'t>),
) -> Element<'t> {
    let element = Element { kind, user, may_ask_contacts: true, ..unknown(value, around) };
    match parts[0] {
        Some(_) => {
            Element { family, parts: parts.map(Option::unwrap_or_default), values: [None, None], ..element }
        }
        None => element,
    }
}

/// `messages[]`. In a history's media part the id is that of the placeholder that came before.
pub(crate) fn message<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let (mut id, mut kind, mut from, mut from_id, mut from_parent) = (None, None, None, None, None);
    let mut system = None;
    for (name, member) in value.members() {
        match name {
            "id" => id = member.text(),
            "type" => kind = member.text(),
            "from" => from = member.text(),
            "from_user_id" => from_id = member.text(),
            "from_parent_user_id" => from_parent = member.text(),
            "system" => system = Some(member),
            _ => {}
        }
    }
    let mut who = user(from, from_id, from_parent);
    if let Some(system) = system.filter(|_| !who.is_known()) {
        // A changed user id: there may be no `from`, and never a contact.
        let phone = system.text_of("wa_id").or(system.text_of("new_wa_id"));
        who = user(phone, system.text_of("user_id"), system.text_of("parent_user_id"));
    }
    if around.field == "history" {
        known(EventKind::History, who, (Family::History, [id, kind, None]), (value, around))
    } else {
        known(EventKind::Message, who, (Family::Message, [id, None, None]), (value, around))
    }
}

/// `statuses[]`. All statuses of a message share its id, and in a group those of all members.
pub(crate) fn status<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let (mut id, mut status, mut kind, mut recipient_type) = (None, None, None, None);
    let (mut phone, mut user_id, mut parent, mut old_parent) = (None, None, None, None);
    let (mut member_phone, mut old_member_phone, mut member_id, mut member_parent) = (None, None, None, None);
    for (name, member) in value.members() {
        match name {
            "id" => id = member.text(),
            "status" => status = member.text(),
            "type" => kind = member.text(),
            "recipient_type" => recipient_type = member.text(),
            "recipient_id" => phone = member.text(),
            "recipient_user_id" => user_id = member.text(),
            "recipient_parent_user_id" => parent = member.text(),
            "parent_recipient_user_id" => old_parent = member.text(),
            "recipient_participant_id" => member_phone = member.text(),
            "participant_recipient_id" => old_member_phone = member.text(),
            "recipient_participant_user_id" => member_id = member.text(),
            "recipient_participant_parent_user_id" => member_parent = member.text(),
            _ => {}
        }
    }
    let member_phone = member_phone.or(old_member_phone);
    let mut who = user(member_phone, member_id, member_parent);
    if !who.is_known() && recipient_type != Some("group") {
        who = user(phone, user_id, parent.or(old_parent));
    }
    let participant = member_phone.or(member_id).or(member_parent);
    let call = around.field == "calls" || kind == Some("call");
    let (kind, family) =
        if call { (EventKind::Call, Family::Call) } else { (EventKind::Status, Family::Status) };
    known(kind, who, (family, [id, status, participant]), (value, around))
}

/// `message_echoes[]`: what the business sent from its phone. `from` is the business.
pub(crate) fn echo<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let (mut id, mut kind, mut to, mut to_id, mut to_parent) = (None, None, None, None, None);
    let mut inner = None;
    for (name, member) in value.members() {
        match name {
            "id" => id = member.text(),
            "type" => kind = member.text(),
            "to" => to = member.text(),
            "to_user_id" => to_id = member.text(),
            "to_parent_user_id" => to_parent = member.text(),
            "message" => inner = Some(member),
            _ => {}
        }
    }
    if id.is_none()
        && let Some(inner) = inner
    {
        // Under `standby` the message is wrapped once more.
        let field = |name| inner.text_of(name);
        (id, kind) = (field("id"), field("type"));
        (to, to_id, to_parent) =
            (to.or(field("to")), to_id.or(field("to_user_id")), to_parent.or(field("to_parent_user_id")));
    }
    let who = user(to, to_id, to_parent);
    if around.field == "history" {
        known(EventKind::History, who, (Family::History, [id, kind, None]), (value, around))
    } else {
        known(EventKind::Echo, who, (Family::Message, [id, None, None]), (value, around))
    }
}

/// `calls[]`. Who is the person depends on who called.
pub(crate) fn call<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let (mut id, mut event, mut status, mut direction) = (None, None, None, None);
    let (mut from, mut from_id, mut from_parent) = (None, None, None);
    let (mut to, mut to_id, mut to_parent) = (None, None, None);
    for (name, member) in value.members() {
        match name {
            "id" => id = member.text(),
            "event" => event = member.text(),
            "status" => status = member.text(),
            "direction" => direction = member.text(),
            "from" => from = member.text(),
            "from_user_id" => from_id = member.text(),
            "from_parent_user_id" => from_parent = member.text(),
            "to" => to = member.text(),
            "to_user_id" => to_id = member.text(),
            "to_parent_user_id" => to_parent = member.text(),
            _ => {}
        }
    }
    let caller = user(from, from_id, from_parent);
    let called = user(to, to_id, to_parent);
    let who = match direction {
        Some("USER_INITIATED") => caller,
        Some("BUSINESS_INITIATED") => called,
        // Only people have user ids. Without one either number may be the business's own: the contact decides.
        _ if caller.bsuid.is_some() => caller,
        _ if called.bsuid.is_some() => called,
        _ => User::default(),
    };
    known(EventKind::Call, who, (Family::Call, [id, event.or(status), None]), (value, around))
}

/// A message of a history's thread: the placeholder and the media come with the same id.
pub(crate) fn history_message<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let outgoing = value.text_of("to").is_some();
    let read = if outgoing { echo(value, around) } else { message(value, around) };
    match (value.text_of("id"), value.text_of("type")) {
        (None, _) => Element { kind: EventKind::History, ..read },
        (id, kind) => {
            known(EventKind::History, read.user, (Family::History, [id, kind, None]), (value, around))
        }
    }
}

/// The person of `history[].threads[]`.
pub(crate) fn thread_user<'t>(thread: Value<'t>) -> User<'t> {
    let context = thread.get("context").map(person).unwrap_or_default();
    let named = user(thread.text_of("id"), None, None);
    User { phone: named.phone.or(context.phone), bsuid: named.bsuid.or(context.bsuid) }
}

/// `state_sync[]`: an entry of the business's address book.
pub(crate) fn state_sync<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let contact = value.get("contact");
    let field = |name| contact.and_then(|contact| contact.text_of(name));
    let user = user(field("phone_number"), field("user_id"), field("parent_user_id"));
    Element { kind: EventKind::StateSync, user, ..unknown(value, around) }
}

/// `user_preferences[]`.
pub(crate) fn preference<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let user = person(value);
    Element { kind: EventKind::Preference, user, may_ask_contacts: true, ..unknown(value, around) }
}

/// `user_id_update[]`: `user_id` is an object here. The current id is the person's from now on.
pub(crate) fn user_id_update<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let id = |name| {
        let id = value.get(name);
        let part = |which| id.and_then(|id| id.text_of(which));
        part("current").or(part("previous")).or(id.and_then(|id| id.text()))
    };
    let user = user(value.text_of("wa_id"), id("user_id"), id("parent_user_id"));
    Element { kind: EventKind::UserIdUpdate, user, may_ask_contacts: true, ..unknown(value, around) }
}

/// `automatic_events[]`: its id is that of a message that came before.
pub(crate) fn automatic_event<'t>(value: Value<'t>, around: &Around<'t>) -> Element<'t> {
    let parts = [value.text_of("id"), value.text_of("event_name"), None];
    let element = known(EventKind::Account, User::default(), (Family::Automatic, parts), (value, around));
    Element { may_ask_contacts: false, ..element }
}

/// The people of `groups[]`: participants, and whoever asks to join.
pub(crate) fn group_users<'t>(value: Value<'t>) -> Users<'t> {
    let mut users = Users::new();
    users.push(person(value));
    for (name, member) in value.members() {
        if name.ends_with("participants") {
            for participant in member.each() {
                users.push(person(participant));
            }
        }
    }
    users
}
