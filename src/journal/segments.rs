//! Which segments are gone or thin, told to those of this process who read them.
//!
//! A segment's file may be emptied, removed or used again under a reader. So the word is given before
//! the file is touched, and a reader asks again after it has read: bytes that came from a file that was
//! free by then are not used.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use super::floor::Floor;

/// The floor of one journal, shared.
#[derive(Debug, Default)]
pub struct Segments {
    changes: AtomicU64,
    /// Held for the copy of a pointer, about once a second at most.
    floor: RwLock<Arc<Floor>>,
}

/// One reader's copy.
#[derive(Debug)]
pub struct SegmentsView {
    shared: Arc<Segments>,
    seen: u64,
    floor: Arc<Floor>,
}

impl Segments {
    pub fn new(floor: Floor) -> Self {
        Self { changes: AtomicU64::new(0), floor: RwLock::new(Arc::new(floor)) }
    }

    /// Call when the new floor is durable and before any file is touched because of it.
    pub fn set(&self, floor: Floor) {
        *self.floor.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(floor);
        self.changes.fetch_add(1, SeqCst);
    }

    fn get(&self) -> Arc<Floor> {
        Arc::clone(&self.floor.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SegmentsView {
    pub fn new(shared: Arc<Segments>) -> Self {
        let seen = shared.changes.load(SeqCst);
        let floor = shared.get();
        Self { shared, seen, floor }
    }

    /// As it is now.
    pub fn now(&mut self) -> &Floor {
        self.version();
        &self.floor
    }

    /// Another number each time that it changed, whoever looked at it meanwhile.
    pub fn version(&mut self) -> u64 {
        let changes = self.shared.changes.load(SeqCst);
        if changes != self.seen {
            self.seen = changes;
            self.floor = self.shared.get();
        }
        self.seen
    }
}
