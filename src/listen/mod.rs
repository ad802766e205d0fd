//! Sockets to requests and back: accept, limits, timeouts, drain. Takes a [`Handler`], knows no stage.

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;

use crate::http1::RequestHead;

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
}
