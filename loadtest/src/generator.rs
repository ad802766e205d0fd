//! The provider: posts signed webhooks over keep-alive connections and counts the answers.
//!
//! Closed loop: every connection sends as soon as it has its answer, which finds the server's cost when it is
//! busy. Open loop (`--rate`): each webhook has a moment at which it is due, and its latency counts from there,
//! so that a server that stalls is not spared the webhooks it kept from being sent. A connection that was free at that
//! moment counts from when it has woken: timers of the runtime are up to 2 ms late, which is not the server's doing.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::bits::Bits;
use crate::http::{self, Incoming};
use crate::pool::{Numbered, Pool};
use crate::server;

/// Longest latency that the histogram tells apart.
const LONGEST_US: u64 = 60_000_000;

#[derive(clap::Args)]
pub struct Args {
    /// Server to post to
    #[arg(long, default_value = "127.0.0.1:8080")]
    target: SocketAddr,
    /// Path of the source
    #[arg(long, default_value = "/webhook")]
    path: String,
    /// Secret that signs
    #[arg(long, default_value = "loadtest-secret")]
    secret: String,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Webhooks a second; 0 = as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// How long
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Webhooks made in advance; sent again from the first when used up
    #[arg(long, default_value_t = 300_000)]
    pool: usize,
    /// Users who write and are written to
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPU to run on
    #[arg(long)]
    cpu: Option<usize>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let pool = Pool::new(args.seed, args.pool, args.users, &args.path, &args.secret);
    println!("{} webhooks of {} bytes, seed {}", pool.len(), pool.mean_bytes(), args.seed);
    let plan = Plan { target: args.target, connections: args.connections, rate: args.rate, cpu: args.cpu };
    let load = start(plan, Webhooks::Pool(Arc::new(pool)))?;
    load.sent.record.store(true, Relaxed);
    std::thread::sleep(Duration::from_secs(args.seconds));
    let sent = Arc::clone(&load.sent);
    let latency = load.stop()?;
    let (ok, other) = (sent.ok.load(Relaxed), sent.other.load(Relaxed));
    println!(
        "{ok} answered 200, {other} otherwise, {} failed, {}/s",
        sent.failed.load(Relaxed),
        ok / args.seconds.max(1)
    );
    println!(
        "p50 {} us, p99 {} us, most {} us",
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        latency.max()
    );
    Ok(())
}

/// Whom to load, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub target: SocketAddr,
    pub connections: usize,
    pub rate: u64,
    pub cpu: Option<usize>,
}

/// What was sent and answered so far. The generator writes, anyone reads.
#[derive(Debug, Default)]
pub struct Sent {
    /// Answered 200.
    pub ok: AtomicU64,
    /// Answered with another status.
    pub other: AtomicU64,
    /// Connections that broke; the webhook in flight has no answer.
    pub failed: AtomicU64,
    /// Webhooks sent a second time because the pool was used up.
    pub repeated: AtomicU64,
    /// Numbered webhooks that were answered 200.
    pub numbers: Bits,
    /// Latencies are kept while this is true.
    pub record: AtomicBool,
    stop: AtomicBool,
}

/// What is sent.
pub enum Webhooks {
    /// Again from the first when used up.
    Pool(Arc<Pool>),
    /// From that number on.
    Numbered(Box<RefCell<Numbered>>, u64),
}

/// A generator under way.
pub struct Load {
    pub sent: Arc<Sent>,
    /// When the first webhook was due.
    pub started: Instant,
    thread: std::thread::JoinHandle<anyhow::Result<Histogram<u64>>>,
}

impl Load {
    /// Lets every connection finish its webhook; the latencies, in microseconds.
    pub fn stop(self) -> anyhow::Result<Histogram<u64>> {
        self.sent.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?
    }
}

pub fn start(plan: Plan, webhooks: Webhooks) -> anyhow::Result<Load> {
    let sent = Arc::new(Sent::default());
    let shared = Arc::clone(&sent);
    let started = Instant::now();
    let thread = std::thread::Builder::new()
        .name("generator".into())
        .spawn(move || server::on_core(plan.cpu, generate(plan, webhooks, started, shared))?)?;
    Ok(Load { sent, started, thread })
}

/// What the connections of one generator share.
struct Shared {
    plan: Plan,
    webhooks: Webhooks,
    sent: Arc<Sent>,
    next: Cell<u64>,
    started: Instant,
    latency: RefCell<Histogram<u64>>,
}

async fn generate(
    plan: Plan,
    webhooks: Webhooks,
    started: Instant,
    sent: Arc<Sent>,
) -> anyhow::Result<Histogram<u64>> {
    let latency = RefCell::new(Histogram::new_with_bounds(1, LONGEST_US, 3)?);
    let shared = Rc::new(Shared { plan, webhooks, sent, next: Cell::new(0), started, latency });
    let connections: Vec<_> =
        (0..plan.connections).map(|_| monoio::spawn(keep_sending(Rc::clone(&shared)))).collect();
    for connection in connections {
        connection.await;
    }
    let shared = Rc::into_inner(shared).context("every connection has ended")?;
    Ok(shared.latency.into_inner())
}

/// One connection after the other until told to stop.
async fn keep_sending(shared: Rc<Shared>) {
    while !shared.sent.stop.load(Relaxed) {
        if send_on_one_connection(&shared).await.is_err() {
            shared.sent.failed.fetch_add(1, Relaxed);
            // A server that refuses must not turn this into a storm of connects.
            monoio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn send_on_one_connection(shared: &Shared) -> io::Result<()> {
    let mut stream = TcpStream::connect_addr(shared.plan.target).await?;
    stream.set_nodelay(true)?;
    let (mut incoming, mut outgoing) = (Incoming::new(), Vec::new());
    while !shared.sent.stop.load(Relaxed) {
        let (turn, due) = shared.take_turn().await;
        outgoing.clear();
        shared.webhooks.write(turn, &mut outgoing);
        let written;
        (written, outgoing) = stream.write_all(outgoing).await;
        written?;
        let Some((status, length)) = incoming.message(&mut stream, http::answer).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        incoming.take(length);
        shared.count(turn, status, due);
    }
    Ok(())
}

impl Webhooks {
    fn write(&self, turn: u64, out: &mut Vec<u8>) {
        match self {
            Self::Pool(pool) => out.extend_from_slice(pool.get(turn as usize % pool.len())),
            Self::Numbered(numbered, first) => numbered.borrow_mut().write(first + turn, out),
        }
    }
}

impl Shared {
    /// The next turn and the moment its latency counts from, which has come.
    async fn take_turn(&self) -> (u64, Instant) {
        let turn = self.next.replace(self.next.get() + 1);
        if matches!(&self.webhooks, Webhooks::Pool(pool) if turn >= pool.len() as u64) {
            self.sent.repeated.fetch_add(1, Relaxed);
        }
        let now = Instant::now();
        let due = match self.plan.rate {
            0 => now,
            rate => self.started + Duration::from_nanos(turn.saturating_mul(1_000_000_000) / rate),
        };
        if due <= now {
            return (turn, due);
        }
        monoio::time::sleep(due - now).await;
        (turn, Instant::now())
    }

    fn count(&self, turn: u64, status: u16, due: Instant) {
        if status == 200
            && let Webhooks::Numbered(_, first) = self.webhooks
        {
            self.sent.numbers.set(first + turn);
        }
        let counter = if status == 200 { &self.sent.ok } else { &self.sent.other };
        counter.fetch_add(1, Relaxed);
        if self.sent.record.load(Relaxed) {
            let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US);
            self.latency.borrow_mut().saturating_record(micros.max(1));
        }
    }
}
