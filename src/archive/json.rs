//! JSON written by hand: a record is one fixed shape, and its body is most of it. Pure.

use std::io::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A text as a JSON string, quotes included.
pub(super) fn quoted(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    string(text, &mut out);
    out
}

/// Appends a text with its quotes.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text.as_bytes(), out);
    out.push(b'"');
}

/// Appends the inside of a JSON string. `text` is UTF-8, or a part of it between two characters.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    // What providers send has quotes every few bytes and no control characters; to look at all of it once
    // for those is cheaper than to look at each byte for both.
    let looked =
        text.iter().fold(0, |found, byte| found | u8::from(*byte < 0x20) << 1 | needs_backslash(*byte));
    match looked {
        0 => out.extend_from_slice(text),
        1 => escape_quotes(text, out),
        _ => escape_all(text, out),
    }
}

/// 1 or 0, so that the compiler looks at many bytes at once.
fn needs_backslash(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\')
}

/// As [`escape`], without control characters: copies what lies between quotes and backslashes. To ask at
/// every byte would cost a mispredicted branch at every other quote.
fn escape_quotes(text: &[u8], out: &mut Vec<u8>) {
    let mut end = out.len();
    // At most twice as much, and one stretch is written that may be longer than what is left. Cut to what was.
    out.resize(end + 2 * text.len() + STRETCH, 0);
    let mut from = 0;
    for (block, start) in text.chunks(64).zip((0..).step_by(64)) {
        let mut marks = marks(block);
        while marks != 0 {
            let at = start + marks.trailing_zeros() as usize;
            marks &= marks - 1;
            end = copy(text, from..at, out, end);
            if let Some(place) = out.get_mut(end) {
                *place = b'\\';
            }
            end += 1;
            from = at;
        }
    }
    end = copy(text, from..text.len(), out, end);
    out.truncate(end);
}

/// One bit for each of up to 64 bytes, set where a backslash belongs before it; the first byte's lowest.
fn marks(block: &[u8]) -> u64 {
    let mut flags = [0u8; 64];
    for (flag, byte) in flags.iter_mut().zip(block) {
        *flag = needs_backslash(*byte);
    }
    let (words, _) = flags.as_chunks::<8>();
    // The product brings the lowest bits of eight bytes together in the highest byte.
    let bits = |word: &[u8; 8]| u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    words.iter().rev().fold(0, |marks, word| marks << 8 | bits(word))
}

/// Bytes that are copied at once: as fast as one, and as much as nearly always lies between two quotes.
const STRETCH: usize = 32;

/// Copies a part of `text` to `out` at `end`, maybe with bytes behind it; the new end.
fn copy(text: &[u8], part: Range<usize>, out: &mut [u8], end: usize) -> usize {
    let (from, len) = (part.start, part.len());
    let stretch = text.get(from..).and_then(|rest| rest.first_chunk::<STRETCH>());
    if len <= STRETCH
        && let Some(stretch) = stretch
        && let Some(place) = out.get_mut(end..).and_then(|room| room.first_chunk_mut())
    {
        *place = *stretch;
    } else if let (Some(part), Some(place)) = (text.get(part), out.get_mut(end..end + len)) {
        place.copy_from_slice(part);
    }
    end + len
}

/// As [`escape`], byte by byte.
fn escape_all(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => put(out, format_args!("\\u{byte:04x}")),
            _ => out.push(*byte),
        }
    }
}

pub(super) fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // There is exactly as much room as it takes.
    STANDARD.encode_slice(bytes, &mut out[start..]).ok();
}

pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    for (pair, byte) in out[start..].chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

pub(super) fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(super) fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A vector takes everything.
    out.write_fmt(text).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::tests::Rng;

    #[test]
    fn every_text_is_escaped_as_serde_does_it() {
        let mut rng = Rng::from_env();
        for round in 0..20_000 {
            let most = if round % 2 == 0 { 400 } else { 20 };
            let plain = |rng: &mut Rng| char::from_u32(0x20 + rng.below(0x200) as u32).unwrap_or('a');
            let text: String = (0..rng.below(most))
                .map(|_| match rng.below(if round % 3 == 0 { 60 } else { 6 }) {
                    0 => '"',
                    1 => '\\',
                    2 if round % 5 == 0 => char::from(rng.below(0x20) as u8),
                    _ => plain(&mut rng),
                })
                .collect();
            let mut out = b"before".to_vec();
            string(&text, &mut out);
            let back: String = serde_json::from_slice(out.strip_prefix(b"before").unwrap()).unwrap();
            assert_eq!(back, text);
            if text.chars().all(|c| c >= ' ') {
                assert_eq!(out, format!("before{}", serde_json::to_string(&text).unwrap()).as_bytes());
            }
        }
    }
}
