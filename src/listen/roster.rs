//! The open connections of one core: who is idle, since when, and a way to end them.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use nix::sys::socket::{Shutdown, shutdown};

/// The open connections of one core.
#[derive(Debug, Default)]
pub(super) struct Roster {
    entries: RefCell<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    all: Vec<Option<Entry>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Entry {
    fd: RawFd,
    /// Waiting for a request's first byte since then; `None` while there is something to do.
    idle_since: Option<Instant>,
}

impl Roster {
    /// Enters `fd`. Drop the [`Member`] before the socket is closed.
    pub(super) fn join(self: &Rc<Self>, fd: RawFd) -> Member {
        let entry = Some(Entry { fd, idle_since: None });
        let mut entries = self.entries.borrow_mut();
        let index = match entries.free.pop() {
            Some(index) => {
                entries.all[index] = entry;
                index
            }
            None => {
                entries.all.push(entry);
                entries.all.len() - 1
            }
        };
        Member { roster: Rc::clone(self), index }
    }

    pub(super) fn len(&self) -> usize {
        let entries = self.entries.borrow();
        entries.all.len() - entries.free.len()
    }

    /// Ends the `count` connections that have been idle longest; says how many there were.
    pub(super) fn end_oldest_idle(&self, count: usize) -> usize {
        let mut entries = self.entries.borrow_mut();
        let mut idle: Vec<&mut Entry> =
            entries.all.iter_mut().flatten().filter(|entry| entry.idle_since.is_some()).collect();
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |entry| entry.idle_since);
            idle.truncate(count);
        }
        for entry in &mut idle {
            end(entry, Shutdown::Read);
        }
        idle.len()
    }

    /// Ends every connection, whatever it is doing.
    pub(super) fn end_all(&self) {
        self.entries.borrow_mut().all.iter_mut().flatten().for_each(|entry| end(entry, Shutdown::Both));
    }
}

/// Shutting down for reading lets a request that is already in the socket still be answered.
fn end(entry: &mut Entry, how: Shutdown) {
    entry.idle_since = None;
    // The peer may have closed already; then there is nothing left to shut down.
    shutdown(entry.fd, how).ok();
}

/// One connection's place in the [`Roster`].
#[derive(Debug)]
pub(super) struct Member {
    roster: Rc<Roster>,
    index: usize,
}

impl Member {
    pub(super) fn set_idle(&self, since: Option<Instant>) {
        if let Some(entry) = &mut self.roster.entries.borrow_mut().all[self.index] {
            entry.idle_since = since;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut entries = self.roster.entries.borrow_mut();
        entries.all[self.index] = None;
        entries.free.push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn longest_idle_end_first_and_busy_ones_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peers: Vec<_> =
            (0..4).map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        let mut sockets: Vec<_> = peers.iter().map(|_| listener.accept().unwrap().0).collect();
        let roster = Rc::new(Roster::default());
        let members: Vec<_> = sockets.iter().map(|socket| roster.join(socket.as_raw_fd())).collect();
        let start = Instant::now();
        for (member, idle) in members.iter().zip([Some(3), None, Some(1), Some(2)]) {
            member.set_idle(idle.map(|s| start + Duration::from_secs(s)));
        }
        assert_eq!(roster.end_oldest_idle(2), 2);
        for (socket, ended) in sockets.iter_mut().zip([false, false, true, true]) {
            socket.set_nonblocking(true).unwrap();
            assert_eq!(socket.read(&mut [0]).is_ok(), ended);
        }
        assert_eq!(roster.end_oldest_idle(9), 1, "an ended one is not counted again");
        drop(members);
        assert_eq!(roster.len(), 0);
    }
}
