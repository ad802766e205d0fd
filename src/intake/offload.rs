//! Large webhooks: judged and encoded by a thread beside the cores, so that no other connection waits for it.
//!
//! ```text
//!  ingest core                                        offload thread
//!  accept_large > job (body by value) --------------> verify > parse > route > encode
//!  journal > ticket  <-- slot, number, doorbell <---- judged, entry in a frame buffer
//! ```
//!
//! One thread for all cores: what it is for comes seldom, and what it does on a CPU a core there lacks. Its queue has no
//! bound of its own: bodies in it count as memory of their listeners until they have their place in the journal.
//!
//! Invariants: only the core writes its journal and its counters. An entry comes into being when the ticket is asked
//! with the finding there: whole, or not at all if the ticket was dropped before. (A client that merely left has a
//! ticket still, as with any other webhook.) A panic here closes the webhook's connection and no other, as it does on
//! a core.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use crossbeam_channel::{Receiver, Sender};

use super::judge::{Arrival, Judge, Judged, Work};
use crate::config::Config;
use crate::entry::Verdict;
use crate::journal::Encoded;
use crate::listen::{Held, LargeBody};
use crate::metrics::KINDS;
use crate::verify::Refusal;
use crate::wake::{Bell, Doorbell};

/// Larger bodies are judged beside the cores: full of updates such a one takes its core a quarter of a millisecond.
/// Smaller ones are not worth the wait for a CPU that is free.
pub const LARGE: usize = 64 << 10;
/// Bytes of the longest body whose copy's memory is kept for the next one.
const KEEP: usize = 1 << 20;

/// Where large webhooks queue up.
pub type Queue = Sender<Job>;

/// A webhook to be judged.
pub struct Job {
    arrival: Arrival,
    signatures: Vec<Vec<u8>>,
    /// As kept.
    headers: Vec<u8>,
    body: LargeBody,
    reply: Reply,
}

/// What its core has to know of a webhook that was judged.
pub(super) struct Finding {
    pub(super) judged: Judged,
    pub(super) opaque: bool,
    /// Events by kind.
    pub(super) kinds: [u64; KINDS],
    /// Ids of its regions.
    pub(super) regions: Vec<u32>,
    pub(super) entry: Encoded,
    /// Of the entry, until it belongs to the journal.
    pub(super) _held: Held,
}

type Slot = OnceLock<Result<Box<Finding>, Refusal>>;

/// Tells the core, at the latest when it is dropped. Unfilled it says that the webhook could not be judged.
struct Reply {
    slot: Option<Arc<Slot>>,
    number: u64,
    told: Sender<u64>,
    doorbell: Doorbell,
}

impl Reply {
    /// Whether anybody waits for it.
    fn is_wanted(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| Arc::strong_count(slot) > 1)
    }

    fn send(self, finding: Result<Box<Finding>, Refusal>) {
        if let Some(slot) = &self.slot {
            // It was empty: this is its only writer.
            slot.set(finding).ok();
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // First: the core may look as soon as it is told, and takes what nobody else holds.
        self.slot = None;
        // Without a core the process is ending.
        self.told.send(self.number).ok();
        self.doorbell.ring();
    }
}

/// The thread's work: all of `jobs`, until nobody can give it more.
pub fn run(config: &Config, owners: &[u16], jobs: &Receiver<Job>) {
    let mut worker = Worker::new(config, owners);
    jobs.iter().for_each(|job| worker.handle(job));
}

struct Worker {
    judge: Judge,
    work: Work,
    /// The body in one piece.
    body: Vec<u8>,
}

impl Worker {
    fn new(config: &Config, owners: &[u16]) -> Self {
        Self { judge: Judge::new(config, owners), work: Work::default(), body: Vec::new() }
    }

    fn handle(&mut self, job: Job) {
        // The panic hook has told where; what it said may hold a user's data.
        if catch_unwind(AssertUnwindSafe(|| self.judge(job))).is_err() {
            self.work = Work::default();
        }
    }

    fn judge(&mut self, job: Job) {
        if !job.reply.is_wanted() {
            return;
        }
        let Self { judge, work, body } = self;
        body.clear();
        job.body.copy_to(body);
        let held = job.body.into_held();
        let signatures = job.signatures.iter().map(Vec::as_slice);
        let headers = |out: &mut Vec<u8>| out.extend_from_slice(&job.headers);
        let judged = judge.judge(job.arrival, signatures, headers, body, work);
        let finding = judged.map(|judged| Box::new(Finding::new(judged, &work.verdict, body, held)));
        body.shrink_to(KEEP);
        job.reply.send(finding);
    }
}

impl Finding {
    fn new(judged: Judged, verdict: &Verdict, body: &[u8], held: Held) -> Self {
        let mut kinds = [0; KINDS];
        verdict.events.iter().for_each(|event| kinds[usize::from(event.kind)] += 1);
        let slots = verdict.regions.len() as u16;
        let entry = Encoded::new(slots, verdict.encoded_len(), |out| verdict.write(out), body);
        let regions = verdict.regions.clone();
        Self { judged, opaque: verdict.opaque, kinds, regions, entry, _held: held }
    }
}

/// Where a core gives large webhooks away, and gets them back.
pub struct Post {
    queue: Queue,
    /// Numbers of those that were handled.
    told: Sender<u64>,
    handled: Receiver<u64>,
    doorbell: Doorbell,
    waiting: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
}

impl Post {
    pub fn new(queue: Queue) -> io::Result<Rc<Self>> {
        let (told, handled) = crossbeam_channel::unbounded();
        let doorbell = Doorbell::new()?;
        Ok(Rc::new(Self { queue, told, handled, doorbell, waiting: RefCell::default(), next: Cell::new(0) }))
    }

    /// Wakes who waits for what was handled. To be run as a task of the core.
    pub async fn run(self: Rc<Self>) -> io::Result<()> {
        let bell = Bell::new(&self.doorbell)?;
        loop {
            self.wake();
            bell.wait(|| self.handled.is_empty()).await?;
        }
    }

    fn wake(&self) {
        for number in self.handled.try_iter() {
            let waker = self.waiting.borrow_mut().remove(&number);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// `None`: nobody takes it any more.
    pub(super) fn send(
        self: &Rc<Self>,
        arrival: Arrival,
        signatures: Vec<Vec<u8>>,
        headers: Vec<u8>,
        body: LargeBody,
    ) -> Option<Offloaded> {
        let number = self.next.get();
        self.next.set(number + 1);
        let slot = Arc::new(Slot::new());
        let reply = Reply {
            slot: Some(Arc::clone(&slot)),
            number,
            told: self.told.clone(),
            doorbell: self.doorbell.clone(),
        };
        let job = Job { arrival, signatures, headers, body, reply };
        let post = Rc::clone(self);
        self.queue.send(job).ok().map(|()| Offloaded { slot, number, post })
    }
}

/// A webhook that is being judged. Dropping it says that nobody waits any more.
pub(super) struct Offloaded {
    slot: Arc<Slot>,
    number: u64,
    post: Rc<Post>,
}

impl Offloaded {
    /// Panics if judging it did, with what the panic hook has told already.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Finding>, Refusal>> {
        let Some(slot) = Arc::get_mut(&mut self.slot) else {
            self.post.waiting.borrow_mut().insert(self.number, cx.waker().clone());
            return Poll::Pending;
        };
        match slot.take() {
            Some(finding) => Poll::Ready(finding),
            None => resume_unwind(Box::new("a large webhook could not be judged")),
        }
    }
}

impl Drop for Offloaded {
    fn drop(&mut self) {
        self.post.waiting.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::journal::buffer::AlignedBuf;
    use crate::journal::frame::HEADER;
    use crate::journal::record;
    use crate::listen::{Patience, Shared};
    use crate::verify::Verifier;

    const CONFIG: &str = r#"
        [[source]]
        name = "main"
        secrets = ["sample-app-secret"]
        verify_tokens = ["token"]
        [[region]]
        name = "east"
        endpoint = "http://10.0.0.1:8080/in"
        prefixes = ["91", "1"]
        [[region]]
        name = "west"
        endpoint = "http://10.0.0.2:8080/in"
        prefixes = ["55", "49"]
        [routing]
        default = "east"
    "#;

    struct Scene {
        config: Config,
        post: Rc<Post>,
        jobs: Receiver<Job>,
        worker: Worker,
        shared: Arc<Shared>,
    }

    impl Scene {
        fn new() -> Self {
            let (config, _) =
                Config::from_toml(CONFIG, Path::new("/tmp")).unwrap_or_else(|invalid| panic!("{invalid}"));
            let (queue, jobs) = crossbeam_channel::unbounded();
            let shared = Shared::new(&config.listen, Patience::default());
            let worker = Worker::new(&config, &[0, 1]);
            Self { config, post: Post::new(queue).unwrap(), jobs, worker, shared }
        }

        fn send(&self, desk: usize, signature: &[u8], pieces: &[&[u8]]) -> Offloaded {
            let body = LargeBody::of(pieces, Arc::clone(&self.shared));
            self.post
                .send(arrival(desk), vec![signature.to_vec()], b"user-agent: x\r\n".to_vec(), body)
                .unwrap()
        }

        /// Handles all that was sent.
        fn handle(&mut self) {
            self.jobs.try_iter().for_each(|job| self.worker.handle(job));
        }
    }

    fn arrival(desk: usize) -> Arrival {
        Arrival { desk, client: "192.0.2.7:4711".parse().unwrap(), at_ns: 1_789_400_000_123_456_789 }
    }

    fn poll(offloaded: &mut Offloaded) -> Poll<Result<Box<Finding>, Refusal>> {
        offloaded.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_is_judged_beside_a_core_is_stored_byte_for_byte_as_what_a_core_judged() {
        let mut scene = Scene::new();
        let (judge, mut work) = (Judge::new(&scene.config, &[0, 1]), Work::default());
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/payloads");
        let mut bodies: Vec<Vec<u8>> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        bodies.extend([b"".to_vec(), b"no json".to_vec()]);
        for body in &bodies {
            let signature = Verifier::new(&scene.config.sources[0]).sign(body);
            let mut direct = AlignedBuf::with_capacity(0);
            let headers = |out: &mut Vec<u8>| out.extend_from_slice(b"user-agent: x\r\n");
            let judged = judge.judge(arrival(0), [&signature[..]], headers, body, &mut work).unwrap();
            let slots = work.verdict.regions.len() as u16;
            record::write_entry(&mut direct, 7, slots, |out| work.verdict.write(out), body);

            let (first, second) = body.split_at(body.len() / 3);
            let mut offloaded = scene.send(0, &signature, &[first, second]);
            assert!(poll(&mut offloaded).is_pending());
            scene.handle();
            let Poll::Ready(Ok(finding)) = poll(&mut offloaded) else { panic!("not judged") };
            assert_eq!(finding.judged, judged);
            assert_eq!((finding.opaque, &finding.regions), (work.verdict.opaque, &work.verdict.regions));
            let events = work.verdict.events.len() as u64;
            assert_eq!(finding.kinds.iter().sum::<u64>(), events);
            assert!(scene.shared.memory() >= body.len(), "it counts until it has its place");
            let (buf, _) = finding.entry.number(7);
            assert_eq!(&buf.as_slice()[HEADER..], direct.as_slice());
            drop(finding._held);
            assert_eq!(scene.shared.memory(), 0);
        }
        assert!(bodies.len() > 80);
    }

    #[test]
    fn a_forgery_is_refused_and_who_has_gone_is_left_out() {
        let mut scene = Scene::new();
        let signature = Verifier::new(&scene.config.sources[0]).sign(b"{}");
        let mut forged = scene.send(0, &signature, &[b"{", b" }"]);
        let gone = scene.send(0, &signature, &[b"{}"]);
        let mut last = scene.send(0, &signature, &[b"{}"]);
        drop(gone);
        scene.handle();
        assert!(matches!(poll(&mut forged), Poll::Ready(Err(Refusal::Mismatch))));
        assert!(matches!(poll(&mut last), Poll::Ready(Ok(_))));
        assert_eq!(scene.shared.memory(), 0);
    }

    #[test]
    fn a_panic_is_that_of_its_own_connection() {
        let mut scene = Scene::new();
        let signature = Verifier::new(&scene.config.sources[0]).sign(b"{}");
        // There is no such source.
        let mut wrong = scene.send(99, &signature, &[b"{}"]);
        let mut right = scene.send(0, &signature, &[b"{}"]);
        scene.handle();
        assert!(catch_unwind(AssertUnwindSafe(|| poll(&mut wrong))).is_err());
        assert!(matches!(poll(&mut right), Poll::Ready(Ok(_))));
        drop((wrong, right));
        assert_eq!(scene.shared.memory(), 0);
    }
}
