//! The real process against what can go wrong around it: the machine ends it at any step, takes its power,
//! its disk, its time or its clock; regions answer in every way but the right one. Afterwards the ledger
//! must balance: nothing lost, nothing out of order.
//!
//! Every fault prints one line of a table: what, how it was brought about, how often, what came of it; and
//! each proves that it happened. A push runs each once; `PENSTOCK_ROUNDS=9 cargo test --test faults` is the full
//! form (over 1,000 kills and 300 power cuts). `PENSTOCK_SEED` repeats a run's moments.
#![allow(unreachable_pub, reason = "a test program exports nothing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it measured")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "plain threads that may wait")]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod kills;
mod machine;
mod power;
mod regions;
mod stage;

use penstock::handoff::Limits;
use support::hosted;

/// So little that regions are fed from the journals all the time, while these are freed.
const LIMITS: Limits = Limits { frames: 16, held_bytes: 2 << 20, window: 400, kept: 100 };
const SEGMENT: u64 = 1 << 20;

#[test]
#[ignore = "is the gateway of the other tests"]
fn host() {
    hosted::run(LIMITS, |config| config.journal.segment = SEGMENT);
}

/// One line of the table.
fn row(fault: &str, injected: &str, times: usize, result: &str) {
    println!("FAULT | {fault:<34} | {injected:<44} | {times:>5} | {result}");
}

/// False, and said so, where there are no faults to ask for: they are in debug builds only.
fn armed() -> bool {
    let armed = cfg!(debug_assertions) && std::env::var_os("PENSTOCK_BIN").is_none();
    if !armed {
        println!("SKIPPED: faults at named steps are in debug builds only");
    }
    armed
}
