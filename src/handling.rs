//! Which entry each thread is handling at this moment, in a file that outlives the process: an entry whose
//! handling ends the process three times is *quarantined*, so that one poisoned webhook does not keep the
//! gateway from everything else for ever.
//!
//! ```text
//! <data_dir>/handling    magic | a slot for each thread | suspects: entry and step, crashes
//! ```
//!
//! A thread sets its slot before it handles an entry and clears it after: stores into a mapped page. What
//! a process wrote there is in the page cache, whatever ended the process; a power cut is no crash that an
//! entry could be guilty of. At a start the slots that are set name the suspects. If a thread of them
//! unwound from a panic, it was that one; else all are counted, since nobody knows. The counts are synced
//! before anything is handled again. A clean handling acquits.
//!
//! A count belongs to one step with one parcel: what one region's attempt survives says nothing of another's.
//!
//! # Deliberately absent
//!
//! What becomes of a quarantined entry: forwarding and the archive each decide that for themselves.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use crate::fault;
use crate::journal::{JournalId, JournalIndex};

/// Crashes after which an entry is not handled any more.
pub const QUARANTINE: u64 = 3;

const FILE: &str = "handling";
const MAGIC: u64 = u64::from_le_bytes(*b"PNSTHND1");
/// All in words of eight bytes. A slot has a cache line of its own.
const LINE: usize = 8;
const SLOTS: usize = 128;
const SUSPECTS: usize = 126;
const WORDS: usize = LINE * (1 + SLOTS + SUSPECTS);
const BYTES: usize = WORDS * 8;

/// In the last word of a slot: it is set, and its thread panicked.
const SET: u64 = 1 << 63;
const PANICKED: u64 = 1 << 62;

/// What is done with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Step {
    /// Looking for repeats.
    Sift = 1,
    /// Making the parcel that goes out.
    Cut = 2,
    /// Making its archive records.
    Archive = 3,
    /// Archiving it as it came, after [`Step::Archive`] was given up.
    ArchiveRaw = 4,
    /// Taking a parcel apart, one part for each conversation.
    Split = 5,
    /// Finding the conversations of what is no repeat.
    Lanes = 6,
}

impl Step {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Sift, "looking for repeats"),
        (Self::Cut, "making its parcel"),
        (Self::Archive, "archiving it"),
        (Self::ArchiveRaw, "archiving it as it came"),
        (Self::Split, "taking its parcel apart"),
        (Self::Lanes, "finding its conversations"),
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.iter().map(|(step, _)| *step).find(|step| *step as u8 == byte)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }
}

/// Stands for the index of a journal where a dead letter goes out again: its id is then the LSN.
pub const LETTERS: JournalIndex = u32::MAX as JournalIndex;
const LETTERS_ID: JournalId = [u8::MAX; 16];

/// One step with one parcel; `slot` is 0 for steps with the whole entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    journal: JournalId,
    lsn: u64,
    slot: u16,
    step: Step,
}

/// The file, mapped; shared by all threads.
#[derive(Debug, Default)]
pub struct Handling {
    words: &'static [AtomicU64],
    /// Ids by index of the journal.
    journals: Vec<JournalId>,
    /// As they were at the start: crashes, and the line that counts them.
    suspects: HashMap<Key, (u64, usize)>,
    next: AtomicU64,
}

impl Handling {
    /// Counts what the last process left. `journals` are all that there are, by index: what is said of
    /// others is forgotten. The data folder must be this process's own.
    pub fn open(data_dir: &Path, journals: Vec<JournalId>, sync: bool) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() != BYTES as u64 {
            // Written, not only reserved: a page for which the disk has no room would end the process later.
            file.set_len(0)?;
            file.write_all(&[0; BYTES])?;
        }
        let words = map(&file)?;
        if words[0].swap(MAGIC, Relaxed) != MAGIC {
            words[1..].iter().for_each(|word| word.store(0, Relaxed));
        }
        let mut handling = Self { words, journals, suspects: HashMap::new(), next: AtomicU64::new(0) };
        handling.count();
        if sync {
            file.sync_all()?;
            File::open(data_dir)?.sync_all()?;
        }
        handling.tell();
        Ok(handling)
    }

    fn line(&self, line: usize) -> &'static [AtomicU64] {
        &self.words[line * LINE..(line + 1) * LINE]
    }

    fn is_known(&self, journal: &JournalId) -> bool {
        self.journals.contains(journal) || *journal == LETTERS_ID
    }

    fn id(&self, journal: JournalIndex) -> Option<JournalId> {
        if journal == LETTERS { Some(LETTERS_ID) } else { self.journals.get(journal).copied() }
    }

    /// Takes the slots that are set into the suspects.
    fn count(&mut self) {
        let rows = 1 + SLOTS..1 + SLOTS + SUSPECTS;
        for row in rows.clone() {
            match read(self.line(row)) {
                Some((key, crashes)) if crashes > 0 && self.is_known(&key.journal) => {
                    self.suspects.insert(key, (crashes, row));
                }
                _ => self.line(row).iter().for_each(|word| word.store(0, Relaxed)),
            }
        }
        let set: Vec<(Key, u64)> = (1..=SLOTS).filter_map(|slot| read(self.line(slot))).collect();
        let panicked =
            set.iter().any(|(_, state)| state & PANICKED != 0) && !fault::planted("panic-accuses-all");
        for (key, state) in set {
            if panicked && state & PANICKED == 0 || !self.is_known(&key.journal) {
                continue;
            }
            let free = || rows.clone().find(|row| self.line(*row)[4].load(Relaxed) == 0);
            let known = self.suspects.get(&key).copied().or_else(|| free().map(|row| (0, row)));
            let Some((crashes, row)) = known else {
                tracing::error!("too many suspects: one more entry that ended the process cannot be counted");
                continue;
            };
            let crashes = if fault::planted("crash-not-counted") { crashes } else { crashes + 1 };
            write(self.line(row), &key, crashes);
            self.suspects.insert(key, (crashes, row));
        }
        (1..=SLOTS).for_each(|slot| self.line(slot)[4].store(0, Relaxed));
    }

    fn tell(&self) {
        for (key, (crashes, _)) in &self.suspects {
            let (journal, lsn, slot) = (crate::journal::store::hex(&key.journal), key.lsn, key.slot);
            let step = key.step.name();
            if *crashes >= QUARANTINE {
                tracing::error!(
                    journal,
                    lsn,
                    slot,
                    step,
                    crashes,
                    "quarantined: this step with this webhook ended the process again and again, and is left out from \
                     now on; where its parcel cannot go out, it is a dead letter (`penstock dead list --reason \
                     quarantined`); to have all steps tried again, stop the gateway and remove the file `handling` in \
                     the data folder"
                );
            } else {
                tracing::warn!(
                    journal,
                    lsn,
                    slot,
                    step,
                    crashes,
                    "the process before this one ended in this step with this webhook; after three times it is quarantined"
                );
            }
        }
    }

    /// Entries that are quarantined in some step.
    pub fn quarantined(&self) -> u64 {
        self.suspects.values().filter(|(crashes, _)| *crashes >= QUARANTINE).count() as u64
    }

    /// A slot for one thread; for at most 128 of them.
    pub fn watch(self: &Arc<Self>) -> io::Result<Watch> {
        let slot = 1 + self.next.fetch_add(1, Relaxed) as usize;
        if slot > SLOTS {
            return Err(io::Error::other("more threads handle entries than the file `handling` has slots"));
        }
        Ok(Watch { handling: Arc::clone(self), slot: self.line(slot), journal: Cell::new(None) })
    }
}

/// One thread's slot; by default one of nothing, which watches nothing.
#[derive(Debug, Default)]
pub struct Watch {
    handling: Arc<Handling>,
    slot: &'static [AtomicU64],
    /// The journal that stands in the slot.
    journal: Cell<Option<JournalIndex>>,
}

/// Set until it is forgotten: only a panic drops it.
struct Accused<'a>(&'a AtomicU64);

impl Drop for Accused<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(PANICKED, Relaxed);
    }
}

impl Watch {
    /// Does a step with an entry. Not one within another, and nothing that waits.
    pub fn during<T>(
        &self,
        step: Step,
        (journal, lsn, slot): (JournalIndex, u64, u16),
        act: impl FnOnce() -> T,
    ) -> T {
        let Some(id) = self.handling.id(journal).filter(|_| !self.slot.is_empty()) else { return act() };
        if self.journal.replace(Some(journal)) != Some(journal) {
            write(self.slot, &Key { journal: id, lsn, slot, step }, 0);
        }
        self.slot[2].store(lsn, Relaxed);
        self.slot[3].store(u64::from(slot) << 8 | step as u64, Relaxed);
        self.slot[4].store(SET, Release);
        let accused = Accused(&self.slot[4]);
        let result = act();
        std::mem::forget(accused);
        self.slot[4].store(0, Release);
        if !self.handling.suspects.is_empty()
            && !fault::planted("nobody-acquitted")
            && let Some((_, row)) = self.handling.suspects.get(&Key { journal: id, lsn, slot, step })
        {
            self.handling.line(*row)[4].store(0, Relaxed);
        }
        result
    }

    /// Whether a step with an entry is to be left out.
    pub fn is_quarantined(&self, step: Step, (journal, lsn, slot): (JournalIndex, u64, u16)) -> bool {
        let crashes = || {
            let journal = self.handling.id(journal)?;
            self.handling.suspects.get(&Key { journal, lsn, slot, step })
        };
        !self.handling.suspects.is_empty() && crashes().is_some_and(|(crashes, _)| *crashes >= QUARANTINE)
    }
}

/// Who stands in a line, and its last word; `None` if nobody does.
fn read(line: &[AtomicU64]) -> Option<(Key, u64)> {
    let word = |at: usize| line[at].load(Relaxed);
    let mut journal = JournalId::default();
    journal[..8].copy_from_slice(&word(0).to_le_bytes());
    journal[8..].copy_from_slice(&word(1).to_le_bytes());
    let step = Step::from_byte(word(3) as u8)?;
    (word(4) != 0).then_some((Key { journal, lsn: word(2), slot: (word(3) >> 8) as u16, step }, word(4)))
}

fn write(line: &[AtomicU64], key: &Key, state: u64) {
    let half =
        |at: usize| key.journal[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    line[0].store(half(0), Relaxed);
    line[1].store(half(8), Relaxed);
    line[2].store(key.lsn, Relaxed);
    line[3].store(u64::from(key.slot) << 8 | key.step as u64, Relaxed);
    line[4].store(state, Release);
}

/// The file in memory, for as long as the process lives.
fn map(file: &File) -> io::Result<&'static [AtomicU64]> {
    let len = NonZeroUsize::new(BYTES).ok_or(io::ErrorKind::InvalidInput)?;
    let flags = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at a place that the kernel chooses touches no memory of this program.
    let start = unsafe { mmap(None, len, flags, MapFlags::MAP_SHARED, file, 0) }?;
    // SAFETY: the mapping is BYTES long, begins on a page border (so it is aligned for u64), and is never
    // unmapped, so it is valid for 'static. Any bits are an AtomicU64, and nobody in this process has a plain
    // reference to it; another process that wrote the file could only change values between two loads, which
    // atomics allow. The file is as long as the mapping: it is in the locked data folder, and nothing of
    // this program cuts it; who does so by hand ends the process with SIGBUS, and undoes nothing.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), WORDS) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: JournalId = [1; 16];
    const TWO: JournalId = [2; 16];

    fn open(dir: &Path) -> Arc<Handling> {
        Arc::new(Handling::open(dir, vec![ONE, TWO], true).unwrap())
    }

    /// Leaves a slot set, as a killed process does.
    fn killed_in(watch: &Watch, step: Step, (journal, lsn, slot): (JournalIndex, u64, u16)) {
        let journal = watch.handling.journals[journal];
        write(watch.slot, &Key { journal, lsn, slot, step }, SET);
    }

    #[test]
    fn entry_that_ends_the_process_three_times_is_quarantined_for_that_step_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = (1, 4711, 2);
        for crash in 0..3 {
            let handling = open(dir.path());
            let watch = handling.watch().unwrap();
            assert!(!watch.is_quarantined(Step::Cut, at), "after {crash} crashes");
            // Others are handled meanwhile, by this thread and by another one.
            watch.during(Step::Cut, (0, 1, 0), || ());
            handling.watch().unwrap().during(Step::Sift, at, || ());
            killed_in(&watch, Step::Cut, at);
        }
        let watch = open(dir.path()).watch().unwrap();
        assert_eq!(watch.handling.quarantined(), 1);
        assert!(watch.is_quarantined(Step::Cut, at));
        assert!(!watch.is_quarantined(Step::Sift, at) && !watch.is_quarantined(Step::Cut, (1, 4711, 1)));
        assert!(!watch.is_quarantined(Step::Cut, (0, 4711, 2)), "of another journal");
        // It stays so.
        assert!(open(dir.path()).watch().unwrap().is_quarantined(Step::Cut, at));
    }

    #[test]
    fn clean_handling_acquits() {
        let dir = tempfile::tempdir().unwrap();
        let at = (0, 5, 0);
        for _ in 0..5 {
            for _ in 0..2 {
                killed_in(&open(dir.path()).watch().unwrap(), Step::Sift, at);
            }
            let watch = open(dir.path()).watch().unwrap();
            assert!(!watch.is_quarantined(Step::Sift, at));
            watch.during(Step::Sift, at, || ());
        }
        assert!(open(dir.path()).suspects.is_empty());
    }

    #[test]
    fn thread_that_panicked_is_the_only_suspect() {
        let dir = tempfile::tempdir().unwrap();
        let handling = open(dir.path());
        let (guilty, innocent) = (handling.watch().unwrap(), handling.watch().unwrap());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let act = std::panic::AssertUnwindSafe(|| guilty.during(Step::Cut, (0, 7, 0), || panic!("poison")));
        assert!(std::panic::catch_unwind(act).is_err());
        std::panic::set_hook(hook);
        killed_in(&innocent, Step::Cut, (0, 8, 0));
        let suspects: Vec<u64> = open(dir.path()).suspects.keys().map(|key| key.lsn).collect();
        assert_eq!(suspects, [7]);
    }

    #[test]
    fn clean_end_leaves_no_suspect_and_journals_that_are_gone_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let watch = open(dir.path()).watch().unwrap();
        (0..1000).for_each(|lsn| watch.during(Step::Sift, (lsn as usize % 2, lsn, 0), || ()));
        assert!(open(dir.path()).suspects.is_empty());
        killed_in(&watch, Step::Sift, (1, 9, 0));
        assert_eq!(open(dir.path()).suspects.len(), 1);
        assert!(Handling::open(dir.path(), vec![ONE], true).unwrap().suspects.is_empty());
        // A file that is not ours is begun anew.
        std::fs::write(dir.path().join(FILE), vec![0xee; BYTES]).unwrap();
        assert!(open(dir.path()).suspects.is_empty());
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        assert!(open(dir.path()).suspects.is_empty());
    }
}
