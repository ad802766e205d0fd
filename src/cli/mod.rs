//! The commands. Each is an `Args` with its manual and a `run` that returns the exit code.

pub mod doctor;
pub mod logging;
