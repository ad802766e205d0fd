//! The result for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::archive::Archived;
use crate::block::Block;
use crate::measure::Run;
use crate::stats::median;

/// Blocks, medians, ratios inside the pairs, and whether the ledger balances.
pub fn text(run: &Run) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("\nServer CPU, microseconds by webhook of {} bytes (head and body)\n", run.bytes));
    line(
        "              k/s     all  ingest forward archive   rest   p50 ms  p99 ms  sleeps commits doorbells"
            .to_owned(),
    );
    for (name, blocks) in [("floor", &run.floor), ("gateway", &run.gateway)] {
        for block in blocks {
            line(row(name, block));
        }
    }
    line(String::new());
    line(format!("floor    median {:6.2} us", median(run.floor.iter().map(|block| block.all_us))));
    if !run.gateway.is_empty() {
        line(format!(
            "ingest   median {:6.2} us   {:.2} x floor",
            column(run, |block| block.ingest_us),
            ratio(run, |block| block.ingest_us)
        ));
        line(format!(
            "all in   median {:6.2} us   {:.2} x floor",
            column(run, |block| block.all_us),
            ratio(run, |block| block.all_us)
        ));
        line(format!(
            "syncs    {:.4} by webhook, {:.1} entries by commit",
            column(run, |block| block.commits),
            column(run, |block| block.batch)
        ));
        line(ledger(run));
        let archived: Vec<Archived> = run.gateway.iter().filter_map(|block| block.archived).collect();
        if !archived.is_empty() {
            line(format!("archive  median {:6.2} us", column(run, |block| block.archive_us)));
            line(archive_ledger(run, &archived));
        }
    }
    line(format!("machine  load average {}, steal {:.1} %", run.load_average, run.steal_percent));
    // The floor does not know one webhook from another, so only the gateway's must not repeat.
    let broken: u64 = run.floor.iter().chain(&run.gateway).map(|block| block.other + block.failed).sum();
    let odd = broken + run.gateway.iter().map(|block| block.repeated).sum::<u64>();
    if odd > 0 {
        line(format!("BEWARE   {}", oddities(run)));
    }
    out
}

fn row(name: &str, block: &Block) -> String {
    let threads = if name == "floor" {
        format!("{:>7} {:>7} {:>7} {:>6}", "-", "-", "-", "-")
    } else {
        format!(
            "{:7.2} {:7.2} {:7.2} {:6.2}",
            block.ingest_us, block.forward_us, block.archive_us, block.rest_us
        )
    };
    format!(
        "{name:9} {:7.1} {:7.2} {threads} {:8.2} {:7.2} {:7.3} {:7.4} {:9.4}",
        block.rate / 1e3,
        block.all_us,
        block.p50_ms,
        block.p99_ms,
        block.sleeps,
        block.commits,
        block.doorbells
    )
}

fn ledger(run: &Run) -> String {
    let sum = |read: fn(&Block) -> u64| run.gateway.iter().map(read).sum::<u64>();
    let (accepted, delivered, again) =
        (sum(|block| block.accepted), sum(|block| block.delivered), sum(|block| block.again));
    let verdict = if accepted == delivered { "balances" } else { "DOES NOT BALANCE" };
    format!("ledger   {verdict}: {accepted} answered 200, {delivered} delivered, {again} delivered again")
}

fn archive_ledger(run: &Run, archived: &[Archived]) -> String {
    let accepted: u64 = run.gateway.iter().map(|block| block.accepted).sum();
    let records: u64 = archived.iter().map(|archived| archived.records).sum();
    let again: u64 = archived.iter().map(|archived| archived.again).sum();
    let verdict = if accepted == records && again == 0 { "balances" } else { "DOES NOT BALANCE" };
    format!("archive  {verdict}: {accepted} answered 200, {records} archived, {again} archived again")
}

fn oddities(run: &Run) -> String {
    let mut text = String::new();
    for (name, blocks) in [("floor", &run.floor), ("gateway", &run.gateway)] {
        let sum = |read: fn(&Block) -> u64| blocks.iter().map(read).sum::<u64>();
        // A String takes everything.
        write!(
            text,
            "{name}: {} not answered 200, {} connections broken, {} webhooks sent twice (raise --pool); ",
            sum(|block| block.other),
            sum(|block| block.failed),
            sum(|block| block.repeated)
        )
        .ok();
    }
    text.trim_end_matches("; ").to_owned()
}

/// The same for a program.
pub fn json(run: &Run) -> Value {
    let blocks = |blocks: &[Block]| -> Vec<Value> { blocks.iter().map(block_json).collect() };
    json!({
        "request_bytes": run.bytes,
        "floor": blocks(&run.floor),
        "gateway": blocks(&run.gateway),
        "floor_us": median(run.floor.iter().map(|block| block.all_us)),
        "ingest_us": column(run, |block| block.ingest_us),
        "all_us": column(run, |block| block.all_us),
        "ingest_by_floor": ratio(run, |block| block.ingest_us),
        "all_by_floor": ratio(run, |block| block.all_us),
        "load_average": run.load_average,
        "steal_percent": run.steal_percent,
    })
}

pub fn block_json(block: &Block) -> Value {
    json!({
        "rate": block.rate, "all_us": block.all_us, "ingest_us": block.ingest_us, "forward_us": block.forward_us,
        "archive_us": block.archive_us, "rest_us": block.rest_us, "p50_ms": block.p50_ms, "p99_ms": block.p99_ms, "sleeps": block.sleeps,
        "commits": block.commits, "batch": block.batch, "doorbells": block.doorbells,
        "resident_bytes": block.resident_bytes,
        "accepted": block.accepted, "other": block.other, "failed": block.failed,
        "delivered": block.delivered, "again": block.again, "repeated": block.repeated,
        "archived": block.archived.map(|archived| archived.records),
        "archived_again": block.archived.map(|archived| archived.again),
        "body_bytes": block.archived.map(|archived| archived.body_bytes),
        "record_bytes": block.archived.map(|archived| archived.record_bytes),
        "stored_bytes": block.archived.map(|archived| archived.stored_bytes),
    })
}

fn column(run: &Run, read: fn(&Block) -> f64) -> f64 {
    median(run.gateway.iter().map(read))
}

/// Median of the ratios inside each pair: what moves both sides of a pair drops out.
fn ratio(run: &Run, read: fn(&Block) -> f64) -> f64 {
    median(run.gateway.iter().zip(&run.floor).map(|(gateway, floor)| read(gateway) / floor.all_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_taken_inside_the_pairs() {
        let block = |all_us| Block { all_us, ..Block::default() };
        let run = Run {
            floor: [5.0, 10.0, 6.0].map(block).to_vec(),
            gateway: [10.0, 30.0, 12.0].map(block).to_vec(),
            ..Run::default()
        };
        assert_eq!(ratio(&run, |block| block.all_us), 2.0);
        assert_eq!(column(&run, |block| block.all_us), 12.0);
        assert!(text(&run).contains("all in   median  12.00 us   2.00 x floor"), "{}", text(&run));
    }

    #[test]
    fn ledger_that_does_not_balance_is_said_loudly() {
        let check = |delivered, expected: &str| {
            let block = Block { accepted: 10, delivered, ..Block::default() };
            let run = Run { floor: vec![Block::default()], gateway: vec![block], ..Run::default() };
            assert!(text(&run).contains(expected), "{}", text(&run));
        };
        check(10, "ledger   balances");
        check(9, "DOES NOT BALANCE");
    }

    #[test]
    fn archives_must_hold_every_webhook_once() {
        let check = |records, again, expected: &str| {
            let archived = Some(Archived { records, again, ..Archived::default() });
            let block = Block { accepted: 10, delivered: 10, archived, ..Block::default() };
            let run = Run { floor: vec![Block::default()], gateway: vec![block], ..Run::default() };
            assert!(text(&run).contains(expected), "{}", text(&run));
        };
        check(10, 0, "archive  balances");
        check(9, 0, "archive  DOES NOT BALANCE");
        check(10, 1, "archive  DOES NOT BALANCE");
    }
}
