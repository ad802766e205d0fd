//! Cost curves: how the price of a webhook moves with one thing at a time, everything else as it usually is.
//!
//! Each point is a few short blocks with a fresh gateway each. A line `a + b x` is laid through the points of a curve:
//! `a` is what a webhook costs anyway, `b` what one more of the thing adds. The time that the disk takes for a sync
//! cannot be varied from here; `commit-delay` varies how long webhooks wait for others to share one, which is what a
//! slow disk does to them, too.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::block::{Block, COLUMNS, Column};
use crate::cpu::Steal;
use crate::options::{Binary, Machine, USERS};
use crate::probe::Probe;
use crate::provenance::Provenance;
use crate::rig::Rig;
use crate::sink;
use crate::stats::median;

mod fit;
mod variable;

use fit::Line;
use variable::Variable;

/// Measure what a webhook costs as one thing grows
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
All curves take about eight minutes.

Examples:
  target/release/penstock-loadtest curves
  target/release/penstock-loadtest curves --curve regions,prefixes --repeats 4")]
pub struct Args {
    #[command(flatten)]
    binary: Binary,
    #[command(flatten)]
    machine: Machine,
    /// Curves to be measured, separated by commas; without it all
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CURVE")]
    curve: Vec<Variable>,
    /// Blocks of each point
    #[arg(long, default_value_t = 2)]
    repeats: usize,
    /// Seconds measured in a block
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Webhooks a second, where the size of a webhook allows it
    #[arg(long, default_value_t = 8000)]
    rate: u64,
    /// Folder for the result, curves-DATE.txt and curves-DATE.json
    #[arg(long, value_name = "DIR", default_value = "loadtest/results")]
    save: PathBuf,
}

/// Share of the offered rate that a point must have.
const LOADED: f64 = 0.95;

/// One value of a variable, and its blocks.
pub struct Point {
    pub x: f64,
    /// Webhooks a second that it was to have.
    pub offered: u64,
    pub blocks: Vec<Block>,
}

pub struct Curve {
    pub variable: Variable,
    pub points: Vec<Point>,
    /// Why there are no more.
    pub failed: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.repeats > 0 && args.seconds > 0 && args.rate > 0,
        "repeats, seconds and rate must be at least 1"
    );
    // Said now rather than after ten minutes.
    ensure!(args.save.is_dir(), "{} is no folder: name one with --save", args.save.display());
    let (binary, folder) = (args.binary.find()?, args.machine.set_up()?);
    let sink = sink::start("127.0.0.1:0".parse()?, Some(args.machine.load_cpu))?;
    let blocks = crate::options::Blocks { pairs: args.repeats, seconds: args.seconds, warm_up: args.warm_up };
    let rig = Rig {
        binary: &binary,
        folder: folder.path(),
        sink: &sink,
        machine: &args.machine,
        blocks: &blocks,
        connections: 64,
        users: USERS,
        regions: 2,
    };
    let provenance = Provenance::now();
    let steal = Steal::now();
    let before = Probe::take(folder.path(), args.machine.server_cpu)?;
    let curves: Vec<Curve> = Variable::value_variants()
        .iter()
        .filter(|variable| args.curve.is_empty() || args.curve.contains(variable))
        .map(|variable| measure(*variable, &rig, args.rate))
        .collect();
    let after = Probe::take(folder.path(), args.machine.server_cpu)?;
    let stolen = steal.percent_since();
    let mut out = provenance.text();
    curves.iter().for_each(|curve| out += &curve.text());
    // A String takes everything.
    writeln!(out, "\nbefore   {}\nafter    {}", before.text(), after.text()).ok();
    writeln!(out, "machine  steal {stolen:.1} %").ok();
    let whole = json!({
        "provenance": provenance.json(),
        "curves": curves.iter().map(Curve::json).collect::<Vec<_>>(),
        "before": before.json(),
        "after": after.json(),
        "steal_percent": stolen,
    });
    print!("{out}");
    for (ending, text) in [("txt", out), ("json", format!("{whole:#}\n"))] {
        let path = args.save.join(format!("curves-{}.{ending}", provenance.date()));
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        eprintln!("saved {}", path.display());
    }
    let failed = curves.iter().filter(|curve| curve.failed.is_some()).count();
    ensure!(failed == 0, "{failed} curves are not whole; the table says why");
    Ok(())
}

fn measure(variable: Variable, rig: &Rig<'_>, rate: u64) -> Curve {
    let mut curve = Curve { variable, points: Vec::new(), failed: None };
    for (at, x) in variable.values().iter().copied().enumerate() {
        match variable.blocks(rig, rate, x, at) {
            Ok(blocks) => {
                let point = Point { x, offered: variable.rate(rate, x), blocks };
                eprintln!("{}", point.line(variable));
                curve.points.push(point);
            }
            Err(error) => {
                let why = format!("{}: {error:#}", variable.show(x));
                eprintln!("FAILED {} {why}", variable.name());
                curve.failed = Some(why);
                break;
            }
        }
    }
    curve
}

impl Point {
    /// Whether it had the load that it was to have; if not, it is no point of the same curve: a server that mostly
    /// sleeps pays more for each webhook.
    fn is_loaded(&self) -> bool {
        self.middle(|block| block.rate) >= self.offered as f64 * LOADED
    }

    fn middle(&self, read: fn(&Block) -> f64) -> f64 {
        median(self.blocks.iter().map(read))
    }

    fn line(&self, variable: Variable) -> String {
        let mut line =
            format!("{:14}{:>12}{:12.2}", variable.name(), variable.show(self.x), self.middle(rate));
        for read in COLUMNS.map(|(_, read)| read) {
            write!(line, "{:12.2}", self.middle(read)).ok();
        }
        if !self.is_loaded() {
            line += "  slower than offered, not in the line";
        }
        line
    }
}

fn rate(block: &Block) -> f64 {
    block.rate / 1e3
}

/// The columns that a line is laid through.
const FITTED: [Column; 2] = [COLUMNS[0], COLUMNS[1]];

impl Curve {
    fn fit(&self, read: fn(&Block) -> f64) -> Option<Line> {
        let loaded = self.points.iter().filter(|point| point.is_loaded());
        Line::through(loaded.map(|point| (point.x, point.middle(read))))
    }

    fn text(&self) -> String {
        let variable = self.variable;
        let mut out = format!("\n{}: {}\n", variable.name(), variable.meaning());
        write!(out, "{:14}{:>12}{:>12}", "", variable.unit(), "k/s").ok();
        for (name, _) in COLUMNS {
            write!(out, "{name:>12}").ok();
        }
        out.push('\n');
        for point in &self.points {
            writeln!(out, "{}", point.line(variable)).ok();
        }
        for (name, read) in FITTED {
            if let Some(Line { a, b, r2 }) = self.fit(read) {
                let sign = if b < 0.0 { '-' } else { '+' };
                writeln!(out, "  {name:8} = {a:.2} {sign} {:.3e} x   (R2 {r2:.2})", b.abs()).ok();
            }
        }
        if let Some(why) = &self.failed {
            writeln!(out, "  NOT WHOLE at {why}").ok();
        }
        out
    }

    fn json(&self) -> Value {
        let point = |point: &Point| {
            let mut value = json!({ "x": point.x, "offered": point.offered, "rate": point.middle(|block| block.rate),
                "fitted": point.is_loaded() });
            for (name, read) in COLUMNS {
                value[name.replace(' ', "_")] = json!({ "median": point.middle(read), "values": point.blocks.iter().map(read).collect::<Vec<_>>() });
            }
            value
        };
        let fit = |read| self.fit(read).map(|line| json!({ "a": line.a, "b": line.b, "r2": line.r2 }));
        json!({
            "name": self.variable.name(),
            "unit": self.variable.unit(),
            "meaning": self.variable.meaning(),
            "points": self.points.iter().map(point).collect::<Vec<_>>(),
            "fit_all_us": fit(FITTED[0].1),
            "fit_ingest_us": fit(FITTED[1].1),
            "failed": self.failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curve_shows_its_points_and_the_line_through_them() {
        let block = |all_us| Block { all_us, ingest_us: all_us / 2.0, rate: 8e3, ..Block::default() };
        // The last one had twice the load to bear.
        let points = [(1.0, 21.0, 8000), (10.0, 30.0, 8000), (100.0, 120.0, 8000), (200.0, 900.0, 16_000)];
        let curve = Curve {
            variable: Variable::Regions,
            points: points.map(|(x, us, offered)| Point { x, offered, blocks: vec![block(us); 2] }).into(),
            failed: Some("200: no disk".to_owned()),
        };
        let text = curve.text();
        assert!(text.contains("all us   = 20.00 + 1.000e0 x   (R2 1.00)"), "{text}");
        assert_eq!(text.matches("not in the line").count(), 1, "{text}");
        assert!(text.contains("NOT WHOLE at 200: no disk"), "{text}");
        assert_eq!(curve.json()["points"][2]["all_us"]["values"], json!([120.0, 120.0]));
        assert_eq!(curve.json()["fit_ingest_us"]["a"].as_f64().unwrap().round(), 10.0);
    }
}
