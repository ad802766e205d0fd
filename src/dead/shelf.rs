//! The letters of one region: its folder of segments, and the gaps in its conversations.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::damage::{Damage, DeadError, failed};
use super::disk::{Disk, Os};
use super::gaps::{Gap, Gaps};
use super::record::{self, Added, Change, What};
use super::segment::{SEGMENT_BYTES, Segment, Slot};
use super::{Letter, LetterId};
use crate::fault;

#[derive(Debug)]
pub(super) struct Shelf<D = Os> {
    /// The region's name, and its folder's.
    pub(super) name: String,
    dir: PathBuf,
    disk: D,
    /// Oldest first; letters are added to the last.
    pub(super) segments: Vec<Segment<D>>,
    pub(super) gaps: Gaps,
}

impl<D: Disk> Shelf<D> {
    /// A region without letters.
    pub(super) fn empty(root: &Path, name: &str, disk: D) -> Self {
        let (dir, name) = (root.join(name), name.to_owned());
        Self { name, dir, disk, segments: Vec::new(), gaps: Gaps::default() }
    }

    pub(super) fn load(
        root: &Path,
        name: &str,
        disk: D,
        damages: &mut Vec<Damage>,
    ) -> Result<Self, DeadError> {
        let mut shelf = Self::empty(root, name, disk);
        let mut numbers = Vec::new();
        shelf.disk.sync_folder(&shelf.dir).map_err(failed("sync folder", &shelf.dir))?;
        for file in shelf.disk.files(&shelf.dir).map_err(failed("list folder", &shelf.dir))? {
            let stem = file.strip_suffix(".letters").or(file.strip_suffix(".index"));
            numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let disk = shelf.disk.clone();
            shelf.segments.extend(Segment::load(disk, &shelf.dir, number, &mut shelf.gaps, damages)?);
        }
        Ok(shelf)
    }

    /// Letters that wait or are ordered.
    pub(super) fn alive(&self) -> usize {
        self.segments.iter().map(|segment| segment.alive).sum()
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.letters_end + segment.index_end).sum()
    }

    /// Where a letter is.
    pub(super) fn find(&self, id: LetterId) -> Option<(&Segment<D>, &Slot)> {
        let at = self.place(id)?;
        Some((&self.segments[at], self.segments[at].slot(id)?))
    }

    fn place(&self, id: LetterId) -> Option<usize> {
        // A segment without letters stands between others only until it goes.
        self.segments.iter().position(|segment| segment.last_id() >= Some(id) && segment.slot(id).is_some())
    }

    /// Makes letters durable. On an error nothing has happened.
    pub(super) fn bury(&mut self, letters: &[(&Letter, &Added)]) -> io::Result<()> {
        let segment = self.newest()?;
        let (mut bodies, mut index, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (letter, added) in letters {
            let place = segment.letters_end + bodies.len() as u64;
            let len = record::push_letter(segment.salt(), letter, added, place, &mut bodies);
            places.push(segment.index_end + index.len() as u64);
            record::push_entry(segment.salt(), letter, added, (place, len as u32), &mut index);
        }
        segment.append(&bodies, &index)?;
        for ((_, added), at) in letters.iter().zip(places) {
            segment.added(added.id, at);
        }
        for (letter, added) in letters {
            letter.conversations.iter().for_each(|conversation| self.gaps.died(*conversation, added.id));
        }
        Ok(())
    }

    /// The segment that letters are added to, made if need be.
    fn newest(&mut self) -> io::Result<&mut Segment<D>> {
        let full =
            |segment: &Segment<D>| segment.letters_end >= SEGMENT_BYTES || segment.index_end >= SEGMENT_BYTES;
        if self.segments.last().is_none_or(full) {
            self.begin()?;
        }
        self.segments.last_mut().ok_or_else(|| io::Error::other("no segment"))
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.disk.exists(&self.dir) {
            self.disk.make_folder(&self.dir)?;
        }
        if self.segments.is_empty()
            && let Some(root) = self.dir.parent()
        {
            self.disk.sync_folder(root)?;
        }
        let number = self.segments.last().map_or(1, |segment| segment.number + 1);
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        let segment = Segment::create(self.disk.clone(), &self.dir, number, u64::from_le_bytes(salt))?;
        self.segments.push(segment);
        Ok(())
    }

    /// Makes changes durable; those that change nothing are left out. How many were not.
    pub(super) fn change(&mut self, changes: &[Change]) -> io::Result<usize> {
        let mut by_segment: HashMap<usize, Vec<Change>> = HashMap::new();
        // What is left of them.
        let mut gaps: HashMap<u64, Gap> = HashMap::new();
        for change in changes {
            let Some(at) = self.place(change.id) else { continue };
            let segment = &self.segments[at];
            if !segment.slot(change.id).is_some_and(|slot| slot.takes(&change.what)) {
                continue;
            }
            if change.what == What::Replayed {
                for conversation in segment.conversations_of(change.id)? {
                    let gap = gaps.get(&conversation).copied().or(self.gaps.get(conversation));
                    gaps.extend(gap.map(|gap| (conversation, gap.without(change.id))));
                }
            }
            by_segment.entry(at).or_default().push(*change);
        }
        let mut changed = 0;
        for (at, changes) in by_segment {
            changed += self.segments[at].change(&changes)?;
        }
        let at_ms = changes.last().map_or(0, |change| change.at_ms);
        // Those that it made a difference to.
        gaps.retain(|conversation, gap| self.gaps.get(*conversation) != Some(*gap));
        let change = |(conversation, Gap { since, count })| Change {
            what: What::Gap { conversation, count },
            id: since,
            at_ms,
        };
        self.assert(&gaps.into_iter().map(change).collect::<Vec<_>>())?;
        Ok(changed)
    }

    /// The region was told of a conversation's gap.
    pub(super) fn told(&mut self, conversation: u64, at_ms: u64) -> io::Result<()> {
        let Some(Gap { since, .. }) = self.gaps.get(conversation) else { return Ok(()) };
        self.assert(&[Change { what: What::Gap { conversation, count: 0 }, id: since, at_ms }])
    }

    fn assert(&mut self, gaps: &[Change]) -> io::Result<()> {
        if gaps.is_empty() {
            return Ok(());
        }
        self.newest()?.change(gaps)?;
        for gap in gaps {
            if let What::Gap { conversation, count } = gap.what {
                self.gaps.set(conversation, Gap { since: gap.id, count });
            }
        }
        Ok(())
    }

    /// Removes segments in which nothing is alive or pinned. What they know of gaps goes on to the newest.
    pub(super) fn retire(&mut self, at_ms: u64) -> io::Result<()> {
        let mut at = 0;
        while at < self.segments.len() {
            let (segment, last) = (&self.segments[at], at + 1 == self.segments.len());
            if segment.alive > 0
                || segment.pinned && !fault::planted("letter-goes-too-early")
                || last && segment.slots.is_empty()
            {
                at += 1;
                continue;
            }
            let mut known = segment.conversations()?;
            known.sort_unstable();
            known.dedup();
            let gaps: Vec<Change> = known
                .into_iter()
                .filter_map(|conversation| {
                    let (id, count) = match self.gaps.get(conversation) {
                        Some(Gap { since, count }) => (since, count),
                        // Told: letters in older segments must not count again.
                        None if at > 0 => (LetterId(0), 0),
                        None => return None,
                    };
                    Some(Change { what: What::Gap { conversation, count }, id, at_ms })
                })
                .collect();
            let gaps = if fault::planted("gaps-go-with-their-segment") { Vec::new() } else { gaps };
            if last && !gaps.is_empty() {
                self.begin()?;
            }
            self.assert(&gaps)?;
            self.segments[at].remove()?;
            self.segments.remove(at);
        }
        Ok(())
    }
}
