//! Placeholder: this command is written elsewhere and replaces this file.

#[derive(Debug, clap::Args)]
#[command(after_long_help = "Example:\n  penstock route")]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
}

pub fn run(_args: &Args) -> anyhow::Result<u8> {
    Err(super::Failure::new(super::UNAVAILABLE, "route is not built in").into())
}
