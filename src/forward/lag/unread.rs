//! Which conversations stand in a backlog that is not read yet: maybe too many, never too few. Pure.

/// A count each, by the highest bits of a hash. With a backlog of 100,000 conversations a tenth of the others
/// is taken for one of these, and waits as it would without this.
const BITS: u32 = 20;
/// 2^64 by the golden ratio, odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many parcels of each conversation, where some conversations share a count. 2 MiB once there is one.
#[derive(Debug, Default)]
pub(super) struct Unread {
    counts: Vec<u16>,
    /// Of all conversations together, exactly.
    total: u64,
}

impl Unread {
    pub(super) fn add(&mut self, conversation: u64) {
        if self.counts.is_empty() {
            // Pages of zeros, which take memory once they are written to.
            self.counts = vec![0; 1 << BITS];
        }
        // One that is full stays: how many there really are is not known any more.
        let count = &mut self.counts[place(conversation)];
        *count = count.saturating_add(1);
        self.total += 1;
    }

    /// One that was added before.
    pub(super) fn remove(&mut self, conversation: u64) {
        if let Some(count) = self.counts.get_mut(place(conversation)).filter(|count| **count < u16::MAX) {
            *count = count.saturating_sub(1);
        }
        self.total = self.total.saturating_sub(1);
    }

    /// False: there is surely none of it.
    pub(super) fn may_have(&self, conversation: u64) -> bool {
        self.counts.get(place(conversation)).is_some_and(|count| *count > 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }
}

fn place(conversation: u64) -> usize {
    (conversation.wrapping_mul(SPREAD) >> (64 - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::retry::Rng;

    #[test]
    fn what_was_added_is_there_until_as_many_are_removed_and_nearly_nobody_else() {
        let mut unread = Unread::default();
        assert!(!unread.may_have(7) && unread.is_empty());
        let mut rng = Rng::new(1);
        let own: Vec<u64> = (0..10_000).map(|_| rng.next_u64()).collect();
        own.iter().chain(&own).for_each(|conversation| unread.add(*conversation));
        own.iter().for_each(|conversation| unread.remove(*conversation));
        assert!(own.iter().all(|conversation| unread.may_have(*conversation)));
        let others = (0..100_000).filter(|_| unread.may_have(rng.next_u64())).count();
        assert!(others < 2_000, "{others} of 100,000 are taken for others");
        own.iter().for_each(|conversation| unread.remove(*conversation));
        assert!(unread.is_empty() && own.iter().all(|conversation| !unread.may_have(*conversation)));
    }

    #[test]
    fn a_count_that_was_full_is_never_empty_again() {
        let mut unread = Unread::default();
        (0..70_000).for_each(|_| unread.add(7));
        (0..70_000).for_each(|_| unread.remove(7));
        assert!(unread.may_have(7) && unread.is_empty());
        assert_eq!(unread.counts.len() * size_of::<u16>(), 2 << 20);
    }
}
