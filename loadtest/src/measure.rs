//! Floor and gateway in one run: blocks in alternating order, each with a fresh server and fresh webhooks.
//!
//! The order turns from pair to pair (A B B A ...), so that a slow drift of the machine does not favour one side.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;

use crate::block::{self, Block, Build, Setting};
use crate::cpu::steal;
use crate::gateway::{self, PATH, SECRET};
use crate::pool::Pool;
use crate::sink;
use crate::table;

/// Measure floor and gateway in alternating blocks
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  cargo build --release --workspace
  target/release/penstock-loadtest measure --gateway target/release/penstock")]
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
    let setting = Setting {
        connections: args.connections,
        rate: args.rate,
        warm_up: args.warm_up,
        seconds: args.seconds,
        regions: args.regions.into(),
        server_cpu: args.server_cpu,
        load_cpu: args.load_cpu,
        folder: folder.path().to_owned(),
    };
    for pair in 0..args.pairs {
        for turn in 0..2 {
            let number = pair * 2 + turn;
            let first = (pair + turn) % 2 == 0;
            if !first && args.gateway.is_none() {
                continue;
            }
            let pool = Arc::new(Pool::new(number as u64 + 1, args.pool, args.users, PATH, SECRET));
            run.bytes = pool.mean_bytes();
            let (name, block) = match &args.gateway {
                Some(binary) if !first => {
                    let build = Build { binary, archive: args.archive, extra: "" };
                    ("gateway", block::gateway(&setting, pool, build, &sink)?)
                }
                _ => ("floor", block::floor(&setting, pool)?),
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
