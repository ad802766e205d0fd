//! An ingest core's thread: a listener, a journal, and the marks that come back to it.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::{Fatal, Progress, Step, tell};
use crate::config::Config;
use crate::forward::settle::MarkBatch;
use crate::handoff::{Handoff, Limits, Outlet};
use crate::intake::Intake;
use crate::intake::offload::{LARGE, Post, Queue};
use crate::journal::Journal;
use crate::journal::account::Wrote;
use crate::journal::buffer::BufferPool;
use crate::journal::spare::Order;
use crate::journal::view::Published;
use crate::journal::writer::Seed;
use crate::listen;
use crate::metrics::IngestCells;
use crate::overload::{GiveWay, Guard};
use crate::wake::{Bell, Doorbell};

/// Frame buffers kept warm: one being filled, one being written, the rest at the forwarding cores.
const BUFFERS: usize = 16;
/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) struct Setup {
    pub core: usize,
    pub config: Arc<Config>,
    pub owners: Vec<u16>,
    pub listener: TcpListener,
    pub shared: Arc<listen::Shared>,
    pub seed: Seed,
    pub orders: Sender<Order>,
    pub wrote: Sender<Wrote>,
    pub published: Arc<Published>,
    pub outlets: Vec<Outlet>,
    pub limits: Limits,
    pub marks: Receiver<MarkBatch>,
    pub doorbell: Doorbell,
    pub held: Arc<AtomicUsize>,
    pub give_way: Arc<GiveWay>,
    pub seq: Arc<AtomicU64>,
    pub offload: Queue,
    pub cells: Arc<IngestCells>,
    pub progress: Arc<Progress>,
    pub started: Sender<()>,
    pub drained: Sender<()>,
    pub sealed: Sender<()>,
    pub fatal: Sender<Fatal>,
}

pub(super) async fn run(setup: Setup) -> io::Result<()> {
    let Setup { core, config, cells, held, .. } = setup;
    let pool = BufferPool::new(BUFFERS, Arc::clone(&held));
    let journal = Journal::new(setup.seed, setup.orders, setup.wrote, pool, Arc::clone(&cells));
    let handoff = Handoff::new(core, setup.published, setup.outlets, held, setup.limits, Arc::clone(&cells));
    let writing = {
        let (journal, fatal) = (Rc::clone(&journal), setup.fatal.clone());
        monoio::spawn(async move {
            if let Err(source) = journal.run(|committed| handoff.committed(committed)).await {
                tracing::error!(core, error = %source, "the journal failed; nothing more is acknowledged");
                tell(&fatal, Fatal::Io { core: format!("ingest-{core}"), source });
            }
        })
    };
    {
        let (journal, cells) = (Rc::clone(&journal), Arc::clone(&cells));
        monoio::spawn(async move {
            loop {
                cells.accepting.set(u64::from(journal.accepting()));
                cells.spare_segments.set(journal.spares_ready() as u64);
                monoio::time::sleep(LOOK).await;
            }
        });
    }
    let guard = Guard::new(setup.give_way);
    {
        let (guard, cells, core) = (Rc::clone(&guard), Arc::clone(&cells), core);
        monoio::spawn(async move {
            // Without it nobody gives way under overload, and answers come late.
            if let Err(error) = guard.watch(|lag| cells.lag_ns.set(lag.as_nanos() as u64)).await {
                tracing::error!(core, %error, "cannot tell how late this core is; nobody gives way to it");
            }
        });
    }
    let post = Post::new(setup.offload)?;
    let intake =
        Intake::new(&config, &setup.owners, Rc::clone(&journal), guard, setup.seq, Arc::clone(&cells));
    let intake = Rc::new(intake.offloading(LARGE, Rc::clone(&post)));
    {
        let fatal = setup.fatal;
        monoio::spawn(async move {
            if let Err(source) = post.run().await {
                tracing::error!(core, error = %source, "large webhooks cannot be taken back");
                tell(&fatal, Fatal::Io { core: format!("ingest-{core}"), source });
            }
        });
    }
    cells.accepting.set(u64::from(journal.accepting()));
    tell(&setup.started, ());
    let listening = monoio::spawn({
        let drained = setup.drained;
        async move {
            let result = listen::serve(setup.listener, intake, setup.shared, cells).await;
            tell(&drained, ());
            result
        }
    });

    let bell = Bell::new(&setup.doorbell)?;
    loop {
        while let Ok((id, marks)) = setup.marks.try_recv() {
            journal.append_marks(id, marks);
        }
        match setup.progress.get() {
            Step::Sealing => journal.stop(),
            Step::Running | Step::Forwarding => {
                let quiet = || setup.marks.is_empty() && setup.progress.get() < Step::Sealing;
                bell.wait(quiet).await?;
                continue;
            }
        }
        writing.await;
        if journal.all_marked() {
            tell(&setup.sealed, ());
        }
        return listening.await;
    }
}
