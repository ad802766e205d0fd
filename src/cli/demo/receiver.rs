//! A region of the demo: a small strict HTTP server on loopback that checks signatures and tells what it got.
//!
//! Each parcel becomes one [`Delivery`] on the channel, before its answer is written: so parcels of
//! one conversation are told in the order in which the region took them. Threads and blocking
//! sockets, since it must be readable as an example and must share nothing with the gateway.
//! It takes what the gateway promises to send (`content-length`, no chunks) and refuses the rest.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use super::events::{Digest, Event, digest_of, events_in};
use crate::cli::sign::verifies;

const HEAD_MAX: usize = 16 << 10;
/// Meta sends 3 MB at most.
const BODY_MAX: usize = 8 << 20;
/// More than any region's `in_flight` in demo or tests.
const CONNECTIONS_MAX: usize = 256;
/// How soon a thread notices a changed mode; the error of [`Receiver::set_mode`].
const TICK: Duration = Duration::from_millis(10);
/// For the rest of a request whose first byte has come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How a region behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Answers 200.
    Healthy = 0,
    /// Reads, and answers 503.
    Unavailable = 1,
    /// Has no listening socket, and drops the connections it had.
    Refusing = 2,
}

/// One parcel at a region's door.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub region: String,
    pub at: Instant,
    /// 200 or 503; a parcel counts as taken with 200 only.
    pub answered: u16,
    /// True if `x-hub-signature-256` is right for the body's bytes.
    pub signed: bool,
    /// Of the whole body.
    pub digest: Digest,
    pub bytes: usize,
    /// Empty if the body is not one of Meta's.
    pub events: Vec<Event>,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
}

impl Delivery {
    /// `penstock-attempt`; 0 if it is missing or no number.
    pub fn attempt(&self) -> u32 {
        self.headers.get("penstock-attempt").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// `penstock-possible-duplicate: true`.
    pub fn possible_duplicate(&self) -> bool {
        self.headers.get("penstock-possible-duplicate").is_some_and(|text| text == "true")
    }
}

/// A running region; dropping it closes its socket and ends its threads.
#[derive(Debug)]
pub struct Receiver {
    name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    closed: AtomicBool,
    connections: AtomicUsize,
    region: String,
    secret: Vec<u8>,
}

impl Receiver {
    /// Starts a healthy region on a free port of loopback. `secret` is what its parcels are signed with.
    pub fn start(name: &str, secret: &[u8], deliveries: Sender<Delivery>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(Mode::Healthy as u8),
            closed: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            region: name.to_owned(),
            secret: secret.to_vec(),
        });
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name(format!("region {name}"))
            .spawn(move || accept(listener, address, &theirs, &deliveries))?;
        Ok(Self { name: name.to_owned(), address, shared })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that a gateway forwards to.
    pub fn endpoint(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    /// Takes effect within a few milliseconds.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    /// True while connections may live.
    fn open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst) && self.mode.load(Ordering::SeqCst) != Mode::Refusing as u8
    }

    fn status(&self) -> u16 {
        if self.mode.load(Ordering::SeqCst) == Mode::Unavailable as u8 { 503 } else { 200 }
    }
}

/// Accepts until the region is dropped; without a socket while it refuses.
fn accept(listener: TcpListener, address: SocketAddr, shared: &Arc<Shared>, deliveries: &Sender<Delivery>) {
    let mut listener = Some(listener);
    while !shared.closed.load(Ordering::SeqCst) {
        if !shared.open() {
            listener = None;
        } else if listener.is_none() {
            // Somebody may hold the port for a moment: tried again at the next tick.
            listener = TcpListener::bind(address).ok();
            if listener.as_ref().is_some_and(|listener| listener.set_nonblocking(true).is_err()) {
                listener = None;
            }
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((stream, _))) if shared.connections.load(Ordering::SeqCst) < CONNECTIONS_MAX => {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, deliveries) = (Arc::clone(shared), deliveries.clone());
                thread::spawn(move || {
                    // A broken connection is the gateway's to notice and to repeat.
                    serve(stream, &shared, &deliveries).ok();
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(Ok(_)) => {}
            #[allow(clippy::disallowed_methods, reason = "a thread of its own, no core")]
            Some(Err(_)) | None => thread::sleep(TICK / 5),
        }
    }
}

/// One connection: requests one after another until either side ends it.
fn serve(mut stream: TcpStream, shared: &Shared, deliveries: &Sender<Delivery>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    let mut bytes = Vec::new();
    loop {
        let request = match read_request(&mut stream, &mut bytes, &|| shared.open())? {
            Incoming::Request(request) if shared.open() => request,
            Incoming::Refused(status) => return answer(&mut stream, status, "close"),
            Incoming::Request(_) | Incoming::End => return Ok(()),
        };
        let signature = request.headers.get("x-hub-signature-256").map_or("", String::as_str);
        let status = shared.status();
        let delivery = Delivery {
            region: shared.region.clone(),
            at: Instant::now(),
            answered: status,
            signed: verifies(&shared.secret, &request.body, signature),
            digest: digest_of(&request.body),
            bytes: request.body.len(),
            events: events_in(&request.body).unwrap_or_default(),
            headers: request.headers,
        };
        if deliveries.send(delivery).is_err() {
            return Ok(());
        }
        answer(&mut stream, status, "keep-alive")?;
    }
}

fn answer(stream: &mut TcpStream, status: u16, connection: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes())
}

/// A request with a body.
pub(super) struct Request {
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

pub(super) enum Incoming {
    Request(Request),
    Refused(u16),
    /// The peer closed between two requests, or the region went away.
    End,
}

/// Reads one request; what follows it stays in `bytes`. Needs a read time-out on the stream, at which it asks
/// whether the connection is still `open`.
pub(super) fn read_request(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    open: &dyn Fn() -> bool,
) -> io::Result<Incoming> {
    let mut begun = None;
    loop {
        match parse(bytes) {
            Ok(Some((request, length))) => {
                bytes.drain(..length);
                return Ok(Incoming::Request(request));
            }
            Ok(None) => {}
            Err(status) => return Ok(Incoming::Refused(status)),
        }
        let mut chunk = [0; 16 << 10];
        match stream.read(&mut chunk) {
            Ok(0) if bytes.is_empty() => return Ok(Incoming::End),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                begun.get_or_insert_with(Instant::now);
                bytes.extend_from_slice(&chunk[..count]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if !open() {
                    return Ok(Incoming::End);
                }
                if begun.is_some_and(|begun: Instant| begun.elapsed() > REQUEST_TIMEOUT) {
                    return Ok(Incoming::Refused(408));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first request in `bytes` and its length, `None` if more must come, or the status to refuse it with.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, u16> {
    let mut space = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut space);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() > HEAD_MAX => return Err(431),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(400),
    };
    let mut headers = HashMap::new();
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).map_err(|_| 400_u16)?;
        if headers.insert(header.name.to_ascii_lowercase(), value.to_owned()).is_some() {
            return Err(400); // Which of the two would be meant?
        }
    }
    if head.method != Some("POST") {
        return Err(405);
    }
    let body = match headers.get("content-length") {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            digits.parse::<usize>().map_err(|_| 413_u16)?
        }
        Some(_) => return Err(400),
        None => return Err(411),
    };
    if headers.contains_key("transfer-encoding") {
        return Err(400);
    }
    if body > BODY_MAX {
        return Err(413);
    }
    let end = length + body;
    Ok(bytes.get(length..end).map(|body| (Request { headers, body: body.to_vec() }, end)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::webhooks::{Mint, PEOPLE};
    use super::*;
    use crate::cli::client::{Client, ClientError, Url};
    use crate::cli::sign::signature;

    const SECRET: &[u8] = b"region secret";

    fn start() -> (Receiver, mpsc::Receiver<Delivery>, Client) {
        let (sender, deliveries) = mpsc::channel();
        let receiver = Receiver::start("europe", SECRET, sender).unwrap();
        let url = Url::parse(&receiver.endpoint()).unwrap();
        (receiver, deliveries, Client::new(url, Duration::from_secs(5)))
    }

    #[test]
    fn parcel_is_told_with_its_headers_events_and_signature() {
        let (_receiver, deliveries, mut client) = start();
        let body = Mint::new(1, 1_789_400_000).message(PEOPLE[0], "hi").body;
        let right = signature(SECRET, &body);
        let wrong = signature(b"other", &body);
        for (signed, signature) in [(true, &right), (false, &wrong)] {
            let headers =
                [("X-Hub-Signature-256", signature.as_str()), ("penstock-attempt", "3"), ("webhook-id", "w")];
            assert_eq!(client.request("POST", &headers, &body).unwrap().status, 200);
            let delivery = deliveries.recv().unwrap();
            assert_eq!((delivery.signed, delivery.answered, delivery.attempt()), (signed, 200, 3));
            assert_eq!(delivery.headers["webhook-id"], "w");
            assert_eq!(delivery.events, events_in(&body).unwrap());
            assert_eq!((delivery.bytes, delivery.digest), (body.len(), digest_of(&body)));
            assert!(!delivery.possible_duplicate());
        }
    }

    #[test]
    fn region_can_fail_refuse_and_come_back() {
        let (receiver, deliveries, mut client) = start();
        let mut post = || client.request("POST", &[], b"{}").map(|answer| answer.status);
        receiver.set_mode(Mode::Unavailable);
        assert_eq!(post().unwrap(), 503);
        assert_eq!(deliveries.recv().unwrap().answered, 503);

        receiver.set_mode(Mode::Refusing);
        let limit = Instant::now() + Duration::from_secs(5);
        while !matches!(post(), Err(ClientError::Connect { .. })) {
            assert!(Instant::now() < limit, "the socket stays open");
        }
        receiver.set_mode(Mode::Healthy);
        while post().ok() != Some(200) {
            assert!(Instant::now() < limit, "the region does not come back");
        }
    }

    #[test]
    fn requests_in_doubt_are_refused() {
        let check = |raw: &str, expected: Result<bool, u16>| {
            assert_eq!(parse(raw.as_bytes()).map(|request| request.is_some()), expected, "{raw}");
        };
        check("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", Ok(true));
        check("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n{", Ok(false));
        check("POST / HTTP/1.1\r\ncontent-le", Ok(false));
        check("POST / HTTP/1.1\r\n\r\n", Err(411));
        check("POST / HTTP/1.1\r\ncontent-length: +2\r\n\r\n{}", Err(400));
        check("POST / HTTP/1.1\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\n{}", Err(400));
        check("POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}", Err(400));
        check("POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", Err(413));
        check("GET / HTTP/1.1\r\n\r\n", Err(405));
        check(&format!("POST / HTTP/1.1\r\nx: {}", "x".repeat(HEAD_MAX)), Err(431));
        check("\u{1}\r\n\r\n", Err(400));
    }
}
