//! Reading a region's answer: where it ends, its status, and when the region wants to be asked again.
//!
//! Incremental and pure: it is given what has arrived and says how much of it is done with. Only the
//! status and `Retry-After` matter to us, so bodies are skipped, not kept. Any doubt about where the
//! answer ends is an error, and an answer that is not whole is none: the parcel is sent again.
//!
//! Deliberately absent: HEAD and CONNECT (we only POST), content codings, a copy of the body.

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

mod chunks;

use chunks::Chunks;

/// Bytes of one head. Real answers have some hundred; proxies' own limits are 8 to 16 KiB.
pub const HEAD_MAX: usize = 16 * 1024;

/// Headers of one head.
const HEADERS_MAX: usize = 64;

/// Bytes of a body, with its framing, that are read before the rest is cut off: what a region has to
/// say to a webhook is far shorter, and beyond this a new connection costs less than reading on.
pub const BODY_MAX: usize = 64 * 1024;

/// Interim (1xx) answers before the final one. Two are seen in the field: 100 and 103.
const INTERIM_MAX: u8 = 8;

/// A final answer, read to its end or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<RetryAfter>,
    /// The connection may carry another request: the answer ended where its framing says, and the
    /// region did not ask to close.
    pub reusable: bool,
}

/// What `Retry-After` asks for. Nonsense counts as not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    Seconds(u64),
    At(SystemTime),
}

impl RetryAfter {
    /// How long from `now`; a moment that has passed is no wait.
    pub fn wait(self, now: SystemTime) -> Duration {
        match self {
            Self::Seconds(seconds) => Duration::from_secs(seconds),
            Self::At(at) => at.duration_since(now).unwrap_or_default(),
        }
    }

    /// Seconds, or a date in the one form that may be generated today:
    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit are a very long wait, not nonsense.
            return Some(Self::Seconds(text.parse().unwrap_or(u64::MAX)));
        }
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let date = text.strip_suffix(" GMT").filter(|date| date.len() == 25)?;
        let (day, month, year, time) =
            (date.get(5..7)?, date.get(8..11)?, date.get(12..16)?, date.get(17..)?);
        let month = 1 + MONTHS.iter().position(|name| *name == month)?;
        humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok().map(Self::At)
    }
}

/// Why the bytes are no answer. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("not HTTP: an answer starts with `HTTP/1.1 ` and a status; check the endpoint's port and scheme")]
    NotHttp,
    #[error("head breaks HTTP/1.1 syntax: {0}")]
    Syntax(&'static str),
    #[error("head over 16 KiB or 64 headers; a webhook's receiver should answer in a few hundred bytes")]
    HeadTooLarge,
    #[error("more than 8 interim (1xx) answers before the final one")]
    TooManyInterim,
    #[error("end of the answer in doubt: {0}")]
    Framing(&'static str),
    #[error("connection closed in the middle of the answer")]
    Truncated,
}

/// What to do after [`AnswerReader::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Drop the first `consumed` bytes and come back with more behind the rest.
    More { consumed: usize },
    /// The answer is whole (or cut, then it is not reusable). Bytes after `consumed` were not asked for.
    Done { consumed: usize, answer: Answer },
}

/// Reads one answer.
#[derive(Debug)]
pub struct AnswerReader {
    state: State,
    interim: u8,
    /// Bytes of the final answer's body so far, with its framing.
    body: usize,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the head are known not to end it.
    Head {
        scanned: usize,
    },
    Body {
        answer: Answer,
        kind: Body,
    },
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked(Chunks),
    /// Until the connection closes.
    Rest,
}

impl Default for AnswerReader {
    fn default() -> Self {
        Self::new()
    }
}

impl AnswerReader {
    pub fn new() -> Self {
        Self { state: State::Head { scanned: 0 }, interim: 0, body: 0 }
    }

    /// Looks at all bytes that have arrived and are not consumed yet.
    pub fn step(&mut self, buf: &[u8]) -> Result<Step, AnswerError> {
        let mut consumed = 0;
        loop {
            let rest = &buf[consumed..];
            match &mut self.state {
                State::Head { scanned } => {
                    let Some(end) = head_end(rest, scanned)? else {
                        return Ok(Step::More { consumed });
                    };
                    consumed += end;
                    match read_head(&rest[..end])? {
                        Head::Interim if self.interim == INTERIM_MAX => {
                            return Err(AnswerError::TooManyInterim);
                        }
                        Head::Interim => {
                            self.interim += 1;
                            *scanned = 0;
                        }
                        Head::Final(answer, kind) => self.state = State::Body { answer, kind },
                    }
                }
                State::Body { answer, kind } => {
                    let (taken, whole) = kind.skip(rest)?;
                    consumed += taken;
                    self.body += taken;
                    if whole {
                        return Ok(Step::Done { consumed, answer: *answer });
                    }
                    if self.body >= BODY_MAX || matches!(kind, Body::Length(left) if *left > BODY_MAX) {
                        let answer = Answer { reusable: false, ..*answer };
                        return Ok(Step::Done { consumed, answer });
                    }
                    return Ok(Step::More { consumed });
                }
            }
        }
    }

    /// The region has closed the connection: the end of an answer without a length, else too early.
    pub fn end(&self) -> Result<Answer, AnswerError> {
        match &self.state {
            State::Body { answer, kind: Body::Rest } => Ok(*answer),
            _ => Err(AnswerError::Truncated),
        }
    }
}

impl Body {
    /// How many bytes belong to the body, and whether it ends there.
    fn skip(&mut self, buf: &[u8]) -> Result<(usize, bool), AnswerError> {
        match self {
            Self::Length(left) => {
                let taken = buf.len().min(*left);
                *left -= taken;
                Ok((taken, *left == 0))
            }
            Self::Chunked(chunks) => chunks.skip(buf),
            Self::Rest => Ok((buf.len(), false)),
        }
    }
}

/// Where the head ends, behind its empty line.
fn head_end(buf: &[u8], scanned: &mut usize) -> Result<Option<usize>, AnswerError> {
    const START: &[u8] = b"HTTP/1.";
    let known = buf.len().min(START.len());
    if buf[..known] != START[..known] {
        return Err(AnswerError::NotHttp);
    }
    for at in *scanned..buf.len().min(HEAD_MAX) {
        if buf[at] != b'\n' {
            continue;
        }
        // The first bytes are known, so there are at least three before any line feed.
        match &buf[at - 3..at] {
            b"\r\n\r" => return Ok(Some(at + 1)),
            [.., b'\r'] => {}
            _ => return Err(AnswerError::Syntax("line feed without carriage return")),
        }
    }
    if buf.len() >= HEAD_MAX {
        return Err(AnswerError::HeadTooLarge);
    }
    *scanned = buf.len();
    Ok(None)
}

enum Head {
    Interim,
    Final(Answer, Body),
}

fn read_head(bytes: &[u8]) -> Result<Head, AnswerError> {
    use AnswerError::{Framing, Syntax};

    let mut space = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, bytes, &mut space) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Syntax("empty line inside the head")),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::HeadTooLarge),
        Err(httparse::Error::Version | httparse::Error::Status) => return Err(AnswerError::NotHttp),
        Err(httparse::Error::HeaderName) => return Err(Syntax("header name")),
        Err(httparse::Error::HeaderValue) => return Err(Syntax("header value")),
        Err(_) => return Err(Syntax("status or header line")),
    }
    let status = head.code.filter(|code| (100..600).contains(code)).ok_or(AnswerError::NotHttp)?;

    let mut length = None;
    let mut chunked = false;
    let mut retry_after = None;
    let mut reusable = head.version == Some(1);
    for header in head.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let value = content_length(header.value).ok_or(Framing("Content-Length is no plain number"))?;
            if length.replace(value).is_some() {
                return Err(Framing("two Content-Length headers"));
            }
        } else if is("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Framing("Transfer-Encoding is not `chunked`, once"));
            }
            chunked = true;
        } else if is("connection") {
            let close = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"close");
            reusable &= !header.value.split(|b| *b == b',').any(close);
        } else if is("retry-after") && retry_after.is_none() {
            retry_after = RetryAfter::parse(header.value);
        }
    }
    if chunked && length.is_some() {
        return Err(Framing("Content-Length and Transfer-Encoding together"));
    }
    if chunked && head.version != Some(1) {
        return Err(Framing("Transfer-Encoding in an HTTP/1.0 answer"));
    }

    let promises_body = chunked || length.is_some_and(|length| length > 0);
    let body = match status {
        101 => return Err(Framing("101 Switching Protocols, which was not asked for")),
        100..200 if promises_body => return Err(Framing("interim answer with a body")),
        100..200 => return Ok(Head::Interim),
        // Neither has a body. A 204 that announces one may well send it: that would be unasked bytes.
        204 => {
            reusable &= !promises_body;
            Body::Length(0)
        }
        304 => Body::Length(0),
        _ if chunked => Body::Chunked(Chunks::new()),
        _ => match length {
            Some(length) => Body::Length(length),
            None => {
                reusable = false;
                Body::Rest
            }
        },
    };
    Ok(Head::Final(Answer { status, retry_after, reusable }, body))
}

/// 1 to 15 digits: no sign, no list, and no overflow on the way.
fn content_length(value: &[u8]) -> Option<usize> {
    if value.is_empty() || value.len() > 15 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
