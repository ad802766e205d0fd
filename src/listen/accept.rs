//! One core's listener: accept within the caps, sweep the deadlines, drain.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::join;
use monoio::net::{TcpListener, TcpStream};
use nix::sys::socket::Shutdown;

use super::Handler;
use super::connection::Connection;
use super::encode::{Date, date};
use super::roster::Roster;
use super::shared::Shared;
use crate::deadline::{Deadlines, SWEEP_EVERY};
use crate::fault;
use crate::metrics::IngestCells;

/// Connections that the kernel completes while a core is busy; what the kernel allows by default is more.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory, which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At the cap this part of it is freed at a time: a search among all connections must not be made for each new one.
const EVICTED_PART: usize = 256;

/// What the connections of one core share.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) cells: Arc<IngestCells>,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) roster: Rc<Roster>,
    /// Now, for `Date`.
    pub(super) date: Cell<Date>,
}

/// Binds one core's listener. Every core binds the same address, and the kernel spreads connections over them.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves `listener` on this core until [`Shared::drain`] is called and its connections are gone, or
/// their time is up. Needs a runtime of monoio with a timer.
pub async fn serve<H: Handler>(
    listener: std::net::TcpListener,
    handler: Rc<H>,
    shared: Arc<Shared>,
    cells: Arc<IngestCells>,
) -> io::Result<()> {
    let fd = listener.as_raw_fd();
    let listener = TcpListener::from_std(listener)?;
    let core = Rc::new(Core {
        shared,
        cells,
        deadlines: Rc::default(),
        roster: Rc::default(),
        date: Cell::new(date(SystemTime::now())),
    });
    join(accept(&listener, &core, &handler), tend(&core, fd)).await;
    Ok(())
}

/// Accepts until the listener is shut down. The accept is never dropped: a dropped one loses a socket.
async fn accept<H: Handler>(listener: &TcpListener, core: &Rc<Core>, handler: &Rc<H>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                fault::point("accept");
                enter(stream, peer, core, handler);
            }
            Err(_) if core.shared.is_draining() => return,
            // The client gave up between its handshake and our accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "accept failed; idle connections are closed to make room");
                }
                failing = true;
                core.roster.end_oldest_idle(1);
                monoio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts a connection's task, if there is room for it.
fn enter<H: Handler>(stream: TcpStream, peer: SocketAddr, core: &Rc<Core>, handler: &Rc<H>) {
    let evicted = core.shared.limits.connections.div_ceil(EVICTED_PART);
    let seat = match core.shared.enter(peer.ip(), || core.roster.end_oldest_idle(evicted) > 0) {
        Ok(seat) => seat,
        Err(why) => {
            core.cells.connections_refused.add(1);
            tracing::debug!(%peer, ?why, "connection refused");
            return;
        }
    };
    core.cells.connections_accepted.add(1);
    core.cells.connections_open.add(1);
    // Without it an answer could wait 40 ms for an acknowledgement. It fails only on a dead socket, which a read will find.
    stream.set_nodelay(true).ok();
    let connection = Connection::new(stream, peer, seat, Rc::clone(core), Rc::clone(handler));
    let core = Rc::clone(core);
    monoio::spawn(async move {
        // The panic hook has told where; what it said may hold a user's data.
        if AssertUnwindSafe(connection.run()).catch_unwind().await.is_err() {
            core.cells.panics.add(1);
        }
        core.cells.connections_open.sub(1);
    });
}

/// Shuts down what is late; returns once the core is drained.
async fn tend(core: &Core, listener: RawFd) {
    let mut drain_until = None;
    loop {
        monoio::time::sleep(SWEEP_EVERY).await;
        let now = Instant::now();
        core.deadlines.sweep(now);
        core.date.set(date(SystemTime::now()));
        if !core.shared.is_draining() {
            continue;
        }
        let until = *drain_until.get_or_insert_with(|| {
            // Ends the pending accept. A listener that is gone already needs no ending.
            nix::sys::socket::shutdown(listener, Shutdown::Both).ok();
            now + core.shared.patience.drain
        });
        core.roster.end_oldest_idle(usize::MAX);
        if core.roster.len() == 0 || now >= until {
            core.roster.end_all();
            return;
        }
    }
}
