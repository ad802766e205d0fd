//! The `penstock` binary: reads the command line, runs one command, ends with its exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use penstock::cli::{self, Cli, USAGE};

/// Bodies are allocated on one core and freed on another; glibc's allocator is several times slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // `--help` and `--version` come here too: they are no mistakes and go to stdout.
            let code = if told.use_stderr() { USAGE } else { 0 };
            told.print().ok();
            return ExitCode::from(code);
        }
    };
    match cli::run(&cli) {
        Ok(code) => ExitCode::from(code),
        // `penstock demo | head`: the reader has seen enough.
        Err(error) if cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "penstock: {error:#}").ok();
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
