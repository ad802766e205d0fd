//! One connection to a region: open, one exchange after the other, closed when dropped.
//!
//! Nothing here cancels an operation and goes on with the connection: a pending read or write that is
//! dropped may have moved bytes that nobody knows of. Deadlines shut the socket down from outside,
//! which lets pending operations end by themselves.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{Either, select};
use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};
use monoio::io::sink::Sink;
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use monoio_http::common::IntoParts;
use monoio_http::common::body::{Body, StreamHint};
use monoio_http::common::error::HttpError;
use monoio_http::common::request::RequestHead;
use monoio_http::h1::codec::encoder::GenericEncoder;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::deadline::{Deadlines, Watch};
use crate::fault;
use crate::http1::{BadAnswer, Response, ResponseDecoder, Step};

/// Least room for a read. Answers mostly fit one.
const READ_BYTES: usize = 4 * 1024;

pub(super) struct Connection {
    /// Comes first: it must be gone before its socket is.
    watch: Watch,
    reader: Reader,
    writer: GenericEncoder<Writer>,
    /// Of the current exchange; shared with the writer inside the encoder.
    sent: Rc<Cell<bool>>,
    peer: SocketAddr,
    fd: RawFd,
}

impl Connection {
    /// Connects to `peer` from `source`. `Err(None)` if it takes longer than `until`.
    ///
    /// The runtime's own connect cannot bind first, so the socket connects by itself, without
    /// blocking, and the ring only waits until it is writable.
    pub(super) async fn open(
        peer: SocketAddr,
        source: Option<IpAddr>,
        deadlines: &Rc<Deadlines>,
        until: Instant,
    ) -> Result<Self, Option<io::Error>> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            // The port is chosen at connect, else it would be taken for all peers at once. Only saves
            // ports: a kernel that refuses does no harm.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).ok();
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        let connecting = match socket.connect(&peer.into()) {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => true,
            Err(error) => return Err(Some(error)),
        };
        let stream = TcpStream::from_std(socket.try_clone()?.into())?;
        let fd = stream.as_raw_fd();
        let watch = deadlines.watch(fd);
        if connecting {
            watch.set(until, std::net::Shutdown::Both);
            let waited = stream.writable(false).await;
            if watch.expired() {
                return Err(None);
            }
            waited?;
            if let Some(error) = socket.take_error()? {
                return Err(Some(error));
            }
        }
        // On a non-blocking socket the ring may answer EAGAIN instead of waiting; kernels differ.
        socket.set_nonblocking(false)?;

        let sent = Rc::new(Cell::new(false));
        let (read, write) = stream.into_split();
        let writer = GenericEncoder::new(Writer { half: write, sent: Rc::clone(&sent) });
        let reader = Reader { half: read, buf: Vec::with_capacity(READ_BYTES) };
        Ok(Self { watch, reader, writer, sent, peer, fd })
    }

    /// One request and its answer. The answer is reusable only if the connection is.
    pub(super) async fn exchange(
        &mut self,
        head: &RequestHead,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Response, BadAnswer> {
        self.watch.set(deadline, std::net::Shutdown::Both);
        self.sent.set(false);
        let Self { reader, writer, .. } = self;
        let write = pin!(async {
            writer.send(Outgoing { head, body: Some(body) }).await?;
            let flushed = Sink::<Outgoing<'_>>::flush(writer).await;
            fault::point("request-sent");
            flushed
        });
        // A region may answer (413) and close while we still write.
        let read = pin!(reader.answer());
        match select(write, read).await {
            Either::Left((Ok(()), read)) => read.await,
            // What it said before it stopped listening can still be read.
            Either::Left((Err(_), read)) => read.await.map(last),
            Either::Right((answer, _unfinished)) => answer.map(last),
        }
    }

    /// Bytes of the request of the last exchange may have reached the region.
    pub(super) fn sent_bytes(&self) -> bool {
        self.sent.get()
    }

    /// Shut down by its deadline.
    pub(super) fn expired(&self) -> bool {
        self.watch.expired()
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// No deadline while idle.
    pub(super) fn rest(&self) {
        self.watch.clear();
    }

    /// Open, with nothing to read. One system call that does not wait.
    pub(super) fn is_quiet(&self) -> bool {
        let peeked = recv(self.fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT);
        !self.watch.expired() && peeked == Err(Errno::EAGAIN)
    }
}

/// On a connection that cannot carry another request.
fn last(answer: Response) -> Response {
    Response { reusable: false, ..answer }
}

struct Reader {
    half: OwnedReadHalf<TcpStream>,
    /// Empty between exchanges.
    buf: Vec<u8>,
}

impl Reader {
    async fn answer(&mut self) -> Result<Response, BadAnswer> {
        let mut decoder = ResponseDecoder::default();
        let mut eof = false;
        loop {
            if let Step::Done(mut answer) = decoder.decode(&self.buf, eof)? {
                // Bytes behind the answer were not asked for.
                answer.reusable &= answer.consumed == self.buf.len();
                self.buf.clear();
                self.buf.shrink_to(READ_BYTES);
                return Ok(answer);
            }
            let mut buf = std::mem::take(&mut self.buf);
            // The decoder cuts answers that are long, so this is bounded.
            buf.reserve(READ_BYTES);
            let free = buf.len()..buf.capacity();
            let (result, slice) = self.half.read(buf.slice_mut(free)).await;
            self.buf = slice.into_inner();
            match result {
                Ok(bytes) => eof = bytes == 0,
                // Unlike an orderly end, a reset does not end a body without a length.
                Err(_) if self.buf.is_empty() => return Err(BadAnswer::Closed),
                Err(_) => return Err(BadAnswer::Truncated),
            }
        }
    }
}

/// What the encoder is given: a head that stays ours, and its body in one piece.
struct Outgoing<'a> {
    head: &'a RequestHead,
    body: Option<Bytes>,
}

impl<'a> IntoParts for Outgoing<'a> {
    type Parts = &'a RequestHead;
    type Body = Piece;

    fn into_parts(self) -> (Self::Parts, Self::Body) {
        (self.head, Piece(self.body))
    }
}

struct Piece(Option<Bytes>);

impl Body for Piece {
    type Data = Bytes;
    type Error = HttpError;

    async fn next_data(&mut self) -> Option<Result<Bytes, HttpError>> {
        self.0.take().map(Ok)
    }

    fn stream_hint(&self) -> StreamHint {
        StreamHint::Fixed
    }
}

/// The socket, with a note of whether it has taken a byte.
struct Writer {
    half: OwnedWriteHalf<TcpStream>,
    sent: Rc<Cell<bool>>,
}

impl AsyncWriteRent for Writer {
    async fn write<T: IoBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        let before = self.sent.get();
        // While it is under way nobody knows: if it is dropped, the note stays.
        self.sent.set(true);
        let (result, buf) = self.half.write(buf).await;
        self.sent.set(before || result.is_ok());
        (result, buf)
    }

    async fn writev<T: IoVecBuf>(&mut self, buf: T) -> BufResult<usize, T> {
        let before = self.sent.get();
        self.sent.set(true);
        let (result, buf) = self.half.writev(buf).await;
        self.sent.set(before || result.is_ok());
        (result, buf)
    }

    fn flush(&mut self) -> impl Future<Output = io::Result<()>> {
        self.half.flush()
    }

    fn shutdown(&mut self) -> impl Future<Output = io::Result<()>> {
        self.half.shutdown()
    }
}
