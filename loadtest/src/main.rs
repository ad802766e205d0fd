//! How much CPU does a webhook cost? Load generator, floor server, sink, and the driver that measures with them.
//!
//! Without arguments it measures gateway, floor and reference servers in one run, in alternating blocks, because ratios
//! inside one run hold on a noisy machine and absolute times do not, and judges them by the goals.
//! The server has CPU 0 to itself, generator and sink share CPU 1, and what is reported is the server's CPU
//! time by the number of answers, not what the machine could push through in all.
#![deny(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "only the driver's own threads sleep, never a core")]
#![allow(
    clippy::disallowed_types,
    reason = "the driver reads what generator and regions note, a few times a second"
)]

use clap::{Parser, Subcommand};

mod ab;
mod archive;
mod bits;
mod block;
mod child;
mod cpu;
mod curves;
mod floor;
mod gateway;
mod generator;
mod goal;
mod http;
mod k6;
mod load;
mod measure;
mod options;
mod outage;
mod pairs;
mod peer;
mod perf;
mod pool;
mod probe;
mod provenance;
mod quota;
mod random;
mod rig;
mod schedule;
mod script;
mod server;
mod sink;
mod standard;
mod stats;
mod table;
mod users;
mod waiting;

#[derive(Parser)]
#[command(
    version,
    about = "Measures what a webhook costs",
    args_conflicts_with_subcommands = true,
    max_term_width = 80
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    standard: standard::Args,
}

#[derive(Subcommand)]
enum Command {
    /// Gateway, floor and reference servers, judged by the goals (the default)
    Peers(standard::Args),
    /// Floor and gateway in alternating blocks, each figure in detail
    Measure(measure::Args),
    /// A bare server: the least that a webhook can cost
    Floor(floor::Args),
    /// What a webhook costs as one thing grows: connections, bytes, regions, ...
    Curves(curves::Args),
    /// Two builds or configurations of the gateway in alternating blocks
    Ab(ab::Args),
    /// Any load against one server, and its ledger
    Load(load::Args),
    /// A region: answers 200 to every parcel and counts them
    Sink(sink::Args),
    /// k6 against a gateway with regions that count, and the ledger of both
    K6(k6::Args),
    /// An outage of one region under load: who feels it, and how fast it is made up for
    Outage(outage::Args),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Peers(cli.standard)) {
        Command::Peers(args) => standard::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Curves(args) => curves::run(&args),
        Command::Ab(args) => ab::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::K6(args) => k6::run(&args),
        Command::Outage(args) => outage::run(&args),
    }
}
