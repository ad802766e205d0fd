//! One region's part of one journal, on its way into the region's archive.
//!
//! A strand stands somewhere in the journal, on its own: one whose objects cannot be written falls back to the last
//! closed one, gives its memory back and tries again later, and no other feels it. A few closed objects may wait for
//! the archive; while it does not take them the strand reads no further, and the journal keeps the rest.
//!
//! Invariant: what [`Strand::row`] tells is true at any moment, whatever becomes of the open object and of those that
//! wait: all the region's entries before it are in the archive.

use std::collections::VecDeque;
use std::io;

use super::chain::ObjectLink;
use super::disk::Disk;
use super::pack::{Frames, Name, Pack, Rules};
use super::record::{RecordFault, Records, Webhook};
use super::spool::{Spool, Ticket, Unfinished};
use super::unarchived::Unarchived;
use crate::fault;
use crate::handling::{Step, Watch};
use crate::journal::{JournalIndex, Position};
use crate::stamp::Hour;

/// Pauses after a failure: doubled each time, up to the second.
const AGAIN_MS: (u64, u64) = (1_000, 30_000);
/// Closed objects that wait for the archive: more than one, so that it need not wait for the next.
const WAITING_MAX: usize = 4;

/// Why a strand cannot go on for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Archive(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordFault),
}

/// What strands work with.
pub(super) struct Tools<'a, D: Disk> {
    pub(super) spool: &'a mut Spool<D>,
    pub(super) gateway: &'a str,
    pub(super) records: &'a mut Records,
    pub(super) frames: &'a mut Frames,
    pub(super) unarchived: &'a Unarchived<D>,
    pub(super) watch: &'a Watch,
    pub(super) journal: JournalIndex,
    /// In hex.
    pub(super) journal_id: &'a str,
    pub(super) now_ms: u64,
}

pub(super) struct Strand<F> {
    pub(super) region: usize,
    /// The frame to read next.
    at: Position,
    /// Entries below are in a closed object or in the open one.
    next_lsn: u64,
    pack: Pack,
    object: Option<Object<F>>,
    /// Closed objects that are not in the archive yet.
    waiting: VecDeque<Waiting>,
    /// Closed objects for the archive that nobody was told of yet.
    pub(super) orders: Vec<Order>,
    /// Objects in the archive, and nobody has noted it yet.
    pub(super) done: Vec<Ticket>,
    /// Counts how often what waited was made anew.
    epoch: u32,
    /// When the oldest entry was received that no closed object has, or nearly; unix milliseconds, 0 = not known.
    oldest_ms: u64,
    /// When to try again, and after how many failures.
    pause: Option<(u64, u32)>,
    /// It has the frame that is being read.
    takes: bool,
    /// It knows what an earlier process closed.
    begun: bool,
}

struct Object<F> {
    file: Unfinished<F>,
    name: Name,
    /// Frame of its first record.
    first: Position,
}

/// A closed object that is not in the archive yet.
struct Waiting {
    ticket: Ticket,
    /// Frame of its first record, and when that was received.
    first: Position,
    oldest_ms: u64,
}

/// A closed object, for the archive.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub ticket: Ticket,
    /// Orders of an earlier one are taken back.
    pub epoch: u32,
}

impl<F> Strand<F> {
    /// `oldest_ms`: what is not read yet was received before.
    pub(super) fn new(region: usize, at: Position, next_lsn: u64, rules: Rules, oldest_ms: u64) -> Self {
        Self {
            region,
            at,
            next_lsn,
            pack: Pack::new(rules),
            object: None,
            waiting: VecDeque::new(),
            orders: Vec::new(),
            done: Vec::new(),
            epoch: 0,
            oldest_ms,
            pause: None,
            takes: false,
            begun: false,
        }
    }

    /// The frame to read next, unless the strand waits: after a failure, or for the archive.
    pub(super) fn ready(&self, now_ms: u64) -> Option<Position> {
        let full = self.waiting.len() + self.done.len() >= WAITING_MAX;
        (self.begun && !self.paused(now_ms) && !full).then_some(self.at)
    }

    fn paused(&self, now_ms: u64) -> bool {
        self.pause.is_some_and(|(until, _)| now_ms < until)
    }

    /// Whether it does not know yet what an earlier process closed, and may ask now.
    pub(super) fn is_to_begin(&self, now_ms: u64) -> bool {
        !self.begun && !self.paused(now_ms)
    }

    /// Finds out what an earlier process closed. Before any object is made.
    pub(super) fn start<D: Disk<File = F>>(&mut self, tools: &mut Tools<'_, D>) -> Result<(), Fault> {
        self.next_lsn = self.next_lsn.max(tools.spool.lost(tools.journal_id)?);
        (self.begun, self.pause) = (true, None);
        Ok(())
    }

    /// Position and LSN before which all of the region's entries are in the archive.
    pub(super) fn row(&self) -> (Position, u64) {
        match self.waiting.front() {
            Some(waiting) if !fault::planted("progress-before-archive") => {
                (waiting.first, waiting.ticket.object.first_lsn)
            }
            _ if fault::planted("progress-before-object") => (self.at, self.next_lsn),
            _ => self.closed(),
        }
    }

    /// Position and LSN before which all of the region's entries are in closed objects.
    fn closed(&self) -> (Position, u64) {
        let object = self.object.as_ref().map(|object| (object.first, object.name.first_lsn));
        object.unwrap_or((self.at, self.next_lsn))
    }

    /// When the oldest entry was received that is not in the archive; 0 = there is none. `end`: all before it is durable.
    pub(super) fn oldest_ms(&self, end: Position) -> u64 {
        match self.waiting.front() {
            Some(waiting) => waiting.oldest_ms,
            None if self.object.is_some() || self.pause.is_some() || self.at < end => self.oldest_ms,
            None => 0,
        }
    }

    /// Of the closed objects that are not in the archive yet, or not noted.
    pub(super) fn waiting_bytes(&self) -> u64 {
        let waiting = self.waiting.iter().map(|waiting| &waiting.ticket);
        waiting.chain(&self.done).map(|ticket| ticket.object.bytes).sum()
    }

    /// Whether closed objects are not in the archive yet.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The oldest of the objects that wait is in the archive.
    pub(super) fn shipped(&mut self, first_lsn: u64) {
        if self.waiting.front().is_some_and(|waiting| waiting.ticket.object.first_lsn == first_lsn) {
            self.done.extend(self.waiting.pop_front().map(|waiting| waiting.ticket));
        }
    }

    /// The oldest of the objects that wait is not what was closed: it is made anew, from the journal, and those after it
    /// are looked for again.
    pub(super) fn redo<D: Disk<File = F>>(&mut self, first_lsn: u64, spool: &mut Spool<D>) {
        let is_it = |waiting: &&Waiting| waiting.ticket.object.first_lsn == first_lsn;
        let Some(Waiting { first, oldest_ms, .. }) = self.waiting.front().filter(is_it) else { return };
        (self.at, self.next_lsn, self.oldest_ms) = (*first, first_lsn, *oldest_ms);
        if let Some(object) = self.object.take() {
            spool.discard(object.file);
        }
        self.pack.end();
        self.takes = false;
        self.epoch += 1;
        self.orders.clear();
        spool.put_back(self.waiting.drain(..).skip(1).map(|waiting| waiting.ticket));
    }

    pub(super) fn failing(&self) -> bool {
        self.pause.is_some()
    }

    /// A frame comes, the first one at or after `asked`. Strands that stand elsewhere have nothing of it.
    pub(super) fn begin(&mut self, asked: Position, frame: Position, now_ms: u64) {
        self.takes = self.ready(now_ms).is_some_and(|at| asked <= at && at <= frame);
        if self.takes {
            self.at = frame;
        }
    }

    /// The frame is over; it was written at `written_ms`, so what comes later was received about then.
    pub(super) fn end(&mut self, next: Position, written_ms: u64) {
        if std::mem::take(&mut self.takes) {
            self.at = next;
            if self.object.is_none() {
                self.oldest_ms = written_ms;
                self.pause = None;
            }
        }
    }

    /// Nothing lies between `asked` and `end`.
    pub(super) fn pass_over(&mut self, asked: Position, end: Position) {
        if self.at == asked {
            self.at = end.max(asked);
        }
    }

    /// Whether the region lacks an entry of the frame that is being read.
    fn lacks(&self, webhook: &Webhook<'_>) -> bool {
        self.takes && webhook.lsn >= self.next_lsn
    }

    /// Passes over an entry of which no record can be made.
    pub(super) fn leave_out<D: Disk<File = F>>(
        &mut self,
        webhook: &Webhook<'_>,
        tools: &mut Tools<'_, D>,
    ) -> Result<(), Fault> {
        if self.lacks(webhook) {
            tools.unarchived.keep(webhook)?;
            self.next_lsn = webhook.lsn + 1;
        }
        Ok(())
    }

    /// Takes an entry that concerns the region.
    pub(super) fn take<D: Disk<File = F>>(
        &mut self,
        webhook: &Webhook<'_>,
        tools: &mut Tools<'_, D>,
    ) -> Result<(), Fault> {
        if !self.lacks(webhook) || fault::planted("archive-drops-some") && webhook.lsn % 16 == 3 {
            return Ok(());
        }
        let received_ns = webhook.meta.received_at_ns();
        let hour = Hour::of(received_ns / 1_000_000);
        if self.pack.ends_before(hour) {
            self.close(tools)?;
        }
        if self.object.is_none() {
            self.oldest_ms = received_ns / 1_000_000;
            if !self.open(Name { hour, first_lsn: webhook.lsn }, webhook.journal, tools)? {
                return Ok(());
            }
        }
        // That alone can be the webhook's fault. Objects are written and synced, which may take long: a process
        // that is killed meanwhile has not ended because of what came last.
        let (step, name) = match webhook.raw {
            true => (Step::ArchiveRaw, "archive-raw"),
            false => (Step::Archive, "archive"),
        };
        tools.watch.during(step, (tools.journal, webhook.lsn, webhook.slot), || {
            fault::poison(name, webhook.body);
            tools.records.write(webhook, self.region, self.pack.lines())
        })?;
        self.pack.added(webhook.lsn);
        self.next_lsn = webhook.lsn + 1;
        tools.spool.supersede(webhook.journal, webhook.lsn);
        self.write_frame(false, tools)?;
        if self.pack.is_full() {
            self.close(tools)?;
        }
        Ok(())
    }

    /// False if the object was closed before, by another process: then it has the entry already.
    fn open<D: Disk<File = F>>(
        &mut self,
        name: Name,
        journal: &str,
        tools: &mut Tools<'_, D>,
    ) -> Result<bool, Fault> {
        if let Some(ticket) = tools.spool.take(journal, name.first_lsn)? {
            self.next_lsn = self.next_lsn.max(ticket.object.last_lsn.saturating_add(1));
            self.wait_for(ticket, self.at);
            return Ok(false);
        }
        let file = tools.spool.create(&name.file(tools.gateway, journal))?;
        self.object = Some(Object { file, name, first: self.at });
        self.pack.open(name, tools.now_ms);
        Ok(true)
    }

    fn wait_for(&mut self, ticket: Ticket, first: Position) {
        self.orders.push(Order { ticket: ticket.clone(), epoch: self.epoch });
        self.waiting.push_back(Waiting { ticket, first, oldest_ms: self.oldest_ms });
    }

    fn write_frame<D: Disk<File = F>>(&mut self, all: bool, tools: &mut Tools<'_, D>) -> Result<(), Fault> {
        let Some(object) = &mut self.object else { return Ok(()) };
        if let Some(frame) = self.pack.frame(tools.frames, all)? {
            tools.spool.append(&mut object.file, frame)?;
            self.pause = None;
        }
        Ok(())
    }

    /// Closes the open object if it is old enough.
    pub(super) fn close_old<D: Disk<File = F>>(&mut self, tools: &mut Tools<'_, D>) -> Result<(), Fault> {
        if self.pack.is_old(tools.now_ms) { self.close(tools) } else { Ok(()) }
    }

    /// Closes the open object if there is one.
    pub(super) fn close<D: Disk<File = F>>(&mut self, tools: &mut Tools<'_, D>) -> Result<(), Fault> {
        self.write_frame(true, tools)?;
        let Some(Object { file, name, first }) = &self.object else { return Ok(()) };
        let place = name.object(tools.gateway, tools.journal_id);
        let index = self.pack.index();
        let object =
            ObjectLink::new(place, tools.journal_id.to_owned(), &self.pack.contents()).indexed(&index);
        let ticket = tools.spool.close(file, object, self.pack.crc(), index)?;
        let first = *first;
        self.object = None;
        self.pause = None;
        self.pack.end();
        self.wait_for(ticket, first);
        Ok(())
    }

    /// Falls back to the last closed object and waits a while.
    pub(super) fn fail<D: Disk<File = F>>(&mut self, spool: &mut Spool<D>, now_ms: u64) {
        (self.at, self.next_lsn) = self.closed();
        if let Some(object) = self.object.take() {
            spool.discard(object.file);
        }
        self.pack.end();
        self.takes = false;
        let failures = self.pause.map_or(0, |(_, failures)| failures);
        let pause = (AGAIN_MS.0 << failures.min(10)).min(AGAIN_MS.1);
        self.pause = Some((now_ms + pause, failures + 1));
    }
}
