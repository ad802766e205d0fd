//! The side thread: one thread with a tokio runtime for what may wait or block.
//!
//! Names are resolved here, and the admin listener and signals live here, so that no core ever does.
//! Cores and side thread share nothing but messages: a core hands over a closure, the answer comes
//! back through whatever the closure writes to.
//!
//! A panic in a task here ends the process, as on a core: a gateway that goes on without its admin
//! listener or its names looks alive and is not.
//!
//! Deliberately absent: caches of names. The caller holds the addresses, asks again every [`ASK_EVERY`]
//! and drops them after [`KEEP_FOR`] without a good answer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;

/// How often a name is resolved anew: a region's fail-over by DNS takes effect within it.
pub const ASK_EVERY: Duration = Duration::from_secs(30);

/// How long the last good addresses serve while the name does not resolve. Resolvers fail for
/// minutes; addresses that nobody vouches for any more may belong to somebody else.
pub const KEEP_FOR: Duration = Duration::from_mins(5);

/// Names that are resolved at once; `getaddrinfo` holds a thread, for up to a minute if the servers are silent.
const RESOLVING_MAX: usize = 8;

/// How long a stop waits for name look-ups, which nobody needs any more.
const STOP_WITHIN: Duration = Duration::from_millis(100);

/// The thread and its runtime. Dropping it lets both run on; [`Side::stop`] ends them.
#[derive(Debug)]
pub struct Side {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// Gives work to the side thread, from any thread, without waiting.
#[derive(Debug, Clone)]
pub struct Handle(tokio::runtime::Handle);

impl Side {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RESOLVING_MAX)
            .thread_name("side-blocking")
            .build()?;
        let handle = Handle(runtime.handle().clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("side".into()).spawn(move || {
            // An error means that `Side` was dropped without a stop: then there is no end.
            if runtime.block_on(stopped).is_err() {
                runtime.block_on(std::future::pending::<()>());
            }
            runtime.shutdown_timeout(STOP_WITHIN);
        })?;
        Ok(Self { handle, stop, thread })
    }

    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Drops all tasks at their next wait and ends the thread. Look-ups under way are not answered.
    pub fn stop(self) {
        // Fails only if the thread has ended already.
        self.stop.send(()).ok();
        self.thread.join().ok();
    }
}

impl Handle {
    /// Runs `task` on the side thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                // The panic hook has said where and why.
                std::process::abort();
            }
        });
    }

    /// Resolves `host` and calls `reply` on the side thread, with at least one address or an error.
    pub fn resolve(
        &self,
        host: String,
        port: u16,
        reply: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
    ) {
        self.spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await.and_then(|found| {
                let mut addresses: Vec<_> = Vec::new();
                // getaddrinfo repeats an address that stands in several places.
                found.for_each(|address| {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                });
                if addresses.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                }
                Ok(addresses)
            });
            reply(found);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn names_are_resolved_beside_the_caller() {
        let side = Side::start().unwrap();
        let (reply, answer) = mpsc::channel();
        let caller = std::thread::current().id();
        let check = |host: &str| {
            let reply = reply.clone();
            side.handle().resolve(host.into(), 81, move |found| {
                assert_ne!(std::thread::current().id(), caller);
                reply.send(found).unwrap();
            });
            answer.recv_timeout(PATIENCE).unwrap()
        };
        let local = check("localhost").unwrap();
        assert!(
            !local.is_empty() && local.iter().all(|a| a.ip().is_loopback() && a.port() == 81),
            "{local:?}"
        );
        assert_eq!(check("127.0.0.1").unwrap(), ["127.0.0.1:81".parse().unwrap()]);
        assert!(check("no such name").is_err());
        side.stop();
    }

    #[test]
    fn stop_drops_tasks_that_wait_for_ever() {
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let side = Side::start().unwrap();
        let (send, dropped) = mpsc::channel();
        let (running, runs) = mpsc::channel();
        let told = Told(send);
        side.handle().spawn(async move {
            let _told = told;
            running.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        runs.recv_timeout(PATIENCE).unwrap();
        assert!(dropped.try_recv().is_err());
        let start = Instant::now();
        side.stop();
        dropped.recv_timeout(PATIENCE).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
