//! What the shipped shells stand on in here: files on the disk of memory, timers of the world's clock.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use penstock::forward::feed::Pace;
use penstock::journal::buffer::AlignedBuf;
use penstock::journal::disk::Disk;
use penstock::journal::folder::live_path;
use penstock::journal::ground::Ground;
use penstock::journal::read::Blocks;
use penstock::journal::spare::segment_path;
use penstock::wake::Notify;

use super::disk::{MemoryDisk, Random};
use super::exec::{self, Exec};

/// One process's view of the machine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) exec: Rc<Exec>,
    pub(crate) disk: MemoryDisk,
    pub(crate) random: Rc<RefCell<Random>>,
    pub(crate) rules: Rc<RefCell<DiskRules>>,
}

/// How the disk behaves now.
#[derive(Debug, Clone)]
pub(crate) struct DiskRules {
    /// Writes go around the page cache.
    pub(crate) direct: bool,
    pub(crate) slow: bool,
    /// One write of so many fails; 0: none.
    pub(crate) fails: u64,
    /// One write of so many writes less than it should.
    pub(crate) shorts: u64,
}

impl Machine {
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.random.borrow_mut().below(n)
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// How long a write takes.
    pub(crate) fn latency(&self) -> Duration {
        let slow = self.rules.borrow().slow;
        match self.below(if slow { 4 } else { 64 }) {
            0 => Duration::from_millis(1 + self.below(if slow { 400 } else { 8 })),
            _ => Duration::from_micros(60 + self.below(300)),
        }
    }
}

/// A timer; arming it again moves the moment.
pub(crate) struct Alarm {
    target: Rc<Notify>,
    armed: Rc<std::cell::Cell<u64>>,
}

impl Ground for Machine {
    type Raw = PathBuf;
    type File = PathBuf;
    type Timer = Alarm;

    fn open(&self, raw: PathBuf) -> io::Result<PathBuf> {
        Ok(raw)
    }

    async fn write(&self, file: &PathBuf, buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        let rules = self.rules.borrow().clone();
        let flight = match self.disk.begin(file, offset, buf.as_slice(), rules.direct) {
            Ok(flight) => flight,
            Err(error) => return (Err(error), buf),
        };
        self.exec.sleep(self.latency()).await;
        if self.one_in(rules.fails) {
            return (Err(io::Error::from_raw_os_error(5)), buf);
        }
        if self.one_in(rules.shorts) {
            return (Ok(buf.len() / 2), buf);
        }
        if rules.direct {
            self.disk.end(flight, true);
        }
        (Ok(buf.len()), buf)
    }

    async fn sync(&self, file: &PathBuf) -> io::Result<()> {
        self.exec.sleep(self.latency()).await;
        Disk::sync(&self.disk, file)
    }

    fn now(&self) -> Instant {
        exec::now()
    }

    fn unix_ns(&self) -> u64 {
        exec::unix_ns()
    }

    fn draw(&self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.random.borrow_mut().next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }

    fn timer(&self, target: Rc<Notify>) -> io::Result<Alarm> {
        Ok(Alarm { target, armed: Rc::default() })
    }

    fn arm(&self, alarm: &Alarm, after: Duration) -> io::Result<()> {
        let number = alarm.armed.get() + 1;
        alarm.armed.set(number);
        let (target, armed) = (Rc::clone(&alarm.target), Rc::clone(&alarm.armed));
        let exec = Rc::clone(&self.exec);
        self.exec.spawn(async move {
            exec.sleep(after).await;
            if armed.get() == number {
                target.notify();
            }
        });
        Ok(())
    }
}

/// The files of one journal, for its readers.
pub(crate) struct Shelf {
    pub(crate) machine: Machine,
    pub(crate) dir: PathBuf,
}

impl Shelf {
    /// A read takes its time, now and then.
    async fn wait(&self) {
        if self.machine.one_in(6) {
            self.machine.exec.sleep(Duration::from_micros(100 + self.machine.below(2000))).await;
        }
    }
}

impl Blocks for Shelf {
    fn exists(&self, segment: u64) -> bool {
        self.machine.disk.has(&segment_path(&self.dir, segment))
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        self.wait().await;
        let bytes = Disk::read(&self.machine.disk, &segment_path(&self.dir, segment), at, len)?;
        self.wait().await;
        Ok(bytes.into())
    }

    async fn list(&self, segment: u64) -> io::Result<Vec<u8>> {
        let path = live_path(&self.dir, segment);
        let size = self.machine.disk.size(&path)?;
        let bytes = Disk::read(&self.machine.disk, &path, 0, size as usize)?;
        self.wait().await;
        Ok(bytes)
    }
}

/// As a shelf, without waiting.
pub(crate) struct Quick(pub(crate) Shelf);

impl Blocks for Quick {
    fn exists(&self, segment: u64) -> bool {
        self.0.exists(segment)
    }

    async fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let path = segment_path(&self.0.dir, segment);
        Ok(Disk::read(&self.0.machine.disk, &path, at, len)?.into())
    }

    async fn list(&self, segment: u64) -> io::Result<Vec<u8>> {
        let path = live_path(&self.0.dir, segment);
        let size = self.0.machine.disk.size(&path)?;
        Disk::read(&self.0.machine.disk, &path, 0, size as usize)
    }
}

impl Pace for Machine {
    async fn aside(&self) -> io::Result<()> {
        exec::aside().await;
        Ok(())
    }

    async fn pause(&self, time: Duration) {
        self.exec.sleep(time).await;
    }
}
