//! The goals, one line each: a name, what must hold, what is aimed at, and what the run says.

use super::Run;
use super::subject::{Subject, What};
use crate::block::Block;
use crate::goal::{Missing, Row, some};
use crate::peer::{Kind, Peer};
use crate::stats::Estimate;

/// All goals in the order of the table.
pub fn goals(run: &Run) -> Vec<Row> {
    let all: fn(&Block) -> f64 = |block| block.all_us;
    let by_floor = |read: fn(&Block) -> f64| ratio(run, What::Gateway, read, What::Floor);
    let peer = |name: &str, kind: Kind, synced: bool, must: f64, aim: f64| {
        let modes = [synced, !synced].map(|synced| Peer { kind, synced });
        // The goal's own mode, or the other where only that was asked for.
        let mode = modes.into_iter().find(|peer| run.find(What::Peer(*peer)).is_some()).unwrap_or(modes[0]);
        let log = if mode.synced { "synced" } else { "page cache" };
        Row::at_most(&format!("{name}, {log}"), must, aim, ratio(run, What::Gateway, all, What::Peer(mode)))
    };
    let (f50, f99) = (run.sync(|probe| probe.sync_p50), run.sync(|probe| probe.sync_p99));
    let half = |read: fn(&Block) -> f64| of(run, What::GatewayHalf, read);
    vec![
        Row::at_most("durable ingest / floor", 1.5, 1.35, by_floor(|block| block.ingest_us)),
        Row::at_most("all-in / floor", 3.2, 2.7, by_floor(all)),
        peer("all-in / nginx + Lua", Kind::NginxLua, false, 0.33, 0.2),
        peer("all-in / Go net/http", Kind::GoNethttp, true, 0.2, 0.12),
        peer("all-in / Express", Kind::Express, false, 0.1, 0.066),
        // No figure of it was known when the goals were set.
        peer("all-in / Bento", Kind::Bento, false, 1.0 / 8.0, 1.0 / 15.0),
        Row::at_most(
            "ack p50 at half load, ms (F50 + 2, + 1)",
            f50 + 2.0,
            f50 + 1.0,
            half(|block| block.p50_ms),
        ),
        Row::at_most(
            "ack p99 at half load, ms (2 F99 + 5, + 2)",
            2.0 * f99 + 5.0,
            2.0 * f99 + 2.0,
            half(|block| block.p99_ms),
        ),
        Row::at_most(
            "CPU, sync on / off",
            1.1,
            1.06,
            ratio(run, What::GatewaySynced, all, What::GatewayUnsynced),
        ),
        Row::at_least("archive, records / all that is stored", 6.0, 7.0, of(run, What::Gateway, packed)),
        Row::at_most(
            "archive, us of CPU by event",
            1.6,
            1.0,
            of(run, What::Gateway, |block| block.archive_us),
        ),
        Row::at_most(
            "wakes of other cores, by webhook",
            0.05,
            0.01,
            of(run, What::Gateway, |block| block.doorbells),
        ),
    ]
}

/// The gateway by the reference servers at their own rate, where that was asked for.
pub fn beside(run: &Run) -> Vec<(Peer, Estimate)> {
    let peers = run.subjects.iter().filter_map(|subject| match subject.what {
        What::GatewayBeside(peer) => Some(peer),
        _ => None,
    });
    peers
        .filter_map(|peer| {
            let all: fn(&Block) -> f64 = |block| block.all_us;
            Some((peer, ratio(run, What::GatewayBeside(peer), all, What::Peer(peer)).ok()?))
        })
        .collect()
}

impl Run {
    fn find(&self, what: What) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.what == what)
    }

    /// The subject, if it has blocks to judge by; else why not.
    fn measured(&self, what: What) -> Result<&Subject, Missing> {
        // A reference server that fails says nothing about the gateway; when that fails the run ends.
        let missing = |why: &str| Missing::Unavailable(why.to_owned());
        let skipped = self.skipped.iter().find(|(peer, _)| What::Peer(*peer) == what);
        if let Some((_, why)) = skipped {
            return Err(missing(why));
        }
        let subject = self.find(what).ok_or_else(|| missing("not asked for"))?;
        match &subject.failed {
            Some(why) => Err(missing(why)),
            None => Ok(subject),
        }
    }

    /// Of the disk alone, before and after.
    fn sync(&self, read: fn(&crate::probe::Probe) -> f64) -> f64 {
        f64::midpoint(read(&self.probes[0]), read(&self.probes[1]))
    }
}

fn of(run: &Run, what: What, read: fn(&Block) -> f64) -> Result<Estimate, Missing> {
    some(Estimate::of(run.measured(what)?.values(read)))
}

/// Of `read` of one by all CPU of the other.
fn ratio(run: &Run, above: What, read: fn(&Block) -> f64, below: What) -> Result<Estimate, Missing> {
    let (above, below) = (run.measured(above)?, run.measured(below)?);
    some(Estimate::of_ratios(above.values(read), below.values(|block| block.all_us)))
}

/// Indexes and whatever else lies there count as stored.
fn packed(block: &Block) -> f64 {
    block.archived.map_or(0.0, |archived| archived.record_bytes as f64 / archived.stored_bytes.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Archived;
    use crate::goal::Verdict;
    use crate::probe::Probe;

    fn run() -> Run {
        let probe = Probe { hash: 1.0, sync_p50: 0.5, sync_p99: 1.0, syncs: 1 };
        let subject = |what, all_us: f64| {
            let archived = Some(Archived { record_bytes: 650, stored_bytes: 100, ..Archived::default() });
            let block = Block {
                all_us,
                ingest_us: all_us / 2.0,
                p50_ms: 1.0,
                p99_ms: 9.5,
                archive_us: 1.3,
                doorbells: 0.005,
                archived,
                ..Block::default()
            };
            Subject { blocks: vec![block; 8], ..Subject::new(what, 1) }
        };
        let nginx = Peer { kind: Kind::NginxLua, synced: true };
        let express = Peer { kind: Kind::Express, synced: false };
        Run {
            subjects: vec![
                subject(What::Floor, 8.0),
                subject(What::Gateway, 24.0),
                subject(What::GatewayHalf, 25.0),
                subject(What::GatewaySynced, 24.0),
                subject(What::GatewayUnsynced, 20.0),
                subject(What::Peer(nginx), 80.0),
                Subject::failed(What::Peer(express), &anyhow::anyhow!("forwarded 3 of 4")),
            ],
            found: Vec::new(),
            skipped: vec![(Peer { kind: Kind::Bento, synced: false }, "no binary".to_owned())],
            probes: [probe.clone(), probe],
            steal_percent: 0.0,
            load_average: [String::new(), String::new()],
        }
    }

    #[test]
    fn each_goal_is_judged_by_its_own_servers() {
        let rows = goals(&run());
        let check = |name: &str, value: f64, verdict| {
            let row = rows.iter().find(|row| row.name.starts_with(name)).unwrap();
            assert!((row.measured.as_ref().unwrap().median - value).abs() < 1e-9, "{row:?}");
            assert_eq!(row.verdict(), verdict, "{row:?}");
        };
        check("durable ingest / floor", 1.5, Verdict::Pass);
        check("all-in / floor", 3.0, Verdict::Pass);
        check("all-in / nginx + Lua, synced", 0.3, Verdict::Pass);
        check("ack p50", 1.0, Verdict::Aim);
        check("ack p99", 9.5, Verdict::Fail);
        check("CPU, sync on / off", 1.2, Verdict::Fail);
        check("archive, records", 6.5, Verdict::Pass);
        check("archive, us", 1.3, Verdict::Pass);
        check("wakes", 0.005, Verdict::Aim);
    }

    #[test]
    fn what_is_missing_says_why() {
        let rows = goals(&run());
        let check = |name: &str, why: &str| {
            let row = rows.iter().find(|row| row.name.starts_with(name)).unwrap();
            assert_eq!(row.measured, Err(Missing::Unavailable(why.to_owned())));
        };
        check("all-in / Bento", "no binary");
        check("all-in / Express", "forwarded 3 of 4");
        check("all-in / Go", "not asked for");
    }
}
