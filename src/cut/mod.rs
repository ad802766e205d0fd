//! What one region gets of a webhook: the body with everybody else's events cut out.
//!
//! Every event that stays is byte for byte what the provider sent, and so is all around it: envelope,
//! entry, change, metadata, members that nobody here knows. A list that loses its last event goes, and
//! with it whatever held nothing else: threads, values, changes, entries. A contact stays only beside events of
//! its own user. Of a member that occurs twice only the last is read, so a cut body has only the last.
//!
//! Invariants: events are counted as [`crate::parse::Parser`] visits them, because it is the same walk; the result
//! is valid JSON; white space outside of what is copied may go; every byte of it comes from a known place of the
//! whole body, so that it can be told as ranges, too. Deliberately absent: who goes where. That is decided before, and
//! given as one flag per event.

use crate::config::SourceKind;
use crate::parse::{Document, Index, Scratch, Spans, Value, walk};

mod layout;
mod pieces;
#[cfg(test)]
mod tests;

use layout::{Layout, Mark, What};
use pieces::Pieces;
pub use pieces::Ranges;

/// What became of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CutReport {
    /// Events in the parcel. With none there is no parcel, and nothing was written.
    pub events: usize,
    /// Contacts of the whole body that belong to no event. They are in the default region's parcel, if it
    /// has events of the same change; a caller without such a parcel counts them as dropped, once per webhook.
    pub stray_contacts: usize,
}

/// Cuts bodies; one per core. Its memory is reused.
#[derive(Default)]
pub struct Cutter {
    scratch: Scratch,
    index: Index,
}

impl Cutter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` the part of `body` with the events for which `keep` holds, numbered in the parser's
    /// order. `is_default`: the parcel is for the default region.
    pub fn cut(
        &mut self,
        kind: SourceKind,
        body: &[u8],
        keep: impl Fn(usize) -> bool,
        is_default: bool,
        out: &mut Vec<u8>,
    ) -> CutReport {
        self.pieces(kind, body, keep, is_default, out)
    }

    /// The same as ranges of `body`, in the order in which they make up the part: `out` is emptied first.
    pub fn ranges(
        &mut self,
        kind: SourceKind,
        body: &[u8],
        keep: impl Fn(usize) -> bool,
        is_default: bool,
        out: &mut Ranges,
    ) -> CutReport {
        out.clear();
        self.pieces(kind, body, keep, is_default, out)
    }

    fn pieces(
        &mut self,
        kind: SourceKind,
        body: &[u8],
        keep: impl Fn(usize) -> bool,
        is_default: bool,
        out: &mut impl Pieces,
    ) -> CutReport {
        let Self { scratch, index } = self;
        let read = scratch.read(body, |document| {
            let mut layout = Layout::new(&keep, is_default);
            walk(kind, document, index, &mut layout)?;
            let (marks, report) = layout.finish();
            if report.events > 0 {
                Copy::new(document, &marks, out).piece(document.root());
            }
            Ok(report)
        });
        match read.and_then(|cut| cut) {
            Ok(report) => report,
            // Not understood: the body is its only event.
            Err(_) if keep(0) => {
                out.piece(body, 0..body.len());
                CutReport { events: 1, stray_contacts: 0 }
            }
            Err(_) => CutReport::default(),
        }
    }
}

/// Copies a document without what is marked to go.
struct Copy<'t, 'c, P> {
    raw: &'t [u8],
    /// Stands behind what was copied or dropped last.
    spans: Spans<'t>,
    /// In the order of the document, none inside another.
    marks: &'c [Mark<'t>],
    out: &'c mut P,
}

/// What was met inside a value: tells whether anything is left that justifies it.
#[derive(Clone, Copy, Default)]
struct Met {
    events: bool,
    events_kept: bool,
    contacts: bool,
    contacts_kept: bool,
}

impl Met {
    fn add(&mut self, other: Met) {
        self.events |= other.events;
        self.events_kept |= other.events_kept;
        self.contacts |= other.contacts;
        self.contacts_kept |= other.contacts_kept;
    }

    fn is_emptied(self) -> bool {
        if self.events { !self.events_kept } else { self.contacts && !self.contacts_kept }
    }
}

impl<'t, 'c, P: Pieces> Copy<'t, 'c, P> {
    fn new(document: Document<'t>, marks: &'c [Mark<'t>], out: &'c mut P) -> Self {
        Self { raw: document.raw, spans: document.spans(), marks, out }
    }

    /// Copies `value` or what is left of it; whether anything was. Recursion ends at the depth limit of the document.
    fn piece(&mut self, value: Value<'t>) -> (bool, Met) {
        let Some(mark) = self.marks.first().filter(|mark| mark.value.place() < value.after()) else {
            self.verbatim(value);
            return (true, Met::default());
        };
        if mark.value.place() == value.place() {
            self.marks = self.marks.get(1..).unwrap_or_default();
            return self.marked(value, mark.what);
        }
        let begin = self.out.len();
        let met = if value.is_object() { self.object(value) } else { self.array(value) };
        if met.is_emptied() {
            self.out.truncate(begin);
        }
        (!met.is_emptied(), met)
    }

    fn marked(&mut self, value: Value<'t>, what: What) -> (bool, Met) {
        let (keep, met) = match what {
            What::Event(keep) => (keep, Met { events: true, events_kept: keep, ..Met::default() }),
            What::Contact(keep) => (keep, Met { contacts: true, contacts_kept: keep, ..Met::default() }),
            What::Replaced => (false, Met::default()),
        };
        if keep {
            self.verbatim(value);
        } else {
            self.spans.of(value);
        }
        (keep, met)
    }

    fn object(&mut self, object: Value<'t>) -> Met {
        let mut met = Met::default();
        let open = self.spans.open(object);
        self.mark(b'{', open);
        let first = self.out.len();
        for (_, value) in object.members() {
            let begin = self.separate(first);
            // A member's name stands just before its value on the tape.
            self.verbatim(object.at(value.place() - 1));
            let colon = self.spans.step();
            self.mark(b':', colon);
            let (stays, inside) = self.piece(value);
            met.add(inside);
            if !stays {
                self.out.truncate(begin);
            }
        }
        let close = self.spans.step();
        self.mark(b'}', close);
        met
    }

    fn array(&mut self, array: Value<'t>) -> Met {
        let mut met = Met::default();
        let open = self.spans.open(array);
        self.mark(b'[', open);
        let first = self.out.len();
        for value in array.each() {
            let begin = self.separate(first);
            let (stays, inside) = self.piece(value);
            met.add(inside);
            if !stays {
                self.out.truncate(begin);
            }
        }
        let close = self.spans.step();
        self.mark(b']', close);
        met
    }

    /// Before a member or element: the comma in front of it, if something of the same list was kept.
    fn separate(&mut self, first: usize) -> usize {
        let begin = self.out.len();
        if let Some(comma) = self.spans.comma()
            && begin > first
        {
            self.mark(b',', comma);
        }
        begin
    }

    fn mark(&mut self, byte: u8, at: usize) {
        self.out.mark(byte, at);
    }

    fn verbatim(&mut self, value: Value<'t>) {
        let range = self.spans.of(value);
        self.out.piece(self.raw, range);
    }
}
