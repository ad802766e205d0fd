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
    let (chunks, rest) = text.as_chunks::<8>();
    // A byte takes one or two, and eight are written where fewer may be needed; cut to what was.
    let mut end = out.len();
    out.resize(end + 16 * chunks.len(), 0);
    for chunk in chunks {
        let Some(room) = out.get_mut(end..).and_then(|room| room.first_chunk_mut::<16>()) else { break };
        end += spread(chunk, room);
    }
    out.truncate(end);
    escape_all(rest, out);
}

/// Eight bytes with a backslash before each quote and backslash; how many bytes that makes. A branch at
/// every byte would be mispredicted at every other quote, which costs more than all that is done here.
fn spread(chunk: &[u8; 8], room: &mut [u8; 16]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(*chunk);
    // The highest bit of every byte that equals `byte`.
    let equal = |byte: u8| {
        let zero = word ^ (ONES * u64::from(byte));
        !(((zero & !HIGH) + !HIGH) | zero | !HIGH)
    };
    let special = equal(b'"') | equal(b'\\');
    if special == 0 {
        room[..8].copy_from_slice(chunk);
        return 8;
    }
    // One bit a byte, the first byte's lowest.
    let bits = (special >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let [first, second] = [bits & 15, bits >> 4].map(|bits| &SPREADS[bits as usize & 15]);
    room[..8].copy_from_slice(&first.of(word).to_le_bytes());
    // A mask that is always right tells the compiler that it is.
    let middle = first.len & 15;
    if let Some(room) = room.get_mut(middle..).and_then(|room| room.first_chunk_mut::<8>()) {
        *room = second.of(word >> 32).to_le_bytes();
    }
    middle + second.len
}

/// Where the bytes of four go, and where backslashes stand before them.
struct Spread {
    shifts: [u32; 4],
    backslashes: u64,
    len: usize,
}

impl Spread {
    fn of(&self, word: u64) -> u64 {
        let [a, b, c, d] = self.shifts;
        self.backslashes
            | (word & 0xff) << a
            | (word >> 8 & 0xff) << b
            | (word >> 16 & 0xff) << c
            | (word >> 24 & 0xff) << d
    }
}

/// By which of four bytes need a backslash, the first one's bit lowest.
static SPREADS: [Spread; 16] = {
    let mut all = [const { Spread { shifts: [0; 4], backslashes: 0, len: 0 } }; 16];
    let mut bits = 0;
    while bits < 16 {
        let mut at = 0;
        while at < 4 {
            if bits >> at & 1 == 1 {
                all[bits].backslashes |= (b'\\' as u64) << (8 * all[bits].len);
                all[bits].len += 1;
            }
            all[bits].shifts[at] = 8 * all[bits].len as u32;
            all[bits].len += 1;
            at += 1;
        }
        bits += 1;
    }
    all
};

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
            let most = if round % 2 == 0 { 40 } else { 20 };
            let plain = |rng: &mut Rng| char::from_u32(0x20 + rng.below(0x200) as u32).unwrap_or('a');
            let text: String = (0..rng.below(most))
                .map(|_| match rng.below(6) {
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
