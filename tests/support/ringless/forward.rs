//! A forwarding core without its ring: the shipped feed, regions, workers and settling, towards regions that take
//! everything at once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use monoio_http::common::request::RequestHead;
use penstock::config::Config;
use penstock::dead::keeper::Keeper as LetterKeeper;
use penstock::dead::{self, Graves, Way};
use penstock::dedupe::{Inbox, Keeper, Seen};
use penstock::entry::name_id;
use penstock::forward::attempt::{self, Attempts, Hand, RegionDesk, SourceDesk};
use penstock::forward::client::{Attempt, Outcome};
use penstock::forward::feed::Feed;
use penstock::forward::region::{Region, Settings};
use penstock::forward::settle::{Marks, Settler};
use penstock::forward::sift::Sieve;
use penstock::forward::told::Told;
use penstock::forward::{envelopes, rules};
use penstock::handoff::{Inlet, Limits};
use penstock::journal::Position;
use penstock::journal::buffer::BufferPool;
use penstock::journal::floor::Floor;
use penstock::journal::read::{Blocks, RecordReader};
use penstock::journal::segments::Segments;
use penstock::journal::spare::OpenMode;
use penstock::journal::view::{Archived, JournalView, Published};
use penstock::metrics::{ForwardCells, RegionCells};
use penstock::verify::Verifier;
use penstock::wake::Notify;

/// Events that a core knows which runs for a while: a table that holds little grows with each one.
const REMEMBERED: u64 = 60_000;

/// A region that takes what comes.
struct Taker;

impl Hand for Taker {
    async fn send(&self, head: &mut RequestHead, body: Bytes, start: Instant) -> (Attempt, Instant) {
        std::hint::black_box((head, body));
        let outcome = Outcome::Answered { status: 200, retry_after: None };
        (Attempt { outcome, sent_bytes: true, opened: 0 }, start)
    }
}

/// Nothing is read back: what waits keeps its bytes.
struct Nothing;

impl Blocks for Nothing {
    fn exists(&self, _segment: u64) -> bool {
        false
    }

    async fn read(&self, _segment: u64, _at: u64, _len: usize) -> io::Result<Bytes> {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }

    async fn list(&self, _segment: u64) -> io::Result<Vec<u8>> {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Workers in the order in which they came.
#[derive(Default)]
struct Tasks {
    spawned: RefCell<Vec<Task>>,
    tasks: RefCell<Vec<(Arc<Flag>, Waker, Task)>>,
}

impl Tasks {
    /// Until all of them wait.
    fn run(&self) {
        let mut tasks = self.tasks.borrow_mut();
        loop {
            for task in self.spawned.borrow_mut().drain(..) {
                let flag = Arc::new(Flag(AtomicBool::new(true)));
                tasks.push((Arc::clone(&flag), Waker::from(flag), task));
            }
            let mut any = false;
            for (flag, waker, task) in tasks.iter_mut() {
                if flag.0.swap(false, Relaxed) {
                    any = true;
                    assert!(task.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
                }
            }
            if !any && self.spawned.borrow().is_empty() {
                return;
            }
        }
    }
}

pub struct Forwarding {
    feed: Feed,
    sieve: Rc<Sieve>,
    settler: Rc<Settler>,
    regions: Vec<Rc<Region>>,
    inbox: Inbox<Marks>,
    tasks: Rc<Tasks>,
    cells: Arc<ForwardCells>,
    _letters: (LetterKeeper, tempfile::TempDir),
}

impl Forwarding {
    /// The core that owns all regions.
    pub fn new(config: &Config, published: &Arc<Published>, held: &Arc<AtomicUsize>) -> Self {
        let cells = Arc::new(ForwardCells {
            regions: config.regions.iter().map(|_| RegionCells::default()).collect(),
            ..ForwardCells::default()
        });
        let view = JournalView {
            id: [1; 16],
            dir: "/nowhere".into(),
            mode: OpenMode::Direct,
            spans: Arc::default(),
            end: Position::default(),
            clean: true,
            settled: Arc::default(),
            published: Some(Arc::clone(published)),
            archived: Arc::new(Archived::never_asked()),
            segments: Arc::new(Segments::new(Floor::default())),
        };
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let way = |region: &penstock::config::Region| Way {
            id: name_id(&region.name),
            name: region.name.clone(),
            core: 0,
        };
        let start = dead::Start {
            graves: Graves::open(folder.path(), false).unwrap_or_else(|error| panic!("{error}")),
            regions: config.regions.iter().map(way).collect(),
            forward_cores: 1,
            unsettled: &|_, _, _| false,
            cells: Arc::default(),
        };
        let letters = LetterKeeper::new(start, Instant::now());
        let (letters, desks, _) = letters.unwrap_or_else(|error| panic!("{error}"));
        let desk = desks[0].clone();
        let mut seen = Seen::new(Duration::from_secs(3600), 32 << 20, 0x9e37_79b9_7f4a_7c15);
        for n in 0..REMEMBERED {
            let key = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
            seen.claim(0, &key, 0);
        }
        let (keeper, inbox) = Keeper::pair(0);
        let settler = Rc::new(Settler::new(keeper, 1, 0, Arc::clone(&cells)));
        let sieve = Rc::new(Sieve::new(seen, Instant::now(), Arc::clone(&cells)));
        let region_desk = |index| {
            let envelopes = envelopes(config, index).unwrap_or_else(|error| panic!("{error}"));
            Some(RegionDesk { client: Taker, envelopes, is_default: index == config.default_region })
        };
        let attempts = Rc::new(Attempts {
            sources: config
                .sources
                .iter()
                .map(|source| SourceDesk { id: name_id(&source.name), verifier: Verifier::new(source) })
                .collect(),
            regions: (0..config.regions.len()).map(region_desk).collect(),
            records: vec![RecordReader::over(Nothing)],
            journals: vec![(view.id, view.end)],
            settler: Rc::clone(&settler),
            dead: desk.clone(),
            cells: Arc::clone(&cells),
            cutter: RefCell::default(),
            parser: RefCell::default(),
            values: RefCell::new(BytesMut::new()),
            told: Told::default(),
            watch: Rc::default(),
        });
        let (tasks, room) = (Rc::new(Tasks::default()), Rc::new(Notify::default()));
        let limits = Limits::default();
        let region = |(index, region): (usize, &penstock::config::Region)| {
            let (workers, tasks) = (Rc::clone(&attempts), Rc::clone(&tasks));
            Region::new(
                Settings {
                    index,
                    id: name_id(&region.name),
                    name: region.name.clone(),
                    rules: rules(region, limits),
                    held_bytes: limits.held_bytes,
                    seed: 1,
                    clock: Instant::now,
                },
                Rc::clone(&room),
                Arc::clone(held),
                Arc::clone(&cells),
                move |region| {
                    let worker = attempt::worker(Rc::clone(&workers), region);
                    tasks.spawned.borrow_mut().push(Box::pin(worker));
                },
            )
        };
        let regions: Vec<_> = config.regions.iter().enumerate().map(region).collect();
        let by_id: HashMap<_, _> =
            regions.iter().map(|region| (region.id, Some(Rc::clone(region)))).collect();
        let pool = BufferPool::new(2, Arc::clone(held));
        let about = (Rc::clone(&sieve), Rc::clone(&settler), desk);
        let feed = Feed::new(vec![view], by_id, None, about, Rc::default(), pool, room);
        // Nothing waits in the journal.
        regions.iter().for_each(|region| region.caught_up());
        Self { feed, sieve, settler, regions, inbox, tasks, cells, _letters: (letters, folder) }
    }

    /// Takes what was handed over, and all that follows from it.
    pub fn turn(&self, inlet: &Inlet) {
        self.feed.look(inlet);
        self.tasks.run();
    }

    /// What is done every few tens of milliseconds, and what the key log's thread does then.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.regions.iter().for_each(|region| region.tick(now, None));
        self.settler.tell(self.sieve.tick(now));
        self.feed.hold();
        self.settler.flush();
        self.inbox.take();
        std::hint::black_box(self.inbox.blocks());
        self.inbox.written();
        self.inbox.go_on(|_| true);
    }

    /// Parcels that the regions took.
    pub fn delivered(&self) -> u64 {
        self.cells.regions.iter().map(|cells| cells.delivered.get()).sum()
    }
}
