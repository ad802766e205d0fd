//! One shard of the table: open addressing over a single allocation that has no slot to spare. Pure.
//!
//! ```text
//! tag u8 per slot, up to a multiple of 8 | (rest of the key 15 | value u64 | minute u16) per slot
//! ```
//!
//! A tag is a byte of the key, so that a lookup compares eight slots at once and mostly touches an entry
//! only if it is the one. An entry stands in the first group, from its home on, that had a free slot;
//! nothing is ever taken out, so a group with a free slot ends a search. What is dead goes when the shard
//! is written anew, and what was before stays in order of homes, so that this is one pass over memory.

/// Bytes of an entry.
const ENTRY: usize = 25;
/// Slots compared at once.
const GROUP: usize = 8;
/// Tag of a free slot. Those of entries are 1 to 254.
const FREE: u8 = 0;
/// Tag of what fills up the last group.
const NONE: u8 = 0xff;
/// The part of a mixed key that is stored; the rest is told by the shard.
const REST: u128 = u128::MAX >> 8;
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// A key where it belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Id {
    rest: u128,
    /// Where between the first group (0) and behind the last (2^64) it would like to be.
    home: u64,
    tag: u8,
}

impl Id {
    /// `bits`: those of the mixed key, at least 8, that chose the shard.
    pub(super) fn new(mixed: u128, bits: u32) -> Self {
        let tag = ((u16::from((mixed >> 40) as u8) * 254) >> 8) as u8 + 1;
        Self { rest: mixed & REST, home: home(mixed, bits), tag }
    }
}

fn home(mixed: u128, bits: u32) -> u64 {
    ((mixed << bits) >> 64) as u64
}

fn group(home: u64, groups: usize) -> usize {
    ((u128::from(home) * groups as u128) >> 64) as usize
}

/// What a lookup found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The key with this value.
    Same,
    /// Not with this value; `other` says whether with another one. `free`: where it may be put.
    Absent { other: bool, free: Option<usize> },
}

/// A shard. Empty it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Slots {
    bytes: Box<[u8]>,
    capacity: u32,
    used: u32,
}

/// Slots that a shard should have for `live` entries: a fifth more, so that 26 bytes a slot are at most
/// 32 an entry. Small ones have no slot to spare.
pub(super) fn capacity_for(live: usize) -> usize {
    if live < GROUP { live } else { live + live / 5 }
}

/// Bytes of a shard with that many slots.
pub(super) fn size(capacity: usize) -> usize {
    capacity.next_multiple_of(GROUP) + capacity * ENTRY
}

impl Slots {
    fn with_capacity(capacity: usize) -> Self {
        let mut bytes = vec![0; size(capacity)].into_boxed_slice();
        bytes[capacity..capacity.next_multiple_of(GROUP)].fill(NONE);
        Self { bytes, capacity: capacity as u32, used: 0 }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(super) fn used(&self) -> usize {
        self.used as usize
    }

    /// Entries it takes before searches get long.
    pub(super) fn most(&self) -> usize {
        self.capacity() - self.capacity() / 32
    }

    fn groups(&self) -> usize {
        self.capacity().div_ceil(GROUP)
    }

    fn tags(&self, group: usize) -> u64 {
        let bytes = self.bytes.get(group * GROUP..).and_then(|tags| tags.first_chunk());
        bytes.copied().map_or(0, u64::from_le_bytes)
    }

    fn place(&self, slot: usize) -> usize {
        self.groups() * GROUP + slot * ENTRY
    }

    fn entry(&self, slot: usize) -> Option<&[u8; ENTRY]> {
        self.bytes.get(self.place(slot)..).and_then(|entry| entry.first_chunk())
    }

    /// Entries that are not alive are not there.
    pub(super) fn find(&self, id: Id, value: u64, alive: impl Fn(u16) -> bool) -> Found {
        let groups = self.groups();
        let (mut group, mut other) = (group(id.home, groups), false);
        for _ in 0..groups {
            let tags = self.tags(group);
            let mut hits = zeros(tags ^ (u64::from(id.tag) * ONES));
            while hits != 0 {
                let slot = group * GROUP + hits.trailing_zeros() as usize / 8;
                hits &= hits - 1;
                if let Some(entry) = self.entry(slot)
                    && rest(entry) == id.rest
                    && alive(minute(entry))
                {
                    if said(entry) == value {
                        return Found::Same;
                    }
                    other = true;
                }
            }
            let free = zeros(tags);
            if free != 0 {
                return Found::Absent {
                    other,
                    free: Some(group * GROUP + free.trailing_zeros() as usize / 8),
                };
            }
            group = if group + 1 == groups { 0 } else { group + 1 };
        }
        Found::Absent { other, free: None }
    }

    /// Fills the slot that [`Slots::find`] named.
    pub(super) fn put(&mut self, slot: usize, id: Id, value: u64, minute: u16) {
        let at = self.place(slot);
        if let Some(tag) = self.bytes.get_mut(slot) {
            *tag = id.tag;
        }
        if let Some(entry) = self.bytes.get_mut(at..at + ENTRY) {
            entry[..15].copy_from_slice(&id.rest.to_le_bytes()[..15]);
            entry[15..23].copy_from_slice(&value.to_le_bytes());
            entry[23..].copy_from_slice(&minute.to_le_bytes());
            self.used += 1;
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u8, &[u8; ENTRY])> {
        let (tags, entries) = self.bytes.split_at(self.groups() * GROUP);
        let (entries, _) = entries.as_chunks::<ENTRY>();
        tags.iter().copied().zip(entries).filter(|(tag, _)| *tag != FREE)
    }

    /// How many entries are alive.
    pub(super) fn live(&self, alive: impl Fn(u16) -> bool) -> usize {
        self.entries().filter(|(_, entry)| alive(minute(entry))).count()
    }

    /// Writes the shard anew with `capacity` slots, without what is dead. The living must fit.
    pub(super) fn rewrite(&mut self, capacity: usize, bits: u32, alive: impl Fn(u16) -> bool) {
        let mut next = Self::with_capacity(capacity);
        for (tag, entry) in self.entries().filter(|(_, entry)| alive(minute(entry))) {
            // The bits that chose the shard and are not stored are shifted out.
            next.take(home(rest(entry), bits), tag, entry);
        }
        *self = next;
    }

    /// Puts an entry of another layout where it belongs in this one.
    fn take(&mut self, home: u64, tag: u8, entry: &[u8; ENTRY]) {
        let groups = self.groups();
        let mut group = group(home, groups);
        for _ in 0..groups {
            let free = zeros(self.tags(group));
            if free != 0 {
                let slot = group * GROUP + free.trailing_zeros() as usize / 8;
                let at = groups * GROUP + slot * ENTRY;
                if let Some(to) = self.bytes.get_mut(at..at + ENTRY) {
                    to.copy_from_slice(entry);
                    self.bytes[slot] = tag;
                    self.used += 1;
                }
                return;
            }
            group = if group + 1 == groups { 0 } else { group + 1 };
        }
    }
}

/// The high bit of every byte that is zero, and maybe of some above the first such: whoever looks at those
/// compares what they stand for.
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

fn rest(entry: &[u8; ENTRY]) -> u128 {
    entry.first_chunk().copied().map_or(0, u128::from_le_bytes) & REST
}

fn said(entry: &[u8; ENTRY]) -> u64 {
    entry.get(15..).and_then(|value| value.first_chunk()).copied().map_or(0, u64::from_le_bytes)
}

fn minute(entry: &[u8; ENTRY]) -> u16 {
    entry.last_chunk().copied().map_or(0, u16::from_le_bytes)
}
