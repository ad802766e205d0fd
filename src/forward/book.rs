//! All decisions of one region: which parcel may be tried now, and what becomes of it.
//!
//! ```text
//! push > lanes (order) > next: breaker, ramp, rate > a try > done > delivered: settled
//!                          ^                                  > failed: waits, is due, pays for its retry
//!                          └──────────────────────────────────────┘   > given up: a worker buries it
//! ```
//!
//! Invariants:
//! - At most `in_flight` tries at once; while the breaker is not closed, probes only.
//! - A parcel leaves its lanes delivered or buried, never otherwise (or cut into parts that take its place); a
//!   dead letter that went out again leaves them also when somebody drops it.
//! - What is blocked behind a failing parcel takes no room from others.
//! - Who writes to a region that works off a backlog waits for some of it at most: what comes live while the
//!   region accepts is *fresh*, the rest *backlog*; they share its starts 70:30 (`lane`), and fresh parcels have
//!   room of their own beside the window.
//! - A failure is never the last word on a parcel while its region fails others (`poison`).
//!
//! A parcel that waits takes 40 bytes beside its places in the lanes. What few have (a kept record, repeats,
//! what happened to its tries) is kept aside.
//!
//! Pure: `now` and a seed are arguments, what happened is told by what is returned. Deliberately absent:
//! workers and their wakers, metrics, logs, where parcels come from (`region` and `feed`).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::breaker::{Breaker, Cause, Outcome, State};
use super::budget::{Rate, Retries};
use super::item::{Death, Errand, Failed, Item, Verdict};
use super::lane::{Class, Lanes, ParcelId};
use super::poison::{Standing, Tries, Try};
use super::ramp::Ramp;
use super::retry::{self, Due, Rng};
use super::slab::{self, Slab};
use crate::config::Retry;
use crate::dead::{Gaps, Reason};
use crate::fault;
use crate::journal::{Position, Settled};

mod out;
mod parts;

use parts::Group;
pub use parts::Part;

/// For a parcel that cannot even be made: it waits for a person, and each look costs a read and a log line.
const PUT_BACK: Duration = Duration::from_secs(30);
/// Longest wait of a parcel whose tries do not count: then it may be the region, which comes back at any time.
const LONGEST_UNSURE: Duration = Duration::from_mins(1);
/// Parcels that wait behind failing ones, for each one that fits into the window.
const BLOCKED: usize = 16;
/// Of the window: room beside it for fresh parcels, by default as many as keep their records. More would
/// only wait longer.
const FRESH: usize = 8;

/// What a region is made from.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Tries at once.
    pub in_flight: usize,
    /// Of one try.
    pub timeout: Duration,
    /// Tries a second; 0: no limit.
    pub rate: u32,
    pub retry: Retry,
    /// Parcels known at once.
    pub window: usize,
    /// Waiting parcels that keep their records.
    pub kept: usize,
}

/// What became of a try.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    /// `mark`: all of the parcel is settled, and how. `told`: conversations whose gap the region knows now.
    Delivered { mark: Option<Settled>, told: Vec<u64> },
    /// It waits. `cut`: it was refused twice and has several conversations.
    Again { cut: bool },
}

/// A parcel as it waits.
#[derive(Debug, Clone, Copy)]
struct Held {
    lsn: u64,
    frame: Position,
    offset: u32,
    len: u32,
    /// In `records`.
    record: u32,
    /// In `sides`.
    side: u32,
    /// [`u16::MAX`]: a dead letter that goes out again.
    journal: u16,
    slot: u16,
    uncertain: bool,
    quarantined: bool,
    /// It could not be begun: nothing but its moment brings it back.
    put_back: bool,
}

/// What few parcels have.
#[derive(Debug, Clone, Default)]
struct Side {
    attempts: u32,
    /// Failures since its region was last found well.
    failures: u32,
    refusals: u32,
    /// Of the last answer.
    status: u16,
    part: u16,
    /// In `groups`, of a part.
    group: Option<u32>,
    repeats: Option<Rc<[u32]>>,
    only: Option<Rc<[u32]>>,
    first_tried: Option<Instant>,
    tries: Tries,
}

/// The parcels of one region that are not settled, and what is known of the region.
#[derive(Debug)]
pub struct Book {
    rules: Rules,
    lanes: Lanes<Held>,
    due: Due,
    records: Slab<Bytes>,
    sides: Slab<Side>,
    groups: Slab<Group>,
    /// Parcels to be buried. They are parked.
    graves: VecDeque<(ParcelId, Reason)>,
    /// One at a time: while the disk is full it takes long, and others must go on.
    burying: Option<ParcelId>,
    probes: Vec<ParcelId>,
    trying: usize,
    breaker: Breaker,
    ramp: Ramp,
    /// Tries that may still begin, while the core gives way.
    allowed: Option<usize>,
    retries: Retries,
    rate: Rate,
    standing: Standing,
    gaps: Gaps,
    rng: Rng,
}

impl Book {
    pub fn new(rules: Rules, seed: u64, now: Instant) -> Self {
        Self {
            lanes: Lanes::default(),
            due: Due::default(),
            records: Slab::default(),
            sides: Slab::default(),
            groups: Slab::default(),
            graves: VecDeque::new(),
            burying: None,
            probes: Vec::new(),
            trying: 0,
            breaker: Breaker::new(now),
            ramp: Ramp::new(rules.in_flight, now),
            allowed: None,
            retries: Retries::new(now),
            rate: Rate::new(rules.rate, now),
            standing: Standing::new(now),
            gaps: Gaps::default(),
            rng: Rng::new(seed),
            rules,
        }
    }

    // The window.

    /// Adds a parcel at the end of its lanes. `record` is asked for if there is hope that it goes out soon.
    pub fn push(&mut self, item: Item, conversations: &[u64], record: impl FnOnce() -> Option<Bytes>) {
        let Item { attempts, repeats, only, part, .. } = item;
        let side = if attempts > 0 || repeats.is_some() || only.is_some() {
            self.sides.insert(Side { attempts, repeats, only, part, ..Side::default() })
        } else {
            slab::NONE
        };
        let held = Held {
            lsn: item.lsn,
            frame: item.frame,
            offset: item.offset,
            len: item.len,
            record: slab::NONE,
            side,
            journal: u16::try_from(item.journal).unwrap_or(u16::MAX),
            slot: item.slot,
            uncertain: item.uncertain,
            quarantined: item.quarantined,
            put_back: false,
        };
        let closed = self.state() == State::Closed;
        let class = if item.live && closed { Class::Fresh } else { Class::Backlog };
        let id = self.lanes.push(conversations, class, held);
        let before = if class == Class::Fresh { self.lanes.fresh_len() } else { self.open_len() };
        if closed
            && before <= self.rules.kept
            && !self.lanes.is_blocked(id)
            && let Some(record) = record()
            && let Some(held) = self.lanes.get_mut(id)
        {
            held.record = self.records.insert(record);
        }
    }

    /// No more parcels should be pushed.
    pub fn full(&self) -> bool {
        self.counted() >= self.rules.window || self.lanes.blocked_len() >= self.rules.window * BLOCKED
    }

    /// There is room for a good deal more.
    pub fn has_room(&self) -> bool {
        self.counted() <= self.rules.window / 2
            && self.lanes.blocked_len() <= self.rules.window * (BLOCKED - 1)
    }

    /// Whether one more parcel may be pushed as fresh, although the window is full.
    pub fn has_fresh_room(&self) -> bool {
        self.state() == State::Closed
            && self.lanes.fresh_len() < self.fresh_room()
            && self.lanes.blocked_len() < self.rules.window * BLOCKED
    }

    fn fresh_room(&self) -> usize {
        (self.rules.window / FRESH).max(1)
    }

    /// Parcels that take room in the window.
    fn counted(&self) -> usize {
        // While the region is out nothing goes on for the others either.
        let closed = self.state() == State::Closed;
        let all = if closed { self.open_len() } else { self.lanes.len() };
        all - self.lanes.fresh_len().min(self.fresh_room())
    }

    /// Parcels that are not settled.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Those of them that wait behind one that failed.
    pub fn blocked_len(&self) -> usize {
        self.lanes.blocked_len()
    }

    fn open_len(&self) -> usize {
        self.lanes.len() - self.lanes.blocked_len()
    }

    pub fn state(&self) -> State {
        self.breaker.state()
    }

    /// Most tries at once as things are.
    pub fn limit(&self) -> usize {
        self.ramp.limit()
    }

    /// Tries under way.
    pub fn trying(&self) -> usize {
        self.trying
    }

    /// Parcels with a worker: being tried or buried.
    pub fn busy(&self) -> usize {
        self.trying + usize::from(self.burying.is_some())
    }

    /// Whether a parcel waits that may have been delivered.
    pub fn uncertain(&self) -> bool {
        self.lanes.ids().any(|id| self.lanes.get(id).is_some_and(|held| held.uncertain))
    }

    /// Lowers the place of each journal, by its index, to that of the first parcel from it that waits.
    pub fn lower(&self, oldest: &mut [Position]) {
        for held in self.lanes.ids().filter_map(|id| self.lanes.get(id)) {
            if let Some(oldest) = oldest.get_mut(usize::from(held.journal)) {
                *oldest = held.frame.min(*oldest);
            }
        }
    }

    // What came of it.

    /// A try that [`Book::next`] gave out and that was `started` then has ended.
    pub fn done(&mut self, id: ParcelId, verdict: Verdict, started: Instant, now: Instant) -> Done {
        self.trying -= 1;
        let probe = self.end_probe(id);
        let side = self.side(id);
        let first = side.is_none_or(|side| side.attempts == 0 && side.part == 0);
        let suspect = side.is_some_and(|side| side.tries.is_suspect());
        let took = now.saturating_duration_since(started);
        let outcome = |failed| Outcome { failed, slow: took > self.rules.timeout / 5 * 4, probe, suspect };
        let closed = self.state() == State::Closed;
        match verdict {
            Verdict::Delivered => {
                self.breaker.note(outcome(None), &mut self.rng, now);
                self.ramp.note(true, took, now);
                self.retries.earn();
                self.standing.firsts.taken += u64::from(first);
                let done = self.delivered(id);
                if !closed && self.state() == State::Closed {
                    self.reopen(now);
                }
                done
            }
            Verdict::Failed(failed) => {
                // A parcel that everybody else is taken without is not wanted, the region is not gone.
                let cause = match failed.status {
                    0 => Cause::Nothing,
                    410 if !suspect => Cause::Gone,
                    _ => Cause::Answer,
                };
                self.breaker.note(outcome(Some(cause)), &mut self.rng, now);
                if let Some(asked) = failed.asked.filter(|_| {
                    failed.is_overload() && !suspect && !fault::planted("wish-of-the-region-ignored")
                }) {
                    self.breaker.hold(asked, now);
                }
                if !suspect {
                    self.ramp.note(false, took, now);
                }
                self.standing.firsts.failed += u64::from(first);
                if closed && self.state() != State::Closed {
                    self.drop_records();
                }
                self.failed(id, failed, started, now)
            }
        }
    }

    /// The parcel is to wait, as if nothing had happened: it could not be read or written.
    pub fn put_back(&mut self, id: ParcelId, now: Instant) {
        if self.burying == Some(id) {
            self.burying = None;
        } else {
            self.trying -= 1;
            self.end_probe(id);
            self.lanes.park(id);
        }
        // It may take until somebody repairs something: the others need neither its room nor its turns.
        if let Some(held) = self.lanes.get_mut(id) {
            held.put_back = true;
        }
        self.lanes.block(id);
        self.due.push(now + PUT_BACK, id);
    }

    /// Moves what is due; call every few tens of milliseconds. When to call again at the latest, if
    /// nothing else happens.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.standing.tick(now);
        self.breaker.room(self.probes.len() as u32, now);
        let mut wake = self.breaker.wake();
        if let Some(since) = self.breaker.closed_since() {
            while let Some(at) = self.due.next() {
                if at > now {
                    wake = Some(at);
                    break;
                }
                if !self.wake_one(since, now) {
                    wake = Some(self.retries.ready_at());
                    break;
                }
            }
        }
        if self.lanes.ready_len() > 0 && self.rate.left(now) == 0 {
            let at = self.rate.ready_at();
            wake = Some(wake.map_or(at, |wake| wake.min(at)));
        }
        wake
    }

    /// The first that is due is tried again or given up; false if there is no retry left for it.
    fn wake_one(&mut self, closed_since: Instant, now: Instant) -> bool {
        let Some(id) = self.due.pop(now) else { return true };
        let held = self.lanes.get(id).copied();
        if let Some(side) = held.and_then(|held| self.sides.get_mut(held.side)) {
            side.tries.judge(&self.standing, Some(closed_since), now);
            if let Some(reason) = side.tries.verdict(&self.rules.retry) {
                self.graves.push_back((id, reason));
                return true;
            }
        }
        let paid = self.retries.spend(now);
        if paid {
            self.lanes.unpark(id);
        } else {
            self.due.push(now, id);
        }
        paid
    }

    fn failed(&mut self, id: ParcelId, failed: Failed, started: Instant, now: Instant) -> Done {
        let firsts = self.standing.firsts;
        let Some(held) = self.lanes.get_mut(id) else { return Done::Again { cut: false } };
        held.uncertain |= failed.uncertain;
        if self.sides.get(held.side).is_none() {
            held.side = self.sides.insert(Side::default());
        }
        let (side, letter) = (held.side, held.journal == u16::MAX);
        let mut wait = Duration::ZERO;
        let mut cut = false;
        if let Some(side) = self.sides.get_mut(side) {
            side.attempts += 1;
            side.failures += 1;
            side.status = failed.status;
            if side.first_tried.is_none() {
                side.first_tried = Some(started);
                self.standing.fail(now);
            }
            let unwanted = failed.is_unwanted();
            side.tries.failed(Try { started, ended: now, firsts, unwanted });
            if failed.is_refusal() {
                side.refusals += 1;
                let closed = self.breaker.closed_since().is_some();
                cut = side.refusals >= 2 && side.part == 0 && !letter && closed;
            }
            let counted = side.tries.counted();
            let failures = counted.map_or(side.failures, |counted| counted + 1);
            wait = match unwanted {
                true => retry::wait_unwanted(failures, &mut self.rng),
                false => retry::wait(failures, failed.is_overload(), &mut self.rng),
            };
            let longest = match counted {
                Some(_) => side.tries.time_left(&self.rules.retry).max(retry::SHORTEST),
                None => LONGEST_UNSURE,
            };
            wait = wait.min(longest);
        }
        if let Some(asked) = failed.asked {
            wait = wait.max(retry::wait_asked(asked));
        }
        self.lanes.park(id);
        if fault::planted("overtaken-after-refusal") {
            let held = self.lanes.finish(id);
            self.lanes.push(&[], Class::Backlog, held);
            return Done::Again { cut: false };
        }
        self.lanes.block(id);
        self.due.push(now + wait, id);
        Done::Again { cut: cut && self.lanes.conversations(id).nth(1).is_some() }
    }

    /// The region accepts again: slowly at first, and whatever failed because of the region is due.
    fn reopen(&mut self, now: Instant) {
        self.ramp.begin(now);
        let Self { due, lanes, sides, standing, .. } = self;
        due.change(|id| {
            let side = sides.get_mut(lanes.get(id)?.side)?;
            side.tries.judge(standing, None, now);
            side.failures = 0;
            (!fault::planted("outage-waits-on")).then_some(now)
        });
    }

    fn drop_records(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let ids: Vec<ParcelId> = self.lanes.ids().collect();
        for id in ids {
            if let Some(held) = self.lanes.get_mut(id) {
                self.records.take(std::mem::replace(&mut held.record, slab::NONE));
            }
        }
    }

    fn end_probe(&mut self, id: ParcelId) -> bool {
        let at = self.probes.iter().position(|probe| *probe == id);
        at.map(|at| self.probes.swap_remove(at)).is_some()
    }

    fn is_suspect(&self, id: ParcelId) -> bool {
        self.side(id).is_some_and(|side| side.tries.is_suspect())
    }

    fn side(&self, id: ParcelId) -> Option<&Side> {
        self.sides.get(self.lanes.get(id)?.side)
    }
}

#[cfg(test)]
mod tests;
