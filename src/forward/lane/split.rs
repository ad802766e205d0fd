//! One parcel becomes several, each in some of its lanes and in its place there.

use std::collections::HashMap;

use super::{Class, Lanes, NONE, PARKED, Parcel, ParcelId, RUNNING, claim};

/// Conversations and item of each part.
type Parts<T> = Vec<(Vec<u64>, T)>;

impl<T> Lanes<T> {
    /// Replaces a parcel by `parts`: each stands in the lanes of its conversations, where the parcel
    /// stood, parked and as old as it was. Where it held up
    /// who stands behind it, they do.
    ///
    /// `Err` gives everything back unchanged: some lane of the parcel would be in no part, or in two.
    ///
    /// # Panics
    /// If the parcel is neither running nor parked.
    pub fn split(&mut self, id: ParcelId, parts: Parts<T>) -> Result<(T, Vec<ParcelId>), Parts<T>> {
        let mut part_of: HashMap<u64, usize> = HashMap::new();
        let mut twice = false;
        for (at, (conversations, _)) in parts.iter().enumerate() {
            for conversation in conversations {
                twice |= part_of.insert(*conversation, at).is_some_and(|other| other != at);
            }
        }
        if twice || self.conversations(id).any(|conversation| !part_of.contains_key(&conversation)) {
            return Err(parts);
        }
        let parcel = self.held(id, &[RUNNING, PARKED]);
        let (first, blocked) = (parcel.first, parcel.blocked);
        let was = std::mem::take(&mut parcel.class);
        self.fresh_len -= usize::from(was == Class::Fresh);
        let mut ids = Vec::with_capacity(parts.len());
        for (_, item) in parts {
            // Backlog, as whatever was parked.
            let class = Class::Backlog;
            let part = Parcel {
                item: Some(item),
                sequence: id.sequence,
                first: NONE,
                waits: PARKED,
                blocked,
                class,
            };
            // Before the parcel's own slot is free: no part may be taken for it.
            ids.push(ParcelId { index: claim(&mut self.parcels, &mut self.free_parcels, part), ..id });
        }
        let mut place = first;
        while place != NONE {
            let at = &mut self.places[place as usize];
            let next = at.sibling;
            let conversation = at.conversation;
            if let Some(part) = part_of.get(&conversation) {
                let index = ids[*part].index;
                let part = &mut self.parcels[index as usize];
                (at.holder, at.sibling) = (index, part.first);
                part.first = place;
            }
            place = next;
        }
        let item = self.parcels[id.index as usize].item.take();
        self.parcels[id.index as usize].blocked = 0;
        self.free_parcels.push(id.index);
        self.len = self.len + ids.len() - 1;
        Ok((item.expect("`held` has seen the item"), ids))
    }
}
