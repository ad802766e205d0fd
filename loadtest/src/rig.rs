//! What every block of a run has in common.

use std::path::Path;
use std::sync::Arc;

use crate::block::{self, Block, Build, Setting};
use crate::gateway::{PATH, SECRET};
use crate::options::{Blocks, Machine};
use crate::pool::{Pool, Shape};
use crate::sink::Sink;
use crate::users::Routes;

/// Seconds of the closed loop that finds a capacity.
pub const CAPACITY: u64 = 3;
/// Webhooks of a closed loop; the gateway remembers ids, so they should not repeat.
pub const CLOSED: usize = 400_000;

/// A gateway to be started again and again, regions that take everything, and how long a block is.
#[derive(Clone)]
pub struct Rig<'a> {
    pub binary: &'a Path,
    pub folder: &'a Path,
    pub sink: &'a Sink,
    pub machine: &'a Machine,
    pub blocks: &'a Blocks,
    pub connections: usize,
    pub users: u64,
    pub regions: usize,
}

impl Rig<'_> {
    /// At `rate` webhooks a second.
    pub fn setting(&self, rate: u64) -> Setting {
        Setting {
            connections: self.connections,
            rate,
            calm: None,
            warm_up: self.blocks.warm_up,
            seconds: self.blocks.seconds,
            repeats: 0.0,
            regions: self.regions,
            server_cpu: self.machine.server_cpu,
            load_cpu: self.machine.load_cpu,
            folder: self.folder.to_owned(),
        }
    }

    /// Webhooks for one block with that setting, another seed for each.
    pub fn pool(&self, seed: usize, setting: &Setting) -> Arc<Pool> {
        self.pool_of(seed, setting, Shape::USUAL)
    }

    pub fn pool_of(&self, seed: usize, setting: &Setting, shape: Shape) -> Arc<Pool> {
        // A block takes somewhat longer than its seconds, and at its end each connection has one in hand.
        let count = setting.rate * (setting.warm_up + setting.seconds + 1) + setting.connections as u64;
        let count = if setting.rate == 0 { CLOSED } else { usize::try_from(count).unwrap_or(CLOSED) };
        Arc::new(Pool::of(seed as u64, count, self.users, shape, PATH, SECRET))
    }

    /// One block, of which nothing may be missing.
    pub fn gateway(&self, setting: &Setting, pool: Arc<Pool>, build: Build<'_>) -> anyhow::Result<Block> {
        let block = block::gateway(setting, pool, build, self.sink)?;
        block.whole_ledger()?;
        Ok(block)
    }

    /// Webhooks a second that the gateway can do, what is still to be forwarded included.
    pub fn capacity(&self) -> anyhow::Result<f64> {
        let setting = Setting { seconds: CAPACITY, ..self.setting(0) };
        let routes = Routes::countries(self.regions);
        let pool = self.pool(0, &setting);
        let block = self.gateway(&setting, pool, Build::new(self.binary, &routes))?;
        let capacity = block.capacity();
        eprintln!("capacity: gateway {:.1} k/s ({:.2} us each)", capacity / 1e3, block.whole_us);
        Ok(capacity)
    }
}
