//! Where a cut goes: into bytes that are sent, or into ranges that say which bytes of the body those are.

use std::ops::Range;

/// Takes the pieces of a cut in order.
pub(super) trait Pieces {
    /// `raw[range]`.
    fn piece(&mut self, raw: &[u8], range: Range<usize>);

    /// One byte of punctuation, and where it stands in the body.
    fn mark(&mut self, byte: u8, at: usize);

    /// Bytes taken so far.
    fn len(&self) -> usize;

    /// Takes back what came after the first `len` bytes.
    fn truncate(&mut self, len: usize);
}

impl Pieces for Vec<u8> {
    fn piece(&mut self, raw: &[u8], range: Range<usize>) {
        self.extend_from_slice(raw.get(range).unwrap_or_default());
    }

    fn mark(&mut self, byte: u8, _at: usize) {
        self.push(byte);
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }
}

/// Ranges of a body; put one after the other they are the part of it that was cut out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    list: Vec<Range<usize>>,
    len: usize,
}

impl Ranges {
    /// Rising, not empty, and with a gap between any two.
    pub fn as_slice(&self) -> &[Range<usize>] {
        &self.list
    }

    /// The bytes they stand for.
    pub fn of<'a>(&'a self, raw: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().map(|range| raw.get(range.clone()).unwrap_or_default())
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.len = 0;
    }

    fn add(&mut self, range: Range<usize>) {
        self.len += range.len();
        match self.list.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.list.push(range),
        }
    }
}

impl Pieces for Ranges {
    fn piece(&mut self, _raw: &[u8], range: Range<usize>) {
        self.add(range);
    }

    fn mark(&mut self, _byte: u8, at: usize) {
        self.add(at..at + 1);
    }

    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        while self.len > len {
            let Some(last) = self.list.last_mut() else { return };
            let over = (self.len - len).min(last.len());
            last.end -= over;
            self.len -= over;
            if last.start == last.end {
                self.list.pop();
            }
        }
    }
}
