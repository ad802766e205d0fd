//! Closed objects into one region's archive, in order, each with its index before it and its link behind it.
//!
//! A shipper has a thread of its own and waits for its store as long as it takes: the archiver, the other regions, answers
//! and deliveries never do. What it does not get done is still in the spool, and what the spool is not given is in the
//! journal.
//!
//! Invariant: whoever is told that an object is in the archive can rely on it, whatever happens: it was verified there,
//! and has its link if links are signed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::chain::{Chain, Head};
use super::disk::Disk;
use super::heads::Published;
use super::shelf::Shelf;
use super::spool::Ticket;
use super::store::{Body, Store, StoreFault, sums};
use super::strand::Order;
use crate::fault;
use crate::metrics::archive::ArchiveCells;

/// Pauses after a failure: doubled each time, up to the second.
const AGAIN_MS: (u64, u64) = (1_000, 30_000);
/// Failures after which a closed object that cannot be read is given up: the journal has it, too.
const UNREAD_MAX: u32 = 6;
/// How often a store is asked whether it still is as configured.
const CHECK_MS: u64 = 3_600_000;
/// How often it is looked whether an hour is over.
const LOOK: Duration = Duration::from_secs(1);

/// What the archiver is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The object of that journal that begins with that record is in the archive.
    Shipped { journal: String, first_lsn: u64 },
    /// It is not what was closed, and is to be made anew; orders of that journal are waited for anew, too.
    Damaged { journal: String, first_lsn: u64 },
}

/// The archiver's end.
#[derive(Debug)]
pub struct Dock {
    pub(super) orders: Sender<Order>,
    pub(super) told: Receiver<Told>,
}

/// What a shipper is made of.
#[derive(Debug)]
pub struct Pier {
    orders: Receiver<Order>,
    told: Sender<Told>,
}

/// Both ends of one region.
pub fn dock() -> (Dock, Pier) {
    let (orders, ordered) = crossbeam_channel::unbounded();
    let (tell, told) = crossbeam_channel::unbounded();
    (Dock { orders, told }, Pier { orders: ordered, told: tell })
}

/// Ships one region's objects.
pub struct Shipper<S, D> {
    store: S,
    disk: D,
    chain: Option<Chain<D>>,
    /// Where the newest links go besides, and below which folder.
    heads: Option<(Sender<Published>, String)>,
    pier: Pier,
    /// All regions', and which is this one.
    cells: Arc<Vec<ArchiveCells>>,
    region: usize,
    name: String,
    queue: VecDeque<Ticket>,
    /// By journal: the epoch whose orders count.
    epochs: BTreeMap<String, u32>,
    /// When to check the store.
    check_ms: u64,
    /// When to try again, and after how many failures.
    pause: Option<(u64, u32)>,
    /// How often in a row the first of the queue could not be read.
    unread: u32,
}

impl<S: Store + Shelf, D: Disk> Shipper<S, D> {
    /// `chain`: if links are signed.
    pub fn new(
        store: S,
        disk: D,
        chain: Option<Chain<D>>,
        pier: Pier,
        (cells, region): (Arc<Vec<ArchiveCells>>, usize),
        name: String,
    ) -> Self {
        let (queue, epochs) = (VecDeque::new(), BTreeMap::new());
        Self {
            store,
            disk,
            chain,
            heads: None,
            pier,
            cells,
            region,
            name,
            queue,
            epochs,
            check_ms: 0,
            pause: None,
            unread: 0,
        }
    }

    /// Publishes the newest links there, too, in `folder`.
    pub(super) fn publishing(mut self, heads: Option<Sender<Published>>, folder: String) -> Self {
        self.heads = heads.map(|heads| (heads, folder));
        self
    }

    /// Until the archiver is gone.
    pub fn run(mut self) {
        let start = Instant::now();
        loop {
            let wait = if self.queue.is_empty() || self.pause.is_some() { LOOK } else { Duration::ZERO };
            match self.pier.orders.recv_timeout(wait) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.turn(start.elapsed().as_millis() as u64);
        }
    }

    fn cells(&self) -> &ArchiveCells {
        &self.cells[self.region]
    }

    fn take(&mut self, Order { ticket, epoch }: Order) {
        if self.epochs.get(&ticket.object.journal).is_none_or(|counts| *counts <= epoch) {
            self.queue.push_back(ticket);
        }
    }

    /// Does what is due, and ships an object if there is one. `now_ms`: of any clock that only goes on.
    pub fn turn(&mut self, now_ms: u64) {
        while let Ok(order) = self.pier.orders.try_recv() {
            self.take(order);
        }
        if self.pause.is_some_and(|(until, _)| now_ms < until) {
            return;
        }
        match self.work(now_ms) {
            Ok(()) => {
                if self.pause.take().is_some() {
                    self.cells().unshipped.set(0);
                    tracing::info!(region = %self.name, "the archive takes objects again");
                }
            }
            Err(fault) => self.fail(&fault, now_ms),
        }
        self.publish();
    }

    fn work(&mut self, now_ms: u64) -> Result<(), StoreFault> {
        if now_ms >= self.check_ms {
            self.store.check()?;
            self.check_ms = now_ms + CHECK_MS;
        }
        self.prove()?;
        if let Some(ticket) = self.queue.front().cloned() {
            self.ship(&ticket)?;
            self.queue.pop_front();
        }
        Ok(())
    }

    /// Adds the digest of the hours that are over, also while there is always something to ship.
    fn prove(&mut self) -> Result<(), StoreFault> {
        let Some(chain) = &mut self.chain else { return Ok(()) };
        let Some(newest) = chain.tick(&mut self.store)? else { return Ok(()) };
        if let Some((heads, folder)) = &self.heads
            && heads.send(Published { region: self.region, folder: folder.clone(), newest }).is_err()
        {
            // Its thread has ended, which none does by itself.
            self.cells().unpublished.set(1);
        }
        Ok(())
    }

    fn ship(&mut self, ticket: &Ticket) -> Result<(), StoreFault> {
        let object = &ticket.object;
        let (journal, first_lsn) = (object.journal.clone(), object.first_lsn);
        let is_it = match self.is_whole(ticket) {
            // Its disk may have lost it for good; what the machine lacks for a while is not that.
            Err(error) if self.unread >= UNREAD_MAX => {
                tracing::error!(region = %self.name, file = %ticket.file.display(), %error, "a closed object cannot be read");
                false
            }
            Err(error) => {
                self.unread += 1;
                return Err(error.into());
            }
            Ok(is_it) => is_it,
        };
        self.unread = 0;
        // Without its tree it was closed before links were signed, and no link could be held to it.
        let is_it = is_it && (self.chain.is_none() || object.is_proven());
        // What has its link is in the archive, whatever became of it here.
        if !is_it
            && let Some(chain) = &mut self.chain
            && chain.has(&mut self.store, object)?
        {
            self.pier.told.send(Told::Shipped { journal, first_lsn }).ok();
            return Ok(());
        }
        if !is_it {
            tracing::error!(
                region = %self.name, file = %ticket.file.display(),
                "a closed object is not what is to be archived; it is made anew from the journal"
            );
            *self.epochs.entry(journal.clone()).or_default() += 1;
            self.queue.retain(|other| other.object.journal != journal);
            // The caller takes the first one off.
            self.queue.push_front(ticket.clone());
            self.pier.told.send(Told::Damaged { journal, first_lsn }).ok();
            return Ok(());
        }
        if !ticket.index.is_empty() {
            self.store.put(&object.index_name(), &Body::Bytes(&ticket.index))?;
        }
        let (bytes, sha256) = (object.bytes, object.sha256.as_str());
        let body = Body::File { path: &ticket.file, bytes, sha256, crc: ticket.crc };
        self.store.put(&object.name, &body)?;
        fault::point("object-put");
        if let Some(chain) = &mut self.chain
            && !fault::planted("object-not-linked")
        {
            chain.add(&mut self.store, object)?;
        }
        let cells = self.cells();
        cells.objects.add(1);
        cells.records.add(object.records);
        cells.raw_bytes.add(object.raw_bytes);
        cells.stored_bytes.add(object.bytes);
        // The archiver may have ended.
        self.pier.told.send(Told::Shipped { journal, first_lsn }).ok();
        Ok(())
    }

    /// Whether the spooled file is what was closed.
    fn is_whole(&self, ticket: &Ticket) -> io::Result<bool> {
        if !self.disk.exists(&ticket.file)? {
            return Ok(false);
        }
        let found = sums(self.disk.read(&ticket.file, 0)?, |_| Ok(()))?;
        Ok(found == (ticket.object.bytes, ticket.crc))
    }

    /// Says once per episode what the store does not do.
    fn fail(&mut self, fault: &StoreFault, now_ms: u64) {
        let failures = self.pause.map_or(0, |(_, failures)| failures);
        let pause = (AGAIN_MS.0 << failures.min(10)).min(AGAIN_MS.1);
        self.pause = Some((now_ms + pause, failures + 1));
        // Whatever it was: it may be another store now.
        self.check_ms = 0;
        let cells = self.cells();
        cells.faults[fault.reason as usize].add(1);
        cells.unshipped.set(1);
        if failures == 0 {
            tracing::error!(
                region = %self.name, reason = %fault.reason, %fault,
                "cannot archive; this machine keeps what is missing, and trying goes on"
            );
        }
    }

    /// For whoever asks: the newest link of the chain that is known to be durable.
    fn publish(&self) {
        if let Some(Head { number, hash }) = self.chain.as_ref().and_then(Chain::head)
            && self.cells().links.get() != number + 1
        {
            self.cells().links.set(number + 1);
            self.cells().head.send_replace(Some((*number, hash.clone())));
        }
    }
}
