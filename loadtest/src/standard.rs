//! The standard comparison: gateway, floor and reference servers in one run, judged by the goals.
//!
//! First each server's capacity is found: a short closed loop, and the lower of what it answered and what its cost
//! lets one CPU do, what is still to be forwarded included. Then all servers take turns on the same CPU with the
//! same webhooks, open loop at a share of that; the order turns from round to round (A B C, C B A, ...), so that a
//! slow drift favours none. The floor gets the gateway's rate. A reference server gets its own share, since at a rate
//! that it could bear the gateway would mostly sleep and wake; `--equal-rate` shows that comparison, too.
//!
//! The other parts of the table follow, each in its own file: what is counted, what grows, what is too much.

use std::sync::Arc;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;

use crate::block::{self, Block, Build, Setting};
use crate::cpu::Steal;
use crate::goal;
use crate::options::{Binary, Terms};
use crate::peer::{self, Kind, Peer};
use crate::pool::Pool;
use crate::probe::Probe;
use crate::rig::{CAPACITY, Rig};
use crate::sink;
use crate::table;
use crate::users::Routes;

mod backlog;
mod counts;
mod idle;
mod overload;
mod parts;
mod scale;
mod stall;
mod rows;
mod subject;

use parts::{Found, Part};
use subject::{Subject, What};

/// Load of the gateway without sync beside the one with: at a lower one there is too little to tell apart.
const SYNC_RATE: u64 = 10_000;
/// The CPU may differ by so much before and after, or a reader is told to beware.
const DRIFT: f64 = 0.1;

/// Measure the gateway beside the floor and reference servers and print the goal table (the default)
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Takes about two minutes by pair. Exit code 0 if every goal that was measured is
kept.

Counting allocations and ring enters takes perf and its right to probe the
gateway; the overload takes the right to make a control group. What cannot be
had is said in the table.

Examples:
  cargo build --release --workspace && target/release/penstock-loadtest
  target/release/penstock-loadtest peers --rows servers --peer nginx-lua
  target/release/penstock-loadtest peers --rows backlog --backlog 10000000")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    /// Parts of the table to be measured, separated by commas; without it all
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    rows: Vec<Part>,
    /// Reference server, `nginx-lua`, `go-nethttp`, `express` or `bento`, with
    /// `:page` or `:synced` for what its 200 means; may be given again; without
    /// it all, as the goals have them
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<Peer>,
    /// No reference server
    #[arg(long, conflicts_with = "peers")]
    no_peers: bool,
    #[command(flatten)]
    terms: Terms,
    /// Parcels that wait while ingest beside a backlog is measured; 10000000 is
    /// the goal's, takes minutes to fill and 9 GB of disk
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Share of its capacity that each server is offered
    #[arg(long, default_value_t = 0.75)]
    load: f64,
    /// Webhooks a second for gateway and floor, instead of a share of the gateway's capacity
    #[arg(long)]
    rate: Option<u64>,
    /// Also the gateway at the rates of the reference servers
    #[arg(long)]
    equal_rate: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// All that a run found out.
pub struct Run {
    pub subjects: Vec<Subject>,
    /// What else is in the table.
    pub found: Vec<Found>,
    /// Reference servers that cannot be measured here, and why.
    pub skipped: Vec<(Peer, String)>,
    pub probes: [Probe; 2],
    /// Of all CPU time during the run.
    pub steal_percent: f64,
    /// Before and after.
    pub load_average: [String; 2],
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.terms.blocks.check()?;
    ensure!(
        args.load > 0.0 && args.load <= 1.0,
        "--load is {}, expected a share above 0, at most 1",
        args.load
    );
    let (binary, folder) = (args.binary.find()?, args.terms.machine.set_up()?);
    let sink = sink::start("127.0.0.1:0".parse()?, Some(args.terms.machine.load_cpu))?;
    let rig = args.terms.rig(&binary, folder.path(), &sink);
    let bench = Bench { args, rig };
    let run = bench.run()?;
    let rows = bench.rows(&run);
    if args.json {
        println!("{:#}", bench.json(&run, &rows));
    } else {
        print!("{}", bench.text(&run, &rows));
    }
    let missed = goal::missed(&rows);
    if missed > 0 {
        // The run itself went well, so this is no error with a cause; but what is temporary must go first.
        folder.close().context("remove the folder of the run")?;
        eprintln!("{missed} goals are missed; the table names them");
        std::process::exit(1);
    }
    Ok(())
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

struct Bench<'a> {
    args: &'a Args,
    rig: Rig<'a>,
}

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.args.rows.is_empty() || self.args.rows.contains(&part)
    }

    fn run(&self) -> anyhow::Result<Run> {
        let (args, rig) = (self.args, &self.rig);
        let servers = self.wants(Part::Servers);
        let (peers, skipped) = if servers { self.set_up() } else { Default::default() };
        let load_before = load_average();
        let steal = Steal::now();
        let before = Probe::take(rig.folder, args.terms.machine.server_cpu)?;
        eprintln!("before: {}", before.text());
        // A rate that was given stands for that share of a capacity.
        let capacity = match args.rate {
            Some(rate) => rate as f64 / args.load,
            None => rig.capacity()?,
        };
        let mut subjects = Vec::new();
        if servers {
            subjects = self.subjects(capacity, &peers)?;
            for round in 0..args.terms.blocks.pairs {
                self.round(round, &mut subjects)?;
            }
        }
        let parts = Part::value_variants().iter().filter(|part| self.wants(**part));
        let found = parts.map(|part| part.measure(rig, capacity, args.load, args.backlog)).collect();
        let after = Probe::take(rig.folder, args.terms.machine.server_cpu)?;
        Ok(Run {
            subjects,
            found,
            skipped,
            probes: [before, after],
            steal_percent: steal.percent_since(),
            load_average: [load_before, load_average()],
        })
    }

    /// The table of what was wanted.
    fn rows(&self, run: &Run) -> Vec<goal::Row> {
        let servers = if self.wants(Part::Servers) { rows::goals(run) } else { Vec::new() };
        servers.into_iter().chain(run.found.iter().flat_map(|found| found.rows.iter().cloned())).collect()
    }

    /// The wanted servers that can be had here, and the others.
    fn set_up(&self) -> (Vec<Peer>, Vec<(Peer, String)>) {
        let standard = Kind::ALL.map(|kind| Peer { kind, synced: kind == Kind::GoNethttp });
        let wanted = match self.args.peers.as_slice() {
            [] if self.args.no_peers => Vec::new(),
            [] => standard.to_vec(),
            some => some.to_vec(),
        };
        let (mut peers, mut skipped) = (Vec::new(), Vec::new());
        for peer in wanted {
            match peer::set_up(&peer::folder(), peer.kind, self.rig.folder) {
                Ok(()) => peers.push(peer),
                Err(why) => {
                    eprintln!("SKIPPED {peer}: {why}");
                    skipped.push((peer, why));
                }
            }
        }
        (peers, skipped)
    }

    /// Everything that takes turns, with its rate.
    fn subjects(&self, of_gateway: f64, peers: &[Peer]) -> anyhow::Result<Vec<Subject>> {
        let capacity = |what: What| -> anyhow::Result<f64> {
            let pool = self.rig.pool(0, &self.rig.setting(0));
            let block = self.block(what, 0, CAPACITY, &pool)?;
            let capacity = block.capacity();
            eprintln!("capacity: {what} {:.1} k/s ({:.2} us each)", capacity / 1e3, block.whole_us);
            Ok(capacity)
        };
        let share = |capacity: f64, share: f64| (capacity * share).max(1.0) as u64;
        let rate = share(of_gateway, self.args.load);
        let mut subjects = vec![
            Subject::new(What::Floor, rate),
            Subject::new(What::Gateway, rate),
            Subject::new(What::GatewayHalf, share(of_gateway, 0.5)),
            Subject::new(What::GatewaySynced, rate.max(SYNC_RATE)),
            Subject::new(What::GatewayUnsynced, rate.max(SYNC_RATE)),
        ];
        for peer in peers.iter().copied() {
            let what = What::Peer(peer);
            match capacity(what) {
                Ok(of_peer) => {
                    let rate = share(of_peer, self.args.load);
                    subjects.push(Subject::new(what, rate));
                    if self.args.equal_rate {
                        subjects.push(Subject::new(What::GatewayBeside(peer), rate));
                    }
                }
                Err(error) => subjects.push(Subject::failed(what, &error)),
            }
        }
        Ok(subjects)
    }

    fn round(&self, round: usize, subjects: &mut [Subject]) -> anyhow::Result<()> {
        let most = subjects.iter().map(|subject| subject.rate).max().unwrap_or(0);
        let pool = self.rig.pool(round + 1, &self.rig.setting(most));
        let mut order: Vec<&mut Subject> =
            subjects.iter_mut().filter(|subject| subject.failed.is_none()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            match self.block(subject.what, subject.rate, self.args.terms.blocks.seconds, &pool) {
                Ok(block) => {
                    eprintln!("round {round}: {}", subject::line(&subject.what.to_string(), &block));
                    subject.blocks.push(block);
                }
                // The comparison with the others goes on.
                Err(error) if matches!(subject.what, What::Peer(_)) => {
                    eprintln!("round {round}: FAILED {}: {error:#}", subject.what);
                    subject.failed = Some(format!("{error:#}"));
                }
                Err(error) => return Err(error.context(format!("round {round}, {}", subject.what))),
            }
        }
        Ok(())
    }

    fn block(&self, what: What, rate: u64, seconds: u64, pool: &Arc<Pool>) -> anyhow::Result<Block> {
        let setting = Setting { seconds, ..self.rig.setting(rate) };
        let pool = Arc::clone(pool);
        let extra = if what == What::GatewayUnsynced { "\n[journal]\nsync = false\n" } else { "" };
        match what {
            What::Floor => block::floor(&setting, pool),
            What::Peer(peer) => block::peer(&setting, pool, &peer, self.rig.sink),
            _ => {
                let routes = Routes::countries(self.rig.regions);
                self.rig.gateway(&setting, pool, Build { extra, ..Build::new(self.rig.binary, &routes) })
            }
        }
    }

    fn text(&self, run: &Run, rows: &[goal::Row]) -> String {
        let [before, after] = &run.probes;
        let mut lines = vec![String::new()];
        if !run.subjects.is_empty() {
            lines.push(format!(
                "Server CPU by webhook, {} connections, medians of the blocks\n",
                self.rig.connections
            ));
            lines.push(subject::head());
        }
        lines.extend(run.subjects.iter().filter(|subject| !subject.blocks.is_empty()).map(Subject::summary));
        lines.push(String::new());
        lines.push(goal::text(rows));
        lines.extend(rows::beside(run).into_iter().map(|(peer, estimate)| {
            format!("at the rate of {peer}   all-in by {peer}: {}", estimate.text(3))
        }));
        lines.extend(run.found.iter().flat_map(|found| found.notes.iter().cloned()));
        lines.push(format!("before   {}", before.text()));
        lines.push(format!("after    {}", after.text()));
        let [load_before, load_after] = &run.load_average;
        lines.push(format!(
            "machine  load average {load_before} before, {load_after} after, steal {:.1} %",
            run.steal_percent
        ));
        if load_before
            .split(' ')
            .next()
            .and_then(|load| load.parse::<f64>().ok())
            .is_some_and(|load| load > 1.0)
        {
            lines.push(
                "BEWARE   others used this machine: capacities are too low, costs and times too high"
                    .to_owned(),
            );
        }
        let sure = rows.iter().filter_map(|row| Some(row.measured.as_ref().ok()?.sure)).fold(1.0, f64::min);
        if sure < 0.95 {
            lines.push(format!("BEWARE   intervals are {:.0} % sure: 95 % takes six pairs", sure * 100.0));
        }
        if before.drift(after) > DRIFT {
            lines.push("BEWARE   the CPU has changed by more than a tenth during the run".to_owned());
        }
        lines.extend(
            run.subjects.iter().filter_map(Subject::oddity).map(|oddity| format!("BEWARE   {oddity}")),
        );
        lines.extend(run.skipped.iter().map(|(peer, why)| format!("SKIPPED  {peer}: {why}")));
        lines.join("\n") + "\n"
    }

    fn json(&self, run: &Run, rows: &[goal::Row]) -> serde_json::Value {
        let subjects: Vec<_> = run
            .subjects
            .iter()
            .map(|subject| {
                json!({
                    "name": subject.what.to_string(),
                    "rate": subject.rate,
                    "failed": subject.failed,
                    "blocks": subject.blocks.iter().map(table::block_json).collect::<Vec<_>>(),
                })
            })
            .collect();
        let skipped: Vec<_> =
            run.skipped.iter().map(|(peer, why)| json!({ "name": peer.to_string(), "why": why })).collect();
        json!({
            "goals": goal::json(rows),
            "servers": subjects,
            "skipped": skipped,
            "connections": self.rig.connections,
            "notes": run.found.iter().flat_map(|found| &found.notes).collect::<Vec<_>>(),
            "before": run.probes[0].json(),
            "after": run.probes[1].json(),
            "load_average": run.load_average,
            "steal_percent": run.steal_percent,
        })
    }
}
