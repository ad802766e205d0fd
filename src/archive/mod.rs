//! Is it kept? Every verified webhook, repeats too, in the archive of each region that it concerns.
//!
//! ```text
//! run       the thread: reads the journals as far as they are durable, never faster than they are
//! archiver  all strands; what is noted, what the journal is told
//! strand    one region's part of one journal, from its own place in it
//! mask      what a record shows of people
//! record    an entry as a line of JSON        pack  lines to frames to objects, when one closes
//! spool     closed objects on this machine    progress  how far it got, over restarts
//! shipper   one region's thread: from the spool into the archive, each with its link
//! store     what an archive must do           folder, bucket  one that is a folder, or in an object store
//! chain     each object has a signed link     shelf, read  an archive to read from; what is in a closed object
//! index     which frames may hold a record   search  finds records with it
//! note      a fact that outlives the process  unarchived  webhooks that end it whenever a record is made of them
//! ```
//!
//! # Invariants
//!
//! - It takes from the journal alone, so neither an answer nor a region ever waits for an archive, and
//!   an archive that cannot be written costs disk and nothing else.
//! - An object is closed when it is complete and durable in the spool, and archived when its archive has it, verified,
//!   and its link; only then is the progress noted, and only then is the journal told
//!   ([`crate::journal::view::Archived`]) that what came before may go.
//! - An object is named by its journal and its first record. Whoever was killed before it could note one finds it in the
//!   spool by that name, sends the same bytes and goes on behind it: no webhook is in two objects of an archive. What
//!   lies in an archive is never believed.
//! - Memory is bounded per region and journal: a frame, about a megabyte of lines, and the index of the open object, a
//!   few megabytes at most. So is the spool: a few objects, and
//!   their indexes in memory; what they do not have is in the journal.
//!
//! # Deliberately absent
//!
//! Waiting for forwarding: what a region got is the key log's and the marks' business. A region that
//! archives nothing any more leaves what its archive lacked unarchived; it goes on there if the archive is
//! configured again while the journal still has it. A region that is gone from the configuration is
//! the default region from then on.

pub mod archiver;
pub mod bucket;
pub mod chain;
pub mod disk;
pub mod folder;
mod heads;
pub mod index;
mod json;
pub mod mask;
mod note;
pub mod pack;
mod progress;
pub mod read;
pub mod record;
mod run;
pub mod search;
pub mod shelf;
pub mod shipper;
mod spool;
pub mod store;
mod strand;
#[cfg(test)]
mod tests;
mod unarchived;

pub use progress::noted;
pub use run::{Setup, looked, run, wanted};
