//! Two builds of the gateway, or two configurations of one, in alternating blocks: is one cheaper, and by how much?

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::block::{Block, Build, COLUMNS, Column};
use crate::cpu::Steal;
use crate::options::{Binary, Terms};
use crate::pairs::{Side, alternate};
use crate::probe::Probe;
use crate::provenance::Provenance;
use crate::sink;
use crate::stats::{Estimate, median};
use crate::users::Routes;

/// Pairs that a verdict takes: their extremes hold the true median with 99 %.
const PAIRS: usize = 8;
/// A smaller difference is none, however sure.
const WORTH: f64 = 0.03;
/// The CPU may differ by so much before and after, or nothing can be said.
const DRIFT: f64 = 0.1;

/// Compare two gateways in alternating blocks
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A difference counts if the 95 % interval of the ratios inside the pairs leaves
out 1 and the median is off by more than 3 %.

Examples:
  target/release/penstock-loadtest ab --other target/before/penstock
  target/release/penstock-loadtest ab --other-config nosync.toml --rate 20000")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    /// Binary of the second gateway; without it that of the first
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// File with what stands behind the first one's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// File with what stands behind the second one's configuration
    #[arg(long, value_name = "FILE")]
    other_config: Option<PathBuf>,
    #[command(flatten)]
    terms: Terms,
    /// Webhooks a second for both; without it half of what the first can do
    #[arg(long)]
    rate: Option<u64>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    args.terms.blocks.check()?;
    ensure!(
        args.terms.blocks.pairs >= PAIRS,
        "{} pairs are too few for a verdict; at least {PAIRS}",
        args.terms.blocks.pairs
    );
    let binary = args.binary.find()?;
    let other = args.other.as_ref().unwrap_or(&binary);
    ensure!(other.is_file(), "{} not found: name it with --other", other.display());
    let read = |file: &Option<PathBuf>| match file {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            anyhow::Ok(format!("\n{text}"))
        }
        None => Ok(String::new()),
    };
    let extras = [read(&args.config)?, read(&args.other_config)?];
    let folder = args.terms.machine.set_up()?;
    let sink = sink::start("127.0.0.1:0".parse()?, Some(args.terms.machine.load_cpu))?;
    let rig = args.terms.rig(&binary, folder.path(), &sink);
    let provenance = Provenance::now();
    let steal = Steal::now();
    let before = Probe::take(folder.path(), args.terms.machine.server_cpu)?;
    let rate = match args.rate {
        Some(rate) => rate,
        None => ((rig.capacity()? / 2.0) as u64).max(1),
    };
    let (setting, routes) = (rig.setting(rate), Routes::countries(rig.regions));
    let (a, b) = alternate(args.terms.blocks.pairs, |pair, side| {
        let (binary, extra) = if side == Side::A { (&binary, &extras[0]) } else { (other, &extras[1]) };
        let build = Build { extra, ..Build::new(binary, &routes) };
        let block = rig.gateway(&setting, rig.pool(pair + 1, &setting), build)?;
        eprintln!("pair {pair}: {side:?} {:.1} k/s, {:.2} us", block.rate / 1e3, block.all_us);
        Ok(block)
    })?;
    let after = Probe::take(folder.path(), args.terms.machine.server_cpu)?;
    let stolen = steal.percent_since();
    let drift = before.drift(&after);
    let rows: Vec<_> = COLUMNS.iter().filter_map(|column| Row::of(*column, &a, &b)).collect();
    if args.json {
        let value = json!({
            "provenance": provenance.json(),
            "rate": rate,
            "measures": rows.iter().map(Row::json).collect::<Vec<_>>(),
            "before": before.json(), "after": after.json(), "steal_percent": stolen,
        });
        println!("{value:#}");
    } else {
        print!("{}", provenance.text());
        println!("{rate}/s, {} pairs\n\n{:12}{:>10}{:>10}  B by A", a.len(), "", "A", "B");
        rows.iter().for_each(|row| println!("{}", row.text()));
        println!("\nbefore   {}\nafter    {}\nmachine  steal {stolen:.1} %", before.text(), after.text());
    }
    ensure!(
        drift <= DRIFT,
        "the CPU has changed by {:.0} % during the run: nothing can be said; repeat it",
        drift * 100.0
    );
    Ok(())
}

/// One measure of both.
struct Row {
    name: &'static str,
    a: f64,
    b: f64,
    ratio: Estimate,
}

impl Row {
    fn of((name, read): Column, a: &[Block], b: &[Block]) -> Option<Self> {
        let ratio = Estimate::of_ratios(b.iter().map(read), a.iter().map(read))?;
        Some(Self { name, a: median(a.iter().map(read)), b: median(b.iter().map(read)), ratio })
    }

    fn verdict(&self) -> &'static str {
        let Estimate { median, low, high, .. } = self.ratio;
        if low <= 1.0 && high >= 1.0 || (median - 1.0).abs() <= WORTH {
            "no difference"
        } else if median < 1.0 {
            "B is lower"
        } else {
            "B is higher"
        }
    }

    fn text(&self) -> String {
        let Self { name, a, b, ratio } = self;
        format!("{name:12}{a:10.2}{b:10.2}  {}  {}", ratio.text(3), self.verdict())
    }

    fn json(&self) -> serde_json::Value {
        let Estimate { median, low, high, sure, .. } = self.ratio;
        json!({ "name": self.name, "a": self.a, "b": self.b, "ratio": median, "low": low, "high": high,
            "sure": sure, "verdict": self.verdict() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_must_be_sure_and_worth_it() {
        let check = |ratios: [f64; 8], verdict| {
            let blocks = |values: [f64; 8]| values.map(|all_us| Block { all_us, ..Block::default() });
            let row =
                Row::of(COLUMNS[0], &blocks([10.0; 8]), &blocks(ratios.map(|ratio| ratio * 10.0))).unwrap();
            assert_eq!(row.verdict(), verdict, "{}", row.text());
        };
        check([0.9, 0.91, 0.92, 0.9, 0.88, 0.9, 0.95, 0.93], "B is lower");
        check([1.1, 1.2, 1.1, 1.1, 1.3, 1.1, 1.1, 1.05], "B is higher");
        check([0.9, 0.91, 0.92, 0.9, 0.88, 0.9, 0.95, 1.01], "no difference");
        check([1.01, 1.02, 1.02, 1.02, 1.01, 1.02, 1.02, 1.02], "no difference");
    }
}
