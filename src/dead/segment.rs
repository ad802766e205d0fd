//! One segment: a file of letters and its index, and what of it is in memory.
//!
//! In memory is a slot per letter, so that a million of them take some tens of megabytes; all else is
//! read from the index when it is asked for, and a webhook only when it is shown or goes out.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::damage::{Damage, DeadError, failed};
use super::disk::{Disk, Os};
use super::gaps::Gaps;
use super::record::{self, Change, FileKind, Found, HEADER, HeaderFault, PREFIX, Row, What};
use super::{Failure, LetterId, State};
use crate::fault;

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
    /// Bytes of letters with the header.
    pub(super) letters_end: u64,
    pub(super) index_end: u64,
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
                letters_end: end,
                index_end: end,
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

    /// Reads a segment, tells its gaps in order, and cuts what was never finished. `None` if nothing was
    /// ever in it: then it is gone.
    pub(super) fn load(
        disk: D,
        dir: &Path,
        number: u64,
        gaps: &mut Gaps,
        damages: &mut Vec<Damage>,
    ) -> Result<Option<Self>, DeadError> {
        let (letters_path, index_path) =
            (path(dir, number, FileKind::Letters), path(dir, number, FileKind::Index));
        for path in [&letters_path, &index_path] {
            if !disk.exists(path) {
                disk.create(path, &[]).map_err(failed("make", path))?;
            }
            // What is found here is believed from now on, so a power cut must not take it away again.
            if !fault::planted("letters-believed-unsynced") {
                disk.sync(path).map_err(failed("sync", path))?;
            }
        }
        let size = |path: &Path| disk.size(path).map_err(failed("look at", path));
        let read = |path: &Path, len: u64| disk.read(path, 0, len as usize).map_err(failed("read", path));
        let index = read(&index_path, size(&index_path)?)?;
        let letters_len = size(&letters_path)?;
        let head = read(&letters_path, letters_len.min(HEADER as u64))?;
        let salt_of = |file: &[u8], kind, path: &Path| match record::read_header(file, kind) {
            Err(source @ HeaderFault::Newer(_)) => Err(DeadError::Newer { path: path.to_owned(), source }),
            other => Ok(other.ok()),
        };
        let found = (
            salt_of(&head, FileKind::Letters, &letters_path)?,
            salt_of(&index, FileKind::Index, &index_path)?,
        );
        let mut bad_header = |path: &Path, file: &[u8]| {
            let what = "the header is damaged or missing; the other file's was taken";
            damages.push(Damage { path: path.to_owned(), at: 0, len: file.len().min(HEADER) as u64, what });
        };
        let salt = match found {
            (Some(salt), Some(_)) => salt,
            (Some(salt), None) if letters_len > HEADER as u64 => {
                bad_header(&index_path, &index);
                salt
            }
            (None, Some(salt)) if index.len() > HEADER => {
                bad_header(&letters_path, &head);
                salt
            }
            _ if letters_len <= HEADER as u64 && index.len() <= HEADER => {
                // Its making was not finished, so nothing was ever in it.
                for path in [&letters_path, &index_path] {
                    disk.remove(path).map_err(failed("remove", path))?;
                }
                return Ok(None);
            }
            _ => {
                let what = "both headers of the segment are damaged: none of its letters can be found";
                damages.push(Damage { path: letters_path, at: 0, len: letters_len, what });
                return Ok(None);
            }
        };
        let mut segment = Self {
            disk,
            number,
            dir: dir.to_owned(),
            salt,
            slots: Vec::new(),
            alive: 0,
            letters_end: letters_len,
            index_end: index.len() as u64,
        };
        let known = damages.len();
        let mut loading = Loading { changes: Vec::new(), places: Vec::new(), damages, gaps };
        segment.read_index(&index, &index_path, &mut loading);
        let again = segment.read_unlisted(&letters_path, letters_len, &mut loading)?;
        let Loading { changes, damages, .. } = loading;
        segment.slots.sort_by_key(|slot| slot.id);
        segment.alive = segment.slots.len();
        for (at, change) in changes {
            segment.apply(&change, at);
        }
        if segment.alive == 0 && letters_len == 0 {
            // Its removal was not finished; what it knew of gaps a newer one knows.
            damages.truncate(known);
            segment.remove().map_err(failed("remove", &letters_path))?;
            return Ok(None);
        }
        if segment.letters_end < HEADER as u64 {
            // All letters are lost, and others may follow.
            let header = record::header(FileKind::Letters, salt);
            segment.disk.write(&letters_path, 0, &header).map_err(failed("write", &letters_path))?;
            segment.letters_end = HEADER as u64;
        }
        let disk = &segment.disk;
        if segment.letters_end < letters_len {
            disk.cut(&letters_path, segment.letters_end).map_err(failed("cut", &letters_path))?;
        }
        let at = segment.index_end;
        let mut written = Ok(());
        if at != index.len() as u64 {
            written = disk.cut(&index_path, at);
        }
        if at <= HEADER as u64 {
            written =
                written.and_then(|()| disk.write(&index_path, 0, &record::header(FileKind::Index, salt)));
        }
        if !again.is_empty() {
            written = written
                .and_then(|()| disk.write(&index_path, at, &again))
                .and_then(|()| disk.sync(&index_path));
        }
        written.map_err(failed("write", &index_path))?;
        segment.index_end += again.len() as u64;
        Ok(Some(segment))
    }

    fn read_index(&mut self, index: &[u8], path: &Path, loading: &mut Loading<'_>) {
        let body = index.get(HEADER..).unwrap_or_default();
        let Loading { changes, places, damages, gaps } = loading;
        let damaged = |at: usize, len: usize, what| Damage {
            path: path.to_owned(),
            at: at as u64,
            len: len as u64,
            what,
        };
        let torn = record::walk(self.salt, body, HEADER, |found| match found {
            Found::Piece { at, len, fields } => {
                if let Some((row, _)) = Row::read(fields) {
                    places.push(row.place());
                    row.conversations().for_each(|conversation| gaps.died(conversation, row.id()));
                    self.slots.push(slot(&row, at));
                } else if let Some(change) = Change::read(fields) {
                    match change.what {
                        What::Gap { conversation, count } => gaps.set(conversation, change.id, count),
                        _ => changes.push((at as u32, change)),
                    }
                } else {
                    damages.push(damaged(at, len, "an unknown entry of the index was passed over"));
                }
            }
            Found::Damaged { at, len } => {
                let what = "damaged index: letters are found again, but what was replayed or dropped may be a letter again";
                damages.push(damaged(at, len, what));
            }
        });
        if torn > 0 {
            let what = "the end of the index was not finished, or is damaged; it was cut";
            damages.push(damaged(index.len() - torn, torn, what));
        }
        self.index_end = index.len().saturating_sub(torn).max(HEADER) as u64;
    }

    /// Looks for letters that the index does not name; the entries that it lacks.
    fn read_unlisted(
        &mut self,
        path: &Path,
        len: u64,
        loading: &mut Loading<'_>,
    ) -> Result<Vec<u8>, DeadError> {
        let Loading { places, damages, gaps, .. } = loading;
        let damaged = |at: u64, len: u64, what| Damage { path: path.to_owned(), at, len, what };
        places.sort_unstable();
        let mut holes = Vec::new();
        let mut at = HEADER as u64;
        for (place, length) in places.iter() {
            if *place > at {
                holes.push((at, (*place).min(len)));
            }
            at = at.max(place.saturating_add(u64::from(*length)));
        }
        if at > len {
            damages.push(damaged(
                len,
                at - len,
                "letters that the index names are missing at the end of the file",
            ));
        }
        holes.push((at, len));
        let mut again = Vec::new();
        for (from, to) in holes.into_iter().filter(|(from, to)| from < to) {
            let bytes = self.disk.read(path, from, (to - from) as usize).map_err(failed("read", path))?;
            let torn = record::walk(self.salt, &bytes, from as usize, |found| match found {
                Found::Piece { at, len, fields } => {
                    let Some((row, _)) = Row::read(fields) else {
                        return damages.push(damaged(
                            at as u64,
                            len as u64,
                            "an unknown piece was passed over",
                        ));
                    };
                    row.conversations().for_each(|conversation| gaps.died(conversation, row.id()));
                    self.slots.push(slot(&row, self.index_end as usize + again.len()));
                    record::push_entry_again(self.salt, &row, (at as u64, len as u32), &mut again);
                }
                Found::Damaged { at, len } => {
                    damages.push(damaged(at as u64, len as u64, "a damaged letter is lost"))
                }
            }) as u64;
            if torn > 0 && to == len {
                damages.push(damaged(
                    to - torn,
                    torn,
                    "the last letter was not finished, or is damaged; it was cut",
                ));
                self.letters_end = to - torn;
            } else if torn > 0 {
                damages.push(damaged(to - torn, torn, "a damaged letter is lost"));
            }
        }
        Ok(again)
    }

    /// Letters and their entries, made durable in this order: whoever is in the index is there.
    pub(super) fn append(&mut self, letters: &[u8], index: &[u8]) -> io::Result<()> {
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
        self.disk.read(&path(&self.dir, self.number, FileKind::Index), 0, self.index_end as usize)
    }

    fn conversations_in(fields: &[u8]) -> Vec<u64> {
        Row::read(fields).map(|(row, _)| row.conversations().collect()).unwrap_or_default()
    }

    /// Those of one letter.
    pub(super) fn conversations_of(&self, id: LetterId) -> io::Result<Vec<u64>> {
        let Some(slot) = self.slot(id) else { return Ok(Vec::new()) };
        let (path, at) = (path(&self.dir, self.number, FileKind::Index), u64::from(slot.at));
        let mut prefix = [0; PREFIX];
        prefix.copy_from_slice(&self.disk.read(&path, at, PREFIX)?);
        let piece = self.disk.read(&path, at, record::piece_len(&prefix))?;
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
        let remove = |kind| self.disk.remove(&path(&self.dir, self.number, kind));
        // The letters first: without the index they would all be letters again.
        if fault::planted("index-goes-first") {
            return remove(FileKind::Index).and_then(|()| remove(FileKind::Letters));
        }
        remove(FileKind::Letters)?;
        self.disk.sync_folder(&self.dir)?;
        remove(FileKind::Index)
    }
}

/// What a load comes across.
struct Loading<'a> {
    /// With their places.
    changes: Vec<(u32, Change)>,
    places: Vec<(u64, u32)>,
    damages: &'a mut Vec<Damage>,
    gaps: &'a mut Gaps,
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
