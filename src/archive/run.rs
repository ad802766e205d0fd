//! The archiver's thread: reads the journals as far as they are durable, in turns, and stops in time. And the threads of
//! the shippers, one for each region that archives.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::archiver::{Archiver, Read};
use super::bucket::{Bucket, Driver, Options};
use super::chain::{Chain, Signer};
use super::disk::Os;
use super::folder::Folder;
use super::heads::{self, Published};
use super::shelf::Shelf;
use super::shipper::{Dock, Shipper, dock};
use super::store::Store;
use crossbeam_channel::Sender;

use crate::config::{ArchivePlace, Config, Region};
use crate::handling::Watch;
use crate::journal::Position;
use crate::journal::buffer::BufferPool;
use crate::journal::read::JournalReader;
use crate::journal::store::hex;
use crate::journal::view::JournalView;
use crate::metrics::archive::ArchiveCells;
use crate::overload::{Frugal, GiveWay, Terms};

/// How often it is looked whether there is something to do.
const LOOK: Duration = Duration::from_millis(100);
/// And whether an object has arrived in its archive.
const ARRIVED: Duration = Duration::from_millis(20);
/// A journal with less than this unread waits, up to [`IDLE`]: a read is 256 KiB however little is new.
const WORTH: u64 = 1 << 20;
const IDLE: Duration = Duration::from_millis(500);
/// Bytes read from one place before another has its turn: a region that comes back after hours has
/// gigabytes to catch up with, and the others must not wait for that.
const SHARE: usize = 8 << 20;
/// While the archiver gives way to ingest it looks so often whether it may go on, or is to stop.
const REST: Duration = Duration::from_millis(100);
/// What it has then: much is read at a time, and nobody waits for an answer of it.
const GIVING_WAY: Terms = Terms { part: 0.05, debt: 0.25, at_least: Duration::from_secs(5) };
/// Pause after a journal could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// For what is durable to be read at a stop, and from then for what was closed to come into the archives.
const FINISH: Duration = Duration::from_millis(1000);
const SHIP: Duration = Duration::from_millis(900);
/// How often it is looked whether it did.
const SHIPPED: Duration = Duration::from_millis(5);
/// A shipper waits, and digests; what is deep in it is the object store's and has threads of its own.
const STACK: usize = 512 << 10;

/// What the archiver is started with.
pub struct Setup {
    pub config: Arc<Config>,
    pub journals: Vec<JournalView>,
    /// By region.
    pub cells: Arc<Vec<ArchiveCells>>,
    pub watch: Watch,
    pub give_way: Arc<GiveWay>,
}

/// Whether any region archives.
pub fn wanted(config: &Config) -> bool {
    config.regions.iter().any(|region| region.archive.is_some())
}

/// Notes that the archiver knows now what there is.
pub fn looked(config: &Config, cells: &[ArchiveCells]) {
    let now = unix_ms();
    let archived = config.regions.iter().zip(cells).filter(|(region, _)| region.archive.is_some());
    archived.for_each(|(_, cells)| cells.looked_ms.set(now));
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Runs until `stopping` says so; then reads what is durable, closes every object, waits for the archives to take them,
/// and returns, within about two seconds. What is left then is archived after the next start.
pub async fn run(setup: Setup, stopping: impl Fn() -> bool) -> io::Result<()> {
    let Setup { config, journals, cells, watch, give_way } = setup;
    let known = journals.iter().map(|view| (view.id, Arc::clone(&view.archived)));
    let own = journals.first().map(|view| hex(&view.id)).unwrap_or_default();
    let docks = ship(&config, &own, &cells)?;
    let mut archiver = Archiver::new(&Os, &config, known, Arc::clone(&cells), docks)?;
    archiver.watch = watch;
    // Frames are read and packed one after the other.
    let pool = BufferPool::new(1, Arc::default());
    let mut desks: Vec<Desk> = journals.into_iter().map(|view| Desk::new(view, &pool)).collect();
    let start = Instant::now();
    let now_ms = || start.elapsed().as_millis() as u64;
    let mut finish_by = None;
    let mut frugal = Frugal::new(give_way, GIVING_WAY);
    loop {
        if stopping() && finish_by.is_none() {
            finish_by = Some(Instant::now() + FINISH);
        }
        let mut read = false;
        for (journal, desk) in desks.iter_mut().enumerate() {
            let had = desk.turn(journal, &mut archiver, now_ms(), finish_by.is_some()).await;
            read |= had;
            // One that had nothing keeps nobody waiting.
            while had && finish_by.is_none() && !stopping() && frugal.look() == Some(false) {
                monoio::time::sleep(REST).await;
            }
        }
        let ends: Vec<Position> = desks.iter().map(|desk| desk.end).collect();
        if finish_by.is_some_and(|end| !read || Instant::now() > end) {
            archiver.finish(&ends, now_ms());
            let ship_by = Instant::now() + SHIP;
            while archiver.waits() && Instant::now() < ship_by {
                monoio::time::sleep(SHIPPED).await;
                archiver.tick(&ends, now_ms());
            }
            return Ok(());
        }
        archiver.tick(&ends, now_ms());
        if archiver.is_forsaken() {
            return Err(io::Error::other("a thread that puts objects into their archive has ended"));
        }
        looked(&config, &cells);
        if !read {
            // A strand that has as many objects on their way as it may goes on when one has arrived.
            monoio::time::sleep(if archiver.waits() { ARRIVED } else { LOOK }).await;
        }
    }
}

/// Starts the shippers. `own`: the id of a journal of this process, which no other has.
fn ship(config: &Config, own: &str, cells: &Arc<Vec<ArchiveCells>>) -> io::Result<Vec<Option<Dock>>> {
    let is_bucket = |region: &Region| matches!(region.archive, Some(ArchivePlace::Bucket(_)));
    let driver = config.regions.iter().any(is_bucket).then(Driver::start).transpose()?;
    let heads = config.archive.heads.clone().map(|place| publish(config, place, own, cells)).transpose()?;
    let start = |(at, region): (usize, &Region)| {
        let Some(place) = &region.archive else { return Ok(None) };
        let chain = config.archive.signing_key.clone().map(|key| {
            let (gateway, region) = (config.gateway.id.clone(), region.name.clone());
            let signer = Signer { key, gateway, region, place: place.identity(), clock: unix_ms };
            Chain::new(Os, &config.gateway.data_dir, signer)
        });
        let (dock, pier) = dock();
        let folder = heads::folder(&region.name, &config.gateway.id, &place.identity());
        let cells = (Arc::clone(cells), at);
        match (place, &driver) {
            (ArchivePlace::Bucket(place), Some(driver)) => {
                let store =
                    Bucket::open(place, Options::of(&config.archive), driver).map_err(io::Error::other)?;
                let store = store.counted(&cells.0[at].traffic);
                let shipper = Shipper::new(store, Os, chain, pier, cells, region.name.clone());
                spawn(&region.name, shipper.publishing(heads.clone(), folder))?;
            }
            (ArchivePlace::Folder(root), _) => {
                let store = Folder::new(Os, root.clone(), format!("{}-{own}", config.gateway.id));
                let shipper = Shipper::new(store, Os, chain, pier, cells, region.name.clone());
                spawn(&region.name, shipper.publishing(heads.clone(), folder))?;
            }
            (ArchivePlace::Bucket(_), None) => return Ok(None),
        }
        Ok(Some(dock))
    };
    config.regions.iter().enumerate().map(start).collect()
}

/// Starts whoever puts the newest links there.
fn publish(
    config: &Config,
    place: ArchivePlace,
    own: &str,
    cells: &Arc<Vec<ArchiveCells>>,
) -> io::Result<Sender<Published>> {
    let cells = Arc::clone(cells);
    match place {
        ArchivePlace::Bucket(place) => {
            let bucket = Bucket::open(&place, Options::of(&config.archive), &Driver::start()?);
            heads::start(bucket.map_err(io::Error::other)?, cells)
        }
        ArchivePlace::Folder(root) => {
            let own = format!("{}-heads-{own}", config.gateway.id);
            heads::start(Folder::new(Os, root, own), cells)
        }
    }
}

/// It ends when the archiver has, or with the process.
fn spawn<S: Store + Shelf + Send + 'static>(region: &str, shipper: Shipper<S, Os>) -> io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("ship-{region}")).stack_size(STACK);
    thread.spawn(move || shipper.run()).map(|_| ())
}

/// One journal and its reader.
struct Desk {
    view: JournalView,
    reader: JournalReader,
    dir: PathBuf,
    /// What is durable.
    end: Position,
    /// Counts turns, so that every place has its own.
    turns: usize,
    last_read: Option<Instant>,
    /// It could not be read: not before then.
    again: Option<Instant>,
}

impl Desk {
    fn new(view: JournalView, pool: &BufferPool) -> Self {
        let reader = JournalReader::new(&view, pool.clone());
        let (dir, end) = (view.dir.clone(), view.end);
        Self { view, reader, dir, end, turns: 0, last_read: None, again: None }
    }

    /// Reads a share from one of the places where strands stand. False if there was nothing to do.
    async fn turn(&mut self, journal: usize, archiver: &mut Archiver<Os>, now_ms: u64, hurry: bool) -> bool {
        self.end = self.view.published.as_ref().map_or(self.view.end, |published| published.durable());
        if self.again.is_some_and(|again| Instant::now() < again) {
            return false;
        }
        let places = archiver.places(journal, self.end, now_ms);
        let Some(first) = places.first() else { return false };
        if !hurry && !self.is_worth(*first) {
            return false;
        }
        self.last_read = Some(Instant::now());
        self.turns += 1;
        let at = places[self.turns % places.len()];
        match self.pass(journal, archiver, at, now_ms).await {
            Ok(read) => {
                if self.again.take().is_some() {
                    tracing::info!(journal = %self.dir.display(), "the archiver can read the journal again");
                }
                read
            }
            Err(error) => {
                archiver.unreadable(journal);
                if self.again.replace(Instant::now() + READ_AGAIN).is_none() {
                    tracing::error!(
                        journal = %self.dir.display(), %error,
                        "cannot read the journal to archive it; it is kept, and trying goes on"
                    );
                }
                false
            }
        }
    }

    fn is_worth(&self, from: Position) -> bool {
        from.segment() != self.end.segment()
            || self.end.offset() - from.offset().min(self.end.offset()) >= WORTH
            || self.last_read.is_none_or(|last| last.elapsed() >= IDLE)
    }

    /// True if there was a frame.
    async fn pass(
        &mut self,
        journal: usize,
        archiver: &mut Archiver<Os>,
        from: Position,
        now_ms: u64,
    ) -> Result<bool, Box<dyn std::error::Error>> {
        let (mut asked, mut bytes) = (from, 0);
        while bytes < SHARE {
            let Some(frame) = self.reader.frame(asked, self.end).await? else {
                archiver.pass_over(journal, asked, self.end);
                return Ok(bytes > 0);
            };
            let read = Read::of(asked, &frame);
            archiver.take(journal, &read, now_ms)?;
            bytes += frame.bytes.len();
            asked = frame.next;
        }
        Ok(true)
    }
}
