//! JSON written by hand: a record is one fixed shape, and its body is most of it. Pure.

use std::io::Write;

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
    if text.iter().fold(false, |found, byte| found | (*byte < 0x20)) {
        return escape_all(text, out);
    }
    // A byte takes one or two; written without asking which. It is cut to what was needed at the end.
    let start = out.len();
    out.resize(start + 2 * text.len(), 0);
    let mut end = start;
    let (chunks, rest) = text.as_chunks::<8>();
    for chunk in chunks {
        let Some(room) = out.get_mut(end..).and_then(|room| room.first_chunk_mut::<16>()) else { break };
        let mut at = 0;
        for byte in chunk {
            room[at & 15] = b'\\';
            at += usize::from(is_special(*byte));
            room[at & 15] = *byte;
            at += 1;
        }
        end += at;
    }
    out.truncate(end);
    for byte in rest {
        if is_special(*byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\')
}

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
