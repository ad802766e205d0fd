//! Who the events of a body are about, for the archive's records. Pure.
//!
//! The journal's entry has the key and the kind of each event and not its user, so the body is walked
//! once more, as [`crate::parse::Parser`] walks it, but for keys and places, which cost more than the rest.

use crate::config::SourceKind;
use crate::parse::phone::Digits;
use crate::parse::{Found, Index, Scratch, Sink, walk};

/// The users of one body's events. Its memory is reused.
#[derive(Default)]
pub(super) struct Users {
    scratch: Scratch,
    index: Index,
    text: String,
    /// Where each event's user ends in `text`.
    ends: Vec<usize>,
}

impl Users {
    /// Reads another body.
    pub(super) fn read(&mut self, kind: SourceKind, body: &[u8]) {
        self.text.clear();
        self.ends.clear();
        let Self { scratch, index, text, ends } = self;
        // What is not understood is one event without a user.
        scratch.read(body, |document| walk(kind, document, index, &mut Collect { text, ends })).ok();
    }

    /// The first user of an event, in the parser's order: the phone's digits, else the business-scoped id.
    pub(super) fn get(&self, event: usize) -> Option<&str> {
        let end = *self.ends.get(event)?;
        let start = event.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.text.get(start..end).filter(|user| !user.is_empty())
    }
}

struct Collect<'a> {
    text: &'a mut String,
    ends: &'a mut Vec<usize>,
}

impl<'t> Sink<'t> for Collect<'_> {
    fn event(&mut self, found: &Found<'_, 't>) {
        if let Some(user) = found.users.first() {
            match user.phone.and_then(Digits::parse) {
                Some(digits) => self.text.push_str(digits.as_str()),
                None => self.text.push_str(user.bsuid.unwrap_or_default()),
            }
        }
        self.ends.push(self.text.len());
    }
}
