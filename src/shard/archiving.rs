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

async fn run(setup: archive::Setup, progress: Arc<Progress>, ended: Sender<()>) -> io::Result<()> {
    // What it reads is safe already, and it can be late.
    spawn::give_way("archive");
    archive::run(setup, move || progress.get() >= Step::Forwarding).await?;
    tell(&ended, ());
    Ok(())
}
