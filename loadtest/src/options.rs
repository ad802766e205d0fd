//! Options that several commands share.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::gateway;
use crate::rig::Rig;
use crate::sink::Sink;

/// Where servers and load run.
#[derive(Debug, Clone, clap::Args)]
pub struct Machine {
    /// CPU of the servers
    #[arg(long, default_value_t = 0)]
    pub server_cpu: usize,
    /// CPU of generator and regions
    #[arg(long, default_value_t = 1)]
    pub load_cpu: usize,
    /// Folder for journals and logs of the runs; on the disk to be measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

impl Machine {
    /// Refuses one CPU for both, and makes a folder that goes with what is returned.
    pub fn set_up(&self) -> anyhow::Result<TempDir> {
        ensure!(self.server_cpu != self.load_cpu, "server and load need a CPU each");
        gateway::folder(&self.folder)
    }
}

/// Which gateway.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Binary {
    /// Binary of the gateway; without it the `penstock` beside this program
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
}

impl Binary {
    pub fn find(&self) -> anyhow::Result<PathBuf> {
        let binary = match &self.gateway {
            Some(binary) => binary.clone(),
            None => std::env::current_exe().context("find the own binary")?.with_file_name("penstock"),
        };
        ensure!(
            binary.is_file(),
            "{} not found: build it (cargo build --release --workspace) or name it with --gateway",
            binary.display()
        );
        Ok(binary)
    }
}

/// Who writes, and over how many connections.
#[derive(Debug, Clone, clap::Args)]
pub struct Crowd {
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Users who write and are written to; 20,000, in an outage 200,000
    #[arg(long)]
    users: Option<u64>,
}

impl Crowd {
    /// `usual` where nobody said.
    pub fn users(&self, usual: u64) -> u64 {
        self.users.unwrap_or(usual).max(1)
    }
}

/// How many blocks, and how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Blocks {
    /// Blocks of each server; fewer than 6 give no interval of 95 %
    #[arg(long, default_value_t = 8)]
    pub pairs: usize,
    /// Seconds measured in a block
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 1)]
    pub warm_up: u64,
}

impl Blocks {
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.pairs > 0 && self.seconds > 0, "pairs and seconds must be at least 1");
        Ok(())
    }
}

/// Users where a command has no reason for another number.
pub const USERS: u64 = 20_000;

/// What blocks are run under: how many there are, under which load, and where.
#[derive(Debug, Clone, clap::Args)]
pub struct Terms {
    #[command(flatten)]
    pub blocks: Blocks,
    #[command(flatten)]
    pub crowd: Crowd,
    /// Regions of the gateway, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub regions: u8,
    #[command(flatten)]
    pub machine: Machine,
}

impl Terms {
    pub fn rig<'a>(&'a self, binary: &'a Path, folder: &'a Path, sink: &'a Sink) -> Rig<'a> {
        Rig {
            binary,
            folder,
            sink,
            machine: &self.machine,
            blocks: &self.blocks,
            connections: self.crowd.connections,
            users: self.crowd.users(USERS),
            regions: self.regions.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        machine: Machine,
        #[command(flatten)]
        binary: Binary,
        #[command(flatten)]
        crowd: Crowd,
    }

    #[test]
    fn one_cpu_cannot_do_both() {
        let folder = tempfile::tempdir().unwrap();
        let check = |server: &str, fine: bool| {
            let folder = folder.path().to_str().unwrap();
            let cli = Cli::parse_from(["x", "--server-cpu", server, "--folder", folder]);
            assert_eq!(cli.machine.set_up().is_ok(), fine, "{server}");
        };
        check("0", true);
        check("1", false);
    }

    #[test]
    fn gateway_that_is_not_there_is_named() {
        let cli = Cli::parse_from(["x", "--gateway", "/nowhere/penstock", "--users", "7"]);
        let error = cli.binary.find().unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/penstock not found"), "{error}");
        assert_eq!((cli.crowd.users(USERS), cli.crowd.connections), (7, 64));
    }
}
