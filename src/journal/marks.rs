//! Which parcels of which entries: those that are settled, or those that are not. Pure.
//!
//! Marks are idempotent and commute: losing recent ones costs duplicates, never a loss.

use std::collections::{HashMap, HashSet};

/// LSNs of one word group: 512 entries in 64 bytes.
const GROUP: u64 = 512;

/// Parcels of one journal. Most entries have one parcel, so slot 0 is a bitmap (a bit for each entry)
/// and the others a set. Groups without a parcel take no memory.
#[derive(Debug, Default, Clone)]
pub struct ParcelSet {
    first: HashMap<u64, [u64; 8]>,
    others: HashSet<(u64, u16)>,
}

impl ParcelSet {
    /// True if it was not there before.
    pub fn insert(&mut self, lsn: u64, slot: u16) -> bool {
        if slot != 0 {
            return self.others.insert((lsn, slot));
        }
        let (word, bit) = place(lsn);
        let word = &mut self.first.entry(lsn / GROUP).or_default()[word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// True if it was there.
    pub fn remove(&mut self, lsn: u64, slot: u16) -> bool {
        if slot != 0 {
            return self.others.remove(&(lsn, slot));
        }
        let (word, bit) = place(lsn);
        let Some(group) = self.first.get_mut(&(lsn / GROUP)) else { return false };
        let there = group[word] & bit != 0;
        group[word] &= !bit;
        if there && *group == [0; 8] {
            self.first.remove(&(lsn / GROUP));
        }
        there
    }

    /// Above every LSN of which something is in it.
    pub fn end(&self) -> u64 {
        let group = self.first.iter().max_by_key(|(group, _)| **group);
        let first = group.map_or(0, |(group, words)| {
            let word = words.iter().rposition(|word| *word != 0).unwrap_or(0);
            group.saturating_mul(GROUP) + word as u64 * 64 + u64::from(64 - words[word].leading_zeros())
        });
        first.max(self.others.iter().map(|(lsn, _)| lsn.saturating_add(1)).max().unwrap_or(0))
    }

    pub fn contains(&self, lsn: u64, slot: u16) -> bool {
        if slot != 0 {
            return self.others.contains(&(lsn, slot));
        }
        let (word, bit) = place(lsn);
        self.first.get(&(lsn / GROUP)).is_some_and(|group| group[word] & bit != 0)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u16)> + '_ {
        let first = self.first.iter().flat_map(|(group, words)| {
            let start = group * GROUP;
            (0..GROUP)
                .filter(move |n| words[(n / 64) as usize] & (1 << (n % 64)) != 0)
                .map(move |n| (start + n, 0))
        });
        first.chain(self.others.iter().copied())
    }

    /// Takes in what `other` has.
    pub fn insert_all(&mut self, other: Self) {
        for (group, more) in other.first {
            let words = self.first.entry(group).or_default();
            words.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
        }
        self.others.extend(other.others);
    }

    /// Takes out what `other` has.
    pub fn remove_all(&mut self, other: &Self) {
        self.first.retain(|group, words| {
            if let Some(out) = other.first.get(group) {
                words.iter_mut().zip(out).for_each(|(word, out)| *word &= !out);
            }
            *words != [0; 8]
        });
        self.others.retain(|parcel| !other.others.contains(parcel));
    }
}

fn place(lsn: u64) -> (usize, u64) {
    let within = lsn % GROUP;
    ((within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_is_an_entry_and_a_slot() {
        let mut set = ParcelSet::default();
        assert_eq!(set.end(), 0);
        let all = [(0, 0), (511, 0), (512, 0), (5, 1), (7000, 0), (5, 65535)];
        for (lsn, slot) in all {
            assert!(!set.contains(lsn, slot));
            assert!(set.insert(lsn, slot));
            assert!(!set.insert(lsn, slot), "a mark counts once");
            assert!(set.contains(lsn, slot));
        }
        assert_eq!(set.end(), 7001);
        set.insert(7001, 3);
        assert_eq!(set.end(), 7002);
        assert!(!set.contains(5, 0) && !set.contains(5, 2) && !set.contains(513, 0));
        assert!(set.remove(7001, 3) && !set.remove(7001, 3));
        let mut found: Vec<_> = set.iter().collect();
        found.sort_unstable();
        let mut expected = all.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_was_taken_out_takes_no_memory() {
        let mut set = ParcelSet::default();
        (0..2000).for_each(|lsn| assert!(set.insert(lsn, 0)));
        let mut rest = set.clone();
        rest.remove(77, 0);
        rest.insert(5, 2);
        set.insert(5, 2);
        assert_eq!(set.first.len(), 4);
        set.remove_all(&rest);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(77, 0)]);
        assert_eq!((set.first.len(), set.others.len()), (1, 0));
        assert!(set.remove(77, 0) && !set.remove(77, 0));
        assert_eq!(set.first.len(), 0);
    }
}
