//! A whole gateway in one thread, with a clock of its own, on a disk of memory, under a seed.
//!
//! ```text
//! world     a seed's story: traffic, weather, one process after the other, what must hold in the end
//! truth     what really happened, apart from all that the product believes, and whether it is right
//! life      one process: the shipped parts, put together as `shard` and `forward` do it
//! network   the regions          letters  archives   what was given up, what was kept
//! exec      tasks and timers     ground   what shells stand on     disk, faces   the disk that crashes
//! ```
//!
//! # What is driven as it is shipped
//!
//! The journal's writer with its commit policy, frames and records, recovery, reading, freeing; the hand-over
//! with its overflow; the feed, with lag and passes; what is a repeat; regions with all their decisions and
//! their workers; attempts, from the record to the head and the cut body; keys before marks; dead letters,
//! with their keeper, their files and what people order; the archiver.
//!
//! # What is a model of what is shipped
//!
//! Sockets, signatures and routing of what comes in; the network of what goes out; the threads that make
//! segments and write the key log, of which only the decisions are driven (when, in which order); the start
//! and the stop of the process.

pub(crate) mod archives;
pub(crate) mod configs;
pub(crate) mod disk;
pub(crate) mod exec;
pub(crate) mod ground;
pub(crate) mod letters;
pub(crate) mod life;
pub(crate) mod network;
pub(crate) mod truth;
pub(crate) mod world;
