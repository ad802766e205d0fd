//! Phones and user ids inside of a text that stays, as they are or in another encoding. Pure, linear in the
//! text.
//!
//! A word (what stands between white space) that hides one in percent signs, in escapes of JSON or HTML or
//! in base64 is replaced as a whole; what stands there plainly is replaced alone. Rather too much than too
//! little: a date looks like a phone as well.

use std::borrow::Cow;

use super::digits::{self, canonical, digit, is_between};
use super::token::{Kind, Tokens};
use crate::config::{MaskSet, Masked};
use crate::parse::is_bsuid;

/// Characters between two digits of one phone.
const GAP: usize = 4;
/// Encodings inside of one another: a link in a link in a link.
const LAYERS: usize = 4;
/// Fewer characters of base64 hold no phone.
const BASE64_MIN: usize = 9;
/// An id of letters alone is one from here on; real ones have digits.
const LETTERS_MIN: usize = 8;

/// Appends `text` without phones and user ids, as far as `kinds` asks.
pub(super) fn scrub(kinds: MaskSet, tokens: &Tokens, text: &str, out: &mut Vec<u8>) {
    let seek = Seek { phones: kinds.has(Masked::Phone), bsuids: kinds.has(Masked::Bsuid) };
    if !seek.phones && !seek.bsuids {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    // Behind the last hidden word.
    let mut from = 0;
    for word in text.split_whitespace() {
        if !seek.hidden(word) {
            continue;
        }
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        seek.plain(tokens, &text[from..start], out);
        tokens.write(Kind::Id, &[], word.as_bytes(), out);
        from = start + word.len();
    }
    seek.plain(tokens, &text[from..], out);
}

/// Whether a text holds something that [`scrub`] would replace.
#[cfg(test)]
pub(super) fn finds(kinds: MaskSet, text: &str) -> bool {
    let tokens = Tokens::new(b"");
    let mut out = Vec::new();
    scrub(kinds, &tokens, text, &mut out);
    out != text.as_bytes()
}

#[derive(Clone, Copy)]
struct Seek {
    phones: bool,
    bsuids: bool,
}

/// A find in a text: its bytes, and what it is.
enum Find {
    Phone(Vec<u8>),
    Bsuid,
}

impl Seek {
    fn plain(self, tokens: &Tokens, text: &str, out: &mut Vec<u8>) {
        let mut from = 0;
        self.each(text, |start, end, find| {
            out.extend_from_slice(&text.as_bytes()[from..start]);
            match find {
                Find::Phone(digits) => tokens.write(Kind::Phone, &[], &canonical(&digits), out),
                Find::Bsuid => tokens.write(Kind::Bsuid, &[], &text.as_bytes()[start..end], out),
            }
            from = end;
        });
        out.extend_from_slice(&text.as_bytes()[from..]);
    }

    fn is_in(self, text: &str) -> bool {
        let mut found = false;
        self.each(text, |_, _, _| found = true);
        found
    }

    /// Calls `found` with the place of each phone and user id, in order.
    fn each(self, text: &str, mut found: impl FnMut(usize, usize, Find)) {
        let mut run: Option<Run> = None;
        let mut before = ' ';
        let mut skip_to = 0;
        for (at, c) in text.char_indices() {
            if at < skip_to {
                continue;
            }
            if self.phones
                && let Some(digit) = digit(c)
            {
                let end = at + c.len_utf8();
                match &mut run {
                    Some(run) => run.take(digit, end),
                    None => run = Some(Run::new(digit, at, end)),
                }
            } else if let Some(open) = &mut run {
                open.gap += 1;
                if !is_between(c) || open.gap > GAP {
                    open.found(&mut found);
                    run = None;
                }
            }
            if self.bsuids && c.is_ascii_uppercase() && !before.is_alphanumeric() {
                let end = at + bsuid(&text[at..]);
                if end > at {
                    if let Some(mut open) = run.take() {
                        open.found(&mut found);
                    }
                    found(at, end, Find::Bsuid);
                    skip_to = end;
                }
            }
            before = c;
        }
        if let Some(mut open) = run {
            open.found(&mut found);
        }
    }

    /// Whether a word says something to whoever decodes it that it does not show.
    fn hidden(self, word: &str) -> bool {
        if self.in_base64(word.as_bytes()) {
            return true;
        }
        let mut decoded = Cow::Borrowed(word);
        for _ in 0..LAYERS {
            match unescaped(&decoded) {
                Some(next) => decoded = next.into(),
                None => return false,
            }
            if self.is_in(&decoded) && !self.shows_all(word, &decoded) || self.in_base64(decoded.as_bytes()) {
                return true;
            }
        }
        // Deeper than anybody encodes: what is in there is not known.
        unescaped(&decoded).is_some()
    }

    /// Whether all that is found in `decoded` stands in `word` as well.
    fn shows_all(self, word: &str, decoded: &str) -> bool {
        let list = |text: &str| {
            let mut list = Vec::new();
            self.each(text, |start, end, find| {
                list.push(match find {
                    Find::Phone(digits) => digits,
                    Find::Bsuid => text.as_bytes()[start..end].to_vec(),
                });
            });
            list
        };
        list(word) == list(decoded)
    }

    /// Whether base64 in `word`, of either alphabet and beginning anywhere, holds a phone or user id.
    fn in_base64(self, word: &[u8]) -> bool {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
        let mut parts = word.split(|byte| !is_part(byte)).filter(|part| part.len() >= BASE64_MIN);
        parts.any(|part| (0..4).any(|offset| self.in_bytes(base64(&part[offset..]))))
    }

    /// Whether decoded bytes have a phone, or what is hardly a user id by chance.
    fn in_bytes(self, bytes: impl Iterator<Item = u8>) -> bool {
        let (mut run, mut capitals) = (0, 0);
        // Letters and digits behind a country and a full stop, and the digits among them.
        let mut id: Option<(usize, usize)> = None;
        for byte in bytes {
            let digit = usize::from(byte.is_ascii_digit());
            run = (run + 1) * digit;
            id = id.filter(|_| byte.is_ascii_alphanumeric()).map(|(len, digits)| (len + 1, digits + digit));
            let likely = id.is_some_and(|(len, digits)| digits >= digits::MIN || len >= 2 * LETTERS_MIN);
            if self.phones && run >= digits::MIN || self.bsuids && likely {
                return true;
            }
            match byte {
                b'A'..=b'Z' => capitals += 1,
                b'.' if capitals >= 2 => (id, capitals) = (Some((0, 0)), 0),
                _ => capitals = 0,
            }
        }
        false
    }
}

/// Digits behind one another, with little between them.
struct Run {
    start: usize,
    end: usize,
    digits: Vec<u8>,
    /// Characters since the last digit.
    gap: usize,
}

impl Run {
    fn new(digit: u8, start: usize, end: usize) -> Self {
        Self { start, end, digits: vec![digit], gap: 0 }
    }

    fn take(&mut self, digit: u8, end: usize) {
        self.digits.push(digit);
        self.end = end;
        self.gap = 0;
    }

    fn found(&mut self, found: &mut impl FnMut(usize, usize, Find)) {
        if self.digits.len() >= digits::MIN {
            found(self.start, self.end, Find::Phone(std::mem::take(&mut self.digits)));
        }
    }
}

/// Length of the user id that `text` begins with; 0 if there is none.
fn bsuid(text: &str) -> usize {
    let bytes = text.as_bytes();
    let Some([_, b'A'..=b'Z', b'.']) = bytes.first_chunk() else { return 0 };
    let from = if bytes[3..].starts_with(b"ENT.") { 7 } else { 3 };
    let id = bytes[from..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).take(129).count();
    let has_digit = bytes[from..from + id].iter().any(u8::is_ascii_digit);
    let likely = has_digit || from == 7 || id >= LETTERS_MIN;
    if likely && is_bsuid(&text[..from + id]) { from + id } else { 0 }
}

/// As much of base64 as is in `part`, padding or not.
fn base64(part: &[u8]) -> impl Iterator<Item = u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        _ => 63,
    };
    let (mut bits, mut count) = (0u32, 0);
    part.iter().filter_map(move |byte| {
        bits = bits << 6 | u32::from(value(*byte));
        count += 6;
        (count >= 8).then(|| {
            count -= 8;
            (bits >> count) as u8
        })
    })
}

/// The text with its percent signs, JSON's and HTML's escapes decoded; none if there are none.
fn unescaped(text: &str) -> Option<String> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'\\' | b'&')) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut changed) = (0, false);
    while let Some(byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let decoded = match byte {
            b'%' => hex(rest.get(1..3)).map(|code| (code, 3)),
            b'\\' => match rest.get(1) {
                Some(b'u') => hex(rest.get(2..6)).map(|code| (code, 6)),
                Some(b'x') => hex(rest.get(2..4)).map(|code| (code, 4)),
                Some(b'/' | b'\\' | b'"') => Some((u32::from(rest[1]), 2)),
                _ => None,
            },
            b'&' => entity(rest),
            _ => None,
        };
        let Some((code, len)) = decoded else {
            out.push(*byte);
            at += 1;
            continue;
        };
        changed = true;
        at += len;
        match u8::try_from(code) {
            // Percent signs are bytes of UTF-8.
            Ok(code) if code < 0x80 || *byte == b'%' => out.push(code),
            _ => {
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    changed.then(|| String::from_utf8_lossy(&out).into_owned())
}

/// `&#49;` or `&#x31;`, with or without its end: the character's code and the length.
fn entity(text: &[u8]) -> Option<(u32, usize)> {
    let body = text.strip_prefix(b"&#")?;
    let (radix, body, before) = match body.first()? {
        b'x' | b'X' => (16, &body[1..], 3),
        _ => (10, body, 2),
    };
    let len = body.iter().take(8).take_while(|byte| char::from(**byte).is_digit(radix)).count();
    let code = u32::from_str_radix(str::from_utf8(&body[..len]).ok()?, radix).ok()?;
    let end = usize::from(body.get(len) == Some(&b';'));
    Some((code, before + len + end))
}

fn hex(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: MaskSet = MaskSet::of(&[Masked::Phone, Masked::Bsuid]);
    const PHONE: MaskSet = MaskSet::of(&[Masked::Phone]);
    const BSUID: MaskSet = MaskSet::of(&[Masked::Bsuid]);

    fn scrubbed(kinds: MaskSet, text: &str) -> String {
        let mut out = Vec::new();
        scrub(kinds, &Tokens::new(b"key"), text, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn token(kind: Kind, value: &[u8]) -> String {
        let mut out = Vec::new();
        Tokens::new(b"key").write(kind, &[], value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn phones_and_user_ids_in_texts_have_the_persons_pseudonyms() {
        let phone = token(Kind::Phone, b"12025550123");
        let check = |text: &str, expected: &str| assert_eq!(scrubbed(BOTH, text), expected, "{text}");
        check("call +1 202-555-0123 now", &format!("call +{phone} now"));
        check("(1) 202/555.0123, or not", &format!("({phone}, or not"));
        check("from 12025550123 to 12025550123.", &format!("from {phone} to {phone}."));
        let id = token(Kind::Bsuid, b"US.1349120865530");
        check("was US.1349120865530, is new", &format!("was {id}, is new"));
        check("https://wa.me/12025550123?x=1", &format!("https://wa.me/{phone}?x=1"));
    }

    #[test]
    fn what_is_no_phone_stays() {
        for text in
            ["", "order 123456", "3 of 5", "12:30", "OK.Thanks", "caf\u{e9} \u{1f600}", "100 %", "a\\b & c"]
        {
            assert_eq!(scrubbed(BOTH, text), text);
        }
        assert_eq!(scrubbed(BSUID, "12025550123"), "12025550123");
        assert_eq!(scrubbed(PHONE, "US.AB12"), "US.AB12");
    }

    #[test]
    fn no_encoding_hides_a_phone() {
        for text in [
            "%31%32%30%32%35%35%35%30%31%32%33",
            "%2B1%20202%20555%200123",
            "https://x.example/?u=https%3A%2F%2Fy%2F%3Fp%3D%2531%2532%2530%2532%2535%2535%2535%2530123",
            "{\"a\":\"\\u0031\\u0032\\u0030\\u0032\\u0035\\u0035\\u00350123\"}",
            "&#49;&#x32;&#48;&#50;&#53;&#53;&#53;0123",
            "wamid.HBgLMTIwMjU1NTAxMjMVAgASGBQ5QjA=",
            "see:/HBgLMTIwMjU1NTAxMjMVAgASGBQ5QjA",
            "x%48BgLMTIwMjU1NTAxMjMVAgASGBQ5QjA",
            "\u{661}\u{662}\u{660}\u{662}\u{665}\u{665}\u{665}\u{660}\u{661}\u{662}\u{663}",
            "1\u{200b}2\u{200b}0\u{200b}2\u{200b}5\u{200b}5\u{200b}5\u{200b}0123",
        ] {
            assert!(finds(PHONE, text), "{text}");
        }
        assert!(finds(BSUID, "SU4uMTkwNzI4NDY0ODM4MTkyNw=="));
        assert!(finds(BSUID, "IN%2E1907284648381927"));
    }

    #[test]
    fn ids_inside_of_texts_have_the_pseudonyms_of_ids() {
        let id = "wamid.HBgLMTIwMjU1NTAxMjMVAgASGBQ5QjA=";
        assert_eq!(
            scrubbed(PHONE, &format!("as in {id}")),
            format!("as in {}", token(Kind::Id, id.as_bytes()))
        );
    }
}
