//! A forwarding core's thread.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::{GRACE, Progress, Step, tell};
use crate::forward::{Forwarder, Setup};

/// On a CPU that it shares with an ingest core, a forwarding core gets a quarter while both want all of it: the
/// provider waits for its answer, a region for what is safe already. Not less, since others may want that CPU, too.
const NICE: i32 = 5;

/// `shares`: its CPU is an ingest core's, too.
pub(super) async fn run(
    setup: Setup,
    shares: bool,
    progress: Arc<Progress>,
    finished: Sender<bool>,
) -> io::Result<()> {
    // Of this thread alone. Without it parcels are forwarded all the same.
    if shares && let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "a forwarding core cannot give way to the ingest core on its CPU; answers may be late under overload");
    }
    let forwarder = Forwarder::new(setup)?;
    let clean = forwarder.run(move || progress.get() >= Step::Forwarding, GRACE).await?;
    tell(&finished, clean);
    Ok(())
}
