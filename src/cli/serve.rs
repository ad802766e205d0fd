//! `penstock serve`: the gateway, from its configuration to its last mark.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use tokio::signal::unix::{SignalKind, signal};

use super::logging::Log;
use super::{CONFIG, FAILED, Failure, IO, UNAVAILABLE};
use crate::config::Config;
use crate::handoff::Limits;
use crate::journal::store::StoreError;
use crate::shard::{Gateway, StartError};
use crate::side::{self, Side};

/// Time for the answers 503 to leave after the journal has failed.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

const MANUAL: &str = "\
Takes webhooks on [listen] address, keeps them in [gateway] data_dir until their
regions have them, and answers /healthz, /readyz and /metrics on [admin]
address. Logs to stderr: text on a terminal, JSON otherwise; PENSTOCK_LOG=debug
shows more.

Signals:
  SIGTERM, SIGINT  stop in good order within ten seconds; a second one ends at
                   once
  SIGHUP           is noted and changes nothing: restart to load another
                   configuration

Exit codes:
  0   stopped
  1   ended at once by a second SIGTERM or SIGINT; what was acknowledged is kept
  69  no io_uring, or an address or the data folder is in use
  74  the journal cannot be read or written
  78  bad configuration

Example:
  penstock check --config /etc/penstock/penstock.toml
  penstock serve --config /etc/penstock/penstock.toml";

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let log = Log::start()?;
    let (config, warnings) =
        Config::load(&args.config).map_err(|invalid| Failure::new(CONFIG, invalid.to_string()))?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    raise_descriptor_limit();
    // What users say is in these files: nobody else on the machine needs to read it.
    umask(umask(Mode::empty()) | Mode::S_IRWXO);
    let side = Side::start()?;
    let signals = watch_signals(&side.handle())?;
    let (address, admin) = (config.listen.address, config.admin.address);
    let (ingest, forward) = (config.cores.ingest.len(), config.cores.forward.len());
    let gateway = {
        let _starting = end_on_signal(signals.clone(), log.clone())?;
        Gateway::start(config, Limits::default(), log.dropped(), side).map_err(failure)?
    };
    tracing::info!(%address, %admin, ingest, forward, "taking webhooks");

    let code = loop {
        select! {
            recv(signals) -> got => match got {
                Ok(Signal::Stop) => {
                    tracing::info!("stopping");
                    let log = log.clone();
                    std::thread::Builder::new().name("abort".into()).spawn(move || abort_on_second(&signals, log))?;
                    gateway.stop();
                    tracing::info!("stopped");
                    break 0;
                }
                Ok(Signal::Reload) => tracing::warn!("SIGHUP: restart to load another configuration; nothing was changed"),
                Err(_) => break FAILED,
            },
            recv(gateway.fatal) -> got => {
                if let Ok(fatal) = got {
                    tracing::error!(error = %fatal, "ending the process: only what is on disk is trusted now");
                }
                #[allow(clippy::disallowed_methods)] // The main thread, with nothing left to do.
                std::thread::sleep(LAST_ANSWERS);
                break IO;
            }
        }
    };
    drop(log);
    // Threads and their rings go with the process; joining them could wait for a stuck disk.
    std::process::exit(i32::from(code));
}

fn failure(error: StartError) -> Failure {
    let code = match &error {
        StartError::Ring(_) | StartError::Bind { .. } | StartError::Store(StoreError::InUse(_)) => {
            UNAVAILABLE
        }
        StartError::Store(_) | StartError::Keys(_) | StartError::Dead(_) | StartError::Thread(_) => IO,
        StartError::Envelope(_) | StartError::Names { .. } | StartError::TooManyCores(_) => CONFIG,
    };
    Failure::new(code, error.to_string())
}

enum Signal {
    Stop,
    Reload,
}

fn watch_signals(side: &side::Handle) -> anyhow::Result<Receiver<Signal>> {
    let (to, signals) = unbounded();
    let (ready_to, ready) = unbounded();
    side.spawn(async move {
        let streams = signal(SignalKind::terminate())
            .and_then(|t| Ok((t, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)));
        let (mut terminate, mut interrupt, mut hangup) = match streams {
            Ok(streams) => {
                ready_to.send(Ok(())).ok();
                streams
            }
            Err(error) => {
                ready_to.send(Err(error)).ok();
                return;
            }
        };
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => Signal::Stop,
                _ = hangup.recv() => Signal::Reload,
            };
            if to.send(signal).is_err() {
                return;
            }
        }
    });
    ready.recv().context("the side thread ended")?.context("watch for signals")?;
    Ok(signals)
}

/// A stop that is asked for during the start, which may read a long journal, ends the process at once:
/// whatever moment that is, the journal is as safe as after a crash. Until the sender is dropped.
fn end_on_signal(signals: Receiver<Signal>, log: Log) -> std::io::Result<Sender<()>> {
    let (started, starting) = bounded(0);
    std::thread::Builder::new().name("early-stop".into()).spawn(move || {
        loop {
            select! {
                recv(signals) -> got => match got {
                    Ok(Signal::Stop) => {
                        tracing::info!("stopped before the start was complete");
                        drop(log);
                        std::process::exit(0);
                    }
                    Ok(Signal::Reload) => {}
                    Err(_) => return,
                },
                recv(starting) -> _ => return,
            }
        }
    })?;
    Ok(started)
}

fn abort_on_second(signals: &Receiver<Signal>, log: Log) {
    while let Ok(signal) = signals.recv() {
        if matches!(signal, Signal::Stop) {
            tracing::warn!(
                "asked again to stop: ending at once; what was acknowledged is in the journal, and parcels under way may \
                 come to their regions twice"
            );
            drop(log);
            std::process::exit(i32::from(FAILED));
        }
    }
}

/// Connections, segments and rings need descriptors; the soft limit is often 1,024 where the hard one is large.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(soft, hard, %error, "cannot raise the limit of open files");
    }
}
