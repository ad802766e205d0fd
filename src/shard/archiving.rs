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
    // On no CPU of its own: it waits for disks, and what it reads is safe already.
    spawn::core("archive".to_owned(), None, flags, fatal, move || run(setup, progress, to))?;
    Ok(ended)
}

async fn run(setup: archive::Setup, progress: Arc<Progress>, ended: Sender<()>) -> io::Result<()> {
    archive::run(setup, move || progress.get() >= Step::Forwarding).await?;
    tell(&ended, ());
    Ok(())
}
