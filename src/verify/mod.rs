//! Who called: the signature over a webhook's raw bytes, the secret of a WASenderApi session, the
//! handshake that proves to Meta that the URL is ours.
//!
//! Invariants: bytes are checked as they came, before anything looks into them; every configured secret is
//! tried on every call and compared in constant time, so that the time an answer takes tells nothing about
//! which secret was nearly right; the legacy SHA-1 header is never looked at. Nothing here is allocated
//! per webhook. Deliberately absent: freshness. Meta signs no time; repeats are the dedupe's matter.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};

use crate::config::{Source, SourceKind};
use crate::fault;

mod handshake;

pub use handshake::HandshakeRefusal;

const PREFIX: &[u8; 7] = b"sha256=";

/// Length of a signature as a header value: `sha256=` and 64 hex digits.
pub const SIGNATURE_LEN: usize = PREFIX.len() + 2 * SHA256_OUTPUT_LEN;

/// Proof that a webhook came from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Verified {
    /// Which of the source's secrets fits; of several equal ones the first.
    pub secret: usize,
    /// The HMAC that came with the body; zeros for WASenderApi, which sends none.
    pub mac: Mac,
}

/// HMAC-SHA256 of a body.
pub type Mac = [u8; SHA256_OUTPUT_LEN];

/// Why a webhook is not believed. Always 401, and always the same for whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no signature header; expected exactly one")]
    Missing,
    #[error("more than one signature header; expected exactly one")]
    Repeated,
    #[error("malformed signature; expected `sha256=` and 64 hex digits")]
    Malformed,
    #[error(
        "the signature fits none of the source's secrets; check the app secret in the provider's dashboard"
    )]
    Mismatch,
}

/// Checks and makes the signatures of one source. Keys are prepared once.
pub struct Verifier {
    kind: SourceKind,
    keys: Vec<Key>,
    /// SHA-256 of each secret: what a WASenderApi header is compared with, so that not even lengths show.
    secrets: Vec<[u8; SHA256_OUTPUT_LEN]>,
    tokens: Vec<[u8; SHA256_OUTPUT_LEN]>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("kind", &self.kind).field("secrets", &self.keys.len()).finish()
    }
}

impl Verifier {
    pub fn new(source: &Source) -> Self {
        Self {
            kind: source.kind,
            keys: source.secrets.iter().map(|secret| Key::new(HMAC_SHA256, secret.expose())).collect(),
            secrets: source.secrets.iter().map(|secret| sha256(secret.expose())).collect(),
            tokens: source.verify_tokens.iter().map(|token| sha256(token.expose())).collect(),
        }
    }

    /// Name of the header that [`Verifier::verify`] wants the values of, in lower case.
    pub fn header(&self) -> &'static str {
        match self.kind {
            SourceKind::Whatsapp => "x-hub-signature-256",
            SourceKind::Wasender => "x-webhook-signature",
        }
    }

    /// Checks a webhook: `values` are those of all headers called [`Verifier::header`], `body` is as received.
    pub fn verify<'h>(
        &self,
        values: impl IntoIterator<Item = &'h [u8]>,
        body: &[u8],
    ) -> Result<Verified, Refusal> {
        let mut values = values.into_iter();
        let value = values.next().ok_or(Refusal::Missing)?;
        if values.next().is_some() {
            return Err(Refusal::Repeated);
        }
        let keys = if fault::planted("second-secret-forgotten") { 1 } else { self.keys.len() };
        let (fits, mac) = match self.kind {
            SourceKind::Whatsapp => {
                let mac = decode(value).ok_or(Refusal::Malformed)?;
                (first(self.keys.iter().take(keys).map(|key| hmac::verify(key, body, &mac).is_ok())), mac)
            }
            SourceKind::Wasender => (is_one_of(&self.secrets, value), Mac::default()),
        };
        fits.map(|secret| Verified { secret, mac }).ok_or(Refusal::Mismatch)
    }

    /// The HMAC of a body with the first secret.
    pub fn mac(&self, body: &[u8]) -> Mac {
        // A source without secrets is refused by the configuration; zeros fit nothing.
        let mut mac = Mac::default();
        if let Some(key) = self.keys.first() {
            mac.copy_from_slice(hmac::sign(key, body).as_ref());
        }
        mac
    }

    /// Signs a body with the first secret: the value of an `x-hub-signature-256` header.
    pub fn sign(&self, body: &[u8]) -> [u8; SIGNATURE_LEN] {
        let bytes = self.mac(body);
        let mut value = [b'0'; SIGNATURE_LEN];
        let (prefix, digits) = value.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = hex_digit(byte >> 4);
            pair[1] = hex_digit(byte & 15);
        }
        value
    }
}

/// Index of the secret whose digest is that of `value`.
fn is_one_of(digests: &[[u8; SHA256_OUTPUT_LEN]], value: &[u8]) -> Option<usize> {
    let value = sha256(value);
    first(digests.iter().map(|digest| verify_slices_are_equal(digest, &value).is_ok()))
}

/// Index of the first that fits, after all have been tried.
fn first(fits: impl Iterator<Item = bool>) -> Option<usize> {
    fits.enumerate().fold(None, |found, (index, fits)| found.or(fits.then_some(index)))
}

fn sha256(bytes: &[u8]) -> [u8; SHA256_OUTPUT_LEN] {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// The 32 bytes of `sha256=` + 64 hex digits of either case.
fn decode(value: &[u8]) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    let digits = value.strip_prefix(PREFIX).filter(|digits| digits.len() == 2 * SHA256_OUTPUT_LEN)?;
    let mut tag = [0; SHA256_OUTPUT_LEN];
    // Digits are random, so a branch on each would be guessed wrong every third time. The bits of
    // all values together tell whether one of them was no digit.
    let mut all = 0;
    for (byte, pair) in tag.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
        *byte = high << 4 | low;
        all |= high | low;
    }
    (all < 16).then_some(tag)
}

fn hex_value(digit: u8) -> Option<u8> {
    Some(HEX[usize::from(digit)]).filter(|value| *value < 16)
}

/// Value of a hex digit of either case; 255 for any other byte.
static HEX: [u8; 256] = {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        let digit = b"0123456789abcdef"[value as usize];
        values[digit as usize] = value;
        values[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    values
};

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Secret;

    pub(crate) fn source(kind: SourceKind, secrets: &[&str], tokens: &[&str]) -> Source {
        let all = |texts: &[&str]| texts.iter().map(|text| Secret::new(*text)).collect();
        Source {
            name: "main".into(),
            kind,
            path: "/webhook".into(),
            secrets: all(secrets),
            verify_tokens: all(tokens),
        }
    }

    fn meta(secrets: &[&str]) -> Verifier {
        Verifier::new(&source(SourceKind::Whatsapp, secrets, &[]))
    }

    fn one(verifier: &Verifier, value: &str, body: &[u8]) -> Result<usize, Refusal> {
        verifier.verify([value.as_bytes()], body).map(|verified| verified.secret)
    }

    #[test]
    fn metas_own_vectors_verify_and_are_made() {
        let check = |body: &str, len: usize, hex: &str| {
            assert_eq!(body.len(), len);
            let verifier = meta(&["test-app-secret"]);
            let value = format!("sha256={hex}");
            assert_eq!(one(&verifier, &value, body.as_bytes()), Ok(0));
            assert_eq!(verifier.sign(body.as_bytes()), value.as_bytes());
        };
        check(
            r#"{"object":"whatsapp_business_account","entry":[]}"#,
            49,
            "c84a394cc475525991e78ff16e430b02e47f953877d2af0ade26956ce6f384dc",
        );
        check(
            r#"{"t":"\u00e4\u00f6\u00e5 a\/b"}"#,
            31,
            "84d526c5c15b929a2e04f40170b251db6af7ca6d657092030fc13eb4ad8c03fa",
        );
        check(r#"{"t":"äöå a/b"}"#, 18, "76c8a147269841ed084e9adbbfe6b7baeb4c9a3623dd00fcde913b8c9e749b63");
    }

    #[test]
    fn every_sample_verifies_over_its_raw_bytes() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
        let verifier = meta(&["sample-app-secret"]);
        let list = std::fs::read_to_string(format!("{folder}/SIGNATURES.csv")).unwrap();
        let mut samples = 0;
        for line in list.lines().skip(1) {
            let [file, len, value] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let body = std::fs::read(format!("{folder}/{file}")).unwrap();
            assert_eq!(body.len(), len.parse::<usize>().unwrap(), "{file}");
            assert_eq!(one(&verifier, value, &body), Ok(0), "{file}");
            assert_eq!(verifier.sign(&body), value.as_bytes(), "{file}");
            samples += 1;
        }
        assert!(samples > 60, "{samples} samples");
    }

    #[test]
    fn only_exactly_one_well_formed_signature_of_a_known_secret_is_believed() {
        let verifier = meta(&["old", "new"]);
        let body = b"{}";
        let good = String::from_utf8(meta(&["new"]).sign(body).to_vec()).unwrap();
        let hex = &good[7..];
        let check = |value: &str, expected| assert_eq!(one(&verifier, value, body), expected, "{value}");
        check(&good, Ok(1));
        check(&format!("sha256={}", hex.to_uppercase()), Ok(1));
        check(&format!("SHA256={hex}"), Err(Refusal::Malformed));
        check(&format!("sha1={}", &hex[..40]), Err(Refusal::Malformed));
        check(hex, Err(Refusal::Malformed));
        check("", Err(Refusal::Malformed));
        check("sha256=", Err(Refusal::Malformed));
        check(&good[..70], Err(Refusal::Malformed));
        check(&format!("{good}0"), Err(Refusal::Malformed));
        check(&format!("{good} "), Err(Refusal::Malformed));
        check(&format!(" {good}"), Err(Refusal::Malformed));
        check(&format!("sha256={}g", &hex[..63]), Err(Refusal::Malformed));
        check(&format!("sha256={}", "é".repeat(32)), Err(Refusal::Malformed));
        check(&format!("sha256={}", "0".repeat(64)), Err(Refusal::Mismatch));
        let none: [&[u8]; 0] = [];
        assert_eq!(verifier.verify(none, body), Err(Refusal::Missing));
        assert_eq!(verifier.verify([good.as_bytes(), good.as_bytes()], body), Err(Refusal::Repeated));
        assert_eq!(one(&meta(&["other"]), &good, body), Err(Refusal::Mismatch));
        assert_eq!(one(&meta(&[]), &good, body), Err(Refusal::Mismatch));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let verifier = meta(&["secret"]);
        let body = b"{\"a\":1}".to_vec();
        let value = verifier.sign(&body);
        for bit in 0..body.len() * 8 {
            let mut other = body.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                verifier.verify([&value[..]], &other),
                Err(Refusal::Mismatch),
                "bit {bit} of the body"
            );
        }
        for bit in 0..value.len() * 8 {
            let mut other = value;
            other[bit / 8] ^= 1 << (bit % 8);
            let same = other.eq_ignore_ascii_case(&value) && other.starts_with(PREFIX);
            assert_eq!(verifier.verify([&other[..]], &body).is_ok(), same, "bit {bit} of the header");
        }
    }

    #[test]
    fn a_wasender_header_is_the_secret_itself() {
        let verifier = Verifier::new(&source(SourceKind::Wasender, &["one", "two"], &[]));
        let check = |value: &str, expected| assert_eq!(one(&verifier, value, b"{}"), expected, "{value}");
        check("one", Ok(0));
        check("two", Ok(1));
        check("", Err(Refusal::Mismatch));
        check("on", Err(Refusal::Mismatch));
        check("One", Err(Refusal::Mismatch));
        check("one ", Err(Refusal::Mismatch));
        assert_eq!(verifier.header(), "x-webhook-signature");
    }

    #[test]
    fn secrets_are_never_printed() {
        let printed = format!("{:?}", meta(&["hunter2"]));
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
