//! Backslashes put before quotes, sixteen bytes at a time and without a branch: to ask at every byte, or at every
//! quote, would cost a mispredicted branch at every other one.

use std::arch::x86_64::{
    __m128i, _mm_blendv_epi8, _mm_cmpeq_epi8, _mm_cvtsi128_si64, _mm_extract_epi64, _mm_min_epu8,
    _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_unpackhi_epi64,
};

/// Bytes that are taken at once, and what they may take up.
const WORD: usize = 16;
const ROOM: usize = 2 * WORD;
/// Marks the place of a backslash.
const BACKSLASH: u8 = 0x80;

/// For eight bytes, by a bit for each that needs a backslash, the first byte's lowest: which of them goes to
/// each of up to 16 places.
static PLACES: [[i64; 2]; 256] = {
    let mut all = [[0; 2]; 256];
    let mut marks = 0;
    while marks < all.len() {
        let (mut places, mut end, mut byte) = ([BACKSLASH; 16], 0, 0);
        while byte < 8 {
            end += marks >> byte & 1;
            places[end] = byte as u8;
            end += 1;
            byte += 1;
        }
        let both = i128::from_le_bytes(places);
        all[marks] = [both as i64, (both >> 64) as i64];
        marks += 1;
    }
    all
};

/// Appends `text`, with a backslash before each quote and backslash; whether all of it is ASCII. `None` if it has
/// control characters: then what was appended is no JSON.
#[target_feature(enable = "avx,popcnt")]
pub(super) fn escape_quotes(text: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut end = out.len();
    // Twice as much at most, and so much is written at once. Cut to what it was.
    out.resize(end + 2 * text.len() + ROOM, 0);
    let mut seen = Seen { all: _mm_setzero_si128(), controls: _mm_setzero_si128() };
    let (words, rest) = text.as_chunks::<WORD>();
    for word in words {
        end += escape_word(word, out, end, &mut seen);
    }
    let mut word = [b' '; WORD];
    word[..rest.len()].copy_from_slice(rest);
    end += escape_word(&word, out, end, &mut seen) - (WORD - rest.len());
    out.truncate(end);
    (_mm_movemask_epi8(seen.controls) == 0).then(|| _mm_movemask_epi8(seen.all) == 0)
}

/// What bytes there were so far, all put together.
struct Seen {
    /// Their highest bits tell whether all were ASCII.
    all: __m128i,
    /// Not zero where there were control characters.
    controls: __m128i,
}

/// Writes these bytes, escaped, at `end`; how many they became.
#[target_feature(enable = "avx,popcnt")]
fn escape_word(word: &[u8; WORD], out: &mut [u8], end: usize, seen: &mut Seen) -> usize {
    let both = i128::from_le_bytes(*word);
    let bytes = _mm_set_epi64x((both >> 64) as i64, both as i64);
    let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    seen.controls = _mm_or_si128(seen.controls, controls);
    seen.all = _mm_or_si128(seen.all, bytes);
    let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
    let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
    let marks = _mm_movemask_epi8(_mm_or_si128(quotes, backslashes)) as u16;
    let [low, high] = marks.to_le_bytes();
    let half = 8 + low.count_ones() as usize;
    if let Some(room) = out.get_mut(end..).and_then(|room| room.first_chunk_mut::<ROOM>()) {
        spread(bytes, low, &mut room[..]);
        spread(_mm_unpackhi_epi64(bytes, bytes), high, &mut room[half..]);
    }
    WORD + marks.count_ones() as usize
}

/// Writes the first eight of these bytes to 16 places, with a backslash before each that is marked.
#[target_feature(enable = "avx,popcnt")]
fn spread(bytes: __m128i, marks: u8, room: &mut [u8]) {
    let [low, high] = PLACES[usize::from(marks)];
    let places = _mm_set_epi64x(high, low);
    let spread = _mm_blendv_epi8(_mm_shuffle_epi8(bytes, places), _mm_set1_epi8(b'\\' as i8), places);
    if let Some(place) = room.first_chunk_mut::<16>() {
        let both = [_mm_cvtsi128_si64(spread), _mm_extract_epi64::<1>(spread)];
        for (half, value) in place.as_chunks_mut::<8>().0.iter_mut().zip(both) {
            *half = value.to_le_bytes();
        }
    }
}
