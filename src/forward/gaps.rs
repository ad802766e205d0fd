//! Conversations with parcels that were given up, until the region was told so. Pure.

use std::collections::HashMap;

use crate::fault;

/// How many, by conversation.
#[derive(Debug, Default)]
pub struct Gaps {
    given_up: HashMap<u64, u32>,
}

impl Gaps {
    /// One more of this conversation.
    pub fn add(&mut self, conversation: u64, count: u32) {
        let all = self.given_up.entry(conversation).or_default();
        *all = all.saturating_add(count);
    }

    pub fn is_empty(&self) -> bool {
        self.given_up.is_empty()
    }

    /// Of a parcel with these conversations: the most of any. One that held several of them was one parcel.
    pub fn before(&self, conversations: impl Iterator<Item = u64>) -> u32 {
        if fault::planted("gap-not-told") {
            return 0;
        }
        conversations.filter_map(|c| self.given_up.get(&c).copied()).max().unwrap_or(0)
    }

    /// The region was told; true if there was anything.
    pub fn tell(&mut self, conversation: u64) -> bool {
        if fault::planted("gap-told-twice") {
            return self.given_up.contains_key(&conversation);
        }
        self.given_up.remove(&conversation).is_some()
    }
}
