//! Where the events and contacts of a body lie, and which of them stay.

use crate::parse::phone::{self, Digits};
use crate::parse::{Found, Sink, Value, person};

use super::CutReport;

/// A value whose presence in the parcel is decided.
#[derive(Clone, Copy)]
pub(super) struct Mark<'t> {
    pub(super) value: Value<'t>,
    pub(super) what: What,
}

/// The flag says whether it stays.
#[derive(Clone, Copy)]
pub(super) enum What {
    Event(bool),
    Contact(bool),
    Replaced,
}

/// Collects the marks of a walk.
pub(super) struct Layout<'t, 'k, K> {
    keep: &'k K,
    is_default: bool,
    marks: Vec<Mark<'t>>,
    events: usize,
    /// The people of the events so far, and whether their event stays.
    people: Vec<Person<'t>>,
    /// Where the people of each open scope of contacts begin.
    scopes: Vec<usize>,
    report: CutReport,
}

#[derive(Clone, Copy)]
struct Person<'t> {
    phone: Option<Digits>,
    bsuid: Option<&'t str>,
    stays: bool,
}

impl<'t, 'k, K: Fn(usize) -> bool> Layout<'t, 'k, K> {
    pub(super) fn new(keep: &'k K, is_default: bool) -> Self {
        Self {
            keep,
            is_default,
            marks: Vec::new(),
            events: 0,
            people: Vec::new(),
            scopes: Vec::new(),
            report: CutReport::default(),
        }
    }

    /// The marks in the order of the document. What lies inside an event is the event's.
    pub(super) fn finish(mut self) -> (Vec<Mark<'t>>, CutReport) {
        self.marks.sort_unstable_by_key(|mark| mark.value.place());
        let mut free = 0;
        self.marks.retain(|mark| {
            let outside = mark.value.place() >= free;
            if outside {
                free = mark.value.after();
            }
            outside
        });
        (self.marks, self.report)
    }
}

impl<'t, K: Fn(usize) -> bool> Sink<'t> for Layout<'t, '_, K> {
    fn event(&mut self, found: &Found<'_, 't>) {
        let stays = (self.keep)(self.events);
        self.events += 1;
        self.report.events += usize::from(stays);
        self.marks.push(Mark { value: found.value, what: What::Event(stays) });
        if !self.scopes.is_empty() {
            self.people.extend(found.users.iter().map(|user| Person {
                phone: user.phone.and_then(phone::canonical),
                bsuid: user.bsuid,
                stays,
            }));
        }
    }

    fn enter(&mut self) {
        self.scopes.push(self.people.len());
    }

    fn leave(&mut self, contacts: Option<Value<'t>>) {
        let from = self.scopes.pop().unwrap_or_default();
        if let Some(contacts) = contacts {
            let directory = Directory::new(self.people.get(from..).unwrap_or_default());
            for contact in contacts.each() {
                let stays = directory.stays(contact);
                self.report.stray_contacts += usize::from(stays.is_none());
                let stays = stays.unwrap_or(self.is_default);
                self.marks.push(Mark { value: contact, what: What::Contact(stays) });
            }
        }
        if self.scopes.is_empty() {
            self.people.clear();
        }
    }

    fn replaced(&mut self, value: Value<'t>) {
        self.marks.push(Mark { value, what: What::Replaced });
    }
}

/// The people of one scope, sorted, those that stay first among equals.
struct Directory<'t> {
    phones: Vec<(Digits, bool)>,
    ids: Vec<(&'t str, bool)>,
    /// Ids of people whose phone no event tells.
    ids_alone: Vec<(&'t str, bool)>,
}

impl<'t> Directory<'t> {
    fn new(people: &[Person<'t>]) -> Self {
        let ids = |alone: bool| {
            let people = people.iter().filter(move |person| !alone || person.phone.is_none());
            sorted(people.filter_map(|person| person.bsuid.map(|id| (id, !person.stays))).collect())
        };
        let phones = people.iter().filter_map(|person| person.phone.map(|phone| (phone, !person.stays)));
        Self { phones: sorted(phones.collect()), ids: ids(false), ids_alone: ids(true) }
    }

    /// Whether an event of this contact's user stays; None if no event is of that user. The phone
    /// decides where both sides have one: a user id beside another phone is somebody else's.
    fn stays(&self, contact: Value<'t>) -> Option<bool> {
        let user = person(contact);
        let phone = user.phone.and_then(phone::canonical);
        let by_phone = phone.and_then(|phone| find(&self.phones, &phone));
        let ids = if phone.is_some() { &self.ids_alone } else { &self.ids };
        by_phone
            .or_else(|| user.bsuid.and_then(|id| find(ids, &id)))
            .or_else(|| contact.text_of("parent_user_id").and_then(|id| find(ids, &id)))
    }
}

fn sorted<T: Ord>(mut list: Vec<(T, bool)>) -> Vec<(T, bool)> {
    list.sort_unstable();
    list
}

/// Looks up in pairs of a name and "does not stay".
fn find<T: Ord>(list: &[(T, bool)], wanted: &T) -> Option<bool> {
    let at = list.partition_point(|(other, _)| other < wanted);
    list.get(at).filter(|(other, _)| other == wanted).map(|(_, goes)| !goes)
}
