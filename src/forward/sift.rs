//! Which events of a parcel are new: the one place where repeats are dropped.
//!
//! Every parcel of the core's regions comes by exactly once, in the order of its conversations (`lag`), and is
//! asked about before it joins its lanes. A second time it would be a repeat of itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::region::Region;
use crate::dedupe::{Clock, Seen, Sighting};
use crate::entry::Meta;
use crate::fault;
use crate::metrics::ForwardCells;

/// A parcel with something new in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Places of its repeats among the events of the webhook, rising; `None`: all of it is new.
    pub repeats: Option<Rc<[u32]>>,
    /// Something of it may have been delivered before, as it is or otherwise.
    pub uncertain: bool,
}

/// What one core's regions have seen, and the clock of that.
pub struct Sieve {
    seen: RefCell<Seen>,
    started: Instant,
    /// Minutes since then that `seen` knows of.
    passed: Cell<u32>,
    forgetful: Cell<bool>,
    cells: Arc<ForwardCells>,
}

impl Sieve {
    pub fn new(seen: Seen, now: Instant, cells: Arc<ForwardCells>) -> Self {
        let sieve = Self {
            seen: RefCell::new(seen),
            started: now,
            passed: Cell::new(0),
            forgetful: Cell::new(false),
            cells,
        };
        sieve.count();
        sieve
    }

    /// Asks for the parcel in `slot` and remembers it. `None` if all of it are repeats. `waited`: it did not come just
    /// now.
    pub fn sift(&self, region: &Region, meta: &Meta<'_>, slot: u16, waited: bool) -> Option<News> {
        let mut seen = self.seen.borrow_mut();
        let (mut new, mut changed) = (0u64, 0u64);
        let mut repeats: Vec<u32> = Vec::new();
        for (at, event) in (0u32..).zip(meta.events()).filter(|(_, event)| event.slot == slot) {
            match seen.claim(region.id, &event.key, event.value) {
                Sighting::New => new += 1,
                Sighting::Changed => changed += 1,
                Sighting::Repeat => repeats.push(at),
            }
        }
        if changed > 0 {
            region.cells().changed_events.add(changed);
        }
        let uncertain = changed > 0 || if waited { seen.forgets_held() } else { seen.forgets() };
        if repeats.is_empty() {
            return Some(News { repeats: None, uncertain });
        }
        region.cells().duplicates.add(repeats.len() as u64);
        (new + changed > 0).then(|| News { repeats: Some(repeats.into()), uncertain })
    }

    /// Something has waited since this minute of the clock: what may be a repeat then is one as long as that waits.
    pub fn hold(&self, minute: u32) {
        self.seen.borrow_mut().hold(minute);
    }

    /// The clock's minute.
    pub fn minute(&self) -> u32 {
        self.seen.borrow().now()
    }

    /// Lets the clock go on and gives memory back; call every few tens of milliseconds.
    pub fn tick(&self, now: Instant) -> Clock {
        let ran = now.saturating_duration_since(self.started);
        let minutes = u32::try_from(ran.as_nanos() / fault::minute().as_nanos());
        let passed = minutes.unwrap_or(u32::MAX) - self.passed.get();
        let mut seen = self.seen.borrow_mut();
        if passed > 0 {
            self.passed.set(self.passed.get() + passed);
            seen.pass(passed);
        }
        seen.sweep();
        let clock = Clock { minute: seen.now(), oldest: seen.oldest() };
        drop(seen);
        self.count();
        clock
    }

    fn count(&self) {
        let seen = self.seen.borrow();
        self.cells.dedupe_keys.set(seen.keys() as u64);
        self.cells.dedupe_bytes.set(seen.bytes() as u64);
        self.cells.dedupe_evicted.set(seen.evicted());
        self.cells.dedupe_forgetful.set(u64::from(seen.forgets()));
        match (seen.forgets(), self.forgetful.replace(seen.forgets())) {
            (true, false) if seen.evicted() > 0 => tracing::warn!(
                keys = seen.keys(),
                "dedupe.memory is too small for dedupe.window: the oldest events are forgotten early, and parcels say that they may be repeats"
            ),
            (false, true) => tracing::info!("all events of dedupe.window are remembered again"),
            _ => {}
        }
    }
}
