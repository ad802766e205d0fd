//! Which conversations of a region had parcels given up that the region was not told of. Pure.

use std::collections::HashMap;

use super::LetterId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// The first letter that counts.
    since: LetterId,
    count: u32,
}

/// By conversation.
#[derive(Debug, Default)]
pub(super) struct Gaps(HashMap<u64, Gap>);

impl Gaps {
    pub(super) fn died(&mut self, conversation: u64, id: LetterId) {
        self.0.entry(conversation).or_insert(Gap { since: id, count: 0 }).count += 1;
    }

    /// What a change on disk says.
    pub(super) fn set(&mut self, conversation: u64, since: LetterId, count: u32) {
        if count == 0 {
            self.0.remove(&conversation);
        } else {
            self.0.insert(conversation, Gap { since, count });
        }
    }

    /// The first letter that counts, and how many do.
    pub(super) fn get(&self, conversation: u64) -> Option<(LetterId, u32)> {
        self.0.get(&conversation).map(|gap| (gap.since, gap.count))
    }

    /// Conversations and how many parcels of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        self.0.iter().map(|(conversation, gap)| (*conversation, gap.count))
    }
}
