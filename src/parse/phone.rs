//! What is a phone number, and which two are the same.
//!
//! Group ids, LIDs and business-scoped user ids stand in phone fields too: only 7 to 15 digits with
//! the usual punctuation are a phone. Leading zeros stay (Italy needs them). The canonical form is for
//! looking things up and comparing; what is forwarded and logged is what arrived.

/// Digits of a phone number, without punctuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Digits {
    bytes: [u8; Digits::MOST],
    len: u8,
}

impl Digits {
    /// E.164; what is longer is a group id or a LID.
    const MOST: usize = 15;
    const LEAST: usize = 7;

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// The digits of `text`, if it is a phone number.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let mut digits = Self { bytes: [0; Self::MOST], len: 0 };
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {
                    *digits.bytes.get_mut(usize::from(digits.len))? = byte;
                    digits.len += 1;
                }
                b'+' | b' ' | b'-' | b'(' | b')' => {}
                _ => return None,
            }
        }
        (usize::from(digits.len) >= Self::LEAST).then_some(digits)
    }

    /// The digits of `text` in the one form of a number that WhatsApp writes in two:
    /// Mexico `521` + 10 and Argentina `549` + 10 lose the third digit, Brazil `55` + area +
    /// nine digits loses its ninth digit, which many a `wa_id` lacks.
    pub(crate) fn canonical(text: &str) -> Option<Self> {
        let digits = Self::of(text)?;
        Some(match digits.as_bytes() {
            [b'5', b'2', b'1', rest @ ..] | [b'5', b'4', b'9', rest @ ..] if rest.len() == 10 => {
                digits.without(2)
            }
            [b'5', b'5', _, _, b'9', rest @ ..] if rest.len() == 8 => digits.without(4),
            _ => digits,
        })
    }

    fn without(mut self, at: usize) -> Self {
        self.bytes.copy_within(at + 1.., at);
        self.len -= 1;
        self.bytes[usize::from(self.len)..].fill(0);
        self
    }
}

/// Whether two texts are the same phone number.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || matches!((Digits::canonical(a), Digits::canonical(b)), (Some(a), Some(b)) if a == b)
}

/// Whether `text` is a phone number.
pub(crate) fn is_phone(text: &str) -> bool {
    Digits::of(text).is_some()
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
    fn only_phone_numbers_are_phones() {
        let check = |text, expected: Option<&str>| {
            let digits = Digits::of(text);
            assert_eq!(digits.as_ref().map(Digits::as_bytes), expected.map(str::as_bytes), "{text}");
        };
        check("919876500001", Some("919876500001"));
        check("+1 (555) 078-3100", Some("15550783100"));
        check("0012345", Some("0012345"));
        check("123456", None);
        check("123456789012345", Some("123456789012345"));
        check("1234567890123456", None);
        check("120363418770915618@g.us", None);
        check("120363418770915618", None);
        check("98711384416410@lid", None);
        check("IN.1648738043044942", None);
        check("", None);
        check("+", None);
        check("٩١٩٨٧٦٥٠٠٠٠١", None);
    }

    #[test]
    fn one_person_has_one_canonical_number() {
        let check = |text, expected: &str| {
            assert_eq!(Digits::canonical(text).unwrap().as_bytes(), expected.as_bytes(), "{text}");
        };
        check("5215500000123", "525500000123");
        check("525500000123", "525500000123");
        check("+54 9 11 0000-0123", "541100000123");
        check("541100000123", "541100000123");
        check("5561991230001", "556191230001");
        check("556191230001", "556191230001");
        // A Brazilian landline has twelve digits already; 521... of another length is no Mexican mobile.
        check("551130001234", "551130001234");
        check("52155000001", "52155000001");
        check("390612345678", "390612345678");
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
