//! An outage of one region under load: do the others feel it, how fast is it made up for, what does it cost?
//!
//! First the gateway's capacity is found, closed loop. Then `--load` of that is offered all the time: before, while
//! one region answers 500 to everything, and after, until it has caught up. How long that should take at least is
//! what waited by what the capacity leaves beside the load. The capacity is found once more at the end, and the
//! lower one counts: machines that are shared change within minutes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::gateway::{Gateway, PATH, SECRET, Setup, of_region};
use crate::generator::{self, Load, Plan, Webhooks};
use crate::options::{Binary, Crowd, Machine};
use crate::pool::Numbered;
use crate::sink;
use crate::users::Routes;

mod regions;

use regions::{Clock, Phase, Regions, Summary};

/// Number of the first webhook after those that find the capacity, and of the first one that finds it again.
const FIRST: u64 = 1 << 24;
const AGAIN: u64 = 1 << 27;
/// Of the closed loop; the first two seconds do not count.
const CAPACITY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// Many, so that a region that is down has many conversations waiting.
const USERS: u64 = 200_000;
/// Load before delays count.
const WARM_UP: Duration = Duration::from_secs(3);
/// For the rest to arrive after the load has ended.
const SETTLE: Duration = Duration::from_secs(30);

/// What must hold at most: the others' 99th percentile during the outage by that before (of the middle one of
/// slices of ten seconds each), the time to catch up by the ideal one, tries by parcel.
const OTHERS: f64 = 1.2;
const CATCHING_UP: f64 = 1.5;
const TRIES: f64 = 1.1;

/// Measure an outage of one region
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit code 0 if nothing is lost, the others' p99 is at most 1.2 times that before
(in the middle one of slices of ten seconds), the region has caught up within
1.5 times the ideal time, and there were at most 1.1 tries by parcel.

Example:
  cargo build --release --workspace
  target/release/penstock-loadtest outage --seconds 600")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    /// How long the region is down
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seconds of load before
    #[arg(long, default_value_t = 30)]
    before: u64,
    /// Share of the capacity that is offered
    #[arg(long, default_value_t = 0.8)]
    load: f64,
    /// Webhooks a second, instead of a share of the capacity
    #[arg(long)]
    rate: Option<u64>,
    /// Regions of the gateway, 1 to 8; the last one fails
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    regions: u8,
    /// End the load with the outage, so that nothing but what waits is left
    #[arg(long)]
    end_load: bool,
    /// Kill the gateway (SIGKILL) at the end of the outage, and say how long its start takes
    #[arg(long)]
    kill: bool,
    #[command(flatten)]
    crowd: Crowd,
    #[command(flatten)]
    machine: Machine,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.seconds > 0 && args.before > 0, "seconds and before must be at least 1");
    ensure!(args.load > 0.0 && args.load < 1.0, "load must be above 0 and below 1");
    let (binary, folder) = (args.binary.find()?, args.machine.set_up()?);
    let count = usize::from(args.regions);
    let regions = Regions::new(count - 1)?;
    let taking = Arc::clone(&regions);
    let sink = sink::serve("127.0.0.1:0".parse()?, Some(args.machine.load_cpu), || {
        move |request: &[u8]| taking.take(request)
    })?;
    let routes = Routes::countries(count);
    let setup = Setup::new(&binary, folder.path(), args.machine.server_cpu, sink, &routes);
    let gateway = Gateway::start(&setup)?;
    let run = Run { args, regions, gateway, tried: 0.0, most_bytes: 0 };
    let capacity = run.capacity(0)?;
    let rate = args.rate.unwrap_or((capacity * args.load) as u64).max(1);
    println!("capacity {capacity:.0} webhooks/s, {rate}/s offered");
    run.outage(capacity, rate)
}

struct Run<'a> {
    args: &'a Args,
    regions: Arc<Regions>,
    gateway: Gateway,
    /// Tries of processes that were killed.
    tried: f64,
    /// Most memory seen.
    most_bytes: u64,
}

impl Run<'_> {
    fn start(&self, rate: u64, first: u64) -> anyhow::Result<Load> {
        let Args { crowd, machine, .. } = self.args;
        let plan = Plan::steady(self.gateway.address, crowd.connections, rate, machine.load_cpu);
        let numbered = Numbered::new(crowd.users(USERS), PATH, SECRET);
        generator::start(plan, Webhooks::Numbered(Box::new(numbered.into()), first))
    }

    /// Deliveries a second, as fast as answers come.
    fn capacity(&self, first: u64) -> anyhow::Result<f64> {
        let load = self.start(0, first)?;
        std::thread::sleep(CAPACITY[0]);
        let (start, before) = (Instant::now(), self.regions.received.len());
        std::thread::sleep(CAPACITY[1]);
        let delivered = self.regions.received.len() - before;
        let capacity = delivered as f64 / start.elapsed().as_secs_f64();
        let sent = Arc::clone(&load.sent);
        load.stop()?;
        ensure!(
            self.settled(&sent.numbers, 0, SETTLE),
            "the regions did not get everything that should show the capacity"
        );
        Ok(capacity)
    }

    /// Waits until at most `rest` of what was acked has not been delivered.
    fn settled(&self, acked: &crate::bits::Bits, rest: u64, limit: Duration) -> bool {
        let start = Instant::now();
        while acked.without(&self.regions.received) > rest {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        true
    }

    /// Sleeps, and looks at the gateway's memory meanwhile.
    fn pass(&mut self, duration: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        while let Some(left) = duration.checked_sub(start.elapsed()) {
            self.most_bytes = self.most_bytes.max(self.gateway.resident_bytes()?);
            std::thread::sleep(left.min(Duration::from_secs(1)));
        }
        Ok(())
    }

    fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let failing = format!("region-{}", self.args.regions - 1);
        Ok(of_region(&self.gateway.scrape()?, name, &failing))
    }

    fn outage(mut self, capacity: f64, rate: u64) -> anyhow::Result<()> {
        let Args { before, seconds, kill, end_load, .. } = *self.args;
        let tried_before = self.metric("penstock_attempts_total")?;
        let taken_before = self.regions.to_failing.load(Relaxed);
        let load = self.start(rate, FIRST)?;
        self.regions.clock.set(Clock { started: load.started, first: FIRST, rate }).ok();
        self.pass(WARM_UP)?;
        self.regions.enter(Phase::Before);
        self.pass(Duration::from_secs(before))?;

        self.regions.down.store(true, Relaxed);
        self.regions.enter(Phase::During);
        load.sent.record.store(true, Relaxed);
        self.pass(Duration::from_secs(seconds))?;
        load.sent.record.store(false, Relaxed);
        let sent = Arc::clone(&load.sent);
        let mut load = Some(load);
        let ended = if end_load { load.take().map(Load::stop).transpose()? } else { None };
        let waiting = self.metric("penstock_backlog_parcels")?;
        let journal = size(&self.gateway.data)?;
        println!(
            "down for {seconds} s: {waiting:.0} parcels wait, {} refused; at most {} MiB resident; journal {} MiB",
            self.regions.refused.load(Relaxed),
            self.most_bytes >> 20,
            journal >> 20
        );
        if kill {
            self.tried += self.metric("penstock_attempts_total")?;
            let ready = self.gateway.kill_and_restart()?;
            println!("killed; ready {:.2} s after its next start", ready.as_secs_f64());
        }

        self.regions.down.store(false, Relaxed);
        self.regions.enter(Phase::After);
        let start = Instant::now();
        let beside = if end_load { 0.0 } else { rate as f64 };
        let ideal_at = |capacity: f64| Duration::from_secs_f64(waiting / (capacity - beside).max(1.0));
        let ideal = ideal_at(capacity);
        // What is on its way within 50 ms is no backlog.
        let drained = self.settled(&sent.numbers, rate / 20, ideal * 3 + SETTLE);
        let took = start.elapsed();
        self.most_bytes = self.most_bytes.max(self.gateway.resident_bytes()?);
        let acks = load.map(Load::stop).transpose()?.or(ended).context("the load has ended")?;
        self.settled(&sent.numbers, 0, SETTLE);

        let lost = sent.numbers.without(&self.regions.received);
        let mut found = Vec::new();
        // A gateway of one region has no others.
        if self.args.regions > 1 {
            let phases = [Phase::Before, Phase::During, Phase::After];
            let [before, during, _] = phases.map(|phase| tell(phase, self.regions.delays(phase)));
            let ratio = during.as_secs_f64() / before.as_secs_f64().max(1e-6);
            found.push(("the others' p99, by that before", ratio, OTHERS));
        }
        println!(
            "answers while it was down: p50 {:.1} ms, p99 {:.1} ms",
            acks.accepted.value_at_quantile(0.5) as f64 / 1e3,
            acks.accepted.value_at_quantile(0.99) as f64 / 1e3
        );
        let tries = self.tried + self.metric("penstock_attempts_total")? - tried_before;
        let parcels = (self.regions.to_failing.load(Relaxed) - taken_before).max(1);
        println!(
            "{} acked, {} answered otherwise, {} connections broken; {lost} lost, {} delivered again; at most {} MiB resident",
            sent.ok.load(Relaxed),
            sent.other.load(Relaxed),
            sent.failed.load(Relaxed),
            self.regions.again.load(Relaxed),
            self.most_bytes >> 20
        );
        let afterwards = if drained { self.capacity(AGAIN)? } else { capacity };
        let ideal = ideal_at(capacity.min(afterwards));
        println!("capacity afterwards {afterwards:.0} webhooks/s");
        self.gateway.server.stop()?;
        let catching_up = took.as_secs_f64() / ideal.as_secs_f64().max(1.0);
        found.push(("time to catch up, by the ideal one", catching_up, CATCHING_UP));
        found.push(("tries by parcel", tries / parcels as f64, TRIES));
        for (name, found, bound) in &found {
            let verdict = if found <= bound { "kept" } else { "BROKEN" };
            println!("{name:<36} {found:>6.2}   at most {bound}   {verdict}");
        }
        println!("caught up in {:.0} s; ideal {:.0} s", took.as_secs_f64(), ideal.as_secs_f64());
        ensure!(drained && lost == 0, "not everything arrived");
        let kept = found.iter().all(|(_, found, bound)| found <= bound);
        ensure!(kept, "a bound was broken");
        Ok(())
    }
}

/// Prints the others' delays; the 99th percentile of the middle one of the slices.
fn tell(phase: Phase, summary: Summary) -> Duration {
    let Summary { median, p99, typical_p99, slices } = summary;
    let [median, p99, typical] = [median, p99, typical_p99].map(|delay| delay.as_secs_f64() * 1e3);
    println!(
        "the others' deliveries, {phase:?}: p50 {median:.1} ms, p99 {p99:.1} ms; of {slices} slices of 10 s the middle one's p99 {typical:.1} ms"
    );
    typical_p99
}

/// Bytes on disk below a folder.
fn size(folder: &std::path::Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        // A segment may be removed meanwhile.
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        sum += if metadata.is_dir() { size(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(sum)
}
