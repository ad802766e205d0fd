//! The keeper's thread.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime};

use crossbeam_channel::RecvTimeoutError;

use super::keeper::{Keeper, Moment, Start};
use super::{Desk, Office};

fn moment() -> Moment {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Moment { now: Instant::now(), unix_ms: unix.map_or(0, |since| since.as_millis() as u64) }
}

/// Starts the thread `dead`: a desk per forwarding core, and the office. `failed`: the letters could not be
/// written, and nothing is done with them any more.
pub fn start(
    start: Start<'_>,
    failed: impl FnOnce(io::Error) + Send + 'static,
) -> io::Result<(Vec<Desk>, Office)> {
    let (keeper, desks, office) = Keeper::new(start, Instant::now())?;
    std::thread::Builder::new().name("dead".into()).spawn(move || {
        match catch_unwind(AssertUnwindSafe(|| run(keeper))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed(error),
            Err(_) => {
                tracing::error!("the dead letters' thread panicked; ending the process");
                std::process::abort();
            }
        }
    })?;
    Ok((desks, office))
}

/// Until nobody is left who could order.
fn run(mut keeper: Keeper) -> io::Result<()> {
    loop {
        match keeper.orders.recv_timeout(keeper.pause()) {
            Ok(order) => keeper.take(order, moment()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        keeper.turn(moment())?;
    }
}
