//! The process: which cores there are, what each owns, how they start and in which order they stop.
//!
//! ```text
//! start   data folder (lock, recover, key log) > admin > listeners > spares and freeing > forwarding cores
//!         > archiver > offload threads > ingest cores
//! stop    readiness off, listeners drain > forwarding finishes what is under way > last marks, seal
//!                                        > the archiver reads to the end, closes its objects
//! ```
//!
//! Cores share channels and atomics, and what never changes. Each step of a stop begins when the one
//! before has ended or its time is up: what is not finished then waits in the journal.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::admin::{self, AdminState};
use crate::archive;
use crate::config::Config;
use crate::dead::DeadError;
use crate::dedupe::{self, FolderError};
use crate::entry::name_id;
use crate::forward;
use crate::forward::envelope::EnvelopeError;
use crate::forward::settle::{self, Target};
use crate::handling::Handling;
use crate::handoff::{self, Limits};
use crate::journal::account::Account;
use crate::journal::disk::Local;
use crate::journal::free::{Freeing, Place};
use crate::journal::spare::{Maker, OpenMode};
use crate::journal::store::{FoundJournal, Store, StoreError};
use crate::journal::view::{Archived, JournalView, Published};
use crate::journal::writer::Seed;
use crate::listen;
use crate::metrics::render::Registry;
use crate::overload::GiveWay;
use crate::side::Side;
use crate::wake::Doorbell;

mod archiving;
mod backlog;
mod disk;
mod forwarding;
mod ingest;
mod letters;
mod priority;
mod offloading;
mod spawn;

pub use spawn::{Fatal, RingFlags};

/// Forwarding cores a hand-over can name.
const FORWARD_MAX: usize = 64;
/// For requests in flight to be answered.
const DRAIN: Duration = Duration::from_secs(5);
/// For parcels under way to be answered by their regions.
const GRACE: Duration = Duration::from_millis(2600);
/// For the last marks and the seal.
const SEAL: Duration = Duration::from_secs(1);

/// For the archiver to close its objects, from when nothing more comes in.
const ARCHIVE: Duration = Duration::from_secs(2);

/// Where the process is in its stop; cores look at it when their doorbell rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Step {
    Running = 0,
    /// Forwarding cores finish, and so does the archiver.
    Forwarding = 1,
    /// Ingest cores write the last marks and seal.
    Sealing = 2,
}

/// The step, shared with every core.
#[derive(Debug, Default)]
struct Progress(AtomicU8);

impl Progress {
    fn set(&self, step: Step) {
        self.0.store(step as u8, SeqCst);
    }

    fn get(&self) -> Step {
        match self.0.load(SeqCst) {
            0 => Step::Running,
            1 => Step::Forwarding,
            _ => Step::Sealing,
        }
    }
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("io_uring is not available: {0}; run `penstock doctor`, it says what to change")]
    Ring(io::Error),
    #[error("cannot listen on {address} ({key}): {source}")]
    Bind { key: &'static str, address: std::net::SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] FolderError),
    #[error("dead letters: {0}")]
    Dead(#[from] DeadError),
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("{what} {first:?} and {second:?} have the same internal number; rename one of them")]
    Names { what: &'static str, first: String, second: String },
    #[error("cores.forward is {0}, expected at most {FORWARD_MAX}")]
    TooManyCores(usize),
    #[error("start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<listen::Shared>,
    progress: Arc<Progress>,
    admin: Arc<AdminState>,
    ingest_bells: Vec<Doorbell>,
    forward_bells: Vec<Doorbell>,
    /// A message per ingest core whose listener has drained.
    drained: Receiver<()>,
    /// A message per forwarding core that has finished; false if parcels were left under way.
    finished: Receiver<bool>,
    /// A message per ingest core that has closed its journal with everything in it.
    sealed: Receiver<()>,
    /// A message when the archiver has closed its objects; at once where there is none.
    archived: Receiver<()>,
    pub fatal: Receiver<Fatal>,
    side: Side,
    /// The data folder stays locked as long as the gateway lives.
    store: Store,
}

impl Gateway {
    /// Starts everything; returns once webhooks are taken.
    pub fn start(
        config: Config,
        limits: Limits,
        log_lines_dropped: Arc<AtomicU64>,
        side: Side,
    ) -> Result<Self, StartError> {
        check_names("regions", config.regions.iter().map(|r| r.name.as_str()))?;
        check_names("sources", config.sources.iter().map(|s| s.name.as_str()))?;
        let (ingest_count, forward_count) = (config.cores.ingest.len(), config.cores.forward.len());
        if forward_count > FORWARD_MAX {
            return Err(StartError::TooManyCores(forward_count));
        }
        for region in 0..config.regions.len() {
            forward::envelopes(&config, region)?;
        }
        let flags = RingFlags::detect().map_err(StartError::Ring)?;
        if flags == RingFlags::Plain {
            tracing::warn!(
                "this kernel has no SINGLE_ISSUER with DEFER_TASKRUN (6.1 and later): expect a quarter to a half more CPU"
            );
        }
        let config = Arc::new(config);
        let names = |all: &mut dyn Iterator<Item = &String>| all.cloned().collect::<Vec<_>>();
        let registry = Arc::new(Registry::new(
            names(&mut config.sources.iter().map(|s| &s.name)),
            names(&mut config.regions.iter().map(|r| &r.name)),
            ingest_count,
            forward_count,
            log_lines_dropped,
        ));

        // Ports first: a second gateway on this machine must fail before it waits for the data folder.
        let listeners = bind_all(&config)?;
        let admin =
            Arc::new(AdminState::new(Arc::clone(&registry), own_names(&config), config.admin.token.as_ref()));
        start_admin(&config, &admin, &side)?;
        side.handle().spawn(disk::watch(config.gateway.data_dir.clone(), Arc::clone(&registry.process)));

        // The owner of a region: dealt out in turn.
        let owners: Vec<u16> = (0..config.regions.len()).map(|r| (r % forward_count) as u16).collect();
        let store = backlog::open(&config, ingest_count, &owners, &registry.forward)?;
        let keys = dedupe::Folder::open(&config.gateway.data_dir, config.journal.sync, forward_count)?;
        let ids = store.journals.iter().map(|journal| journal.id).collect();
        let handling = Handling::open(&config.gateway.data_dir, ids, config.journal.sync);
        let handling = Arc::new(handling.map_err(|source| StoreError::Io {
            what: "keep track of what is handled in",
            path: config.gateway.data_dir.clone(),
            source,
        })?);
        registry.process.quarantined.set(handling.quarantined());
        let held = Arc::new(AtomicUsize::new(0));
        let give_way = Arc::new(GiveWay::default());
        let seq = Arc::new(AtomicU64::new(store.max_seq + 1));
        let progress = Arc::new(Progress::default());
        let (fatal_to, fatal) = crossbeam_channel::unbounded();
        let (orders_to, orders) = crossbeam_channel::unbounded();
        let published: Vec<Arc<Published>> =
            store.journals.iter().take(ingest_count).map(|j| Arc::new(Published::new(j.end()))).collect();

        let views = views(&store, &published, archive::wanted(&config));
        let (wrote_to, wrote) = crossbeam_channel::unbounded();
        let freeing = freeing(&store, &views, ingest_count);
        let maker = Maker { orders, wrote, freeing, cells: Arc::clone(&registry.process) };
        spawn::beside("spare", move || maker.run())?;

        let bells = |count| (0..count).map(|_| Doorbell::new()).collect::<io::Result<Vec<_>>>();
        let (ingest_bells, forward_bells) = (bells(ingest_count)?, bells(forward_count)?);
        let marks: Vec<_> = ingest_bells.iter().map(|bell| settle::channel(bell.clone())).collect();
        let (outlets, inlets): (Vec<_>, Vec<_>) =
            forward_bells.iter().map(|bell| handoff::channel(bell.clone(), limits)).unzip();
        let (finished_to, finished) = crossbeam_channel::unbounded();
        let (desks, office) = letters::start(&config, &store, &owners, &registry.dead, fatal_to.clone())?;
        admin.open_office(office);
        for (core, (inlet, dead)) in inlets.into_iter().zip(desks).enumerate() {
            let setup = forward::Setup {
                config: Arc::clone(&config),
                owned: (0..config.regions.len()).filter(|r| usize::from(owners[*r]) == core).collect(),
                inlet,
                doorbell: forward_bells[core].clone(),
                journals: views.clone(),
                marks: targets(&store, &marks),
                cells: Arc::clone(&registry.forward[core]),
                held: Arc::clone(&held),
                give_way: Arc::clone(&give_way),
                side: side.handle(),
                limits,
                seed: random_seed()?,
                keys: forward::Keys {
                    core,
                    folder: keys.clone(),
                    expected: store.journals.iter().any(|journal| journal.settled.end() > 0),
                    memory: config.dedupe.memory as usize / forward_count,
                    mixer: u128::from(random_seed()?) << 64 | u128::from(random_seed()?),
                    failed: key_log_failed(core, fatal_to.clone()),
                },
                dead,
                watch: handling.watch()?,
            };
            let (progress, finished) = (Arc::clone(&progress), finished_to.clone());
            let main = move || forwarding::run(setup, progress, finished);
            spawn::core(
                format!("forward-{core}"),
                config.cores.forward[core],
                flags,
                fatal_to.clone(),
                main,
            )?;
        }

        let cells = Arc::clone(&registry.archive);
        let archive = archive::Setup {
            config: Arc::clone(&config),
            journals: views,
            cells,
            watch: handling.watch()?,
            give_way: Arc::clone(&give_way),
        };
        let archived = archiving::start(archive, Arc::clone(&progress), flags, fatal_to.clone())?;

        let offload = offloading::start(&config, &owners)?;
        let shared = listen::Shared::new(&config.listen, listen::Patience::default());
        let (drained_to, drained) = crossbeam_channel::unbounded();
        let (sealed_to, sealed) = crossbeam_channel::unbounded();
        let (started_to, started) = crossbeam_channel::unbounded();
        let mut store = store;
        let mode = store.mode;
        for (core, (listener, (_, mark_batches))) in listeners.into_iter().zip(marks).enumerate() {
            let setup = ingest::Setup {
                core,
                config: Arc::clone(&config),
                owners: owners.clone(),
                listener,
                shared: Arc::clone(&shared),
                seed: seed(&mut store.journals[core], &config, mode)?,
                orders: orders_to.clone(),
                wrote: wrote_to.clone(),
                published: Arc::clone(&published[core]),
                outlets: outlets.clone(),
                limits,
                marks: mark_batches,
                doorbell: ingest_bells[core].clone(),
                held: Arc::clone(&held),
                give_way: Arc::clone(&give_way),
                seq: Arc::clone(&seq),
                offload: offload.clone(),
                cells: Arc::clone(&registry.ingest[core]),
                progress: Arc::clone(&progress),
                started: started_to.clone(),
                drained: drained_to.clone(),
                sealed: sealed_to.clone(),
                fatal: fatal_to.clone(),
            };
            let main = move || ingest::run(setup);
            spawn::core(format!("ingest-{core}"), config.cores.ingest[core], flags, fatal_to.clone(), main)?;
        }
        // Each ingest core says when its journal takes webhooks. One that fails says so on `fatal`,
        // which the caller watches.
        wait_for(&started, ingest_count, Duration::from_secs(10));
        admin.set_phase(admin::Phase::Serving);
        Ok(Self {
            shared,
            progress,
            admin,
            ingest_bells,
            forward_bells,
            drained,
            finished,
            sealed,
            archived,
            fatal,
            side,
            store,
        })
    }

    /// Stops in good order, within ten seconds.
    pub fn stop(self) {
        self.admin.set_phase(admin::Phase::Draining);
        self.shared.drain();
        wait_for(&self.drained, self.ingest_bells.len(), DRAIN + Duration::from_millis(500));
        self.progress.set(Step::Forwarding);
        let archived_by = Instant::now() + ARCHIVE;
        self.forward_bells.iter().for_each(|bell| {
            bell.ring();
        });
        let end = Instant::now() + GRACE + forward::LAST_KEYS + Duration::from_millis(200);
        let mut clean = true;
        for _ in 0..self.forward_bells.len() {
            clean &= self.finished.recv_deadline(end).unwrap_or(false);
        }
        self.progress.set(Step::Sealing);
        self.ingest_bells.iter().for_each(|bell| {
            bell.ring();
        });
        clean &= wait_for(&self.sealed, self.ingest_bells.len(), SEAL);
        if clean && let Err(error) = self.store.leave_clean() {
            tracing::warn!(%error, "the next start will take parcels for possible duplicates");
        }
        if self.archived.recv_deadline(archived_by).is_err() {
            tracing::warn!("the archiver did not end in time; it goes on after the next start");
        }
        self.side.stop();
    }
}

fn key_log_failed(core: usize, fatal: Sender<Fatal>) -> Box<dyn FnOnce(io::Error) + Send> {
    Box::new(move |source| {
        tracing::error!(core, error = %source, "the key log beside the journal failed; nothing more is settled");
        tell(&fatal, Fatal::Io { core: format!("keys-{core}"), source });
    })
}

/// Waits for `count` messages, at most `patience` in all. True if they came.
fn wait_for(messages: &Receiver<()>, count: usize, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    (0..count).all(|_| messages.recv_deadline(end).is_ok())
}

fn check_names<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), StartError> {
    let mut seen = std::collections::HashMap::new();
    for name in names {
        if let Some(first) = seen.insert(name_id(name), name) {
            return Err(StartError::Names { what, first: first.to_owned(), second: name.to_owned() });
        }
    }
    Ok(())
}

fn bind_all(config: &Config) -> Result<Vec<TcpListener>, StartError> {
    let address = config.listen.address;
    (0..config.cores.ingest.len())
        .map(|_| {
            listen::bind(address).map_err(|source| StartError::Bind {
                key: "listen.address",
                address,
                source,
            })
        })
        .collect()
}

/// Names by which this machine may be asked for its metrics, beside addresses and localhost.
fn own_names(config: &Config) -> Vec<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    vec![config.gateway.id.clone(), host.trim().to_owned()]
}

fn start_admin(config: &Config, state: &Arc<AdminState>, side: &Side) -> Result<(), StartError> {
    let address = config.admin.address;
    let failed = |source| StartError::Bind { key: "admin.address", address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let state = Arc::clone(state);
    side.handle().spawn(async move {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "admin listener"),
        };
        if let Err(error) = admin::serve(listener, state, std::future::pending()).await {
            tracing::error!(%error, "admin listener");
        }
    });
    Ok(())
}

fn views(store: &Store, published: &[Arc<Published>], archives: bool) -> Vec<JournalView> {
    store
        .journals
        .iter()
        .enumerate()
        .map(|(index, journal)| JournalView {
            id: journal.id,
            dir: journal.dir.clone(),
            mode: store.mode,
            spans: Arc::new(journal.recovered.spans.clone()),
            end: journal.end(),
            clean: store.clean,
            settled: Arc::new(journal.settled.clone()),
            published: published.get(index).cloned(),
            archived: Arc::new(if archives { Archived::not_yet() } else { Archived::never_asked() }),
            segments: Arc::new(journal.segments()),
        })
        .collect()
}

/// The account of what is still needed; the first `written` journals are those of the ingest cores.
fn freeing(store: &Store, views: &[JournalView], written: usize) -> Freeing<Local> {
    let starts = store.journals.iter().enumerate().map(|(at, journal)| journal.start(at < written));
    let place = |view: &JournalView| Place {
        dir: view.dir.clone(),
        segments: Arc::clone(&view.segments),
        archived: Arc::clone(&view.archived),
    };
    let account = Account::new(starts.collect());
    Freeing::new(Local { mode: store.mode }, store.root(), account, views.iter().map(place).collect())
}

/// The ingest core that writes a journal takes its marks; those that nobody writes are dealt out.
fn targets(store: &Store, marks: &[(settle::MarkOutlet, Receiver<settle::MarkBatch>)]) -> Vec<Target> {
    let target = |(index, journal): (usize, &FoundJournal)| Target {
        journal: journal.id,
        outlet: marks[index % marks.len()].0.clone(),
    };
    store.journals.iter().enumerate().map(target).collect()
}

fn seed(journal: &mut FoundJournal, config: &Config, mode: OpenMode) -> Result<Seed, StartError> {
    let last = journal.recovered.spans.last();
    Ok(Seed {
        id: journal.id,
        dir: journal.dir.clone(),
        next_frame: journal.recovered.next_frame,
        next_lsn: journal.recovered.next_lsn,
        chain: journal.recovered.chain,
        last_segment: journal.last_segment(),
        last_end: last.map_or(0, |s| s.end),
        spares: journal.spares(config.journal.segment, mode)?,
        damage: journal.new_damage.clone(),
        mode,
        segment_bytes: config.journal.segment,
        commit_delay: config.journal.commit_delay,
    })
}

fn random_seed() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Sends that nobody waits for any more are dropped: the process is ending.
fn tell<T>(to: &Sender<T>, message: T) {
    to.send(message).ok();
}
