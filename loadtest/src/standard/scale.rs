//! One thing made large, everything else the same, in alternating blocks: prefixes, regions, connections.

use super::parts::Found;
use crate::block::{self, Block, Build, Setting};
use crate::goal::{Missing, Row, some};
use crate::pairs::{Side, alternate};
use crate::rig::Rig;
use crate::stats::Estimate;
use crate::users::Routes;

/// Users where there are many prefixes or regions: enough that each has some.
const USERS: u64 = 200_000;
const PREFIXES: [usize; 2] = [10, 100_000];
const REGIONS: usize = 200;
pub const CONNECTIONS: usize = 10_000;

/// One side: how it is loaded, and where its webhooks go.
struct Arm<'a> {
    setting: Setting,
    routes: &'a Routes,
}

pub fn prefixes(rig: &Rig<'_>, rate: u64) -> Found {
    let rig = Rig { users: USERS, ..rig.clone() };
    let [few, many] = PREFIXES.map(|prefixes| Routes::many(rig.regions, prefixes));
    let arms = [&few, &many].map(|routes| Arm { setting: rig.setting(rate), routes });
    let found = compare(&rig, "prefixes", &arms, |block| block.ingest_us);
    one(Row::at_most("ingest CPU, 100,000 prefixes / 10", 1.05, 1.02, found))
}

pub fn regions(rig: &Rig<'_>, rate: u64) -> Found {
    let rig = Rig { users: USERS, ..rig.clone() };
    let many = Routes::blocks(REGIONS, USERS);
    let merged = many.merged();
    let arms = [&merged, &many].map(|routes| Arm { setting: rig.setting(rate), routes });
    let found = compare(&rig, "regions", &arms, |block| block.all_us);
    one(Row::at_most("all-in CPU, 200 regions / 1", 1.3, 1.15, found))
}

pub fn connections(rig: &Rig<'_>, rate: u64) -> Found {
    let routes = Routes::countries(rig.regions);
    let arms = [rig.connections, CONNECTIONS]
        .map(|connections| Arm { setting: Setting { connections, ..rig.setting(rate) }, routes: &routes });
    let found = compare(rig, "connections", &arms, |block| block.ingest_us);
    one(Row::at_most(&format!("ingest CPU, 10,000 connections / {}", rig.connections), 1.4, 1.2, found))
}

fn one(row: Row) -> Found {
    Found { rows: vec![row], notes: Vec::new() }
}

/// The second by the first, inside the pairs.
fn compare(
    rig: &Rig<'_>,
    name: &str,
    arms: &[Arm<'_>; 2],
    read: fn(&Block) -> f64,
) -> Result<Estimate, Missing> {
    let run = alternate(rig.blocks.pairs, |pair, side| {
        let Arm { setting, routes } = &arms[usize::from(side == Side::B)];
        let pool = rig.pool(3000 + pair, setting);
        let block = block::gateway(setting, pool, Build::new(rig.binary, routes), rig.sink)?;
        block.all_delivered()?;
        // A gateway that is stopped archives the rest after its next start, and here there is none.
        let archived = block.archived.map_or(0, |archived| archived.records);
        let unarchived = block.accepted.saturating_sub(archived);
        anyhow::ensure!(
            block.failed == 0 && block.other == 0,
            "{} connections broke and {} webhooks were not answered 200; expected none",
            block.failed,
            block.other
        );
        let size = if side == Side::A { "few" } else { "many" };
        eprintln!(
            "{name} {pair}: {size:4} {:.1} k/s, {:.2} us; {unarchived} of {} not archived when stopped",
            block.rate / 1e3,
            read(&block),
            block.accepted
        );
        Ok(block)
    });
    let (few, many) = run?;
    some(Estimate::of_ratios(many.iter().map(read), few.iter().map(read)))
}
