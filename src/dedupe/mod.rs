//! Has this event been here before? What was seen, in memory; what was delivered, on disk.
//!
//! ```text
//! seen     the events of one core's regions within the window: exact, at most 32 bytes each (pure)
//! log      bytes of the key log (pure)
//! folder   its files, and what they tell at a start
//! memory   what they cannot tell: that some are missing
//! keeper   the thread that appends to it
//! ```
//!
//! An event is known by region and key; the same key with another value is not a repeat. It enters
//! `seen` when its parcel is taken up, and the key log when its parcel is settled. Entries that are not
//! settled are taken up again at a start, in the order they came, so that together the two know all
//! there is to know after any crash: what was delivered and synced is dropped, what was not is delivered.
//!
//! # Invariants
//!
//! - Nothing is a repeat unless its key and its value were seen before.
//! - A mark is written only after the keys of its parcel are durable.
//! - Where something within the window may be forgotten (memory was too small, the log was damaged), new
//!   parcels say that they may be repeats.
//! - The wall clock is never asked. Minutes count while the gateway runs, and go on at the next start
//!   from the newest in the log: a jump neither lets repeats through nor drops what is new, and a
//!   gateway that was down merely remembers longer.
//! - What waits is asked about late: no key that was alive when the oldest of it came is forgotten for its age.
//!
//! # Deliberately absent
//!
//! Filters that may be wrong: a false "seen" would be a lost message. Bodies, phones and ids: a key is
//! a digest.

pub mod folder;
pub mod keeper;
pub mod log;
#[cfg(test)]
mod log_tests;
pub mod memory;
pub mod seen;
#[cfg(test)]
mod seen_tests;
mod slots;

pub use folder::{Folder, FolderError};
pub use keeper::{Batch, Clock, Inbox, Keeper};
pub use seen::{Seen, Sighting};
