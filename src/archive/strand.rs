//! One region's part of one journal, on its way into the region's archive.
//!
//! A strand stands somewhere in the journal, on its own: one whose archive cannot be written falls
//! back to the last closed object, gives its memory back and tries again later, and no other feels it.
//!
//! Invariant: what [`Strand::row`] tells is true at any moment, whatever becomes of the open object:
//! all the region's entries before it are in closed objects.

use std::io;

use super::disk::Disk;
use super::file::{Folder, Opened, Unfinished};
use super::pack::{Frames, Name, Pack, Rules};
use super::record::{RecordFault, Records, Webhook};
use super::unarchived::Unarchived;
use crate::fault;
use crate::handling::{Step, Watch};
use crate::journal::{JournalIndex, Position};
use crate::metrics::archive::ArchiveCells;
use crate::stamp::Hour;

/// Pauses after a failure: doubled each time, up to the second.
const AGAIN_MS: (u64, u64) = (1_000, 30_000);

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
    pub(super) folder: &'a mut Folder<D>,
    pub(super) records: &'a mut Records,
    pub(super) frames: &'a mut Frames,
    pub(super) unarchived: &'a Unarchived<D>,
    pub(super) watch: &'a Watch,
    pub(super) journal: JournalIndex,
    pub(super) cells: &'a ArchiveCells,
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
    /// When the oldest entry was received that no closed object has, or nearly; unix milliseconds, 0 = not known.
    oldest_ms: u64,
    /// When to try again, and after how many failures.
    pause: Option<(u64, u32)>,
    /// It has the frame that is being read.
    takes: bool,
    /// An object was closed and nobody has noted it yet.
    pub(super) closed: bool,
}

struct Object<F> {
    file: Unfinished<F>,
    /// Frame of its first record.
    first: Position,
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
            oldest_ms,
            pause: None,
            takes: false,
            closed: false,
        }
    }

    /// The frame to read next, unless the strand waits after a failure.
    pub(super) fn ready(&self, now_ms: u64) -> Option<Position> {
        self.pause.is_none_or(|(until, _)| until <= now_ms).then_some(self.at)
    }

    /// Position and LSN before which all of the region's entries are in closed objects.
    pub(super) fn row(&self) -> (Position, u64) {
        match (&self.object, self.pack.name()) {
            (Some(object), Some(name)) if !fault::planted("progress-before-object") => {
                (object.first, name.first_lsn)
            }
            _ => (self.at, self.next_lsn),
        }
    }

    /// When the oldest entry was received that no closed object has; 0 = there is none. `end`: all
    /// before it is durable.
    pub(super) fn oldest_ms(&self, end: Position) -> u64 {
        if self.object.is_some() || self.pause.is_some() || self.at < end { self.oldest_ms } else { 0 }
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
        match tools.folder.open(journal, name)? {
            Opened::New(file) => {
                self.object = Some(Object { file, first: self.at });
                self.pack.open(name, tools.now_ms);
                Ok(true)
            }
            Opened::Closed { last_lsn } => {
                self.next_lsn = self.next_lsn.max(last_lsn + 1);
                self.closed = true;
                Ok(false)
            }
        }
    }

    fn write_frame<D: Disk<File = F>>(&mut self, all: bool, tools: &mut Tools<'_, D>) -> Result<(), Fault> {
        let Some(object) = &mut self.object else { return Ok(()) };
        if let Some(frame) = self.pack.frame(tools.frames, all)? {
            tools.folder.append(&mut object.file, frame)?;
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
        let Some(object) = &self.object else { return Ok(()) };
        let contents = self.pack.contents();
        tools.folder.close(&object.file, &contents)?;
        self.object = None;
        self.pause = None;
        self.closed = true;
        self.pack.end();
        tools.cells.objects.add(1);
        tools.cells.records.add(contents.records);
        tools.cells.raw_bytes.add(contents.raw_bytes);
        tools.cells.stored_bytes.add(contents.bytes);
        Ok(())
    }

    /// Falls back to the last closed object and waits a while.
    pub(super) fn fail<D: Disk<File = F>>(&mut self, folder: &mut Folder<D>, now_ms: u64) {
        (self.at, self.next_lsn) = self.row();
        if let Some(object) = self.object.take() {
            folder.discard(object.file);
        }
        self.pack.end();
        self.takes = false;
        let failures = self.pause.map_or(0, |(_, failures)| failures);
        let pause = (AGAIN_MS.0 << failures.min(10)).min(AGAIN_MS.1);
        self.pause = Some((now_ms + pause, failures + 1));
    }
}
