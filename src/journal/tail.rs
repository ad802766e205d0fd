//! The end of a journal: the segment in use, the frames appended to it, and the step into the next.
//! Shell around `frame`; knows nothing of who waits for what.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crossbeam_channel::{Receiver, Sender};

use super::Position;
use super::buffer::{AlignedBuf, BufferPool};
use super::frame::{
    self, Digest, FIRST_FRAME, FrameHeader, FrameKind, HEADER, JournalId, Salt, SegmentHeader, Summed,
};
use super::ground::{Ground, Ring};
use super::spare::{AHEAD, OpenMode, Order, Spare};
use super::writer::Seed;
use crate::fault;

struct Active<F> {
    file: Rc<F>,
    segment: u64,
    salt: Salt,
    /// Where the next frame goes.
    offset: u64,
}

/// Where the next frame goes and what it must say.
pub(super) struct Tail<G: Ground = Ring> {
    ground: G,
    id: JournalId,
    mode: OpenMode,
    segment_bytes: u64,
    active: RefCell<Option<Active<G::File>>>,
    /// The segment before the one in use, and where it ends.
    previous: Cell<(u64, u64)>,
    next_frame: Cell<u64>,
    next_lsn: Cell<u64>,
    chain: Cell<Digest>,
    /// Segments made ahead: those taken from the channel already, and those that wait in it.
    ready: RefCell<VecDeque<Spare<G::Raw>>>,
    spares: Receiver<Spare<G::Raw>>,
    /// Spares ordered and not taken yet.
    coming: Cell<usize>,
    order: Box<dyn Fn(u64)>,
    /// Highest number ordered.
    ordered: Cell<u64>,
    /// A new segment is being taken into use.
    rolling: Cell<bool>,
    pool: BufferPool,
}

impl<G: Ground> Tail<G>
where
    G::Raw: 'static,
{
    pub(super) fn new(
        ground: G,
        seed: Seed<G::Raw>,
        orders: Sender<Order<G::Raw>>,
        pool: BufferPool,
    ) -> Self {
        let (reply, spares) = crossbeam_channel::bounded(AHEAD + 1);
        let (dir, mode, bytes) = (seed.dir, seed.mode, seed.segment_bytes);
        let order = Box::new(move |number| {
            let order = Order { dir: dir.clone(), number, bytes, mode, reply: reply.clone() };
            // The maker of spares is gone: the process is ending.
            orders.send(order).ok();
        });
        let tail = Self {
            ground,
            id: seed.id,
            mode,
            segment_bytes: bytes,
            active: RefCell::new(None),
            previous: Cell::new((seed.last_segment, seed.last_end)),
            next_frame: Cell::new(seed.next_frame),
            next_lsn: Cell::new(seed.next_lsn),
            chain: Cell::new(seed.chain),
            ordered: Cell::new(seed.spares.last().map_or(seed.last_segment, |s| s.number)),
            ready: RefCell::new(seed.spares.into()),
            spares,
            coming: Cell::new(0),
            order,
            rolling: Cell::new(false),
            pool,
        };
        tail.keep_ahead();
        tail
    }

    pub(super) fn ground(&self) -> &G {
        &self.ground
    }

    pub(super) fn next_lsn(&self) -> u64 {
        self.next_lsn.get()
    }

    /// Position after the newest frame.
    pub(super) fn position(&self) -> Position {
        match &*self.active.borrow() {
            Some(active) => Position::new(active.segment, active.offset),
            None => Position::new(self.previous.get().0, self.previous.get().1),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.active.borrow().is_some()
    }

    /// Segments made ahead.
    pub(super) fn spares_ready(&self) -> usize {
        self.ready.borrow().len() + self.spares.len()
    }

    /// Bytes that are left in the segment in use.
    fn left(&self) -> u64 {
        self.active.borrow().as_ref().map_or(0, |active| self.segment_bytes - active.offset)
    }

    /// Whether a frame of `payload` bytes fits in the segment in use; room for the seal stays.
    pub(super) fn fits(&self, payload: usize) -> bool {
        (frame::padded_len(payload) + frame::padded_len(0)) as u64 <= self.left()
    }

    /// Whether a frame of `payload` bytes of entries and `reserved` bytes more have a place, here or in
    /// a segment made ahead. The last one of these is for marks: a disk that is full drains through it.
    pub(super) fn room(&self, payload: usize, reserved: u64) -> bool {
        let here = frame::padded_len(payload) as u64 + reserved <= self.left() || self.rolling.get();
        self.spares_ready() > usize::from(!here)
    }

    fn keep_ahead(&self) {
        // Counted, not told from their numbers: of the spares that a start finds some may be missing in between.
        while self.ready.borrow().len() + self.coming.get() < AHEAD {
            self.coming.set(self.coming.get() + 1);
            self.ordered.set(self.ordered.get() + 1);
            (self.order)(self.ordered.get());
        }
    }

    /// Closes the frame in `buf`, of which `summed` is summed up already, and makes it durable behind the newest one.
    pub(super) async fn write_frame(
        &self,
        mut buf: AlignedBuf,
        kind: FrameKind,
        records: u32,
        summed: Summed,
    ) -> io::Result<(Position, AlignedBuf)> {
        let (file, position, salt) = {
            let active = self.active.borrow();
            let active = active.as_ref().ok_or_else(|| io::Error::other("no segment in use"))?;
            (Rc::clone(&active.file), Position::new(active.segment, active.offset), active.salt)
        };
        let header = frame::finish_summed(
            &mut buf,
            FrameHeader {
                kind,
                salt,
                number: self.next_frame.get(),
                first_lsn: self.next_lsn.get(),
                records,
                payload: 0,
                padded: 0,
                payload_crc: 0,
                durable_upto: self.next_lsn.get(),
                previous: self.chain.get(),
                written_at: self.ground.unix_ns(),
            },
            summed,
        );
        // Before the write: what comes in meanwhile must count with this space taken.
        if let Some(active) = self.active.borrow_mut().as_mut()
            && !(fault::planted("frame-overwritten") && header.number % 8 == 7)
        {
            active.offset += u64::from(header.padded);
        }
        let buf = self.write_durably(&file, buf, position.offset()).await?;
        self.next_frame.set(header.number + 1);
        self.next_lsn.set(header.next_lsn());
        self.chain.set(header.digest());
        Ok((position, buf))
    }

    /// Writes a frame without records, if a segment is in use.
    pub(super) async fn write_empty(&self, kind: FrameKind) -> io::Result<()> {
        if self.is_open() {
            let mut buf = self.pool.get();
            buf.set_len(HEADER);
            let (_, buf) = self.write_frame(buf, kind, 0, Summed::default()).await?;
            self.pool.put(buf);
        }
        Ok(())
    }

    async fn write_durably(&self, file: &G::File, buf: AlignedBuf, offset: u64) -> io::Result<AlignedBuf> {
        let len = buf.len();
        fault::pause("frame-write").await?;
        let (written, buf) = self.ground.write(file, buf, offset).await;
        let written = fault::end("frame-written", written)
            .or_else(|error| if fault::planted("write-error-ignored") { Ok(len) } else { Err(error) })?;
        if written != len && !fault::planted("short-write-ignored") {
            // The rest may or may not be there: nothing about this frame is known any more.
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("journal write at byte {offset} was short: {written} of {len} bytes"),
            ));
        }
        if self.mode == OpenMode::Buffered {
            self.ground.sync(file).await?;
        }
        Ok(buf)
    }

    /// Seals the segment in use and takes the next one. False if there is none.
    pub(super) async fn roll(&self) -> io::Result<bool> {
        let ready = self.ready.borrow_mut().pop_front();
        let came = || self.spares.try_recv().ok().inspect(|_| self.coming.set(self.coming.get() - 1));
        let Some(spare) = ready.or_else(came) else { return Ok(false) };
        self.rolling.set(true);
        self.write_empty(FrameKind::Seal).await?;
        fault::point("sealed");
        let file = Rc::new(self.ground.open(spare.file)?);
        let mut salt = Salt::default();
        self.ground.draw(&mut salt)?;
        let last = self.position();
        let mut buf = self.pool.get();
        SegmentHeader {
            journal: self.id,
            salt,
            number: spare.number,
            base_lsn: self.next_lsn.get(),
            first_frame: self.next_frame.get(),
            previous: self.chain.get(),
            previous_segment: last.segment(),
            previous_end: last.offset(),
            created_at: self.ground.unix_ns(),
        }
        .encode(&mut buf);
        let buf = self.write_durably(&file, buf, 0).await?;
        fault::point("segment-opened");
        self.pool.put(buf);
        self.previous.set((last.segment(), last.offset()));
        *self.active.borrow_mut() = Some(Active { file, segment: spare.number, salt, offset: FIRST_FRAME });
        self.rolling.set(false);
        self.keep_ahead();
        Ok(true)
    }
}
