//! WASenderApi's envelope: `{event, sessionId, timestamp, data}`, with `data` in several shapes per event.
//!
//! The session's id stands at the top or inside `data`, as a number or a string, and may be the
//! session's API key: outside this file it exists only as a digest. A `@lid` is not a phone though its
//! digits look like one. The same message comes as up to three events with one id; they
//! are three events here, since a region may listen to any one of them.

use aws_lc_rs::digest::{Context, SHA256};
use simd_json::{Node, StaticNode};

use super::document::Value;
use super::phone::is_phone;
use super::users::Users;
use super::walk::{Found, Identity, Sink};
use super::{EventKind, Opaque, User};

/// What an event name says about the shape of `data`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `{key, ...}`, known by its key.
    Message,
    /// `{key, update | receipt | reaction | pollResult | ...}`, repeated with one key: the rest counts too.
    About(EventKind),
    /// `keys: [key]`.
    Delete,
    Call,
    /// Chats and contacts: an id that is a person's, or a group's.
    Card,
    Group,
    /// No person.
    Session,
}

impl Shape {
    fn of(event: &str) -> Self {
        match event {
            "messages.received" | "messages.upsert" | "message.sent" => Self::Message,
            "messages.update" | "message-receipt.update" => Self::About(EventKind::Status),
            "messages.delete" => Self::Delete,
            _ if event.starts_with("messages-") && event.ends_with(".received") => Self::Message,
            _ if event.starts_with("message") || event.starts_with("poll.") => {
                Self::About(EventKind::Message)
            }
            _ if event == "call" || event.starts_with("call.") => Self::Call,
            _ if event.starts_with("chats.") || event.starts_with("contacts.") => Self::Card,
            _ if event.starts_with("groups.") || event.starts_with("group-") => Self::Group,
            _ => Self::Session,
        }
    }

    /// The member of `data` that holds the list, where it is not `data` itself.
    fn list(self) -> &'static str {
        match self {
            Self::Message | Self::About(_) => "messages",
            Self::Delete => "keys",
            Self::Call => "call",
            Self::Card => "contacts",
            Self::Group => "groups",
            Self::Session => "",
        }
    }
}

pub(crate) fn walk<'t>(root: Value<'t>, sink: &mut impl Sink<'t>) -> Result<usize, Opaque> {
    let (mut event, mut session, mut data, mut timestamp) = (None, None, None, None);
    for (name, value) in root.members() {
        match name {
            "event" => event = value.text(),
            "sessionId" => session = Some(value),
            "timestamp" => timestamp = Some(value),
            "data" => data = Some(value),
            _ => {}
        }
    }
    let event = event.ok_or(Opaque::OtherShape)?;
    for (name, value) in root.members() {
        if name == "data" && data.is_some_and(|data| data.place() != value.place()) {
            sink.replaced(value);
        }
    }
    let inner = |name| data.and_then(|data| data.get(name));
    let sessions = [session, inner("session_id"), inner("sessionId")];
    let session = sessions.into_iter().flatten().find_map(Session::of);
    let number = session.as_ref().map_or("", Session::as_str);
    let mut walk = Walk { sink, event, number, timestamp, events: 0 };
    if let Some(data) = data {
        walk.data(data);
    }
    if walk.events == 0 {
        let said = walk.said(root);
        walk.emit(EventKind::Session, root, &[], false, said);
    }
    Ok(walk.events)
}

struct Walk<'w, 't, S> {
    sink: &'w mut S,
    event: &'w str,
    number: &'w str,
    timestamp: Option<Value<'t>>,
    events: usize,
}

impl<'t, S: Sink<'t>> Walk<'_, 't, S> {
    fn data(&mut self, data: Value<'t>) {
        let shape = Shape::of(self.event);
        let mut list: Option<Value<'t>> = None;
        for (name, value) in data.members() {
            if name == shape.list()
                && !name.is_empty()
                && let Some(old) = list.replace(value)
            {
                self.sink.replaced(old);
            }
        }
        for item in list.filter(|list| !list.is_null()).unwrap_or(data).each() {
            match shape {
                Shape::Message => self.message(item),
                Shape::About(kind) => self.about(item, kind),
                Shape::Delete => self.delete(item),
                Shape::Call => self.call(item),
                Shape::Card => self.card(item),
                Shape::Group => self.group(item),
                Shape::Session => {}
            }
        }
    }

    fn message(&mut self, item: Value<'t>) {
        let key = MessageKey::of(item.get("key"));
        let kind = if key.from_me { EventKind::Echo } else { EventKind::Message };
        match key.id {
            Some(id) => self.emit(kind, item, &[key.user], false, ([key.chat, id], [None, None])),
            None => self.emit(kind, item, &[key.user], false, self.said(item)),
        }
    }

    /// An item that says something about a message: receipts, reactions, votes.
    fn about(&mut self, item: Value<'t>, kind: EventKind) {
        let key = MessageKey::of(item.get("key"));
        let mut users = Users::new();
        if let Some(receipt) = item.get("receipt") {
            users.push(phone_of(receipt.text_of("userJid")));
        }
        if let Some(reaction) = item.get("reaction") {
            users.push(MessageKey::of(reaction.get("key")).user);
        }
        for option in item.get("pollResult").iter().flat_map(Value::each) {
            for voter in option.get("voters").iter().flat_map(Value::each) {
                users.push(phone_of(voter.text()));
            }
        }
        if users.as_slice().is_empty() {
            users.push(key.user);
        }
        let identity = match key.id {
            // Not the time of the envelope: a repeat may have another.
            Some(id) => ([key.chat, id], [Some(item), None]),
            None => self.said(item),
        };
        self.emit(kind, item, users.as_slice(), users.more, identity);
    }

    fn delete(&mut self, item: Value<'t>) {
        let key = MessageKey::of(Some(item.get("key").unwrap_or(item)));
        let identity = match key.id {
            Some(id) => ([key.chat, id], [None, None]),
            None => self.said(item),
        };
        self.emit(EventKind::Message, item, &[key.user], false, identity);
    }

    fn call(&mut self, item: Value<'t>) {
        let user = phone_of(item.text_of("from"));
        let identity = match item.text_of("id") {
            // The same call rings, is taken and ends.
            Some(id) => (["", id], [Some(item), None]),
            None => self.said(item),
        };
        self.emit(EventKind::Call, item, &[user], false, identity);
    }

    fn card(&mut self, item: Value<'t>) {
        let ids = [item.text(), item.text_of("phoneNumber"), item.text_of("jid"), item.text_of("id")];
        let user = ids.into_iter().map(phone_of).find(User::is_known).unwrap_or_default();
        self.emit(EventKind::StateSync, item, &[user], false, self.said(item));
    }

    fn group(&mut self, item: Value<'t>) {
        let mut users = Users::new();
        for participant in item.get("participants").iter().flat_map(Value::each) {
            let ids = [participant.text(), participant.text_of("phoneNumber"), participant.text_of("id")];
            users.push(ids.into_iter().map(phone_of).find(User::is_known).unwrap_or_default());
        }
        self.emit(EventKind::Group, item, users.as_slice(), users.more, self.said(item));
    }

    /// Identity of what has no id. The time keeps two equal changes apart.
    fn said(&self, value: Value<'t>) -> ([&'t str; 2], [Option<Value<'t>>; 2]) {
        (["", ""], [Some(value), self.timestamp])
    }

    fn emit(
        &mut self,
        kind: EventKind,
        value: Value<'t>,
        users: &[User<'t>],
        more_users: bool,
        ([chat, id], values): ([&'t str; 2], [Option<Value<'t>>; 2]),
    ) {
        self.events += 1;
        self.sink.event(&Found {
            kind,
            users: if users.iter().any(User::is_known) { users } else { &[] },
            more_users,
            number: self.number,
            account: "",
            value,
            identity: Identity { family: "wasender", parts: [self.event, chat, id], values },
        });
    }
}

/// Baileys' key of a message: unique in its chat only.
#[derive(Default)]
struct MessageKey<'t> {
    id: Option<&'t str>,
    chat: &'t str,
    from_me: bool,
    user: User<'t>,
}

impl<'t> MessageKey<'t> {
    fn of(key: Option<Value<'t>>) -> Self {
        let Some(key) = key else { return Self::default() };
        let (mut id, mut chat, mut from_me) = (None, "", false);
        let (mut sender, mut clean_sender, mut chat_alt) = (None, None, None);
        let (mut member, mut member_phone, mut clean_member, mut member_alt) = (None, None, None, None);
        for (name, value) in key.members() {
            match name {
                "id" => id = value.text(),
                "remoteJid" => chat = value.text().unwrap_or(""),
                "fromMe" => from_me = value.is_true(),
                "senderPn" => sender = value.text(),
                "cleanedSenderPn" => clean_sender = value.text(),
                "remoteJidAlt" => chat_alt = value.text(),
                "participant" => member = value.text(),
                "participantPn" => member_phone = value.text(),
                "cleanedParticipantPn" => clean_member = value.text(),
                "participantAlt" => member_alt = value.text(),
                _ => {}
            }
        }
        // Digits without a domain are no JID: they may be a LID's.
        let chat_jid = Some(chat).filter(|chat| chat.contains('@'));
        let places = if from_me {
            // The sender is the business itself: only the chat tells who the other one is.
            [chat_jid, chat_alt, None, None, None, None, None, None]
        } else {
            let group = [clean_member, member_phone, member, member_alt];
            let private = [clean_sender, sender, chat_jid, chat_alt];
            let [a, b, c, d] = if chat.ends_with("@g.us") { group } else { private };
            let [e, f, g, h] = if chat.ends_with("@g.us") { private } else { group };
            [a, b, c, d, e, f, g, h]
        };
        let user = places.into_iter().map(phone_of).find(User::is_known).unwrap_or_default();
        Self { id, chat, from_me, user }
    }
}

/// The person of a JID or of plain digits: `447700900123:7@s.whatsapp.net`, `447700900123`.
fn phone_of(jid: Option<&str>) -> User<'_> {
    let phone = jid.and_then(|jid| match jid.split_once('@') {
        Some((name, "s.whatsapp.net" | "c.us")) => {
            Some(name.split_once(':').map_or(name, |(phone, _)| phone))
        }
        Some(_) => None,
        None => Some(jid),
    });
    User { phone: phone.filter(|phone| is_phone(phone)), bsuid: None }
}

/// A session as the world may see it.
struct Session([u8; 32]);

impl Session {
    fn of(id: Value<'_>) -> Option<Self> {
        let mut digits = itoa::Buffer::new();
        let text = match id.node() {
            Node::String("") => return None,
            Node::String(text) => text,
            // The same id is a number in one event and a string in another.
            Node::Static(StaticNode::U64(number)) => digits.format(number),
            Node::Static(StaticNode::I64(number)) => digits.format(number),
            _ => return None,
        };
        let mut context = Context::new(&SHA256);
        context.update(b"penstock session");
        context.update(text.as_bytes());
        let mut hex = [0; 32];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(context.finish().as_ref()) {
            for (to, digit) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *to = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            }
        }
        Some(Self(hex))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("")
    }
}
