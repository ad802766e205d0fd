//! A gateway hosted by the test program itself, for limits that no configuration has.
//!
//! The test program starts itself again as the gateway: its test `host`, ignored otherwise, calls [`run`].

use std::path::Path;
use std::process::Command;

use penstock::cli::logging::Log;
use penstock::config::Config;
use penstock::handoff::Limits;
use penstock::shard::Gateway;
use penstock::side::Side;

const CONFIG: &str = "PENSTOCK_TEST_CONFIG";

/// Starts the test `host` of this program with a configuration file.
pub fn command(config: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "host", "--ignored", "--nocapture"]).env(CONFIG, config);
    command
}

/// The gateway of [`command`], until somebody ends it.
pub fn run(limits: Limits, change: impl FnOnce(&mut Config)) {
    let file = std::env::var(CONFIG).expect("started by another test of this file");
    let (mut config, _) = Config::load(Path::new(&file)).unwrap();
    change(&mut config);
    let log = Log::start().unwrap();
    let gateway = Gateway::start(config, limits, log.dropped(), Side::start().unwrap()).unwrap();
    panic!("ended by itself: {}", gateway.fatal.recv().unwrap());
}
