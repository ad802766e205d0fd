//! The GET by which Meta asks, whenever a callback URL or its token is set, whether the URL is ours.
//!
//! The caller answers 200 `text/plain` with the challenge and nothing else: the challenge is whatever the
//! caller wrote, so any other type could reflect a script. It is an opaque string, never a number.

use super::{Verifier, is_one_of};

/// Longest challenge that is given back. Meta's have about ten digits.
const CHALLENGE_MAX: usize = 256;

/// Why a handshake is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRefusal {
    #[error("expected hub.mode, hub.challenge and hub.verify_token, each once")]
    Parameters,
    #[error("a parameter is not valid percent-encoded UTF-8")]
    Encoding,
    #[error("hub.mode is not `subscribe`")]
    Mode,
    #[error("hub.challenge has control characters or more than {CHALLENGE_MAX} bytes")]
    Challenge,
    #[error("hub.verify_token is none of the source's verify tokens")]
    Token,
}

impl HandshakeRefusal {
    /// HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Token => 403,
            _ => 400,
        }
    }
}

impl Verifier {
    /// Checks the query of a handshake (what follows `?`); the challenge to answer with.
    pub fn handshake(&self, query: &str) -> Result<String, HandshakeRefusal> {
        let (mut mode, mut challenge, mut token) = (None, None, None);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match decode(name, b'+').as_deref() {
                Some(b"hub.mode") => &mut mode,
                Some(b"hub.challenge") => &mut challenge,
                Some(b"hub.verify_token") => &mut token,
                // The callback URL's own query comes back with the rest.
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(HandshakeRefusal::Parameters);
            }
        }
        let present = |value: Option<_>| value.filter(|value: &&str| !value.is_empty());
        let (Some(mode), Some(challenge), Some(token)) = (present(mode), present(challenge), token) else {
            return Err(HandshakeRefusal::Parameters);
        };
        let challenge = decode(challenge, b'+').ok_or(HandshakeRefusal::Encoding)?;
        let challenge = String::from_utf8(challenge).map_err(|_| HandshakeRefusal::Encoding)?;
        // A token with a blank comes as `%20` or as `+`, one with a plus as `%2B` or as it is.
        let (plain, form) = (decode(token, b'+'), decode(token, b' '));
        let (plain, form) = plain.zip(form).ok_or(HandshakeRefusal::Encoding)?;
        if mode != "subscribe" {
            return Err(HandshakeRefusal::Mode);
        }
        if challenge.len() > CHALLENGE_MAX || challenge.chars().any(char::is_control) {
            return Err(HandshakeRefusal::Challenge);
        }
        let (plain, form) = (is_one_of(&self.tokens, &plain), is_one_of(&self.tokens, &form));
        plain.or(form).map(|_| challenge).ok_or(HandshakeRefusal::Token)
    }
}

/// Percent-decodes `text`; a `+` becomes `plus`. None if an escape is not two hex digits.
fn decode(text: &str, plus: u8) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => super::hex_value(bytes.next()?)? << 4 | super::hex_value(bytes.next()?)?,
            b'+' => plus,
            _ => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceKind;
    use crate::verify::tests::source;

    #[test]
    fn the_challenge_comes_back_only_for_a_right_token_and_as_it_was() {
        use HandshakeRefusal::{Challenge, Encoding, Mode, Parameters, Token};
        let verifier = Verifier::new(&source(SourceKind::Whatsapp, &["s"], &["s3cret", "a b+c&d"]));
        let check = |query: &str, expected: Result<&str, HandshakeRefusal>| {
            assert_eq!(verifier.handshake(query), expected.map(String::from), "{query}");
        };
        let right = "hub.mode=subscribe&hub.verify_token=s3cret";
        let with = |challenge: &str| format!("{right}&hub.challenge={challenge}");
        check(&with("1158201444"), Ok("1158201444"));
        check("hub.challenge=01&hub.verify_token=s3cret&x=y&hub.mode=subscribe", Ok("01"));
        check("hub%2Emode=subscribe&hub%2Everify_token=s3%63ret&hub.challenge=1", Ok("1"));
        check(&with("%3Cscript%3E%20%C3%A4+%2B"), Ok("<script> ä++"));
        for token in ["a%20b%2Bc%26d", "a+b%2Bc%26d", "a%20b%2bc%26d"] {
            check(&format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1"), Ok("1"));
        }
        check(&with(&"7".repeat(256)), Ok("7".repeat(256).as_str()));

        check("", Err(Parameters));
        check(right, Err(Parameters));
        check(&with(""), Err(Parameters));
        check(&format!("{}&hub.mode=subscribe", with("1")), Err(Parameters));
        check(&format!("{}&hub.challenge=2", with("1")), Err(Parameters));
        check(&format!("{}&hub.verify_token=s3cret", with("1")), Err(Parameters));
        check("hub.mode=subscribe&hub.verify_token=&hub.challenge=1", Err(Token));
        check(&with("%zz"), Err(Encoding));
        check(&with("%4"), Err(Encoding));
        check(&with("%ff"), Err(Encoding));
        check("hub.mode=Subscribe&hub.verify_token=s3cret&hub.challenge=1", Err(Mode));
        check(&with(&"7".repeat(257)), Err(Challenge));
        check(&with("1%0d%0aSet-Cookie:x"), Err(Challenge));
        check(&with("%00"), Err(Challenge));
        for token in ["S3CRET", "s3cret%20", "s3cre", "x"] {
            check(&format!("hub.mode=subscribe&hub.verify_token={token}&hub.challenge=1"), Err(Token));
        }
        assert_eq!((Token.status(), Parameters.status(), Challenge.status()), (403, 400, 400));
    }

    #[test]
    fn a_source_without_tokens_gives_no_challenge_back() {
        let verifier = Verifier::new(&source(SourceKind::Whatsapp, &["s"], &[]));
        let query = "hub.mode=subscribe&hub.verify_token=x&hub.challenge=1";
        assert_eq!(verifier.handshake(query), Err(HandshakeRefusal::Token));
    }
}
