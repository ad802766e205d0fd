//! What is varied, over which values, and how a block with one of them is made.

use clap::ValueEnum;

use crate::block::{self, Block, Build, Setting};
use crate::child::free_address;
use crate::pool::Shape;
use crate::rig::Rig;
use crate::users::Routes;
use crate::waiting::Waiting;

/// Users where there are many prefixes or regions: enough that each has some.
const MANY_USERS: u64 = 200_000;
/// Bytes and updates a second that a block has at most, so that large webhooks leave the server time to sleep, too.
const BYTES: f64 = 50e6;
const UPDATES: f64 = 20e3;
/// Bytes of a webhook around its text.
const AROUND: f64 = 400.0;

/// What moves while all else stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Variable {
    Connections,
    Payload,
    Updates,
    Regions,
    Prefixes,
    Duplicates,
    CommitDelay,
    Backlog,
}

impl Variable {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Payload => "payload",
            Self::Updates => "updates",
            Self::Regions => "regions",
            Self::Prefixes => "prefixes",
            Self::Duplicates => "duplicates",
            Self::CommitDelay => "commit-delay",
            Self::Backlog => "backlog",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Payload => "bytes",
            Self::Duplicates => "percent",
            Self::CommitDelay => "ms",
            _ => "count",
        }
    }

    pub fn meaning(self) -> &'static str {
        match self {
            Self::Connections => "keep-alive connections, the rate spread over all; few cannot carry it",
            Self::Payload => {
                "bytes of a webhook with one message; the rate falls so that there are 50 MB/s at most"
            }
            Self::Updates => {
                "statuses in a webhook; the rate falls so that there are 20,000 a second at most"
            }
            Self::Regions => "regions that the same prefixes are dealt to",
            Self::Prefixes => "prefixes of two regions, 200,000 users",
            Self::Duplicates => "share of webhooks that were sent before",
            Self::CommitDelay => "journal.commit_delay: the longest wait for others to share a sync",
            Self::Backlog => "parcels that wait for regions that are down; ingest alone",
        }
    }

    pub fn values(self) -> &'static [f64] {
        match self {
            Self::Connections => &[1.0, 8.0, 64.0, 512.0, 4096.0, 10_000.0],
            Self::Payload => &[600.0, 3e3, 3e4, 3e5, 3e6],
            Self::Updates => &[1.0, 10.0, 100.0, 1000.0],
            Self::Regions => &[1.0, 5.0, 30.0, 200.0],
            Self::Prefixes => &[10.0, 100.0, 1e3, 1e4, 1e5],
            Self::Duplicates => &[0.0, 1.0, 5.0, 20.0, 50.0],
            Self::CommitDelay => &[0.1, 0.5, 2.0, 10.0],
            Self::Backlog => &[0.0, 1e4, 1e5, 1e6],
        }
    }

    pub fn show(self, x: f64) -> String {
        format!("{x}")
    }

    /// Webhooks a second at a point, where `rate` are wanted.
    pub fn rate(self, rate: u64, x: f64) -> u64 {
        match self {
            Self::Payload => rate.min((BYTES / x) as u64).max(1),
            Self::Updates => rate.min((UPDATES / x) as u64).max(1),
            _ => rate,
        }
    }

    /// The blocks of one point; `at` tells it from the others, for the webhooks' seed.
    pub fn blocks(self, rig: &Rig<'_>, rate: u64, x: f64, at: usize) -> anyhow::Result<Vec<Block>> {
        if self == Self::Backlog {
            return backlog(rig, rate, x as u64);
        }
        let many = Rig { users: MANY_USERS, ..rig.clone() };
        let rig = if matches!(self, Self::Regions | Self::Prefixes) { &many } else { rig };
        let mut setting = rig.setting(self.rate(rate, x));
        let (mut routes, mut shape, mut extra) =
            (Routes::countries(rig.regions), Shape::USUAL, String::new());
        match self {
            Self::Connections => setting.connections = x as usize,
            Self::Payload => shape.text = Some((x - AROUND).max(0.0) as usize),
            Self::Updates => shape.updates = x as usize,
            Self::Regions => routes = Routes::blocks(x as usize, MANY_USERS),
            Self::Prefixes => routes = Routes::many(rig.regions, x as usize),
            Self::Duplicates => setting.repeats = x / 100.0,
            Self::CommitDelay => {
                extra = format!("\n[journal]\ncommit_delay = \"{}us\"\n", (x * 1e3) as u64);
            }
            Self::Backlog => {}
        }
        (0..rig.blocks.pairs)
            .map(|repeat| one(rig, &setting, (8000 + at * 100 + repeat, shape), &routes, &extra))
            .collect()
    }
}

fn one(
    rig: &Rig<'_>,
    setting: &Setting,
    (seed, shape): (usize, Shape),
    routes: &Routes,
    extra: &str,
) -> anyhow::Result<Block> {
    let pool = rig.pool_of(seed, setting, shape);
    let block = block::gateway(setting, pool, Build { extra, ..Build::new(rig.binary, routes) }, rig.sink)?;
    // A webhook of several updates becomes several parcels, which nobody outside can count beforehand.
    if shape.updates == 1 {
        block.all_delivered()?;
    }
    Ok(block)
}

/// Filled once for all repeats.
fn backlog(rig: &Rig<'_>, rate: u64, parcels: u64) -> anyhow::Result<Vec<Block>> {
    let waiting = Waiting::start(rig, free_address()?, "waiting")?;
    waiting.fill(parcels)?;
    let blocks =
        (0..rig.blocks.pairs as u64).map(|repeat| waiting.block(rate, parcels * 2 + repeat * 1_000_000));
    let blocks = blocks.collect::<anyhow::Result<Vec<_>>>()?;
    waiting.end()?;
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_webhooks_come_less_often() {
        assert_eq!(Variable::Payload.rate(8000, 600.0), 8000);
        assert_eq!(Variable::Payload.rate(8000, 3e6), 16);
        assert_eq!(Variable::Updates.rate(8000, 1000.0), 20);
        assert_eq!(Variable::Backlog.rate(8000, 1e6), 8000);
    }

    #[test]
    fn values_of_a_curve_go_up_and_span_what_is_promised() {
        for variable in Variable::value_variants() {
            let values = variable.values();
            assert!(values.windows(2).all(|two| two[0] < two[1]), "{variable:?}");
            assert!(values.len() >= 4, "{variable:?}");
        }
        let last = |variable: Variable| *variable.values().last().unwrap();
        assert_eq!((last(Variable::Connections), last(Variable::Payload)), (1e4, 3e6));
        assert_eq!((last(Variable::Prefixes), last(Variable::Regions)), (1e5, 200.0));
    }
}
