//! Overload: how late an ingest core is, and who gives way to it.
//!
//! When more comes than the machine can do, Penstock first lets everything be late that can be: forwarding and archiving
//! work on what is durable. Where they share a CPU with ingest, or one limit on it, that is most of the work. [`Policy`]
//! decides when. Nothing is refused for lateness: with the work in large batches a 503 takes 10 us of CPU, an accepted
//! webhook 11.4 (measured at 20,000 a second; reading it and sending any answer is what both pay for), and what is
//! refused comes again.
//!
//! How late a core is only a probe can tell that stands in the same queue as a webhook: the kernel's list of what is
//! ready for the core. That is a timer on the core's ring. It fires in a known moment, and is seen when all that
//! was ready before it has been worked on.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::wake::{Notify, Timer};

mod policy;
mod ration;

pub use policy::{LATE, Policy};
use ration::Ration;
pub use ration::Terms;

/// How often a busy core is looked at.
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// Webhooks that make a core busy: a lone one is not followed by a probe, which would cost as much as itself.
const BUSY: u32 = 16;

/// Whether ingest needs the CPU of the others. One for the process.
#[derive(Debug)]
pub struct GiveWay {
    start: Instant,
    /// Nanoseconds after `start`.
    until: AtomicU64,
    /// The share of a CPU that the core which asked last has, in thousandths: under a limit it may be small.
    busy: AtomicU64,
}

impl Default for GiveWay {
    fn default() -> Self {
        Self { start: Instant::now(), until: AtomicU64::new(0), busy: AtomicU64::new(0) }
    }
}

impl GiveWay {
    fn ask(&self, busy: f64, time: Duration) {
        self.busy.store((busy * 1e3) as u64, Relaxed);
        self.until.store((self.start.elapsed() + time).as_nanos() as u64, Relaxed);
    }

    /// Whether the calling thread should leave its CPU to ingest.
    pub fn is_asked(&self) -> bool {
        let until = self.until.load(Relaxed);
        until > 0 && (self.start.elapsed().as_nanos() as u64) < until
    }

    /// The share of a CPU that the core which asked last has; `None` if nobody asks any more.
    fn asker(&self) -> Option<f64> {
        self.is_asked().then(|| (self.busy.load(Relaxed) as f64 / 1e3).clamp(0.01, 1.0))
    }
}

/// A thread that gives way by beginning less. Look often.
#[derive(Debug)]
pub struct Frugal {
    give_way: Arc<GiveWay>,
    ration: Ration,
    seen: Instant,
    used: Duration,
}

impl Frugal {
    /// Of the calling thread.
    pub fn new(give_way: Arc<GiveWay>, terms: Terms) -> Self {
        Self { give_way, ration: Ration::new(terms), seen: Instant::now(), used: cpu_time() }
    }

    /// Whether it may begin something now; `None`: whatever it likes.
    pub fn look(&mut self) -> Option<bool> {
        let (now, used) = (Instant::now(), cpu_time());
        let (passed, spent) = (now.duration_since(self.seen), used.saturating_sub(self.used));
        (self.seen, self.used) = (now, used);
        self.ration.look(passed, spent, self.give_way.asker())
    }
}

/// CPU time of the calling thread.
fn cpu_time() -> Duration {
    // This clock is always there.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Looks after one ingest core.
#[derive(Debug)]
pub struct Guard {
    webhooks: Cell<u32>,
    busy: Rc<Notify>,
    give_way: Arc<GiveWay>,
}

impl Guard {
    pub fn new(give_way: Arc<GiveWay>) -> Rc<Self> {
        Rc::new(Self { webhooks: Cell::new(0), busy: Rc::default(), give_way })
    }

    /// A webhook came.
    pub fn count(&self) {
        let webhooks = self.webhooks.get().wrapping_add(1);
        self.webhooks.set(webhooks);
        if webhooks.is_multiple_of(BUSY) {
            self.busy.notify();
        }
    }

    /// Watches for ever; `lag` is told what was found, zero when the core was in time.
    pub async fn watch(&self, mut lag: impl FnMut(Duration)) -> io::Result<()> {
        let fired = Rc::new(Notify::default());
        let timer = Timer::start(Rc::clone(&fired))?;
        let mut policy = Policy::default();
        let start = Instant::now();
        let (mut seen, mut used) = (start, cpu_time());
        loop {
            if policy.is_calm() {
                lag(Duration::ZERO);
                self.busy.notified().await;
                // Of the time before, in which it may have had nothing to do, nothing can be said.
                (seen, used) = (Instant::now(), cpu_time());
            }
            let armed = Instant::now();
            timer.arm(PROBE_EVERY)?;
            fired.notified().await;
            let now = Instant::now();
            let late = now.duration_since(armed).saturating_sub(PROBE_EVERY);
            let cpu = cpu_time();
            let busy =
                cpu.saturating_sub(used).as_secs_f64() / now.duration_since(seen).as_secs_f64().max(1e-9);
            (seen, used) = (now, cpu);
            lag(late);
            if let Some(time) = policy.look(now - start, late, busy) {
                self.give_way.ask(busy, time);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test stops its own thread")]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { part: 0.1, debt: 1.0, at_least: Duration::from_secs(60) };

    #[test]
    fn a_thread_begins_nothing_while_ingest_needs_the_cpu_that_it_used_and_goes_on_after() {
        let give_way = Arc::new(GiveWay::default());
        let mut frugal = Frugal::new(Arc::clone(&give_way), TERMS);
        assert_eq!(frugal.look(), None, "nobody asked");
        let asked = Instant::now();
        give_way.ask(0.5, Duration::from_secs(60));
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() - before < Duration::from_millis(20) {
            sum = std::hint::black_box(sum + 1);
        }
        assert_eq!(frugal.look(), Some(false));
        while frugal.look() == Some(false) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(asked.elapsed() >= Duration::from_millis(300), "20 ms are worth 400: {:?}", asked.elapsed());
        assert!(give_way.is_asked());
        give_way.until.store(1, Relaxed);
        assert!(!give_way.is_asked());
        assert_eq!(frugal.look(), None);
    }

    #[test]
    fn others_are_asked_to_give_way_to_a_core_that_is_late_for_want_of_cpu() {
        let mut runtime =
            monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().enable_timer().build().unwrap();
        let give_way = Arc::new(GiveWay::default());
        runtime.block_on(async {
            let guard = Guard::new(Arc::clone(&give_way));
            let watched = Rc::clone(&guard);
            monoio::spawn(async move { watched.watch(|_| {}).await });
            let start = Instant::now();
            while !give_way.is_asked() && start.elapsed() < Duration::from_secs(20) {
                (0..BUSY).for_each(|_| guard.count());
                // As if another thread had the CPU.
                std::thread::sleep(Duration::from_millis(120));
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(give_way.is_asked());
    }
}
