//! A gateway whose regions are down, so that what it takes waits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::block::Block;
use crate::cpu::Usage;
use crate::gateway::{Gateway, PATH, SECRET, Setup};
use crate::generator::{self, Plan, Webhooks};
use crate::pool::Numbered;
use crate::rig::Rig;
use crate::users::Routes;

/// The slowest filling that is waited for, in webhooks a second.
const SLOWEST: u64 = 2000;

/// It is loaded without being drained.
pub struct Waiting<'a> {
    rig: &'a Rig<'a>,
    pub gateway: Gateway,
    folder: PathBuf,
}

impl<'a> Waiting<'a> {
    pub fn start(rig: &'a Rig<'a>, down: SocketAddr, name: &str) -> anyhow::Result<Self> {
        let folder = rig.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let routes = Routes::countries(rig.regions);
        let gateway =
            Gateway::start(&Setup::new(rig.binary, &folder, rig.machine.server_cpu, down, &routes))?;
        Ok(Self { rig, gateway, folder })
    }

    pub fn end(self) -> anyhow::Result<()> {
        self.gateway.server.stop()?;
        Ok(std::fs::remove_dir_all(&self.folder)?)
    }

    fn load(&self, rate: u64, first: u64) -> anyhow::Result<generator::Load> {
        let Rig { connections, users, machine, .. } = *self.rig;
        let plan = Plan::steady(self.gateway.address, connections, rate, machine.load_cpu);
        let numbered = Numbered::new(users, PATH, SECRET);
        generator::start(plan, Webhooks::Numbered(Box::new(numbered.into()), first))
    }

    /// As fast as answers come.
    pub fn fill(&self, parcels: u64) -> anyhow::Result<()> {
        if parcels == 0 {
            return Ok(());
        }
        let load = self.load(0, 0)?;
        let sent = Arc::clone(&load.sent);
        let limit = Duration::from_secs(30 + parcels / SLOWEST);
        let start = Instant::now();
        while sent.ok.load(Relaxed) < parcels && start.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        load.stop()?;
        let answered = sent.ok.load(Relaxed);
        ensure!(
            answered >= parcels,
            "{answered} webhooks were taken within {limit:?}, {} refused; expected {parcels} taken",
            sent.other.load(Relaxed)
        );
        Ok(())
    }

    /// Webhooks from number `first` on, at `rate`. Only what ingest alone shows is in the block.
    pub fn block(&self, rate: u64, first: u64) -> anyhow::Result<Block> {
        let load = self.load(rate, first)?;
        let sent = Arc::clone(&load.sent);
        let pid = self.gateway.server.pid();
        std::thread::sleep(Duration::from_secs(self.rig.blocks.warm_up));
        let (before, answered, start) = (Usage::of(pid)?, sent.ok.load(Relaxed), Instant::now());
        sent.record.store(true, Relaxed);
        std::thread::sleep(Duration::from_secs(self.rig.blocks.seconds));
        let (after, answered) = (Usage::of(pid)?, sent.ok.load(Relaxed) - answered);
        let took = start.elapsed();
        sent.record.store(false, Relaxed);
        let latency = load.stop()?.accepted;
        let refused = sent.other.load(Relaxed) + sent.failed.load(Relaxed);
        ensure!(answered > 0 && refused == 0, "{answered} webhooks were taken and {refused} not");
        let micros = |ns: u64| ns as f64 / 1e3 / answered as f64;
        let used = after.since(&before);
        Ok(Block {
            rate: answered as f64 / took.as_secs_f64(),
            all_us: micros(used.all()),
            ingest_us: micros(used.thread("ingest")),
            p50_ms: latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_ms: latency.value_at_quantile(0.99) as f64 / 1e3,
            ..Block::default()
        })
    }
}
