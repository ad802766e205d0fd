//! Entries into regions: from the channel while all goes well, from the journals where not.
//!
//! Three situations have one answer. After a start there is a backlog; a full channel drops frames;
//! a region that is slower than its traffic fills its window. In each the region *lags*: it remembers how
//! far it got (a cursor per journal), and reads the journals
//! from there, merged by sequence number, until it stands where the core itself stands; from that
//! moment it is live again. Meanwhile it takes from the channel only what may go ahead of what it has not read
//! (`lag`). The core's own standing only ever moves over moments of which it is
//! known that whatever was acknowledged before them is behind it too, so a lagging region may read
//! everything up to there in the order of the sequence numbers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bury;
use super::item::Item;
use super::lag::Cursor;
use super::parts::outgoing;
use super::region::Region;
use super::settle::Settler;
use super::sift::{News, Sieve};
use super::told::Told;
use super::waits::Waits;
use crate::dead::Desk;
use crate::entry::Meta;
use crate::fault;
use crate::handling::{Step, Watch};
use crate::handoff::{Handed, Inlet};
use crate::journal::buffer::BufferPool;
use crate::journal::record::{self, Record};
use crate::journal::view::{JournalView, Published, snapshot};
use crate::journal::{JournalIndex, Mark, Position, Settled};
use crate::parse::Parser;
use crate::wake::{Bell, Notify, Yield};

mod head;
mod pace;
mod pass;

pub use pace::{Pace, Taken};

/// Entries handled before other tasks of the core get their turn.
const TURN: usize = 256;
/// Pause between two turns while the core has other things to do: a turn is some of what it may try meanwhile, or all.
const PAUSE: Duration = Duration::from_millis(100);

/// Brings entries to the regions of one core.
pub struct Feed {
    journals: Vec<JournalView>,
    /// What the core has taken from the channel: all before it, of each journal.
    standing: RefCell<Vec<Position>>,
    /// By region id. Ids that no region has any more go to the default region.
    by_id: HashMap<u32, Option<Rc<Region>>>,
    /// The default region, if this core owns it.
    orphans: Option<Rc<Region>>,
    regions: Vec<Rc<Region>>,
    sieve: Rc<Sieve>,
    settler: Rc<Settler>,
    dead: Desk,
    watch: Rc<Watch>,
    told: Told,
    waits: RefCell<Waits>,
    search: RefCell<Search>,
    /// For parcels of which some is a repeat.
    parser: RefCell<Parser>,
    pool: BufferPool,
    /// Something lags and may have room; regions notify it too.
    lag: Rc<Notify>,
    stopping: Cell<bool>,
}

/// The search for the oldest of what waits.
#[derive(Debug, Default)]
struct Search {
    /// The region that is to be asked next.
    turn: usize,
    /// Minute in which it, or the last one, began.
    begun: Option<u32>,
    /// By journal, so far.
    oldest: Vec<Position>,
}

impl Feed {
    /// `by_id` has every configured region: `None` for those of other cores.
    pub fn new(
        journals: Vec<JournalView>,
        by_id: HashMap<u32, Option<Rc<Region>>>,
        orphans: Option<Rc<Region>>,
        (sieve, settler, dead): (Rc<Sieve>, Rc<Settler>, Desk),
        watch: Rc<Watch>,
        pool: BufferPool,
        lag: Rc<Notify>,
    ) -> Self {
        let standing: Vec<Position> = journals.iter().map(|j| j.end).collect();
        let mut regions: Vec<Rc<Region>> = by_id.values().flatten().cloned().collect();
        regions.sort_by_key(|region| region.index);
        for region in &regions {
            region.lag(vec![Cursor::default(); journals.len()], &standing);
        }
        let waits = RefCell::new(Waits::new(sieve.minute(), standing.clone()));
        Self {
            journals,
            standing: RefCell::new(standing),
            by_id,
            orphans,
            regions,
            sieve,
            settler,
            dead,
            watch,
            told: Told::default(),
            waits,
            search: RefCell::default(),
            parser: RefCell::default(),
            pool,
            lag,
            stopping: Cell::new(false),
        }
    }

    pub fn stop(&self) {
        self.stopping.set(true);
        self.lag.notify();
    }

    /// Lagging regions look for more in the journals: what does not concern this core moves a journal
    /// on without ringing here.
    pub fn look_again(&self) {
        if self.regions.iter().any(|r| r.lagging()) {
            self.lag.notify();
        }
    }

    /// Takes from the channel until `stopping`; only some of it while the core has `other_things` to do.
    pub async fn live(
        &self,
        inlet: &Inlet,
        bell: &Bell,
        aside: &Yield,
        stopping: impl Fn() -> bool,
        other_things: impl Fn() -> bool,
    ) -> std::io::Result<()> {
        while !stopping() {
            match self.look(inlet) {
                // The rest stays in the channel or, if that is full, in the journal; and nobody rings meanwhile.
                Taken::More if other_things() => monoio::time::sleep(PAUSE).await,
                Taken::More => aside.now().await?,
                Taken::All => bell.wait(|| inlet.idle() && !stopping()).await?,
            }
        }
        Ok(())
    }

    /// Whether entries that an earlier process may have delivered, since it did not end in good order, have
    /// not been taken up yet: they must still say so after the next start.
    pub fn in_doubt(&self) -> bool {
        let unread = |region: &Rc<Region>, journal: JournalIndex, view: &JournalView| {
            !view.clean && region.cursor(journal).frame < view.end
        };
        self.regions.iter().filter(|region| region.lagging()).any(|region| {
            self.journals.iter().enumerate().any(|(journal, view)| unread(region, journal, view))
        })
    }

    /// Looks for the oldest of what waits, once a minute and in one region at a call, so that no key is forgotten that
    /// it may be a repeat of; call every few tens of milliseconds.
    pub fn hold(&self) {
        let Search { turn, begun, oldest } = &mut *self.search.borrow_mut();
        if *turn == 0 {
            let minute = self.sieve.minute();
            if begun.replace(minute) == Some(minute) {
                return;
            }
            let standing = self.standing.borrow();
            self.waits.borrow_mut().note(minute, &standing);
            // What comes during the search lies behind.
            oldest.clone_from(&standing);
        }
        if let Some(region) = self.regions.get(*turn) {
            region.lower(oldest);
            *turn += 1;
        }
        if *turn >= self.regions.len() {
            *turn = 0;
            self.sieve.hold(self.waits.borrow_mut().since(oldest));
        }
    }

    /// Takes a turn's worth from the channel.
    pub fn look(&self, inlet: &Inlet) -> Taken {
        loop {
            let handed: Vec<Option<Position>> =
                self.journals.iter().map(|j| j.published.as_ref().map(|p| p.handed())).collect();
            let mut taken = 0;
            while taken < TURN
                && let Some(frame) = inlet.try_recv()
            {
                taken += frame.entries.len();
                self.take(&frame);
                inlet.give_back(frame.entries);
            }
            if taken >= TURN {
                return Taken::More;
            }
            if inlet.overflowed() {
                self.overflow(inlet);
                continue;
            }
            // The channel is empty and nothing was missed: what was handed over before we looked is here.
            for (mine, handed) in self.standing.borrow_mut().iter_mut().zip(handed) {
                *mine = (*mine).max(handed.unwrap_or_default());
            }
            if self.regions.iter().any(|r| r.lagging()) {
                self.lag.notify();
            }
            return Taken::All;
        }
    }

    fn take(&self, handed: &Handed) {
        if handed.position < self.standing.borrow()[handed.journal] {
            // Pushed late, after a snapshot that covers it.
            return;
        }
        for entry in &handed.entries {
            let range = entry.offset as usize..(entry.offset + entry.len) as usize;
            self.offer(handed.journal, handed.position, entry.lsn, &handed.frame, range, None);
        }
        self.standing.borrow_mut()[handed.journal] = handed.next;
        for region in &self.regions {
            region.kick();
            if !region.lagging() && region.full() {
                region.lag(self.cursors(), &self.standing.borrow());
            }
        }
    }

    fn overflow(&self, inlet: &Inlet) {
        let before = self.cursors();
        inlet.reopen();
        let published: Vec<Arc<Published>> =
            self.journals.iter().filter_map(|j| j.published.clone()).collect();
        let mut moments = snapshot(&published).into_iter();
        for (mine, journal) in self.standing.borrow_mut().iter_mut().zip(&self.journals) {
            if journal.published.is_some()
                && let Some(moment) = moments.next()
            {
                *mine = (*mine).max(moment);
            }
        }
        let before = if fault::planted("cursor-forgotten") { self.cursors() } else { before };
        let standing = self.standing.borrow();
        for region in &self.regions {
            if region.lagging() {
                region.missed(&standing);
            } else {
                region.lag(before.clone(), &standing);
            }
        }
        self.lag.notify();
    }

    fn cursors(&self) -> Vec<Cursor> {
        self.standing.borrow().iter().map(|frame| Cursor::before(*frame)).collect()
    }

    /// Gives one entry to its regions on this core. From the channel to live regions, and to lagging ones that
    /// may take it ahead (`lag`); in a pass, to the regions that take part and have not had it. Its checksum is not looked at: what comes
    /// through the channel was never on a disk, and a reader has verified the whole frame.
    fn offer(
        &self,
        journal: JournalIndex,
        position: Position,
        lsn: u64,
        frame: &Bytes,
        record: Range<usize>,
        pass: Option<(&[Rc<Region>], Cursor)>,
    ) {
        let view = &self.journals[journal];
        let old = position < view.end;
        let Some(bytes) = frame.get(record.clone()) else { return };
        let Ok((Record::Entry(entry), _)) = record::read_known(bytes) else { return };
        let meta = match Meta::read(entry.meta) {
            Ok(meta) => meta,
            Err(fault) => {
                // Of a newer version there may be thousands.
                if self.told.is_due(0, "unreadable", Instant::now()) {
                    tracing::error!(
                        lsn, %fault,
                        "entries of the journal cannot be read, this one and maybe others; they stay there"
                    );
                }
                return;
            }
        };
        for (slot, id) in (0u16..).zip(meta.regions()) {
            let region = match self.by_id.get(&id) {
                Some(owned) => owned.as_ref(),
                None => self.orphans.as_ref(),
            };
            let Some(region) = region else { continue };
            match pass {
                // What this process stored has one slot for each region, so the entry names the parcel.
                None if region.lagging() && !region.comes(journal, lsn, meta.conversations(slot)) => continue,
                Some((takers, at))
                    if !takers.iter().any(|r| Rc::ptr_eq(r, region))
                        || at < region.cursor(journal) && !fault::planted("entry-offered-twice")
                        || !region.passes(journal, at, meta.conversations(slot)) =>
                {
                    continue;
                }
                _ => {}
            }
            if old && view.settled.contains(lsn, slot) {
                // What it delivered, the key log told. The journal could not: a parcel may be settled as a
                // repeat of one with a higher sequence number, which still waits.
                continue;
            }
            let at = (journal, lsn, slot);
            let unsifted = self.watch.is_quarantined(Step::Sift, at);
            let quarantined = unsifted || self.watch.is_quarantined(Step::Cut, at);
            let news = if unsifted {
                // Whether it is a repeat nobody knows: all of it is given up.
                Some(News { repeats: None, uncertain: true })
            } else {
                self.watch.during(Step::Sift, at, || {
                    fault::poison("sift", entry.body);
                    self.sieve.sift(region, &meta, slot, pass.is_some())
                })
            };
            fault::point("sifted");
            let held = if old { self.dead.held(&view.id, lsn, slot) } else { None };
            let news = match held {
                Some(held) => bury::rest(held, news, &meta, slot),
                None => news,
            };
            if news.is_none() && held.is_some() {
                // A crash came between its letter and its mark.
                region.cells().dead.add(1);
                let mark = Mark { lsn, slot, outcome: Settled::Dead, tag: region.id };
                let events = meta.events().filter(|event| event.slot == slot);
                self.settler.settle(journal, Some(mark), region.id, events);
                continue;
            }
            if fault::planted("claimed-before-delivered") {
                let events = meta.events().filter(|event| event.slot == slot);
                self.settler.settle(journal, None, region.id, events);
            }
            let Some(News { repeats, uncertain }) = news else {
                region.cells().repeated.add(1);
                let mark = Mark { lsn, slot, outcome: Settled::Duplicate, tag: region.id };
                self.settler.settle(journal, Some(mark), region.id, std::iter::empty());
                continue;
            };
            let item = Item {
                journal: journal as u32,
                lsn,
                frame: position,
                offset: record.start as u32,
                len: bytes.len() as u32,
                slot,
                uncertain: uncertain || old && !view.clean,
                quarantined,
                live: pass.is_none(),
                repeats,
                ..Item::default()
            };
            // A conversation of which nothing goes out neither waits for this nor is told a gap by it.
            let partly = item.repeats.is_some()
                && !self.watch.is_quarantined(Step::Lanes, at)
                && !fault::planted("repeats-stand-in-line");
            let conversations = partly.then(|| {
                self.watch.during(Step::Lanes, at, || {
                    fault::poison("lanes", entry.body);
                    outgoing(&mut self.parser.borrow_mut(), entry.body, &meta, &item)
                })
            });
            let record = || frame.slice(record.clone());
            match conversations.flatten() {
                Some(conversations) => region.push(item, conversations.into_iter(), record),
                None => region.push(item, meta.conversations(slot), record),
            }
        }
    }
}
