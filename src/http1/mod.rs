//! HTTP/1.1 as bytes: strict reading of requests and answers, within limits. Knows no socket and no clock.
//!
//! Any doubt about where a message ends is a [`Refusal`]; nothing is repaired.

use std::fmt;

pub mod response;

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
    /// In the order they came. Names as written: compare without case.
    pub headers: &'a [httparse::Header<'a>],
    pub framing: Framing,
    /// False after `Connection: close` and for HTTP/1.0.
    pub keep_alive: bool,
    pub expect_continue: bool,
}

/// Why a request is not taken: the status to answer before the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// One plain sentence for the log and the body of the answer.
    pub reason: &'static str,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason)
    }
}

impl std::error::Error for Refusal {}
