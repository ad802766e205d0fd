//! A forwarding core's thread.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::{GRACE, Progress, Step, tell};
use crate::forward::{Forwarder, Setup};

pub(super) async fn run(setup: Setup, progress: Arc<Progress>, finished: Sender<bool>) -> io::Result<()> {
    let forwarder = Forwarder::new(setup)?;
    let clean = forwarder.run(move || progress.get() >= Step::Forwarding, GRACE).await?;
    tell(&finished, clean);
    Ok(())
}
