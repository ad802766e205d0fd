//! The load generator's webhooks, as a business gets them.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "the load generator uses more of it")]

#[path = "../../loadtest/src/pool.rs"]
pub mod pool;
#[path = "../../loadtest/src/random.rs"]
mod random;
#[path = "../../loadtest/src/users.rs"]
mod users;
