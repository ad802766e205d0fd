//! One process, from its start on what the disk holds to its end: the shipped parts put together as
//! `shard` and `forward` put them together, on the world's own ground.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::BytesMut;
use crossbeam_channel::Receiver;
use penstock::archive::archiver::{Archiver, Read};
use penstock::archive::folder::Folder;
use penstock::archive::shipper::Shipper;
use penstock::config::Config;
use penstock::dead::keeper::{Keeper as LetterKeeper, Moment};
use penstock::dead::{Desk, Graves, Office};
use penstock::dedupe::{Inbox, Keeper, Seen as SeenKeys, log};
use penstock::entry::name_id;
use penstock::forward::attempt::{self, Attempts, RegionDesk, SourceDesk};
use penstock::forward::envelopes;
use penstock::forward::feed::{Feed, Taken};
use penstock::forward::region::{self, Region};
use penstock::forward::settle::{self, MarkBatch, Marks, Settler, Target};
use penstock::forward::sift::Sieve;
use penstock::forward::told::Told;
use penstock::handoff::{self, Handoff, Inlet, Limits};
use penstock::journal::account::{Account, Wrote};
use penstock::journal::disk::Disk;
use penstock::journal::free::{Freeing, Place, Round};
use penstock::journal::marks::ParcelSet;
use penstock::journal::read::{JournalReader, RecordReader};
use penstock::journal::recover::Recovered;
use penstock::journal::spare::{Order, Spare, segment_path};
use penstock::journal::store::{Folders, FoundJournal, Seen, hex, parse_id};
use penstock::journal::view::{Archived, JournalView, Published};
use penstock::journal::writer::Seed;
use penstock::journal::{Journal, JournalId, Position};
use penstock::metrics::archive::ArchiveCells;
use penstock::metrics::{ForwardCells, IngestCells, RegionCells};
use penstock::verify::Verifier;
use penstock::wake::{Doorbell, Notify};

use super::configs;
use super::disk::MemoryDisk;
use super::exec::{self, Exec};
use super::ground::{Machine, Shelf};
use super::network::{Line, Network};
use super::truth::{REGIONS, Truth};

mod core;
mod start;

pub(crate) use core::Core;
use core::Makes;
pub(crate) use start::left_open;
use start::make;

const ROOT: &str = "/data/journal";
const KEYS: &str = "/data/keys";
const CLEAN: &str = "/data/clean";

/// The archiver, and a shipper for each region.
type Archive = (Archiver<MemoryDisk>, Vec<Shipper<Folder<MemoryDisk>, MemoryDisk>>);

/// What a process is started with.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) ingest: usize,
    pub(crate) forward: usize,
    pub(crate) segment: u64,
    pub(crate) limits: Limits,
    pub(crate) memory: usize,
    pub(crate) archives: bool,
    pub(crate) doorbell: Doorbell,
}

/// The world ended meanwhile, or the disk refused.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) String);

impl<E: std::fmt::Display> From<E> for Ended {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

pub(crate) struct Life {
    pub(crate) machine: Machine,
    pub(crate) journals: Vec<Rc<Journal<Machine>>>,
    marks: Vec<Receiver<MarkBatch>>,
    pub(crate) cores: Vec<Core>,
    orders: Receiver<Order<PathBuf>>,
    waiting: RefCell<Vec<Order<PathBuf>>>,
    wrote: Receiver<Wrote>,
    freeing: RefCell<Freeing<MemoryDisk>>,
    short: Cell<bool>,
    archive: Option<Rc<RefCell<Archive>>>,
    pub(crate) views: Vec<JournalView>,
    pub(crate) held: Arc<AtomicUsize>,
    /// A journal could not be written: the process ends.
    pub(crate) failed: Rc<Cell<bool>>,
    pub(crate) finished: Rc<Cell<usize>>,
    pub(crate) seq: Cell<u64>,
    pub(crate) plan: Plan,
    stopping: Rc<Cell<bool>>,
    letters: RefCell<LetterKeeper<MemoryDisk>>,
    /// What a person may ask for.
    pub(crate) office: Office,
    truth: Rc<Truth>,
}

impl Life {
    pub(crate) fn exec(&self) -> &Rc<Exec> {
        &self.machine.exec
    }

    /// Looks into all channels, in any order. True if there was something.
    pub(crate) fn pump(&self) -> bool {
        let mut any = false;
        let (ingest, forward) = (self.marks.len(), self.cores.len());
        let start = self.machine.below((ingest + forward * 2) as u64) as usize;
        for turn in 0..ingest + forward * 2 {
            let at = (start + turn) % (ingest + forward * 2);
            if at < ingest {
                while let Ok((id, marks)) = self.marks[at].try_recv() {
                    self.journals[at].append_marks(id, marks);
                    any = true;
                }
            } else if at < ingest + forward {
                let core = &self.cores[at - ingest];
                if !self.stopping.get() && (!core.inlet.idle() || self.machine.one_in(16)) {
                    any |= !core.inlet.idle();
                    while core.feed.look(&core.inlet) == Taken::More {}
                }
            } else {
                let core = &self.cores[at - ingest - forward];
                any |= core.keep(&self.machine);
            }
        }
        // Its thread comes to it now or later.
        if !self.letters.borrow().is_idle() && self.machine.one_in(3) {
            any |= self.keep_letters();
        }
        any
    }

    pub(crate) fn tick(&self) {
        self.cores.iter().for_each(Core::tick);
        self.keep_letters();
    }

    /// The dead letters' thread. True if there was something that could be done.
    fn keep_letters(&self) -> bool {
        let mut keeper = self.letters.borrow_mut();
        let idle = keeper.is_idle();
        let unix_ms = exec::unix_ns() / 1_000_000;
        match keeper.turn(Moment { now: exec::now(), unix_ms }) {
            Ok(()) if !idle => self.truth.look_at_letters(&self.machine.disk),
            Ok(()) => {}
            Err(_) => self.failed.set(true),
        }
        !idle && keeper.is_idle()
    }

    /// The thread that makes segments and frees them; as `spare::Maker` does. False if the world ended.
    pub(crate) fn make_and_free(&self) -> bool {
        for wrote in self.wrote.try_iter() {
            self.freeing.borrow_mut().wrote(&wrote);
        }
        self.waiting.borrow_mut().extend(self.orders.try_iter());
        loop {
            match self.freeing.borrow_mut().round(self.short.get()) {
                Ok(Round::Partly) => continue,
                Ok(_) => break,
                Err(_) if self.machine.disk.has_ended() => return false,
                Err(_) => break,
            }
        }
        let disk = &self.machine.disk;
        while !self.waiting.borrow().is_empty() {
            let order = self.waiting.borrow_mut().remove(0);
            let path = segment_path(&order.dir, order.number);
            let reused = self.freeing.borrow_mut().reuse(&order.dir, order.number, order.bytes);
            let made = match reused {
                Ok(true) => Ok(path),
                _ => make(disk, &order.dir, order.number, order.bytes),
            };
            if disk.has_ended() {
                return false;
            }
            match made {
                Ok(file) => {
                    self.short.set(false);
                    order.reply.send(Spare { number: order.number, file }).ok();
                }
                Err(_) => {
                    self.short.set(true);
                    self.waiting.borrow_mut().insert(0, order);
                    break;
                }
            }
        }
        true
    }

    fn ends(&self) -> Vec<Position> {
        self.views.iter().map(|view| view.published.as_ref().map_or(view.end, |p| p.durable())).collect()
    }

    /// The archiver reads on in every journal; as `archive::run` does, and with `finish` until it has all. False if the
    /// world ended.
    pub(crate) fn archive(&self, finish: bool) -> bool {
        (0..if finish { 40 } else { 1 }).all(|_| self.archive_on(finish))
    }

    fn archive_on(&self, finish: bool) -> bool {
        let Some(archiver) = &self.archive else { return true };
        let (archiver, shippers) = &mut *archiver.borrow_mut();
        let (ends, now_ms) = (self.ends(), exec::elapsed().as_millis() as u64);
        let still = Machine { exec: Rc::new(Exec::default()), ..self.machine.clone() };
        for (journal, view) in self.views.iter().enumerate() {
            for place in archiver.places(journal, ends[journal], now_ms) {
                let shelf = Shelf { machine: still.clone(), dir: view.dir.clone() };
                let mut reader = JournalReader::over(view, super::ground::Quick(shelf));
                let mut asked = place;
                for _ in 0..if finish { usize::MAX } else { 1 + self.machine.below(8) as usize } {
                    let frame = reader.frame(asked, ends[journal]);
                    let Some(Ok(Some(frame))) = futures_util::FutureExt::now_or_never(frame) else { break };
                    let read = Read::of(asked, &frame);
                    archiver.take(journal, &read, now_ms).expect("an entry can be read");
                    asked = frame.next;
                }
            }
        }
        if finish {
            archiver.finish(&ends, now_ms);
        }
        // They have threads of their own, and ship one after the other.
        for _ in 0..8 {
            shippers.iter_mut().for_each(|shipper| shipper.turn(now_ms));
        }
        archiver.tick(&ends, now_ms);
        !self.machine.disk.has_ended()
    }

    // The stop, in its order.

    pub(crate) fn stop_forwarding(&self) {
        self.stopping.set(true);
        for core in &self.cores {
            core.feed.stop();
            core.regions.iter().for_each(|region| region.stop());
        }
    }

    pub(crate) fn busy(&self) -> usize {
        self.cores.iter().flat_map(|core| &core.regions).map(|region| region.busy()).sum()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.cores.iter().flat_map(|core| &core.regions).map(|region| region.waiting()).sum()
    }

    /// Parcels that went ahead of their region's backlog.
    pub(crate) fn ahead(&self) -> u64 {
        self.cores.iter().flat_map(|core| &core.regions).map(|region| region.cells().ahead.get()).sum()
    }

    /// How its regions stand.
    pub(crate) fn tell(&self) -> String {
        let regions = self.cores.iter().flat_map(|core| &core.regions);
        let tell = |region: &Rc<Region>| {
            let cells = region.cells();
            format!(
                "region {}: {} wait, {} under way, lagging {}, state {}, cursors {:?}",
                region.index,
                region.waiting(),
                region.busy(),
                region.lagging(),
                cells.state.get(),
                (0..self.views.len()).map(|journal| region.cursor(journal)).collect::<Vec<_>>()
            )
        };
        let ends = self.ends();
        let first = self.cores.iter().flat_map(|core| &core.regions).next();
        let read = |(journal, view): (usize, &JournalView)| {
            let shelf = Shelf { machine: self.machine.clone(), dir: view.dir.clone() };
            let mut reader = JournalReader::over(view, super::ground::Quick(shelf));
            let at = first.map(|region| region.cursor(journal).frame).unwrap_or_default();
            let frame = futures_util::FutureExt::now_or_never(reader.frame(at, ends[journal]));
            match frame {
                Some(Ok(frame)) => {
                    format!("journal {journal} has {:?} there", frame.map(|frame| frame.position))
                }
                Some(Err(error)) => format!("journal {journal}: {error}"),
                None => String::new(),
            }
        };
        let journals: Vec<String> = self.views.iter().enumerate().map(read).collect();
        regions.map(tell).collect::<Vec<_>>().join("; ") + &format!("; {journals:?}; durable {ends:?}")
    }

    pub(crate) fn settled(&self) -> bool {
        self.cores.iter().all(|core| {
            core.settler.flush();
            core.settler.idle() && core.attempts.dead.idle()
        })
    }

    pub(crate) fn uncertain(&self) -> bool {
        let certain =
            |core: &Core| core.regions.iter().all(|region| !region.uncertain()) && !core.feed.in_doubt();
        !self.cores.iter().all(certain)
    }

    pub(crate) fn seal(&self) {
        self.journals.iter().for_each(|journal| journal.stop());
    }

    /// As `Store::leave_clean` does.
    pub(crate) fn leave_clean(&self) -> io::Result<()> {
        let disk = &self.machine.disk;
        disk.write_zeros(Path::new(CLEAN), 0)?;
        Disk::sync(disk, Path::new(CLEAN))?;
        Disk::sync_dir(disk, Path::new("/data"))
    }
}
