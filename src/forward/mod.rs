//! (to be written)

pub mod client;
pub mod envelope;
pub mod lane;
pub mod retry;
