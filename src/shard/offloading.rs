//! The thread that judges large webhooks, beside the cores.

use std::io;
use std::sync::Arc;

use super::spawn;
use crate::config::Config;
use crate::intake::offload::{self, Queue};

/// Starts it; it ends when nobody has the queue any more. `owners`: the forwarding core of each region.
pub(super) fn start(config: &Arc<Config>, owners: &[u16]) -> io::Result<Queue> {
    let (queue, jobs) = crossbeam_channel::unbounded();
    let (config, owners) = (Arc::clone(config), owners.to_vec());
    // On no CPU of its own: it goes where one is free. The sender of a large webhook can wait; everybody else cannot.
    spawn::beside("offload", move || {
        spawn::give_way("offload");
        offload::run(&config, &owners, &jobs);
    })?;
    Ok(queue)
}
