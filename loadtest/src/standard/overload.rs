//! Twice of what the gateway can do: how much of it is still accepted, and how late?
//!
//! The gateway gets a share of its CPU, so that a generator on one CPU can offer twice its peak. The peak is what it
//! can go on with: what a closed loop gets out of it under that share, or what its CPU by webhook allows, forwarding
//! and archives included, if that is less. The offered load has connections enough that a webhook which is due
//! mostly finds one free: a provider does not wait for one either. More than the peak can be accepted, because under
//! overload forwarding gets less of the CPU than the closed loop leaves it; what arrives meanwhile is said, too.

use std::time::Duration;

use super::parts::Found;
use crate::block::{self, Block, Build, Setting};
use crate::goal::{Missing, Row, some};
use crate::quota;
use crate::rig::Rig;
use crate::stats::Estimate;
use crate::users::Routes;

/// Share of its CPU.
const SHARE: f64 = 0.3;
/// By the peak.
const OFFERED: f64 = 2.0;
/// Of the closed loop: so many that the gateway always has something to do, though it stands still for most of each
/// period.
const PEAK_CONNECTIONS: usize = 512;
/// Of the offered load.
const CONNECTIONS: usize = 8192;
/// Seconds at half the peak, in which connections and the gateway's memory for them come into use.
const CALM: u64 = 10;
/// Seconds of overload before those that are measured: what piles up when it begins is made up for in them.
const SETTLING: u64 = 12;

struct Round {
    /// Webhooks a second.
    peak: f64,
    overload: Block,
}

pub fn measure(rig: &Rig<'_>) -> Found {
    let rounds: anyhow::Result<Vec<Round>> =
        (0..rig.blocks.pairs.div_ceil(2)).map(|round| one(rig, round)).collect();
    let rounds = rounds.map_err(Missing::from);
    let estimate = |read: fn(&Round) -> f64| {
        let rounds = rounds.as_ref().map_err(Clone::clone)?;
        some(Estimate::of(rounds.iter().map(read)))
    };
    let goodput = estimate(|round| round.overload.rate / round.peak * 100.0);
    let p99 = estimate(|round| round.overload.p99_ms);
    let rows = vec![
        Row::at_least("twice the peak offered: accepted, % of the peak", 90.0, 97.0, goodput),
        Row::at_most("twice the peak offered: p99 accepted, ms", 250.0, 50.0, p99),
    ];
    let mut notes = vec![format!(
        "overload {} % of a CPU for the gateway ({}, periods of 10 ms), {CONNECTIONS} connections",
        SHARE * 100.0,
        quota::kind()
    )];
    if let Ok(delivered) = estimate(|round| round.overload.delivery_rate / round.peak * 100.0) {
        notes.push(format!("overload delivered meanwhile, % of the peak: {}", delivered.text(1)));
    }
    Found { rows, notes }
}

fn one(rig: &Rig<'_>, round: usize) -> anyhow::Result<Round> {
    let routes = Routes::countries(rig.regions);
    let build = Build { quota: Some(SHARE), ..Build::new(rig.binary, &routes) };
    let closed = Setting { connections: PEAK_CONNECTIONS, ..rig.setting(0) };
    let peak = block::gateway(&closed, rig.pool(5000 + round, &closed), build, rig.sink)?;
    let peak = peak.rate.min(SHARE * 1e6 / peak.whole_us);
    let offered = (peak * OFFERED) as u64;
    let setting = Setting {
        connections: CONNECTIONS,
        calm: Some(((peak / 2.0) as u64, Duration::from_secs(CALM))),
        warm_up: CALM + SETTLING,
        ..rig.setting(offered)
    };
    let overload = block::gateway(&setting, rig.pool(6000 + round, &setting), build, rig.sink)?;
    overload.whole_ledger()?;
    eprintln!(
        "overload {round}: peak {:.1} k/s; of {:.1} k/s offered {:.1} k/s accepted and {:.1} k/s delivered, p50 {:.1} ms, p99 {:.1} ms; \
         {} answered otherwise, {} connections broken",
        peak / 1e3,
        offered as f64 / 1e3,
        overload.rate / 1e3,
        overload.delivery_rate / 1e3,
        overload.p50_ms,
        overload.p99_ms,
        overload.other,
        overload.failed
    );
    Ok(Round { peak, overload })
}
