//! Penstock: the gate between WhatsApp and a company's regional back ends.
//!
//! The provider calls one URL, in bursts, and has no replay: what was answered 200 and lost is gone.
//! The company's back ends and duties are regional. Penstock proves who called, makes the webhook
//! durable, answers at once, and gives every message to the region it belongs to, in order, through
//! crashes and outages.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | source | a provider account that calls us: one Meta app, or one WASenderApi account |
//! | webhook | one POST from a source: head and raw body |
//! | event | one thing inside a webhook: a message, a status, an echo, a call, an account change |
//! | conversation | one end user at one business number; the unit of order |
//! | region | a destination: endpoint, archive, limits, and the rules that lead to it |
//! | entry | a webhook in the journal: raw bytes, arrival, verdict, what was parsed; has an LSN |
//! | parcel | what one region gets from one webhook: its events, in the provider's own JSON |
//! | repeat | an event that the region had within the window: the same key and the same value |
//! | attempt | one try to hand a parcel over; ends as delivered, again (when) or dead (why) |
//! | dead letter | a parcel that was given up; kept until a person replays or drops it |
//! | quarantined | an entry whose handling ended the process three times: that step is not tried again |
//! | core | a pinned thread with its own io_uring: an ingest core or a forwarding core |
//!
//! # The way of a webhook
//!
//! ```text
//!  ingest core (monoio, SO_REUSEPORT)                 forwarding core (monoio)        side thread (tokio)
//!  listen > verify > parse > route > journal >        feed > sift > lane > attempt >  admin, names, signals
//!    durable > hand-over + doorbell > 200 -------->     settle > key log
//!    <------------ marks: delivered, duplicate -----                                 archive thread (monoio)
//!  large: offload threads                                                             journal > record > pack > file
//!    verify > parse > route > encode > back to journal
//! ```
//!
//! Three files show it on a page each: [`intake`] from the socket to the 200, [`forward`] from the journal
//! to the region, [`archive`] from the journal to what is kept. The modules below stand in the order in which data flows; nothing earlier knows
//! anything later (`tests/tidy.rs` holds the table).
//!
//! # Promises
//!
//! - A 200 leaves only when the commit that holds the webhook is durable ([`journal`]).
//! - What was answered 200 is delivered to its regions, at least once, after any crash; what an attempt
//!   before the crash may have delivered says `penstock-possible-duplicate`.
//! - What the provider says again within the window is delivered once, over restarts and any number of
//!   cores ([`dedupe`]); the same id with another content is delivered, and says that it may be a repeat.
//! - If webhook B arrives after A was answered 200, B's events of a conversation follow A's, over any
//!   number of cores, through overflow ([`handoff`], [`forward::feed`]) and restart.
//! - A region that is down costs disk, and nobody else feels it ([`forward::region`]).
//! - What was answered 200 is in the archive of each of its regions, exactly and once, after any crash;
//!   an archive that cannot be written costs disk, and nobody else feels it ([`archive`]).
//! - What is given up is kept until a person decides, and there is one letter of it, after any crash ([`dead`]).
//! - A webhook that ends the process whenever it is handled is given up after three crashes; the rest flows
//!   ([`handling`]).
//! - The disk holds what waits, and little else ([`journal::account`], [`journal::free`]).
//!
//! # Deliberately absent
//!
//! HTTP/2 on the listener (a balancer speaks it), scripts in the data path, replication of our own,
//! a database.
#![deny(unsafe_code)]

/// For what unit tests share with those in `tests`.
#[cfg(test)]
extern crate self as penstock;

pub mod fault;
pub mod config;
pub mod metrics;
pub mod wake;
pub mod deadline;
pub mod overload;
pub mod stamp;
pub mod http1;
pub mod listen;
pub mod verify;
pub mod parse;
pub mod route;
pub mod entry;
pub mod journal;
pub mod handling;
pub mod cut;
pub mod handoff;
pub mod intake;
pub mod dedupe;
pub mod dead;
pub mod forward;
pub mod archive;
pub mod side;
pub mod admin;
pub mod shard;
pub mod cli;
