//! (to be written)

pub mod lane;
pub mod retry;
