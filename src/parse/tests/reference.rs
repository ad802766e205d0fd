//! The parser once more, slow and plain, on `serde_json::Value`: what the fast one must agree with.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::super::phone::{is_bsuid, is_phone, same};
use super::super::{EVENTS_MAX, EventKind, Key, Opaque, USERS_MAX};
use crate::config::SourceKind;

pub(super) type Person = (Option<String>, Option<String>);

#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) kind: EventKind,
    pub(super) key: Key,
    pub(super) users: Vec<Person>,
    pub(super) more_users: bool,
    pub(super) number: String,
    pub(super) account: String,
    pub(super) element: Value,
}

pub(super) fn events(kind: SourceKind, body: &[u8]) -> Result<Vec<Expected>, Opaque> {
    let root: Value = serde_json::from_slice(body).map_err(|_| Opaque::NotJson)?;
    if depth(&root) > 64 {
        return Err(Opaque::TooDeep);
    }
    if has_long_integer(body) {
        return Err(Opaque::NotJson);
    }
    let found = match kind {
        SourceKind::Whatsapp => meta(&root)?,
        SourceKind::Wasender => super::reference_wasender::events(&root)?,
    };
    if found.len() > EVENTS_MAX { Err(Opaque::TooManyEvents) } else { Ok(found) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether the text has an integer that 64 bits cannot hold, which `serde_json` reads as a double.
fn has_long_integer(body: &[u8]) -> bool {
    let (mut in_string, mut escaped, mut token) = (false, false, String::new());
    for byte in body.iter().chain(b" ") {
        if in_string {
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        if matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
            token.push(*byte as char);
            continue;
        }
        let integer = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if integer && token.parse::<u64>().is_err() && token.parse::<i64>().is_err() {
            return true;
        }
        token.clear();
        in_string = *byte == b'"';
    }
    false
}

pub(super) fn each(value: Option<&Value>) -> Vec<&Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list.iter().collect(),
        Some(other) => vec![other],
    }
}

pub(super) fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn user(value: &Value, phones: &[&str], ids: &[&str], parents: &[&str]) -> Person {
    let first = |names: &[&str]| names.iter().find_map(|name| text(value, name));
    let (phone, id, parent) = (first(phones), first(ids), first(parents));
    let bsuid = [id, phone, parent].into_iter().flatten().find(|text| is_bsuid(text));
    (phone.filter(|text| is_phone(text)).map(String::from), bsuid.map(String::from))
}

fn person(value: &Value) -> Person {
    user(value, &["wa_id", "input"], &["user_id"], &["parent_user_id"])
}

pub(super) fn nobody(who: &Person) -> bool {
    who.0.is_none() && who.1.is_none()
}

fn complete(who: Person, contacts: &[&Value]) -> Person {
    let people: Vec<(Person, &Value)> = contacts.iter().map(|contact| (person(contact), *contact)).collect();
    let mut both = people.iter().filter(|((phone, id), _)| phone.is_some() && id.is_some());
    match &who {
        (None, None) if people.len() == 1 => people[0].0.clone(),
        (Some(phone), None) => {
            let found = both.find(|((other, _), _)| same(phone, other.as_ref().unwrap()));
            (who.0.clone(), found.and_then(|((_, id), _)| id.clone()))
        }
        (None, Some(id)) => {
            let found = both.find(|((_, other), contact)| {
                other.as_ref() == Some(id) || text(contact, "parent_user_id") == Some(id)
            });
            (found.and_then(|((phone, _), _)| phone.clone()), who.1.clone())
        }
        _ => who,
    }
}

pub(super) fn canonical(value: &Value, out: &mut Vec<u8>) {
    let string = |text: &str, out: &mut Vec<u8>| {
        out.push(b's');
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(yes) => out.push(if *yes { b't' } else { b'f' }),
        Value::Number(number) => {
            let integer = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
            match integer {
                Some(integer) => {
                    out.push(b'i');
                    out.extend(integer.to_le_bytes());
                }
                None => {
                    out.push(b'd');
                    out.extend(number.as_f64().unwrap().to_bits().to_le_bytes());
                }
            }
        }
        Value::String(text) => string(text, out),
        Value::Array(list) => {
            out.push(b'[');
            list.iter().for_each(|element| canonical(element, out));
            out.push(b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (name, value) in map {
                string(name, out);
                canonical(value, out);
            }
            out.push(b'}');
        }
    }
}

pub(super) fn key(family: &str, number: &str, parts: [&str; 3], values: [Option<&Value>; 2]) -> Key {
    let mut bytes = Vec::new();
    for part in [family, number, parts[0], parts[1], parts[2]] {
        bytes.extend((part.len() as u32).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    values.into_iter().flatten().for_each(|value| canonical(value, &mut bytes));
    digest(&SHA256, &bytes).as_ref()[..16].try_into().unwrap()
}

/// What stands around a list.
struct Place<'v> {
    field: &'v str,
    account: &'v str,
    time: Option<&'v Value>,
    number: &'v str,
    standby: bool,
}

impl Place<'_> {
    fn said(&self, kind: EventKind, users: Vec<Person>, element: &Value, says: &Value) -> Expected {
        let family = if self.standby { "meta standby v" } else { "meta v" };
        let key = key(family, self.number, [self.field, self.account, ""], [Some(says), self.time]);
        self.event(kind, users, element, key)
    }

    fn named(
        &self,
        kind: EventKind,
        who: Person,
        element: &Value,
        letter: &str,
        id: [Option<&str>; 3],
    ) -> Expected {
        if id[0].is_none() {
            return self.said(kind, vec![who], element, element);
        }
        let family = if self.standby { format!("meta standby {letter}") } else { format!("meta {letter}") };
        let key = key(&family, self.number, id.map(Option::unwrap_or_default), [None, None]);
        self.event(kind, vec![who], element, key)
    }

    fn event(&self, kind: EventKind, mut users: Vec<Person>, element: &Value, key: Key) -> Expected {
        users.retain(|who| !nobody(who));
        let (number, account) = (self.number.into(), self.account.into());
        Expected { kind, key, users, more_users: false, number, account, element: element.clone() }
    }
}

fn meta(root: &Value) -> Result<Vec<Expected>, Opaque> {
    if text(root, "object") != Some("whatsapp_business_account") || root.get("entry").is_none() {
        return Err(Opaque::OtherShape);
    }
    let mut found = Vec::new();
    for entry in each(root.get("entry")) {
        let before = found.len();
        let account = text(entry, "id").unwrap_or("");
        let time = entry.get("time");
        for change in each(entry.get("changes")) {
            let before = found.len();
            let field = text(change, "field").unwrap_or("");
            let value = change.get("value");
            let number = value.and_then(number_of).unwrap_or("");
            let place = Place { field, account, time, number, standby: false };
            match value {
                Some(value) if field == "messaging_handovers" => {
                    let sender = value.get("sender").unwrap_or(&Value::Null);
                    let who = user(sender, &["phone_number", "wa_id"], &["user_id"], &["parent_user_id"]);
                    found.push(place.said(EventKind::Handover, vec![who], change, value));
                }
                Some(value) => inside(value, &place, &mut found),
                None => {}
            }
            if found.len() == before {
                found.push(place.said(EventKind::Account, vec![], change, value.unwrap_or(change)));
            }
        }
        if found.len() == before {
            let place = Place { field: "", account, time, number: "", standby: false };
            found.push(place.said(EventKind::Account, vec![], entry, entry));
        }
    }
    if found.is_empty() { Err(Opaque::NoEvents) } else { Ok(found) }
}

fn number_of(value: &Value) -> Option<&str> {
    let inside = |name: &str| value.get(name).and_then(|inner| text(inner, "phone_number_id"));
    inside("metadata")
        .or(text(value, "phone_number_id"))
        .or(inside("recipient"))
        .or(inside("phone_number_settings"))
}

fn inside(value: &Value, place: &Place<'_>, found: &mut Vec<Expected>) {
    let contacts = each(value.get("contacts"));
    let history = place.field == "history";
    for message in each(value.get("messages")) {
        let who = complete(sender(message), &contacts);
        found.push(message_event(place, history, message, who, EventKind::Message));
    }
    for echo in each(value.get("message_echoes")) {
        let who = complete(recipient(echo), &contacts);
        found.push(message_event(place, history, echo, who, EventKind::Echo));
    }
    for status in each(value.get("statuses")) {
        let get = |name| text(status, name);
        let member = user(
            status,
            &["recipient_participant_id", "participant_recipient_id"],
            &["recipient_participant_user_id"],
            &["recipient_participant_parent_user_id"],
        );
        let parents = ["recipient_parent_user_id", "parent_recipient_user_id"];
        let direct = user(status, &["recipient_id"], &["recipient_user_id"], &parents);
        let group = get("recipient_type") == Some("group");
        let who = if !nobody(&member) || group { member } else { direct };
        let who = complete(who, &contacts);
        let participant = get("recipient_participant_id")
            .or(get("participant_recipient_id"))
            .or(get("recipient_participant_user_id"))
            .or(get("recipient_participant_parent_user_id"));
        let call = place.field == "calls" || get("type") == Some("call");
        let (kind, letter) = if call { (EventKind::Call, "c") } else { (EventKind::Status, "s") };
        found.push(place.named(kind, who, status, letter, [get("id"), get("status"), participant]));
    }
    for call in each(value.get("calls")) {
        let get = |name| text(call, name);
        let from = user(call, &["from"], &["from_user_id"], &["from_parent_user_id"]);
        let to = user(call, &["to"], &["to_user_id"], &["to_parent_user_id"]);
        let who = match get("direction") {
            Some("USER_INITIATED") => from,
            Some("BUSINESS_INITIATED") => to,
            _ if from.1.is_some() => from,
            _ if to.1.is_some() => to,
            _ => (None, None),
        };
        let who = complete(who, &contacts);
        let id = [get("id"), get("event").or(get("status")), None];
        found.push(place.named(EventKind::Call, who, call, "c", id));
    }
    for chunk in each(value.get("history")) {
        history_chunk(chunk, &contacts, place, found);
    }
    for element in each(value.get("state_sync")) {
        let contact = element.get("contact").unwrap_or(&Value::Null);
        let who = user(contact, &["phone_number"], &["user_id"], &["parent_user_id"]);
        found.push(place.said(EventKind::StateSync, vec![who], element, element));
    }
    for element in each(value.get("user_preferences")) {
        let who = complete(person(element), &contacts);
        found.push(place.said(EventKind::Preference, vec![who], element, element));
    }
    for element in each(value.get("user_id_update")) {
        let id = |name: &str| {
            let id = element.get(name)?;
            text(id, "current").or(text(id, "previous")).or(id.as_str().filter(|id| !id.is_empty()))
        };
        let phone = text(element, "wa_id");
        let ids = [id("user_id"), phone, id("parent_user_id")];
        let bsuid = ids.into_iter().flatten().find(|text| is_bsuid(text)).map(String::from);
        let who = complete((phone.filter(|phone| is_phone(phone)).map(String::from), bsuid), &contacts);
        found.push(place.said(EventKind::UserIdUpdate, vec![who], element, element));
    }
    for element in each(value.get("groups")) {
        found.push(group(place, element));
    }
    for element in each(value.get("automatic_events")) {
        let id = [text(element, "id"), text(element, "event_name"), None];
        found.push(place.named(EventKind::Account, (None, None), element, "a", id));
    }
    if place.field == "tracking_events" {
        for element in each(value.get("events")) {
            found.push(place.said(EventKind::Account, vec![], element, element));
        }
    }
    if let Some(errors) = value.get("errors").filter(|errors| !each(Some(errors)).is_empty()) {
        found.push(place.said(EventKind::Errors, vec![], errors, value));
    }
    if let Some(standby) = value.get("standby") {
        let number = number_of(standby).unwrap_or(place.number);
        let inner = Place { standby: true, number, ..*place };
        if place.standby {
            found.push(place.said(EventKind::Account, vec![], standby, standby));
        } else {
            inside(standby, &inner, found);
        }
    }
}

fn sender(message: &Value) -> Person {
    let direct = user(message, &["from"], &["from_user_id"], &["from_parent_user_id"]);
    match message.get("system") {
        Some(system) if nobody(&direct) => {
            user(system, &["wa_id", "new_wa_id"], &["user_id"], &["parent_user_id"])
        }
        _ => direct,
    }
}

/// The element, or what an echo of a standby app wraps.
fn unwrapped(echo: &Value) -> &Value {
    if text(echo, "id").is_some() { echo } else { echo.get("message").unwrap_or(echo) }
}

fn recipient(echo: &Value) -> Person {
    let inner = unwrapped(echo);
    let field = |name| text(echo, name).or(text(inner, name));
    let (phone, id, parent) = (field("to"), field("to_user_id"), field("to_parent_user_id"));
    let bsuid = [id, phone, parent].into_iter().flatten().find(|text| is_bsuid(text));
    (phone.filter(|phone| is_phone(phone)).map(String::from), bsuid.map(String::from))
}

fn message_event(
    place: &Place<'_>,
    history: bool,
    element: &Value,
    who: Person,
    kind: EventKind,
) -> Expected {
    let inner = if kind == EventKind::Echo { unwrapped(element) } else { element };
    let (id, of_type) = (text(inner, "id"), text(inner, "type"));
    if history {
        place.named(EventKind::History, who, element, "h", [id, of_type, None])
    } else {
        place.named(kind, who, element, "m", [id, None, None])
    }
}

fn history_chunk(chunk: &Value, contacts: &[&Value], place: &Place<'_>, found: &mut Vec<Expected>) {
    let before = found.len();
    for thread in each(chunk.get("threads")) {
        let in_thread = found.len();
        let id = user(thread, &["id"], &[], &[]);
        let context = thread.get("context").map(person).unwrap_or_default();
        let owner = (id.0.or(context.0), id.1.or(context.1));
        for message in each(thread.get("messages")) {
            let outgoing = text(message, "to").is_some();
            let own = if outgoing { recipient(message) } else { sender(message) };
            let who = complete(if nobody(&owner) { own } else { owner.clone() }, contacts);
            let id = [text(message, "id"), text(message, "type"), None];
            found.push(place.named(EventKind::History, who, message, "h", id));
        }
        if found.len() == in_thread {
            found.push(place.said(EventKind::History, vec![complete(owner, contacts)], thread, thread));
        }
    }
    if found.len() == before {
        found.push(place.said(EventKind::History, vec![], chunk, chunk));
    }
}

fn group(place: &Place<'_>, element: &Value) -> Expected {
    let mut everybody = vec![person(element)];
    if let Some(map) = element.as_object() {
        for (_, list) in map.iter().filter(|(name, _)| name.ends_with("participants")) {
            everybody.extend(each(Some(list)).into_iter().map(person));
        }
    }
    let (users, more_users) = listed(everybody);
    Expected { more_users, ..place.said(EventKind::Group, users, element, element) }
}

/// Each person once, and whether there were too many.
pub(super) fn listed(everybody: Vec<Person>) -> (Vec<Person>, bool) {
    let mut users: Vec<Person> = Vec::new();
    for who in everybody {
        if !nobody(&who) && !users.contains(&who) {
            users.push(who);
        }
    }
    let more = users.len() > USERS_MAX;
    users.truncate(USERS_MAX);
    (users, more)
}
