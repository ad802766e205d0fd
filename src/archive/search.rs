//! Finds records in an archive: by its folders' names, then by the indexes of objects, then in the frames they name.
//!
//! Invariant: no record is passed over because its object has no index, or one that is damaged: such an object is read
//! whole, and that is told. Only the links of a chain can say whether somebody made an index that hides records;
//! [`Query::whole`] does without.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::index::line::{Line, Lines};
use super::index::{Filter, Frame, INDEX_MAX, Index, Text, name_of};
use super::read::RECORD_MAX;
use super::shelf::{Entry, EntryKind, Shelf};
use crate::parse::phone::Digits;
use crate::stamp::{self, Hour};

/// Larger frames are not read at once. A gateway's are about a megabyte, or one record.
const FRAME_MAX: u64 = 64 << 20;
const HOUR_MS: u64 = 3_600_000;
/// Bytes of an index that is read before it is needed: nearly all have a tenth of that.
const AHEAD_MAX: u64 = 4 << 20;

/// What a record must be; all that is given.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Journal and LSN.
    pub record: Option<(String, u64)>,
    /// Texts that stand for the same `id` in the body, or one like it, any of them: of a message, a status, a call.
    pub ids: Vec<String>,
    /// Texts that stand for the same user, any of them.
    pub users: Vec<String>,
    /// Of an event, in hex, any of them.
    pub keys: Vec<String>,
    pub source: Option<String>,
    /// Unix milliseconds; the first one that counts.
    pub from_ms: Option<u64>,
    /// The first one that does not count.
    pub until_ms: Option<u64>,
    /// Indexes are not used.
    pub whole: bool,
}

/// `<journal>-<lsn>`, if that is what it is.
pub fn record_id(text: &str) -> Option<(String, u64)> {
    let (journal, lsn) = text.rsplit_once('-')?;
    let is_journal = journal.len() == 32 && journal.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((journal.to_ascii_lowercase(), lsn.parse().ok()?)).filter(|_| is_journal)
}

/// A phone as records have it, in digits alone; anything else as it is.
pub fn user(text: &str) -> String {
    let text = text.trim();
    let international = text.strip_prefix("00").unwrap_or(text);
    match Digits::parse(international) {
        Some(digits) => String::from_utf8_lossy(&digits).into_owned(),
        None => text.to_owned(),
    }
}

impl Query {
    fn may_hold(&self, frame: &Frame, filter: &Filter<'_>) -> bool {
        let may_have =
            |any: &[String]| any.is_empty() || any.iter().any(|text| filter.may_have(Text::of(text)));
        self.record.as_ref().is_none_or(|(_, lsn)| (frame.first_lsn..=frame.last_lsn).contains(lsn))
            && self.from_ms.is_none_or(|from| frame.last_ms >= from)
            && self.until_ms.is_none_or(|until| frame.first_ms < until)
            && self.source.as_ref().is_none_or(|source| filter.may_be_from(source))
            && [&self.ids, &self.keys, &self.users].into_iter().all(|any| may_have(any))
    }

    fn matches(&self, line: &Line<'_>, lines: &mut Lines) -> bool {
        let plain = self.record.as_ref().is_none_or(|(journal, lsn)| {
            *lsn == line.lsn
                && line.id.strip_prefix(journal.as_str()).is_some_and(|rest| rest.starts_with('-'))
        }) && self.from_ms.is_none_or(|from| line.received_ms >= from)
            && self.until_ms.is_none_or(|until| line.received_ms < until)
            && self.source.as_ref().is_none_or(|source| *line.source() == *source.as_bytes());
        if !plain {
            return false;
        }
        let is = |any: &[String], text: &[u8]| any.iter().any(|wanted| wanted.as_bytes() == text);
        let (mut id, mut key, mut user) = (self.ids.is_empty(), self.keys.is_empty(), self.users.is_empty());
        for event in line.events() {
            key |= is(&self.keys, event.key());
            user |= event.user().is_some_and(|text| is(&self.users, &text));
        }
        if key && !(id && user) {
            lines.ids(line, |text| {
                id |= is(&self.ids, text);
                user |= is(&self.users, text);
            });
        }
        id && user && key
    }
}

/// An object of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Below the archive.
    pub name: String,
    pub bytes: u64,
}

impl Object {
    /// Journal and first LSN, which stand in its name.
    fn begins(&self) -> Option<(&str, u64)> {
        let stem = self.name.rsplit('/').next()?.strip_suffix(".jsonl.zst")?;
        let (rest, lsn) = stem.rsplit_once('-')?;
        Some((rest.rsplit_once('-')?.1, lsn.parse().ok()?))
    }
}

/// What a search has to tell besides what it finds.
#[derive(Debug)]
pub enum Told {
    /// There is nothing that a gateway archived.
    Nothing,
    /// Something that no gateway leaves there.
    Stray(String),
    /// The object has no index, or none that can be used: it is read whole.
    Whole { object: String, why: String },
    /// Cannot be read, or not to its end. There may be records in it.
    Unread { name: String, error: io::Error },
}

/// The objects that may hold what is looked for, the oldest hour first; for one record the likeliest object first.
pub fn objects(shelf: &dyn Shelf, query: &Query, told: &mut impl FnMut(Told)) -> io::Result<Vec<Object>> {
    let mut found = Vec::new();
    let mut days = shelf.names("")?;
    days.retain(|day| day.name.starts_with("dt="));
    if days.is_empty() {
        told(Told::Nothing);
    }
    for day in days {
        if day.kind != EntryKind::Folder {
            told(odd(day.name, day.kind));
            continue;
        }
        for hour in names(shelf, &day.name, told) {
            let below = format!("{}/{}", day.name, hour.name);
            if hour.kind != EntryKind::Folder || !hour.name.starts_with("hour=") {
                told(odd(below, hour.kind));
            } else if may_be_in(query, &day.name, &hour.name) {
                for file in names(shelf, &below, told) {
                    let name = format!("{below}/{}", file.name);
                    if file.kind == EntryKind::File && file.name.ends_with(".jsonl.zst") {
                        found.push(Object { name, bytes: file.bytes });
                    } else {
                        told(odd(name, file.kind));
                    }
                }
            }
        }
    }
    if let Some((journal, lsn)) = &query.record {
        // A name that is not a gateway's may hold anything.
        found.retain(|object| object.begins().is_none_or(|(its, first)| its == journal && first <= *lsn));
        found.sort_by_key(|object| std::cmp::Reverse(object.begins().map_or(0, |(_, first)| first)));
    }
    Ok(found)
}

/// A folder that cannot be read must not hide the others.
fn names(shelf: &dyn Shelf, below: &str, told: &mut impl FnMut(Told)) -> Vec<Entry> {
    shelf.names(below).unwrap_or_else(|error| {
        told(Told::Unread { name: below.to_owned(), error });
        Vec::new()
    })
}

/// What stands where no gateway leaves such a thing. Records may be where a link leads.
fn odd(name: String, kind: EntryKind) -> Told {
    if kind != EntryKind::Other {
        return Told::Stray(name);
    }
    let error =
        io::Error::new(io::ErrorKind::InvalidData, "a link, a pipe or a name that no file has; not opened");
    Told::Unread { name, error }
}

/// Folders have the hour in which their records were received.
fn may_be_in(query: &Query, day: &str, hour: &str) -> bool {
    let parts = day.strip_prefix("dt=").zip(hour.strip_prefix("hour="));
    let start = parts.and_then(|(day, hour)| {
        let moment: [u8; 24] = format!("{day}T{hour}:00:00.000Z").into_bytes().try_into().ok()?;
        stamp::unix_ms(&moment)
    });
    // Not a gateway's folder: whoever made it may have put records there.
    let Some(start) = start.map(|ms| Hour::of(ms).start_ms()) else { return true };
    query.from_ms.is_none_or(|from| start + HOUR_MS > from)
        && query.until_ms.is_none_or(|until| start < until)
}

/// What was read of the index of an object; `None` where none is wanted.
pub type Found = Option<io::Result<Option<Vec<u8>>>>;

/// Objects one after the other, with their indexes, which are read ahead: in a bucket many take as long as one.
pub struct Ahead<'a> {
    shelf: &'a dyn Shelf,
    objects: std::slice::Iter<'a, Object>,
    whole: bool,
    read: VecDeque<io::Result<Option<Vec<u8>>>>,
    /// How many to read next: the first object is often all that is needed.
    next: usize,
}

impl<'a> Ahead<'a> {
    pub fn new(shelf: &'a dyn Shelf, objects: &'a [Object], query: &Query) -> Self {
        Self { shelf, objects: objects.iter(), whole: query.whole, read: VecDeque::new(), next: 1 }
    }
}

impl<'a> Iterator for Ahead<'a> {
    type Item = (&'a Object, Found);

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty() && !self.whole {
            let names = self.objects.as_slice().iter().take(self.next);
            // One that has no name of an object is told when its turn comes.
            let names = names.map(|object| name_of(&object.name).unwrap_or_default()).collect();
            self.read = self.shelf.read_each(names, AHEAD_MAX).into();
            self.next = (4 * self.next).min(self.shelf.at_once());
        }
        let (object, index) = (self.objects.next()?, self.read.pop_front());
        let index = index.map(|index| match (index, name_of(&object.name)) {
            (Err(error), Some(name)) if error.kind() == io::ErrorKind::FileTooLarge => {
                self.shelf.read_at(&name, 0, INDEX_MAX)
            }
            (index, _) => index,
        });
        Some((object, index))
    }
}

/// Reads what of an object is needed. `each` gets the line of every record found, in their order, and says whether to
/// go on; false if it did not. A record that it calls invalid counts as one that cannot be read.
pub fn search(
    shelf: &dyn Shelf,
    (object, index): (&Object, Found),
    query: &Query,
    told: &mut impl FnMut(Told),
    each: &mut impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut reader = Reader { query, lines: Lines::default(), given: None, again: None, odd: 0, each };
    if let Some(index) = index {
        match index_of(object, index) {
            Ok(index) => match by_index(shelf, object, &index, &mut reader) {
                Ok(on) => {
                    reader.tell(object, told);
                    return Ok(on);
                }
                // Whatever it is, the object may still be read to there.
                Err(Stop::Object(error)) => {
                    told(whole(object, format!("it names a frame that is none: {error}")))
                }
                Err(Stop::Each(error)) => return Err(error),
            },
            Err(why) => told(whole(object, why)),
        }
    }
    (reader.again, reader.odd) = (reader.given, 0);
    let unread = |error| Told::Unread { name: object.name.clone(), error };
    let opened = match shelf.open(&object.name) {
        Ok(Some(opened)) => zstd::Decoder::new(opened),
        Ok(None) => Err(io::Error::new(io::ErrorKind::NotFound, "it is there no more, or not a plain file")),
        Err(error) => Err(error),
    };
    let read = opened.map_err(Stop::Object).and_then(|lines| reader.read(lines));
    reader.tell(object, told);
    match read {
        Ok(on) => Ok(on),
        Err(Stop::Object(error)) => {
            told(unread(error));
            Ok(true)
        }
        Err(Stop::Each(error)) => Err(error),
    }
}

fn whole(object: &Object, why: String) -> Told {
    Told::Whole { object: object.name.clone(), why }
}

fn index_of(object: &Object, index: io::Result<Option<Vec<u8>>>) -> Result<Index, String> {
    name_of(&object.name).ok_or("it has no name of an object")?;
    match index {
        Ok(Some(bytes)) => {
            let index = Index::read(&bytes, object.bytes).map_err(|damage| format!("its index: {damage}"))?;
            let first = index.frames().next().map_or(0, |(frame, _)| frame.first_lsn);
            match object.begins() {
                Some((_, named)) if first != 0 && first != named => {
                    Err("its index is another object's".to_owned())
                }
                _ => Ok(index),
            }
        }
        Ok(None) => Err("it has no index".to_owned()),
        Err(error) => Err(format!("its index cannot be read: {error}")),
    }
}

fn by_index<E: FnMut(&[u8]) -> io::Result<bool>>(
    shelf: &dyn Shelf,
    object: &Object,
    index: &Index,
    reader: &mut Reader<'_, E>,
) -> Result<bool, Stop> {
    for (frame, filter) in index.frames() {
        if !reader.query.may_hold(frame, &filter) {
            continue;
        }
        if frame.bytes > FRAME_MAX {
            return Err(Stop::Object(io::Error::other("it is too large")));
        }
        let bytes = shelf.read_at(&object.name, frame.offset, frame.bytes).map_err(Stop::Object)?;
        let bytes = bytes.unwrap_or_default();
        if bytes.len() as u64 != frame.bytes {
            return Err(Stop::Object(io::ErrorKind::UnexpectedEof.into()));
        }
        let lines = zstd::Decoder::new(Cursor::new(bytes)).map_err(Stop::Object)?;
        if !reader.read(lines)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What ended a reading.
enum Stop {
    /// The object cannot be read.
    Object(io::Error),
    /// Whoever gets the records cannot take them.
    Each(io::Error),
}

/// Goes over lines and gives on those that match.
struct Reader<'a, E> {
    query: &'a Query,
    lines: Lines,
    /// The LSN that was given on last.
    given: Option<u64>,
    /// What a first reading gave on: a second one must not give it again.
    again: Option<u64>,
    /// Lines that are no records.
    odd: u64,
    each: &'a mut E,
}

impl<E: FnMut(&[u8]) -> io::Result<bool>> Reader<'_, E> {
    fn tell(&self, object: &Object, told: &mut impl FnMut(Told)) {
        if self.odd > 0 {
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} of its lines should be records and are none of this version", self.odd),
            );
            told(Told::Unread { name: object.name.clone(), error });
        }
    }

    fn read(&mut self, from: impl Read) -> Result<bool, Stop> {
        let mut from = BufReader::with_capacity(128 << 10, from);
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.by_ref().take(RECORD_MAX).read_until(b'\n', &mut line).map_err(Stop::Object)? == 0 {
                return Ok(true);
            }
            let record = line.strip_suffix(b"\n").unwrap_or(&line);
            let Some(read) = self.lines.read(record) else {
                self.odd += 1;
                continue;
            };
            if self.again.is_some_and(|last| read.lsn <= last) || !self.query.matches(&read, &mut self.lines)
            {
                continue;
            }
            let lsn = read.lsn;
            match (self.each)(record) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // The record's own fault, not that of where it goes.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.odd += 1,
                Err(error) => return Err(Stop::Each(error)),
            }
            self.given = Some(lsn);
        }
    }
}
