//! Sockets to requests and back: accept, limits, timeouts, drain. Takes a [`Handler`], knows no stage.
//!
//! One [`serve`] per ingest core; what the cores have in common is in [`Shared`]. A connection is
//! one task that reads, hands every whole request to the handler, waits for the answers in order and
//! writes them at once:
//!
//! ```text
//!  accept (allow_from, caps) > connection: read > requests (bytes to answers) > write > read ...
//! ```
//!
//! Invariants: no read, write or accept is ever dropped while it is pending; a late socket is shut
//! down by the core's sweep ([`crate::deadline`]) and its operation then ends by itself. A panic in
//! a connection's task closes that connection and no other. Once grown, buffers are reused, so
//! that a request costs no allocation.
//!
//! Deliberately absent: TLS, HTTP/2, per-request timers.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;

use crate::http1::RequestHead;

mod accept;
mod connection;
pub mod encode;
mod large;
mod requests;
mod roster;
mod shared;

pub use accept::{bind, serve};
pub use large::{Held, LargeBody};
pub use shared::{Patience, Shared};

/// What to send back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Beside `content-length` (and `connection: close` where it applies), which the listener writes.
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Cow<'static, [u8]>,
    /// Close the connection after this answer.
    pub close: bool,
}

/// An answer that is known now, or once the ticket is.
#[derive(Debug)]
pub enum Answer<T> {
    Now(Reply),
    /// Resolves when the webhook is durable (or could not be made so).
    Later(T),
}

/// Decides about requests. Called on the core's own thread; must not block.
pub trait Handler: 'static {
    /// What [`Handler::admit`] found out, given back to [`Handler::accept`].
    type Pass;
    /// May be dropped unasked when its connection ends.
    type Ticket: Future<Output = Reply>;

    /// Called with the head alone, before any byte of the body is read: refuse early what cannot be taken.
    fn admit(&self, head: &RequestHead<'_>, peer: SocketAddr) -> Result<Self::Pass, Reply>;

    /// Called with the whole request.
    fn accept(
        &self,
        pass: Self::Pass,
        head: &RequestHead<'_>,
        peer: SocketAddr,
        body: &[u8],
    ) -> Answer<Self::Ticket>;

    /// Bodies of more bytes go to [`Handler::accept_large`].
    fn large(&self) -> usize {
        usize::MAX
    }

    /// As [`Handler::accept`], of a body that may be given to another thread: what is done with it here keeps all other
    /// connections waiting. Of its connection nothing more is taken before it is answered. If the ticket is dropped,
    /// nobody waits for an answer any more.
    fn accept_large(
        &self,
        pass: Self::Pass,
        head: &RequestHead<'_>,
        peer: SocketAddr,
        body: LargeBody,
    ) -> Answer<Self::Ticket> {
        let mut whole = Vec::new();
        body.copy_to(&mut whole);
        self.accept(pass, head, peer, &whole)
    }
}
