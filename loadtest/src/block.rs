//! One server under load: started, warmed up, measured between two readings, stopped once all has arrived.
//!
//! Only differences between the two readings count, but for the ledger, which is of the whole block: what was
//! answered 200 must have arrived at the regions.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::archive::{self, Archived};
use crate::child::{Server, free_address};
use crate::cpu::Usage;
use crate::gateway::{Counters, Gateway, Setup};
use crate::generator::{self, Plan, Sent, Webhooks};
use crate::peer::{Peer, Running};
use crate::perf::Counts;
use crate::pool::Pool;
use crate::quota::Quota;
use crate::sink::Sink;
use crate::users::Routes;

/// How long the parcels of a block may take to arrive after its load has ended.
const DRAIN: Duration = Duration::from_secs(20);

/// How a server is loaded, and where.
#[derive(Debug, Clone)]
pub struct Setting {
    pub connections: usize,
    /// Webhooks a second; 0 = as fast as answers come.
    pub rate: u64,
    /// From the start for so long another rate.
    pub calm: Option<(u64, Duration)>,
    /// Seconds of load before those that are measured.
    pub warm_up: u64,
    pub seconds: u64,
    /// Share of the webhooks that were sent before.
    pub repeats: f64,
    pub regions: usize,
    pub server_cpu: usize,
    pub load_cpu: usize,
    /// For what the server writes; emptied by the block.
    pub folder: PathBuf,
}

/// What a gateway is started with.
#[derive(Debug, Clone, Copy)]
pub struct Build<'a> {
    pub binary: &'a Path,
    pub routes: &'a Routes,
    /// An archive for each region, on the same disk.
    pub archive: bool,
    /// Configuration behind all else.
    pub extra: &'a str,
    /// Share of its CPU that the gateway may use, until the load has ended.
    pub quota: Option<f64>,
    /// Events to be counted while it is measured.
    pub events: &'a [String],
}

impl<'a> Build<'a> {
    /// Archives, all of the CPU, nothing counted.
    pub fn new(binary: &'a Path, routes: &'a Routes) -> Self {
        Self { binary, routes, archive: true, extra: "", quota: None, events: &[] }
    }
}

/// What one block found out. Times are microseconds of server CPU.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Answers 200 a second.
    pub rate: f64,
    /// Parcels that arrived, a second.
    pub delivery_rate: f64,
    /// All of the server's CPU, by answers.
    pub all_us: f64,
    /// Threads `ingest-*` by answers, threads `forward-*` by parcels, thread `archive` and the others by answers.
    pub ingest_us: f64,
    pub forward_us: f64,
    pub archive_us: f64,
    pub rest_us: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Times a thread slept, by answers.
    pub sleeps: f64,
    /// Writes of the journal and doorbells, by answers.
    pub commits: f64,
    pub doorbells: f64,
    /// Events a second, where some were to be counted.
    pub counts: Counts,
    /// Memory at the end of what is measured.
    pub resident_bytes: u64,
    /// Entries by write of the journal.
    pub batch: f64,
    /// All of the server's CPU from the first webhook until the last has arrived, by answers.
    pub whole_us: f64,
    /// The whole block, from its first webhook to its last: answered 200 (what was sent before does not
    /// count), answered otherwise, connections broken.
    pub accepted: u64,
    pub other: u64,
    pub failed: u64,
    /// Parcels that arrived, each counted once, and those that came again.
    pub delivered: u64,
    pub again: u64,
    /// The archives' records, where there are archives.
    pub archived: Option<Archived>,
    /// Webhooks sent twice because the pool was too small.
    pub repeated: u64,
}

/// A figure of a block, by its name.
pub type Column = (&'static str, fn(&Block) -> f64);

/// What a webhook costs and how long it waits, in microseconds and milliseconds.
pub const COLUMNS: [Column; 6] = [
    ("all us", |block| block.all_us),
    ("ingest us", |block| block.ingest_us),
    ("forward us", |block| block.forward_us),
    ("archive us", |block| block.archive_us),
    ("p50 ms", |block| block.p50_ms),
    ("p99 ms", |block| block.p99_ms),
];

impl Block {
    /// Of a closed loop: the lower of what was answered and what the cost lets one CPU do, what was still to be
    /// forwarded included.
    pub fn capacity(&self) -> f64 {
        self.rate.min(1e6 / self.whole_us)
    }

    /// Of a gateway: that all that was answered 200 has arrived.
    pub fn all_delivered(&self) -> anyhow::Result<()> {
        let Self { accepted, delivered, .. } = *self;
        ensure!(
            delivered == accepted,
            "the gateway answered {accepted} webhooks with 200 and delivered {delivered} of them within {DRAIN:?}; \
             expected all"
        );
        Ok(())
    }

    /// The same, and that it is archived where there are archives.
    pub fn whole_ledger(&self) -> anyhow::Result<()> {
        self.all_delivered()?;
        let Self { accepted, archived, .. } = *self;
        if let Some(Archived { records, again, .. }) = archived {
            ensure!(
                records == accepted && again == 0,
                "the gateway answered {accepted} webhooks with 200 and archived {records} of them, and {again} \
                 again; expected each once"
            );
        }
        Ok(())
    }
}

/// The floor, which this program is itself.
pub fn floor(setting: &Setting, pool: Arc<Pool>) -> anyhow::Result<Block> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe().context("find the own binary")?);
    command.args(["floor", "--listen", &address.to_string(), "--cpu", &setting.server_cpu.to_string()]);
    let mut server = Server::start(command, &[setting.server_cpu], &setting.folder.join("floor.log"))?;
    server.wait_until(|| std::net::TcpStream::connect(address).is_ok())?;
    let target = Target { address, server: &server, counters: &|| Ok(Counters::default()), delivered: &|| 0 };
    let loaded = load(setting, pool, &target, &mut sleep)?;
    let block = loaded.close(&server)?;
    server.stop()?;
    Ok(block)
}

/// The gateway with a fresh journal.
pub fn gateway(setting: &Setting, pool: Arc<Pool>, build: Build<'_>, sink: &Sink) -> anyhow::Result<Block> {
    let folder = fresh(&setting.folder, "gateway")?;
    let archive =
        build.archive.then(|| folder.canonicalize().map(|folder| folder.join("archive"))).transpose()?;
    let setup = Setup {
        archive: archive.as_deref(),
        extra: build.extra,
        ..Setup::new(build.binary, &folder, setting.server_cpu, sink.address, build.routes)
    };
    let gateway = Gateway::start(&setup)?;
    let quota = build.quota.map(|share| Quota::set(gateway.server.pid(), share)).transpose()?;
    let arrived = Arrived::so_far(sink);
    let (mut counts, mut resident_bytes) = (Counts::default(), 0);
    let mut pass = |time: Duration| {
        if build.events.is_empty() {
            std::thread::sleep(time);
        } else {
            counts = Counts::take(gateway.server.pid(), build.events, time)?;
        }
        resident_bytes = gateway.resident_bytes()?;
        Ok(())
    };
    let target = Target {
        address: gateway.address,
        server: &gateway.server,
        counters: &|| gateway.counters(),
        delivered: &|| arrived.distinct(),
    };
    let loaded = load(setting, pool, &target, &mut pass)?;
    // What still waits is no part of what was measured.
    drop(quota);
    arrived.wait_for(loaded.sent.ok.load(Relaxed) - loaded.sent.again.load(Relaxed));
    let mut block = loaded.close(&gateway.server)?;
    (block.delivered, block.again) = arrived.since();
    (block.counts, block.resident_bytes) = (counts, resident_bytes);
    gateway.server.stop()?;
    block.archived = archive.map(|archive| archive::count(&archive)).transpose()?;
    remove(&folder)?;
    Ok(block)
}

/// A reference server. That it has forwarded what it answered is a condition of the block.
pub fn peer(setting: &Setting, pool: Arc<Pool>, peer: &Peer, sink: &Sink) -> anyhow::Result<Block> {
    let folder = fresh(&setting.folder, peer.kind.name())?;
    let running = Running::start(peer, &folder, setting.server_cpu, sink, setting.regions)?;
    let arrived = Arrived::so_far(sink);
    let target = Target {
        address: running.address,
        server: &running.server,
        counters: &|| Ok(Counters::default()),
        delivered: &|| arrived.distinct(),
    };
    let loaded = load(setting, pool, &target, &mut sleep)?;
    arrived.wait_for(loaded.sent.ok.load(Relaxed));
    let mut block = loaded.close(&running.server)?;
    (block.delivered, block.again) = arrived.since();
    running.server.stop()?;
    remove(&folder)?;
    let name = peer.to_string();
    ensure!(
        block.other == 0 && block.failed == 0,
        "{name} answered {} webhooks otherwise than with 200 and broke {} connections; expected none: lower --load",
        block.other,
        block.failed
    );
    ensure!(
        block.delivered == block.accepted,
        "{name} answered {} webhooks with 200 and forwarded {} of them within {DRAIN:?}; expected all",
        block.accepted,
        block.delivered
    );
    Ok(block)
}

fn fresh(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = parent.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

/// What arrives at the regions during a block.
struct Arrived<'a> {
    sink: &'a Sink,
    distinct: u64,
    parcels: u64,
}

impl<'a> Arrived<'a> {
    fn so_far(sink: &'a Sink) -> Self {
        let received = &sink.received;
        received.epoch.fetch_add(1, Relaxed);
        Self { sink, distinct: received.distinct.load(Relaxed), parcels: received.parcels.load(Relaxed) }
    }

    fn distinct(&self) -> u64 {
        self.sink.received.distinct.load(Relaxed) - self.distinct
    }

    /// Parcels, each counted once, and those that came again.
    fn since(&self) -> (u64, u64) {
        let distinct = self.distinct();
        (distinct, self.sink.received.parcels.load(Relaxed) - self.parcels - distinct)
    }

    fn wait_for(&self, expected: u64) {
        let start = Instant::now();
        while self.distinct() < expected && start.elapsed() < DRAIN {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

struct Loaded {
    block: Block,
    sent: Arc<Sent>,
    /// Before the first webhook.
    first: Usage,
}

impl Loaded {
    /// The ledger and the cost of the whole block, once all has arrived.
    fn close(self, server: &Server) -> anyhow::Result<Block> {
        let Self { mut block, sent, first } = self;
        block.accepted = sent.ok.load(Relaxed) - sent.again.load(Relaxed);
        block.other = sent.other.load(Relaxed);
        block.failed = sent.failed.load(Relaxed);
        block.repeated = sent.repeated.load(Relaxed);
        let used = Usage::of(server.pid())?.since(&first).all();
        block.whole_us = used as f64 / 1e3 / block.accepted.max(1) as f64;
        Ok(block)
    }
}

/// All readings at one moment.
struct Reading {
    at: Instant,
    usage: Usage,
    counters: Counters,
    answered: u64,
    delivered: u64,
}

/// A server, and whom to ask about it.
struct Target<'a> {
    address: SocketAddr,
    server: &'a Server,
    counters: &'a dyn Fn() -> anyhow::Result<Counters>,
    delivered: &'a dyn Fn() -> u64,
}

fn sleep(time: Duration) -> anyhow::Result<()> {
    std::thread::sleep(time);
    Ok(())
}

/// Loads a server and measures it between two readings; `pass` lets the time between them pass.
fn load(
    setting: &Setting,
    pool: Arc<Pool>,
    target: &Target<'_>,
    pass: &mut dyn FnMut(Duration) -> anyhow::Result<()>,
) -> anyhow::Result<Loaded> {
    let steady = Plan::steady(target.address, setting.connections, setting.rate, setting.load_cpu);
    let schedule = match setting.calm {
        Some((calm, after)) => steady.schedule.stepping(calm, after),
        None => steady.schedule,
    };
    let plan = Plan { repeats: setting.repeats, schedule, ..steady };
    let pid = target.server.pid();
    let first = Usage::of(pid)?;
    let load = generator::start(plan, Webhooks::Pool(pool))?;
    let sent = Arc::clone(&load.sent);
    let read = || -> anyhow::Result<Reading> {
        // The scrape comes first on both sides, so that its own cost falls outside at one end only.
        let counters = (target.counters)()?;
        let usage = Usage::of(pid)?;
        let (answered, delivered) = (sent.ok.load(Relaxed), (target.delivered)());
        Ok(Reading { at: Instant::now(), usage, counters, answered, delivered })
    };
    std::thread::sleep(Duration::from_secs(setting.warm_up));
    let before = read()?;
    sent.record.store(true, Relaxed);
    pass(Duration::from_secs(setting.seconds))?;
    let after = read()?;
    sent.record.store(false, Relaxed);
    let latency = load.stop()?.accepted;
    let mut block = difference(&before, &after);
    block.p50_ms = latency.value_at_quantile(0.5) as f64 / 1e3;
    block.p99_ms = latency.value_at_quantile(0.99) as f64 / 1e3;
    Ok(Loaded { block, sent, first })
}

fn difference(before: &Reading, after: &Reading) -> Block {
    let used = after.usage.since(&before.usage);
    let answers = (after.answered - before.answered).max(1) as f64;
    let parcels = (after.delivered - before.delivered).max(1) as f64;
    let micros = |ns: u64| ns as f64 / 1e3;
    let [ingest, forward, archive] = ["ingest", "forward", "archive"].map(|name| used.thread(name));
    let rest = used.all().saturating_sub(ingest + forward + archive);
    let (ingest_us, forward_us) = (micros(ingest) / answers, micros(forward) / parcels);
    let (archive_us, rest_us) = (micros(archive) / answers, micros(rest) / answers);
    let commits = after.counters.commits - before.counters.commits;
    let entries = after.counters.committed_entries - before.counters.committed_entries;
    Block {
        rate: answers / (after.at - before.at).as_secs_f64(),
        delivery_rate: parcels / (after.at - before.at).as_secs_f64(),
        all_us: ingest_us + forward_us + archive_us + rest_us,
        ingest_us,
        forward_us,
        archive_us,
        rest_us,
        sleeps: used.sleeps as f64 / answers,
        commits: commits / answers,
        batch: entries / commits.max(1.0),
        doorbells: (after.counters.doorbells - before.counters.doorbells) / answers,
        ..Block::default()
    }
}
