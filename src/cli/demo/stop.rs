//! Ctrl-C: asks the demo to finish; a second one asks it to hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// How often somebody has asked for an end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicU8>);

impl Stop {
    /// Counts SIGINT, SIGTERM and SIGHUP (a closed terminal) from now on, in place of dying of them.
    pub fn on_signals() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the thread that waits for signals")?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).context("take SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("take SIGTERM")?;
        let mut hang_up = signal(SignalKind::hangup()).context("take SIGHUP")?;
        drop(entered);

        let stop = Self::default();
        let asked = stop.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                            _ = hang_up.recv() => {}
                        }
                        asked.ask();
                    }
                });
            })
            .context("start the thread that waits for signals")?;
        Ok(stop)
    }

    pub fn ask(&self) {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| Some(times.saturating_add(1))).ok();
    }

    /// True once somebody wants it to end.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// True once somebody has asked again.
    pub fn urgent(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 1
    }
}
