//! One region on its forwarding core: the window of parcels it knows, and the workers that try them.
//!
//! The window is bounded in parcels; what does not fit stays in the journal and comes later (`feed`).
//! A waiting parcel keeps its bytes only while there is hope that it goes out soon; otherwise it is
//! read again from disk when its turn comes, so that an outage costs disk and not memory.
//!
//! A region that refuses everything is *down*: one parcel at a time probes it, the others wait
//! without using up attempts, and the first success makes all of them due at once. One bad
//! conversation among good ones never makes a region down: each success says that it is up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::feed::Cursor;
use super::lane::{Lanes, ParcelId};
use super::retry::{self, Due, Rng};
use crate::fault;
use crate::handoff::Limits;
use crate::journal::{JournalIndex, Position};
use crate::metrics::{ForwardCells, RegionCells};
use crate::wake::Notify;

/// Refusals in a row after which a region is down.
const DOWN_AFTER: u32 = 10;
/// What an attempt without any answer counts for: three of them say that nobody is there.
const UNREACHABLE: u32 = 4;
/// For a parcel that cannot even be made: it waits for a person, and each look costs a read and a log line.
const PUT_BACK: Duration = Duration::from_secs(30);
/// Longest pause between two probes of a region that is down.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// One parcel that is not settled.
#[derive(Debug)]
pub struct Item {
    pub journal: u32,
    /// Which parcel of the entry.
    pub slot: u16,
    /// An earlier attempt may have been taken.
    pub uncertain: bool,
    pub attempts: u32,
    pub lsn: u64,
    pub frame: Position,
    /// The record's place in the frame.
    pub offset: u32,
    pub len: u32,
    /// The record, while it is kept.
    pub record: Option<Bytes>,
    /// Places of events that the region has already: they are cut out.
    pub repeats: Option<Rc<[u32]>>,
}

impl Item {
    /// For an attempt. The record goes with it: should the attempt fail, the parcel waits, maybe long,
    /// and is read again when its time comes.
    fn take(&mut self) -> Self {
        Self { record: self.record.take(), repeats: self.repeats.clone(), ..*self }
    }
}

/// How an attempt ended, for the region's health and the parcel's next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Again, not before the region's own wish if it had one.
    Again {
        asked: Option<Duration>,
        overloaded: bool,
        uncertain: bool,
        /// No answer came at all.
        unreachable: bool,
    },
}

/// What a region is made from.
pub struct Settings {
    /// Index in the configuration.
    pub index: usize,
    /// `entry::name_id` of its name.
    pub id: u32,
    pub name: String,
    pub in_flight_max: usize,
    pub limits: Limits,
    /// For the jitter of retries.
    pub seed: u64,
}

pub struct Region {
    /// Index in the configuration.
    pub index: usize,
    /// `entry::name_id` of its name.
    pub id: u32,
    pub name: String,
    in_flight_max: usize,
    limits: Limits,
    lanes: RefCell<Lanes<Item>>,
    due: RefCell<Due>,
    rng: RefCell<Rng>,
    idle: RefCell<Vec<Waker>>,
    workers: Cell<usize>,
    busy: Cell<usize>,
    /// Workers on their way to [`Region::next`]: each of them takes one parcel, so nobody else need
    /// be woken for it.
    coming: Cell<usize>,
    failures: Cell<u32>,
    down: Cell<bool>,
    probe_at: Cell<Option<Instant>>,
    lagging: Cell<bool>,
    cursors: RefCell<Vec<Cursor>>,
    scratch: RefCell<Vec<u64>>,
    stopping: Cell<bool>,
    /// Rung when a lagging region has room again.
    room: Rc<Notify>,
    held: Arc<AtomicUsize>,
    cells: Arc<ForwardCells>,
    this: Weak<Region>,
    spawn: Box<dyn Fn(Rc<Region>)>,
}

impl Region {
    /// `spawn` starts a worker task: it calls [`Region::next`] and [`Region::done`] in turn.
    pub fn new(
        settings: Settings,
        room: Rc<Notify>,
        held: Arc<AtomicUsize>,
        cells: Arc<ForwardCells>,
        spawn: impl Fn(Rc<Region>) + 'static,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            index: settings.index,
            id: settings.id,
            name: settings.name,
            in_flight_max: settings.in_flight_max,
            limits: settings.limits,
            lanes: RefCell::new(Lanes::default()),
            due: RefCell::new(Due::default()),
            rng: RefCell::new(Rng::new(settings.seed)),
            idle: RefCell::default(),
            workers: Cell::new(0),
            busy: Cell::new(0),
            coming: Cell::new(0),
            failures: Cell::new(0),
            down: Cell::new(false),
            probe_at: Cell::new(None),
            lagging: Cell::new(false),
            cursors: RefCell::default(),
            scratch: RefCell::default(),
            stopping: Cell::new(false),
            room,
            held,
            cells,
            this: this.clone(),
            spawn: Box::new(spawn),
        })
    }

    pub fn cells(&self) -> &RegionCells {
        &self.cells.regions[self.index]
    }

    // The window, for `feed`.

    pub fn lagging(&self) -> bool {
        self.lagging.get()
    }

    /// From now on the region is served from the journals, from `cursors` on.
    pub fn lag(&self, cursors: Vec<Cursor>) {
        *self.cursors.borrow_mut() = cursors;
        self.lagging.set(true);
        self.cells().lagging.set(1);
    }

    /// The region got as far as `at` in a pass.
    pub fn lag_from(&self, at: &[Cursor]) {
        for (mine, at) in self.cursors.borrow_mut().iter_mut().zip(at) {
            *mine = (*mine).max(*at);
        }
    }

    pub fn cursor(&self, journal: JournalIndex) -> Cursor {
        self.cursors.borrow().get(journal).copied().unwrap_or_default()
    }

    pub fn caught_up(&self) {
        self.lagging.set(false);
        self.cells().lagging.set(0);
    }

    pub fn full(&self) -> bool {
        self.lanes.borrow().len() >= self.limits.window
    }

    pub fn has_room(&self) -> bool {
        self.lanes.borrow().len() <= self.limits.window / 2
    }

    /// Adds a parcel, with its record if that is to be kept; call [`Region::kick`] after the last of a batch.
    pub fn push(
        &self,
        mut item: Item,
        conversations: impl Iterator<Item = u64>,
        record: impl FnOnce() -> Bytes,
    ) {
        let mut lanes = self.lanes.borrow_mut();
        let Limits { kept, held_bytes, .. } = self.limits;
        let keep = !self.down.get() && lanes.len() < kept && self.held.load(Relaxed) < held_bytes / 2;
        item.record = keep.then(record);
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch.extend(conversations);
        lanes.push(&scratch, item);
    }

    /// Lets workers look for what is ready.
    pub fn kick(&self) {
        if self.stopping.get() || (self.down.get() && !self.may_probe()) {
            return;
        }
        let mut ready = self.lanes.borrow().ready_len();
        if self.down.get() {
            ready = ready.min(1);
        }
        while ready > self.coming.get() {
            // The last to go idle first: its connection is the warmest.
            let idle = self.idle.borrow_mut().pop();
            if let Some(waker) = idle {
                self.coming.set(self.coming.get() + 1);
                waker.wake();
            } else if self.workers.get() < self.in_flight_max {
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

    /// Moves what is due; call every few tens of milliseconds.
    pub fn tick(&self, now: Instant) {
        {
            let mut lanes = self.lanes.borrow_mut();
            let mut due = self.due.borrow_mut();
            while let Some(id) = due.pop(now) {
                lanes.unpark(id);
            }
        }
        // Whoever came has come; a worker that died on its way must not be waited for.
        self.coming.set(0);
        self.kick();
    }

    // The workers.

    /// The next parcel to try, with its record if it was kept; `None` when the core stops.
    pub async fn next(&self) -> Option<(ParcelId, Item)> {
        poll_fn(|cx| {
            self.coming.set(self.coming.get().saturating_sub(1));
            if self.stopping.get() {
                return Poll::Ready(None);
            }
            if !self.down.get() || self.may_probe() {
                let mut lanes = self.lanes.borrow_mut();
                let id = lanes.pop_ready();
                if let Some((id, item)) = id.and_then(|id| Some((id, lanes.get_mut(id)?.take()))) {
                    self.busy.set(self.busy.get() + 1);
                    self.cells().in_flight.set(self.busy.get() as u64);
                    return Poll::Ready(Some((id, item)));
                }
            }
            self.idle.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn may_probe(&self) -> bool {
        self.busy.get() == 0 && self.probe_at.get().is_none_or(|at| at <= Instant::now())
    }

    /// The attempt that [`Region::next`] gave out has ended; its worker asks for the next one at once.
    pub fn done(&self, id: ParcelId, verdict: Verdict, now: Instant) {
        self.coming.set(self.coming.get() + 1);
        self.busy.set(self.busy.get() - 1);
        self.cells().in_flight.set(self.busy.get() as u64);
        match verdict {
            Verdict::Delivered => {
                let before = self.lanes.borrow().len();
                self.lanes.borrow_mut().finish(id);
                if self.lagging.get() && before == self.limits.window / 2 + 1 {
                    self.room.notify();
                }
                self.up();
            }
            Verdict::Again { asked, overloaded, uncertain, unreachable } => {
                let mut lanes = self.lanes.borrow_mut();
                let mut failures = 1;
                if let Some(item) = lanes.get_mut(id) {
                    item.attempts += 1;
                    item.uncertain |= uncertain;
                    failures = item.attempts;
                }
                lanes.park(id);
                if fault::planted("overtaken-after-refusal") {
                    let item = lanes.finish(id);
                    lanes.push(&[], item);
                    return;
                }
                drop(lanes);
                let mut wait = retry::wait(failures, overloaded, &mut self.rng.borrow_mut());
                // A region that is down is asked again soon, whatever this parcel has behind it.
                if let Some(pause) = self.failed(now, if unreachable { UNREACHABLE } else { 1 }) {
                    wait = wait.min(pause);
                }
                if let Some(asked) = asked {
                    wait = wait.max(retry::wait_asked(asked));
                }
                self.due.borrow_mut().push(now + wait, id);
            }
        }
        self.kick();
    }

    /// The record could not be read or the core stops: try again later, as if nothing happened.
    pub fn put_back(&self, id: ParcelId, now: Instant) {
        self.coming.set(self.coming.get() + 1);
        self.busy.set(self.busy.get() - 1);
        self.lanes.borrow_mut().park(id);
        self.due.borrow_mut().push(now + PUT_BACK, id);
    }

    fn up(&self) {
        self.failures.set(0);
        if !self.down.replace(false) {
            return;
        }
        tracing::info!(region = %self.name, "region accepts again");
        let far = Instant::now() + Duration::from_secs(365 * 86_400);
        let mut lanes = self.lanes.borrow_mut();
        let mut due = self.due.borrow_mut();
        while let Some(id) = due.pop(far) {
            lanes.unpark(id);
        }
    }

    /// Counts a failure; the pause before the next probe if the region is down.
    fn failed(&self, now: Instant, weight: u32) -> Option<Duration> {
        self.failures.set(self.failures.get().saturating_add(weight));
        if self.failures.get() < DOWN_AFTER {
            return None;
        }
        let probes = self.failures.get() - DOWN_AFTER + 1;
        let pause = retry::wait(probes, false, &mut self.rng.borrow_mut()).min(PROBE_MAX);
        self.probe_at.set(Some(now + pause));
        if !self.down.replace(true) {
            tracing::warn!(region = %self.name, "region is down: probing it, its traffic waits");
            let mut lanes = self.lanes.borrow_mut();
            let waiting: Vec<ParcelId> = lanes.ids().collect();
            for id in waiting {
                if let Some(item) = lanes.get_mut(id) {
                    item.record = None;
                }
            }
        }
        Some(pause)
    }

    /// Gives out nothing more; workers end when their attempt has.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.idle.take().into_iter().for_each(Waker::wake);
    }

    /// Whether a parcel waits that may have been delivered.
    pub fn uncertain(&self) -> bool {
        let lanes = self.lanes.borrow();
        lanes.ids().any(|id| lanes.get(id).is_some_and(|item| item.uncertain))
    }

    /// Attempts under way.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_parcel_has_one_worker_sent_for_it_however_often_one_kicks() {
        let spawned = Rc::new(Cell::new(0));
        let count = Rc::clone(&spawned);
        let limits = Limits::default();
        let settings = Settings { index: 0, id: 1, name: "eu".into(), in_flight_max: 8, limits, seed: 1 };
        let cells = ForwardCells { regions: vec![RegionCells::default()], ..ForwardCells::default() };
        let region = Region::new(settings, Rc::default(), Arc::default(), Arc::new(cells), move |_| {
            count.set(count.get() + 1);
        });
        let push = |conversation: u64| {
            let item = Item {
                journal: 0,
                slot: 0,
                uncertain: false,
                attempts: 0,
                lsn: conversation,
                frame: Position::default(),
                offset: 0,
                len: 6,
                record: None,
                repeats: None,
            };
            region.push(item, [conversation].into_iter(), || Bytes::from_static(b"record"));
        };
        let next = || region.next().now_or_never().flatten().expect("a parcel is ready");
        push(1);
        push(2);
        region.kick();
        region.kick();
        assert_eq!(spawned.get(), 2);

        let (first, item) = next();
        assert_eq!(item.record.as_deref(), Some(&b"record"[..]));
        push(3);
        region.done(first, Verdict::Delivered, Instant::now());
        assert_eq!(spawned.get(), 2, "the worker that is done takes the third itself");

        region.tick(Instant::now());
        assert_eq!(spawned.get(), 4, "workers that never came are not waited for");
        next();
        next();
        assert_eq!(region.busy(), 2);
    }
}
