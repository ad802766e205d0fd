//! One thread, one clock that stands still unless told: the tasks of a process in an order that the seed
//! decides.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::disk::Random;

thread_local! {
    static START: Instant = Instant::now();
    static CLOCK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// 2026-09-14T12:00:00Z.
const NOON_NS: u64 = 1_789_387_200_000_000_000;

/// The moment, for whoever asks for one.
pub(crate) fn now() -> Instant {
    START.with(|start| *start) + elapsed()
}

/// Since the world began.
pub(crate) fn elapsed() -> Duration {
    CLOCK.get()
}

pub(crate) fn unix_ns() -> u64 {
    NOON_NS + elapsed().as_nanos() as u64
}

/// Moves the clock, never back.
pub(crate) fn go_to(time: Duration) {
    CLOCK.set(CLOCK.get().max(time));
}

pub(crate) fn begin() {
    CLOCK.set(Duration::ZERO);
}

type Ready = Arc<Mutex<Vec<usize>>>;

struct Called {
    task: usize,
    called: AtomicBool,
    ready: Ready,
}

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        if !self.called.swap(true, Relaxed) {
            self.ready.lock().unwrap().push(self.task);
        }
    }
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    called: Arc<Called>,
}

/// The tasks of one process.
#[derive(Default)]
pub(crate) struct Exec {
    tasks: RefCell<Vec<Task>>,
    ready: Ready,
    timers: RefCell<BinaryHeap<Reverse<(Duration, u64, usize)>>>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
    timer_count: Cell<u64>,
    pub(crate) polls: Cell<u64>,
}

impl Exec {
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.len();
        let called = Arc::new(Called { task, called: AtomicBool::new(true), ready: Arc::clone(&self.ready) });
        tasks.push(Task { future: Some(Box::pin(future)), called });
        self.ready.lock().unwrap().push(task);
    }

    /// Gives one task that is ready its turn. False if there is none.
    pub(crate) fn turn(&self, random: &mut Random) -> bool {
        let task = {
            let mut ready = self.ready.lock().unwrap();
            if ready.is_empty() {
                return false;
            }
            let at = random.below(ready.len() as u64) as usize;
            ready.swap_remove(at)
        };
        self.polls.set(self.polls.get() + 1);
        let (future, called) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = &mut tasks[task];
            task.called.called.store(false, Relaxed);
            (task.future.take(), Arc::clone(&task.called))
        };
        let Some(mut future) = future else { return true };
        let waker = Waker::from(called);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut()[task].future = Some(future);
        }
        true
    }

    /// When the next sleeper wakes.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.timers.borrow().peek().map(|Reverse((at, ..))| *at)
    }

    /// Wakes whose time has come.
    pub(crate) fn wake(&self) {
        let now = elapsed();
        loop {
            let slot = {
                let mut timers = self.timers.borrow_mut();
                match timers.peek() {
                    Some(Reverse((at, ..))) if *at <= now => timers.pop().map(|Reverse((_, _, slot))| slot),
                    _ => None,
                }
            };
            let Some(slot) = slot else { return };
            let waker = self.wakers.borrow_mut()[slot].take();
            self.free.borrow_mut().push(slot);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Calls `waker` at that time.
    pub(crate) fn at(&self, time: Duration, waker: Waker) {
        let slot = match self.free.borrow_mut().pop() {
            Some(slot) => slot,
            None => {
                self.wakers.borrow_mut().push(None);
                self.wakers.borrow().len() - 1
            }
        };
        self.wakers.borrow_mut()[slot] = Some(waker);
        let count = self.timer_count.get();
        self.timer_count.set(count + 1);
        self.timers.borrow_mut().push(Reverse((time, count, slot)));
    }

    pub(crate) async fn sleep(self: &Rc<Self>, time: Duration) {
        let until = elapsed() + time;
        let mut set = false;
        poll_fn(|cx| {
            if elapsed() >= until && set {
                return Poll::Ready(());
            }
            if !set {
                set = true;
                self.at(until, cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Ends all tasks; what they own goes.
    pub(crate) fn end(&self) {
        // A task that goes may wake others, and spawn none.
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        self.timers.borrow_mut().clear();
        self.wakers.borrow_mut().clear();
        self.free.borrow_mut().clear();
        self.ready.lock().unwrap().clear();
    }
}

/// Steps aside once.
pub(crate) async fn aside() {
    let mut done = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut done, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
