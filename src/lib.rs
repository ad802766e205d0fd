//! Penstock: the gate between WhatsApp and a company's regional back ends.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | source | a provider account that calls us: one Meta app, or one WASenderApi account |
//! | webhook | one POST from a source: head and raw body |
//! | event | one thing inside a webhook: a message, a status, an echo, a call, an account change |
//! | conversation | one end user at one business number; the unit of order |
//! | region | a destination: endpoint, limits, and the rules that lead to it |
//! | entry | a webhook in the journal: raw bytes, arrival, verdict, what was parsed; has an LSN |
//! | parcel | what one region gets from one webhook: its events, in the provider's own JSON |
//! | attempt | one try to hand a parcel over; ends as delivered, again (when), or dead (why) |
//! | core | a pinned thread with its own io_uring: an ingest core or a forwarding core |
//!
//! # The way of a webhook
//!
//! ```text
//!  ingest core (monoio, SO_REUSEPORT)                 forwarding core (monoio)        side thread (tokio)
//!  listen > verify > parse > route > journal >        feed > lane > attempt >         admin, names, signals
//!    durable > hand-over + doorbell > 200 -------->     settle
//!    <------------------ marks: delivered ----------
//! ```
#![deny(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod deadline;
pub mod entry;
pub mod forward;
pub mod handoff;
pub mod http1;
pub mod intake;
pub mod journal;
pub mod listen;
pub mod metrics;
pub mod parse;
pub mod route;
pub mod shard;
pub mod side;
pub mod verify;
pub mod wake;
