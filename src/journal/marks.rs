//! Which parcels of which entries are settled. Pure.
//!
//! Marks are idempotent and commute: losing recent ones costs duplicates, never a loss.

use std::collections::{HashMap, HashSet};

/// LSNs of one word group: 512 entries in 64 bytes.
const GROUP: u64 = 512;

/// The settled parcels of one journal. Most entries have one parcel, so slot 0 is a bitmap (a bit
/// for each entry) and the others a set.
#[derive(Debug, Default, Clone)]
pub struct SettledSet {
    first: HashMap<u64, [u64; 8]>,
    others: HashSet<(u64, u16)>,
}

impl SettledSet {
    /// True if it was not settled before.
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

    /// Above every LSN of which something is settled.
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
}

fn place(lsn: u64) -> (usize, u64) {
    let within = lsn % GROUP;
    ((within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_per_entry_and_slot() {
        let mut set = SettledSet::default();
        assert_eq!(set.end(), 0);
        for (lsn, slot) in [(0, 0), (511, 0), (512, 0), (5, 1), (7000, 0), (5, 65535)] {
            assert!(!set.contains(lsn, slot));
            assert!(set.insert(lsn, slot));
            assert!(!set.insert(lsn, slot), "a mark counts once");
            assert!(set.contains(lsn, slot));
        }
        assert_eq!(set.end(), 7001);
        set.insert(7001, 3);
        assert_eq!(set.end(), 7002);
        assert!(!set.contains(5, 0) && !set.contains(5, 2) && !set.contains(513, 0));
    }
}
