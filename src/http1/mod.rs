//! HTTP/1.1 as bytes: strict reading of requests and answers, within limits. Knows no socket and no clock.
//!
//! Any doubt about where a message ends is a [`Refusal`]; nothing is repaired. The answer to a
//! message depends on its bytes alone, never on how they were cut into reads: what is refused
//! early is decided by the first byte that makes it wrong. `httparse` has the last word on every head,
//! so that this module can only be stricter than it.
//!
//! Deliberately absent: HTTP/2, obsolete line folding, bare LF line ends, any transfer coding but
//! chunked, upgrades.

use std::fmt;

mod chunked;
mod fields;
mod request;
mod response;
mod scan;
#[cfg(test)]
mod tests;

pub use chunked::{Chunked, Progress};
pub use request::{Headers, Limits, NO_HEADERS, parse_request};
pub use response::{BadAnswer, Response, ResponseDecoder, RetryAfter, Step};
pub use scan::Scan;

/// Most header fields of a message: twice what the provider and a balancer send together.
pub const FIELDS_MAX: usize = 64;

/// Where the body of a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length` bytes.
    Length(usize),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request's head, borrowed from the bytes it was read from.
#[derive(Debug)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// Path with query, origin form; an absolute-form target is reduced to it.
    pub target: &'a str,
    /// In the order they came. Names as written: compare without case, or ask [`RequestHead::header`].
    pub headers: &'a [httparse::Header<'a>],
    pub framing: Framing,
    /// False after `Connection: close` and for HTTP/1.0.
    pub keep_alive: bool,
    pub expect_continue: bool,
    /// Fields whose name is that of a framing or security field with `_` for `-`. They mean nothing
    /// here; a server behind a careless proxy might have believed them.
    pub lookalikes: u32,
}

/// What a head says under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    Missing,
    /// Without blanks around it.
    One(&'a [u8]),
    /// More than one field has this name.
    Several,
}

impl<'a> RequestHead<'a> {
    /// The field called `name` (any case). `Several` is for the caller to refuse: which one counts is in doubt.
    pub fn header(&self, name: &str) -> Field<'a> {
        let mut found = Field::Missing;
        for header in self.headers {
            if header.name.eq_ignore_ascii_case(name) {
                if found != Field::Missing {
                    return Field::Several;
                }
                found = Field::One(header.value);
            }
        }
        found
    }
}

/// Why a request is not taken: the status to answer before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// One plain sentence for the log and the body of the answer.
    pub reason: &'static str,
}

impl Refusal {
    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// 400.
    pub(crate) const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}
