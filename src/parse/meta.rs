//! Meta's envelope: `entry[] > changes[] > value`, and the lists of events inside a value.
//!
//! Lists are recognised by their names wherever they stand, not by the change's `field`: a history's media
//! come as `messages`, a standby app gets everything once more under `standby`, and new fields
//! appear several times a year. Where the field changes the meaning it is asked.

use super::contacts::{Contacts, Index};
use super::document::Value;
use super::elements::{self, Element};
use super::users::user;
use super::walk::{Found, Identity, Parts, Sink};
use super::{EventKind, Opaque, User};

/// What surrounds an event.
#[derive(Clone, Copy, Default)]
pub(crate) struct Around<'t> {
    /// `entry[].id`.
    pub(crate) account: &'t str,
    /// `entry[].time`, only on account-level changes.
    pub(crate) time: Option<Value<'t>>,
    pub(crate) field: &'t str,
    pub(crate) number: &'t str,
    /// Inside `standby`: a copy for an app that only listens, while the same id
    /// may come on `messages` for the app that is to answer. Two events, not one.
    pub(crate) standby: bool,
}

pub(crate) fn walk<'t>(
    root: Value<'t>,
    index: &mut Index,
    sink: &mut impl Sink<'t>,
) -> Result<usize, Opaque> {
    if root.text_of("object") != Some("whatsapp_business_account") {
        return Err(Opaque::OtherShape);
    }
    let entries = root.get("entry").ok_or(Opaque::OtherShape)?;
    if entries.each().count_left() == 0 {
        return Err(Opaque::NoEvents);
    }
    for (name, value) in root.members() {
        if name == "entry" && value.place() != entries.place() {
            sink.replaced(value);
        }
    }
    let mut walk = Walk { sink, index, events: 0 };
    for entry in entries.each() {
        walk.entry(entry);
    }
    Ok(walk.events)
}

/// Members of a value that hold events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Messages,
    Statuses,
    Echoes,
    Calls,
    History,
    StateSync,
    Preferences,
    UserIdUpdates,
    Groups,
    AutomaticEvents,
    TrackingEvents,
    Errors,
    Standby,
    Contacts,
}

impl Part {
    const COUNT: usize = 14;

    fn named(name: &str, field: &str) -> Option<Self> {
        Some(match name {
            "messages" => Self::Messages,
            "statuses" => Self::Statuses,
            "message_echoes" => Self::Echoes,
            "calls" => Self::Calls,
            "history" => Self::History,
            "state_sync" => Self::StateSync,
            "user_preferences" => Self::Preferences,
            "user_id_update" => Self::UserIdUpdates,
            "groups" => Self::Groups,
            "automatic_events" => Self::AutomaticEvents,
            "events" if field == "tracking_events" => Self::TrackingEvents,
            "errors" => Self::Errors,
            "standby" => Self::Standby,
            "contacts" => Self::Contacts,
            _ => return None,
        })
    }
}

struct Walk<'w, S> {
    sink: &'w mut S,
    index: &'w mut Index,
    events: usize,
}

impl<'w, S> Walk<'w, S> {
    fn entry<'t>(&mut self, entry: Value<'t>)
    where
        S: Sink<'t>,
    {
        let before = self.events;
        let mut around = Around::default();
        let mut changes: Option<Value<'t>> = None;
        for (name, value) in entry.members() {
            match name {
                "id" => around.account = value.text().unwrap_or(""),
                "time" => around.time = Some(value),
                "changes" => {
                    if let Some(old) = changes.replace(value) {
                        self.sink.replaced(old);
                    }
                }
                _ => {}
            }
        }
        for change in changes.iter().flat_map(Value::each) {
            self.change(change, around);
        }
        if self.events == before {
            self.whole(entry, entry, &around);
        }
    }

    fn change<'t>(&mut self, change: Value<'t>, mut around: Around<'t>)
    where
        S: Sink<'t>,
    {
        let before = self.events;
        let mut value: Option<Value<'t>> = None;
        for (name, member) in change.members() {
            match name {
                "field" => around.field = member.text().unwrap_or(""),
                "value" => {
                    if let Some(old) = value.replace(member) {
                        self.sink.replaced(old);
                    }
                }
                _ => {}
            }
        }
        if let Some(value) = value {
            around.number = business_number(value).unwrap_or("");
            if around.field == "messaging_handovers" {
                self.handover(change, value, &around);
            } else {
                self.value(value, around);
            }
        }
        if self.events == before {
            self.whole(change, value.unwrap_or(change), &around);
        }
    }

    fn value<'t>(&mut self, value: Value<'t>, around: Around<'t>)
    where
        S: Sink<'t>,
    {
        let mut parts = Parts::<Part, { Part::COUNT }>::new();
        for (name, member) in value.members() {
            if let Some(part) = Part::named(name, around.field) {
                parts.take(part, member, self.sink);
            }
        }
        let list = parts.iter().find(|(part, _)| *part == Part::Contacts).map(|(_, list)| list);
        self.sink.enter();
        for (part, member) in parts.iter() {
            match part {
                Part::Contacts => {}
                // Only once: nothing Meta sends has a standby inside a standby.
                Part::Standby if around.standby => self.whole(member, member, &around),
                Part::Standby => {
                    let number = business_number(member).unwrap_or(around.number);
                    self.value(member, Around { standby: true, number, ..around });
                }
                // Errors stand for a message that could not be shown, and name no user.
                Part::Errors if member.each().count_left() > 0 => self.whole(member, value, &around),
                Part::Errors => {}
                _ => self.list(part, member, list, &around),
            }
        }
        self.sink.leave(list);
    }

    /// The elements of one list.
    fn list<'t>(&mut self, part: Part, list: Value<'t>, contacts: Option<Value<'t>>, around: &Around<'t>)
    where
        S: Sink<'t>,
    {
        let read = match part {
            Part::Messages => elements::message,
            Part::Statuses => elements::status,
            Part::Echoes => elements::echo,
            Part::Calls => elements::call,
            Part::StateSync => elements::state_sync,
            Part::Preferences => elements::preference,
            Part::UserIdUpdates => elements::user_id_update,
            Part::AutomaticEvents => elements::automatic_event,
            Part::Groups => return self.groups(list, around),
            Part::History => return self.history(list, contacts, around),
            _ => elements::unknown,
        };
        let contacts = Contacts::new(contacts, self.index);
        let mut events = 0;
        for element in list.each() {
            let mut read: Element<'t> = read(element, around);
            if read.may_ask_contacts {
                read.user = contacts.complete(read.user);
            }
            emit(self.sink, element, &read, &[read.user], false, around);
            events += 1;
        }
        self.events += events;
    }

    fn groups<'t>(&mut self, list: Value<'t>, around: &Around<'t>)
    where
        S: Sink<'t>,
    {
        for element in list.each() {
            let users = elements::group_users(element);
            let group = Element { kind: EventKind::Group, ..elements::unknown(element, around) };
            emit(self.sink, element, &group, users.as_slice(), users.more, around);
            self.events += 1;
        }
    }

    /// `history[] > threads[] > messages[]`: a thread is one user.
    fn history<'t>(&mut self, list: Value<'t>, contacts: Option<Value<'t>>, around: &Around<'t>)
    where
        S: Sink<'t>,
    {
        let contacts = Contacts::new(contacts, self.index);
        let (sink, mut events) = (&mut *self.sink, 0);
        for chunk in list.each() {
            let in_chunk = events;
            for thread in last(chunk, "threads", sink).iter().flat_map(Value::each) {
                let in_thread = events;
                let user = elements::thread_user(thread);
                for message in last(thread, "messages", sink).iter().flat_map(Value::each) {
                    let mut read = elements::history_message(message, around);
                    if user.is_known() {
                        read.user = user;
                    }
                    read.user = contacts.complete(read.user);
                    emit(sink, message, &read, &[read.user], false, around);
                    events += 1;
                }
                if events == in_thread {
                    let user = contacts.complete(user);
                    let read =
                        Element { kind: EventKind::History, user, ..elements::unknown(thread, around) };
                    emit(sink, thread, &read, &[user], false, around);
                    events += 1;
                }
            }
            if events == in_chunk {
                let read = Element { kind: EventKind::History, ..elements::unknown(chunk, around) };
                emit(sink, chunk, &read, &[], false, around);
                events += 1;
            }
        }
        self.events += events;
    }

    fn handover<'t>(&mut self, change: Value<'t>, value: Value<'t>, around: &Around<'t>)
    where
        S: Sink<'t>,
    {
        let sender = value.get("sender");
        let field = |name| sender.and_then(|sender| sender.text_of(name));
        let phone = field("phone_number").or(field("wa_id"));
        let user = user(phone, field("user_id"), field("parent_user_id"));
        let read = Element { kind: EventKind::Handover, user, ..elements::unknown(value, around) };
        emit(self.sink, change, &read, &[user], false, around);
        self.events += 1;
    }

    /// Something that is one event as a whole, and names no user. `says` is what makes it itself.
    fn whole<'t>(&mut self, range: Value<'t>, says: Value<'t>, around: &Around<'t>)
    where
        S: Sink<'t>,
    {
        emit(self.sink, range, &elements::unknown(says, around), &[], false, around);
        self.events += 1;
    }
}

fn emit<'t>(
    sink: &mut impl Sink<'t>,
    value: Value<'t>,
    read: &Element<'t>,
    users: &[User<'t>],
    more_users: bool,
    around: &Around<'t>,
) {
    let family = if around.standby { read.family.standby() } else { read.family.plain() };
    sink.event(&Found {
        kind: read.kind,
        users: if users.iter().any(User::is_known) { users } else { &[] },
        more_users,
        number: around.number,
        account: around.account,
        value,
        identity: Identity { family, parts: read.parts, values: read.values },
    });
}

/// The last member called `name`; earlier ones are reported as replaced.
fn last<'t>(object: Value<'t>, name: &str, sink: &mut impl Sink<'t>) -> Option<Value<'t>> {
    let mut found: Option<Value<'t>> = None;
    for (key, value) in object.members() {
        if key == name
            && let Some(old) = found.replace(value)
        {
            sink.replaced(old);
        }
    }
    found
}

/// `phone_number_id`, in the places where it stands. `display_phone_number` varies in its
/// writing and identifies nothing.
fn business_number<'t>(value: Value<'t>) -> Option<&'t str> {
    let (mut metadata, mut own, mut recipient, mut settings) = (None, None, None, None);
    for (name, member) in value.members() {
        match name {
            "metadata" => metadata = member.text_of("phone_number_id"),
            "phone_number_id" => own = member.text(),
            "recipient" => recipient = member.text_of("phone_number_id"),
            "phone_number_settings" => settings = member.text_of("phone_number_id"),
            _ => {}
        }
    }
    metadata.or(own).or(recipient).or(settings)
}
