//! A segment as a start finds it.

use super::*;
use crate::journal::spare::is_full;

impl<D: Disk> Segment<D> {
    /// Reads a segment, tells its gaps in order, and cuts what was never finished. `None` if nothing was
    /// ever in it: then it is gone.
    pub(in crate::dead) fn load(
        disk: D,
        dir: &Path,
        number: u64,
        gaps: &mut Gaps,
        damages: &mut Vec<Damage>,
    ) -> Result<Option<Self>, DeadError> {
        let (letters_path, index_path) =
            (path(dir, number, FileKind::Letters), path(dir, number, FileKind::Index));
        for path in [&letters_path, &index_path] {
            // What is found here is believed from now on, so a power cut must not take it away again.
            if disk.exists(path) && !fault::planted("letters-believed-unsynced") {
                disk.sync(path).map_err(failed("sync", path))?;
            }
        }
        let size = |path: &Path| match disk.exists(path) {
            true => disk.size(path).map_err(failed("look at", path)),
            false => Ok(0),
        };
        let read = |path: &Path, len: u64| match len {
            0 => Ok(Vec::new()),
            _ => disk.read(path, 0, len as usize).map_err(failed("read", path)),
        };
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
                for path in [&letters_path, &index_path].into_iter().filter(|path| disk.exists(path)) {
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
            pinned: false,
            letters_end: letters_len,
            index_end: index.len() as u64,
            unwritten: Vec::new(),
            headless: false,
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
        let disk = &segment.disk;
        if segment.letters_end.max(HEADER as u64) < letters_len {
            disk.cut(&letters_path, segment.letters_end).map_err(failed("cut", &letters_path))?;
        }
        if segment.index_end < index.len() as u64 {
            disk.cut(&index_path, segment.index_end).map_err(failed("cut", &index_path))?;
        }
        // All letters are lost, and others may follow.
        segment.headless = letters_len < HEADER as u64;
        segment.letters_end = segment.letters_end.max(HEADER as u64);
        if segment.index_end <= HEADER as u64 {
            segment.unwritten.extend(record::header(FileKind::Index, salt));
        }
        segment.index_end += again.len() as u64;
        segment.unwritten.extend(again);
        match segment.mend() {
            // The gateway must start, since only then there will be space; what it found is known until then.
            Err(error) if is_full(&error) && !fault::planted("no-start-on-a-full-disk") => {}
            mended => mended.map_err(failed("write", &index_path))?,
        }
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
                        What::Gap { conversation, count } => {
                            gaps.set(conversation, Gap { since: change.id, count })
                        }
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
}

/// What a load comes across.
struct Loading<'a> {
    /// With their places.
    changes: Vec<(u32, Change)>,
    places: Vec<(u64, u32)>,
    damages: &'a mut Vec<Damage>,
    gaps: &'a mut Gaps,
}
