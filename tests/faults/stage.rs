//! A gateway with all that keeps state: regions, archives, small segments that are freed while it runs; a
//! sender that goes on through everything; and the ledger that judges it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::archive;
use crate::support::body::World;
use crate::support::eventually;
use crate::support::gateway::{Gateway, serve};
use crate::support::hosted;
use crate::support::ledger::{Ledger, Report};
use crate::support::region::{Mode, Region};
use crate::support::sender::{Load, Sender};
use crate::support::settings::{Rule, Settings};

pub const PREFIXES: [&str; 3] = ["1", "91", "55"];
pub const NAMES: [&str; 3] = ["us", "in", "br"];
/// Gets little, so that the journal is mostly settled while it is down, and thinned: one parcel in 16 may wait then.
pub const RARE: usize = 2;
/// For all that was acked to arrive after the last start.
const SETTLE: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(60);
/// Objects so small that some are closed within a second, and large enough for a loaded machine to keep up.
const TINY: &str = "roll_bytes = \"32KiB\"\nroll_after = \"1s\"";

pub struct Stage {
    pub gateway: Gateway,
    pub regions: [Region; 3],
    pub ledger: Ledger,
    sender: Option<Sender>,
    roots: [PathBuf; 3],
    _folder: TempDir,
}

impl Stage {
    /// `data`: where the gateway keeps its state, if not in a folder of its own.
    pub fn start(cores: (usize, usize), data: Option<&Path>, rate: u32, seed: u64) -> Self {
        let folder = TempDir::new().unwrap();
        let roots = NAMES.map(|name| folder.path().join(name));
        roots.iter().for_each(|root| fs::create_dir(root).unwrap());
        let regions = NAMES.map(Region::start);
        let rule = |((region, prefix), root): ((&Region, &str), &PathBuf)| {
            let archive = format!("archive = \"file://{}\"", root.display());
            Rule::new(region, &format!("prefixes = [\"{prefix}\"]\n{archive}"))
        };
        let rules = regions.iter().zip(PREFIXES).zip(&roots).map(rule).collect();
        let settings = Settings {
            ingest: cores.0,
            forward: cores.1,
            archive: TINY.to_owned(),
            command: hosted::command,
            ..Settings::of(rules)
        };
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let gateway = Gateway::start_on(settings, &data);
        let world = Arc::new(World::new(&PREFIXES, 30, 8 << 10).with_rare(RARE, 16));
        let load =
            Load { address: gateway.listen, path: "/webhook".into(), world, connections: 8, rate, seed };
        let sender = Some(Sender::start(&load));
        Self { gateway, regions, ledger: Ledger::default(), sender, roots, _folder: folder }
    }

    /// Webhooks answered 200 so far.
    pub fn acked(&self) -> u64 {
        self.sender.as_ref().map_or(0, Sender::acked)
    }

    /// The next starts run the program as it is shipped; it takes signals, which the tests' own does not.
    pub fn shipped(&mut self, yes: bool) {
        self.gateway.settings.command = if yes { serve } else { hosted::command };
    }

    /// Faults of the next starts, as `PENSTOCK_FAULT` has them.
    pub fn arm(&mut self, faults: &str) {
        self.gateway.settings.environment = vec![("PENSTOCK_FAULT", faults.to_owned())];
    }

    pub fn disarm(&mut self) {
        self.gateway.settings.environment.clear();
    }

    /// How often faults at `name` have happened.
    pub fn fired(&self, name: &str) -> usize {
        let line = format!("penstock-fault: {name} ");
        self.gateway.said().lines().filter(|said| said.starts_with(&line)).count()
    }

    /// Waits for the process to end by itself, and notes it as killed. None if it does not.
    pub fn wait_ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = self.gateway.try_wait_exit(limit)?;
        // What was on its way to the regions has reached them then.
        std::thread::sleep(Duration::from_millis(50));
        self.ledger.killed(Instant::now());
        Some(status)
    }

    pub fn kill(&mut self) {
        self.ledger.killed(self.gateway.kill9());
    }

    /// Everything is well again: stops sending, and judges what the regions and the archives have. The process
    /// must run.
    pub fn judge(mut self) -> Report {
        self.regions.iter_mut().for_each(|region| region.set(Mode::Ok));
        std::thread::sleep(Duration::from_millis(300));
        self.ledger.add(self.sender.take().unwrap().stop());
        let report = self.ledger.assert_kept(&self.gateway, &self.regions, SETTLE);
        let sent: Vec<_> = self.ledger.sent().iter().collect();
        archive::settle(&self.roots, &sent, PATIENCE);
        eventually("no archive lags", PATIENCE, || {
            let metrics = self.gateway.metrics();
            let lag = |name| metrics.sum("penstock_archive_lag_seconds", &[("region", name)]);
            NAMES.into_iter().all(|name| lag(name) == 0.0)
        });
        // Nothing that these tests send ends a process by itself.
        assert_eq!(self.gateway.metrics().total("penstock_quarantined_total"), 0.0);
        self.gateway.kill9();
        archive::assert_kept(&archive::read(&self.roots), &sent, &NAMES);
        report
    }

    /// Hours that the archives have objects of.
    pub fn hours(&self) -> BTreeSet<PathBuf> {
        let objects = self.roots.iter().flat_map(|root| archive::objects(root));
        objects
            .filter_map(|object| Some(object.parent()?.strip_prefix(object.ancestors().nth(3)?).ok()?.into()))
            .collect()
    }
}
