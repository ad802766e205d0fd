//! What takes turns in a comparison, and what its blocks say.

use std::fmt;

use crate::block::Block;
use crate::peer::Peer;
use crate::stats::median;

/// A server in one configuration at one load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Floor,
    /// All in: durable, repeats dropped, forwarded to live regions, archived.
    Gateway,
    /// The same at half of what it can do.
    GatewayHalf,
    /// Two of the same, but for `journal.sync`.
    GatewaySynced,
    GatewayUnsynced,
    /// At the rate of that server.
    GatewayBeside(Peer),
    Peer(Peer),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floor => f.write_str("floor"),
            Self::Gateway => f.write_str("gateway"),
            Self::GatewayHalf => f.write_str("gateway, half load"),
            Self::GatewaySynced => f.write_str("gateway, sync on"),
            Self::GatewayUnsynced => f.write_str("gateway, sync off"),
            Self::GatewayBeside(peer) => write!(f, "gateway, rate of {peer}"),
            Self::Peer(peer) => peer.fmt(f),
        }
    }
}

#[derive(Debug)]
pub struct Subject {
    pub what: What,
    pub rate: u64,
    pub blocks: Vec<Block>,
    /// Why there are no more blocks.
    pub failed: Option<String>,
}

impl Subject {
    pub fn new(what: What, rate: u64) -> Self {
        Self { what, rate, blocks: Vec::new(), failed: None }
    }

    pub fn failed(what: What, error: &anyhow::Error) -> Self {
        eprintln!("FAILED {what}: {error:#}");
        Self { failed: Some(format!("{error:#}")), ..Self::new(what, 0) }
    }

    pub fn values<'a>(&'a self, read: impl Fn(&Block) -> f64 + 'a) -> impl Iterator<Item = f64> + 'a {
        self.blocks.iter().map(read)
    }

    /// Medians of its blocks.
    pub fn summary(&self) -> String {
        let column = |read: fn(&Block) -> f64| median(self.values(read));
        let middle = Block {
            rate: column(|block| block.rate),
            all_us: column(|block| block.all_us),
            ingest_us: column(|block| block.ingest_us),
            forward_us: column(|block| block.forward_us),
            archive_us: column(|block| block.archive_us),
            rest_us: column(|block| block.rest_us),
            p50_ms: column(|block| block.p50_ms),
            p99_ms: column(|block| block.p99_ms),
            ..Block::default()
        };
        line(&self.what.to_string(), &middle)
    }

    /// What makes its figures doubtful.
    pub fn oddity(&self) -> Option<String> {
        let what = self.what;
        if let Some(why) = &self.failed {
            return Some(format!("{what} failed: {why}"));
        }
        let rate = median(self.values(|block| block.rate));
        if rate < self.rate as f64 * 0.95 {
            return Some(format!("{what} was offered {}/s and answered {rate:.0}/s", self.rate));
        }
        let odd: u64 = self.blocks.iter().map(|block| block.other + block.failed).sum();
        (odd > 0).then(|| format!("{what} answered {odd} webhooks otherwise than with 200, or not"))
    }
}

/// What stands above the lines.
pub fn head() -> String {
    format!(
        "{:32}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "k/s", "all us", "ingest", "forward", "archive", "rest", "p50 ms", "p99 ms"
    )
}

pub fn line(name: &str, block: &Block) -> String {
    let mut text = format!("{name:32}{:8.1}{:9.2}", block.rate / 1e3, block.all_us);
    for part in [block.ingest_us, block.forward_us, block.archive_us, block.rest_us] {
        // Only the gateway's threads have names that tell.
        text += &if block.ingest_us > 0.0 { format!("{part:9.2}") } else { format!("{:>9}", "-") };
    }
    text + &format!("{:9.2}{:9.2}", block.p50_ms, block.p99_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_lags_behind_its_load_is_told() {
        let block = |rate| Block { rate, all_us: 9.0, ..Block::default() };
        let check = |rates: [f64; 3], odd: bool| {
            let mut subject = Subject::new(What::Floor, 1000);
            subject.blocks = rates.map(block).to_vec();
            assert_eq!(subject.oddity().is_some(), odd, "{:?}", subject.oddity());
        };
        check([990.0, 1000.0, 400.0], false);
        check([900.0, 910.0, 1000.0], true);
        let failed = Subject::failed(What::Floor, &anyhow::anyhow!("no"));
        assert_eq!(failed.oddity().as_deref(), Some("floor failed: no"));
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let block = Block { rate: 12_300.0, all_us: 9.0, ingest_us: 4.0, ..Block::default() };
        assert_eq!(line("gateway, sync off", &block).len(), head().len());
        assert_eq!(line("floor", &Block::default()).len(), head().len());
    }
}
