//! The command line: one variant per command, one `match`, each arm one call.
//!
//! Every command is a module with `Args` and `run(&Args) -> anyhow::Result<u8>`; the number is the
//! exit code. An error that must end with a code of its own is a [`Failure`]. Nothing else of
//! Penstock imports this module.

use std::io;

pub mod archive;
pub mod check;
pub mod client;
pub mod dead;
pub mod demo;
pub mod doctor;
mod folder;
pub mod journal;
pub mod logging;
pub mod route;
pub mod send;
pub mod serve;
pub mod sign;

/// Exit code: a check failed.
pub const FAILED: u8 = 1;
/// Exit code: the command line is wrong (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Exit code: something that is needed is missing or does not answer (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// Exit code: input or output failed (`EX_IOERR`).
pub const IO: u8 = 74;
/// Exit code: the configuration is bad (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// The gate between WhatsApp and a company's regional back ends.
#[derive(Debug, clap::Parser)]
#[command(name = "penstock", version, after_long_help = MANUAL)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show in half a minute what Penstock does, with three regions on this machine
    Demo(demo::Args),
    /// Run the gateway
    Serve(serve::Args),
    /// Check a configuration and report all its problems at once
    Check(check::Args),
    /// Say which region a user or a webhook goes to, and why
    Route(route::Args),
    /// Print the signature of a body
    Sign(sign::Args),
    /// Sign a body and post it to a gateway
    Send(send::Args),
    /// Look at what was given up, send it again or drop it
    #[command(subcommand)]
    Dead(dead::Command),
    /// Prove an archive, read it, make the key that signs it
    #[command(subcommand)]
    Archive(archive::Command),
    /// Look into the journal
    #[command(subcommand)]
    Journal(Journal),
    /// Say what on this machine would make the gateway slow or unsafe
    Doctor(doctor::Args),
}

#[derive(Debug, clap::Subcommand)]
pub enum Journal {
    /// Print what a journal holds
    Inspect(journal::Args),
    /// Say what is damaged, what it means and what can be done; with --repair, do it
    Fsck(journal::fsck::Args),
}

const MANUAL: &str = "\
Examples:
  penstock demo --once                        what it does, in half a minute
  penstock check --config penstock.toml       all problems of a configuration
  penstock serve --config penstock.toml       the gateway

Exit codes:
  0 ok, 1 a check failed, 64 usage, 69 a dependency is missing, 74 I/O,
  78 bad configuration";

/// Runs one command; the number is the exit code.
pub fn run(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Check(args) => check::run(args),
        Command::Route(args) => route::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Send(args) => send::run(args),
        Command::Dead(command) => dead::run(command),
        Command::Archive(command) => archive::run(command),
        Command::Journal(Journal::Inspect(args)) => journal::run(args),
        Command::Journal(Journal::Fsck(args)) => journal::fsck::run(args),
        Command::Doctor(args) => doctor::run(args),
    }
}

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub code: u8,
    text: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), source: None }
    }

    /// The same with its cause, which is printed behind it.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// The exit code of an error: that of its first [`Failure`], 74 for I/O, 1 for the rest.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.chain().find_map(|cause| cause.downcast_ref::<Failure>()) {
        return failure.code;
    }
    if error.chain().any(|cause| cause.is::<io::Error>()) { IO } else { FAILED }
}

/// True if the error is only that nobody reads our output any more.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn leaves(command: &mut clap::Command, path: &str, check: &mut dyn FnMut(&str, String)) {
        let path = format!("{path} {}", command.get_name());
        if !command.has_subcommands() {
            check(&path, command.render_long_help().to_string());
        }
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            leaves(sub, &path, check);
        }
    }

    #[test]
    fn definition_is_sound_and_every_command_shows_an_example() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        let mut seen = 0;
        leaves(&mut command, "", &mut |path, help| {
            seen += 1;
            assert!(help.contains("Example"), "{path} --help shows no example:\n{help}");
            let manual = help.split_once("--help\n").map_or("", |(_, rest)| rest);
            let wide: Vec<_> = manual.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{path} --help is wider than a terminal: {wide:?}");
        });
        assert_eq!(seen, 17);
    }

    #[test]
    fn help_is_no_mistake_and_a_wrong_flag_is() {
        for told in [["penstock", "--help"], ["penstock", "--version"]] {
            assert!(!Cli::try_parse_from(told).unwrap_err().use_stderr());
        }
        for wrong in [vec!["penstock"], vec!["penstock", "serv"], vec!["penstock", "demo", "--twice"]] {
            assert!(Cli::try_parse_from(wrong).unwrap_err().use_stderr());
        }
    }

    #[test]
    fn errors_keep_their_exit_code_below_added_context() {
        let io = || io::Error::from(io::ErrorKind::PermissionDenied);
        let check = |error: anyhow::Error, code: u8| assert_eq!(exit_code(&error), code, "{error:#}");
        check(anyhow::anyhow!("odd"), FAILED);
        check(anyhow::Error::new(io()).context("read the body"), IO);
        check(anyhow::Error::new(Failure::new(CONFIG, "no source").because(io())).context("start"), CONFIG);
    }
}
