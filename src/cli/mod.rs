//! (to be written)

pub mod exit;
pub mod check;
pub mod route;
