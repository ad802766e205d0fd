//! The one way through a body. Whoever wants events, their places or just their number
//! is a [`Sink`] of the same walk, so that all agree on what the n-th event is.

use crate::config::SourceKind;

use super::contacts::Index;
use super::document::{Document, Value};
use super::{EVENTS_MAX, EventKind, Opaque, User, meta, wasender};

/// An event on the tape.
pub(crate) struct Found<'a, 't> {
    pub(crate) kind: EventKind,
    pub(crate) users: &'a [User<'t>],
    pub(crate) more_users: bool,
    pub(crate) number: &'a str,
    pub(crate) account: &'a str,
    /// Where the event lies in the body.
    pub(crate) value: Value<'t>,
    pub(crate) identity: Identity<'a, 't>,
}

/// What makes an event itself, beside provider and number.
pub(crate) struct Identity<'a, 't> {
    /// Family of the key: events of two families are never the same.
    pub(crate) family: &'a str,
    pub(crate) parts: [&'a str; 3],
    /// Values that count by their canonical form, where there is no id.
    pub(crate) values: [Option<Value<'t>>; 2],
}

/// Who listens to a walk.
pub(crate) trait Sink<'t> {
    /// The next event.
    fn event(&mut self, found: &Found<'_, 't>);

    /// The events from here to the matching [`Sink::leave`] share a list of contacts.
    fn enter(&mut self) {}

    fn leave(&mut self, _contacts: Option<Value<'t>>) {}

    /// A member that a later one of the same name replaces: readers do not see it.
    fn replaced(&mut self, _value: Value<'t>) {}
}

/// Leads `sink` through all events; how many there were. On an error the sink has seen nothing.
pub(crate) fn walk<'t>(
    kind: SourceKind,
    document: Document<'t>,
    index: &mut Index,
    sink: &mut impl Sink<'t>,
) -> Result<usize, Opaque> {
    // Every event has a value of its own, so a small document cannot have too many.
    if document.size() > EVENTS_MAX && through(kind, document, index, &mut Count)? > EVENTS_MAX {
        return Err(Opaque::TooManyEvents);
    }
    through(kind, document, index, sink)
}

fn through<'t>(
    kind: SourceKind,
    document: Document<'t>,
    index: &mut Index,
    sink: &mut impl Sink<'t>,
) -> Result<usize, Opaque> {
    match kind {
        SourceKind::Whatsapp => meta::walk(document.root(), index, sink),
        SourceKind::Wasender => wasender::walk(document.root(), sink),
    }
}

struct Count;

impl<'t> Sink<'t> for Count {
    fn event(&mut self, _found: &Found<'_, 't>) {}
}

/// The members that a reader acts on, in the order of the document, each name once.
pub(crate) struct Parts<'t, P, const N: usize> {
    list: [Option<(P, Value<'t>)>; N],
    len: usize,
}

impl<'t, P: Copy + PartialEq, const N: usize> Parts<'t, P, N> {
    pub(crate) fn new() -> Self {
        Self { list: [None; N], len: 0 }
    }

    /// Takes a member; `N` is the number of different parts, so there is always room.
    pub(crate) fn take(&mut self, part: P, value: Value<'t>, sink: &mut impl Sink<'t>) {
        let taken =
            self.list.iter().take(self.len).position(|old| old.is_some_and(|(other, _)| other == part));
        if let Some(at) = taken {
            if let Some((_, old)) = self.list[at] {
                sink.replaced(old);
            }
            self.list.copy_within(at + 1..self.len, at);
            self.len -= 1;
        }
        if let Some(free) = self.list.get_mut(self.len) {
            *free = Some((part, value));
            self.len += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (P, Value<'t>)> + '_ {
        self.list.iter().take(self.len).flatten().copied()
    }
}
