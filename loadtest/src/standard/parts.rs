//! What the table is made of: each part has its own way of measuring, and can be left out.

use clap::ValueEnum;

use super::{backlog, counts, idle, overload, scale, stall};
use crate::goal::Row;
use crate::rig::Rig;

/// A part of the goal table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Gateway, floor and reference servers
    Servers,
    /// Allocations and ring enters
    Counts,
    /// 100,000 prefixes beside 10
    Prefixes,
    /// 200 regions beside 1
    Regions,
    /// 10,000 connections beside 64
    Connections,
    /// Memory of a connection that is idle
    Idle,
    /// Twice of what the gateway can do
    Overload,
    /// What a large webhook does to the others
    Stall,
    /// Ingest while many parcels wait for a region that is down
    Backlog,
}

/// Rows of the table, and what to know about them.
#[derive(Debug, Default)]
pub struct Found {
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

impl Part {
    /// Measures it, what is compared at half of `capacity`, so that both sides have room, and what is counted at
    /// `load` of it; the servers, which take turns, are measured elsewhere.
    pub fn measure(self, rig: &Rig<'_>, capacity: f64, load: f64, backlog: u64) -> Found {
        let share = |share: f64| ((capacity * share) as u64).max(1);
        let rate = share(0.5);
        match self {
            Self::Servers => Found::default(),
            Self::Counts => counts::measure(rig, share(load)),
            Self::Prefixes => scale::prefixes(rig, rate),
            Self::Regions => scale::regions(rig, rate),
            Self::Connections => scale::connections(rig, rate),
            Self::Idle => idle::measure(rig),
            Self::Overload => overload::measure(rig),
            Self::Stall => stall::measure(rig),
            Self::Backlog => backlog::measure(rig, rate, backlog),
        }
    }
}
