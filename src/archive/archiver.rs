//! All strands of all journals: who gets an entry, what is noted, what the others are told.
//!
//! Order after an object closed: its name is durable, then the progress is, then the journal is told
//! how far it is archived. So nothing is let go that a crash would make the archiver ask for again.

use std::sync::Arc;

use super::chain::Head;
use super::disk::Disk;
use super::file::{Folder, Signer};
use super::pack::{Frames, Rules};
use super::progress::{Noted, Progress, Row};
use super::record::{BodyDigest, Records, Webhook};
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
/// Pause after a chain could not get its digest.
const PROVE_AGAIN_MS: u64 = 5_000;

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
    folders: Vec<Option<Folder<D>>>,
    names: Vec<String>,
    records: Records,
    frames: Frames,
    progress: Progress<D>,
    cells: Arc<Vec<ArchiveCells>>,
    /// By region: the last try failed, and that was said.
    failing: Vec<bool>,
    /// By region: its chain could not get the digest of an hour; when to try again.
    unproven: Vec<Option<u64>>,
    save_failed: bool,
    unarchived: Unarchived<D>,
    /// Says which entry is being handled.
    pub(super) watch: Watch,
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
    /// A chain has a new link that is not noted.
    linked: bool,
}

impl<D: Disk + Clone> Archiver<D> {
    /// `clock`: Unix milliseconds, for what chains say.
    pub fn new(
        disk: &D,
        config: &Config,
        journals: impl Iterator<Item = (JournalId, Arc<Archived>)>,
        cells: Arc<Vec<ArchiveCells>>,
        clock: fn() -> u64,
    ) -> std::io::Result<Self> {
        let progress = Progress::new(disk.clone(), &config.gateway.data_dir);
        let load = |(id, archived): (JournalId, Arc<Archived>)| {
            let id = hex(&id);
            progress.tidy(&id);
            let rows = progress.load(&id).unwrap_or_else(|error| {
                tracing::error!(
                    journal = %id, %error,
                    "the archive's progress cannot be read; archiving the journal anew: objects that begin \
                     with the same webhook are recognised, others may repeat webhooks"
                );
                Vec::new()
            });
            (id, archived, rows)
        };
        let journals: Vec<(String, Arc<Archived>, Vec<Row>)> = journals.map(load).collect();
        let ids: Vec<String> = journals.iter().map(|(id, ..)| id.clone()).collect();
        let folder = |region: &config::Region| {
            let root = region.archive.clone()?;
            let signer = config.archive.signing_key.clone().map(|key| {
                let rows = journals.iter().flat_map(|(.., rows)| rows);
                let noted = rows.filter(|row| row.region == region.name).filter_map(|row| row.chain.clone());
                let heads = noted.filter(|noted| noted.folder == root).map(|noted| noted.head);
                let known = heads.max_by_key(|head| head.number);
                Signer { key, region: region.name.clone(), clock, known }
            });
            Some(Folder::new(disk.clone(), root, config.gateway.id.clone(), ids.clone(), signer))
        };
        let folders: Vec<Option<Folder<D>>> = config.regions.iter().map(folder).collect();
        let packs = folders.iter().flatten().count() * journals.len();
        let roll_after_ms = config.archive.roll_after.as_millis() as u64;
        let rules = Rules::new(config.archive.roll_bytes, roll_after_ms, packs);
        let rules = rules.proven(config.archive.signing_key.is_some());
        let names: Vec<String> = config.regions.iter().map(|region| region.name.clone()).collect();
        let open = |(id, archived, mut rows): (String, Arc<Archived>, Vec<Row>)| {
            let mut strands = Vec::new();
            for region in (0..names.len()).filter(|region| folders[*region].is_some()) {
                let row = rows.iter().position(|row| row.region == names[region]);
                let (at, next_lsn) = row.map_or((Position::default(), 0), |at| {
                    let row = rows.swap_remove(at);
                    (row.position(), row.next_lsn)
                });
                strands.push(Strand::new(region, at, next_lsn, rules, cells[region].looked_ms.get()));
            }
            let saved = strands.iter().map(|strand| strand.row().0).min().unwrap_or_default();
            archived.set(saved);
            Journal { id, strands, others: rows, archived, saved, save_at_ms: 0, linked: false }
        };
        let journals = journals.into_iter().map(open).collect();
        let mut archiver = Self {
            journals,
            failing: vec![false; names.len()],
            unproven: vec![None; names.len()],
            save_failed: false,
            watch: Watch::default(),
            unarchived: Unarchived::new(disk.clone(), &config.gateway.data_dir),
            folders,
            names,
            records: Records::new(config),
            frames: Frames::new(config.archive.level)?,
            progress,
            cells,
        };
        archiver.try_folders();
        Ok(archiver)
    }
}

impl<D: Disk> Archiver<D> {
    /// Finds out early that an archive cannot be written.
    fn try_folders(&mut self) {
        for region in 0..self.folders.len() {
            if let Some(folder) = &mut self.folders[region]
                && let Err(error) = folder.tidy()
            {
                self.report(region, &error.into());
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
        let Some(folder) = &mut self.folders[region] else { return };
        let mut tools = Tools {
            folder,
            records: &mut self.records,
            frames: &mut self.frames,
            unarchived: &self.unarchived,
            watch: &self.watch,
            journal,
            cells: &self.cells[region],
            now_ms,
        };
        if let Err(fault) = act(strand, id, &mut tools) {
            strand.fail(folder, now_ms);
            self.report(region, &fault);
        }
    }

    /// Says once per episode that an archive cannot be written.
    fn report(&mut self, region: usize, fault: &Fault) {
        self.cells[region].failures.add(1);
        self.cells[region].failing.set(1);
        if !std::mem::replace(&mut self.failing[region], true) {
            let folder = self.folders[region].as_ref().map(|folder| folder.root().display().to_string());
            tracing::error!(
                region = %self.names[region], folder = folder.unwrap_or_default(), %fault,
                "cannot archive; the journal keeps what is missing, and trying goes on"
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
        self.prove(now_ms);
        for journal in 0..self.journals.len() {
            for at in 0..self.journals[journal].strands.len() {
                let region = self.journals[journal].strands[at].region;
                self.work(journal, region, now_ms, |strand, _, tools| strand.close_old(tools));
            }
            self.save(journal, now_ms);
        }
        self.tell(ends);
    }

    /// Adds to chains the hours that are over.
    fn prove(&mut self, now_ms: u64) {
        for region in 0..self.folders.len() {
            let Some(folder) = &mut self.folders[region] else { continue };
            if self.unproven[region].is_some_and(|again| now_ms < again) {
                continue;
            }
            match folder.prove() {
                Ok(added) => {
                    self.unproven[region] = None;
                    self.journals.iter_mut().for_each(|journal| journal.linked |= added);
                }
                Err(error) => {
                    self.unproven[region] = Some(now_ms + PROVE_AGAIN_MS);
                    self.report(region, &error.into());
                }
            }
        }
    }

    /// For whoever asks: the newest link of a region's chain that is known to be durable.
    fn publish_head(&self, region: usize) {
        let head = self.folders[region].as_ref().and_then(Folder::head);
        if let Some(Head { number, hash }) = head
            && self.cells[region].links.get() != number + 1
        {
            self.cells[region].links.set(number + 1);
            self.cells[region].head.send_replace(Some((*number, hash.clone())));
        }
    }

    /// Closes everything that is open, and notes it.
    pub fn finish(&mut self, ends: &[Position], now_ms: u64) {
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
        let closed = journal.linked || journal.strands.iter().any(|strand| strand.closed);
        let pause = self.save_failed && now_ms < journal.save_at_ms;
        if pause || !closed && (upto == journal.saved || now_ms < journal.save_at_ms) {
            return;
        }
        journal.save_at_ms = now_ms + SAVE_MS;
        let rows = journal.strands.iter().map(|strand| {
            let (position, next_lsn) = strand.row();
            let noted = |folder: &Folder<D>| {
                let (folder, head) = (folder.root().to_owned(), folder.head()?.clone());
                Some(Noted { folder, head })
            };
            let chain = self.folders[strand.region].as_ref().and_then(noted);
            Row::new(self.names[strand.region].clone(), position, next_lsn, chain)
        });
        match self.progress.save(&journal.id, rows.chain(journal.others.iter().cloned()).collect()) {
            Ok(()) => {
                journal.strands.iter_mut().for_each(|strand| strand.closed = false);
                journal.linked = false;
                journal.saved = upto;
                journal.archived.set(upto);
                if std::mem::replace(&mut self.save_failed, false) {
                    tracing::info!("the archive's progress can be noted again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.save_failed, true) {
                    tracing::error!(
                        %error,
                        "cannot note the archive's progress in the data folder; the journal is kept, and trying goes on"
                    );
                }
            }
        }
    }

    fn tell(&mut self, ends: &[Position]) {
        for region in 0..self.folders.len() {
            if self.folders[region].is_none() {
                continue;
            }
            let all = || {
                let journals = self.journals.iter().zip(ends);
                let of = move |(journal, end): (&Journal<D::File>, &Position)| {
                    let strand = journal.strands.iter().find(|strand| strand.region == region)?;
                    Some((strand.oldest_ms(*end), strand.failing()))
                };
                journals.filter_map(of)
            };
            let oldest = all().map(|(oldest, _)| oldest).filter(|oldest| *oldest > 0).min();
            self.cells[region].oldest_ms.set(oldest.unwrap_or(0));
            self.publish_head(region);
            let failing = self.unproven[region].is_some() || all().any(|(_, failing)| failing);
            let mut tidy = || self.folders[region].as_mut().is_some_and(|folder| folder.tidy().is_ok());
            if self.failing[region] && !failing && tidy() {
                self.failing[region] = false;
                self.cells[region].failing.set(0);
                tracing::info!(region = %self.names[region], "archiving again");
            }
        }
    }
}
