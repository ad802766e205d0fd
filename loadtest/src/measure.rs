//! Floor and gateway in one run: blocks in alternating order, each with a fresh server and fresh webhooks.
//!
//! The order turns from pair to pair (A B B A ...), so that a slow drift of the machine does not favour one side.

use std::sync::Arc;

use crate::block::{self, Block, Build, Setting};
use crate::cpu::Steal;
use crate::gateway::{PATH, SECRET};
use crate::options::{Binary, Machine, Terms, USERS};
use crate::pairs::{self, Side};
use crate::pool::Pool;
use crate::sink;
use crate::table;
use crate::users::Routes;

/// Measure floor and gateway in alternating blocks
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  cargo build --release --workspace
  target/release/penstock-loadtest measure --rate 20000")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    /// No gateway
    #[arg(long, conflicts_with = "gateway")]
    floor_only: bool,
    #[command(flatten)]
    terms: Terms,
    /// Webhooks a second; 0 = as fast as answers come
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Give every region of the gateway an archive, on the same disk
    #[arg(long)]
    archive: bool,
    /// Webhooks made for a block; when they are used up they repeat
    #[arg(long, default_value_t = 400_000)]
    pool: usize,
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
    args.terms.blocks.check()?;
    let binary = if args.floor_only { None } else { Some(args.binary.find()?) };
    let folder = args.terms.machine.set_up()?;
    let Machine { server_cpu, load_cpu, .. } = args.terms.machine;
    let sink = sink::start("127.0.0.1:0".parse()?, Some(load_cpu))?;
    let steal = Steal::now();
    let mut run = Run::default();
    let routes = Routes::countries(args.terms.regions.into());
    let setting = Setting {
        connections: args.terms.crowd.connections,
        rate: args.rate,
        calm: None,
        warm_up: args.terms.blocks.warm_up,
        seconds: args.terms.blocks.seconds,
        repeats: 0.0,
        regions: args.terms.regions.into(),
        server_cpu,
        load_cpu,
        folder: folder.path().to_owned(),
    };
    let mut number = 0;
    let (floor, gateway) = pairs::alternate(args.terms.blocks.pairs, |_, side| {
        number += 1;
        let pool = Arc::new(Pool::new(number, args.pool, args.terms.crowd.users(USERS), PATH, SECRET));
        run.bytes = pool.mean_bytes();
        let (name, block) = match (&binary, side) {
            (_, Side::A) => ("floor", block::floor(&setting, pool)?),
            (Some(binary), Side::B) => {
                let build = Build { archive: args.archive, ..Build::new(binary, &routes) };
                ("gateway", block::gateway(&setting, pool, build, &sink)?)
            }
            (None, Side::B) => return Ok(None),
        };
        eprintln!("block {number}: {name} {:.2} us, {:.1} k/s", block.all_us, block.rate / 1e3);
        Ok(Some(block))
    })?;
    run.floor = floor.into_iter().flatten().collect();
    run.gateway = gateway.into_iter().flatten().collect();
    run.steal_percent = steal.percent_since();
    run.load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    if args.json {
        println!("{:#}", table::json(&run));
    } else {
        print!("{}", table::text(&run));
    }
    Ok(())
}
