//! Journals on a disk of memory with everything around them: writers that fill and roll, marks that
//! come early, late and in other journals, an archiver, freeing; and the truth about all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::account::{Account, Wrote};
use super::super::buffer::{AlignedBuf, BLOCK};
use super::super::disk::Disk;
use super::super::frame::{self, Digest, FIRST_FRAME, FrameHeader, FrameKind, HEADER, SegmentHeader};
use super::super::free::{FreeError, Freeing, Piece, Place, Round};
use super::super::record::{self, Mark, Settled};
use super::super::spare::segment_path;
use super::super::store::{Folders, FoundJournal, Seen, hex, parse_id};
use super::super::view::Archived;
use super::super::{JournalId, Position};
use super::memory::{MemoryDisk, Random};

const ROOT: &str = "/data/journal";
pub(super) const SEGMENT: usize = 24 * BLOCK;

/// One entry that was acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) journal: JournalId,
    pub(super) lsn: u64,
    pub(super) position: Position,
    pub(super) body: Vec<u8>,
}

/// A journal that is being written.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    id: JournalId,
    dir: PathBuf,
    /// Number, salt, where the next frame goes.
    segment: Option<(u64, frame::Salt, u64)>,
    previous: (u64, u64),
    next_frame: u64,
    next_lsn: u64,
    chain: Digest,
    /// Marks that were handed to its core and are not durable yet.
    marks: Vec<(JournalId, Mark)>,
}

/// What outlives the process.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) random: Random,
    /// Writes may be torn by the end of the world.
    pub(super) tears: bool,
    next_seq: u64,
    made: u8,
    /// By sequence number.
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Parcels that no durable mark settles: sequence number, slot.
    pub(super) open: BTreeSet<(u64, u16)>,
    /// What every archive has, durably.
    archived: BTreeMap<JournalId, Position>,
    /// Above every LSN that a journal gave out.
    lsn_end: BTreeMap<JournalId, u64>,
}

/// What dies with it.
pub(super) struct Process<'d> {
    disk: &'d MemoryDisk,
    writers: Vec<Writer>,
    pub(super) freeing: Freeing<MemoryDisk>,
    pub(super) places: Vec<(JournalId, Place)>,
    /// Frames that freeing has not been told of yet.
    wrote: Vec<Wrote>,
    /// Parcels that were delivered and whose marks are on their way.
    delivered: BTreeSet<(u64, u16)>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            tears: false,
            next_seq: 1,
            made: 0,
            entries: BTreeMap::new(),
            open: BTreeSet::new(),
            archived: BTreeMap::new(),
            lsn_end: BTreeMap::new(),
        }
    }

    /// Recovers everything and compares it with the truth. The world may end in it.
    pub(super) fn recover(&self, disk: &MemoryDisk) -> Result<Vec<FoundJournal>, String> {
        let mut dirs: Vec<(JournalId, PathBuf)> = Vec::new();
        for (path, _) in disk.files() {
            let dir = path.parent().unwrap();
            let id = parse_id(dir.file_name().unwrap().to_str().unwrap()).unwrap();
            if dirs.last().is_none_or(|(_, last)| last != dir) {
                dirs.push((id, dir.to_owned()));
            }
        }
        let folders = Folders::look(disk, dirs, true).map_err(|error| error.to_string())?;
        let (mut seen, mut backlog) = (BTreeSet::new(), 0i64);
        let (found, _) = folders
            .recover(disk, &mut |what| match what {
                Seen::Entry(entry) => {
                    let truth = &self.entries[&entry.seq];
                    assert_eq!(entry.body, truth.body, "entry {} was altered", entry.seq);
                    assert!(seen.insert(entry.seq), "entry {} came twice", entry.seq);
                    backlog += i64::from(entry.slots);
                }
                Seen::Listed { .. } | Seen::Settled(_) => backlog -= 1,
            })
            .map_err(|error| error.to_string())?;
        for folder in &folders.0 {
            assert!(folder.2.unread.is_empty(), "a list cannot be read");
        }
        let mut open = BTreeSet::new();
        let by_place: BTreeMap<(JournalId, u64), u64> =
            self.entries.iter().map(|(seq, entry)| ((entry.journal, entry.lsn), *seq)).collect();
        for journal in &found {
            assert_eq!(journal.recovered.lost, [], "taken for damage");
            open.extend(journal.open.iter().map(|(lsn, slot)| (by_place[&(journal.id, lsn)], slot)));
            let end = self.lsn_end.get(&journal.id).copied().unwrap_or(0);
            assert!(journal.recovered.next_lsn >= end, "an LSN would be given out twice");
        }
        let lost: Vec<_> = self.open.difference(&open).collect();
        assert!(lost.is_empty(), "acknowledged, not settled, and lost: {lost:?}");
        let repeated: Vec<_> = open.difference(&self.open).collect();
        assert!(repeated.is_empty(), "settled, and would be delivered again: {repeated:?}");
        for (seq, _) in &open {
            assert!(seen.contains(seq), "entry {seq} waits and cannot be read");
        }
        assert_eq!(backlog, open.len() as i64, "the backlog is counted wrong");
        for (seq, entry) in &self.entries {
            let archived = self.archived.get(&entry.journal).copied().unwrap_or_default();
            assert!(entry.position < archived || seen.contains(seq), "entry {seq} is gone and not archived");
        }
        Ok(found)
    }

    /// Starts a process that writes `cores` journals on what was found.
    pub(super) fn start<'d>(
        &mut self,
        disk: &'d MemoryDisk,
        mut found: Vec<FoundJournal>,
        cores: usize,
    ) -> Process<'d> {
        while found.len() < cores {
            self.made += 1;
            let journal = new_journal(self.made);
            // Its first segment may be one of another journal that is used again.
            disk.make_folder(&journal.dir);
            found.push(journal);
        }
        let mut writers = Vec::new();
        let mut places = Vec::new();
        for (at, journal) in found.iter().enumerate() {
            for number in journal.recovered.spares.iter().chain(&journal.recovered.void) {
                disk.remove(&segment_path(&journal.dir, *number)).unwrap();
            }
            disk.sync_dir(&journal.dir).unwrap();
            if at < cores {
                let last = journal.recovered.spans.last();
                writers.push(Writer {
                    id: journal.id,
                    dir: journal.dir.clone(),
                    segment: None,
                    previous: (journal.last_segment(), last.map_or(0, |span| span.end)),
                    next_frame: journal.recovered.next_frame,
                    next_lsn: journal.recovered.next_lsn,
                    chain: journal.recovered.chain,
                    marks: Vec::new(),
                });
            }
            let archived = Archived::never_asked();
            archived.set(self.archived.get(&journal.id).copied().unwrap_or_default());
            let place = Place {
                dir: journal.dir.clone(),
                segments: Arc::new(journal.segments()),
                archived: Arc::new(archived),
            };
            places.push((journal.id, place));
        }
        let account =
            Account::new(found.iter().enumerate().map(|(at, journal)| journal.start(at < cores)).collect());
        let shared = places.iter().map(|(_, place)| place.clone()).collect();
        let mut freeing = Freeing::new(disk.clone(), ROOT.into(), account, shared);
        // The world may end, and new segments may be made, between any two pieces of a file.
        freeing.piece = Piece { holes: 2, bytes: 5 * BLOCK as u64 };
        Process { disk, writers, freeing, places, wrote: Vec::new(), delivered: BTreeSet::new() }
    }
}

fn ended() -> FreeError {
    let source = std::io::Error::other("the world has ended");
    FreeError::Io { what: "write", path: PathBuf::new(), source }
}

fn new_journal(number: u8) -> FoundJournal {
    let id = [number; 16];
    FoundJournal {
        id,
        dir: Path::new(ROOT).join(hex(&id)),
        recovered: super::Recovered { journal: Some(id), next_frame: 1, next_lsn: 1, ..Default::default() },
        settled: Default::default(),
        open: Default::default(),
        floor: None,
        listed: Vec::new(),
        new_damage: Vec::new(),
    }
}

impl Process<'_> {
    /// A few webhooks come in at one core, and what marks wait there become durable with them, or some.
    pub(super) fn commit(&mut self, world: &mut World) -> Result<(), FreeError> {
        let at = world.random.below(self.writers.len() as u64) as usize;
        let entries = world.random.below(6);
        self.write(world, at, entries)
    }

    pub(super) fn write(&mut self, world: &mut World, at: usize, entries: u64) -> Result<(), FreeError> {
        let mut buf = AlignedBuf::with_capacity(0);
        buf.set_len(HEADER);
        let mut new = Vec::new();
        for n in 0..entries {
            let seq = world.next_seq;
            world.next_seq += 1;
            let slots = if world.random.one_in(4) { world.random.below(4) as u16 } else { 1 };
            let len = if world.random.one_in(8) { 9000 } else { world.random.below(1500) };
            let body: Vec<u8> = (0..len).map(|byte| (byte ^ seq) as u8).collect();
            record::write_entry(&mut buf, seq, slots, |_| (), &body);
            new.push((seq, n, slots, body));
        }
        let mut marks: Vec<(JournalId, Vec<Mark>)> = Vec::new();
        // Late marks: some wait for another time.
        let late = world.random.one_in(3);
        let waiting = std::mem::take(&mut self.writers[at].marks);
        for (journal, mark) in waiting {
            if late && world.random.one_in(2) {
                self.writers[at].marks.push((journal, mark));
            } else if let Some((_, list)) = marks.iter_mut().find(|(id, _)| *id == journal) {
                list.push(mark);
            } else {
                marks.push((journal, vec![mark]));
            }
        }
        for (journal, list) in &marks {
            record::write_marks(&mut buf, journal, list);
        }
        let records = (new.len() + marks.len()) as u32;
        let padded = frame::padded_len(buf.len() - HEADER) as u64;
        let full = |writer: &Writer| {
            writer.segment.is_none_or(|(.., end)| end + padded + BLOCK as u64 > SEGMENT as u64)
        };
        if full(&self.writers[at]) {
            self.roll(world, at)?;
        }
        let writer = &mut self.writers[at];
        if world.tears && world.random.one_in(250) {
            let (number, _, end) = writer.segment.unwrap();
            writer.frame(self.disk, buf, FrameKind::Commit, records);
            // The last block did not make it, nor maybe others.
            let path = segment_path(&writer.dir, number);
            let torn = padded / BLOCK as u64;
            for block in (0..torn).filter(|block| block + 1 == torn || world.random.one_in(3)) {
                self.disk.put(&path, end + block * BLOCK as u64, &[0x5a; BLOCK]);
            }
            return Err(ended());
        }
        let first_lsn = writer.next_lsn;
        let (position, next) = writer.frame(self.disk, buf, FrameKind::Commit, records);
        world.lsn_end.insert(writer.id, writer.next_lsn);
        for (seq, n, slots, body) in &new {
            let entry = Entry { journal: writer.id, lsn: first_lsn + n, position, body: body.clone() };
            world.entries.insert(*seq, entry);
            world.open.extend((0..*slots).map(|slot| (*seq, slot)));
        }
        for (journal, list) in &marks {
            for mark in list {
                let seq = u64::from(mark.tag);
                assert_eq!((world.entries[&seq].journal, world.entries[&seq].lsn), (*journal, mark.lsn));
                world.open.remove(&(seq, mark.slot));
            }
        }
        let wide =
            new.iter().filter(|(.., slots, _)| *slots != 1).map(|(_, n, slots, _)| (*n as u32, *slots));
        self.wrote.push(Wrote {
            journal: writer.id,
            position,
            next,
            first_lsn,
            records,
            first_entry: first_lsn,
            entries: new.len() as u32,
            wide: wide.collect(),
            marks,
        });
        Ok(())
    }

    fn roll(&mut self, world: &mut World, at: usize) -> Result<(), FreeError> {
        let writer = &mut self.writers[at];
        let number = writer.segment.map_or(writer.previous.0, |(number, ..)| number) + 1;
        if !self.freeing.reuse(&writer.dir, number, SEGMENT as u64)? {
            self.disk.make(&segment_path(&writer.dir, number), SEGMENT);
        }
        if writer.segment.is_some() {
            let mut seal = AlignedBuf::with_capacity(0);
            seal.set_len(HEADER);
            writer.frame(self.disk, seal, FrameKind::Seal, 0);
        }
        if let Some((number, _, end)) = writer.segment {
            writer.previous = (number, end);
        }
        let mut salt = frame::Salt::default();
        salt[..8].copy_from_slice(&world.random.below(u64::MAX).to_le_bytes());
        let mut buf = AlignedBuf::with_capacity(0);
        SegmentHeader {
            journal: writer.id,
            salt,
            number,
            base_lsn: writer.next_lsn,
            first_frame: writer.next_frame,
            previous: writer.chain,
            previous_segment: writer.previous.0,
            previous_end: writer.previous.1,
            created_at: 0,
        }
        .encode(&mut buf);
        if world.tears && world.random.one_in(30) {
            // Neither copy made it whole; maybe nothing of it did.
            if world.random.one_in(2) {
                self.disk.put(&segment_path(&writer.dir, number), 0, &buf.as_slice()[..40]);
            }
            return Err(ended());
        }
        self.disk.put(&segment_path(&writer.dir, number), 0, buf.as_slice());
        writer.segment = Some((number, salt, FIRST_FRAME));
        Ok(())
    }

    /// Regions take parcels: the old ones mostly, some never (`stubborn` of them are down).
    pub(super) fn deliver(&mut self, world: &mut World, stubborn: u64) {
        let take = world.random.below(12) as usize;
        let waiting: Vec<_> = world
            .open
            .iter()
            .filter(|(seq, slot)| stubborn == 0 || (seq + u64::from(*slot)) % 40 >= stubborn)
            .filter(|parcel| !self.delivered.contains(parcel))
            .copied()
            .collect();
        for (seq, slot) in waiting.into_iter().take(take) {
            let entry = &world.entries[&seq];
            let journal = self.places.iter().position(|(id, _)| *id == entry.journal).unwrap();
            let core = journal % self.writers.len();
            // The tag is opaque to the journal; here it says whose mark it is.
            let mark = Mark { lsn: entry.lsn, slot, outcome: Settled::Delivered, tag: seq as u32 };
            self.writers[core].marks.push((entry.journal, mark));
            self.delivered.insert((seq, slot));
        }
    }

    /// The archiver gets on in some journal.
    pub(super) fn archive(&self, world: &mut World) {
        let at = world.random.below(self.places.len() as u64) as usize;
        let (id, place) = &self.places[at];
        let all = world.entries.values().filter(|entry| entry.journal == *id).map(|entry| entry.position);
        let mut ahead: Vec<_> = all.filter(|position| *position >= place.archived.upto()).collect();
        ahead.sort_unstable();
        if let Some(position) = ahead.get(world.random.below(ahead.len() as u64 * 2) as usize) {
            let upto = Position::new(position.segment(), position.offset() + BLOCK as u64);
            world.archived.insert(*id, upto);
            place.archived.set(upto);
        }
    }

    /// Where the first writer stands.
    pub(super) fn end(&self) -> Position {
        let (number, _, at) = self.writers[0].segment.unwrap();
        Position::new(number, at)
    }

    /// Everything is archived.
    pub(super) fn archive_all(&self, world: &mut World) {
        for (id, place) in &self.places {
            world.archived.insert(*id, Position::from_bits(u64::MAX));
            place.archived.set(Position::from_bits(u64::MAX));
        }
    }

    /// Freeing hears of some of the frames, in their order, and does a round.
    pub(super) fn free(&mut self, world: &mut World, all: bool) -> Result<Round, FreeError> {
        let count = self.wrote.len();
        let told = if all { count } else { world.random.below(count as u64 + 1) as usize };
        for wrote in self.wrote.drain(..told) {
            self.freeing.wrote(&wrote);
        }
        let short = world.random.one_in(4);
        self.freeing.round(short)
    }
}

impl Writer {
    fn frame(
        &mut self,
        disk: &MemoryDisk,
        mut buf: AlignedBuf,
        kind: FrameKind,
        records: u32,
    ) -> (Position, Position) {
        let (number, salt, at) = self.segment.unwrap();
        let header = frame::finish(
            &mut buf,
            FrameHeader {
                kind,
                salt,
                number: self.next_frame,
                first_lsn: self.next_lsn,
                records,
                payload: 0,
                padded: 0,
                payload_crc: 0,
                durable_upto: self.next_lsn,
                previous: self.chain,
                written_at: 0,
            },
        );
        disk.put(&segment_path(&self.dir, number), at, buf.as_slice());
        let end = at + u64::from(header.padded);
        self.segment = Some((number, salt, end));
        (self.next_frame, self.next_lsn, self.chain) =
            (header.number + 1, header.next_lsn(), header.digest());
        (Position::new(number, at), Position::new(number, end))
    }
}
