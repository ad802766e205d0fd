//! Floor and gateway in one run: blocks in alternating order, each with a fresh server and fresh webhooks.
//!
//! A block: start, load for the warm-up, read all counters, load for the window, read them again, stop the load,
//! wait until every parcel has arrived. Only differences between the two readings count. The order turns from pair
//! to pair (A B B A ...), so that a slow drift of the machine does not favour one side.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::archive::{self, Archived};
use crate::child::{Server, free_address};
use crate::cpu::{Usage, steal};
use crate::gateway::{self, Counters, Gateway, PATH, SECRET};
use crate::generator::{self, Plan, Sent, Webhooks};
use crate::pool::Pool;
use crate::sink::{self, Sink};
use crate::table;

/// How long the parcels of a block may take to arrive after its load has ended.
const DRAIN: Duration = Duration::from_secs(20);

/// Measure floor and gateway in alternating blocks
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  cargo build --release --workspace
  target/release/penstock-loadtest --gateway target/release/penstock")]
pub struct Args {
    /// Binary of the gateway; without it only the floor is measured
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Blocks of each server
    #[arg(long, default_value_t = 4)]
    pairs: usize,
    /// Seconds measured in a block
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Webhooks a second; 0 = as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Regions of the gateway, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    regions: u8,
    /// Give every region of the gateway an archive, on the same disk
    #[arg(long)]
    archive: bool,
    /// Webhooks made for a block; when they are used up they repeat
    #[arg(long, default_value_t = 400_000)]
    pool: usize,
    /// Users who write and are written to
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    /// CPU of the server
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of generator and sink
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Folder for the journals of the runs; on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What one block found out. Times are microseconds of server CPU.
#[derive(Debug, Clone, Default)]
pub struct Block {
    /// Answers 200 a second.
    pub rate: f64,
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
    /// Writes of the journal, doorbells and ring enters, by answers.
    pub commits: f64,
    pub doorbells: f64,
    pub enters: f64,
    /// Entries by write of the journal.
    pub batch: f64,
    /// The whole block, from its first webhook to its last: answered 200, answered otherwise, connections broken.
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

/// All of a run.
#[derive(Debug, Default)]
pub struct Run {
    pub floor: Vec<Block>,
    pub gateway: Vec<Block>,
    pub bytes: usize,
    /// Of all CPU time during the run.
    pub steal_percent: f64,
    pub load_average: String,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.pairs > 0 && args.seconds > 0, "pairs and seconds must be at least 1");
    ensure!(args.server_cpu != args.load_cpu, "server and load need a CPU each");
    let folder = gateway::folder(&args.folder)?;
    let sink = sink::start("127.0.0.1:0".parse()?, Some(args.load_cpu))?;
    let (stolen, total) = steal();
    let mut run = Run::default();
    for pair in 0..args.pairs {
        for turn in 0..2 {
            let number = pair * 2 + turn;
            let first = (pair + turn) % 2 == 0;
            let (name, block) = match (&args.gateway, first) {
                (_, true) => ("floor", floor_block(args, folder.path(), number, &mut run)?),
                (Some(binary), false) => {
                    ("gateway", gateway_block(args, binary, folder.path(), number, &sink, &mut run)?)
                }
                (None, false) => continue,
            };
            eprintln!("block {number}: {name} {:.2} us, {:.1} k/s", block.all_us, block.rate / 1e3);
            if first { run.floor.push(block) } else { run.gateway.push(block) }
        }
    }
    let (stolen_now, total_now) = steal();
    run.steal_percent = (stolen_now - stolen) as f64 / (total_now - total).max(1) as f64 * 100.0;
    run.load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    if args.json {
        println!("{:#}", table::json(&run));
    } else {
        print!("{}", table::text(&run));
    }
    Ok(())
}

fn floor_block(args: &Args, folder: &Path, number: usize, run: &mut Run) -> anyhow::Result<Block> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe().context("find the own binary")?);
    command.args(["floor", "--listen", &address.to_string(), "--cpu", &args.server_cpu.to_string()]);
    let mut server = Server::start(command, args.server_cpu, &folder.join("floor.log"))?;
    server.wait_until(|| std::net::TcpStream::connect(address).is_ok())?;
    let loaded = load(args, number, address, &server, || Ok(Counters::default()), || 0, run)?;
    let Loaded { mut block, sent } = loaded;
    close_ledger(&mut block, &sent);
    server.stop()?;
    Ok(block)
}

fn gateway_block(
    args: &Args,
    binary: &Path,
    folder: &Path,
    number: usize,
    sink: &Sink,
    run: &mut Run,
) -> anyhow::Result<Block> {
    let folder = folder.join(number.to_string());
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let archive =
        args.archive.then(|| folder.canonicalize().map(|folder| folder.join("archive"))).transpose()?;
    let regions = args.regions.into();
    let gateway =
        Gateway::start(binary, &folder, args.server_cpu, sink.address, regions, archive.as_deref())?;
    let delivered = || sink.received.distinct.load(Relaxed);
    let (delivered_before, parcels_before) = (delivered(), sink.received.parcels.load(Relaxed));
    let loaded = load(args, number, gateway.address, &gateway.server, || gateway.counters(), delivered, run)?;
    let Loaded { mut block, sent } = loaded;
    close_ledger(&mut block, &sent);
    let start = Instant::now();
    while delivered() - delivered_before < block.accepted && start.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(50));
    }
    block.delivered = delivered() - delivered_before;
    block.again = sink.received.parcels.load(Relaxed) - parcels_before - block.delivered;
    gateway.server.stop()?;
    block.archived = archive.map(|archive| archive::count(&archive)).transpose()?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    Ok(block)
}

fn close_ledger(block: &mut Block, sent: &Sent) {
    block.accepted = sent.ok.load(Relaxed);
    block.other = sent.other.load(Relaxed);
    block.failed = sent.failed.load(Relaxed);
    block.repeated = sent.repeated.load(Relaxed);
}

struct Loaded {
    block: Block,
    sent: Arc<Sent>,
}

/// All readings at one moment.
struct Reading {
    at: Instant,
    usage: Usage,
    counters: Counters,
    answered: u64,
    delivered: u64,
}

/// Loads a server and measures it between two readings.
fn load(
    args: &Args,
    number: usize,
    target: std::net::SocketAddr,
    server: &Server,
    counters: impl Fn() -> anyhow::Result<Counters>,
    delivered: impl Fn() -> u64,
    run: &mut Run,
) -> anyhow::Result<Loaded> {
    let pool = Pool::new(number as u64 + 1, args.pool, args.users, PATH, SECRET);
    run.bytes = pool.mean_bytes();
    let plan = Plan { target, connections: args.connections, rate: args.rate, cpu: Some(args.load_cpu) };
    let load = generator::start(plan, Webhooks::Pool(pool))?;
    let sent = Arc::clone(&load.sent);
    let read = || -> anyhow::Result<Reading> {
        // The scrape comes first on both sides, so that its own cost falls outside at one end only.
        let counters = counters()?;
        let usage = Usage::of(server.pid())?;
        Ok(Reading {
            at: Instant::now(),
            usage,
            counters,
            answered: sent.ok.load(Relaxed),
            delivered: delivered(),
        })
    };
    std::thread::sleep(Duration::from_secs(args.warm_up));
    let before = read()?;
    sent.record.store(true, Relaxed);
    std::thread::sleep(Duration::from_secs(args.seconds));
    let after = read()?;
    sent.record.store(false, Relaxed);
    let latency = load.stop()?;
    let mut block = difference(&before, &after);
    block.p50_ms = latency.value_at_quantile(0.5) as f64 / 1e3;
    block.p99_ms = latency.value_at_quantile(0.99) as f64 / 1e3;
    Ok(Loaded { block, sent })
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
        all_us: ingest_us + forward_us + archive_us + rest_us,
        ingest_us,
        forward_us,
        archive_us,
        rest_us,
        sleeps: used.sleeps as f64 / answers,
        commits: commits / answers,
        batch: entries / commits.max(1.0),
        doorbells: (after.counters.doorbells - before.counters.doorbells) / answers,
        enters: (after.counters.enters - before.counters.enters) / answers,
        ..Block::default()
    }
}
