//! A core's thread: pinned, with its own ring, and what happens when it ends.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use monoio::{IoUringDriver, RuntimeBuilder};

use super::priority;

/// Entries of a core's ring. 78 such rings fit in the usual 8 MiB of locked memory.
const ENTRIES: u32 = 1024;

/// Why the process must end.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("core {core}: {source}")]
    Io { core: String, source: io::Error },
}

/// Which ring set-up this kernel takes, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingFlags {
    /// Completions are run when the owner waits for some, all that came in one go: a twentieth less CPU
    /// than `Cooperative`. The runtime waits whenever no task is ready, and no task wakes itself (see `wake`), so none
    /// is late.
    Deferred,
    /// Kernel 6.0. Completions are run when the owner enters the kernel, not by interrupting it; that takes a quarter
    /// to a half more CPU.
    Cooperative,
    /// Kernels before 6.0.
    Plain,
}

impl RingFlags {
    /// Tries a small ring with each set-up. The error is that of the plain one: no io_uring at all.
    pub fn detect() -> io::Result<Self> {
        match [Self::Deferred, Self::Cooperative].into_iter().find(|flags| builder(*flags).build(8).is_ok()) {
            Some(flags) => Ok(flags),
            None => builder(Self::Plain).build(8).map(|_| Self::Plain),
        }
    }
}

fn builder(flags: RingFlags) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    match flags {
        RingFlags::Deferred => builder.setup_single_issuer().setup_defer_taskrun(),
        RingFlags::Cooperative => builder.setup_single_issuer().setup_coop_taskrun(),
        RingFlags::Plain => &mut builder,
    };
    builder
}

/// Starts a thread beside the cores. A panic ends the process, as a core's does.
pub(super) fn beside(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| std::process::abort());
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// The calling thread gives way to the cores where they share a CPU.
pub(super) fn give_way(thread: &str) {
    // Of this thread alone. Without it all works the same.
    if let Err(error) = priority::give_way() {
        tracing::warn!(thread, %error, "this thread cannot give way to the cores; they may wait for it");
    }
}

/// Starts a core. `main` runs on its thread, inside its runtime; an error it returns is sent to
/// `fatal`. A panic ends the process: half a gateway behind a healthy probe is worse than none, and
/// the journal makes it safe.
pub(super) fn core<F>(
    name: String,
    cpu: Option<usize>,
    flags: RingFlags,
    fatal: Sender<Fatal>,
    main: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Some(cpu) = cpu
            && let Err(error) = monoio::utils::bind_to_cpu_set([cpu])
        {
            tracing::warn!(core = %name, cpu, %error, "cannot pin this core to its CPU; it runs anywhere");
        }
        let run = || -> io::Result<()> {
            // Built in the thread that runs it: SINGLE_ISSUER means this thread.
            let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
                .with_entries(ENTRIES)
                .uring_builder(builder(flags))
                .enable_timer()
                .build()?;
            let result = runtime.block_on(main());
            // Operations in flight hold buffers of the runtime: it must outlive them, so it stays
            // until the process ends.
            std::mem::forget(runtime);
            result
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(source)) => {
                tracing::error!(core = %name, error = %source, "core failed");
                // Nobody listens any more: the process is ending already.
                fatal.send(Fatal::Io { core: name, source }).ok();
            }
            // The panic hook has said what and where; the thread's name is the core's.
            Err(_) => std::process::abort(),
        }
    })
}
