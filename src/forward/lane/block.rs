//! Who is blocked: stands, in some lane, behind a parcel that failed, or behind one that is blocked itself.
//!
//! Each parcel counts the lanes in which it is held up, each place says whether it is one of these. So a
//! failure or an end costs a step per parcel whose standing changes, and nothing while nothing fails.

use super::{Class, Lanes, NONE, Parcel, ParcelId};

/// In [`super::Parcel::blocked`]: the parcel failed itself.
pub(super) const FAILING: u32 = 1 << 31;
/// In [`super::Place::holder`], beside the parcel.
pub(super) const HELD_UP: u32 = 1 << 31;

impl<T> Lanes<T> {
    /// The parcel failed: until it is settled it blocks who stands behind it. A second time changes nothing.
    pub fn block(&mut self, id: ParcelId) {
        let Some(parcel) = self.parcels.get_mut(id.index as usize).filter(|p| p.sequence == id.sequence)
        else {
            return;
        };
        let before = parcel.blocked;
        parcel.blocked |= FAILING;
        if before == 0 {
            self.spread(id.index, true);
        }
    }

    /// Parcels that are blocked.
    pub fn blocked_len(&self) -> usize {
        self.blocked_len
    }

    /// Whether this one is blocked.
    pub fn is_blocked(&self, id: ParcelId) -> bool {
        let parcel = self.parcels.get(id.index as usize).filter(|p| p.sequence == id.sequence);
        parcel.is_some_and(|parcel| parcel.blocked & !FAILING > 0)
    }

    /// The parcel is about to leave its lanes.
    pub(super) fn unblock(&mut self, id: ParcelId) {
        let parcel = &mut self.parcels[id.index as usize];
        if parcel.sequence == id.sequence && parcel.blocked & FAILING > 0 {
            parcel.blocked &= !FAILING;
            self.spread(id.index, false);
        }
    }

    /// Tells who stands behind `index`, and on from there, that it holds them up, or no longer.
    fn spread(&mut self, index: u32, on: bool) {
        let mut telling = vec![index];
        while let Some(index) = telling.pop() {
            let mut place = self.parcels[index as usize].first;
            while place != NONE {
                let behind = self.places[place as usize].behind;
                place = self.places[place as usize].sibling;
                if behind == NONE {
                    continue;
                }
                let next = &mut self.places[behind as usize];
                let parcel = next.parcel();
                next.holder = if on { parcel | HELD_UP } else { parcel };
                let Parcel { blocked, class, .. } = &mut self.parcels[parcel as usize];
                let fresh = usize::from(*class == Class::Fresh);
                if on {
                    *blocked += 1;
                    if *blocked == 1 {
                        self.blocked_len += 1;
                        self.fresh_len -= fresh;
                        telling.push(parcel);
                    }
                } else {
                    *blocked -= 1;
                    if *blocked == 0 {
                        self.blocked_len -= 1;
                        self.fresh_len += fresh;
                        telling.push(parcel);
                    }
                }
            }
        }
    }
}
