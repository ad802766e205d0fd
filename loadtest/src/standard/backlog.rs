//! Ingest while parcels wait for regions that are down, beside ingest with regions just as down and nothing waiting.
//!
//! One gateway is filled once and stays; the other one is new in each pair. Only the ingest cores' CPU counts.

use std::time::Instant;

use super::parts::Found;
use crate::child::free_address;
use crate::gateway::total;
use crate::goal::{Missing, Row, some};
use crate::pairs::{Side, alternate};
use crate::rig::Rig;
use crate::stats::Estimate;
use crate::waiting::Waiting;

/// More webhooks than a block has.
const STRIDE: u64 = 1_000_000;

pub fn measure(rig: &Rig<'_>, rate: u64, parcels: u64) -> Found {
    let mut notes = Vec::new();
    let pairs = compare(rig, rate, parcels, &mut notes);
    let found = pairs
        .map_err(Missing::from)
        .and_then(|[empty, full]| some(Estimate::of_ratios(full.into_iter(), empty.into_iter())));
    let name = format!("ingest CPU, backlog of {parcels} / none");
    Found { rows: vec![Row::at_most(&name, 1.15, 1.05, found)], notes }
}

/// What ingest cost beside none and beside all.
fn compare(rig: &Rig<'_>, rate: u64, parcels: u64, notes: &mut Vec<String>) -> anyhow::Result<[Vec<f64>; 2]> {
    // Nobody listens there.
    let down = free_address()?;
    let full = Waiting::start(rig, down, "full")?;
    let start = Instant::now();
    full.fill(parcels)?;
    let waiting = total(&full.gateway.scrape()?, "penstock_backlog_parcels");
    let note = format!(
        "backlog  {waiting:.0} parcels wait, filled in {:.0} s; {} MiB resident",
        start.elapsed().as_secs_f64(),
        full.gateway.resident_bytes()? >> 20
    );
    eprintln!("{note}");
    notes.push(note);
    let (empty, filled) = alternate(rig.blocks.pairs, |pair, side| {
        // Numbers that the filling did not use.
        let first = parcels * 2 + pair as u64 * 2 * STRIDE;
        let cost = if side == Side::A {
            let empty = Waiting::start(rig, down, "empty")?;
            let cost = empty.block(rate, first)?.ingest_us;
            empty.end()?;
            cost
        } else {
            full.block(rate, first + STRIDE)?.ingest_us
        };
        eprintln!("backlog {pair}: {} {cost:.2} us", if side == Side::A { "none" } else { "full" });
        Ok(cost)
    })?;
    full.end()?;
    Ok([empty, filled])
}
