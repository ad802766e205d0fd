pub mod events;
pub mod ledger;
pub mod receiver;
pub mod sender;
pub mod webhooks;
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:")]
pub struct Args {}
pub fn run(_: &Args) -> anyhow::Result<u8> { Ok(0) }
