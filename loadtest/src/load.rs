//! `load`: any load against one server, with its ledger at the end.
//!
//! Without `--target` the server is a gateway of our own with regions that do what `--act` says; then everything is
//! checked, to the last parcel. Of a server that runs already only what it says about itself can be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::child::get;
use crate::cpu::Usage;
use crate::gateway::{Gateway, PATH, SECRET, Setup};
use crate::generator::{self, Plan, Webhooks};
use crate::options::{Binary, Crowd, Machine, USERS};
use crate::pool::{Pool, Shape};
use crate::schedule::{Arrivals, Schedule};
use crate::script::{Act, Script};
use crate::sink::{self, Sink};
use crate::users::Routes;

mod ledger;
mod report;

use ledger::{Ledger, Page};
use report::Report;

/// How long parcels may take to arrive after load and acts have ended.
const DRAIN: Duration = Duration::from_secs(20);
/// Bytes of webhooks made without being asked for.
const MOST_BYTES: usize = 2 << 30;
/// No closed loop on one CPU has so many answers a second.
const FASTEST: usize = 80_000;

/// Send signed webhooks, measure, and check the ledger
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit code 0 if the ledger balances.

Examples:
  target/release/penstock-loadtest load --rate 10000 --arrivals poisson
  target/release/penstock-loadtest load --rate 500 --arrivals even,step=15000@5s
  target/release/penstock-loadtest load --rate 5000 --repeats 0.3 --churn 100 \\
      --arrivals poisson,storm=10s@5s/20s --seconds 40 --act 1@5-15=fail
  target/release/penstock-loadtest load --target 127.0.0.1:8080 --rate 1000")]
pub struct Args {
    /// Server that runs already; without it a gateway with regions of its own
    #[arg(long, value_name = "ADDRESS")]
    target: Option<SocketAddr>,
    /// That server's `[admin]` address: counters and ledger
    #[arg(long, value_name = "ADDRESS", requires = "target")]
    admin: Option<SocketAddr>,
    /// That server's process: CPU time
    #[arg(long, requires = "target")]
    pid: Option<u32>,
    #[command(flatten)]
    binary: Binary,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    crowd: Crowd,
    /// Path of the source
    #[arg(long, default_value = PATH, requires = "target")]
    path: String,
    /// Secret that signs
    #[arg(long, default_value = SECRET, requires = "target")]
    secret: String,
    /// Regions of the own gateway, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    regions: u8,
    /// What a region does and when, REGION@FROM-TO=WHAT, in seconds: WHAT is
    /// `fail`, `break` or `delay:200ms`, REGION a number or `*`; may be given
    /// again
    #[arg(long = "act", value_name = "ACT", conflicts_with = "target")]
    acts: Vec<Act>,
    /// Webhooks a second; 0 = as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// `even` or `poisson`, and behind it `,step=RATE@AFTER` or
    /// `,storm=OUTAGE@AFTER/OVER`: nothing for so long, then all of it again
    #[arg(long, default_value = "even")]
    arrivals: Arrivals,
    /// How long
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Webhooks made in advance, sent again from the first when used up; without
    /// it as many as will be sent, up to 2,000,000
    #[arg(long)]
    pool: Option<usize>,
    /// Share of webhooks that were sent before, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    repeats: f64,
    /// Webhooks of a connection before another takes its place; 0 = no end
    #[arg(long, default_value_t = 0)]
    churn: u64,
    /// Updates in a webhook
    #[arg(long, default_value_t = 1)]
    updates: usize,
    /// Bytes of text in each webhook, which is then a message
    #[arg(long, conflicts_with = "updates")]
    text: Option<usize>,
    /// The same seed is the same load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Args {
    fn schedule(&self) -> Schedule {
        self.arrivals.at(self.rate, self.seed)
    }

    /// So that nothing is repeated unless that is wanted.
    fn pool_size(&self, most: usize) -> usize {
        let sent = || match self.schedule().dues() {
            Some(dues) => {
                let end = Duration::from_secs(self.seconds);
                // Each connection has one in hand when the load ends.
                dues.take(most).take_while(|due| *due <= end).count() + self.crowd.connections
            }
            None => FASTEST * usize::try_from(self.seconds).unwrap_or(most),
        };
        self.pool.unwrap_or_else(|| sent().min(most))
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!((0.0..=1.0).contains(&args.repeats), "--repeats is {}, expected 0 to 1", args.repeats);
    ensure!(
        args.pool != Some(0) && args.updates > 0 && args.seconds > 0,
        "pool, updates and seconds must be at least 1"
    );
    let shape = Shape { updates: args.updates, text: args.text };
    let users = args.crowd.users(USERS);
    let make = |count| Pool::of(args.seed, count, users, shape, &args.path, &args.secret);
    let most = (MOST_BYTES / make(1).mean_bytes()).max(1);
    let pool = Arc::new(make(args.pool_size(most)));
    eprintln!("{} webhooks of {} bytes, seed {}", pool.len(), pool.mean_bytes(), args.seed);
    let report = match args.target {
        Some(target) => measure(args, target, args.pid, &Foreign { admin: args.admin }, pool)?,
        None => {
            let (binary, folder) = (args.binary.find()?, args.machine.set_up()?);
            let routes = Routes::countries(args.regions.into());
            let script = Script::new(args.acts.clone());
            let sink = sink::start_with("127.0.0.1:0".parse()?, Some(args.machine.load_cpu), script.clone())?;
            let setup = Setup::new(&binary, folder.path(), args.machine.server_cpu, sink.address, &routes);
            let own = Own { gateway: Gateway::start(&setup)?, sink, script };
            let pid = own.gateway.server.pid();
            let report = measure(args, own.gateway.address, Some(pid), &own, pool)?;
            own.gateway.server.stop()?;
            report
        }
    };
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    let faults = report.ledger.faults();
    ensure!(faults.is_empty(), "the ledger does not balance: {}", faults.join("; "));
    Ok(())
}

/// What can be known of a server besides its answers.
trait Server {
    fn page(&self) -> anyhow::Result<Option<Page>>;
    /// Parcels that arrived, and those that came again.
    fn arrived(&self) -> Option<[u64; 2]>;
    /// When regions stop to fail.
    fn calm(&self) -> Option<Instant>;
}

struct Foreign {
    admin: Option<SocketAddr>,
}

impl Server for Foreign {
    fn page(&self) -> anyhow::Result<Option<Page>> {
        let read = |admin| Ok(Page::read(&get(admin, "/metrics").context("scrape the server")?.1));
        self.admin.map(read).transpose()
    }

    fn arrived(&self) -> Option<[u64; 2]> {
        None
    }

    fn calm(&self) -> Option<Instant> {
        None
    }
}

struct Own {
    gateway: Gateway,
    sink: Sink,
    script: Script,
}

impl Server for Own {
    fn page(&self) -> anyhow::Result<Option<Page>> {
        Ok(Some(Page::read(&self.gateway.scrape()?)))
    }

    fn arrived(&self) -> Option<[u64; 2]> {
        let received = &self.sink.received;
        let distinct = received.distinct.load(Relaxed);
        Some([distinct, received.parcels.load(Relaxed).saturating_sub(distinct)])
    }

    fn calm(&self) -> Option<Instant> {
        Some(self.script.end())
    }
}

fn measure(
    args: &Args,
    target: SocketAddr,
    pid: Option<u32>,
    server: &dyn Server,
    pool: Arc<Pool>,
) -> anyhow::Result<Report> {
    let plan = Plan {
        target,
        connections: args.crowd.connections,
        schedule: args.schedule(),
        churn: args.churn,
        repeats: args.repeats,
        cpu: Some(args.machine.load_cpu),
    };
    let (page, used) = (server.page()?, pid.map(Usage::of).transpose()?);
    let load = generator::start(plan, Webhooks::Pool(pool))?;
    load.sent.record.store(true, Relaxed);
    let sent = Arc::clone(&load.sent);
    std::thread::sleep(Duration::from_secs(args.seconds));
    let answered = sent.ok.load(Relaxed);
    let cpu = match (pid, used) {
        (Some(pid), Some(before)) => Some(Usage::of(pid)?.since(&before)),
        _ => None,
    };
    let latencies = load.stop()?;
    let mut ledger = Ledger::of(&sent, args.updates == 1, args.acts.is_empty());
    let start = Instant::now().max(server.calm().unwrap_or_else(Instant::now));
    loop {
        ledger.page = match (&page, server.page()?) {
            (Some(before), Some(now)) => Some(now.since(before)),
            _ => None,
        };
        ledger.arrived = server.arrived();
        if ledger.faults().is_empty() || Instant::now().saturating_duration_since(start) > DRAIN {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(Report { seconds: args.seconds, answered, latencies, cpu, opened: sent.opened.load(Relaxed), ledger })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn pool_has_a_webhook_for_every_moment() {
        let check = |line: &str, expected: usize| {
            let cli = Cli::parse_from(format!("load --connections 10 {line}").split(' '));
            assert_eq!(cli.args.pool_size(2_000_000), expected, "{line}");
        };
        check("--rate 1000 --seconds 3", 3011);
        check("--rate 1000 --seconds 3 --arrivals even,step=5000@1s", 11_011);
        check("--rate 1000 --seconds 3 --pool 7", 7);
        check("--seconds 1", 80_000);
        check("--rate 1000000 --seconds 60", 2_000_000);
    }

    #[test]
    fn a_foreign_server_needs_its_own_path_only_where_there_is_one() {
        assert!(Cli::try_parse_from(["load", "--path", "/x"]).is_err());
        assert!(Cli::try_parse_from(["load", "--path", "/x", "--target", "127.0.0.1:1"]).is_ok());
        assert!(Cli::try_parse_from(["load", "--act", "0@1-2=fail", "--target", "127.0.0.1:1"]).is_err());
    }
}
