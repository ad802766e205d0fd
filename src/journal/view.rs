//! A journal as the rest of the process sees it: where it lies, what recovery found, how far it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::marks::ParcelSet;
use super::recover::Span;
use super::segments::Segments;
use super::spare::OpenMode;
use super::{JournalId, Position};

/// A journal as those see it who only read it.
#[derive(Debug, Clone)]
pub struct JournalView {
    pub id: JournalId,
    pub dir: PathBuf,
    pub mode: OpenMode,
    /// What recovery found.
    pub spans: Arc<Vec<Span>>,
    /// Where recovery ended: what lies before was there at the start.
    pub end: Position,
    /// The process before this one stopped in good order: nothing was under way.
    pub clean: bool,
    /// Parcels settled before the start.
    pub settled: Arc<ParcelSet>,
    /// Still written to, by an ingest core of this process; `None` for a journal that is only read.
    pub published: Option<Arc<Published>>,
    pub archived: Arc<Archived>,
    /// Which segments are gone or thin by now.
    pub segments: Arc<Segments>,
}

/// How far a journal is archived: all before it rests in the archives of its regions.
#[derive(Debug)]
pub struct Archived(AtomicU64);

impl Archived {
    /// Nobody archives this journal, so nothing waits for it.
    pub fn never_asked() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Somebody archives it and has not said yet how far that is.
    pub fn not_yet() -> Self {
        Self(AtomicU64::new(Position::default().to_bits()))
    }

    pub fn upto(&self) -> Position {
        Position::from_bits(self.0.load(SeqCst))
    }

    pub fn set(&self, upto: Position) {
        self.0.store(upto.to_bits(), SeqCst);
    }
}

/// How far a journal is, as its ingest core tells the others.
#[derive(Debug, Default)]
pub struct Published {
    /// All before it is durable.
    durable: AtomicU64,
    /// All before it is durable and was pushed, or dropped with the overflow flag set.
    handed: AtomicU64,
}

impl Published {
    pub fn new(end: Position) -> Self {
        Self { durable: AtomicU64::new(end.to_bits()), handed: AtomicU64::new(end.to_bits()) }
    }

    pub fn durable(&self) -> Position {
        Position::from_bits(self.durable.load(SeqCst))
    }

    pub fn set_durable(&self, end: Position) {
        self.durable.store(end.to_bits(), SeqCst);
    }

    pub fn set_handed(&self, end: Position) {
        self.handed.store(end.to_bits(), SeqCst);
    }

    pub fn handed(&self) -> Position {
        Position::from_bits(self.handed.load(SeqCst))
    }
}

/// What every journal had published at one moment.
pub fn snapshot(journals: &[Arc<Published>]) -> Vec<Position> {
    let read = || -> Vec<Position> { journals.iter().map(|j| j.durable()).collect() };
    let mut last = read();
    loop {
        // A journal moves about once a millisecond and reading takes nanoseconds: the second look
        // nearly always agrees.
        let again = read();
        if again == last {
            return last;
        }
        last = again;
    }
}
