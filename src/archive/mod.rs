//! Is it kept? Every verified webhook, repeats too, in the archive of each region that it concerns.
//!
//! ```text
//! run       the thread: reads the journals as far as they are durable, never faster than they are
//! archiver  all strands; what is noted, what the journal is told
//! strand    one region's part of one journal, from its own place in it
//! record    an entry as a line of JSON        pack  lines to frames to objects, when one closes
//! file      an archive that is a folder       progress  how far it got, over restarts
//! chain     each object has a signed link     read      what is in an object that was closed
//! unarchived  webhooks that end the process whenever a record is made of them
//! ```
//!
//! # Invariants
//!
//! - It takes from the journal alone, so neither an answer nor a region ever waits for an archive, and
//!   an archive that cannot be written costs disk and nothing else.
//! - A closed object is complete and durable; only then is the progress noted, and only then is the
//!   journal told ([`crate::journal::view::Archived`]) that what came before may go.
//! - An object is named by its journal and its first record. Whoever was killed before it could note a
//!   closed object finds it by that name, reads where it ends and goes on behind it: no webhook is in
//!   two objects of an archive.
//! - Memory is bounded per region and journal: a frame, about a megabyte of lines.
//!
//! # Deliberately absent
//!
//! Waiting for forwarding: what a region got is the key log's and the marks' business. A region that
//! archives nothing any more leaves what its archive lacked unarchived; it goes on there if the archive is
//! configured again while the journal still has it. A region that is gone from the configuration is
//! the default region from then on.

pub mod archiver;
pub mod chain;
pub mod disk;
pub mod file;
mod json;
pub mod pack;
mod progress;
pub mod read;
pub mod record;
mod run;
mod strand;
#[cfg(test)]
mod tests;
mod unarchived;

pub use progress::noted;
pub use run::{Setup, looked, run, wanted};
