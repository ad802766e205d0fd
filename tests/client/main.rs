//! The client of a region against regions that behave in every way but the expected.
#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]
#![allow(clippy::disallowed_methods, reason = "plain threads that may wait")]

mod answers;
mod failures;
mod pool;
mod support;
