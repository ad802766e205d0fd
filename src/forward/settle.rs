//! Marks on their way back: what is settled goes to the ingest core that writes the journal it is in.
//!
//! Collected for a moment and sent in batches; a full channel keeps them here. Losing them in a
//! crash costs duplicates, never a loss.

use std::cell::RefCell;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::journal::{JournalId, JournalIndex, Mark};
use crate::metrics::ForwardCells;
use crate::wake::Doorbell;

/// Marks that are sent at once without waiting for the next tick.
const BATCH: usize = 256;
/// Batches that may wait at an ingest core; it takes them with every commit.
const QUEUE: usize = 1024;

/// Marks for the entries of one journal.
pub type MarkBatch = (JournalId, Vec<Mark>);

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

/// The marks of one forwarding core.
pub struct Settler {
    targets: Vec<Target>,
    waiting: RefCell<Vec<Vec<Mark>>>,
    cells: Arc<ForwardCells>,
}

impl Settler {
    pub fn new(targets: Vec<Target>, cells: Arc<ForwardCells>) -> Self {
        let waiting = RefCell::new(targets.iter().map(|_| Vec::new()).collect());
        Self { targets, waiting, cells }
    }

    /// A parcel is settled.
    pub fn settle(&self, journal: JournalIndex, mark: Mark) {
        self.cells.marks.add(1);
        let mut waiting = self.waiting.borrow_mut();
        waiting[journal].push(mark);
        if waiting[journal].len() >= BATCH {
            self.send(journal, &mut waiting[journal]);
        }
    }

    /// Sends what waits; call every few tens of milliseconds and at the end. True if nothing is left.
    pub fn flush(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        for (journal, marks) in waiting.iter_mut().enumerate() {
            if !marks.is_empty() {
                self.send(journal, marks);
            }
        }
        waiting.iter().all(Vec::is_empty)
    }

    fn send(&self, journal: JournalIndex, marks: &mut Vec<Mark>) {
        let target = &self.targets[journal];
        match target.outlet.batches.try_send((target.journal, std::mem::take(marks))) {
            Ok(()) => {
                if target.outlet.doorbell.ring() {
                    self.cells.doorbells.add(1);
                }
            }
            Err(TrySendError::Full((_, back)) | TrySendError::Disconnected((_, back))) => *marks = back,
        }
    }
}
