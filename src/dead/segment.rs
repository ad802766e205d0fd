//! One segment: a file of letters and its index, and what of it is in memory.
//!
//! In memory is a slot per letter, so that a million of them take some tens of megabytes; all else is
//! read from the index when it is asked for, and a webhook only when it is shown or goes out.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::damage::{Damage, DeadError, failed};
use super::disk::{Disk, Os};
use super::gaps::{Gap, Gaps};
use super::record::{self, Change, FileKind, Found, HEADER, HeaderFault, PREFIX, Row, What};
use super::{Failure, LetterId, State};
use crate::fault;

mod load;

/// A new segment is begun at so many bytes of letters: small, since one goes when all in it has gone.
pub(super) const SEGMENT_BYTES: u64 = 8 << 20;

/// One letter in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) id: LetterId,
    /// Where its entry begins in the index.
    at: u32,
    /// Where its last failure begins in the index; 0: it failed only once.
    failed: u32,
    /// Of its order, letters a second.
    pub(super) rate: u32,
    pub(super) state: State,
}

impl Slot {
    /// Whether a change makes a difference.
    pub(super) fn takes(&self, what: &What) -> bool {
        after(self.state, what).is_some()
    }
}

#[derive(Debug)]
pub(super) struct Segment<D = Os> {
    disk: D,
    pub(super) number: u64,
    dir: PathBuf,
    salt: u64,
    /// By id.
    pub(super) slots: Vec<Slot>,
    pub(super) alive: usize,
    /// It stays in this run, whatever becomes of its letters.
    pub(super) pinned: bool,
    /// Bytes of letters with the header.
    pub(super) letters_end: u64,
    pub(super) index_end: u64,
    /// The end of the index while there is no space for it: what the start found again.
    unwritten: Vec<u8>,
    /// The file of letters has no header yet.
    headless: bool,
}

const KINDS: [FileKind; 2] = [FileKind::Letters, FileKind::Index];

fn path(dir: &Path, number: u64, kind: FileKind) -> PathBuf {
    dir.join(match kind {
        FileKind::Letters => format!("{number:08}.letters"),
        FileKind::Index => format!("{number:08}.index"),
    })
}

impl<D: Disk> Segment<D> {
    pub(super) fn create(disk: D, dir: &Path, number: u64, salt: u64) -> io::Result<Self> {
        let new = |kind| disk.create(&path(dir, number, kind), &record::header(kind, salt));
        let made = KINDS.into_iter().try_for_each(new).and_then(|()| {
            if fault::planted("letter-names-not-synced") { Ok(()) } else { disk.sync_folder(dir) }
        });
        let (end, dir) = (HEADER as u64, dir.to_owned());
        match made {
            Ok(()) => Ok(Self {
                disk,
                number,
                dir,
                salt,
                slots: Vec::new(),
                alive: 0,
                pinned: false,
                letters_end: end,
                index_end: end,
                unwritten: Vec::new(),
                headless: false,
            }),
            Err(error) => {
                // If they stay, the next start finds nothing in them.
                for kind in KINDS {
                    disk.remove(&path(&dir, number, kind)).ok();
                }
                Err(error)
            }
        }
    }

    /// Letters and their entries, made durable in this order: whoever is in the index is there.
    pub(super) fn append(&mut self, letters: &[u8], index: &[u8]) -> io::Result<()> {
        self.mend()?;
        let disk = &self.disk;
        let [letters_path, index_path] = KINDS.map(|kind| path(&self.dir, self.number, kind));
        let write = |path: &Path, at: u64, bytes: &[u8], unsynced: bool| {
            disk.write(path, at, bytes)?;
            if unsynced { Ok(()) } else { disk.sync(path) }
        };
        let letters_written = || match letters {
            [] => Ok(()),
            bytes => fault::io("letter-write").and_then(|()| {
                write(&letters_path, self.letters_end, bytes, fault::planted("letters-not-synced"))
            }),
        };
        let index_written = || {
            fault::io("index-write")?;
            write(&index_path, self.index_end, index, fault::planted("index-not-synced"))
        };
        let written = match fault::planted("index-before-letters") {
            false => letters_written().and_then(|()| index_written()),
            true => index_written().and_then(|()| letters_written()),
        };
        if let Err(error) = written {
            // What was written of it must not be found at a start and be a letter.
            disk.cut(&letters_path, self.letters_end).ok();
            disk.cut(&index_path, self.index_end).ok();
            return Err(error);
        }
        self.letters_end += letters.len() as u64;
        self.index_end += index.len() as u64;
        Ok(())
    }

    /// Writes what the start found missing.
    fn mend(&mut self) -> io::Result<()> {
        let [letters, index] = KINDS.map(|kind| path(&self.dir, self.number, kind));
        let write = |file: &Path, at: u64, bytes: &[u8]| {
            if !self.disk.exists(file) {
                self.disk.create(file, &[])?;
                self.disk.sync_folder(&self.dir)?;
            }
            self.disk.write(file, at, bytes)?;
            self.disk.sync(file)
        };
        if self.headless {
            write(&letters, 0, &record::header(FileKind::Letters, self.salt))?;
            self.headless = false;
        }
        if !self.unwritten.is_empty() {
            write(&index, self.written(), &self.unwritten)?;
            self.unwritten = Vec::new();
        }
        Ok(())
    }

    /// Bytes of the index that are in its file.
    fn written(&self) -> u64 {
        self.index_end - self.unwritten.len() as u64
    }

    /// Makes changes durable that have been looked at.
    pub(super) fn change(&mut self, changes: &[Change]) -> io::Result<usize> {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for change in changes {
            places.push(self.index_end as u32 + bytes.len() as u32);
            if !super::is_forgotten(change.what) {
                change.push(self.salt, &mut bytes);
            }
        }
        self.append(&[], &bytes)?;
        Ok(changes.iter().zip(places).filter(|(change, at)| self.apply(change, *at)).count())
    }

    /// Conversations of its letters and of the gaps it tells of, some of them more than once.
    pub(super) fn conversations(&self) -> io::Result<Vec<u64>> {
        let (index, mut all) = (self.index()?, Vec::new());
        record::walk(self.salt, index.get(HEADER..).unwrap_or_default(), HEADER, |found| {
            let Found::Piece { fields, .. } = found else { return };
            if let Some((row, _)) = Row::read(fields) {
                all.extend(row.conversations());
            } else if let Some(What::Gap { conversation, .. }) =
                Change::read(fields).map(|change| change.what)
            {
                all.push(conversation);
            }
        });
        Ok(all)
    }

    /// A letter was appended whose entry stands at `at`.
    pub(super) fn added(&mut self, id: LetterId, at: u64) {
        self.slots.push(Slot { id, at: at as u32, failed: 0, rate: 0, state: State::Waiting });
        self.alive += 1;
    }

    pub(super) fn salt(&self) -> u64 {
        self.salt
    }

    pub(super) fn last_id(&self) -> Option<LetterId> {
        self.slots.last().map(|slot| slot.id)
    }

    pub(super) fn slot(&self, id: LetterId) -> Option<&Slot> {
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok().map(|at| &self.slots[at])
    }

    /// A change that stands at `at` of the index. False if it changes nothing.
    pub(super) fn apply(&mut self, change: &Change, at: u32) -> bool {
        let Ok(place) = self.slots.binary_search_by_key(&change.id, |slot| slot.id) else { return false };
        let slot = &mut self.slots[place];
        let Some(next) = after(slot.state, &change.what) else { return false };
        match change.what {
            What::Ordered { rate } => slot.rate = rate,
            What::Failed(_) => slot.failed = at,
            _ => {}
        }
        self.alive -= usize::from(slot.state.alive() && !next.alive());
        slot.state = next;
        true
    }

    /// The whole index, for [`Segment::row`].
    pub(super) fn index(&self) -> io::Result<Vec<u8>> {
        self.index_part(0, self.index_end as usize)
    }

    fn index_part(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let written = self.written();
        let in_file = written.saturating_sub(at).min(len as u64) as usize;
        let mut bytes = match in_file {
            0 => Vec::new(),
            count => self.disk.read(&path(&self.dir, self.number, FileKind::Index), at, count)?,
        };
        let from = at.saturating_sub(written) as usize;
        let rest = self.unwritten.get(from..from + len - in_file);
        bytes.extend(rest.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(bytes)
    }

    fn conversations_in(fields: &[u8]) -> Vec<u64> {
        Row::read(fields).map(|(row, _)| row.conversations().collect()).unwrap_or_default()
    }

    /// Those of one letter.
    pub(super) fn conversations_of(&self, id: LetterId) -> io::Result<Vec<u64>> {
        let Some(slot) = self.slot(id) else { return Ok(Vec::new()) };
        let at = u64::from(slot.at);
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&self.index_part(at, PREFIX)?);
        let piece = self.index_part(at, record::piece_len(&prefix))?;
        Ok(record::piece(self.salt, &piece)
            .map(|(fields, _)| Self::conversations_in(fields))
            .unwrap_or_default())
    }

    /// A letter's entry and how it failed last.
    pub(super) fn row<'a>(&self, index: &'a [u8], slot: &Slot) -> Option<(Row<'a>, Failure)> {
        let fields = |at: u32| record::piece(self.salt, index.get(at as usize..)?).map(|(fields, _)| fields);
        let (row, _) = Row::read(fields(slot.at)?)?;
        let failure = match slot.failed {
            0 => row.failure(),
            at => match Change::read(fields(at)?)?.what {
                What::Failed(failure) => failure,
                _ => row.failure(),
            },
        };
        Some((row, failure))
    }

    /// The journal's record in the letter at `place`.
    pub(super) fn record(&self, id: LetterId, (at, len): (u64, u32)) -> Result<Bytes, Damage> {
        let path = path(&self.dir, self.number, FileKind::Letters);
        let damage = |what| Damage { path: path.clone(), at, len: u64::from(len), what };
        let bytes = self.disk.read(&path, at, len as usize).map_err(|_| damage("a letter cannot be read"))?;
        let head = record::piece(self.salt, &bytes).and_then(|(fields, _)| {
            Row::read(fields)
                .map(|(row, record)| (row.id(), PREFIX + fields.len() - record.len(), record.len()))
        });
        match head {
            Some((found, from, len)) if found == id => Ok(Bytes::from(bytes).slice(from..from + len)),
            _ => Err(damage("a letter is damaged")),
        }
    }

    /// Removes its files.
    pub(super) fn remove(&self) -> io::Result<()> {
        let remove = |kind| {
            let file = path(&self.dir, self.number, kind);
            if self.disk.exists(&file) { self.disk.remove(&file) } else { Ok(()) }
        };
        // The letters first: without the index they would all be letters again.
        if fault::planted("index-goes-first") {
            return remove(FileKind::Index).and_then(|()| remove(FileKind::Letters));
        }
        remove(FileKind::Letters)?;
        self.disk.sync_folder(&self.dir)?;
        remove(FileKind::Index)
    }
}

fn slot(row: &Row<'_>, at: usize) -> Slot {
    Slot { id: row.id(), at: at as u32, failed: 0, rate: 0, state: State::Waiting }
}

/// The state after a change; `None` if it makes no difference.
fn after(state: State, what: &What) -> Option<State> {
    match (state, what) {
        (State::Replayed | State::Dropped, _) | (_, What::Gap { .. }) => None,
        (_, What::Replayed) => Some(State::Replayed),
        (_, What::Dropped) => Some(State::Dropped),
        (State::Waiting, What::Ordered { .. }) => Some(State::Ordered),
        (State::Ordered, What::Ordered { .. }) => None,
        (State::Ordered, What::Kept) => Some(State::Waiting),
        (State::Waiting, What::Kept) => None,
        (_, What::Failed(_)) => Some(State::Waiting),
    }
}
