//! JSON written by hand: a record is one fixed shape, and its body is most of it. Pure.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

#[cfg(target_arch = "x86_64")]
mod spread;

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

/// Appends bytes with quotes, if they are UTF-8. False if they are not: then nothing is appended.
pub(super) fn utf8(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.push(b'"');
    // Hardly a body is not ASCII.
    let is_text = escape_any(bytes, out) || std::str::from_utf8(bytes).is_ok();
    if is_text {
        out.push(b'"');
    } else {
        out.truncate(start);
    }
    is_text
}

/// Appends the inside of a JSON string. `text` is UTF-8, or a part of it between two characters.
pub(super) fn escape(text: &[u8], out: &mut Vec<u8>) {
    escape_any(text, out);
}

/// As [`escape`], for any bytes; whether all of them are ASCII.
fn escape_any(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    // What providers send has quotes every few bytes, and no control characters.
    escape_quotes(text, out).unwrap_or_else(|| {
        out.truncate(start);
        escape_all(text, out);
        text.is_ascii()
    })
}

/// As [`escape_any`], if there are no control characters; `None` if there are, or if this processor cannot do it.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "one call, of what takes half of the time that other ways take")]
fn escape_quotes(text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("popcnt") {
        // SAFETY: it is safe code that needs these two of the processor, which was asked just now.
        unsafe { spread::escape_quotes(text, out) }
    } else {
        None
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn escape_quotes(_: &[u8], _: &mut Vec<u8>) -> Option<bool> {
    None
}

/// As [`escape`], for every text.
fn escape_all(mut text: &[u8], out: &mut Vec<u8>) {
    let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    while let Some((plain, [byte, rest @ ..])) = text.iter().position(special).map(|at| text.split_at(at)) {
        out.extend_from_slice(plain);
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => put(out, format_args!("\\u{byte:04x}")),
            _ => out.extend_from_slice(&[b'\\', *byte]),
        }
        text = rest;
    }
    out.extend_from_slice(text);
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
            let mut elsewhere = b"before\"".to_vec();
            escape_all(text.as_bytes(), &mut elsewhere);
            elsewhere.push(b'"');
            assert_eq!(out, elsewhere, "processors differ");
            let back: String = serde_json::from_slice(out.strip_prefix(b"before").unwrap()).unwrap();
            assert_eq!(back, text);
            if text.chars().all(|c| c >= ' ') {
                assert_eq!(out, format!("before{}", serde_json::to_string(&text).unwrap()).as_bytes());
            }
        }
    }
}
