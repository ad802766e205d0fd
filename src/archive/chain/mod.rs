//! That an archive is whole can be proven: its objects are linked to a chain, and each link is signed.
//!
//! ```text
//! <archive>/chain/<gateway>/000000000000.json    one link: an object that was closed, or the digest of an hour
//! ```
//!
//! Each gateway has one chain in each region's archive. An object gets its link right after it is closed, before
//! anybody is told that it is archived. At each full hour a digest names all objects since the last one, also if there
//! are none, so that silence is proven, too.
//!
//! # Against whom
//!
//! - A program's bug or an operator's slip: what is changed, removed, added or put in another order is found and named.
//! - Someone who can write to the archive and has not the key: the same, for no link of theirs is signed.
//! - Someone who has the gateway's host, and so the key, from some day on: what was archived before that day cannot be
//!   changed unnoticed by whoever knows a link's hash from then, since all links after it follow from it. What comes
//!   from then on they can forge.
//!
//! [`verify`] cannot tell by itself whether the end of a chain was cut off: a shorter chain is a whole one. So the
//! newest link's hash is published (admin API, a line of the log every hour), and `verify --head` holds the chain to
//! it. The gateway holds its own to it, too: it notes its newest link in the data folder, and goes on behind that one
//! whatever it finds in the archive, so that what was cut off is missing for ever.
//!
//! # Deliberately absent
//!
//! Objects from before the chain began: no link names them, so they count as added. Begin a chain in an empty archive.

mod link;
pub(super) mod merkle;
pub mod verify;
mod writer;

pub(super) use link::hex;
pub use link::{Link, LinkFault, ObjectLink, Sealed, hash};
pub use writer::{Chain, Head, Linked, Newest, Signer, linked, short};

/// Below an archive: the chains of all gateways.
pub(super) const FOLDER: &str = "chain";
const ENDING: &str = ".json";
/// No link is longer: a digest names each object of its hours in some 200 bytes, and no gateway closes 300,000 in that
/// time. What a stranger put there must not fill the memory.
const LINK_MAX: u64 = 64 << 20;
/// Links of a chain at most, so that all of them have names of one length: one a second for 30,000 years.
const LINKS_MAX: u64 = 1_000_000_000_000;

pub(super) fn file_name(number: u64) -> String {
    format!("{number:012}{ENDING}")
}

/// The number of the link that a file of that name is.
fn number_of(file: &str) -> Option<u64> {
    let number = file.strip_suffix(ENDING)?.parse().ok().filter(|number| *number < LINKS_MAX)?;
    (file == file_name(number)).then_some(number)
}
