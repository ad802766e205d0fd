//! The answer of a region, read with the same strictness as a request: a region is outside data too.
//!
//! The status decides what becomes of a parcel; the body decides nothing. So it is read only to
//! be able to use the connection again, and not beyond [`BODY_MAX`].

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::fields::{Coding, Codings, content_length, members};
use super::request::NO_HEADERS;
use super::{Chunked, Scan};

/// Bytes of all heads of one answer, interim ones included.
const HEADS_MAX: usize = 16 << 10;
/// Bytes of body, chunk framing included, that are worth reading to keep a connection.
const BODY_MAX: usize = 64 << 10;
/// Interim (1xx) answers before the final one.
const INTERIM_MAX: usize = 8;

/// Reads one answer from a buffer that grows. Start each answer with a new one.
#[derive(Debug, Default)]
pub struct ResponseDecoder {
    state: State,
    interim: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    /// In the head that starts at `start`.
    Head {
        start: usize,
        scan: Scan,
    },
    Body {
        response: Response,
        rest: Rest,
    },
}

/// What is left of a body.
#[derive(Debug)]
enum Rest {
    /// It ends at this offset.
    Until(usize),
    Chunks(Chunked),
    UntilClosed,
}

/// Where [`ResponseDecoder::decode`] stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    NeedMore,
    Done(Response),
}

/// A final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub retry_after: Option<RetryAfter>,
    /// The connection can carry another request. The owner must still see that nothing more arrives on it unasked.
    pub reusable: bool,
    /// Bytes of the buffer that belong to this answer.
    pub consumed: usize,
    /// Where the body's bytes are in the buffer as far as they were read, chunk framing included: for a person to read.
    pub body: Range<usize>,
}

/// A `Retry-After` that could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    After(Duration),
    At(SystemTime),
}

/// What came is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not one byte came: on a kept connection the request may never have been seen.
    #[error("the connection was closed without an answer")]
    Closed,
    #[error("the connection was closed within the head of the answer")]
    Truncated,
    #[error("the answer is no HTTP/1.1: {0}")]
    Malformed(&'static str),
}

impl ResponseDecoder {
    /// Looks at all bytes received so far, from the first byte of the answer on; `eof` once no more will come.
    pub fn decode(&mut self, buf: &[u8], eof: bool) -> Result<Step, BadAnswer> {
        loop {
            match &mut self.state {
                State::Start => self.state = State::Head { start: 0, scan: Scan::default() },
                State::Head { start, scan } => {
                    let start = *start;
                    let Some(end) = head(buf, start, scan)? else {
                        return match eof {
                            false => Ok(Step::NeedMore),
                            true if buf.is_empty() => Err(BadAnswer::Closed),
                            true => Err(BadAnswer::Truncated),
                        };
                    };
                    self.state = match interpret(&buf[start..end], end)? {
                        Some((response, rest)) => State::Body { response, rest },
                        None if self.interim == INTERIM_MAX => {
                            return Err(BadAnswer::Malformed("more than 8 interim answers"));
                        }
                        None => {
                            self.interim += 1;
                            State::Head { start: end, scan: Scan::default() }
                        }
                    };
                }
                State::Body { response, rest } => return body(buf, eof, response, rest),
            }
        }
    }
}

/// Where the head that starts at `start` ends.
fn head(buf: &[u8], start: usize, scan: &mut Scan) -> Result<Option<usize>, BadAnswer> {
    const BARE: BadAnswer = BadAnswer::Malformed("a line end is not CR LF");
    let head = &buf[start..buf.len().min(HEADS_MAX).max(start)];
    let seen = head.len().min(7);
    if head[..seen] != b"HTTP/1."[..seen] {
        return Err(BadAnswer::Malformed("it does not start with HTTP/1."));
    }
    let first_line = scan.lines() > 0 || scan.line(head).map_err(|_| BARE)?.is_some();
    let end = if first_line { scan.head_end(head).map_err(|_| BARE)? } else { None };
    match end {
        Some(end) => Ok(Some(start + end)),
        None if buf.len() >= HEADS_MAX => Err(BadAnswer::Malformed("the head is larger than 16 KiB")),
        None => Ok(None),
    }
}

/// The final answer whose head ends at `end`, and how its body ends; `None` for an interim one.
fn interpret(head: &[u8], end: usize) -> Result<Option<(Response, Rest)>, BadAnswer> {
    const MALFORMED: BadAnswer = BadAnswer::Malformed("its head is malformed");
    let mut headers = NO_HEADERS;
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        _ => return Err(MALFORMED),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(MALFORMED) };
    match status {
        101 => return Err(BadAnswer::Malformed("it switches to a protocol that was not asked for")),
        100..=199 => return Ok(None),
        200..=599 => {}
        _ => return Err(BadAnswer::Malformed("its status is not between 100 and 599")),
    }
    let (mut length, mut codings, mut close, mut retry_after) =
        (None, Codings::default(), version == 0, None);
    for header in &*parsed.headers {
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("connection") => {
                close |= members(header.value).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => {
                retry_after = read_retry_after(header.value)
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let bytes = content_length(header.value);
                let bytes = bytes.ok_or(BadAnswer::Malformed("its Content-Length is no number"))?;
                if length.replace(bytes).is_some() {
                    return Err(BadAnswer::Malformed("it has several Content-Lengths"));
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => codings.add(header.value),
            _ => {}
        }
    }
    let mut response = Response { status, retry_after, reusable: !close, consumed: end, body: end..end };
    let rest = match (codings.verdict(), length) {
        // Bodiless whatever the fields say (RFC 9112 6.3); if they say otherwise, somebody is confused.
        (coding, length) if matches!(status, 204 | 304) => {
            response.reusable &= status == 304 || (coding == Coding::Absent && length.unwrap_or(0) == 0);
            Rest::Until(end)
        }
        (Coding::Absent, Some(bytes)) if bytes > BODY_MAX as u64 => {
            response.reusable = false;
            Rest::Until(end)
        }
        (Coding::Absent, Some(bytes)) => Rest::Until(end + bytes as usize),
        (Coding::Absent, None) => Rest::UntilClosed,
        (Coding::Chunked, None) if version == 1 => Rest::Chunks(Chunked::new(BODY_MAX)),
        _ => return Err(BadAnswer::Malformed("it is not clear where its body ends")),
    };
    response.reusable &= !matches!(rest, Rest::UntilClosed);
    Ok(Some((response, rest)))
}

/// Reads the body on. What was read stays in `buf`, which is therefore bounded by the two limits.
fn body(buf: &[u8], eof: bool, response: &mut Response, rest: &mut Rest) -> Result<Step, BadAnswer> {
    let read = buf.len() - response.body.start;
    let (consumed, complete) = match rest {
        Rest::Until(end) => (buf.len().min(*end), buf.len() >= *end),
        Rest::UntilClosed => (buf.len(), eof),
        Rest::Chunks(chunked) => match chunked.decode(&buf[response.consumed..], |_| ()) {
            Ok(progress) => (response.consumed + progress.consumed, progress.done),
            Err(refusal) if refusal.status == 413 => (buf.len(), false),
            Err(refusal) => return Err(BadAnswer::Malformed(refusal.reason)),
        },
    };
    response.consumed = consumed;
    response.body.end = consumed;
    if !complete && !eof && read <= BODY_MAX {
        return Ok(Step::NeedMore);
    }
    let reusable = response.reusable && complete && !eof;
    Ok(Step::Done(Response { reusable, ..response.clone() }))
}

fn read_retry_after(value: &[u8]) -> Option<RetryAfter> {
    match content_length(value) {
        Some(seconds) => Some(RetryAfter::After(Duration::from_secs(seconds))),
        None => httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok().map(RetryAfter::At),
    }
}
