//! The standard comparison: gateway, floor and reference servers in one run, judged by the goals.
//!
//! First each server's capacity is found: a short closed loop, and the lower of what it answered and what its cost
//! lets one CPU do, what is still to be forwarded included. Then all servers take turns on the same CPU with the
//! same webhooks, open loop at a share of that; the order turns from round to round (A B C, C B A, ...), so that a
//! slow drift favours none. The floor gets the gateway's rate. A reference server gets its own share, since at a rate
//! that it could bear the gateway would mostly sleep and wake; `--equal-rate` shows that comparison, too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::block::{self, Block, Build, Setting};
use crate::cpu::steal;
use crate::gateway::{self, PATH, SECRET};
use crate::goal;
use crate::peer::{self, Kind, Peer};
use crate::pool::Pool;
use crate::probe::Probe;
use crate::sink::{self, Sink};
use crate::table;

mod rows;
mod subject;

use subject::{Subject, What};

/// Load of the gateway without sync beside the one with: at a lower one there is too little to tell apart.
const SYNC_RATE: u64 = 10_000;
/// The CPU may differ by so much before and after, or a reader is told to beware.
const DRIFT: f64 = 0.1;
/// Seconds of the closed loop that finds a capacity.
const CAPACITY: u64 = 3;
/// Webhooks of a closed loop; the gateway remembers ids, so they should not repeat.
const CLOSED: usize = 400_000;

/// Measure the gateway beside the floor and reference servers and print the goal table (the default)
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Takes about a minute by pair. Exit code 0 if every goal that was measured is kept.

Examples:
  cargo build --release --workspace && target/release/penstock-loadtest
  target/release/penstock-loadtest peers --peer nginx-lua --peer express:synced --pairs 3")]
pub struct Args {
    /// Binary of the gateway; without it the `penstock` beside this program
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// Reference server, `nginx-lua`, `go-nethttp`, `express` or `bento`, with `:page` or `:synced` for what its 200
    /// means; may be given again; without it all, as the goals have them
    #[arg(long = "peer", value_name = "NAME")]
    peers: Vec<Peer>,
    /// No reference server
    #[arg(long, conflicts_with = "peers")]
    no_peers: bool,
    /// Blocks of each server; fewer than 6 give no interval of 95 %
    #[arg(long, default_value_t = 8)]
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
    /// Share of its capacity that each server is offered
    #[arg(long, default_value_t = 0.75)]
    load: f64,
    /// Webhooks a second for gateway and floor, instead of a share of the gateway's capacity
    #[arg(long)]
    rate: Option<u64>,
    /// Also the gateway at the rates of the reference servers
    #[arg(long)]
    equal_rate: bool,
    /// Regions, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    regions: u8,
    /// Users who write and are written to
    #[arg(long, default_value_t = 20_000)]
    users: u64,
    /// CPU of the servers
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
    /// CPU of generator and regions
    #[arg(long, default_value_t = 1)]
    load_cpu: usize,
    /// Folder for journals and logs of the runs; on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

/// All that a run found out.
pub struct Run {
    pub subjects: Vec<Subject>,
    /// Reference servers that cannot be measured here, and why.
    pub skipped: Vec<(Peer, String)>,
    pub probes: [Probe; 2],
    /// Of all CPU time during the run.
    pub steal_percent: f64,
    /// Before and after.
    pub load_average: [String; 2],
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.pairs > 0 && args.seconds > 0, "pairs and seconds must be at least 1");
    ensure!(args.server_cpu != args.load_cpu, "server and load need a CPU each");
    ensure!(
        args.load > 0.0 && args.load <= 1.0,
        "--load is {}, expected a share above 0, at most 1",
        args.load
    );
    let binary = match &args.gateway {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().context("find the own binary")?.with_file_name("penstock"),
    };
    ensure!(
        binary.is_file(),
        "{} not found: build it (cargo build --release --workspace) or name it with --gateway",
        binary.display()
    );
    let folder = gateway::folder(&args.folder)?;
    let sink = sink::start("127.0.0.1:0".parse()?, Some(args.load_cpu))?;
    let bench = Bench { args, binary: &binary, folder: folder.path(), sink: &sink };
    let run = bench.run()?;
    let rows = rows::goals(&run);
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
    binary: &'a Path,
    folder: &'a Path,
    sink: &'a Sink,
}

impl Bench<'_> {
    fn run(&self) -> anyhow::Result<Run> {
        let args = self.args;
        let (peers, skipped) = self.set_up();
        let load_before = load_average();
        let (stolen, total) = steal();
        let before = Probe::take(self.folder, args.server_cpu)?;
        eprintln!("before: {}", before.text());
        let mut subjects = self.subjects(&peers)?;
        for round in 0..args.pairs {
            self.round(round, &mut subjects)?;
        }
        let after = Probe::take(self.folder, args.server_cpu)?;
        let (stolen_now, total_now) = steal();
        Ok(Run {
            subjects,
            skipped,
            probes: [before, after],
            steal_percent: (stolen_now - stolen) as f64 / (total_now - total).max(1) as f64 * 100.0,
            load_average: [load_before, load_average()],
        })
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
            match peer::set_up(&peer::folder(), peer.kind, self.folder) {
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
    fn subjects(&self, peers: &[Peer]) -> anyhow::Result<Vec<Subject>> {
        let capacity = |what: What| -> anyhow::Result<f64> {
            let pool = self.pool(0, CLOSED);
            let block = self.block(what, 0, CAPACITY, &pool)?;
            let capacity = block.rate.min(1e6 / block.whole_us);
            eprintln!("capacity: {what} {:.1} k/s ({:.2} us each)", capacity / 1e3, block.whole_us);
            Ok(capacity)
        };
        let share = |capacity: f64, share: f64| (capacity * share).max(1.0) as u64;
        // A rate that was given stands for that share of a capacity.
        let (of_gateway, rate) = match self.args.rate {
            Some(rate) => (rate as f64 / self.args.load, rate),
            None => {
                let capacity = capacity(What::Gateway)?;
                (capacity, share(capacity, self.args.load))
            }
        };
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
        let seconds = self.args.warm_up + self.args.seconds;
        let most = subjects.iter().map(|subject| subject.rate).max().unwrap_or(0);
        // What is sent while the last of them are being answered is more than the seconds say.
        let pool = self.pool(round + 1, usize::try_from(most * (seconds + 1)).unwrap_or(CLOSED));
        let mut order: Vec<&mut Subject> =
            subjects.iter_mut().filter(|subject| subject.failed.is_none()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for subject in order {
            match self.block(subject.what, subject.rate, self.args.seconds, &pool) {
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
        let args = self.args;
        let setting = Setting {
            connections: args.connections,
            rate,
            warm_up: args.warm_up,
            seconds,
            regions: args.regions.into(),
            server_cpu: args.server_cpu,
            load_cpu: args.load_cpu,
            folder: self.folder.to_owned(),
        };
        let pool = Arc::clone(pool);
        let extra = if what == What::GatewayUnsynced { "\n[journal]\nsync = false\n" } else { "" };
        match what {
            What::Floor => block::floor(&setting, pool),
            What::Peer(peer) => block::peer(&setting, pool, &peer, self.sink),
            _ => {
                let block = block::gateway(
                    &setting,
                    pool,
                    Build { binary: self.binary, archive: true, extra },
                    self.sink,
                )?;
                block.whole_ledger()?;
                Ok(block)
            }
        }
    }

    fn pool(&self, seed: usize, count: usize) -> Arc<Pool> {
        Arc::new(Pool::new(seed as u64, count, self.args.users, PATH, SECRET))
    }

    fn text(&self, run: &Run, rows: &[goal::Row]) -> String {
        let [before, after] = &run.probes;
        let mut lines = vec![
            format!(
                "\nServer CPU by webhook, {} connections, medians of the blocks\n",
                self.args.connections
            ),
            subject::head(),
        ];
        lines.extend(run.subjects.iter().filter(|subject| !subject.blocks.is_empty()).map(Subject::summary));
        lines.push(String::new());
        lines.push(goal::text(rows));
        lines.extend(rows::beside(run).into_iter().map(|(peer, estimate)| {
            format!("at the rate of {peer}   all-in by {peer}: {}", estimate.text(3))
        }));
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
            "connections": self.args.connections,
            "before": run.probes[0].json(),
            "after": run.probes[1].json(),
            "load_average": run.load_average,
            "steal_percent": run.steal_percent,
        })
    }
}
