//! The end-to-end harness: a real gateway process, scripted regions, a signing sender, and an own
//! ledger of what was sent, answered and delivered, which is the judge.
//!
//! Everything here is std threads and blocking sockets on loopback, so that nothing of the gateway
//! is used to test the gateway. `tests/harness.rs` proves that the judge sees each kind of fault.
#![allow(dead_code, reason = "every test file is its own program and uses a part of the harness")]
#![allow(unreachable_pub, reason = "the module is shared by test programs, none of which exports it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;

pub mod archive;
pub mod body;
pub mod disk;
pub mod gateway;
pub mod hosted;
pub mod http;
pub mod ledger;
pub mod letters;
pub mod metrics;
pub mod ports;
pub mod proxy;
pub mod region;
pub mod s3;
pub mod sender;
pub mod settings;

/// App secret of the source that the tests call; the one that the stored sample signatures were made with.
pub const SECRET: &str = "sample-app-secret";
pub const VERIFY_TOKEN: &str = "sample-verify-token";
pub const WASENDER_SECRET: &str = "sample-wasender-secret";

/// Of the admin listener: without one it shows no dead letters.
pub const TOKEN: &str = "a-token-that-is-long-enough-for-tests";

/// Value of `x-hub-signature-256` for `body`.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut text = String::from("sha256=");
    for byte in hmac::sign(&key, body).as_ref() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Tests that measure or load hold this, so that the tests of one program do not disturb each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A poisoned lock only says that another test failed.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long to wait for something: `limit`, or what `PENSTOCK_PATIENCE` allows, in seconds. For runs that are
/// to fail, and soon.
pub fn patience(limit: Duration) -> Duration {
    limit.min(Duration::from_secs(setting("PENSTOCK_PATIENCE", 86_400)))
}

/// Waits until `done` says so; panics with `what` after `limit`.
pub fn eventually(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let limit = patience(limit);
    let deadline = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number from the environment, e.g. how many kills; `default` when unset.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a whole number")),
        Err(_) => default,
    }
}

/// The seed of a random test: `PENSTOCK_SEED`, or a new one. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = setting("PENSTOCK_SEED", random_seed());
    println!("seed {seed} (repeat with PENSTOCK_SEED={seed})");
    seed
}

pub fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// SplitMix64: small, seeded, good enough to pick people and moments.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The value that 99 of 100 do not exceed; zero for none.
pub fn p99(values: &mut [Duration]) -> Duration {
    values.sort_unstable();
    match values.len() {
        0 => Duration::ZERO,
        n => values[(n * 99).div_ceil(100) - 1],
    }
}
