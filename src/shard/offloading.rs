//! The threads that judge large webhooks, beside the cores.

use std::io;
use std::sync::Arc;

use super::{priority, spawn};
use crate::config::Config;
use crate::intake::offload::{self, Queue};

/// Starts them; they end when nobody has the queue any more. `owners`: the forwarding core of each region.
pub(super) fn start(config: &Arc<Config>, owners: &[u16]) -> io::Result<Queue> {
    let (queue, prompt, late) = offload::queue();
    let with = || (Arc::clone(config), owners.to_vec());
    // On no CPU of their own: they go where one is free. The sender of a large webhook can wait; everybody else cannot.
    let (config_of, owners_of) = with();
    spawn::beside("offload", move || {
        if let Err(error) = priority::run_idle() {
            tracing::warn!(%error, "large webhooks cannot give way to the cores; they may wait for them");
        }
        offload::run(&config_of, &owners_of, prompt);
    })?;
    let (config_of, owners_of) = with();
    spawn::beside("offload-late", move || {
        spawn::give_way("offload-late");
        offload::run(&config_of, &owners_of, late);
    })?;
    Ok(queue)
}
