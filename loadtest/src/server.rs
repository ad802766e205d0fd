//! One monoio core, as the gateway builds its own: same driver, same ring flags, one thread, one CPU.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

/// Entries of the ring, as in the gateway.
const ENTRIES: u32 = 1024;

/// Pins the calling thread and runs `main` on a ring of its own.
pub fn on_core<F: Future>(cpu: Option<usize>, main: F) -> anyhow::Result<F::Output> {
    if let Some(cpu) = cpu {
        crate::cpu::pin(cpu)?;
    }
    let mut ring = <io_uring::IoUring>::builder();
    // Without these two the kernel interrupts the core for every completion: half as expensive again.
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(ENTRIES)
        .uring_builder(ring)
        .enable_timer()
        .build()
        .context("set up io_uring with SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1, allowed by seccomp)")?;
    Ok(runtime.block_on(main))
}

/// Accepts for ever and gives every connection to `serve`.
pub async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = serve(stream);
        monoio::spawn(async move {
            // A peer that goes away in the middle is the end of its connection and of nothing else.
            connection.await.ok();
        });
    }
}

/// A listener; port 0 lets the kernel choose.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind_with_config(address, &ListenerOpts::new())
        .with_context(|| format!("listen on {address}"))
}
