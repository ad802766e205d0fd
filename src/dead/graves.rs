//! `<data_dir>/dead`: the letters of all regions, in a folder each.
//!
//! One process has it at a time: whoever holds the lock of the data folder.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::damage::{Damage, DeadError, failed};
use super::disk::{Disk, Os};
use super::filter::Filter;
use super::record::{Added, Change, What};
use super::segment::{Segment, Slot};
use super::shelf::Shelf;
use super::users::UserKey;
use super::{Card, Gap, Letter, LetterId, State};
use crate::entry::{Meta, name_id};
use crate::journal::JournalId;
use crate::journal::record::{self as journal_record, Record};

/// All dead letters.
#[derive(Debug)]
pub struct Graves<D = Os> {
    root: PathBuf,
    disk: D,
    shelves: BTreeMap<String, Shelf<D>>,
    next: u64,
    key: UserKey,
    /// What the start found.
    pub damages: Vec<Damage>,
}

/// How many letters there are of a region, and what they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    pub region: String,
    pub letters: usize,
    pub bytes: u64,
}

impl Graves {
    /// Reads all indexes. Nothing is made as long as there is no letter.
    pub fn open(data_dir: &Path, sync: bool) -> Result<Self, DeadError> {
        Self::on(Os { sync }, data_dir)
    }
}

impl<D: Disk> Graves<D> {
    /// [`Graves::open`] on a disk of the caller's.
    pub fn on(disk: D, data_dir: &Path) -> Result<Self, DeadError> {
        let root = data_dir.join("dead");
        let (mut shelves, mut damages) = (BTreeMap::new(), Vec::new());
        let there = disk.exists(&root);
        if there {
            for dir in [data_dir, &root] {
                disk.sync_folder(dir).map_err(failed("sync folder", dir))?;
            }
            for name in disk.folders(&root).map_err(failed("list folder", &root))? {
                let shelf = Shelf::load(&root, &name, disk.clone(), &mut damages)?;
                shelves.insert(name, shelf);
            }
        }
        let key = UserKey::open(&disk, &root, false).map_err(failed("open", &root))?;
        let last = shelves.values().flat_map(|s| &s.segments).filter_map(Segment::last_id).max();
        Ok(Self { root, disk, shelves, next: last.map_or(0, |id| id.0 + 1), key, damages })
    }

    /// What a list shows instead of a user, and can be searched for.
    pub fn user(&self, user: &str) -> u64 {
        self.key.hash(user)
    }

    pub fn stocks(&self) -> Vec<Stock> {
        let stock = |shelf: &Shelf<D>| Stock {
            region: shelf.name.clone(),
            letters: shelf.alive(),
            bytes: shelf.bytes(),
        };
        self.shelves.values().map(stock).collect()
    }

    /// Names a letter that died then.
    pub fn name(&mut self, died_ms: u64) -> LetterId {
        // Rises with time, also when all letters have gone, so that an id is never used again.
        let id = self.next.max(died_ms << 12);
        self.next = id + 1;
        LetterId(id)
    }

    /// Makes letters of `region` durable; on an error none of them is. They were named in this order.
    pub fn bury(&mut self, region: &str, letters: &[(LetterId, &Letter)]) -> io::Result<()> {
        if !self.disk.exists(&self.root) {
            self.disk.make_folder(&self.root)?;
        }
        if self.shelves.is_empty()
            && let Some(data_dir) = self.root.parent()
        {
            self.disk.sync_folder(data_dir)?;
        }
        if !self.key.kept {
            self.key = UserKey::open(&self.disk, &self.root, true)?;
        }
        let added: Vec<Added> = letters.iter().map(|(id, letter)| added(*id, letter, &self.key)).collect();
        let letters: Vec<_> = letters.iter().map(|(_, letter)| *letter).zip(&added).collect();
        let (root, disk) = (&self.root, &self.disk);
        let shelf =
            self.shelves.entry(region.to_owned()).or_insert_with(|| Shelf::empty(root, region, disk.clone()));
        shelf.bury(&letters)
    }

    /// Makes a change to many letters durable; how many it made a difference to.
    pub fn change(&mut self, what: What, ids: &[LetterId], at_ms: u64) -> io::Result<usize> {
        let changes: Vec<Change> = ids.iter().map(|id| Change { what, id: *id, at_ms }).collect();
        let mut changed = 0;
        for shelf in self.shelves.values_mut() {
            changed += shelf.change(&changes)?;
        }
        Ok(changed)
    }

    pub fn told(&mut self, region: u32, conversation: u64, at_ms: u64) -> io::Result<()> {
        let shelf = self.shelves.values_mut().find(|shelf| name_id(&shelf.name) == region);
        shelf.map_or(Ok(()), |shelf| shelf.told(conversation, at_ms))
    }

    pub fn retire(&mut self, at_ms: u64) -> io::Result<()> {
        self.shelves.values_mut().try_for_each(|shelf| shelf.retire(at_ms))
    }

    /// Of all regions, with the conversation.
    pub fn gaps(&self) -> impl Iterator<Item = (u32, u64, Gap)> + '_ {
        self.shelves.values().flat_map(|shelf| {
            let region = name_id(&shelf.name);
            shelf.gaps.iter().map(move |(conversation, gap)| (region, conversation, gap))
        })
    }

    /// Letters that are to go out, with their region and how many a second.
    pub fn ordered(&self) -> Vec<(&str, LetterId, u32)> {
        let mut ordered = Vec::new();
        for shelf in self.shelves.values() {
            let slots = shelf.segments.iter().flat_map(|segment| &segment.slots);
            let mine = slots.filter(|slot| slot.state == State::Ordered);
            ordered.extend(mine.map(|slot| (shelf.name.as_str(), slot.id, slot.rate)));
        }
        ordered
    }

    /// The region of a letter.
    pub fn region(&self, id: LetterId) -> Option<&str> {
        self.find(id).map(|(region, _, _)| region)
    }

    pub fn state(&self, id: LetterId) -> Option<State> {
        self.find(id).map(|(_, _, slot)| slot.state)
    }

    fn find(&self, id: LetterId) -> Option<(&str, &Segment<D>, &Slot)> {
        self.shelves
            .values()
            .find_map(|shelf| shelf.find(id).map(|(segment, slot)| (shelf.name.as_str(), segment, slot)))
    }

    /// Letters that wait or are ordered and that `filter` takes, oldest first.
    pub fn matched(&self, filter: &Filter) -> io::Result<Vec<LetterId>> {
        let mut ids = Vec::new();
        self.visit(
            |name| filter.region.as_ref().is_none_or(|region| region == name),
            |_, segment, index| {
                let alive = segment.slots.iter().filter(|slot| slot.state.alive());
                ids.extend(
                    alive
                        .filter(|slot| {
                            segment
                                .row(index, slot)
                                .is_some_and(|(row, failure)| filter.takes(&row, slot.state, &failure))
                        })
                        .map(|slot| slot.id),
                );
            },
        )?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// What a list shows of these letters, which are sorted.
    pub fn cards(&self, ids: &[LetterId]) -> io::Result<Vec<Card>> {
        let mut cards = Vec::with_capacity(ids.len());
        for shelf in self.shelves.values() {
            for segment in &shelf.segments {
                let ends = segment.slots.first().zip(segment.slots.last()).map(|(a, b)| (a.id, b.id));
                let Some((first, last)) = ends else { continue };
                let from = ids.partition_point(|id| *id < first);
                let to = ids.partition_point(|id| *id <= last);
                let slots: Vec<_> = ids[from..to].iter().filter_map(|id| segment.slot(*id)).collect();
                if slots.is_empty() {
                    continue;
                }
                let index = segment.index()?;
                cards.extend(slots.into_iter().filter_map(|slot| card(&shelf.name, segment, &index, slot)));
            }
        }
        cards.sort_unstable_by_key(|card| card.id);
        Ok(cards)
    }

    /// One letter, with the record in it.
    pub fn letter(&self, id: LetterId) -> io::Result<Option<(Card, Result<Bytes, Damage>)>> {
        let Some((region, segment, slot)) = self.find(id) else { return Ok(None) };
        let index = segment.index()?;
        let Some((row, _)) = segment.row(&index, slot) else { return Ok(None) };
        let record = segment.record(id, row.place());
        Ok(card(region, segment, &index, slot).map(|card| (card, record)))
    }

    /// Every letter that is on the disk, dropped ones too: its parcel and places of events. Those that are
    /// `needed` pin their segments: they stay on the disk until the next start, dropped or replayed too.
    pub fn parcels(
        &mut self,
        mut needed: impl FnMut(JournalId, u64, u16, &mut dyn Iterator<Item = u32>) -> bool,
    ) -> io::Result<()> {
        for segment in self.shelves.values_mut().flat_map(|shelf| &mut shelf.segments) {
            let (index, mut pinned) = (segment.index()?, false);
            for slot in &segment.slots {
                if let Some((row, _)) = segment.row(&index, slot) {
                    pinned |= needed(row.journal(), row.lsn(), row.slot(), &mut row.events());
                }
            }
            segment.pinned = pinned;
        }
        Ok(())
    }

    fn visit(
        &self,
        wanted: impl Fn(&str) -> bool,
        mut visit: impl FnMut(&str, &Segment<D>, &[u8]),
    ) -> io::Result<()> {
        for shelf in self.shelves.values().filter(|shelf| wanted(&shelf.name)) {
            for segment in &shelf.segments {
                visit(&shelf.name, segment, &segment.index()?);
            }
        }
        Ok(())
    }
}

fn card<D: Disk>(region: &str, segment: &Segment<D>, index: &[u8], slot: &Slot) -> Option<Card> {
    let (row, last) = segment.row(index, slot)?;
    Some(Card {
        id: row.id(),
        region: region.to_owned(),
        state: slot.state,
        source: row.source(),
        last,
        first_tried_ms: row.first_tried_ms(),
        received_at_ms: row.received_at_ms(),
        journal: row.journal(),
        lsn: row.lsn(),
        slot: row.slot(),
        part: row.part(),
        body_len: row.body_len(),
        event_count: row.event_count(),
        conversations: row.conversations().collect(),
        users: row.users().collect(),
        events: row.events().collect(),
    })
}

/// What the letter's record tells.
fn added(id: LetterId, letter: &Letter, key: &UserKey) -> Added {
    let mut added = Added { id, body_len: 0, users: Vec::new(), event_count: letter.events.len() as u32 };
    let Ok((Record::Entry(entry), _)) = journal_record::read_known(&letter.record) else { return added };
    added.body_len = entry.body.len() as u32;
    let Ok(meta) = Meta::read(entry.meta) else { return added };
    let mine = |at: u32, slot: u16| {
        slot == letter.slot && (letter.events.is_empty() || letter.events.binary_search(&at).is_ok())
    };
    let (mut count, mut last) = (0, None);
    for ((at, event), user) in (0u32..).zip(meta.events()).zip(meta.users()) {
        if !mine(at, event.slot) {
            continue;
        }
        count += 1;
        if let Some(user) = user.filter(|user| last != Some(*user)) {
            last = Some(user);
            added.users.push(key.hash(user));
        }
    }
    added.event_count = count;
    added.users.sort_unstable();
    added.users.dedup();
    added
}
