//! From the commit to the forwarding cores, in order, without waiting.
//!
//! # Order
//!
//! If webhook B arrives after A was answered 200, B's events follow A's on every forwarding core.
//! A is pushed before its 200 leaves, B after that; a forwarding core has one channel for all ingest
//! cores, so A is in front of B.
//!
//! # Overflow
//!
//! A full channel (in items, or in bytes that readers hold) is an outcome, not a wait: the ingest
//! core sets `overflow` and drops the item, which is safe because what is handed over is durable.
//! From then on nobody pushes. The forwarding core throws the channel's rest away, takes the flag
//! down, then takes a [`snapshot`](crate::journal::view::snapshot) of what every journal has published, and reads everything up to
//! there from the journals, merged by sequence number. What is pushed after the flag went down lies
//! either before the snapshot (skipped: it is being read) or behind it. The snapshot is one moment's:
//! it is read twice and kept only if nothing moved, so it never holds B without A.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};

use crate::fault;
use crate::journal::view::Published;
use crate::journal::{Committed, EntryAt, JournalIndex, Position};
use crate::metrics::IngestCells;
use crate::wake::Doorbell;

/// How much may wait in memory between the commit and the delivery; the rest waits in the journal.
/// A test makes them small to be at their edges all the time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Frames in a channel.
    pub frames: usize,
    /// Bytes of frames that all forwarding cores together may hold before reading takes over.
    pub held_bytes: usize,
    /// Parcels a region knows at once.
    pub window: usize,
    /// Waiting parcels of a region that keep their bytes while it is up.
    pub kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // At one commit a millisecond a second of traffic of one ingest core.
            frames: 1024,
            held_bytes: 128 * 1024 * 1024,
            // About 150 bytes each, so 10 MB a region.
            window: 65_536,
            kept: 8_192,
        }
    }
}

/// Lists of entries that are kept for the next frames of one forwarding core.
const LISTS: usize = 64;
/// Entries of the longest one: 64 KiB.
const LIST_MAX: usize = 2048;

/// Entries of one frame for one forwarding core.
#[derive(Debug)]
pub struct Handed {
    pub journal: JournalIndex,
    pub position: Position,
    pub next: Position,
    pub frame: Bytes,
    pub entries: Vec<EntryAt>,
}

/// One forwarding core as the ingest cores see it.
#[derive(Debug, Clone)]
pub struct Outlet {
    frames: Sender<Handed>,
    /// Lists that the forwarding core has done with.
    lists: Receiver<Vec<EntryAt>>,
    overflow: Arc<AtomicBool>,
    doorbell: Doorbell,
}

/// The forwarding core's own end.
#[derive(Debug)]
pub struct Inlet {
    frames: Receiver<Handed>,
    lists: Sender<Vec<EntryAt>>,
    overflow: Arc<AtomicBool>,
}

/// The two ends of one forwarding core's channel.
pub fn channel(doorbell: Doorbell, limits: Limits) -> (Outlet, Inlet) {
    let (give, take) = crossbeam_channel::bounded(limits.frames);
    let (back, lists) = crossbeam_channel::bounded(LISTS);
    let overflow = Arc::new(AtomicBool::new(false));
    (
        Outlet { frames: give, lists, overflow: Arc::clone(&overflow), doorbell },
        Inlet { frames: take, lists: back, overflow },
    )
}

impl Inlet {
    pub fn try_recv(&self) -> Option<Handed> {
        self.frames.try_recv().ok()
    }

    /// Takes the list of a frame back, to be filled again.
    pub fn give_back(&self, list: Vec<EntryAt>) {
        if list.capacity() <= LIST_MAX {
            // If enough are on their way this one is dropped.
            self.lists.try_send(list).ok();
        }
    }

    /// Nothing to take and nothing missed.
    pub fn idle(&self) -> bool {
        self.frames.is_empty() && !self.overflow.load(SeqCst)
    }

    /// Whether frames were dropped; they are to be read from the journals.
    pub fn overflowed(&self) -> bool {
        self.overflow.load(SeqCst)
    }

    /// Throws away what is queued and lets the ingest cores push again. Take the snapshot after this.
    pub fn reopen(&self) {
        while self.frames.try_recv().is_ok() {}
        self.overflow.store(false, SeqCst);
    }
}

/// An ingest core's side: gives each committed frame to the forwarding cores it concerns.
pub struct Handoff {
    journal: JournalIndex,
    published: Arc<Published>,
    outlets: Vec<Outlet>,
    held: Arc<AtomicUsize>,
    held_max: usize,
    cells: Arc<IngestCells>,
}

impl Handoff {
    pub fn new(
        journal: JournalIndex,
        published: Arc<Published>,
        outlets: Vec<Outlet>,
        held: Arc<AtomicUsize>,
        limits: Limits,
        cells: Arc<IngestCells>,
    ) -> Self {
        Self { journal, published, outlets, held, held_max: limits.held_bytes, cells }
    }

    /// Call when the frame is durable and before its webhooks are answered. Bit `n` of an entry's
    /// tag says that it concerns forwarding core `n`.
    pub fn committed(&self, committed: &mut Committed<'_>) {
        self.published.set_durable(committed.next);
        for (core, outlet) in self.outlets.iter().enumerate() {
            self.offer(core, outlet, committed);
        }
        self.published.set_handed(committed.next);
    }

    fn offer(&self, core: usize, outlet: &Outlet, committed: &mut Committed<'_>) {
        let concerned = |e: &&EntryAt| e.tag & (1 << core) != 0;
        let count = committed.entries.iter().filter(concerned).count();
        if count == 0 || outlet.overflow.load(SeqCst) {
            return;
        }
        let mut entries = outlet.lists.try_recv().unwrap_or_default();
        entries.clear();
        if count == committed.entries.len() && self.outlets.len() == 1 {
            std::mem::swap(&mut entries, committed.entries);
        } else {
            entries.extend(committed.entries.iter().filter(concerned));
        }
        let handed = Handed {
            journal: self.journal,
            position: committed.position,
            next: committed.next,
            frame: committed.frame.clone(),
            entries,
        };
        if self.held.load(Relaxed) > self.held_max || outlet.frames.try_send(handed).is_err() {
            outlet.overflow.store(!fault::planted("overflow-not-told"), SeqCst);
            self.cells.handoff_full.add(1);
        }
        if outlet.doorbell.ring() {
            self.cells.doorbells.add(1);
        }
    }
}
