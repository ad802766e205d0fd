//! Life of a connection: read, take, answer, and around again until one side has enough.

use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;

use super::accept::Core;
use super::encode::{CONTINUE, encode};
use super::requests::{NO_MEMORY, Next, Phase, Requests, TOO_SLOW};
use super::roster::Member;
use super::shared::{Grant, Seat};
use super::{Answer, Handler};
use crate::deadline::Watch;
use crate::fault;
use crate::http1::{Limits, Refusal};

/// Below this a body is too slow, bytes per second.
const BODY_RATE_MIN: usize = 1 << 10;
/// Bytes read away after our last answer.
const LINGER_MAX: usize = 256 << 10;
/// Bytes of answers that a connection keeps room for.
const OUT_KEPT: usize = 4 << 10;
/// After so many requests in a row of which each came soon, within so long, a connection keeps its buffer (of 8 KiB) while
/// it waits for the next one, however long that takes. The others, which may be thousands, wait without; that takes an
/// operation more for each request.
const BUSY: u8 = 4;
const SOON: Duration = Duration::from_secs(3);

/// One connection. Fields are dropped in order: nothing may watch the socket once it is closed.
pub(super) struct Connection<H: Handler> {
    watch: Watch,
    member: Member,
    _seat: Seat,
    stream: TcpStream,
    peer: SocketAddr,
    core: Rc<Core>,
    handler: Rc<H>,
    requests: Requests<H>,
    grant: Grant,
    out: Vec<u8>,
    /// When the last bytes were read.
    seen: Instant,
    /// When the clock was last read: near enough for deadlines of seconds.
    now: Instant,
    /// When the head or body that is being read began.
    began: Option<(Waiting, Instant)>,
    /// Requests in a row that came soon, up to [`BUSY`].
    soon: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Head,
    Body,
}

/// The connection is of no more use.
struct Gone;

impl<H: Handler> Connection<H> {
    pub(super) fn new(
        stream: TcpStream,
        peer: SocketAddr,
        seat: Seat,
        core: Rc<Core>,
        handler: Rc<H>,
    ) -> Self {
        let fd = stream.as_raw_fd();
        let now = Instant::now();
        Self {
            watch: core.deadlines.watch(fd),
            member: core.roster.join(fd),
            _seat: seat,
            stream,
            peer,
            grant: Grant::new(Arc::clone(&core.shared)),
            core,
            handler,
            requests: Requests::new(),
            out: Vec::new(),
            seen: now,
            now,
            began: None,
            soon: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let limits = &self.core.shared.limits;
        let limits = Limits { head: limits.head, body: limits.body };
        // An error here is the peer's leaving: there is nobody left to tell.
        while self.turn(limits).await.is_ok() {}
    }

    /// Takes what is in the buffer, answers it, and reads more.
    async fn turn(&mut self, limits: Limits) -> Result<(), Gone> {
        let next = self.requests.take(&self.handler, self.peer, limits, &mut self.grant);
        self.count_lookalikes();
        if !self.requests.pending.is_empty() && !self.answer().await? {
            return self.linger().await;
        }
        let want = match next {
            Next::Again => return Ok(()),
            Next::Close => return self.linger().await,
            Next::Continue { want } => {
                self.send(CONTINUE.to_vec()).await?;
                want
            }
            Next::Read { want } => want,
        };
        let idle = self.requests.phase() == Phase::Idle;
        if idle && self.core.shared.is_draining() {
            return Err(Gone);
        }
        self.set_deadline();
        let since = self.now;
        if idle && self.soon < BUSY {
            self.requests.rest();
            self.grant.resize(self.requests.held());
            self.out = Vec::new();
            // What is wrong with the socket the read below will tell.
            self.stream.readable(false).await.ok();
        }
        if !self.make_room(want) {
            return self.give_up(NO_MEMORY).await;
        }
        let read = self.read().await?;
        if idle {
            let soon = self.now.saturating_duration_since(since) < SOON;
            self.soon = if soon { (self.soon + 1).min(BUSY) } else { 0 };
        }
        if read > 0 {
            return Ok(());
        }
        if !self.watch.expired() {
            // Without the rest of its request nothing is answered and nothing is kept.
            return Err(Gone);
        }
        self.core.cells.connections_timed_out.add(1);
        match self.requests.phase() {
            Phase::Idle => Err(Gone),
            Phase::Head | Phase::Body { .. } => self.give_up(TOO_SLOW).await,
        }
    }

    /// Waits for the pending answers in order and sends them at once. False if the last one was the connection's last.
    async fn answer(&mut self) -> Result<bool, Gone> {
        self.watch.clear();
        self.began = None;
        let (mut close, mut timed) = (false, 0);
        for pending in self.requests.pending.drain(..) {
            let reply = match pending.answer {
                Answer::Now(reply) => reply,
                Answer::Later(ticket) => ticket.await,
            };
            if pending.refusal {
                self.core.cells.requests_refused.add(1);
                tracing::debug!(peer = %self.peer, status = reply.status, "request refused");
            } else {
                timed += 1;
            }
            close = pending.close || reply.close || self.core.shared.is_draining();
            encode(&mut self.out, &reply, &self.core.date.get(), close, pending.bodiless);
            if close {
                // Whatever else was asked goes unanswered, as after any close.
                break;
            }
        }
        let mut out = mem::take(&mut self.out);
        fault::point("answer");
        fault::cut("answer-half", &mut out);
        self.now = Instant::now();
        let waited = self.now.saturating_duration_since(self.seen).as_nanos() as u64;
        for _ in 0..timed {
            self.core.cells.ack_seconds.observe_ns(waited);
        }
        self.out = self.send(out).await?;
        self.out.clear();
        self.out.shrink_to(OUT_KEPT);
        self.requests.shrink();
        self.grant.resize(self.requests.held());
        Ok(!close)
    }

    /// Answers for the last time.
    async fn give_up(&mut self, refusal: Refusal) -> Result<(), Gone> {
        if self.requests.is_answered() {
            return Err(Gone);
        }
        self.requests.refuse(refusal);
        self.answer().await?;
        self.linger().await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Gone> {
        self.watch.set(self.now + self.core.shared.patience.send, Shutdown::Both);
        let (sent, bytes) = self.stream.write_all(bytes).await;
        if sent.is_err() && self.watch.expired() {
            self.core.cells.connections_timed_out.add(1);
        }
        sent.map(|_| bytes).map_err(|_| Gone)
    }

    /// Reads behind what is in the buffer. 0: nothing more will come.
    async fn read(&mut self) -> Result<usize, Gone> {
        let input = mem::take(&mut self.requests.input);
        let (start, end) = (input.len(), input.capacity());
        let (read, input) = self.stream.read(input.slice_mut(start..end)).await;
        self.requests.input = input.into_inner();
        self.seen = Instant::now();
        self.now = self.seen;
        self.member.set_idle(None);
        read.map_err(|_| Gone)
    }

    /// Sees to it that something can be read; false if there is no memory for it.
    fn make_room(&mut self, want: usize) -> bool {
        if let Some(capacity) = self.requests.must_hold(want) {
            let held = self.requests.held_with(capacity);
            if !self.grant.resize(held) {
                return false;
            }
            let input = &mut self.requests.input;
            input.reserve_exact(capacity - input.len());
        }
        self.grant.resize(self.requests.held())
    }

    /// By when the next bytes must be here.
    fn set_deadline(&mut self) {
        let limits = &self.core.shared.limits;
        let mut since = |waiting| match self.began {
            Some((before, since)) if before == waiting => since,
            _ => {
                self.began = Some((waiting, self.seen));
                self.seen
            }
        };
        let at = match self.requests.phase() {
            Phase::Idle => {
                self.member.set_idle(Some(self.now));
                self.now + limits.idle_timeout
            }
            Phase::Head => since(Waiting::Head) + limits.header_timeout,
            Phase::Body { received } => {
                let earned = Duration::from_millis((received * 1000 / BODY_RATE_MIN) as u64);
                let patience = self.core.shared.patience.slow_body + earned;
                since(Waiting::Body) + limits.body_timeout.min(patience)
            }
        };
        // Only for reading: the way out stays open for the 408.
        self.watch.set(at, Shutdown::Read);
    }

    /// Closes so that the peer gets our last answer: closing with unread bytes would send a reset after it.
    async fn linger(&mut self) -> Result<(), Gone> {
        // The peer may have gone already; then the read below says so.
        nix::sys::socket::shutdown(self.stream.as_raw_fd(), nix::sys::socket::Shutdown::Write).ok();
        self.watch.set(Instant::now() + self.core.shared.patience.linger, Shutdown::Both);
        self.requests.abandon();
        self.grant.resize(self.requests.held());
        let mut left = LINGER_MAX;
        while left > 0 {
            self.requests.input.clear();
            match self.read().await? {
                0 => break,
                bytes => left = left.saturating_sub(bytes),
            }
        }
        Err(Gone)
    }

    fn count_lookalikes(&mut self) {
        if self.requests.lookalikes > 0 {
            self.core.cells.lookalike_fields.add(u64::from(mem::take(&mut self.requests.lookalikes)));
        }
    }
}
