//! What a webhook costs in things that can be counted: ring enters and allocations.
//!
//! The kernel counts them in the running gateway. `cargo test --test alloc` counts the allocations of the gateway's own
//! work without a ring, in full commits; here the runtime's are in it, and commits are as small as the load makes them.

use anyhow::Context;

use super::parts::Found;
use crate::block::{Block, Build};
use crate::goal::{Missing, Row, some};
use crate::perf::{Allocator, ENTERS};
use crate::rig::Rig;
use crate::stats::Estimate;
use crate::users::Routes;

pub fn measure(rig: &Rig<'_>, rate: u64) -> Found {
    let by_answer = |thread: &'static str, events: Vec<String>| {
        move |block: &Block| block.counts.of(thread, &events) / block.rate
    };
    let estimate = |blocks: &Result<Vec<Block>, Missing>, read: &dyn Fn(&Block) -> f64| {
        let blocks = blocks.as_ref().map_err(Clone::clone)?;
        some(Estimate::of(blocks.iter().map(read)))
    };
    let enters = vec![ENTERS.to_owned()];
    let entered = blocks(rig, rate, &enters).map_err(Missing::from);
    let allocated = Allocator::probe(rig.binary).context("cargo test --test alloc counts them, too");
    let allocated = allocated.and_then(|allocator| {
        let events = allocator.events();
        Ok((blocks(rig, rate, &events)?, events))
    });
    let (allocated, events) = match allocated {
        Ok((blocks, events)) => (Ok(blocks), events),
        Err(error) => (Err(Missing::from(error)), Vec::new()),
    };
    let [in_ingest, in_forward] =
        ["ingest", "forward"].map(|thread| estimate(&allocated, &by_answer(thread, events.clone())));
    let ingest = estimate(&entered, &by_answer("ingest", enters.clone()));
    let both = [by_answer("ingest", enters.clone()), by_answer("forward", enters)];
    let all = estimate(&entered, &|block| both.iter().map(|read| read(block)).sum());
    let notes = vec![format!(
        "counted  at {rate}/s over {} connections, in threads ingest-* and forward-*, by perf stat",
        rig.connections
    )];
    let rows = vec![
        Row::at_most("allocations at ingest, by webhook", 0.05, 0.0, in_ingest),
        Row::at_most("allocations of forwarding, by parcel", 1.0, 0.1, in_forward),
        Row::at_most("ring enters of ingest, by webhook", 0.35, 0.15, ingest),
        Row::at_most("ring enters of all cores, by webhook", 0.35, 0.15, all),
    ];
    Found { rows, notes }
}

/// Blocks without anything beside them: a count hardly depends on the machine's mood, so half as many are enough.
fn blocks(rig: &Rig<'_>, rate: u64, events: &[String]) -> anyhow::Result<Vec<Block>> {
    let (setting, routes) = (rig.setting(rate), Routes::countries(rig.regions));
    (0..rig.blocks.pairs.div_ceil(2))
        .map(|round| {
            let build = Build { events, ..Build::new(rig.binary, &routes) };
            let block = rig.gateway(&setting, rig.pool(2000 + round, &setting), build)?;
            let [ingest, forward] =
                ["ingest", "forward"].map(|thread| block.counts.of(thread, events) / block.rate);
            eprintln!("counts {round}: {ingest:.3} of ingest and {forward:.3} of forwarding, by webhook");
            Ok(block)
        })
        .collect()
}
