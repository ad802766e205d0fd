//! Line by line through a head that arrives in pieces, looking at no byte twice.
//!
//! `httparse` takes a bare LF for a line end and starts over with every call; so lines are found
//! here, and it is asked once, when the head is whole.

use std::ops::Range;

use memchr::memchr2;

/// A CR without its LF, or an LF without its CR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bare;

/// How far a head was looked at. Start each head with a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Everything before holds no line end but those of `lines`.
    at: usize,
    /// Where the line that is not whole yet starts.
    line: usize,
    lines: usize,
}

impl Scan {
    /// The next whole line of `buf`, without its CRLF. `buf` must start with what earlier calls saw.
    pub(super) fn line(&mut self, buf: &[u8]) -> Result<Option<Range<usize>>, Bare> {
        let Some(offset) = buf.get(self.at..).and_then(|rest| memchr2(b'\r', b'\n', rest)) else {
            self.at = self.at.max(buf.len());
            return Ok(None);
        };
        self.at += offset;
        match (buf[self.at], buf.get(self.at + 1)) {
            (b'\r', None) => Ok(None),
            (b'\r', Some(b'\n')) => {
                let line = self.line..self.at;
                self.at += 2;
                self.line = self.at;
                self.lines += 1;
                Ok(Some(line))
            }
            _ => Err(Bare),
        }
    }

    /// Where the head ends, its empty line included. At least one line was taken before.
    pub(super) fn head_end(&mut self, buf: &[u8]) -> Result<Option<usize>, Bare> {
        while let Some(line) = self.line(buf)? {
            if line.is_empty() {
                return Ok(Some(line.end + 2));
            }
        }
        Ok(None)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.at == 0
    }

    /// Whole lines so far.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }
}

/// True if every CR in `head` is followed by an LF and every LF follows a CR. One pass without
/// branches, which the compiler turns into vector code.
pub(super) fn line_ends_are_whole(head: &[u8]) -> bool {
    let (Some(&first), Some(&last)) = (head.first(), head.last()) else { return true };
    let mut torn = u8::from(first == b'\n') | u8::from(last == b'\r');
    for (&a, &b) in head.iter().zip(&head[1..]) {
        torn |= u8::from(a == b'\r') ^ u8::from(b == b'\n');
    }
    torn == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = b"one\r\n\r\nthree\r\n";
        let mut whole = Scan::default();
        let expected = [Some(0..3), Some(5..5), Some(7..12), None];
        assert_eq!([(); 4].map(|()| whole.line(text).unwrap()), expected);
        let mut trickle = Scan::default();
        let mut lines = Vec::new();
        for end in 0..=text.len() {
            while let Some(line) = trickle.line(&text[..end]).unwrap() {
                lines.push(Some(line));
            }
        }
        assert_eq!(lines, expected[..3]);
        assert_eq!(trickle, whole);
    }

    #[test]
    fn bare_line_ends_are_found_by_both_ways() {
        for text in [&b"a\nb"[..], b"a\rb", b"\n", b"a\r\r\n", b"a\r\n\n", b"\rX"] {
            let mut scan = Scan::default();
            let found = loop {
                match scan.line(text) {
                    Err(Bare) => break true,
                    Ok(None) => break false,
                    Ok(Some(_)) => {}
                }
            };
            assert!(found, "{text:?}");
            assert!(!line_ends_are_whole(text), "{text:?}");
        }
        assert!(line_ends_are_whole(b"a\r\nb\r\n\r\n"));
        assert!(line_ends_are_whole(b""));
        assert!(!line_ends_are_whole(b"a\r"));
    }
}
