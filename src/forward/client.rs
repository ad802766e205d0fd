//! One region's HTTP/1.1 client: an attempt is one request and what came of it.
//!
//! Invariants:
//! - An attempt ends within the region's timeout (and one sweep of the core's [`Deadlines`]).
//! - A connection carries one request at a time and goes back to the pool only after an answer that
//!   ended where its framing says, with nothing behind it. A connection that rested for longer than
//!   `LOOK_AFTER` and has anything to read before it is used is closed. So no answer is taken for another
//!   request's, unless a region answers twice, and the second time within that.
//! - Connections are opened only when the pool is empty, so with at most `in_flight` attempts at once
//!   (the caller's part) there are at most `in_flight` connections.
//! - Memory of a connection is bounded: 8 KiB to write from, at most 128 KiB to read into, 4 KiB between
//!   attempts.
//!
//! Deliberately absent: redirects (a region cannot send us elsewhere), name resolution (the side
//! thread does it), retries (but one, see [`Client::send`]), cookies, proxies, TLS.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use monoio_http::common::request::RequestHead;

mod connection;

use connection::Connection;

use super::envelope::{POSSIBLE_DUPLICATE, TRUE};
use crate::config::Region;
use crate::deadline::Deadlines;
use crate::fault;
use crate::http1::{BadAnswer, Response};

/// A region that is there answers a SYN within one retransmission, which comes after 1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that rested less is used without a look at it. The look is a system call, a twentieth of what
/// a parcel costs. Where the region has closed it in so short a time, the request is sent again and says that it may be
/// a duplicate.
const LOOK_AFTER: Duration = Duration::from_millis(10);

/// Below the 60 s and 75 s after which common balancers and servers close, so that it is mostly we
/// who close first. Servers that close earlier are noticed when the connection is taken out.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What came of one try to hand a parcel over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub outcome: Outcome,
    /// Bytes of the request may have reached the region and no final answer to them came: the region may
    /// have taken the parcel, and the next attempt must say so. True beside a refusal, too, if that was the
    /// answer to a second send.
    pub sent_bytes: bool,
    /// Connections opened for it.
    pub opened: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Answered { status: u16, retry_after: Option<Duration> },
    Timeout,
    Connection(Fault),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the endpoint's name has no known address")]
    NoAddress,
    #[error("connect: {0}")]
    Connect(std::io::ErrorKind),
    #[error("answer: {0}")]
    Answer(#[from] BadAnswer),
}

/// Sends parcels to one region.
pub struct Client {
    timeout: Duration,
    in_flight: usize,
    source: Option<IpAddr>,
    deadlines: Rc<Deadlines>,
    addresses: RefCell<Vec<SocketAddr>>,
    /// The address to connect to first; moves on when it fails.
    preferred: Cell<usize>,
    /// The one used last is on top, so that a quiet region needs few connections.
    idle: RefCell<Vec<Idle>>,
}

struct Idle {
    /// Boxed: it goes in and out of the pool with every parcel and is some hundred bytes.
    connection: Box<Connection>,
    since: Instant,
    /// Its last answer was none of 2xx. A region in trouble may say more than it was asked for, and that must
    /// not be taken for the answer to the next parcel: such a connection is never used without a look at it.
    refused: bool,
}

impl Client {
    /// If the region's host is an address, it is known already.
    pub fn new(region: &Region, deadlines: Rc<Deadlines>) -> Self {
        let literal = region.endpoint.host.parse::<IpAddr>().ok();
        Self {
            timeout: region.timeout,
            in_flight: region.in_flight,
            source: region.source_address,
            deadlines,
            addresses: RefCell::new(
                literal.into_iter().map(|ip| SocketAddr::new(ip, region.endpoint.port)).collect(),
            ),
            preferred: Cell::new(0),
            idle: RefCell::default(),
        }
    }

    /// What the region's name resolves to now. Idle connections to other addresses are closed, so
    /// that a region that has moved is not reached at its old place.
    pub fn set_address(&self, addresses: Vec<SocketAddr>) {
        if *self.addresses.borrow() == addresses {
            return;
        }
        self.idle.borrow_mut().retain(|idle| addresses.contains(&idle.connection.peer()));
        self.preferred.set(0);
        *self.addresses.borrow_mut() = addresses;
    }

    /// Closes connections that nobody needed for a while or that the region has closed. To be called
    /// about once a second.
    pub fn reap(&self, now: Instant) {
        self.idle.borrow_mut().retain(|idle| idle.young(now) && idle.connection.is_quiet());
    }

    /// Connections in the pool.
    pub fn idle_len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Posts `body` under `head` and reads the answer. It is `start` now; what came of it, and when.
    ///
    /// If a connection from the pool turns out to be closed before any byte of an answer, the request
    /// is sent once more on a fresh one: servers close idle connections at any moment. The region may
    /// have taken the first in spite of all, so the second then says `penstock-possible-duplicate`.
    pub async fn send(&self, head: &mut RequestHead, body: Bytes, start: Instant) -> (Attempt, Instant) {
        let deadline = start + self.timeout;
        let mut attempt = Attempt { outcome: Outcome::Timeout, sent_bytes: false, opened: 0 };

        if let Some(mut connection) = self.take_idle(start) {
            let result = connection.exchange(head, body.clone(), deadline).await;
            if !matches!(result, Err(BadAnswer::Closed)) || connection.expired() {
                return self.conclude(attempt, connection, result);
            }
            if connection.sent_bytes() {
                attempt.sent_bytes = true;
                head.headers.insert(POSSIBLE_DUPLICATE, TRUE);
            }
        }

        match self.connect(start, deadline).await {
            Ok(mut connection) => {
                attempt.opened = 1;
                let result = connection.exchange(head, body, deadline).await;
                self.conclude(attempt, connection, result)
            }
            Err(None) => (attempt, Instant::now()),
            Err(Some(fault)) => (Attempt { outcome: Outcome::Connection(fault), ..attempt }, Instant::now()),
        }
    }

    fn conclude(
        &self,
        mut attempt: Attempt,
        connection: Box<Connection>,
        result: Result<Response, BadAnswer>,
    ) -> (Attempt, Instant) {
        let now = Instant::now();
        match result {
            Ok(answer) => {
                // Of a first send that was lost, if there was one: no other answer is one to that.
                attempt.sent_bytes &=
                    !(200..300).contains(&answer.status) && !fault::planted("doubt-taken-back");
                attempt.outcome = Outcome::Answered {
                    status: answer.status,
                    retry_after: answer.retry_after.map(|asked| asked.wait(SystemTime::now())),
                };
                if answer.reusable {
                    self.put_idle(connection, now, !(200..300).contains(&answer.status));
                }
            }
            Err(fault) => {
                attempt.sent_bytes |= connection.sent_bytes();
                if !connection.expired() {
                    attempt.outcome = Outcome::Connection(fault.into());
                }
            }
        }
        (attempt, now)
    }

    /// A connection to the first address that takes one; `Err(None)` if none did in time.
    async fn connect(&self, start: Instant, deadline: Instant) -> Result<Box<Connection>, Option<Fault>> {
        let until = deadline.min(start + CONNECT_TIMEOUT);
        // Both may be replaced in the meantime, and others may connect at the same time: each goes through all
        // addresses once.
        let addresses = self.addresses.borrow().clone();
        let first = self.preferred.get();
        let mut fault = Fault::NoAddress;
        for at in (first..first + addresses.len()).map(|at| at % addresses.len()) {
            match Connection::open(addresses[at], self.source, &self.deadlines, until).await {
                Ok(connection) => return Ok(Box::new(connection)),
                Err(error) => {
                    if self.preferred.get() == at {
                        self.preferred.set((at + 1) % addresses.len());
                    }
                    match error {
                        Some(error) => fault = Fault::Connect(error.kind()),
                        None => return Err(None),
                    }
                }
            }
        }
        Err(Some(fault))
    }

    fn take_idle(&self, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(top) = idle.pop() {
            if top.fit(now) {
                return Some(top.connection);
            }
        }
        None
    }

    fn put_idle(&self, connection: Box<Connection>, now: Instant, refused: bool) {
        let mut idle = self.idle.borrow_mut();
        let known = self.addresses.borrow().contains(&connection.peer());
        if known && !connection.expired() && idle.len() < self.in_flight {
            connection.rest();
            idle.push(Idle { connection, since: now, refused });
        }
    }
}

impl Idle {
    fn young(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < IDLE_TIMEOUT
    }

    fn fit(&self, now: Instant) -> bool {
        let hot = now.saturating_duration_since(self.since) < LOOK_AFTER;
        let usable = if hot { !self.refused } else { self.connection.is_quiet() };
        self.young(now) && usable && !self.connection.expired()
    }
}
