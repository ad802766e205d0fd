//! The thread that drives the network of all buckets, and how others wait for what it does.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;
use std::{io, thread};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio::sync::watch;

use crate::archive::store::{Reason, StoreFault};

/// What a call waits longer than its task may take: until then the driver itself ends the task.
const GRACE: Duration = Duration::from_secs(5);

/// Drives the network of any number of buckets on one thread, which ends with the last clone.
#[derive(Debug, Clone)]
pub struct Driver {
    handle: Handle,
    stop: Arc<watch::Sender<bool>>,
}

impl Driver {
    pub fn start() -> io::Result<Self> {
        // Names are looked up on threads of their own, and few are enough.
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let handle = runtime.handle().clone();
        let (stop, mut stopped) = watch::channel(false);
        thread::Builder::new().name("buckets".into()).spawn(move || {
            // An error: the last clone is gone.
            runtime.block_on(stopped.wait_for(|stop| *stop)).ok();
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop: Arc::new(stop) })
    }

    /// Ends every call that waits, and all that come: each with a fault.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// For whatever must be made where the driver is.
    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// Waits for what `task` comes to, at most for `limit`. Never call it on the driver's own thread.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        limit: Duration,
        task: impl Future<Output = Result<T, StoreFault>> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let (done, result) = sync_channel(1);
        let mut stopped = self.stop.subscribe();
        self.handle.spawn(async move {
            let result = tokio::select! {
                result = tokio::time::timeout(limit, task) => result.unwrap_or_else(|_| {
                    Err(StoreFault::new(Reason::Timeout, format!("not done within {limit:?}")))
                }),
                _ = stopped.wait_for(|stop| *stop) => Err(ended()),
            };
            // Nobody waits any more only if the caller's thread is gone.
            done.send(result).ok();
        });
        match result.recv_timeout(limit + GRACE) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
            Err(RecvTimeoutError::Timeout) => {
                Err(StoreFault::new(Reason::Timeout, "the thread of the network does not answer"))
            }
        }
    }
}

fn ended() -> StoreFault {
    StoreFault::new(Reason::Other, "this process is ending")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_mins(10);

    #[test]
    fn a_call_ends_with_its_task_with_its_limit_or_with_the_driver() {
        let driver = Driver::start().unwrap();
        assert_eq!(driver.wait(LONG, ready(Ok(7))), Ok(7));
        let since = Instant::now();
        let late = driver.wait(Duration::from_millis(20), pending::<Result<(), _>>()).unwrap_err();
        assert_eq!(late.reason, Reason::Timeout);
        let waits = driver.clone();
        let waiting = thread::spawn(move || waits.wait(LONG, pending::<Result<(), _>>()));
        driver.stop();
        assert!(waiting.join().unwrap().unwrap_err().what.contains("ending"));
        assert!(driver.wait(LONG, pending::<Result<(), _>>()).is_err(), "nothing begins any more");
        assert!(since.elapsed() < LONG / 10);
    }
}
