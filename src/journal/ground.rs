//! What a writer stands on: the files of its segments, a clock, a way to wait. The ring's, or that of a
//! simulation: all that the writer decides is the same on both.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use monoio::fs::File;

use super::buffer::AlignedBuf;
use crate::wake::{Notify, Timer};

/// A ground that never moves under a journal.
pub trait Ground {
    /// A segment's file as whoever made it hands it over.
    type Raw;
    type File;
    type Timer;

    fn open(&self, raw: Self::Raw) -> io::Result<Self::File>;

    /// One write at `offset`. How many bytes of it were written; the buffer comes back.
    fn write(
        &self,
        file: &Self::File,
        buf: AlignedBuf,
        offset: u64,
    ) -> impl Future<Output = (io::Result<usize>, AlignedBuf)>;

    fn sync(&self, file: &Self::File) -> impl Future<Output = io::Result<()>>;

    fn now(&self) -> Instant;

    /// Wall clock, Unix nanoseconds.
    fn unix_ns(&self) -> u64;

    /// Fills with random bytes.
    fn draw(&self, bytes: &mut [u8]) -> io::Result<()>;

    /// A timer that notifies `target`.
    fn timer(&self, target: Rc<Notify>) -> io::Result<Self::Timer>;

    fn arm(&self, timer: &Self::Timer, after: Duration) -> io::Result<()>;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ring;

impl Ground for Ring {
    type Raw = std::fs::File;
    type File = File;
    type Timer = Timer;

    fn open(&self, raw: std::fs::File) -> io::Result<File> {
        File::from_std(raw)
    }

    async fn write(&self, file: &File, buf: AlignedBuf, offset: u64) -> (io::Result<usize>, AlignedBuf) {
        file.write_at(buf, offset).await
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data().await
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_ns(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
    }

    fn draw(&self, bytes: &mut [u8]) -> io::Result<()> {
        super::store::random(bytes)
    }

    fn timer(&self, target: Rc<Notify>) -> io::Result<Timer> {
        Timer::start(target)
    }

    fn arm(&self, timer: &Timer, after: Duration) -> io::Result<()> {
        timer.arm(after)
    }
}
