//! What single header fields mean, for requests and answers alike.

/// Letters, digits and the bytes of `others`.
const fn set(others: &[u8]) -> [bool; 256] {
    let mut set = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        set[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < others.len() {
        set[others[i] as usize] = true;
        i += 1;
    }
    set
}

/// RFC 9110 5.6.2 `tchar`.
static TOKEN: [bool; 256] = set(b"!#$%&'*+-.^_`|~");
/// RFC 3986 3.2.2 `reg-name`.
static NAME: [bool; 256] = set(b"-._~!$&'()*+,;=%");

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| TOKEN[b as usize])
}

/// The members of a comma-separated list, without blanks around them; an empty member stays.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `1*DIGIT` (RFC 9110 8.6) up to 2^63 - 1. A list of equal values is refused: two lengths are a doubt.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    // 19 digits always fit a u64.
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    (number <= i64::MAX as u64).then_some(number)
}

/// The transfer codings of a message, collected over all its `Transfer-Encoding` fields.
#[derive(Debug, Default)]
pub(super) struct Codings {
    chunked: usize,
    other: usize,
    chunked_last: bool,
    malformed: bool,
}

/// What [`Codings`] come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Absent,
    Chunked,
    /// Well formed, but nothing that we decode.
    Unknown,
    Invalid,
}

impl Codings {
    pub(super) fn add(&mut self, value: &[u8]) {
        for member in members(value) {
            // Obs-text hides blanks (0x85, 0xa0) from one parser and shows them to another.
            self.malformed |= member.is_empty() || !member.iter().all(|b| (b' '..=b'~').contains(b));
            self.chunked_last = member.eq_ignore_ascii_case(b"chunked");
            if self.chunked_last {
                self.chunked += 1;
            } else {
                self.other += 1;
            }
        }
    }

    pub(super) fn verdict(&self) -> Coding {
        match (self.chunked, self.other) {
            (0, 0) => Coding::Absent,
            _ if self.malformed => Coding::Invalid,
            (1, 0) => Coding::Chunked,
            (0, _) => Coding::Unknown,
            (1, _) if self.chunked_last => Coding::Unknown,
            _ => Coding::Invalid,
        }
    }
}

/// `uri-host [ ":" port ]` (RFC 9112 3.2), not empty.
pub(super) fn is_host(value: &[u8]) -> bool {
    let host_end = match value {
        [b'[', rest @ ..] => {
            let inside =
                rest.iter().take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).count();
            if inside == 0 || rest.get(inside) != Some(&b']') {
                return false;
            }
            inside + 2
        }
        _ => value.iter().take_while(|b| NAME[**b as usize]).count(),
    };
    match &value[host_end..] {
        _ if host_end == 0 => false,
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Names that frame a message or prove where it comes from, with the dash that a lookalike replaces.
const TRUSTED: [&[u8]; 7] = [
    b"content-length",
    b"transfer-encoding",
    b"content-encoding",
    b"x-hub-signature",
    b"x-hub-signature-256",
    b"x-webhook-signature",
    b"x-forwarded-for",
];

/// True for `Content_Length` and its like.
pub(super) fn is_lookalike(name: &[u8]) -> bool {
    matches!(name.len(), 14..=19)
        && name.contains(&b'_')
        && TRUSTED.iter().any(|trusted| {
            trusted.len() == name.len()
                && trusted
                    .iter()
                    .zip(name)
                    .all(|(t, n)| *t == if *n == b'_' { b'-' } else { n.to_ascii_lowercase() })
        })
}

/// True for a field that `Connection` must not name: it would be dropped on the way by one hop and believed by the next.
pub(super) fn is_end_to_end(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"host") || TRUSTED.iter().any(|trusted| trusted.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits_only() {
        let check =
            |value: &str, expected| assert_eq!(content_length(value.as_bytes()), expected, "{value:?}");
        check("0", Some(0));
        check("0005", Some(5));
        check("9223372036854775807", Some(i64::MAX as u64));
        for bad in ["", "+5", "-1", "0x10", "5_0", "1e3", "5 5", "5, 5", "5a", "9223372036854775808"] {
            check(bad, None);
        }
        check("00000000000000000005", None);
    }

    #[test]
    fn codings_are_chunked_once_and_last_or_refused() {
        let check = |values: &[&[u8]], expected| {
            let mut codings = Codings::default();
            values.iter().for_each(|value| codings.add(value));
            assert_eq!(codings.verdict(), expected, "{values:?}");
        };
        check(&[], Coding::Absent);
        check(&[b"chunked"], Coding::Chunked);
        check(&[b"CHUNKED"], Coding::Chunked);
        for unknown in
            [&b"gzip"[..], b"identity", b"xchunked", b"\"chunked\"", b"gzip, chunked", b"chunked;q=1"]
        {
            check(&[unknown], Coding::Unknown);
        }
        check(&[b"identity", b"chunked"], Coding::Unknown);
        for bad in [
            &b""[..],
            b"chunked, gzip",
            b"chunked, chunked",
            b",chunked",
            b"chunked,",
            b"\xa0chunked",
            b"chunked\x85",
        ] {
            check(&[bad], Coding::Invalid);
        }
        check(&[b"chunked", b"chunked"], Coding::Invalid);
        check(&[b"chunked", b"identity"], Coding::Invalid);
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for good in ["a", "a.example:8443", "127.0.0.1", "[::1]", "[::1]:80", "a:", "x_y.example"] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "a:1:2", "[::1", "[]", "::1]", "[::1]x", "a?b", "a:123456",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn lookalikes_are_recognised() {
        for yes in ["Content_Length", "TRANSFER_ENCODING", "x_hub-signature_256", "X_Forwarded_For"] {
            assert!(is_lookalike(yes.as_bytes()), "{yes}");
        }
        for no in ["Content-Length", "x_request_id_here", "content_lengths"] {
            assert!(!is_lookalike(no.as_bytes()), "{no}");
        }
    }
}
