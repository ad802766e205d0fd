//! What is searchable in a record, from its line alone: cheap enough for every record that is written.
//!
//! Searchable are the events' keys and users as they stand in the line, and in the body the text of each member whose
//! name ends in `id`: `id` of messages, statuses and calls, `wa_id`, `user_id`, `recipient_user_id` and so on. Whoever
//! looks for a text finds it with the same eyes, so what is not seen here is not missed there.
//!
//! Deliberately absent: members whose names have escapes, and numbers. No provider sends such ids.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::arch::all::packedpair::HeuristicFrequencyRank;
use memchr::memmem::{Finder, FinderBuilder};
use memchr::{memchr, memchr2};

use super::super::json;
use crate::stamp;

/// A record, as far as it is searchable.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// `<journal>-<lsn>`.
    pub id: &'a str,
    pub lsn: u64,
    /// As it stands in the line, without its quotes.
    source: &'a [u8],
    /// Unix milliseconds.
    pub received_ms: u64,
    events: &'a [u8],
    body: &'a [u8],
    /// The body is in base64.
    encoded: bool,
}

/// An event as it stands in the line.
#[derive(Debug, Clone, Copy)]
pub struct LineEvent<'a> {
    key: &'a [u8],
    kind: &'a [u8],
    user: Option<&'a [u8]>,
}

/// Reads lines.
pub struct Lines {
    received: Finder<'static>,
    events: Finder<'static>,
    body: Finder<'static>,
    id: Finder<'static>,
    text: Vec<u8>,
    last: Last,
}

/// Of the line before: most of them begin alike.
#[derive(Default)]
struct Last {
    /// From behind the id to the moment, and where the source stands in it.
    middle: Vec<u8>,
    source: std::ops::Range<usize>,
    /// The moment up to its second, and that in unix milliseconds.
    second: [u8; 20],
    ms: u64,
}

/// How frequent bytes are where JSON stands in JSON: none as much as these two.
struct Rank;

impl HeuristicFrequencyRank for Rank {
    fn rank(&self, byte: u8) -> u8 {
        if matches!(byte, b'\\' | b'"') { 255 } else { 100 }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            received: Finder::new(b"],\"received_at\":\""),
            // Both with plain quotes: they stand in no text.
            events: Finder::new(b"},\"events\":["),
            body: Finder::new(b",\"body"),
            id: FinderBuilder::new().build_forward_with_ranker(Rank, b"id\\\""),
            text: Vec::new(),
            last: Last::default(),
        }
    }
}

impl Lines {
    /// `None` if it is not a record as gateways write them. `line` is without its line break.
    pub fn read<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        let rest = line.strip_prefix(b"{\"v\":1,\"id\":\"")?;
        let (id, rest) = string(rest)?;
        let id = std::str::from_utf8(id).ok()?;
        let lsn = id.rsplit_once('-')?.1.parse().ok()?;
        if self.last.middle.is_empty() || !rest.starts_with(&self.last.middle) {
            self.read_middle(rest)?;
        }
        let (middle, rest) = rest.split_at_checked(self.last.middle.len())?;
        let source = middle.get(self.last.source.clone())?;
        let (moment, rest) = rest.split_first_chunk::<24>()?;
        let received_ms = self.moment(moment)?;
        let events = behind(&self.events, rest)?;
        let mut cursor = events;
        while let Some((_, rest)) = event(cursor)? {
            cursor = rest;
        }
        let body = behind(&self.body, cursor)?;
        let (body, encoded) = match body.strip_prefix(b"_base64\":\"") {
            Some(body) => (body, true),
            None => (body.strip_prefix(b"\":\"")?, false),
        };
        let body = body.strip_suffix(b"\"}")?;
        Some(Line { id, lsn, source, received_ms, events, body, encoded })
    }

    /// What stands between the id and the moment, to be compared with from now on.
    fn read_middle(&mut self, line: &[u8]) -> Option<()> {
        let (_, rest) = string(line.strip_prefix(b",\"gateway\":\"")?)?;
        let (source, rest) = string(rest.strip_prefix(b",\"source\":\"")?)?;
        let end = line.len() - rest.len() - 1;
        let rest = behind(&self.received, rest)?;
        self.last.source = end - source.len()..end;
        self.last.middle.clear();
        self.last.middle.extend_from_slice(line.get(..line.len() - rest.len())?);
        Some(())
    }

    fn moment(&mut self, moment: &[u8; 24]) -> Option<u64> {
        let (second, rest) = moment.split_first_chunk::<20>()?;
        if *second != self.last.second {
            self.last.ms = stamp::unix_ms(moment)? / 1000 * 1000;
            self.last.second = *second;
        }
        match rest {
            [digits @ .., b'Z'] if digits.iter().all(u8::is_ascii_digit) => {
                Some(self.last.ms + digits.iter().fold(0, |ms, digit| 10 * ms + u64::from(digit - b'0')))
            }
            _ => None,
        }
    }

    /// Every searchable text of the record; a text may come several times.
    pub fn texts(&mut self, line: &Line<'_>, mut each: impl FnMut(&[u8])) {
        for event in line.events() {
            each(event.key);
            if let Some(user) = event.user {
                match plain(user) {
                    Cow::Borrowed(user) => each(user),
                    Cow::Owned(user) => each(&user),
                }
            }
        }
        self.ids(line, each);
    }

    /// The text of each member of the body whose name ends in `id`.
    pub fn ids(&mut self, line: &Line<'_>, mut each: impl FnMut(&[u8])) {
        if !line.encoded {
            return self.scan(line.body, &mut each);
        }
        // Hardly any: a body that is no UTF-8, or was not taken apart.
        let Ok(bytes) = STANDARD.decode(line.body) else { return };
        let mut escaped = Vec::new();
        json::escape(String::from_utf8_lossy(&bytes).as_bytes(), &mut escaped);
        self.scan(&escaped, &mut each);
    }

    fn scan(&mut self, body: &[u8], each: &mut impl FnMut(&[u8])) {
        let mut rest = body;
        while let Some(at) = self.id.find(rest) {
            rest = rest.get(at + 4..).unwrap_or_default();
            let value =
                blanks(rest).strip_prefix(b":").map(blanks).and_then(|value| value.strip_prefix(b"\\\""));
            let Some(value) = value else { continue };
            match memchr(b'\\', value) {
                Some(end) if value.get(end + 1) == Some(&b'"') => {
                    each(value.get(..end).unwrap_or_default());
                    // The quote that ends it belongs to no name.
                    rest = value.get(end + 2..).unwrap_or_default();
                }
                _ if read_escaped(value, &mut self.text) => each(&self.text),
                _ => {}
            }
        }
    }
}

impl<'a> Line<'a> {
    pub fn source(&self) -> Cow<'a, [u8]> {
        plain(self.source)
    }

    pub fn events(&self) -> impl Iterator<Item = LineEvent<'a>> + use<'a> {
        let mut rest = self.events;
        std::iter::from_fn(move || {
            let (found, behind) = event(rest)??;
            rest = behind;
            Some(found)
        })
    }
}

impl<'a> LineEvent<'a> {
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    pub fn kind(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.kind)
    }

    pub fn user(&self) -> Option<Cow<'a, [u8]>> {
        self.user.map(plain)
    }
}

/// The next event of a list, and what is behind it; `Some(None)` at the list's end, `None` if it is neither.
#[allow(clippy::option_option, reason = "an end is no fault")]
fn event(list: &[u8]) -> Option<Option<(LineEvent<'_>, &[u8])>> {
    let list = list.strip_prefix(b",").unwrap_or(list);
    let Some(rest) = list.strip_prefix(b"{\"key\":\"") else {
        return list.starts_with(b"]").then_some(None);
    };
    let (key, rest) = string(rest)?;
    let (kind, rest) = string(rest.strip_prefix(b",\"kind\":\"")?)?;
    let rest = rest.strip_prefix(b",\"user\":")?;
    let (user, rest) = match rest.strip_prefix(b"null") {
        Some(rest) => (None, rest),
        None => string(rest.strip_prefix(b"\"")?).map(|(user, rest)| (Some(user), rest))?,
    };
    Some(Some((LineEvent { key, kind, user }, rest.strip_prefix(b"}")?)))
}

/// The inside of a string whose first quote was taken, and what is behind its last one.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(at) == Some(&b'"') {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
        from = at + 2;
    }
}

/// A string of the line without its escapes.
fn plain(inside: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'\\', inside).is_none() {
        return Cow::Borrowed(inside);
    }
    let quoted = [b"\"", inside, b"\""].concat();
    let text = serde_json::from_slice::<String>(&quoted);
    text.map_or(Cow::Borrowed(inside), |text| Cow::Owned(text.into_bytes()))
}

fn behind<'a>(finder: &Finder<'_>, text: &'a [u8]) -> Option<&'a [u8]> {
    text.get(finder.find(text)? + finder.needle().len()..)
}

/// Without the white space of a body that stands in a string.
fn blanks(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b' ', rest @ ..] | [b'\\', b'n' | b'r' | b't', rest @ ..] => rest,
            _ => return text,
        };
    }
}

/// A string of the body that has escapes; `value` begins behind its first quote. False if it is none.
fn read_escaped(value: &[u8], text: &mut Vec<u8>) -> bool {
    text.clear();
    let mut rest = value;
    loop {
        let Some(at) = memchr(b'\\', rest) else { return false };
        let (before, escape) = rest.split_at(at);
        text.extend_from_slice(before);
        match escape {
            [b'\\', b'"', ..] => return true,
            // Meta escapes slashes, and half of all message ids have one.
            [b'\\', b'\\', b'/', behind @ ..] => {
                text.push(b'/');
                rest = behind;
            }
            _ => return read_odd(value, text),
        }
    }
}

/// As [`read_escaped`], for every escape there is.
fn read_odd(value: &[u8], text: &mut Vec<u8>) -> bool {
    // It ends where the line has `\"` that no backslash of the body stands before.
    let mut end = 0;
    loop {
        let Some(at) = value.get(end..).and_then(|rest| memchr(b'\\', rest)) else { return false };
        end += at;
        match value.get(end + 1) {
            Some(b'"') => break,
            // What it escapes takes two bytes itself: a quote, or a backslash.
            Some(b'\\') if value.get(end + 2) == Some(&b'\\') => end += 4,
            Some(b'\\') => end += 3,
            Some(_) => end += 2,
            None => return false,
        }
    }
    let once = plain(value.get(..end).unwrap_or_default());
    let twice = plain(&once);
    text.clear();
    text.extend_from_slice(&twice);
    true
}
