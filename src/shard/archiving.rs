//! The archiver's thread, if any region archives.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::spawn::{self, Fatal, RingFlags};
use super::{Progress, Step, tell};
use crate::archive;

/// Starts it. A message comes when it has ended; at once where there is nothing to archive.
pub(super) fn start(
    setup: archive::Setup,
    progress: Arc<Progress>,
    flags: RingFlags,
    fatal: Sender<Fatal>,
) -> io::Result<Receiver<()>> {
    let (to, ended) = crossbeam_channel::unbounded();
    if !archive::wanted(&setup.config) {
        tell(&to, ());
        return Ok(ended);
    }
    // Until it has looked for itself: there may be anything.
    archive::looked(&setup.config, &setup.cells);
    // On no CPU of its own: it goes where one is free.
    spawn::core("archive".to_owned(), None, flags, fatal, move || run(setup, progress, to))?;
    Ok(ended)
}

/// On a CPU that a core needs too, the archiver gets a tenth of it: what it reads is safe already, and
/// it can be late.
const NICE: i32 = 10;

async fn run(setup: archive::Setup, progress: Arc<Progress>, ended: Sender<()>) -> io::Result<()> {
    // Of this thread alone. Without it the archive works all the same.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "the archiver cannot give way to the cores; they may wait for it");
    }
    archive::run(setup, move || progress.get() >= Step::Forwarding).await?;
    tell(&ended, ());
    Ok(())
}
