//! How a core waits: for itself, for a moment, for another core.
//!
//! monoio has no yield and its timers tick in whole milliseconds and only when the loop parks; a
//! task that wakes itself runs again before its neighbours. So every wait here goes through the
//! ring: a timerfd for fine pauses, an eventfd that other cores ring, and an eventfd that is always
//! readable as the one fair way to step aside. Wakes between cores cost microseconds on both sides,
//! so a doorbell is rung only when its owner said that it is going to sleep.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::fs::File;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// One task waits, others on the same core wake it. A notice given before the wait is kept.
#[derive(Debug, Default)]
pub struct Notify {
    given: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Notify {
    pub fn notify(&self) {
        if !self.given.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    pub async fn notified(&self) {
        poll_fn(|cx| {
            if self.given.replace(false) {
                return Poll::Ready(());
            }
            let mut slot = self.waker.borrow_mut();
            if !slot.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *slot = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// A pause with microsecond resolution that ends in a [`Notify`]. Arming it again moves the moment.
pub struct Timer {
    fd: Rc<TimerFd>,
}

impl Timer {
    /// Starts the task that reads the timer; `target` is notified each time it fires.
    pub fn start(target: Rc<Notify>) -> io::Result<Self> {
        let fd = Rc::new(TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?);
        let word = Word::new(fd.as_fd().try_clone_to_owned()?)?;
        monoio::spawn(async move {
            while word.read().await.is_ok() {
                target.notify();
            }
        });
        Ok(Self { fd })
    }

    pub fn arm(&self, after: Duration) -> io::Result<()> {
        // Zero would disarm.
        let after = TimeSpec::from_duration(after.max(Duration::from_nanos(1)));
        Ok(self.fd.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())?)
    }
}

/// Rung by other cores when there is something in this core's channels.
#[derive(Debug, Clone)]
pub struct Doorbell(Arc<Ring>);

#[derive(Debug)]
struct Ring {
    fd: EventFd,
    sleeping: AtomicBool,
}

impl Doorbell {
    pub fn new() -> io::Result<Self> {
        let fd = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC)?;
        Ok(Self(Arc::new(Ring { fd, sleeping: AtomicBool::new(false) })))
    }

    /// Call after the message is in the channel. True if the owner slept and had to be woken.
    pub fn ring(&self) -> bool {
        // Pairs with the fence in `Bell::wait`: either the owner sees the message when it looks
        // again, or we see that it sleeps.
        fence(SeqCst);
        let woke = self.0.sleeping.load(SeqCst) && self.0.sleeping.swap(false, SeqCst);
        if woke {
            // The counter cannot overflow: it is read once for each write.
            self.0.fd.write(1).ok();
        }
        woke
    }
}

/// The owner's side of a [`Doorbell`].
pub struct Bell {
    ring: Arc<Ring>,
    word: Word,
}

impl Bell {
    /// Call on the owning core.
    pub fn new(doorbell: &Doorbell) -> io::Result<Self> {
        let word = Word::new(doorbell.0.fd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { ring: Arc::clone(&doorbell.0), word })
    }

    /// Sleeps until rung. `empty` looks at the channels once more after the bell was armed.
    pub async fn wait(&self, empty: impl Fn() -> bool) -> io::Result<()> {
        self.ring.sleeping.store(true, SeqCst);
        fence(SeqCst);
        if !empty() && self.ring.sleeping.swap(false, SeqCst) {
            return Ok(());
        }
        // Empty, or somebody took the flag down in this moment and is about to write.
        self.word.read().await
    }
}

/// The fair way to step aside: through the ring, so that every other task and timer gets its turn.
pub struct Yield {
    word: Word,
}

impl Yield {
    pub fn new() -> io::Result<Self> {
        // In semaphore mode each read takes one; 2^63 of them outlast the machine.
        let fd = EventFd::from_value_and_flags(u32::MAX, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_SEMAPHORE)?;
        fd.write(1 << 62)?;
        Ok(Self { word: Word::new(fd.as_fd().try_clone_to_owned()?)? })
    }

    pub async fn now(&self) -> io::Result<()> {
        self.word.read().await
    }
}

/// The eight bytes of an eventfd or timerfd.
struct Word {
    file: File,
    /// Used again by the next read; reads at the same time have one each.
    buffer: Cell<Vec<u8>>,
}

impl Word {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { file: File::from_std(std::fs::File::from(fd))?, buffer: Cell::default() })
    }

    async fn read(&self) -> io::Result<()> {
        let mut buffer = self.buffer.take();
        buffer.clear();
        buffer.reserve(8);
        let (read, buffer) = self.file.read_at(buffer, 0).await;
        self.buffer.set(buffer);
        read.map(|_| ())
    }
}
