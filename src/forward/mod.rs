//! The life of a parcel, after the journal.
//!
//! ```text
//! feed     entries of this core's regions: from the channel, or from the journals after a start, an
//!          overflow or an outage
//! sift     what of it is new; repeats are dropped, and settled with a mark
//! region   the window: lanes per conversation, workers, what is due again, is the region down
//! attempt  read back if need be > parcel (whole, or cut and signed) > envelope > client > verdict
//! bury     given up: a dead letter first, then settled; and what comes back from there
//! settle   its keys to the key log, then a mark to the journal the entry came from
//! ```
//!
//! # Invariants
//!
//! - A region is owned by one core: its order and its health need no lock.
//! - A parcel starts when it is at the head of all its conversations, and leaves them when it is
//!   settled; nothing else decides about order.
//! - What is in memory is bounded per region; everything else waits in the journal.
//! - A parcel is settled only by the region's 2xx, or because the region has everything in it already.
//! - A parcel is sifted once and before it joins its lanes, in the order of its conversations: of two that say
//!   the same the first is delivered.
//! - A region that works off a backlog shares itself between that and what comes now (`lag`, `lane`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::config::{self, Config};
use crate::dead::Desk;
use crate::deadline::{Deadlines, SWEEP_EVERY};
use crate::dedupe::{Folder, FolderError, Keeper, Seen, keeper};
use crate::entry::name_id;
use crate::fault;
use crate::handling::Watch;
use crate::handoff::{Inlet, Limits};
use crate::journal::buffer::BufferPool;
use crate::journal::read::RecordReader;
use crate::journal::spare::is_full;
use crate::journal::view::JournalView;
use crate::metrics::ForwardCells;
use crate::overload::{Frugal, GiveWay, Terms};
use crate::side;
use crate::verify::Verifier;
use crate::wake::{Bell, Doorbell, Notify, Yield};

pub mod attempt;
pub mod book;
pub mod breaker;
pub mod budget;
pub mod bury;
pub mod client;
pub mod envelope;
pub mod feed;
pub mod item;
pub mod lag;
pub mod lane;
pub mod parts;
pub mod poison;
pub mod ramp;
pub mod region;
pub mod retry;
pub mod settle;
pub mod sift;
pub mod slab;
pub mod told;
pub mod waits;

use attempt::{Attempts, RegionDesk, SourceDesk};
use book::Rules;
use client::Client;
use envelope::{Envelope, EnvelopeError};
use feed::Feed;
use region::Region;
use settle::{Marks, Settler, Target};
use sift::Sieve;
use told::Told;

/// What a core has while it gives way.
const GIVING_WAY: Terms = Terms { part: 0.1, debt: 0.02, at_least: Duration::from_secs(1) };
/// Tries that begin at once then: alone each would wake it several times.
const BURST: usize = 64;
/// How often due retries are looked for and marks are sent.
const TICK: Duration = Duration::from_millis(20);
/// Keys wait at most this long for their sync, within the 100 ms of repeats that a crash may cost.
const FLUSH_TICKS: u32 = 2;
/// For the last keys to be durable at a stop.
pub const LAST_KEYS: Duration = Duration::from_millis(400);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Idle connections are looked at once a second.
const REAP_TICKS: u32 = 50;

/// What a forwarding core is started with.
pub struct Setup {
    pub config: Arc<Config>,
    /// Indices of the regions that this core owns.
    pub owned: Vec<usize>,
    pub inlet: Inlet,
    pub doorbell: Doorbell,
    pub journals: Vec<JournalView>,
    /// Where the marks of each journal go.
    pub marks: Vec<Target>,
    pub cells: Arc<ForwardCells>,
    pub held: Arc<AtomicUsize>,
    pub give_way: Arc<GiveWay>,
    pub side: side::Handle,
    pub limits: Limits,
    /// For the jitter of retries.
    pub seed: u64,
    pub keys: Keys,
    pub dead: Desk,
    pub watch: Watch,
}

/// What a core needs to find repeats.
pub struct Keys {
    /// Number of the core.
    pub core: usize,
    pub folder: Folder,
    /// The journals hold parcels that were settled, so the key log should know something.
    pub expected: bool,
    /// Most bytes in memory.
    pub memory: usize,
    /// Random.
    pub mixer: u128,
    /// The key log could not be written.
    pub failed: Box<dyn FnOnce(io::Error) + Send>,
}

/// Envelopes of every source to every region; made once at the start, so that an error is one of the
/// configuration.
pub fn envelopes(config: &Config, region: usize) -> Result<Vec<Envelope>, EnvelopeError> {
    let region = &config.regions[region];
    config.sources.iter().map(|s| Envelope::new(&config.gateway.id, &s.name, region)).collect()
}

pub fn rules(region: &config::Region, limits: Limits) -> Rules {
    Rules {
        in_flight: region.in_flight,
        timeout: region.timeout,
        rate: region.rate,
        retry: region.retry,
        window: limits.window,
        kept: limits.kept,
    }
}

/// A forwarding core at work.
pub struct Forwarder {
    feed: Rc<Feed>,
    sieve: Rc<Sieve>,
    regions: Vec<Rc<Region>>,
    attempts: Rc<Attempts>,
    inlet: Inlet,
    bell: Bell,
    give_way: Arc<GiveWay>,
}

impl Forwarder {
    /// Call on the core's own thread.
    pub fn new(setup: Setup) -> io::Result<Self> {
        let Setup {
            config,
            owned,
            inlet,
            doorbell,
            journals,
            marks,
            cells,
            held,
            give_way,
            side,
            limits,
            seed,
            keys,
            dead,
            watch,
        } = setup;
        let watch = Rc::new(watch);
        let (sieve, settler) = remember(keys, &config, &owned, marks, &cells)?;
        let deadlines = Rc::new(Deadlines::default());
        let pool = BufferPool::new(4, Arc::clone(&held));
        let mut desks = Vec::new();
        for (index, region) in config.regions.iter().enumerate() {
            desks.push(if owned.contains(&index) {
                let envelopes = envelopes(&config, index).map_err(io::Error::other)?;
                let client = Client::new(region, Rc::clone(&deadlines));
                Some(RegionDesk { client, envelopes, is_default: index == config.default_region })
            } else {
                None
            });
        }
        let sources = config
            .sources
            .iter()
            .map(|s| SourceDesk { id: name_id(&s.name), verifier: Verifier::new(s) })
            .collect();
        let attempts = Rc::new(Attempts {
            sources,
            regions: desks,
            records: journals
                .iter()
                .map(|j| RecordReader::new(j.dir.clone(), j.mode, pool.clone()))
                .collect(),
            journals: journals.iter().map(|j| (j.id, j.end)).collect(),
            settler: Rc::clone(&settler),
            dead: dead.clone(),
            watch: Rc::clone(&watch),
            cells: Arc::clone(&cells),
            cutter: RefCell::default(),
            parser: RefCell::default(),
            values: RefCell::new(BytesMut::new()),
            told: Told::default(),
        });
        let room = Rc::new(Notify::default());
        let mut by_id: HashMap<u32, Option<Rc<Region>>> =
            config.regions.iter().map(|r| (name_id(&r.name), None)).collect();
        let mut regions = Vec::new();
        for &index in &owned {
            let id = name_id(&config.regions[index].name);
            let workers = Rc::clone(&attempts);
            let region = Region::new(
                region::Settings {
                    index,
                    id,
                    name: config.regions[index].name.clone(),
                    rules: rules(&config.regions[index], limits),
                    held_bytes: limits.held_bytes,
                    seed: seed ^ u64::from(id),
                    clock: Instant::now,
                },
                Rc::clone(&room),
                Arc::clone(&held),
                Arc::clone(&cells),
                move |region| {
                    monoio::spawn(attempt::worker(Rc::clone(&workers), region));
                },
            );
            dead.gaps(id).for_each(|(conversation, gap)| region.gap(conversation, gap));
            by_id.insert(id, Some(Rc::clone(&region)));
            regions.push(region);
        }
        let orphans = regions.iter().find(|r| r.index == config.default_region).cloned();
        let memory = (Rc::clone(&sieve), settler, dead);
        let feed = Rc::new(Feed::new(journals, by_id, orphans, memory, watch, pool, room));
        for region in &regions {
            monoio::spawn(resolve(Rc::clone(&attempts), region.index, Arc::clone(&config), side.clone()));
        }
        monoio::spawn(async move {
            loop {
                monoio::time::sleep(SWEEP_EVERY).await;
                deadlines.sweep(Instant::now());
            }
        });
        let bell = Bell::new(&doorbell)?;
        Ok(Self { feed, sieve, regions, attempts, inlet, bell, give_way })
    }

    /// Runs until `stopping` says so; the doorbell must be rung for it to be looked at. Then finishes
    /// what is under way, for at most `grace`, and what is settled, for at most [`LAST_KEYS`]. True if nothing was left
    /// under way or unmarked.
    pub async fn run(self, stopping: impl Fn() -> bool + 'static, grace: Duration) -> io::Result<bool> {
        let Self { feed, sieve, regions, attempts, inlet, bell, give_way } = self;
        let stopping = Rc::new(stopping);
        {
            let (feed, regions, attempts) = (Rc::clone(&feed), regions.clone(), Rc::clone(&attempts));
            let frugal = Frugal::new(Arc::clone(&give_way), GIVING_WAY);
            monoio::spawn(async move { tick(&regions, &attempts, &sieve, &feed, frugal).await });
        }
        let catching_up = {
            let feed = Rc::clone(&feed);
            monoio::spawn(async move { feed.catch_up(feed.readers(), &Yield::new()?).await })
        };
        let aside = Yield::new()?;
        let stop = Rc::clone(&stopping);
        feed.live(&inlet, &bell, &aside, move || stop(), || give_way.is_asked()).await?;
        feed.stop();
        regions.iter().for_each(|r| r.stop());
        catching_up.await?;
        let end = Instant::now() + grace;
        while regions.iter().any(|r| r.busy() > 0) && Instant::now() < end {
            monoio::time::sleep(TICK).await;
        }
        let end = Instant::now() + LAST_KEYS;
        attempts.settler.flush();
        while !(attempts.settler.idle() && attempts.dead.idle()) && Instant::now() < end {
            monoio::time::sleep(LOOK_AGAIN).await;
            attempts.settler.flush();
        }
        // What waits and may have been delivered must still say so after the next start.
        let certain = regions.iter().all(|r| r.busy() == 0 && !r.uncertain());
        Ok(attempts.settler.idle() && certain && !feed.in_doubt())
    }
}

/// Reads the key log and starts its thread.
fn remember(
    keys: Keys,
    config: &Config,
    owned: &[usize],
    targets: Vec<Target>,
    cells: &Arc<ForwardCells>,
) -> io::Result<(Rc<Sieve>, Rc<Settler>)> {
    let Keys { core, folder, expected, memory, mixer, failed } = keys;
    let mut seen = Seen::new(config.dedupe.window, memory, mixer);
    let ids: Vec<u32> = owned.iter().map(|region| name_id(&config.regions[*region].name)).collect();
    let start = Instant::now();
    let loaded =
        folder.load(&mut seen, |region| ids.contains(&region), expected).map_err(io::Error::other)?;
    fault::point("keys-loaded");
    if loaded.records > 0 {
        tracing::info!(core, keys = seen.keys(), took = ?start.elapsed(), "key log read");
    }
    if expected && loaded.files.is_empty() {
        tracing::warn!(
            core,
            "there is a journal and no key log: events of before may be delivered once more, and new parcels say so for dedupe.window"
        );
    }
    if core == 0 {
        cells.key_log_damaged_bytes.add(loaded.damaged);
        match folder.keep(&loaded.memory) {
            Err(FolderError::Io { what, path, source }) if is_full(&source) => {
                tracing::warn!(folder = %path.display(), "no space to {what} the folder of the key log: a start after the next one may not know that keys are missing");
            }
            kept => kept.map_err(io::Error::other)?,
        }
    }
    let (now, journals) = (seen.now(), targets.len());
    let keeper = {
        let cells = Arc::clone(cells);
        let passing = Arc::clone(&cells);
        let go_on = move |marks: &mut Marks| settle::pass_on(&targets, marks, &passing);
        Keeper::start(keeper::Start {
            core,
            folder,
            inherited: loaded.files,
            now,
            cells,
            go_on: Box::new(go_on),
            failed,
        })?
    };
    let settler = Settler::new(keeper, journals, now, Arc::clone(cells));
    Ok((Rc::new(Sieve::new(seen, Instant::now(), Arc::clone(cells))), Rc::new(settler)))
}

async fn tick(regions: &[Rc<Region>], attempts: &Attempts, sieve: &Sieve, feed: &Feed, mut frugal: Frugal) {
    let burst = (BURST / regions.len().max(1)).max(1);
    for count in 1u32.. {
        monoio::time::sleep(TICK).await;
        let now = Instant::now();
        let allowed = frugal.look().map(|may| if may { burst } else { 0 });
        regions.iter().for_each(|r| r.tick(now, allowed));
        attempts.settler.tell(sieve.tick(now));
        feed.hold();
        bury::bring_back(attempts, regions);
        if count % FLUSH_TICKS == 0 {
            attempts.settler.flush();
        }
        if count % REAP_TICKS == 0 {
            attempts.regions.iter().flatten().for_each(|desk| desk.client.reap(now));
            feed.look_again();
        }
    }
}

/// Keeps a region's addresses fresh. Names are resolved on the side thread, never here.
async fn resolve(attempts: Rc<Attempts>, index: usize, config: Arc<Config>, side: side::Handle) {
    let endpoint = &config.regions[index].endpoint;
    let Some(desk) = attempts.regions.get(index).and_then(Option::as_ref) else { return };
    if endpoint.host.parse::<std::net::IpAddr>().is_ok() {
        return;
    }
    let mut last_good = Instant::now();
    loop {
        let (answer, wait) = tokio::sync::oneshot::channel();
        side.resolve(endpoint.host.clone(), endpoint.port, move |result| {
            // The core stopped meanwhile.
            answer.send(result).ok();
        });
        match wait.await {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                last_good = Instant::now();
                desk.client.set_address(addresses);
            }
            Ok(result) => {
                if attempts.told.is_due(index, "name", Instant::now()) {
                    let error = result.err().map_or_else(|| "no address".to_owned(), |e| e.to_string());
                    tracing::warn!(region = %config.regions[index].name, host = %endpoint.host, %error, "cannot resolve the endpoint's name");
                }
                if last_good.elapsed() >= side::KEEP_FOR {
                    desk.client.set_address(Vec::new());
                }
            }
            Err(_) => return,
        }
        monoio::time::sleep(side::ASK_EVERY).await;
    }
}
