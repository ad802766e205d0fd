//! The provider: keep-alive connections that post signed webhooks and note what was answered when.
//!
//! A connection sends its next webhook when the last one was answered (or failed); several share
//! the people, so a conversation's webhooks come in on different connections, and so on different cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::body::{Webhook, World};
use super::http::{Connection, post};
use super::{Random, SECRET, signature};

/// Longer than any answer may take; the provider's own patience is 20 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// One webhook on its way.
#[derive(Debug)]
pub struct Sent {
    pub webhook: Webhook,
    /// Just before its first byte was written.
    pub sent: Instant,
    /// Just after the answer was read, and its status; `None` if the connection failed first.
    pub answered: Option<(Instant, u16)>,
}

impl Sent {
    pub fn acked(&self) -> Option<Instant> {
        self.answered.and_then(|(at, status)| (status == 200).then_some(at))
    }
}

#[derive(Debug, Clone)]
pub struct Load {
    pub address: SocketAddr,
    pub path: String,
    pub world: Arc<World>,
    pub connections: usize,
    /// Webhooks per second over all connections; 0 = as fast as they are answered.
    pub rate: u32,
    pub seed: u64,
}

#[derive(Debug)]
pub struct Sender {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<Sent>>>,
}

impl Sender {
    pub fn start(load: &Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let threads = (0..load.connections)
            .map(|n| {
                let line = Line {
                    load: load.clone(),
                    random: Random(load.seed ^ ((n as u64) << 32)),
                    connection: None,
                    acked: Arc::clone(&acked),
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || line.run(&stop))
            })
            .collect();
        Self { stop, acked, threads }
    }

    /// Webhooks answered 200 so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(SeqCst)
    }

    /// Stops after what is under way; gives back everything that was sent.
    pub fn stop(self) -> Vec<Sent> {
        self.stop.store(true, SeqCst);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Sends for a while and stops.
pub fn send_for(load: &Load, duration: Duration) -> Vec<Sent> {
    let sender = Sender::start(load);
    std::thread::sleep(duration);
    sender.stop()
}

/// Sends one webhook on a connection of its own.
pub fn post_one(address: SocketAddr, webhook: Webhook) -> Sent {
    let proof = signature(SECRET, &webhook.body);
    let request = post("/webhook", ("x-hub-signature-256", &proof), &webhook.body);
    let sent = Instant::now();
    let mut connection = Connection::open(address, PATIENCE).unwrap();
    connection.send(&request).unwrap();
    let answer = connection.answer().unwrap();
    Sent { webhook, sent, answered: Some((Instant::now(), answer.status())) }
}

/// One connection.
struct Line {
    load: Load,
    random: Random,
    connection: Option<Connection>,
    acked: Arc<AtomicU64>,
}

impl Line {
    fn run(mut self, stop: &AtomicBool) -> Vec<Sent> {
        let gap = match self.load.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(self.load.connections as f64 / f64::from(rate)),
        };
        let mut due = Instant::now();
        let mut all = Vec::new();
        while !stop.load(SeqCst) {
            if self.connection.is_none() {
                self.connection = Connection::open(self.load.address, PATIENCE).ok();
            }
            if self.connection.is_none() {
                // Nobody listens: it was killed and comes back.
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Behind schedule does not mean a burst later: an outage of the gateway itself is not made up for.
            due = due.max(Instant::now() - gap) + gap;
            all.push(self.send());
        }
        all
    }

    fn send(&mut self) -> Sent {
        let webhook = self.load.world.next(&mut self.random);
        let proof = signature(SECRET, &webhook.body);
        let request = post(&self.load.path, ("x-hub-signature-256", &proof), &webhook.body);
        let sent = Instant::now();
        let answer = self.connection.as_mut().map(|connection| {
            connection.send(&request)?;
            connection.answer()
        });
        let answered = match answer {
            Some(Ok(answer)) => {
                if answer.closes() {
                    self.connection = None;
                }
                Some((Instant::now(), answer.status()))
            }
            _ => {
                self.connection = None;
                None
            }
        };
        let sent = Sent { webhook, sent, answered };
        if sent.acked().is_some() {
            self.acked.fetch_add(1, SeqCst);
        }
        sent
    }
}
