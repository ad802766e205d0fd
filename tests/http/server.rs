//! A listener with a handler that echoes, on loopback, and a client that counts every byte.

use std::borrow::Cow;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use monoio::{IoUringDriver, RuntimeBuilder};
use penstock::config::{Limits, Listen};
use penstock::http1::{RequestHead, Response, ResponseDecoder, Step};
use penstock::listen::{Answer, Handler, LargeBody, Patience, Reply, Shared, bind, serve};
use penstock::metrics::IngestCells;

/// Limits that no test meets by accident.
pub(crate) fn limits() -> Limits {
    let long = Duration::from_secs(20);
    Limits {
        head: 16 << 10,
        body: 4 << 20,
        memory: 1 << 30,
        connections: 1000,
        per_peer: 0,
        header_timeout: long,
        body_timeout: long,
        idle_timeout: long,
    }
}

/// Answers by path; see [`Echo::accept`].
struct Echo {
    /// Larger bodies it wants to have.
    large: usize,
}

fn reply(status: u16, body: impl Into<Cow<'static, [u8]>>) -> Reply {
    Reply { status, headers: &[], body: body.into(), close: false }
}

impl Handler for Echo {
    type Pass = usize;
    type Ticket = Pin<Box<dyn Future<Output = Reply>>>;

    fn admit(&self, head: &RequestHead<'_>, _peer: SocketAddr) -> Result<usize, Reply> {
        match (head.method, head.target) {
            ("GET" | "HEAD" | "POST", "/" | "/now" | "/slow" | "/big" | "/panic") => Ok(head.headers.len()),
            ("PUT" | "DELETE", "/") => {
                Err(Reply { headers: &[("allow", "GET, POST")], ..reply(405, &b"not here"[..]) })
            }
            _ => Err(reply(404, &b"nothing here"[..])),
        }
    }

    fn accept(
        &self,
        pass: usize,
        head: &RequestHead<'_>,
        _: SocketAddr,
        body: &[u8],
    ) -> Answer<Self::Ticket> {
        assert_eq!(pass, head.headers.len(), "the same head as when it was admitted");
        // Not for `/now`, which is there to count allocations.
        let body = if head.target == "/now" { Vec::new() } else { body.to_vec() };
        match head.target {
            "/now" => Answer::Now(reply(200, &b""[..])),
            "/big" => Answer::Now(reply(200, vec![b'x'; 32 << 20])),
            "/panic" => panic!("asked for by a test"),
            "/slow" => Answer::Later(Box::pin(async move {
                monoio::time::sleep(Duration::from_millis(400)).await;
                reply(200, body)
            })),
            _ => Answer::Later(Box::pin(async move { reply(200, body) })),
        }
    }

    fn large(&self) -> usize {
        self.large
    }

    fn accept_large(
        &self,
        pass: usize,
        head: &RequestHead<'_>,
        peer: SocketAddr,
        body: LargeBody,
    ) -> Answer<Self::Ticket> {
        assert!(body.len() > self.large);
        let mut whole = Vec::new();
        body.copy_to(&mut whole);
        let held = body.into_held();
        match self.accept(pass, head, peer, &whole) {
            Answer::Later(ticket) => Answer::Later(Box::pin(async move {
                let reply = ticket.await;
                drop(held);
                reply
            })),
            now @ Answer::Now(_) => now,
        }
    }
}

/// A running listener; drained when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
    pub(crate) cells: Arc<IngestCells>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(limits: Limits) -> Self {
        Self::with(limits, &[], Patience { linger: Duration::from_secs(1), ..Patience::default() })
    }

    pub(crate) fn with(limits: Limits, allow_from: &[&str], patience: Patience) -> Self {
        Self::run(limits, allow_from, patience, usize::MAX, |serve| serve())
    }

    /// Its handler gets bodies of more than `large` bytes by value.
    pub(crate) fn start_with_large(limits: Limits, large: usize) -> Self {
        let patience = Patience { linger: Duration::from_secs(1), ..Patience::default() };
        Self::run(limits, &[], patience, large, |serve| serve())
    }

    /// `around` is called on the listener's thread with all of its work.
    pub(crate) fn run(
        limits: Limits,
        allow_from: &[&str],
        patience: Patience,
        large: usize,
        around: impl FnOnce(&mut dyn FnMut()) + Send + 'static,
    ) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let allow_from = allow_from.iter().map(|net| net.parse().unwrap()).collect();
        let listener = bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Shared::new(&Listen { address, allow_from, trusted_proxies: Vec::new(), limits }, patience);
        let cells = Arc::new(IngestCells::default());
        let (shared_too, cells_too) = (Arc::clone(&shared), Arc::clone(&cells));
        let thread = std::thread::spawn(move || {
            let mut runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build().unwrap();
            let mut parts = Some((listener, shared_too, cells_too));
            around(&mut || {
                let (listener, shared, cells) = parts.take().unwrap();
                runtime.block_on(serve(listener, Rc::new(Echo { large }), shared, cells)).unwrap();
            });
        });
        Self { address, shared, cells, thread: Some(thread) }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        Client { stream, unread: Vec::new() }
    }

    /// Waits until the listener's thread has ended.
    pub(crate) fn join(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.drain();
        if let Some(thread) = self.thread.take() {
            // A test that fails already says why; a second panic would hide it.
            thread.join().ok();
        }
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer and the bytes of its head and body.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) closes: bool,
}

impl Client {
    /// Sends in one piece; false if the server has closed already, which the answer will explain.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends in pieces that end at `cuts`, so that each arrives alone.
    pub(crate) fn send_cut(&mut self, bytes: &[u8], cuts: impl IntoIterator<Item = usize>) {
        let mut start = 0;
        for end in cuts {
            self.send(&bytes[start..end]);
            std::thread::sleep(Duration::from_micros(30));
            start = end;
        }
        self.send(&bytes[start..]);
    }

    /// Another handle of the same connection.
    pub(crate) fn twin(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), unread: Vec::new() }
    }

    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The next answer; `None` if the connection was closed without one.
    pub(crate) fn answer(&mut self) -> Option<Seen> {
        let mut decoder = ResponseDecoder::default();
        let mut eof = false;
        loop {
            match decoder.decode(&self.unread, eof) {
                Ok(Step::Done(response)) => return Some(self.take(&response)),
                Ok(Step::NeedMore) => eof = self.read() == 0,
                Err(error) if eof && self.unread.is_empty() => {
                    assert_eq!(error, penstock::http1::BadAnswer::Closed);
                    return None;
                }
                Err(error) => panic!("{error}: {}", self.unread.escape_ascii()),
            }
        }
    }

    fn take(&mut self, response: &Response) -> Seen {
        let mut bytes = self.unread.drain(..response.consumed).collect::<Vec<_>>();
        let body = bytes.split_off(response.body.start);
        let head = String::from_utf8(bytes).unwrap();
        Seen { status: response.status, head, body, closes: !response.reusable }
    }

    /// Bytes that came until the end or the time limit; an error counts as the end.
    fn read(&mut self) -> usize {
        let mut buf = [0; 64 << 10];
        let bytes = self.stream.read(&mut buf).unwrap_or(0);
        self.unread.extend_from_slice(&buf[..bytes]);
        bytes
    }

    /// For a connection that should be closing: the server reads on until we have finished too.
    pub(crate) fn finish_sending_if_open(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).ok();
    }

    /// The next `len` bytes, taken away.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.unread.len() < len && self.read() > 0 {}
        self.unread.drain(..len.min(self.unread.len())).collect()
    }

    /// The next answer of any size, with its length: head and body.
    pub(crate) fn long_answer(&mut self) -> (String, Vec<u8>) {
        let end = loop {
            match self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => assert!(self.read() > 0, "closed within a head"),
            }
        };
        let head = String::from_utf8(self.bytes(end)).unwrap();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        (head, self.bytes(length))
    }

    /// True if something to read is there already.
    pub(crate) fn has_answer(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let found = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        found
    }

    /// True if the server closes now, without a reset and without another byte.
    pub(crate) fn ends_cleanly(&mut self) -> bool {
        self.unread.is_empty() && self.stream.read(&mut [0]).is_ok_and(|bytes| bytes == 0)
    }

    /// Everything until the server closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read() > 0 {}
        std::mem::take(&mut self.unread)
    }

    /// Sends one more request to see that the connection still works.
    pub(crate) fn assert_alive(&mut self, what: &str) {
        self.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\ncanary");
        let answer = self.answer().unwrap_or_else(|| panic!("closed after: {what}"));
        assert_eq!((answer.status, answer.body), (200, b"canary".to_vec()), "after: {what}");
        assert!(!answer.closes, "closes after: {what}");
    }
}

/// Waits up to three seconds for something another thread does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..300 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("did not happen: {what}");
}
