//! All strands of all journals: who gets an entry, what is noted, what the others are told.
//!
//! Order after an object came into its archive: the progress is durable, then the journal is told how far it is archived.
//! So nothing is let go that a crash would make the archiver ask for again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crossbeam_channel::TryRecvError;

use super::chain::{self, Linked};
use super::disk::Disk;
use super::pack::{Frames, Rules};
use super::progress::{Progress, Row};
use super::record::{BodyDigest, Records, Webhook};
use super::shipper::{Dock, Told};
use super::spool::Spool;
use super::strand::{Fault, Strand, Tools};
use super::unarchived::Unarchived;
use crate::config::{self, Config};
use crate::entry::{Meta, MetaFault};
use crate::fault;
use crate::handling::{Step, Watch};
use crate::journal::read::{ReadEntry, ReadFrame};
use crate::journal::record::{self, Record};
use crate::journal::store::hex;
use crate::journal::view::Archived;
use crate::journal::{JournalId, JournalIndex, Position};
use crate::metrics::archive::ArchiveCells;

/// Progress that no closed object asks for is saved this often: where nothing concerns an archive, the
/// journal is let go all the same.
const SAVE_MS: u64 = 5_000;

/// A frame of a journal, as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Read<'a> {
    /// Where it was asked for: no frame lies between there and its own position.
    pub asked: Position,
    pub position: Position,
    pub next: Position,
    /// Unix milliseconds.
    pub written_ms: u64,
    /// Where the places of `entries` count from.
    pub bytes: &'a [u8],
    pub entries: &'a [ReadEntry],
}

impl<'a> Read<'a> {
    pub fn of(asked: Position, frame: &'a ReadFrame) -> Self {
        Self {
            asked,
            position: frame.position,
            next: frame.next,
            written_ms: frame.written_at / 1_000_000,
            bytes: &frame.bytes,
            entries: &frame.entries,
        }
    }
}

pub struct Archiver<D: Disk> {
    journals: Vec<Journal<D::File>>,
    /// By region; `None` for those that archive nothing.
    routes: Vec<Option<Route<D>>>,
    names: Vec<String>,
    gateway: String,
    records: Records,
    frames: Frames,
    progress: Progress<D>,
    cells: Arc<Vec<ArchiveCells>>,
    /// By region: the last try failed, and that was said.
    failing: Vec<bool>,
    /// A shipper has ended, which none does by itself.
    forsaken: bool,
    unarchived: Unarchived<D>,
    /// Says which entry is being handled.
    pub(super) watch: Watch,
}

/// The way of one region's objects.
struct Route<D> {
    spool: Spool<D>,
    dock: Dock,
}

struct Journal<F> {
    /// In hex.
    id: String,
    strands: Vec<Strand<F>>,
    /// Progress of regions that archive nothing now, for when they do again.
    others: Vec<Row>,
    archived: Arc<Archived>,
    saved: Position,
    save_at_ms: u64,
    /// The last try to note its progress failed.
    save_failed: bool,
}

impl<D: Disk + Clone> Archiver<D> {
    /// `docks`: by region, for those that archive.
    pub fn new(
        disk: &D,
        config: &Config,
        journals: impl Iterator<Item = (JournalId, Arc<Archived>)>,
        cells: Arc<Vec<ArchiveCells>>,
        docks: Vec<Option<Dock>>,
    ) -> std::io::Result<Self> {
        let data_dir = &config.gateway.data_dir;
        let progress = Progress::new(disk.clone(), data_dir);
        let load = |(id, archived): (JournalId, Arc<Archived>)| {
            let id = hex(&id);
            let rows = progress.load(&id).unwrap_or_else(|error| {
                tracing::error!(
                    journal = %id, %error,
                    "the archive's progress cannot be read; archiving the journal anew: where links are signed they \
                     tell what is archived, other archives may have webhooks twice"
                );
                Vec::new()
            });
            (id, archived, rows)
        };
        let mut journals: Vec<(String, Arc<Archived>, Vec<Row>)> = journals.map(load).collect();
        let open = |(region, dock): (&config::Region, Option<Dock>)| {
            let (place, dock) = (region.archive.as_ref()?, dock?);
            let linked = match config.archive.signing_key {
                Some(_) => chain::linked(disk, data_dir, &region.name, &place.identity()),
                None => Linked::default(),
            };
            let mut noted = BTreeMap::new();
            for (id, _, rows) in &mut journals {
                let linked = linked.last.get(id).map_or(0, |last| last.saturating_add(1));
                let row = match rows.iter_mut().find(|row| row.region == region.name) {
                    Some(row) => row,
                    None => {
                        rows.push(Row::new(region.name.clone(), Position::default(), 0));
                        let Some(row) = rows.last_mut() else { continue };
                        row
                    }
                };
                row.next_lsn = row.next_lsn.max(linked);
                noted.insert(id.clone(), row.next_lsn);
            }
            Some(Route { spool: Spool::new(disk.clone(), data_dir, &region.name, noted, linked.next), dock })
        };
        let routes: Vec<Option<Route<D>>> = config.regions.iter().zip(docks).map(open).collect();
        let packs = routes.iter().flatten().count() * journals.len();
        let roll_after_ms = config.archive.roll_after.as_millis() as u64;
        let rules = Rules::new(config.archive.roll_bytes, roll_after_ms, packs);
        let rules = rules.proven(config.archive.signing_key.is_some());
        let names: Vec<String> = config.regions.iter().map(|region| region.name.clone()).collect();
        let open = |(id, archived, mut rows): (String, Arc<Archived>, Vec<Row>)| {
            let mut strands = Vec::new();
            for region in (0..names.len()).filter(|region| routes[*region].is_some()) {
                let row = rows.iter().position(|row| row.region == names[region]);
                let (at, next_lsn) = row.map_or((Position::default(), 0), |at| {
                    let row = rows.swap_remove(at);
                    (row.position(), row.next_lsn)
                });
                strands.push(Strand::new(region, at, next_lsn, rules, cells[region].looked_ms.get()));
            }
            let saved = strands.iter().map(|strand| strand.row().0).min().unwrap_or_default();
            archived.set(saved);
            Journal { id, strands, others: rows, archived, saved, save_at_ms: 0, save_failed: false }
        };
        let journals = journals.into_iter().map(open).collect();
        let mut archiver = Self {
            journals,
            failing: vec![false; names.len()],
            forsaken: false,
            watch: Watch::default(),
            unarchived: Unarchived::new(disk.clone(), &config.gateway.data_dir),
            routes,
            names,
            gateway: config.gateway.id.clone(),
            records: Records::new(config),
            frames: Frames::new(config.archive.level)?,
            progress,
            cells,
        };
        archiver.begin(0);
        Ok(archiver)
    }
}

impl<D: Disk> Archiver<D> {
    /// Lets strands begin that do not know yet what an earlier process closed.
    fn begin(&mut self, now_ms: u64) {
        for journal in 0..self.journals.len() {
            for at in 0..self.journals[journal].strands.len() {
                let strand = &self.journals[journal].strands[at];
                if strand.is_to_begin(now_ms) {
                    self.work(journal, strand.region, now_ms, |strand, _, tools| strand.start(tools));
                }
            }
        }
    }

    /// Where the strands of a journal want to read, before `end`: every place once, in order.
    pub fn places(&self, journal: JournalIndex, end: Position, now_ms: u64) -> Vec<Position> {
        let strands = self.journals[journal].strands.iter();
        let mut places: Vec<Position> =
            strands.filter_map(|strand| strand.ready(now_ms)).filter(|at| *at < end).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Takes a frame. On a fault nothing of the journal goes on: a newer version wrote the entry.
    pub fn take(&mut self, journal: JournalIndex, read: &Read<'_>, now_ms: u64) -> Result<(), MetaFault> {
        self.journals[journal].strands.iter_mut().for_each(|s| s.begin(read.asked, read.position, now_ms));
        for entry in read.entries {
            // A checksum was right, so what is there is what was written.
            let bytes = read.bytes.get(entry.start..).unwrap_or_default();
            if let Ok((Record::Entry(found), _)) = record::read_known(bytes) {
                let meta = Meta::read(found.meta)?;
                self.take_entry(journal, entry.lsn, meta, found.body, now_ms);
            }
        }
        self.journals[journal].strands.iter_mut().for_each(|strand| strand.end(read.next, read.written_ms));
        Ok(())
    }

    /// There is no frame from `asked` up to `end`, which may lie in a later segment: a process that ended just
    /// after it took a segment into use left nothing in it. Whoever waits for the journal to be archived waits
    /// for that segment, too.
    pub(super) fn pass_over(&mut self, journal: JournalIndex, asked: Position, end: Position) {
        self.journals[journal].strands.iter_mut().for_each(|strand| strand.pass_over(asked, end));
    }

    /// A region for which making the record ended the process again and again gets the webhook as it came
    /// (`raw`). Where that does so too, or what is whose could not be told then, the webhook is kept aside.
    fn take_entry(&mut self, journal: JournalIndex, lsn: u64, meta: Meta<'_>, body: &[u8], now_ms: u64) {
        let sha256 = BodyDigest::default();
        for (slot, id) in meta.regions().enumerate() {
            let region = self.records.region(id);
            // Regions that are gone share the default one, which gets the webhook once.
            if meta.regions().take(slot).any(|before| self.records.region(before) == region) {
                continue;
            }
            let slot = slot as u16;
            let raw = self.watch.is_quarantined(Step::Archive, (journal, lsn, slot));
            let none = raw
                && (self.records.is_split(&meta)
                    || self.watch.is_quarantined(Step::ArchiveRaw, (journal, lsn, slot)));
            self.work(journal, region, now_ms, |strand, id, tools| {
                let webhook = Webhook { journal: id, lsn, slot, meta, body, sha256: &sha256, raw };
                if none { strand.leave_out(&webhook, tools) } else { strand.take(&webhook, tools) }
            });
        }
    }

    /// Does something with one strand, and what a failure of it asks for.
    fn work(
        &mut self,
        journal: JournalIndex,
        region: usize,
        now_ms: u64,
        act: impl FnOnce(&mut Strand<D::File>, &str, &mut Tools<'_, D>) -> Result<(), Fault>,
    ) {
        let Journal { id, strands, .. } = &mut self.journals[journal];
        let Some(strand) = strands.iter_mut().find(|strand| strand.region == region) else { return };
        let Some(Route { spool, dock }) = &mut self.routes[region] else { return };
        let mut tools = Tools {
            spool,
            gateway: &self.gateway,
            records: &mut self.records,
            frames: &mut self.frames,
            unarchived: &self.unarchived,
            watch: &self.watch,
            journal,
            journal_id: id,
            now_ms,
        };
        let acted = act(strand, id, &mut tools);
        if acted.is_err() {
            strand.fail(spool, now_ms);
        }
        for order in strand.orders.drain(..) {
            self.forsaken |= dock.orders.send(order).is_err();
        }
        if let Err(fault) = acted {
            self.report(region, &fault);
        }
    }

    /// Says once per episode that an archive cannot be written.
    fn report(&mut self, region: usize, fault: &Fault) {
        self.cells[region].failures.add(1);
        self.cells[region].failing.set(1);
        if !std::mem::replace(&mut self.failing[region], true) {
            tracing::error!(
                region = %self.names[region], %fault,
                "cannot make archive objects; the journal keeps what is missing, and trying goes on"
            );
        }
    }

    /// A journal cannot be read: the alarm of every archive that waits for it.
    pub fn unreadable(&self, journal: JournalIndex) {
        for strand in &self.journals[journal].strands {
            self.cells[strand.region].failures.add(1);
        }
    }

    /// Closes what is old enough, notes and tells. Call every few tens of milliseconds. `ends`: what
    /// is durable of each journal.
    pub fn tick(&mut self, ends: &[Position], now_ms: u64) {
        self.hear();
        self.begin(now_ms);
        for journal in 0..self.journals.len() {
            for at in 0..self.journals[journal].strands.len() {
                let region = self.journals[journal].strands[at].region;
                self.work(journal, region, now_ms, |strand, _, tools| strand.close_old(tools));
            }
            self.save(journal, now_ms);
        }
        self.tell(ends);
    }

    /// What became of closed objects.
    fn hear(&mut self) {
        for (region, route) in self.routes.iter_mut().enumerate() {
            let Some(Route { spool, dock }) = route else { continue };
            loop {
                let told = match dock.told.try_recv() {
                    Ok(told) => told,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        self.forsaken = true;
                        break;
                    }
                };
                let (Told::Shipped { journal, .. } | Told::Damaged { journal, .. }) = &told;
                let Some(journal) = self.journals.iter_mut().find(|other| other.id == *journal) else {
                    continue;
                };
                let Some(strand) = journal.strands.iter_mut().find(|strand| strand.region == region) else {
                    continue;
                };
                match told {
                    Told::Shipped { first_lsn, .. } => strand.shipped(first_lsn),
                    Told::Damaged { first_lsn, .. } => strand.redo(first_lsn, spool),
                }
            }
        }
    }

    /// Whether a shipper has ended: whatever it was to do is not done any more.
    pub(super) fn is_forsaken(&self) -> bool {
        self.forsaken
    }

    /// Whether closed objects are not in their archives yet.
    pub fn waits(&self) -> bool {
        self.journals.iter().flat_map(|journal| &journal.strands).any(Strand::waits)
    }

    /// Closes everything that is open, for the archives; [`Archiver::tick`] notes what comes into them.
    pub fn finish(&mut self, ends: &[Position], now_ms: u64) {
        self.hear();
        for journal in 0..self.journals.len() {
            for at in 0..self.journals[journal].strands.len() {
                let region = self.journals[journal].strands[at].region;
                self.work(journal, region, now_ms, |strand, _, tools| strand.close(tools));
            }
            self.journals[journal].save_at_ms = 0;
            self.save(journal, now_ms);
        }
        self.tell(ends);
    }

    /// Makes the progress durable if there is any, and only then tells how far the journal is archived.
    fn save(&mut self, journal: JournalIndex, now_ms: u64) {
        let journal = &mut self.journals[journal];
        let upto = journal.strands.iter().map(|strand| strand.row().0).min().unwrap_or_default();
        if fault::planted("archived-told-early") {
            journal.archived.set(Position::from_bits(u64::MAX));
        }
        let closed = journal.strands.iter().any(|strand| !strand.done.is_empty());
        let pause = journal.save_failed && now_ms < journal.save_at_ms;
        if pause || !closed && (upto == journal.saved || now_ms < journal.save_at_ms) {
            return;
        }
        journal.save_at_ms = now_ms + SAVE_MS;
        let rows = journal.strands.iter().map(|strand| {
            let (position, next_lsn) = strand.row();
            Row::new(self.names[strand.region].clone(), position, next_lsn)
        });
        match self.progress.save(&journal.id, rows.chain(journal.others.iter().cloned()).collect()) {
            Ok(()) => {
                for strand in &mut journal.strands {
                    let Some(Route { spool, .. }) = &mut self.routes[strand.region] else { continue };
                    for ticket in strand.done.drain(..) {
                        // Otherwise the next process does it.
                        spool.remove(&ticket).ok();
                    }
                    spool.forget(&journal.id, strand.row().1);
                }
                journal.saved = upto;
                journal.archived.set(upto);
                if std::mem::replace(&mut journal.save_failed, false) {
                    tracing::info!("the archive's progress can be noted again");
                }
            }
            Err(error) => {
                for strand in &journal.strands {
                    self.cells[strand.region].failures.add(1);
                    self.cells[strand.region].failing.set(1);
                    self.failing[strand.region] = true;
                }
                if !std::mem::replace(&mut journal.save_failed, true) {
                    tracing::error!(
                        %error,
                        "cannot note the archive's progress in the data folder; the journal is kept, and trying goes on"
                    );
                }
            }
        }
    }

    fn tell(&mut self, ends: &[Position]) {
        for region in 0..self.routes.len() {
            if self.routes[region].is_none() {
                continue;
            }
            let all = || {
                let journals = self.journals.iter().zip(ends);
                let of = move |(journal, end): (&Journal<D::File>, &Position)| {
                    let strand = journal.strands.iter().find(|strand| strand.region == region)?;
                    let failing = strand.failing() || journal.save_failed;
                    Some((strand.oldest_ms(*end), failing, strand.waiting_bytes()))
                };
                journals.filter_map(of)
            };
            let oldest = all().map(|(oldest, ..)| oldest).filter(|oldest| *oldest > 0).min();
            self.cells[region].oldest_ms.set(oldest.unwrap_or(0));
            self.cells[region].spool_bytes.set(all().map(|(.., bytes)| bytes).sum());
            let failing = all().any(|(_, failing, _)| failing);
            if self.failing[region] && !failing {
                self.failing[region] = false;
                self.cells[region].failing.set(0);
                tracing::info!(region = %self.names[region], "archive objects can be made again");
            }
        }
    }
}
