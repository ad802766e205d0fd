//! The client of a region against regions that behave in every way but the expected.
#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod answers;
mod failures;
mod pool;
mod support;
