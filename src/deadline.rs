//! Deadlines of sockets: one sweep per core instead of a timer and a cancellation per request.
//!
//! A dropped io_uring operation is cancelled asynchronously and may lose what it had read, and a
//! timer per request costs more than the request's own bookkeeping. So every socket has one slot
//! with the moment by which it must have moved on, and a task of the core looks at all slots a few
//! times a second and shuts down the sockets that are late: their pending read or write then
//! completes by itself, and the task that owns the socket asks [`Watch::expired`] why.

use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::shutdown;

/// How often [`Deadlines::sweep`] should run: the error of every deadline.
pub const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// The deadlines of one core's sockets.
#[derive(Debug, Default)]
pub struct Deadlines {
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    fd: RawFd,
    at: Option<Instant>,
    how: Shutdown,
    expired: bool,
}

impl Deadlines {
    /// Watches `fd`, without a deadline yet. Drop the [`Watch`] before the socket is closed.
    pub fn watch(self: &Rc<Self>, fd: RawFd) -> Watch {
        let mut slots = self.slots.borrow_mut();
        let slot = Slot { fd, at: None, how: Shutdown::Both, expired: false };
        let index = match slots.free.pop() {
            Some(index) => {
                slots.all[index] = slot;
                index
            }
            None => {
                slots.all.push(slot);
                slots.all.len() - 1
            }
        };
        Watch { deadlines: Rc::clone(self), index }
    }

    /// Shuts down every socket whose deadline has passed; returns how many.
    pub fn sweep(&self, now: Instant) -> usize {
        let mut late = 0;
        for slot in &mut self.slots.borrow_mut().all {
            if slot.at.is_some_and(|at| at <= now) {
                slot.expired = true;
                slot.at = None;
                late += 1;
                let how = match slot.how {
                    Shutdown::Read => nix::sys::socket::Shutdown::Read,
                    Shutdown::Write => nix::sys::socket::Shutdown::Write,
                    Shutdown::Both => nix::sys::socket::Shutdown::Both,
                };
                // The peer may have closed already; then there is nothing left to shut down.
                shutdown(slot.fd, how).ok();
            }
        }
        late
    }
}

/// One socket's place in [`Deadlines`].
#[derive(Debug)]
pub struct Watch {
    deadlines: Rc<Deadlines>,
    index: usize,
}

impl Watch {
    /// Shuts the socket down at `at` unless [`Watch::clear`] or another `set` comes first.
    /// `Shutdown::Read` leaves the way open for a last answer.
    pub fn set(&self, at: Instant, how: Shutdown) {
        let mut slots = self.deadlines.slots.borrow_mut();
        let slot = &mut slots.all[self.index];
        slot.at = Some(at);
        slot.how = how;
    }

    pub fn clear(&self) {
        self.deadlines.slots.borrow_mut().all[self.index].at = None;
    }

    /// True once the socket was shut down for being late.
    pub fn expired(&self) -> bool {
        self.deadlines.slots.borrow().all[self.index].expired
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slots = self.deadlines.slots.borrow_mut();
        slots.all[self.index].at = None;
        slots.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn late_socket_is_shut_down_and_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let deadlines = Rc::new(Deadlines::default());
        let watch = deadlines.watch(socket.as_raw_fd());
        let start = Instant::now();
        watch.set(start + Duration::from_secs(10), Shutdown::Read);
        assert_eq!(deadlines.sweep(start + Duration::from_secs(9)), 0);
        assert!(!watch.expired());
        assert_eq!(deadlines.sweep(start + Duration::from_secs(10)), 1);
        assert!(watch.expired());
        assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0, "the pending read must end");
        drop(watch);
        assert_eq!(deadlines.watch(socket.as_raw_fd()).index, 0, "slots are reused");
    }
}
