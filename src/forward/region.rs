//! One region on its forwarding core: the workers that try its parcels, and what is said about it.
//!
//! All decisions are those of the [`Book`]; this is its shell, which wakes workers, counts and logs.
//!
//! The window is bounded in parcels; what does not fit stays in the journal and comes later (`feed`).
//! A waiting parcel keeps its bytes only while there is hope that it goes out soon; otherwise it is
//! read again from disk when its turn comes, so that an outage costs disk and not memory.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::book::{Book, Done, Part, Rules};
use super::breaker::State;
use super::item::{Errand, Item, Verdict};
use super::lag::{Cursor, Lag};
use super::lane::ParcelId;
use crate::dead::{Gap, LetterId};
use crate::journal::{JournalIndex, Position, Settled};
use crate::metrics::{ForwardCells, RegionCells};
use crate::wake::Notify;

/// What a region is made from.
pub struct Settings {
    /// Index in the configuration.
    pub index: usize,
    /// `entry::name_id` of its name.
    pub id: u32,
    pub name: String,
    pub rules: Rules,
    /// Bytes of frames that all cores may hold before parcels keep theirs no longer.
    pub held_bytes: usize,
    /// For the jitter of retries.
    pub seed: u64,
    /// What time it is.
    pub clock: fn() -> Instant,
}

pub struct Region {
    /// Index in the configuration.
    pub index: usize,
    /// `entry::name_id` of its name.
    pub id: u32,
    pub name: String,
    clock: fn() -> Instant,
    book: RefCell<Book>,
    /// As of the last tick or end of an attempt: some 20 ms old at most.
    now: Cell<Instant>,
    /// As it was told last.
    state: Cell<State>,
    workers_max: usize,
    held_bytes: usize,
    idle: RefCell<Vec<Waker>>,
    workers: Cell<usize>,
    /// Workers on their way to [`Region::next`]: each of them takes one errand, so nobody else need
    /// be woken for it.
    coming: Cell<usize>,
    lag: RefCell<Option<Lag>>,
    scratch: RefCell<Vec<u64>>,
    stopping: Cell<bool>,
    /// Rung when a lagging region has room again.
    room: Rc<Notify>,
    /// There was no room when it was looked for last.
    wants_room: Cell<bool>,
    held: Arc<AtomicUsize>,
    cells: Arc<ForwardCells>,
    this: Weak<Region>,
    spawn: Box<dyn Fn(Rc<Region>)>,
}

impl Region {
    /// `spawn` starts a worker task: it calls [`Region::next`] and ends each errand, in turn.
    pub fn new(
        settings: Settings,
        room: Rc<Notify>,
        held: Arc<AtomicUsize>,
        cells: Arc<ForwardCells>,
        spawn: impl Fn(Rc<Region>) + 'static,
    ) -> Rc<Self> {
        let Settings { index, id, name, rules, held_bytes, seed, clock } = settings;
        let now = clock();
        Rc::new_cyclic(|this| Self {
            index,
            id,
            name,
            clock,
            book: RefCell::new(Book::new(rules, seed, now)),
            now: Cell::new(now),
            state: Cell::new(State::Closed),
            // One more than tries at once: somebody may be burying.
            workers_max: rules.in_flight + 1,
            held_bytes,
            idle: RefCell::default(),
            workers: Cell::new(0),
            coming: Cell::new(0),
            lag: RefCell::default(),
            scratch: RefCell::default(),
            stopping: Cell::new(false),
            room,
            wants_room: Cell::new(false),
            held,
            cells,
            this: this.clone(),
            spawn: Box::new(spawn),
        })
    }

    /// What time it is.
    pub fn clock(&self) -> Instant {
        (self.clock)()
    }

    pub fn cells(&self) -> &RegionCells {
        &self.cells.regions[self.index]
    }

    // The window, for `feed`.

    pub fn lagging(&self) -> bool {
        self.lag.borrow().is_some()
    }

    /// From now on the region is served from the journals, from `cursors` on; its entries from `seen` on will all
    /// come by.
    pub fn lag(&self, cursors: Vec<Cursor>, seen: &[Position]) {
        *self.lag.borrow_mut() = Some(Lag::new(cursors, seen));
        self.cells().lagging.set(1);
    }

    /// Of a lagging region entries before `seen` may not have come by.
    pub fn missed(&self, seen: &[Position]) {
        if let Some(lag) = self.lag.borrow_mut().as_mut() {
            lag.miss(seen);
        }
    }

    /// The region got as far as `at` in a pass.
    pub fn lag_from(&self, at: &[Cursor]) {
        if let Some(lag) = self.lag.borrow_mut().as_mut() {
            lag.reach(at);
        }
    }

    /// Of a lagging region.
    pub fn cursor(&self, journal: JournalIndex) -> Cursor {
        self.lag.borrow().as_ref().map(|lag| lag.cursor(journal)).unwrap_or_default()
    }

    /// An entry comes over the channel: whether the region takes a parcel of these conversations from it.
    pub fn comes(&self, journal: JournalIndex, lsn: u64, conversations: impl Iterator<Item = u64>) -> bool {
        let mut lag = self.lag.borrow_mut();
        let Some(lag) = lag.as_mut() else { return true };
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch.extend(conversations);
        let takes = lag.comes(journal, lsn, self.book.borrow().has_fresh_room(), &scratch);
        if takes && lag.has_unread() {
            self.cells().ahead.add(1);
        }
        takes
    }

    /// A pass comes to an entry behind the region's cursor: whether the region takes a parcel of these conversations
    /// from it.
    pub fn passes(
        &self,
        journal: JournalIndex,
        at: Cursor,
        conversations: impl Iterator<Item = u64>,
    ) -> bool {
        let mut lag = self.lag.borrow_mut();
        let Some(lag) = lag.as_mut() else { return false };
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch.extend(conversations);
        lag.passes(journal, at, &scratch)
    }

    pub fn caught_up(&self) {
        *self.lag.borrow_mut() = None;
        self.cells().lagging.set(0);
    }

    pub fn full(&self) -> bool {
        self.book.borrow().full()
    }

    pub fn has_room(&self) -> bool {
        let room = self.book.borrow().has_room();
        self.wants_room.set(!room);
        room
    }

    /// Adds a parcel, with its record if that is to be kept; call [`Region::kick`] after the last of a batch.
    pub fn push(&self, item: Item, conversations: impl Iterator<Item = u64>, record: impl FnOnce() -> Bytes) {
        let keep = self.held.load(Relaxed) < self.held_bytes / 2;
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch.extend(conversations);
        self.book.borrow_mut().push(item, &scratch, || keep.then(record));
    }

    /// Parcels of this conversation were given up before the start, and the region was not told.
    pub fn gap(&self, conversation: u64, gap: Gap) {
        self.book.borrow_mut().gap(conversation, gap);
    }

    /// Lets workers look for what may go out.
    pub fn kick(&self) {
        if self.stopping.get() {
            return;
        }
        let wanted = self.book.borrow_mut().startable(self.now.get());
        while wanted > self.coming.get() {
            // The last to go idle first: its connection is the warmest.
            let idle = self.idle.borrow_mut().pop();
            if let Some(waker) = idle {
                self.coming.set(self.coming.get() + 1);
                waker.wake();
            } else if self.workers.get() < self.workers_max {
                self.workers.set(self.workers.get() + 1);
                self.coming.set(self.coming.get() + 1);
                if let Some(this) = self.this.upgrade() {
                    (self.spawn)(this);
                }
            } else {
                return;
            }
        }
    }

    /// Moves what is due; call every few tens of milliseconds. `allowed`: tries that may begin until
    /// then, while the core has other things to do.
    pub fn tick(&self, now: Instant, allowed: Option<usize>) {
        self.now.set(now);
        {
            let mut book = self.book.borrow_mut();
            book.give_way(allowed);
            book.tick(now);
        }
        self.tell();
        // Whoever came has come; a worker that died on its way must not be waited for.
        self.coming.set(0);
        self.kick();
    }

    // The workers.

    /// The next errand; `None` when the core stops.
    pub async fn next(&self) -> Option<(ParcelId, Errand)> {
        poll_fn(|cx| {
            self.coming.set(self.coming.get().saturating_sub(1));
            if self.stopping.get() {
                return Poll::Ready(None);
            }
            let mut book = self.book.borrow_mut();
            if let Some((id, errand)) = book.next(self.now.get()) {
                if let Errand::Try(Item { attempts: 1.., .. }) = errand {
                    self.cells().retries.add(1);
                }
                self.cells().in_flight.set(book.trying() as u64);
                return Poll::Ready(Some((id, errand)));
            }
            self.idle.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The try that [`Region::next`] gave out and that was `started` then has ended; its worker asks for the
    /// next errand at once.
    pub fn done(&self, id: ParcelId, verdict: Verdict, started: Instant, now: Instant) -> Done {
        self.coming.set(self.coming.get() + 1);
        self.now.set(self.now.get().max(now));
        let done = {
            let mut book = self.book.borrow_mut();
            let done = book.done(id, verdict, started, now);
            self.cells().in_flight.set(book.trying() as u64);
            done
        };
        self.tell();
        self.after();
        done
    }

    /// Replaces a parcel that waits by its parts; see [`Book::split`].
    pub fn split(&self, id: ParcelId, parts: Vec<Part>, record: &Option<Bytes>) -> bool {
        self.book.borrow_mut().split(id, parts, record, self.now.get())
    }

    /// The conversations of a parcel that is not settled.
    pub fn conversations(&self, id: ParcelId) -> Vec<u64> {
        self.book.borrow().conversations(id)
    }

    /// The parcel's letter is durable. `Some`: all of the parcel is settled, and how.
    pub fn buried(&self, id: ParcelId, letter: LetterId) -> Option<Settled> {
        self.coming.set(self.coming.get() + 1);
        let mark = self.book.borrow_mut().buried(id, letter);
        self.after();
        mark
    }

    /// The errand could not even be begun: try again later, as if nothing happened.
    pub fn put_back(&self, id: ParcelId, now: Instant) {
        self.coming.set(self.coming.get() + 1);
        self.book.borrow_mut().put_back(id, now);
    }

    /// The letter that was to be tried is not to go out any more.
    pub fn let_go(&self, id: ParcelId) {
        self.coming.set(self.coming.get() + 1);
        {
            let mut book = self.book.borrow_mut();
            book.let_go(id);
            self.cells().in_flight.set(book.trying() as u64);
        }
        self.after();
    }

    fn after(&self) {
        if self.lagging() && self.wants_room.get() && self.has_room() {
            self.room.notify();
        }
        self.kick();
    }

    /// Says once what the region has become.
    fn tell(&self) {
        let state = self.book.borrow().state();
        let before = self.state.replace(state);
        if state == before {
            return;
        }
        self.cells().state.set(state as u64);
        let region = self.name.as_str();
        match state {
            State::Closed => tracing::info!(region, "region accepts again"),
            State::Open if before == State::Closed => {
                tracing::warn!(region, "region is down: probing it, its traffic waits");
            }
            State::Paused => tracing::error!(
                region,
                "region answered 410, gone: its traffic waits until a probe, one every 5 minutes, is taken"
            ),
            State::Open | State::HalfOpen => {}
        }
    }

    /// Gives out nothing more; workers end when their attempt has.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.idle.take().into_iter().for_each(Waker::wake);
    }

    /// Whether a parcel waits that may have been delivered.
    pub fn uncertain(&self) -> bool {
        self.book.borrow().uncertain()
    }

    /// Lowers the place of each journal to that of the first entry in it that the region may still need.
    pub fn lower(&self, oldest: &mut [Position]) {
        if let Some(lag) = self.lag.borrow().as_ref() {
            for (journal, oldest) in oldest.iter_mut().enumerate() {
                *oldest = lag.cursor(journal).frame.min(*oldest);
            }
        }
        self.book.borrow().lower(oldest);
    }

    /// Parcels that are not settled.
    pub fn waiting(&self) -> usize {
        self.book.borrow().len()
    }

    /// Parcels being tried or buried.
    pub fn busy(&self) -> usize {
        self.book.borrow().busy()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::config::Retry;

    #[test]
    fn a_parcel_has_one_worker_sent_for_it_however_often_one_kicks() {
        let spawned = Rc::new(Cell::new(0));
        let count = Rc::clone(&spawned);
        let rules = Rules {
            in_flight: 8,
            timeout: Duration::from_secs(15),
            rate: 0,
            retry: Retry::default(),
            window: 100,
            kept: 100,
        };
        let settings = Settings {
            index: 0,
            id: 1,
            name: "eu".into(),
            rules,
            held_bytes: 1 << 20,
            seed: 1,
            clock: Instant::now,
        };
        let cells = ForwardCells { regions: vec![RegionCells::default()], ..ForwardCells::default() };
        let region = Region::new(settings, Rc::default(), Arc::default(), Arc::new(cells), move |_| {
            count.set(count.get() + 1);
        });
        let push = |conversation: u64| {
            let item = Item { lsn: conversation, len: 6, ..Item::default() };
            region.push(item, [conversation].into_iter(), || Bytes::from_static(b"record"));
        };
        let next = || region.next().now_or_never().flatten().expect("a parcel is ready");
        push(1);
        push(2);
        region.kick();
        region.kick();
        assert_eq!(spawned.get(), 2);

        let (first, errand) = next();
        let Errand::Try(item) = errand else { panic!("{errand:?}") };
        assert_eq!(item.record.as_deref(), Some(&b"record"[..]));
        push(3);
        let now = Instant::now();
        let done = region.done(first, Verdict::Delivered, now, now);
        assert_eq!(done, Done::Delivered { mark: Some(Settled::Delivered), told: Vec::new() });
        assert_eq!(spawned.get(), 2, "the worker that is done takes the third itself");

        region.tick(Instant::now(), None);
        assert_eq!(spawned.get(), 4, "workers that never came are not waited for");
        next();
        next();
        assert_eq!(region.busy(), 2);
    }
}
