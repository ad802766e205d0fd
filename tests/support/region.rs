//! A scripted regional back end on loopback: takes parcels on keep-alive connections, one thread
//! each, does what its mode says and keeps everything it was sent.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Connection, Message, find};

/// How a region answers. May change while parcels come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Ok,
    Status(u16),
    /// Reads the parcel and never answers; the connection ends when the mode changes.
    Hang,
    /// Nobody listens and every open connection is cut.
    Refuse,
    /// Answers 200 after a while.
    Slow(Duration),
    /// Answers every second parcel with that.
    Half(u16),
    /// Answers with that and a `Retry-After` of so many seconds.
    Asks(u16, u64),
    /// Answers parcels in which this text stands with that.
    Against(u16, &'static str),
    Rude(Rude),
}

/// Ways to answer that no server should have. Each ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rude {
    /// Bytes that are no HTTP.
    Garbage,
    /// Announces more than it sends.
    Short,
    /// A refusal, and a 200 that nobody asked for right behind it.
    Twice,
    /// Cuts the connection once it has the request.
    Reset,
    /// One byte a second.
    Trickle,
    /// 200, and then a body of 1 GiB.
    LongBody,
    LongHead,
    /// A million interim answers.
    Interim,
}

impl Rude {
    pub const ALL: [Self; 8] = [
        Self::Garbage,
        Self::Short,
        Self::Twice,
        Self::Reset,
        Self::Trickle,
        Self::LongBody,
        Self::LongHead,
        Self::Interim,
    ];

    /// What a gateway may take it for; 0: no answer.
    fn status(self) -> u16 {
        match self {
            // The status is what counts; the rest is not read to its end.
            Self::LongBody => 200,
            Self::Twice => 503,
            _ => 0,
        }
    }

    /// Plays it until the peer has enough.
    fn play(self, connection: &mut Connection, goes_on: impl Fn() -> bool) {
        let (start, piece, times): (&str, &str, usize) = match self {
            Self::Garbage => ("", "SSH-2.0-OpenSSH_9.2\r\n\x01\x02", 1),
            Self::Short => ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", "abc", 1),
            Self::Twice => {
                let refusal = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
                (refusal, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1)
            }
            Self::Reset => return connection.reset(),
            Self::Trickle => ("", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1),
            Self::LongBody => ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", "x", 1 << 30),
            Self::LongHead => ("HTTP/1.1 200 OK\r\n", "a: b\r\n", 1 << 28),
            Self::Interim => ("", "HTTP/1.1 100 Continue\r\n\r\n", 1_000_000),
        };
        if self == Self::Trickle {
            for byte in piece.as_bytes() {
                std::thread::sleep(Duration::from_secs(1));
                if !goes_on() || connection.send(&[*byte]).is_err() {
                    return;
                }
            }
            return;
        }
        let many = times.min(1000);
        let block = piece.repeat(many);
        if connection.send(start.as_bytes()).is_ok() {
            for _ in 0..times / many {
                if connection.send(block.as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

/// What one attempt brought.
#[derive(Debug)]
pub struct Parcel {
    pub head: Message,
    /// The answer; 0 if none was given.
    pub status: u16,
    /// Just before the answer was written: what a correct gateway does because of it comes later.
    pub done: Instant,
}

impl Parcel {
    pub fn delivered(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn body(&self) -> &[u8] {
        &self.head.body
    }

    pub fn header(&self, name: &str) -> &str {
        self.head
            .header(name)
            .unwrap_or_else(|| panic!("parcel without {name}; it has {:?}", self.head.headers))
    }
}

#[derive(Debug)]
pub struct Region {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    parcels: Mutex<Vec<Arc<Parcel>>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    /// When open connections were cut.
    cuts: Mutex<Vec<Instant>>,
    next: AtomicU64,
    /// Of [`Mode::Half`].
    turn: AtomicU64,
}

impl Region {
    pub fn start(name: &str) -> Self {
        let shared = Shared {
            mode: Mutex::new(Mode::Ok),
            parcels: Mutex::default(),
            open: Mutex::default(),
            cuts: Mutex::default(),
            next: AtomicU64::new(0),
            turn: AtomicU64::new(0),
        };
        let address = super::loopback(super::ports::free_port());
        let mut region = Self { name: name.to_owned(), address, shared: Arc::new(shared), listener: None };
        region.listen();
        region
    }

    pub fn set(&mut self, mode: Mode) {
        let before = std::mem::replace(&mut *lock(&self.shared.mode), mode);
        match (before == Mode::Refuse, mode == Mode::Refuse) {
            (false, true) => self.close(),
            (true, false) => self.listen(),
            _ => {}
        }
    }

    /// All parcels so far in the order in which they were answered.
    pub fn parcels(&self) -> Vec<Arc<Parcel>> {
        self.parcels_from(0)
    }

    pub fn parcels_from(&self, first: usize) -> Vec<Arc<Parcel>> {
        lock(&self.shared.parcels)[first..].to_vec()
    }

    pub fn count(&self) -> usize {
        lock(&self.shared.parcels).len()
    }

    /// Forgets all parcels so far: a long run that was judged need not be kept.
    pub fn forget(&self) {
        lock(&self.shared.parcels).clear();
    }

    /// When open connections were cut: answers on their way may have been lost with them.
    pub fn cuts(&self) -> Vec<Instant> {
        lock(&self.shared.cuts).clone()
    }

    fn listen(&mut self) {
        let listener = super::ports::listen(self.address)
            .unwrap_or_else(|e| panic!("region {} cannot listen on {}: {e}", self.name, self.address));
        let shared = Arc::clone(&self.shared);
        self.listener = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *lock(&shared.mode) == Mode::Refuse {
                    return;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.serve(stream));
            }
        }));
    }

    fn close(&mut self) {
        lock(&self.shared.cuts).push(Instant::now());
        // Wakes the accept, which then sees the mode.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.listener.take() {
            thread.join().ok();
        }
        for (_, stream) in lock(&self.shared.open).drain() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.set(Mode::Refuse);
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let id = self.next.fetch_add(1, SeqCst);
        let Ok(twin) = stream.try_clone() else { return };
        lock(&self.open).insert(id, twin);
        if let Ok(mut connection) = Connection::over(stream) {
            while let Ok(Some(head)) = connection.read() {
                if !self.take(&mut connection, head) {
                    break;
                }
            }
        }
        lock(&self.open).remove(&id);
    }

    /// Answers one parcel; false ends the connection.
    fn take(&self, connection: &mut Connection, head: Message) -> bool {
        let mode = *lock(&self.mode);
        let status = match mode {
            Mode::Half(status) if self.turn.fetch_add(1, SeqCst).is_multiple_of(2) => status,
            Mode::Against(status, text) if find(&head.body, text.as_bytes()).is_some() => status,
            Mode::Ok | Mode::Half(_) | Mode::Against(..) => 200,
            Mode::Status(status) | Mode::Asks(status, _) => status,
            Mode::Slow(pause) => {
                std::thread::sleep(pause);
                200
            }
            Mode::Hang | Mode::Refuse => 0,
            Mode::Rude(rude) => rude.status(),
        };
        lock(&self.parcels).push(Arc::new(Parcel { head, status, done: Instant::now() }));
        if mode == Mode::Hang {
            while *lock(&self.mode) == Mode::Hang {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Mode::Rude(rude) = mode {
            rude.play(connection, || *lock(&self.mode) == mode);
            return false;
        }
        if status == 0 {
            return false;
        }
        let reason = if status == 200 { "OK" } else { "Scripted" };
        let asks = if let Mode::Asks(_, seconds) = mode {
            format!("retry-after: {seconds}\r\n")
        } else {
            String::new()
        };
        let answer = format!("HTTP/1.1 {status} {reason}\r\n{asks}content-length: 0\r\n\r\n");
        connection.send(answer.as_bytes()).is_ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poison only says that another thread of the test failed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
