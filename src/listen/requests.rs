//! From the bytes of a connection to answers, in order. Knows no socket and no clock.

use std::mem;
use std::net::SocketAddr;

use super::encode::refused;
use super::large::{BUFFER, Pieces};
use super::shared::Grant;
use super::{Answer, Handler};
use crate::http1::{Chunked, Framing, Limits, NO_HEADERS, Refusal, RequestHead, Scan, parse_request};

/// Bytes of a refused request's body that are read in order to keep the connection.
const DISCARD_MAX: usize = 64 << 10;
/// Requests taken in one turn: bounds how long one connection keeps the core, and what waits for the journal.
const PIPELINED_MAX: usize = 128;
/// What a chunked body needs in the buffer beside its head: any size line and all trailers.
const CHUNK_ROOM: usize = BUFFER;

/// What the requests of one connection came to so far.
pub(super) struct Requests<H: Handler> {
    /// What was read and not used up.
    pub(super) input: Vec<u8>,
    /// Answers to be sent, in order.
    pub(super) pending: Vec<Pending<H::Ticket>>,
    /// Fields seen that look like trusted ones; the owner counts and resets it.
    pub(super) lookalikes: u32,
    scan: Scan,
    body: Option<Body<H::Pass>>,
    /// The chunked body of the current request.
    chunks: Vec<u8>,
}

/// An answer on its way.
pub(super) struct Pending<T> {
    pub(super) answer: Answer<T>,
    /// It is the last one of this connection.
    pub(super) close: bool,
    /// It answers a HEAD.
    pub(super) bodiless: bool,
    /// It refuses a request that was not whole, so that there was no last byte to time it from.
    pub(super) refusal: bool,
}

/// What to do once the pending answers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read on; the buffer may have to hold so many bytes.
    Read { want: usize },
    /// Say 100 Continue, then read on.
    Continue { want: usize },
    /// There may be more in the buffer.
    Again,
    /// Nothing more is taken from this connection.
    Close,
}

/// What the bytes that were not used up are part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Head,
    /// So many bytes of the body were received.
    Body {
        received: usize,
    },
}

/// A body that is being read.
struct Body<P> {
    /// `None`: the request is refused already and the body only read away.
    pass: Option<P>,
    head_len: usize,
    rest: Rest,
    large: Option<Box<Large>>,
}

/// A body that is known to be a large one.
#[derive(Default)]
struct Large {
    /// The head, if the buffer has the body alone.
    head: Vec<u8>,
    pieces: Pieces,
}

enum Rest {
    Length {
        bytes: usize,
        received: usize,
    },
    /// `used`: bytes of the buffer behind the head that are decoded.
    Chunks {
        decoder: Chunked,
        used: usize,
    },
}

impl<H: Handler> Requests<H> {
    pub(super) fn new() -> Self {
        Self {
            input: Vec::new(),
            pending: Vec::new(),
            lookalikes: 0,
            scan: Scan::default(),
            body: None,
            chunks: Vec::new(),
        }
    }

    /// Hands every whole request to `handler`. After [`Next::Close`] it must not be called again.
    /// What a large body takes with it is taken from `grant`.
    pub(super) fn take(&mut self, handler: &H, peer: SocketAddr, limits: Limits, grant: &mut Grant) -> Next {
        let mut at = 0;
        let next = loop {
            if self.pending.len() >= PIPELINED_MAX {
                break Next::Again;
            }
            if at == self.input.len() {
                break Next::Read { want: 0 };
            }
            match self.one(at, handler, peer, limits, grant) {
                Ok(One::Taken { used, last, alone }) => {
                    at += used;
                    self.scan = Scan::default();
                    self.body = None;
                    self.chunks.clear();
                    if last {
                        break Next::Close;
                    }
                    if alone {
                        break Next::Again;
                    }
                }
                Ok(One::Partial { next, used }) => {
                    at += used;
                    break next;
                }
                // The refusal of a request that was answered already goes unsaid.
                Err(_) if self.body.as_ref().is_some_and(|body| body.pass.is_none()) => break Next::Close,
                Err(refusal) => {
                    self.refuse(refusal);
                    break Next::Close;
                }
            }
        };
        self.drop_used(at);
        next
    }

    /// Looks at the request that starts at `at`.
    fn one(
        &mut self,
        at: usize,
        handler: &H,
        peer: SocketAddr,
        limits: Limits,
        grant: &mut Grant,
    ) -> Result<One, Refusal> {
        if self.large_left().is_some() {
            return self.more_of_large(handler, peer, limits, grant);
        }
        let buf = &self.input[at..];
        let mut headers = NO_HEADERS;
        let mut head = None;
        let mut wants_continue = false;
        if self.body.is_none() {
            let Some((parsed, head_len)) = parse_request(buf, &mut headers, &mut self.scan, limits)? else {
                return Ok(One::Partial { next: Next::Read { want: limits.head }, used: 0 });
            };
            self.lookalikes += parsed.lookalikes;
            let pass = match handler.admit(&parsed, peer) {
                Ok(pass) => Some(pass),
                Err(reply) => {
                    // It may wait for our 100 or send the body unasked (RFC 9110 10.1.1): then nobody knows what comes next.
                    let keep =
                        parsed.keep_alive && !parsed.expect_continue && !reply.close && fits(parsed.framing);
                    self.pending.push(Pending::new(Answer::Now(reply), &parsed, !keep));
                    if !keep {
                        return Ok(One::Taken { used: head_len, last: true, alone: false });
                    }
                    None
                }
            };
            wants_continue = parsed.expect_continue;
            let limit = if pass.is_some() { limits.body } else { DISCARD_MAX };
            let rest = match parsed.framing {
                Framing::None => Rest::Length { bytes: 0, received: 0 },
                Framing::Length(bytes) => Rest::Length { bytes, received: 0 },
                Framing::Chunked => Rest::Chunks { decoder: Chunked::new(limit), used: 0 },
            };
            self.body = Some(Body { pass, head_len, rest, large: None });
            head = Some(parsed);
        }
        let Some(body) = &mut self.body else { return Err(Refusal::bad("There is no request.")) };
        let began_empty = buf.len() == body.head_len;
        let large = handler.large();
        let Some(used) = body.fill(buf, &mut self.chunks, large)? else {
            let want = body.head_len + body.room();
            let next =
                if wants_continue && began_empty { Next::Continue { want } } else { Next::Read { want } };
            let used = if body.begins_large(buf, large) { buf.len() } else { 0 };
            return Ok(One::Partial { next, used });
        };
        let Some(pass) = body.pass.take() else {
            return Ok(One::Taken { used, last: false, alone: false });
        };
        let mut again = NO_HEADERS;
        let head = match head {
            Some(head) => head,
            // The buffer has moved since the head was read; it says the same again.
            None => match parse_request(buf, &mut again, &mut Scan::default(), limits)? {
                Some((head, _)) => head,
                None => return Err(Refusal::bad("The head changed while the body was read.")),
            },
        };
        let content = match body.rest {
            Rest::Length { .. } => &buf[body.head_len..used],
            Rest::Chunks { .. } => &self.chunks,
        };
        let mut pieces = body.large.take().map(|large| large.pieces);
        if pieces.is_none() && content.len() > large {
            // It was there at once.
            pieces.get_or_insert_default().push(content.to_vec());
        }
        let alone = pieces.is_some();
        let answer = match pieces {
            None => handler.accept(pass, &head, peer, content),
            Some(pieces) => handler.accept_large(pass, &head, peer, pieces.whole(grant)),
        };
        self.pending.push(Pending::new(answer, &head, !head.keep_alive));
        Ok(One::Taken { used, last: !head.keep_alive, alone })
    }

    /// Looks at a large body, of which the buffer has the last bytes that came.
    fn more_of_large(
        &mut self,
        handler: &H,
        peer: SocketAddr,
        limits: Limits,
        grant: &mut Grant,
    ) -> Result<One, Refusal> {
        let lost = || Refusal::bad("The request is gone.");
        let Some(left) = self.large_left() else { return Err(lost()) };
        let Some(Body { pass, rest: Rest::Length { received, .. }, large: Some(large), .. }) = &mut self.body
        else {
            return Err(lost());
        };
        *received = large.pieces.len() + self.input.len();
        if self.input.len() < left {
            if self.input.len() == self.input.capacity() {
                large.pieces.push(mem::take(&mut self.input));
            }
            return Ok(One::Partial { next: Next::Read { want: 0 }, used: 0 });
        }
        let behind = self.input.split_off(left);
        large.pieces.push(mem::replace(&mut self.input, behind));
        let (Some(pass), Large { head, pieces }) = (pass.take(), mem::take(&mut **large)) else {
            return Err(lost());
        };
        let mut headers = NO_HEADERS;
        let Some((head, _)) = parse_request(&head, &mut headers, &mut Scan::default(), limits)? else {
            return Err(lost());
        };
        let answer = handler.accept_large(pass, &head, peer, pieces.whole(grant));
        self.pending.push(Pending::new(answer, &head, !head.keep_alive));
        Ok(One::Taken { used: 0, last: !head.keep_alive, alone: true })
    }

    /// Bytes that are missing of a large body, with those in the buffer, if the buffer has nothing else.
    fn large_left(&self) -> Option<usize> {
        match &self.body {
            Some(Body { rest: Rest::Length { bytes, .. }, large: Some(large), .. }) => {
                Some(bytes.saturating_sub(large.pieces.len()))
            }
            _ => None,
        }
    }

    /// What the buffer must be able to hold before more is read, if that is more than it can; `want` as in [`Next::Read`].
    pub(super) fn must_hold(&self, want: usize) -> Option<usize> {
        let (len, capacity) = (self.input.len(), self.input.capacity());
        if let Some(left) = self.large_left() {
            let next = self.pieces().map_or(0, |pieces| pieces.next(left));
            return (len == 0 && capacity < next).then_some(next);
        }
        // By fours towards what was announced: memory is granted for bytes that came, not for a promise.
        (len == capacity).then_some(match capacity {
            0 => BUFFER,
            full => (full * 4).min(want).max(full + BUFFER / 8),
        })
    }

    fn pieces(&self) -> Option<&Pieces> {
        Some(&self.body.as_ref()?.large.as_ref()?.pieces)
    }

    /// Answers what is no whole request, and ends the connection with it.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let answer = Answer::Now(refused(refusal));
        self.pending.push(Pending { answer, close: true, bodiless: false, refusal: true });
    }

    pub(super) fn phase(&self) -> Phase {
        match &self.body {
            Some(Body { rest: Rest::Length { received, .. }, .. }) => Phase::Body { received: *received },
            Some(Body { rest: Rest::Chunks { decoder, .. }, .. }) => {
                Phase::Body { received: decoder.announced() }
            }
            // An empty line after a body is no beginning of a request.
            None if matches!(self.input.as_slice(), b"" | b"\r" | b"\r\n") => Phase::Idle,
            None => Phase::Head,
        }
    }

    /// True if the request being read has its answer already.
    pub(super) fn is_answered(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.pass.is_none())
    }

    /// Bytes held beyond the first buffer.
    pub(super) fn held(&self) -> usize {
        self.held_with(self.input.capacity())
    }

    /// The same with a buffer of that many bytes.
    pub(super) fn held_with(&self, buffer: usize) -> usize {
        buffer.saturating_sub(BUFFER) + self.chunks.capacity() + self.pieces().map_or(0, Pieces::held)
    }

    /// Gives back all memory while nothing is being read.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() && self.body.is_none() {
            self.input = Vec::new();
            self.chunks = Vec::new();
            self.pending = Vec::new();
        }
    }

    /// Gives back what a large request needed.
    pub(super) fn shrink(&mut self) {
        if self.body.is_none() {
            self.input.shrink_to(BUFFER);
            self.chunks.shrink_to(BUFFER);
        }
    }

    /// Forgets everything that was read, and the memory for it.
    pub(super) fn abandon(&mut self) {
        self.body = None;
        self.input.clear();
        self.chunks.clear();
        self.shrink();
        self.input.reserve(BUFFER);
    }

    /// Moves what is left to the front of the buffer.
    fn drop_used(&mut self, at: usize) {
        self.input.drain(..at);
        if let Some(Body { head_len, rest: Rest::Chunks { used, .. }, .. }) = &mut self.body {
            self.input.drain(*head_len..*head_len + mem::take(used));
        }
    }
}

/// What [`Requests::one`] found.
enum One {
    /// A request of so many bytes; after the last one the rest of the input is ignored.
    Taken {
        used: usize,
        last: bool,
        /// It is to be answered before anything more is taken.
        alone: bool,
    },
    /// Part of a request. So many of its bytes were put elsewhere.
    Partial { next: Next, used: usize },
}

impl<T> Pending<T> {
    fn new(answer: Answer<T>, head: &RequestHead<'_>, close: bool) -> Self {
        Self { answer, close, bodiless: head.method == "HEAD", refusal: false }
    }
}

impl<P> Body<P> {
    /// Takes what is there; the length of the whole request once it is complete.
    fn fill(&mut self, buf: &[u8], chunks: &mut Vec<u8>, large: usize) -> Result<Option<usize>, Refusal> {
        match &mut self.rest {
            Rest::Length { bytes, received } => {
                *received = buf.len() - self.head_len;
                Ok((*received >= *bytes).then_some(self.head_len + *bytes))
            }
            Rest::Chunks { decoder, used } => {
                let keep = self.pass.is_some();
                let progress = decoder.decode(&buf[self.head_len + *used..], |data| {
                    if keep {
                        chunks.extend_from_slice(data);
                    }
                })?;
                *used += progress.consumed;
                if chunks.len() > large || self.large.is_some() {
                    let pieces = &mut self.large.get_or_insert_default().pieces;
                    if progress.done || pieces.len() == 0 || chunks.capacity() - chunks.len() < CHUNK_ROOM {
                        pieces.push(mem::take(chunks));
                        if !progress.done {
                            chunks.reserve_exact(pieces.next(usize::MAX));
                        }
                    }
                }
                Ok(progress.done.then_some(self.head_len + *used))
            }
        }
    }

    /// Puts the part of a large body that is in the buffer, and the head before it, elsewhere: from now on the buffer
    /// has nothing but body. False if it is none.
    fn begins_large(&mut self, buf: &[u8], large: usize) -> bool {
        let Rest::Length { bytes, .. } = self.rest else { return false };
        let begins = bytes > large && self.pass.is_some() && self.large.is_none();
        if begins {
            let (head, body) = buf.split_at(self.head_len);
            let mut begun = Large { head: head.to_vec(), pieces: Pieces::default() };
            begun.pieces.push(body.to_vec());
            self.large = Some(Box::new(begun));
        }
        begins
    }

    fn room(&self) -> usize {
        match self.rest {
            Rest::Length { bytes, .. } => bytes,
            Rest::Chunks { .. } => CHUNK_ROOM,
        }
    }
}

/// Whether the body of a refused request may be small enough to be read away.
fn fits(framing: Framing) -> bool {
    !matches!(framing, Framing::Length(bytes) if bytes > DISCARD_MAX)
}

/// The 503 of a full memory budget and the 408 of a late request.
pub(super) const NO_MEMORY: Refusal = Refusal::new(503, "Too much is being read at the moment.");
pub(super) const TOO_SLOW: Refusal = Refusal::new(408, "The request took too long to arrive.");
