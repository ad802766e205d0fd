//! The answer of a region, read with the same strictness as a request: a region is outside data too.
//!
//! The status decides what becomes of a parcel; the body decides nothing. So it is read only to
//! be able to use the connection again, and not beyond [`BODY_MAX`]. Any doubt about where an answer
//! ends is an error, and an answer that is not whole is none: the parcel is sent again.
//!
//! Deliberately absent: answers to HEAD and CONNECT (regions only get POSTs), content codings.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::fields::{Coding, Codings, content_length, members};
use super::request::NO_HEADERS;
use super::{Chunked, Scan};

/// Bytes of all heads of one answer, interim ones included. Real answers have some hundred; proxies'
/// own limits are 8 to 16 KiB.
pub(super) const HEADS_MAX: usize = 16 << 10;
/// Bytes of body, chunk framing included, that are worth reading to keep a connection: what a region
/// has to say to a webhook is far shorter, and beyond this a new connection costs less than reading on.
pub(super) const BODY_MAX: usize = 64 << 10;
/// Interim (1xx) answers before the final one. Two are seen in the field: 100 and 103.
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

/// A final answer, read to its end or cut at 64 KiB of body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub retry_after: Option<RetryAfter>,
    /// The answer ended where its framing says and the connection can carry another request. The
    /// owner must still see that nothing more arrives on it unasked.
    pub reusable: bool,
    /// Bytes of the buffer that belong to this answer.
    pub consumed: usize,
    /// Where the body's bytes are in the buffer as far as they were read, chunk framing included: for a person to read.
    pub body: Range<usize>,
}

/// What a `Retry-After` asks for. Nonsense counts as not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    After(Duration),
    At(SystemTime),
}

impl RetryAfter {
    /// How long from `now`; a moment that has passed is no wait.
    pub fn wait(self, now: SystemTime) -> Duration {
        match self {
            Self::After(wait) => wait,
            Self::At(at) => at.duration_since(now).unwrap_or_default(),
        }
    }

    /// Seconds, or a date in one of the three forms of RFC 9110 5.6.7.
    fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit are a very long wait, not nonsense.
            return Some(Self::After(Duration::from_secs(text.parse().unwrap_or(u64::MAX))));
        }
        httpdate::parse_http_date(text).ok().map(Self::At)
    }
}

/// Why there is no answer. The connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// On a kept connection the request may never have been seen.
    #[error("connection closed before any byte of an answer")]
    Closed,
    #[error("connection closed in the middle of the answer")]
    Truncated,
    #[error("not HTTP: an answer starts with `HTTP/1.1 ` and a status; check the endpoint's port and scheme")]
    NotHttp,
    #[error("head breaks HTTP/1.1 syntax: {0}")]
    Syntax(&'static str),
    #[error("head over 16 KiB or 64 fields; a webhook's receiver should answer in a few hundred bytes")]
    HeadTooLarge,
    #[error("more than 8 interim (1xx) answers before the final one")]
    TooManyInterim,
    #[error("end of the answer in doubt: {0}")]
    Framing(&'static str),
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
                            return Err(BadAnswer::TooManyInterim);
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
    const BARE: BadAnswer = BadAnswer::Syntax("a line end is not CR LF");
    const START: &[u8] = b"HTTP/1.";
    let head = &buf[start..buf.len().min(HEADS_MAX).max(start)];
    let seen = head.len().min(START.len());
    if head[..seen] != START[..seen] {
        return Err(BadAnswer::NotHttp);
    }
    let first_line = scan.lines() > 0 || scan.line(head).map_err(|_| BARE)?.is_some();
    let end = if first_line { scan.head_end(head).map_err(|_| BARE)? } else { None };
    match end {
        Some(end) => Ok(Some(start + end)),
        None if buf.len() >= HEADS_MAX => Err(BadAnswer::HeadTooLarge),
        None => Ok(None),
    }
}

/// The final answer whose head ends at `end`, and how its body ends; `None` for an interim one.
fn interpret(head: &[u8], end: usize) -> Result<Option<(Response, Rest)>, BadAnswer> {
    use BadAnswer::{Framing, HeadTooLarge, NotHttp, Syntax};

    let mut headers = NO_HEADERS;
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut headers) {
        Ok(httparse::Status::Complete(used)) if used == head.len() => {}
        Ok(_) => return Err(Syntax("it does not end where its lines say")),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadTooLarge),
        Err(httparse::Error::Version | httparse::Error::Status) => return Err(NotHttp),
        Err(httparse::Error::HeaderName) => return Err(Syntax("a field's name is malformed")),
        Err(httparse::Error::HeaderValue) => return Err(Syntax("a field's value is malformed")),
        Err(_) => return Err(Syntax("the status line or a field line is malformed")),
    }
    let status = parsed.code.filter(|code| (100..600).contains(code)).ok_or(NotHttp)?;
    let current = parsed.version == Some(1);
    let (mut length, mut codings, mut close, mut retry_after) = (None, Codings::default(), !current, None);
    for header in &*parsed.headers {
        match header.name.len() {
            10 if header.name.eq_ignore_ascii_case("connection") => {
                close |= members(header.value).any(|option| option.eq_ignore_ascii_case(b"close"));
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => {
                retry_after = retry_after.or_else(|| RetryAfter::parse(header.value));
            }
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let bytes = content_length(header.value).ok_or(Framing("Content-Length is no number"))?;
                if length.replace(bytes).is_some() {
                    return Err(Framing("several Content-Lengths"));
                }
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => codings.add(header.value),
            _ => {}
        }
    }
    let coding = codings.verdict();
    let promises_body = coding != Coding::Absent || length.is_some_and(|bytes| bytes > 0);
    let mut reusable = !close;
    let rest = match (status, coding, length) {
        (101, ..) => return Err(Framing("101 Switching Protocols, which was not asked for")),
        (100..=199, ..) if promises_body => return Err(Framing("an interim answer with a body")),
        (100..=199, ..) => return Ok(None),
        // Neither has a body (RFC 9112 6.3). A 204 that announces one may well send it: that would be unasked bytes.
        (204, ..) => {
            reusable &= !promises_body;
            Rest::Until(end)
        }
        (304, ..) => Rest::Until(end),
        (_, Coding::Absent, None) => {
            reusable = false;
            Rest::UntilClosed
        }
        // Not worth reading at all.
        (_, Coding::Absent, Some(bytes)) if bytes > BODY_MAX as u64 => {
            reusable = false;
            Rest::Until(end)
        }
        (_, Coding::Absent, Some(bytes)) => Rest::Until(end + bytes as usize),
        (_, _, Some(_)) => return Err(Framing("Content-Length and Transfer-Encoding together")),
        (_, _, None) if !current => return Err(Framing("Transfer-Encoding in an HTTP/1.0 answer")),
        // How much is read is decided below; the chunks may announce what they like.
        (_, Coding::Chunked, None) => Rest::Chunks(Chunked::new(usize::MAX)),
        _ => return Err(Framing("Transfer-Encoding is not `chunked`, once")),
    };
    Ok(Some((Response { status, retry_after, reusable, consumed: end, body: end..end }, rest)))
}

/// Reads the body on. What was read stays in `buf`, which is therefore bounded by the two limits.
fn body(buf: &[u8], eof: bool, response: &mut Response, rest: &mut Rest) -> Result<Step, BadAnswer> {
    let limit = response.body.start + BODY_MAX;
    let window = &buf[..buf.len().min(limit)];
    let (consumed, complete) = match rest {
        Rest::Until(end) => (window.len().min(*end), window.len() >= *end),
        Rest::UntilClosed => (window.len(), eof),
        Rest::Chunks(chunked) => {
            let progress = chunked.decode(&window[response.consumed..], |_| ());
            let progress = progress.map_err(|refusal| BadAnswer::Framing(refusal.reason))?;
            (response.consumed + progress.consumed, progress.done)
        }
    };
    response.consumed = consumed;
    response.body.end = consumed;
    let cut = !complete && window.len() == limit;
    if complete || cut {
        response.reusable &= !cut && !eof;
        return Ok(Step::Done(response.clone()));
    }
    if eof { Err(BadAnswer::Truncated) } else { Ok(Step::NeedMore) }
}
