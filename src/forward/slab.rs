//! Values that few parcels have, kept beside them: a parcel holds four bytes for its value's place.
//!
//! Pure. Whoever holds a place gives it back exactly once; nothing here finds a place that was forgotten.

/// No place.
pub const NONE: u32 = u32::MAX;

/// Values by place; freed places are used again.
#[derive(Debug)]
pub struct Slab<V> {
    values: Vec<Option<V>>,
    free: Vec<u32>,
}

impl<V> Default for Slab<V> {
    fn default() -> Self {
        Self { values: Vec::new(), free: Vec::new() }
    }
}

impl<V> Slab<V> {
    pub fn insert(&mut self, value: V) -> u32 {
        if let Some(place) = self.free.pop() {
            self.values[place as usize] = Some(value);
            return place;
        }
        self.values.push(Some(value));
        (self.values.len() - 1) as u32
    }

    /// `None` at [`NONE`] and where nothing is.
    pub fn get(&self, place: u32) -> Option<&V> {
        self.values.get(place as usize)?.as_ref()
    }

    /// `None` at [`NONE`] and where nothing is.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut V> {
        self.values.get_mut(place as usize)?.as_mut()
    }

    /// Frees the place.
    pub fn take(&mut self, place: u32) -> Option<V> {
        let value = self.values.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(value)
    }

    /// Values held.
    pub fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
