//! Digits as people write them, and the form in which one phone is always the same. Pure.

use crate::parse::phone;

/// Shorter runs of digits are no phones.
pub(super) const MIN: usize = phone::DIGITS_MIN;

/// Zeros of scripts whose digits stand behind each other (Unicode's decimal digits of the first plane, and
/// the mathematical ones and others of the second).
const ZEROS: [u32; 60] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50,
    0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0,
    0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11c50, 0x11d50,
    0x16a60, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e950,
];

/// The digit that a character is, as ASCII.
pub(super) fn digit(c: char) -> Option<u8> {
    if c.is_ascii() {
        return c.is_ascii_digit().then_some(c as u8);
    }
    let code = c as u32;
    let superscript = match code {
        0xb2 | 0xb3 => Some(code - 0xb0),
        0xb9 => Some(1),
        0x2070 | 0x2074..=0x2079 => Some(code - 0x2070),
        0x2080..=0x2089 => Some(code - 0x2080),
        // In circles, brackets and with full stops.
        0x2460..=0x2468 => Some(code - 0x245f),
        0x24ea => Some(0),
        0x2776..=0x277e => Some(code - 0x2775),
        _ => None,
    };
    let value = superscript.or_else(|| {
        let after = ZEROS.partition_point(|zero| *zero <= code);
        ZEROS[..after].last().map(|zero| code - zero).filter(|value| *value < 10)
    })?;
    Some(b'0' + value as u8)
}

/// Whether a character may stand between the digits of one phone.
pub(super) fn is_between(c: char) -> bool {
    match c {
        ' ' | '-' | '(' | ')' | '.' | '/' | '+' | '*' | '_' | '~' | '[' | ']' => true,
        '\n' | '\r' => false,
        _ if c.is_ascii() => c == '\t',
        // Blanks, dashes, marks that are not seen (of direction, of joining, of a key's shape).
        '\u{ad}' | '\u{200b}'..='\u{2015}' | '\u{202a}'..='\u{202f}' | '\u{2060}'..='\u{206f}' => true,
        '\u{2212}' | '\u{20e3}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ff0b}' | '\u{ff0d}' => true,
        '\u{b7}' | '\u{2022}' | '\u{fe63}' | '\u{30fb}' | '\u{61c}' => true,
        _ => c.is_whitespace(),
    }
}

/// Digits in the form in which a phone is always the same: in international form without zeros in front,
/// and without the digit that three countries' mobiles may have.
pub(super) fn canonical(digits: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(digits.strip_prefix(b"00").unwrap_or(digits)).unwrap_or_default();
    phone::canonical(text).map_or_else(|| text.as_bytes().to_vec(), |digits| digits.to_vec())
}

/// The digits of a text that is a phone and nothing else, however written.
pub(super) fn phone(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("tel:").unwrap_or(text);
    if text.chars().any(|c| digit(c).is_none() && !is_between(c)) {
        return None;
    }
    let digits: Vec<u8> = text.chars().filter_map(digit).collect();
    (digits.len() >= MIN).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_is_the_same_however_it_is_written() {
        let same = |text: &str| canonical(&phone(text).unwrap_or_else(|| panic!("{text}")));
        for text in [
            "4917055501234",
            "+49 170 555 01234",
            "0049-170/555.01234",
            "tel:+49 (170) 55501234",
            "\u{664}\u{669}\u{661}\u{667}\u{660}\u{665}\u{665}\u{665}\u{660}\u{661}\u{662}\u{663}\u{664}",
            "\u{ff14}\u{ff19}\u{a0}170\u{200b}555\u{2011}01234",
            "4\u{fe0f}\u{20e3}9\u{fe0f}\u{20e3}17055501234",
        ] {
            assert_eq!(same(text), b"4917055501234", "{text}");
        }
        assert_eq!(same("+52 1 55 0000 0123"), same("525500000123"));
        assert_eq!(phone("Ana 4917055501234"), None);
        assert_eq!(phone("123456"), None);
    }

    #[test]
    fn digits_are_those_of_unicode() {
        assert!(ZEROS.is_sorted());
        assert_eq!(digit('\u{966}'), Some(b'0'));
        assert_eq!(digit('\u{1d7ff}'), Some(b'9'));
        assert_eq!(digit('\u{970}'), None);
        assert_eq!(digit('\u{b2}'), Some(b'2'));
        assert_eq!(digit('x'), None);
    }
}
