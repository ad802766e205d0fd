//! The reference for WASenderApi's bodies.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

use super::super::phone::is_phone;
use super::super::{EventKind, Opaque};
use super::reference::{Expected, Person, each, key, listed, nobody, text};

struct Place<'v> {
    event: &'v str,
    number: String,
    time: Option<&'v Value>,
}

impl Place<'_> {
    fn event(
        &self,
        kind: EventKind,
        everybody: Vec<Person>,
        element: &Value,
        id: Option<(&str, &str)>,
        says: bool,
    ) -> Expected {
        let (parts, values) = match id {
            Some((chat, id)) => ([self.event, chat, id], [says.then_some(element), None]),
            None => ([self.event, "", ""], [Some(element), self.time]),
        };
        let key = key("wasender", &self.number, parts, values);
        let (users, more_users) = listed(everybody);
        let (number, account) = (self.number.clone(), String::new());
        Expected { kind, key, users, more_users, number, account, element: element.clone() }
    }
}

pub(super) fn events(root: &Value) -> Result<Vec<Expected>, Opaque> {
    let event = text(root, "event").ok_or(Opaque::OtherShape)?;
    let data = root.get("data").unwrap_or(&Value::Null);
    let sessions = [root.get("sessionId"), data.get("session_id"), data.get("sessionId")];
    let number = sessions.into_iter().flatten().find_map(session).unwrap_or_default();
    let place = Place { event, number, time: root.get("timestamp") };
    let list = |name: &str| each(data.get(name).filter(|list| !list.is_null()).or(Some(data)));
    let mut found = Vec::new();
    if matches!(event, "messages.received" | "messages.upsert" | "message.sent")
        || event.starts_with("messages-") && event.ends_with(".received")
    {
        for item in list("messages") {
            let key = item.get("key").unwrap_or(&Value::Null);
            let from_me = key.get("fromMe") == Some(&Value::Bool(true));
            let kind = if from_me { EventKind::Echo } else { EventKind::Message };
            found.push(place.event(kind, vec![sender(key)], item, id(key), false));
        }
    } else if event == "messages.delete" {
        for item in list("keys") {
            let key = item.get("key").unwrap_or(item);
            found.push(place.event(EventKind::Message, vec![sender(key)], item, id(key), false));
        }
    } else if event.starts_with("message") || event.starts_with("poll.") {
        let status = matches!(event, "messages.update" | "message-receipt.update");
        let kind = if status { EventKind::Status } else { EventKind::Message };
        for item in list("messages") {
            found.push(place.event(
                kind,
                about(item),
                item,
                id(item.get("key").unwrap_or(&Value::Null)),
                true,
            ));
        }
    } else if event == "call" || event.starts_with("call.") {
        for item in list("call") {
            let id = text(item, "id").map(|id| ("", id));
            found.push(place.event(EventKind::Call, vec![phone(text(item, "from"))], item, id, true));
        }
    } else if event.starts_with("chats.") || event.starts_with("contacts.") {
        for item in list("contacts") {
            let ids = [item.as_str(), text(item, "phoneNumber"), text(item, "jid"), text(item, "id")];
            found.push(place.event(EventKind::StateSync, vec![first(&ids)], item, None, true));
        }
    } else if event.starts_with("groups.") || event.starts_with("group-") {
        for item in list("groups") {
            let participants = each(item.get("participants"));
            let person = |one: &&Value| first(&[one.as_str(), text(one, "phoneNumber"), text(one, "id")]);
            let everybody = participants.iter().map(person).collect();
            found.push(place.event(EventKind::Group, everybody, item, None, true));
        }
    }
    if found.is_empty() {
        found.push(place.event(EventKind::Session, vec![], root, None, true));
    }
    Ok(found)
}

fn session(id: &Value) -> Option<String> {
    let text = match id {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return None,
    };
    let digest = digest(&SHA256, format!("penstock session{text}").as_bytes());
    Some(digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn id(key: &Value) -> Option<(&str, &str)> {
    Some((text(key, "remoteJid").unwrap_or(""), text(key, "id")?))
}

fn phone(jid: Option<&str>) -> Person {
    let name = jid.and_then(|jid| match jid.find('@') {
        None => Some(jid),
        Some(at) if matches!(&jid[at..], "@s.whatsapp.net" | "@c.us") => jid[..at].split(':').next(),
        Some(_) => None,
    });
    (name.filter(|name| is_phone(name)).map(String::from), None)
}

fn first(jids: &[Option<&str>]) -> Person {
    jids.iter().map(|jid| phone(*jid)).find(|who| !nobody(who)).unwrap_or_default()
}

fn sender(key: &Value) -> Person {
    let get = |name| text(key, name);
    let chat = get("remoteJid").filter(|jid| jid.contains('@'));
    let private = [get("cleanedSenderPn"), get("senderPn"), chat, get("remoteJidAlt")];
    let group =
        [get("cleanedParticipantPn"), get("participantPn"), get("participant"), get("participantAlt")];
    if key.get("fromMe") == Some(&Value::Bool(true)) {
        first(&[chat, get("remoteJidAlt")])
    } else if get("remoteJid").is_some_and(|jid| jid.ends_with("@g.us")) {
        first(&[group, private].concat())
    } else {
        first(&[private, group].concat())
    }
}

fn about(item: &Value) -> Vec<Person> {
    let mut everybody = Vec::new();
    if let Some(receipt) = item.get("receipt") {
        everybody.push(phone(text(receipt, "userJid")));
    }
    if let Some(reaction) = item.get("reaction") {
        everybody.push(sender(reaction.get("key").unwrap_or(&Value::Null)));
    }
    for option in each(item.get("pollResult")) {
        for voter in each(option.get("voters")) {
            everybody.push(phone(voter.as_str().filter(|voter| !voter.is_empty())));
        }
    }
    if everybody.iter().all(nobody) {
        everybody.push(sender(item.get("key").unwrap_or(&Value::Null)));
    }
    everybody
}
