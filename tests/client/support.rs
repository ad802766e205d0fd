//! A region that follows a script, and a core that sends to it.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use monoio::{IoUringDriver, RuntimeBuilder};
use penstock::config::{Endpoint, Region, Retry};
use penstock::deadline::Deadlines;
use penstock::forward::client::{Attempt, Client, Outcome};
use penstock::forward::envelope::{Envelope, Stamp};

/// Longest wait of a script for anything: a bug must end as a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the client's timeout is where a test waits for it.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A region played by a thread.
pub(crate) struct Script<T> {
    pub(crate) address: SocketAddr,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Script<T> {
    pub(crate) fn start(play: impl FnOnce(&TcpListener) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, thread: std::thread::spawn(move || play(&listener)) }
    }

    /// What the script returned.
    pub(crate) fn end(self) -> T {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The next connection.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(2),
            Err(error) => panic!("accept: {error}"),
        }
        assert!(Instant::now() < until, "no connection came");
    }
}

/// Reads one request to the end of its body; empty if the connection ended instead.
pub(crate) fn request(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => return bytes,
            Ok(_) => bytes.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("read: {error}, after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    let head = String::from_utf8(bytes.clone()).unwrap();
    let length = head.split_once("content-length: ").unwrap().1.split_once("\r\n").unwrap().0;
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    bytes.extend_from_slice(&body);
    bytes
}

pub(crate) fn answer(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}

/// Closes with a reset instead of an orderly end.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until the client has closed.
pub(crate) fn closed(stream: &mut TcpStream) {
    let mut buf = [0; 4096];
    match stream.read(&mut buf) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Ok(n) => panic!("{n} more bytes: {:?}", String::from_utf8_lossy(&buf[..n])),
        Err(error) => panic!("the client did not close: {error}"),
    }
}

#[allow(clippy::disallowed_methods, reason = "scripts run on their own threads")]
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

pub(crate) fn region(address: SocketAddr) -> Region {
    Region {
        name: "us-east".into(),
        endpoint: Endpoint {
            host: address.ip().to_string(),
            port: address.port(),
            authority: "us.example.com".into(),
            target: "/webhook?a=b".into(),
        },
        prefixes: Vec::new(),
        countries: Vec::new(),
        phone_number_ids: Vec::new(),
        accounts: Vec::new(),
        signing_secret: None,
        in_flight: 4,
        timeout: PATIENCE,
        source_address: None,
        archive: None,
        rate: 0,
        retry: Retry::default(),
    }
}

/// What a core has to send to one region.
pub(crate) struct Core {
    pub(crate) client: Client,
    envelope: Envelope,
}

impl Core {
    pub(crate) fn head(&self, body: &[u8]) -> Parts {
        let id = self.envelope.id(&[7; 32], 0);
        let stamp = Stamp {
            id: &id,
            body,
            hub_signature: &[0xAB; 32],
            received_at_ms: 1_700_000_000_123,
            now_s: 1_700_000_060,
            attempt: 1,
            gap_before: 0,
            possible_duplicate: false,
        };
        self.envelope.head(&stamp, &mut BytesMut::new())
    }

    pub(crate) async fn send(&self, body: &'static [u8]) -> Attempt {
        let start = Instant::now();
        self.client.send(&mut self.head(body), Bytes::from_static(body), start).await.0
    }

    /// Sends, and expects 200.
    pub(crate) async fn deliver(&self, body: &'static [u8]) -> Attempt {
        let attempt = self.send(body).await;
        assert_eq!(attempt.outcome, status(200));
        assert!(!attempt.sent_bytes);
        attempt
    }
}

pub(crate) const fn status(status: u16) -> Outcome {
    Outcome::Answered { status, retry_after: None }
}

/// Runs `work` on a ring with deadlines that are swept, as a core does.
pub(crate) fn on_core<F: Future>(region: &Region, work: impl FnOnce(Rc<Core>) -> F) -> F::Output {
    let mut runtime =
        RuntimeBuilder::<IoUringDriver>::new().with_entries(256).enable_timer().build().unwrap();
    runtime.block_on(async {
        let deadlines = Rc::new(Deadlines::default());
        let swept = Rc::clone(&deadlines);
        monoio::spawn(async move {
            loop {
                monoio::time::sleep(Duration::from_millis(10)).await;
                swept.sweep(Instant::now());
            }
        });
        let core = Core {
            client: Client::new(region, deadlines),
            envelope: Envelope::new("edge-1", "main", region).unwrap(),
        };
        let core = Rc::new(core);
        let result = work(Rc::clone(&core)).await;
        // Lets the ring close what is dropped here before it goes itself.
        drop(core);
        monoio::time::sleep(Duration::from_millis(20)).await;
        result
    })
}

/// A pause of the client that lets the ring run on.
pub(crate) async fn rest(ms: u64) {
    monoio::time::sleep(Duration::from_millis(ms)).await;
}
