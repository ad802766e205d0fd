//! What is settled, on its way: first its keys to the key log, then its mark to the ingest core that
//! writes the journal it is in.
//!
//! Collected for a moment and handed over in batches to the key log's thread, which lets the marks go
//! on once the keys are durable; what is not taken stays here. Losing marks in a crash costs nothing if the
//! keys were durable, and a repeat if not; never a loss.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::dedupe::{Batch, Clock, Keeper, log};
use crate::entry::EventRow;
use crate::fault;
use crate::journal::{JournalId, JournalIndex, Mark};
use crate::metrics::ForwardCells;
use crate::wake::Doorbell;

/// Marks that are handed over at once without waiting for the next tick.
const BATCH: usize = 4096;
/// Batches that may wait at an ingest core; it takes them with every commit.
const QUEUE: usize = 1024;

/// Marks for the entries of one journal.
pub type MarkBatch = (JournalId, Vec<Mark>);

/// Marks by index of the journal: what waits for keys to be durable.
pub type Marks = Vec<Vec<Mark>>;

/// An ingest core's marks, as the forwarding cores see it.
#[derive(Debug, Clone)]
pub struct MarkOutlet {
    batches: Sender<MarkBatch>,
    doorbell: Doorbell,
}

pub fn channel(doorbell: Doorbell) -> (MarkOutlet, Receiver<MarkBatch>) {
    let (give, take) = crossbeam_channel::bounded(QUEUE);
    (MarkOutlet { batches: give, doorbell }, take)
}

/// Where the marks of one journal go.
#[derive(Debug)]
pub struct Target {
    pub journal: JournalId,
    pub outlet: MarkOutlet,
}

/// Gives marks to their ingest cores; false if some are left because a channel is full.
pub fn pass_on(targets: &[Target], marks: &mut Marks, cells: &ForwardCells) -> bool {
    let mut all = true;
    for (target, marks) in targets.iter().zip(marks.iter_mut()).filter(|(_, marks)| !marks.is_empty()) {
        match target.outlet.batches.try_send((target.journal, std::mem::take(marks))) {
            Ok(()) => {
                fault::point("marks-passed");
                if target.outlet.doorbell.ring() {
                    cells.doorbells.add(1);
                }
            }
            Err(TrySendError::Full((_, back)) | TrySendError::Disconnected((_, back))) => {
                *marks = back;
                all = false;
            }
        }
    }
    all
}

/// What one forwarding core has settled.
pub struct Settler {
    keeper: RefCell<Keeper<Marks>>,
    waiting: RefCell<Waiting>,
    journals: usize,
    /// Of the clock that keys are remembered by.
    minute: Cell<u32>,
    cells: Arc<ForwardCells>,
}

struct Waiting {
    records: Vec<u8>,
    marks: Marks,
    count: usize,
}

impl Waiting {
    fn new(journals: usize) -> Self {
        Self { records: Vec::new(), marks: vec![Vec::new(); journals], count: 0 }
    }
}

impl Settler {
    pub fn new(keeper: Keeper<Marks>, journals: usize, minute: u32, cells: Arc<ForwardCells>) -> Self {
        Self {
            keeper: RefCell::new(keeper),
            waiting: RefCell::new(Waiting::new(journals)),
            journals,
            minute: Cell::new(minute),
            cells,
        }
    }

    /// A parcel of `region` is settled, or a part of one (then without a mark, unless it is the last);
    /// `events` are remembered over restarts.
    pub fn settle(
        &self,
        journal: JournalIndex,
        mark: Option<Mark>,
        region: u32,
        events: impl Iterator<Item = EventRow>,
    ) {
        self.cells.marks.add(u64::from(mark.is_some()));
        let mut waiting = self.waiting.borrow_mut();
        let minute = self.minute.get();
        for EventRow { key, value, .. } in events {
            log::push(&log::Record { key, value, minute, region }, &mut waiting.records);
        }
        waiting.marks[journal].extend(mark);
        waiting.count += 1;
        if waiting.count.is_multiple_of(BATCH) {
            self.hand_over(&mut waiting);
        }
    }

    /// The clock, for the keys from now on.
    pub fn tell(&self, clock: Clock) {
        self.minute.set(clock.minute);
        self.keeper.borrow().tell(clock);
    }

    /// Hands over what waits; call every few tens of milliseconds and at the end.
    pub fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.count > 0 {
            self.hand_over(&mut waiting);
        }
    }

    /// True if every mark is with its ingest core.
    pub fn idle(&self) -> bool {
        self.waiting.borrow().count == 0 && self.keeper.borrow().idle()
    }

    fn hand_over(&self, waiting: &mut Waiting) {
        let Waiting { records, marks, count } = std::mem::replace(waiting, Waiting::new(self.journals));
        if let Err(Batch { records, then }) = self.keeper.borrow_mut().keep(Batch { records, then: marks }) {
            *waiting = Waiting { records, marks: then, count };
        }
    }
}
