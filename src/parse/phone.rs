//! Phone numbers as they come and in the one form they are looked up by. No allocation, no tables.
//!
//! Three countries have numbers with and without a mobile digit for one and the same person:
//! Mexico (`52 1 ..` and `52 ..`), Argentina (`54 9 ..` and `54 ..`) and Brazil (`55 AA 9 ..` and
//! `55 AA ..`). There are two answers to that:
//!
//! - [`lookup`] drops the digit for Mexico and Argentina, where it stands between the country and
//!   the area, so that a rule longer than the country's code (`5255`, Mexico City) meets both forms.
//!   No area code there begins with the dropped digit, so nothing is confused.
//! - [`canonical`] drops Brazil's too, and is who the conversation is with. Routing does not use
//!   that form: Brazil's ninth digit stands behind the area code, so that dropping it
//!   would let a rule such as `55119` (the mobiles of Sao Paulo) match nothing or, worse, a
//!   landline. A short number that now looks like a neighbour's landline shares that neighbour's
//!   order and nothing else: both still get everything.
//!
//! What is forwarded and stored is always what arrived.

use std::fmt;

/// The longest phone number there is (E.164), without `+`.
pub const DIGITS_MAX: usize = 15;
/// Shorter strings of digits are service codes, not phones.
pub const DIGITS_MIN: usize = 7;

/// The digits of a phone number. Lives on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digits {
    /// ASCII digits; zero behind `len`, so that equal numbers are equal bytes.
    bytes: [u8; DIGITS_MAX],
    len: u8,
}

impl Digits {
    /// The digits in `text`, which may hold a leading `+`, blanks, `-` and `()` besides. None if
    /// it is anything else (a group id, a LID, a business-scoped id) or not 7 to 15 digits long.
    pub fn parse(text: &str) -> Option<Self> {
        // What the provider sends: bare digits.
        if let Some(digits) = Self::bare(text.as_bytes()) {
            return Some(digits);
        }
        let mut digits = Self { bytes: [0; DIGITS_MAX], len: 0 };
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {
                    *digits.bytes.get_mut(usize::from(digits.len))? = byte;
                    digits.len += 1;
                }
                b'+' if digits.len == 0 => {}
                b' ' | b'-' | b'(' | b')' => {}
                _ => return None,
            }
        }
        (usize::from(digits.len) >= DIGITS_MIN).then_some(digits)
    }

    /// Digits and nothing else, all of them looked at together.
    fn bare(text: &[u8]) -> Option<Self> {
        const ALL: u128 = u128::MAX / 255;
        if !(DIGITS_MIN..=DIGITS_MAX).contains(&text.len()) {
            return None;
        }
        let mut padded = [b'0'; DIGITS_MAX + 1];
        padded[..text.len()].copy_from_slice(text);
        let word = u128::from_le_bytes(padded);
        // A byte is a digit if its high half is 3 and stays so when 6 is added.
        let high = |word: u128| word & (ALL * 0xf0);
        if high(word) != ALL * 0x30 || high(word + ALL * 6) != ALL * 0x30 {
            return None;
        }
        let kept = word & (u128::MAX >> (8 * (padded.len() - text.len())));
        let [bytes @ .., _] = kept.to_le_bytes();
        Some(Self { bytes, len: text.len() as u8 })
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII digits are ever stored, so this cannot fail; checking 15 bytes costs less than
        // the reasoning an unchecked conversion would need.
        str::from_utf8(self).unwrap_or_default()
    }

    fn without(mut self, at: usize) -> Self {
        let len = usize::from(self.len);
        self.bytes.copy_within(at + 1..len, at);
        self.bytes[len - 1] = 0;
        self.len -= 1;
        self
    }
}

impl std::ops::Deref for Digits {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The form that rules are matched with: Mexico's and Argentina's mobile digit dropped.
pub fn lookup(phone: &str) -> Option<Digits> {
    let digits = Digits::parse(phone)?;
    Some(if digits.len == 13 && has_mobile_digit(&digits) { digits.without(2) } else { digits })
}

/// The one form of a person's number, whichever form it came in: the identity of a conversation.
pub fn canonical(phone: &str) -> Option<Digits> {
    let digits = lookup(phone)?;
    // 55, two digits of area, the ninth digit, eight digits.
    let brazilian_mobile = digits.len == 13 && digits.starts_with(b"55") && digits[4] == b'9';
    Some(if brazilian_mobile { digits.without(4) } else { digits })
}

/// A rule's prefix in the form of [`lookup`]: somebody may write `52155` for `5255`.
pub fn lookup_prefix(prefix: &str) -> String {
    if has_mobile_digit(prefix.as_bytes()) {
        format!("{}{}", &prefix[..2], &prefix[3..])
    } else {
        prefix.to_owned()
    }
}

fn has_mobile_digit(digits: &[u8]) -> bool {
    digits.starts_with(b"521") || digits.starts_with(b"549")
}

/// Whether two texts are the same phone number.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((canonical(a), canonical(b)), (Some(a), Some(b)) if a == b)
}

/// Whether `text` is a phone number.
pub(crate) fn is_phone(text: &str) -> bool {
    Digits::parse(text).is_some()
}

/// Whether `text` is a business-scoped user id: `CC.xxxx`, or `CC.ENT.xxxx` for a parent business.
pub(crate) fn is_bsuid(text: &str) -> bool {
    let [a, b, b'.', rest @ ..] = text.as_bytes() else { return false };
    let id = rest.strip_prefix(b"ENT.").unwrap_or(rest);
    a.is_ascii_uppercase()
        && b.is_ascii_uppercase()
        && (1..=128).contains(&id.len())
        && id.iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_is_read_in_every_way_it_is_written() {
        let check = |text: &str, expected: Option<&str>| {
            let found = Digits::parse(text);
            assert_eq!(found.as_ref().map(Digits::as_str), expected, "{text:?}");
        };
        check("16505551234", Some("16505551234"));
        check("+1 (650) 555-1234", Some("16505551234"));
        check("+250 788 123 200", Some("250788123200"));
        check("1234567", Some("1234567"));
        check("123456789012345", Some("123456789012345"));
        check("123456", None);
        check("1234567890123456", None);
        check("", None);
        check("+", None);
        check("1+6505551234", None);
        check("120363412345678901@g.us", None);
        check("447700900123@s.whatsapp.net", None);
        check("BR.1502576394655843", None);
        check("\u{0661}\u{0662}\u{0663}\u{0664}\u{0665}\u{0666}\u{0667}", None);
    }

    #[test]
    fn any_other_character_anywhere_makes_it_no_phone() {
        for at in 0..12 {
            for byte in 0..128u8 {
                let mut text = *b"919876500001";
                text[at] = byte;
                let text = str::from_utf8(&text).unwrap();
                let expected = byte.is_ascii_digit() || b" -()".contains(&byte) || byte == b'+' && at == 0;
                assert_eq!(Digits::parse(text).is_some(), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn both_forms_of_a_number_are_one_conversation() {
        let check = |text: &str, for_rules: &str, identity: &str| {
            assert_eq!(lookup(text).unwrap().as_str(), for_rules, "{text}: for rules");
            assert_eq!(canonical(text).unwrap().as_str(), identity, "{text}: identity");
        };
        check("5215500000123", "525500000123", "525500000123");
        check("525500000123", "525500000123", "525500000123");
        check("+54 9 11 0000-0123", "541100000123", "541100000123");
        check("541100000123", "541100000123", "541100000123");
        check("5531987654321", "5531987654321", "553187654321");
        check("553187654321", "553187654321", "553187654321");
        // A Brazilian landline and numbers of other lengths stay as they are.
        check("551132345678", "551132345678", "551132345678");
        check("52155000001", "52155000001", "52155000001");
        check("4915212345678", "4915212345678", "4915212345678");
    }

    #[test]
    fn equal_numbers_are_equal_bytes() {
        assert_eq!(canonical("5531987654321"), canonical("+55 31 8765-4321"));
        assert_eq!(canonical("5215500000123"), Digits::parse("525500000123"));
    }

    #[test]
    fn prefix_is_brought_to_the_form_it_is_matched_in() {
        let check = |prefix: &str, expected: &str| assert_eq!(lookup_prefix(prefix), expected);
        check("52155", "5255");
        check("521", "52");
        check("5491", "541");
        check("52", "52");
        check("5255", "5255");
        check("55119", "55119");
    }

    #[test]
    fn two_spellings_of_one_number_are_the_same() {
        assert!(same("+52 1 55 0000 0123", "525500000123"));
        assert!(!same("15550783100", "15550783101"));
    }

    #[test]
    fn user_ids_have_their_format() {
        let check = |text: &str, expected| assert_eq!(is_bsuid(text), expected, "{text}");
        check("IN.1648738043044942", true);
        check("US.ENT.11815799212886844830", true);
        check("us.1648738043044942", false);
        check("USA.1648738043044942", false);
        check("US.", false);
        check("US.ENT.", false);
        check("US.12-34", false);
        check("919876500001", false);
        check(&format!("US.{}", "1".repeat(128)), true);
        check(&format!("US.{}", "1".repeat(129)), false);
    }
}
