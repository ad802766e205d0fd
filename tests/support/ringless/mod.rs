//! An ingest core without its ring, for whoever counts what a webhook costs it: the shipped intake, journal and
//! hand-over on a disk that takes everything at once, and the question about repeats that a forwarding core asks.
//! No socket, no system call but clocks, no thread: what is counted is the gateway's own work.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;
use penstock::config::Config;
use penstock::dedupe::{Seen, Sighting};
use penstock::entry::Meta;
use penstock::handoff::{self, Handoff, Inlet};
use penstock::http1::{Limits, NO_HEADERS, Scan, parse_request};
use penstock::intake::{Ack, Intake};
use penstock::journal::Journal;
use penstock::journal::account::Wrote;
use penstock::journal::buffer::{AlignedBuf, BufferPool};
use penstock::journal::ground::Ground;
use penstock::journal::record::{self, Record};
use penstock::journal::spare::{OpenMode, Order, Spare};
use penstock::journal::view::Published;
use penstock::journal::writer::Seed;
use penstock::listen::encode::{Date, date, encode};
use penstock::listen::{Answer, Handler};
use penstock::metrics::{Counter, IngestCells, SourceCells};
use penstock::overload::Guard;
use penstock::verify::Verifier;
use penstock::wake::{Doorbell, Notify};

pub mod forward;

const LIMITS: Limits = Limits { head: 16 << 10, body: 4 << 20 };
const SEGMENT: u64 = 64 << 20;
/// More than the policy ever lets the oldest webhook of a batch wait.
const LATER: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3600);

/// What the requests of [`request`] are signed with.
pub const SECRET: &str = "sample-app-secret";

/// Two regions that share the load generator's users in halves.
const CONFIG: &str = r#"
    [[source]]
    name = "main"
    secrets = ["sample-app-secret"]
    verify_tokens = ["token"]
    [[region]]
    name = "east"
    endpoint = "http://10.0.0.1:8080/in"
    prefixes = ["91", "1", "52", "44"]
    [[region]]
    name = "west"
    endpoint = "http://10.0.0.2:8080/in"
    prefixes = ["55", "62", "49", "234"]
    [routing]
    default = "east"
"#;

pub fn config() -> Config {
    Config::from_toml(CONFIG, Path::new("/tmp")).unwrap_or_else(|invalid| panic!("{invalid}")).0
}

/// A webhook as the provider posts it.
pub fn request(config: &Config, body: &[u8]) -> Vec<u8> {
    let source = &config.sources[0];
    let signature = Verifier::new(source).sign(body);
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: hooks.example.com\r\nAccept: */*\r\nAccept-Encoding: deflate, gzip\r\n\
         User-Agent: facebookexternalua\r\nContent-Type: application/json\r\n\
         X-Hub-Signature: sha1=7d38cdd689735b008b3c702edd92eea23791c5f6\r\n\
         X-Hub-Signature-256: {}\r\nContent-Length: {}\r\n\r\n",
        source.path,
        String::from_utf8_lossy(&signature),
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Texts of that many users, one each, that were never there before: a round number tells which they are.
pub fn texts(config: &Config, users: usize, round: usize) -> Vec<Vec<u8>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads/text.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}"));
    let Some(id) = text.find("wamid.").map(|at| &text[at..at + 20]) else { panic!("no id in {text}") };
    let of = |user: usize| {
        let body = text.replace(id, &format!("wamid.{round:06}{user:08}"));
        request(config, body.replace("919876500001", &format!("9198{user:08}")).as_bytes())
    };
    (0..users).map(of).collect()
}

/// A disk that has everything at once, and a clock that goes on when told to.
#[derive(Clone)]
pub struct Bare {
    now: Rc<Cell<Instant>>,
    /// Of the writer, once it has asked for a timer.
    timer: Rc<Cell<Option<Rc<Notify>>>>,
}

impl Ground for Bare {
    type Raw = ();
    type File = ();
    type Timer = ();

    fn open(&self, (): ()) -> io::Result<()> {
        Ok(())
    }

    async fn write(&self, (): &(), buf: AlignedBuf, _offset: u64) -> (io::Result<usize>, AlignedBuf) {
        (Ok(buf.len()), buf)
    }

    async fn sync(&self, (): &()) -> io::Result<()> {
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now.get()
    }

    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
    }

    fn draw(&self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(7);
        Ok(())
    }

    fn timer(&self, target: Rc<Notify>) -> io::Result<()> {
        self.timer.set(Some(target));
        Ok(())
    }

    fn arm(&self, (): &(), _after: Duration) -> io::Result<()> {
        Ok(())
    }
}

/// The core, and the end of the hand-over that belongs to another one.
pub struct Core {
    ground: Bare,
    timer: Option<Rc<Notify>>,
    intake: Intake<Bare>,
    writer: Pin<Box<dyn Future<Output = io::Result<()>>>>,
    orders: Receiver<Order<()>>,
    wrote: Receiver<Wrote>,
    pub inlet: Inlet,
    pub published: Arc<Published>,
    /// Bytes that the other end holds.
    pub held: Arc<AtomicUsize>,
    tickets: Vec<Ack<Bare>>,
    peer: SocketAddr,
    date: Date,
    answers: Vec<u8>,
    seen: Seen,
    /// New events and repeats.
    pub sighted: [u64; 2],
}

impl Core {
    pub fn new(config: &Config) -> Self {
        let cells = Arc::new(IngestCells {
            sources: vec![SourceCells::default()],
            parcels: config.regions.iter().map(|_| Counter::default()).collect(),
            ..IngestCells::default()
        });
        let ground = Bare { now: Rc::new(Cell::new(Instant::now())), timer: Rc::default() };
        let seed = Seed {
            id: [1; 16],
            dir: "/nowhere".into(),
            next_frame: 1,
            next_lsn: 1,
            chain: [0; 16],
            last_segment: 0,
            last_end: 0,
            spares: [1, 2, 3].map(|number| Spare { number, file: () }).into(),
            damage: vec![],
            mode: OpenMode::Direct,
            segment_bytes: SEGMENT,
            commit_delay: Duration::from_millis(2),
        };
        let (order, orders) = crossbeam_channel::unbounded();
        let (write, wrote) = crossbeam_channel::unbounded();
        let held = Arc::new(AtomicUsize::new(0));
        let pool = BufferPool::new(8, Arc::clone(&held));
        let journal = Journal::on(ground.clone(), seed, order, write, pool, Arc::clone(&cells));
        let doorbell = Doorbell::new().unwrap_or_else(|error| panic!("{error}"));
        let limits = handoff::Limits::default();
        let (outlet, inlet) = handoff::channel(doorbell, limits);
        let published = Arc::new(Published::default());
        let handoff = Handoff::new(
            0,
            Arc::clone(&published),
            vec![outlet],
            Arc::clone(&held),
            limits,
            Arc::clone(&cells),
        );
        let writer = Rc::clone(&journal).run(move |committed| handoff.committed(committed));
        let owners = vec![0; config.regions.len()];
        let mut core = Self {
            ground,
            timer: None,
            intake: Intake::new(
                config,
                &owners,
                journal,
                Guard::new(Arc::default()),
                Arc::new(AtomicU64::new(1)),
                cells,
            ),
            writer: Box::pin(writer),
            orders,
            wrote,
            inlet,
            published,
            held,
            tickets: Vec::new(),
            peer: SocketAddr::from(([192, 0, 2, 7], 4711)),
            date: date(SystemTime::UNIX_EPOCH),
            answers: Vec::new(),
            seen: Seen::new(WINDOW, 1 << 30, 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            sighted: [0; 2],
        };
        core.write();
        core.timer = core.ground.timer.take();
        core
    }

    /// From the head to the place in the frame.
    pub fn take(&mut self, request: &[u8]) {
        let mut headers = NO_HEADERS;
        let parsed = parse_request(request, &mut headers, &mut Scan::default(), LIMITS);
        let Ok(Some((head, used))) = parsed else { panic!("no whole head: {parsed:?}") };
        let Ok(pass) = self.intake.admit(&head, self.peer) else { panic!("not admitted") };
        match self.intake.accept(pass, &head, self.peer, &request[used..]) {
            Answer::Later(mut ticket) => {
                // As the connection does, which then waits.
                assert!(poll(&mut ticket).is_pending());
                self.tickets.push(ticket);
            }
            Answer::Now(reply) => panic!("answered with {}", reply.status),
        }
    }

    /// From the frame to the answers, of all that was taken since the last time.
    pub fn commit(&mut self) {
        self.ground.now.set(self.ground.now.get() + LATER);
        self.timer.iter().for_each(|timer| timer.notify());
        self.write();
        self.answers.clear();
        for mut ticket in self.tickets.drain(..) {
            let Poll::Ready(reply) = poll(&mut ticket) else { panic!("not durable") };
            assert_eq!(reply.status, 200);
            encode(&mut self.answers, &reply, &self.date, false, false);
        }
        std::hint::black_box(&self.answers);
        // Where another thread makes segments and frees them.
        for order in self.orders.try_iter() {
            order.reply.send(Spare { number: order.number, file: () }).ok();
        }
        self.wrote.try_iter().for_each(drop);
    }

    /// Asks about every event that was handed over, as the forwarding core does.
    pub fn sift(&mut self) {
        while let Some(handed) = self.inlet.try_recv() {
            for at in &handed.entries {
                let bytes = &handed.frame[at.offset as usize..][..at.len as usize];
                let Ok((Record::Entry(entry), _)) = record::read_known(bytes) else { continue };
                let Ok(meta) = Meta::read(entry.meta) else { continue };
                for event in meta.events() {
                    let sighting = self.seen.claim(u32::from(event.slot), &event.key, event.value);
                    self.sighted[usize::from(sighting != Sighting::New)] += 1;
                }
            }
        }
    }

    /// Leaves what was handed over to others.
    pub fn drop_handed(&mut self) {
        while self.inlet.try_recv().is_some() {}
    }

    /// The window passes: nothing that comes is a repeat of what came.
    pub fn forget(&mut self) {
        self.seen.pass(2 * WINDOW.as_secs() as u32 / 60);
    }

    fn write(&mut self) {
        let written = self.writer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(written.is_pending(), "the writer ended: {written:?}");
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
