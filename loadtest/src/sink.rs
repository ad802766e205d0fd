//! The regions: one server that answers 200 to every parcel and counts by `webhook-id`.
//!
//! The id is stable over retries, so distinct ids are parcels delivered and the rest are repeats.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::http::{self, Incoming};
use crate::script::{Act, Script};
use crate::server;

/// What a region does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200.
    Taken,
    /// 200, but not at once.
    TakenAfter(Duration),
    /// 500.
    Refused,
    /// None: the connection is broken.
    Broken,
}

impl From<bool> for Answer {
    fn from(taken: bool) -> Self {
        if taken { Self::Taken } else { Self::Refused }
    }
}

const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

#[derive(clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// What a region does and when, `REGION@FROM-TO=WHAT`, seconds from the
    /// start; REGION is a number or `*`, WHAT is `fail`, `break` or
    /// `delay:200ms`; may be given again
    #[arg(long = "act", value_name = "ACT")]
    acts: Vec<Act>,
}

/// What came. The sink writes, anyone reads.
#[derive(Debug, Default)]
pub struct Received {
    pub parcels: AtomicU64,
    /// Parcels by `webhook-id`; one without counts each time.
    pub distinct: AtomicU64,
    /// Whoever changes it makes all ids new again: another server gets the same webhooks.
    pub epoch: AtomicU64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let sink = start_with(args.listen, args.cpu, Script::new(args.acts.clone()))?;
    println!("sink listens on {}", sink.address);
    let mut last = 0;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let (parcels, distinct) = (sink.received.parcels.load(Relaxed), sink.received.distinct.load(Relaxed));
        println!("{parcels} parcels, {distinct} distinct, {}/s", parcels - last);
        last = parcels;
    }
}

/// A running sink; it runs until the process ends.
pub struct Sink {
    pub address: SocketAddr,
    pub received: Arc<Received>,
}

/// Takes everything.
pub fn start(listen: SocketAddr, cpu: Option<usize>) -> anyhow::Result<Sink> {
    start_with(listen, cpu, Script::new(Vec::new()))
}

/// Does as `script` says. What is not taken is not counted.
pub fn start_with(listen: SocketAddr, cpu: Option<usize>, script: Script) -> anyhow::Result<Sink> {
    let received = Arc::new(Received::default());
    let shared = Arc::clone(&received);
    let address = serve(listen, cpu, move || {
        let counter = Counter {
            received: shared,
            seen: RefCell::default(),
            epoch: Cell::new(0),
            hash: RandomState::new(),
        };
        move |request: &[u8]| {
            let answer = script.answer(request, Instant::now());
            if matches!(answer, Answer::Taken | Answer::TakenAfter(_)) {
                counter.count(request);
            }
            answer
        }
    })?;
    Ok(Sink { address, received })
}

/// Serves until the process ends: each request is shown, head and body, to what `make` makes on the thread that
/// serves, and answered as that says. Returns the address.
pub fn serve<A: Into<Answer> + 'static, T: Fn(&[u8]) -> A + 'static>(
    listen: SocketAddr,
    cpu: Option<usize>,
    make: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<SocketAddr> {
    let (bound, address) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("sink".into()).spawn(move || {
        let ended = server::on_core(cpu, async {
            let listener = server::bind(listen)?;
            bound.send(listener.local_addr()?).context("tell the address")?;
            let take = Rc::new(make());
            Ok(server::accept(listener, |stream| connection(stream, Rc::clone(&take))).await?)
        });
        let ended: anyhow::Result<()> = ended.flatten();
        if let Err(error) = ended {
            eprintln!("the sink ended: {error:#}");
        }
    })?;
    address.recv().context("start the sink; its cause stands above")
}

/// Whom a request is for, from its path: `/region-3`.
pub fn region(request: &[u8]) -> Option<usize> {
    let digits = request.strip_prefix(b"POST /region-")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

struct Counter {
    received: Arc<Received>,
    /// Hashes of ids: 8 bytes for each of some millions.
    seen: RefCell<HashSet<u64>>,
    epoch: Cell<u64>,
    hash: RandomState,
}

impl Counter {
    fn count(&self, request: &[u8]) {
        self.received.parcels.fetch_add(1, Relaxed);
        let epoch = self.received.epoch.load(Relaxed);
        if self.epoch.replace(epoch) != epoch {
            self.seen.borrow_mut().clear();
        }
        let new = http::header(request, "webhook-id")
            .is_none_or(|id| self.seen.borrow_mut().insert(self.hash.hash_one(id)));
        self.received.distinct.fetch_add(u64::from(new), Relaxed);
    }
}

async fn connection<A: Into<Answer>>(mut stream: TcpStream, take: Rc<impl Fn(&[u8]) -> A>) -> io::Result<()> {
    let mut incoming = Incoming::new();
    while let Some(((), length)) = incoming.message(&mut stream, http::request).await? {
        let answer = match take(&incoming.bytes()[..length]).into() {
            Answer::Taken => TAKEN,
            Answer::TakenAfter(delay) => {
                monoio::time::sleep(delay).await;
                TAKEN
            }
            Answer::Refused => REFUSED,
            Answer::Broken => return Ok(()),
        };
        incoming.take(length);
        stream.write_all(answer).await.0?;
    }
    Ok(())
}
