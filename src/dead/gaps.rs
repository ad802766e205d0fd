//! Conversations of a region with parcels that were given up, until the region was told so. Pure.

use std::collections::HashMap;

use super::LetterId;
use crate::fault;

/// Parcels of one conversation that were given up and that the region was not told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first letter that counts: it was told of those before.
    pub since: LetterId,
    pub count: u32,
}

impl Gap {
    /// What is left of it when the region has the letter after all.
    pub fn without(self, id: LetterId) -> Self {
        let counts = id >= self.since && !fault::planted("replay-leaves-its-gap");
        Self { count: self.count.saturating_sub(u32::from(counts)), ..self }
    }
}

/// By conversation.
#[derive(Debug, Default)]
pub struct Gaps(HashMap<u64, Gap>);

impl Gaps {
    pub fn died(&mut self, conversation: u64, id: LetterId) {
        let gap = self.0.entry(conversation).or_insert(Gap { since: id, count: 0 });
        gap.count = gap.count.saturating_add(1);
    }

    pub fn replayed(&mut self, conversation: u64, id: LetterId) {
        if let Some(gap) = self.get(conversation) {
            self.set(conversation, gap.without(id));
        }
    }

    pub fn set(&mut self, conversation: u64, gap: Gap) {
        if gap.count == 0 {
            self.0.remove(&conversation);
        } else {
            self.0.insert(conversation, gap);
        }
    }

    pub fn get(&self, conversation: u64) -> Option<Gap> {
        self.0.get(&conversation).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many came before a parcel with these conversations: the most of any. One that held several of
    /// them was one parcel.
    pub fn before(&self, conversations: impl Iterator<Item = u64>) -> u32 {
        if fault::planted("gap-not-told") {
            return 0;
        }
        conversations.filter_map(|conversation| Some(self.get(conversation)?.count)).max().unwrap_or(0)
    }

    /// The region was told; true if there was anything.
    pub fn told(&mut self, conversation: u64) -> bool {
        if fault::planted("gap-told-twice") {
            return self.0.contains_key(&conversation);
        }
        self.0.remove(&conversation).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, Gap)> + '_ {
        self.0.iter().map(|(conversation, gap)| (*conversation, *gap))
    }
}
