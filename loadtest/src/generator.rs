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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use monoio::io::AsyncWriteRentExt;
use monoio::net::TcpStream;

use crate::bits::Bits;
use crate::http::{self, Incoming};
use crate::pool::{Numbered, Pool};
use crate::random::Random;
use crate::schedule::{Dues, Schedule};
use crate::server;

/// Longest latency that the histogram tells apart.
const LONGEST_US: u64 = 60_000_000;
/// Longest sleep of a connection before it looks whether the load has ended.
const NAP: Duration = Duration::from_millis(500);
/// How long connections may take to be made; with fewer it begins all the same.
const CONNECTING: Duration = Duration::from_secs(10);
/// How often a connection that is made looks whether all are.
const GATHER: Duration = Duration::from_millis(20);
/// How far off the moment is that never comes.
const IDLE: Duration = Duration::from_secs(1 << 20);
/// A repeat is one of so many: far enough back that its first may be anywhere on its way.
const REMEMBERED: u64 = 10_000;

/// Whom to load, and how.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub target: SocketAddr,
    pub connections: usize,
    pub schedule: Schedule,
    /// Webhooks of a connection, after which another takes its place; 0 = as long as the server keeps it.
    pub churn: u64,
    /// Share of webhooks that were sent before.
    pub repeats: f64,
    pub cpu: Option<usize>,
}

impl Plan {
    /// Evenly spaced, nothing repeated, connections kept; rate 0 = as fast as answers come.
    pub fn steady(target: SocketAddr, connections: usize, rate: u64, cpu: usize) -> Self {
        Self { target, connections, schedule: Schedule::steady(rate), churn: 0, repeats: 0.0, cpu: Some(cpu) }
    }
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
    /// Webhooks sent a second time because that was wanted.
    pub again: AtomicU64,
    /// Connections made.
    pub opened: AtomicU64,
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

/// From the moments at which webhooks were due, in microseconds.
#[derive(Debug)]
pub struct Latencies {
    /// Of those answered 200.
    pub accepted: Histogram<u64>,
    /// Of those answered otherwise.
    pub refused: Histogram<u64>,
}

/// A generator under way.
pub struct Load {
    pub sent: Arc<Sent>,
    /// When the first webhook was due.
    pub started: Instant,
    thread: std::thread::JoinHandle<anyhow::Result<Latencies>>,
}

impl Load {
    /// Lets every connection finish its webhook.
    pub fn stop(self) -> anyhow::Result<Latencies> {
        self.sent.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the generator panicked"))?
    }
}

/// Returns once the connections are made, or [`CONNECTING`] has passed; from then on webhooks are due.
pub fn start(plan: Plan, webhooks: Webhooks) -> anyhow::Result<Load> {
    let sent = Arc::new(Sent::default());
    let shared = Arc::clone(&sent);
    let (starts, started) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .name("generator".into())
        .spawn(move || server::on_core(plan.cpu, generate(plan, webhooks, starts, shared))?)?;
    match started.recv() {
        Ok(started) => Ok(Load { sent, started, thread }),
        // It has ended, and says why.
        Err(_) => match thread.join() {
            Ok(result) => Err(result.err().unwrap_or_else(|| anyhow::anyhow!("the generator has ended"))),
            Err(_) => Err(anyhow::anyhow!("the generator panicked")),
        },
    }
}

/// What the connections of one generator share.
struct Shared {
    plan: Plan,
    webhooks: Webhooks,
    sent: Arc<Sent>,
    dues: RefCell<Option<Dues>>,
    /// Webhooks sent for the first time.
    fresh: Cell<u64>,
    random: RefCell<Random>,
    /// When the first webhook is due: `None` until the connections are made.
    started: Cell<Option<Instant>>,
    latencies: RefCell<Latencies>,
}

async fn generate(
    plan: Plan,
    webhooks: Webhooks,
    starts: mpsc::Sender<Instant>,
    sent: Arc<Sent>,
) -> anyhow::Result<Latencies> {
    let accepted = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
    let latencies = RefCell::new(Latencies { refused: accepted.clone(), accepted });
    let shared = Rc::new(Shared {
        plan,
        webhooks,
        sent,
        dues: RefCell::new(plan.schedule.dues()),
        fresh: Cell::new(0),
        random: RefCell::new(Random(!plan.schedule.seed)),
        started: Cell::new(None),
        latencies,
    });
    let connections: Vec<_> =
        (0..plan.connections).map(|_| monoio::spawn(keep_sending(Rc::clone(&shared)))).collect();
    let (connecting, most) = (Instant::now(), plan.connections as u64);
    while shared.sent.opened.load(Relaxed) < most && connecting.elapsed() < CONNECTING {
        monoio::time::sleep(Duration::from_millis(1)).await;
    }
    let started = Instant::now();
    shared.started.set(Some(started));
    // Nobody waits for it if the thread that started this has gone.
    starts.send(started).ok();
    for connection in connections {
        connection.await;
    }
    let shared = Rc::into_inner(shared).context("every connection has ended")?;
    Ok(shared.latencies.into_inner())
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
    shared.sent.opened.fetch_add(1, Relaxed);
    let (mut incoming, mut outgoing, mut sent) = (Incoming::new(), Vec::new(), 0);
    while !shared.sent.stop.load(Relaxed) {
        let Some((number, due)) = shared.take_turn().await else { return Ok(()) };
        outgoing.clear();
        shared.webhooks.write(number, &mut outgoing);
        let written;
        (written, outgoing) = stream.write_all(outgoing).await;
        written?;
        let Some((status, length)) = incoming.message(&mut stream, http::answer).await? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        incoming.take(length);
        shared.count(number, status, due);
        sent += 1;
        if sent == shared.plan.churn {
            return Ok(());
        }
    }
    Ok(())
}

impl Webhooks {
    fn write(&self, number: u64, out: &mut Vec<u8>) {
        match self {
            Self::Pool(pool) => out.extend_from_slice(pool.get(number as usize % pool.len())),
            Self::Numbered(numbered, first) => numbered.borrow_mut().write(first + number, out),
        }
    }
}

impl Shared {
    /// Which webhook is next, once its moment has come, and the moment its latency counts from. `None` if the load is
    /// told to stop before.
    async fn take_turn(&self) -> Option<(u64, Instant)> {
        let started = loop {
            match self.started.get() {
                Some(started) => break started,
                None => monoio::time::sleep(GATHER).await,
            }
        };
        let mut now = Instant::now();
        let due = match self.dues.borrow_mut().as_mut() {
            None => now,
            // A schedule that has ended leaves its connections idle until they are told to stop.
            Some(dues) => dues.next().map_or(now + IDLE, |due| started + due),
        };
        if due <= now {
            return Some((self.pick(), due));
        }
        while due - now > NAP {
            monoio::time::sleep(NAP).await;
            if self.sent.stop.load(Relaxed) {
                return None;
            }
            now = Instant::now();
        }
        monoio::time::sleep(due.saturating_duration_since(now)).await;
        Some((self.pick(), Instant::now()))
    }

    /// A webhook that was not sent yet, or one of the last ones again.
    fn pick(&self) -> u64 {
        let fresh = self.fresh.get();
        let mut random = self.random.borrow_mut();
        if self.plan.repeats > 0.0 && fresh > 0 && random.share() < self.plan.repeats {
            self.sent.again.fetch_add(1, Relaxed);
            return fresh - 1 - random.below(fresh.min(REMEMBERED));
        }
        self.fresh.set(fresh + 1);
        if matches!(&self.webhooks, Webhooks::Pool(pool) if fresh >= pool.len() as u64) {
            self.sent.repeated.fetch_add(1, Relaxed);
        }
        fresh
    }

    fn count(&self, number: u64, status: u16, due: Instant) {
        if status == 200
            && let Webhooks::Numbered(_, first) = self.webhooks
        {
            self.sent.numbers.set(first + number);
        }
        let counter = if status == 200 { &self.sent.ok } else { &self.sent.other };
        counter.fetch_add(1, Relaxed);
        if self.sent.record.load(Relaxed) {
            let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US);
            let mut latencies = self.latencies.borrow_mut();
            let kind = if status == 200 { &mut latencies.accepted } else { &mut latencies.refused };
            kind.saturating_record(micros.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Shape;
    use crate::sink;

    /// Sends to regions that take everything, for some time; what was sent, its latencies, and parcels that came.
    fn run(plan: Plan, time: Duration) -> (Arc<Sent>, Latencies, u64) {
        let sink = sink::start("127.0.0.1:0".parse().unwrap(), None).unwrap();
        let pool = Pool::new(1, 100_000, 100, "/region-0", "secret");
        let plan = Plan { target: sink.address, cpu: None, ..plan };
        let load = start(plan, Webhooks::Pool(Arc::new(pool))).unwrap();
        load.sent.record.store(true, Relaxed);
        std::thread::sleep(time);
        let sent = Arc::clone(&load.sent);
        let latencies = load.stop().unwrap();
        (sent, latencies, sink.received.parcels.load(Relaxed))
    }

    fn plan(connections: usize, rate: u64) -> Plan {
        Plan::steady("127.0.0.1:1".parse().unwrap(), connections, rate, 0)
    }

    #[test]
    fn every_webhook_that_is_due_is_sent_once() {
        let (sent, latencies, parcels) = run(plan(8, 2000), Duration::from_secs(1));
        let ok = sent.ok.load(Relaxed);
        // A busy machine may be late with the last of them; none is left out.
        assert!((1000..=2100).contains(&ok), "{ok}");
        assert_eq!((parcels, latencies.accepted.len(), latencies.refused.len()), (ok, ok, 0));
        assert_eq!((sent.repeated.load(Relaxed), sent.opened.load(Relaxed)), (0, 8));
    }

    #[test]
    fn connections_that_have_sent_enough_are_replaced() {
        let (sent, ..) = run(Plan { churn: 5, ..plan(4, 0) }, Duration::from_millis(300));
        let (ok, opened) = (sent.ok.load(Relaxed), sent.opened.load(Relaxed));
        assert!(ok > 20 && sent.failed.load(Relaxed) == 0, "{ok}");
        assert!((ok / 5..=ok / 5 + 4).contains(&opened), "{ok} over {opened}");
    }

    #[test]
    fn as_many_are_repeated_as_wanted() {
        let (sent, ..) = run(Plan { repeats: 0.3, ..plan(4, 0) }, Duration::from_millis(500));
        let (ok, again) = (sent.ok.load(Relaxed), sent.again.load(Relaxed));
        assert!(ok > 500, "{ok}");
        assert!((again as f64 / ok as f64 - 0.3).abs() < 0.1, "{again} of {ok}");
    }

    #[test]
    fn a_schedule_that_ends_leaves_its_connections_until_they_are_told_to_stop() {
        let shape = Shape::Step { from: 1000.0, to: 0.0, after: Duration::from_millis(100) };
        let schedule = Schedule { shape, poisson: false, seed: 0 };
        let start = Instant::now();
        let (sent, ..) = run(Plan { schedule, ..plan(4, 0) }, Duration::from_millis(400));
        assert!((95..=105).contains(&sent.ok.load(Relaxed)), "{:?}", sent.ok);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
