//! Configurations of all worlds, read once by each thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use penstock::config::Config;
use penstock::journal::buffer::BufferPool;
use penstock::wake::Doorbell;

use super::truth::REGIONS;

thread_local! {
    static KNOWN: RefCell<HashMap<(bool, bool, bool), Arc<Config>>> = RefCell::default();
    static POOL: (BufferPool, Arc<AtomicUsize>) = {
        let held = Arc::new(AtomicUsize::new(0));
        (BufferPool::new(64, Arc::clone(&held)), held)
    };
    /// Nobody sleeps at it: cores are looked after by the world.
    static BELL: Doorbell = Doorbell::new().expect("an eventfd");
}

/// Buffers that are warm, and the count of what of them is in use: made anew for each process they would
/// take most of its time.
pub(crate) fn pool() -> (BufferPool, Arc<AtomicUsize>) {
    let (pool, held) = POOL.with(Clone::clone);
    held.store(0, Relaxed);
    (pool, held)
}

pub(crate) fn doorbell() -> Doorbell {
    BELL.with(Clone::clone)
}

/// Of a world in which regions have archives, each archive gets webhooks of several regions `whole`, and keys
/// are remembered for one minute only.
pub(crate) fn of(archives: bool, whole: bool, brief: bool) -> Arc<Config> {
    KNOWN.with(|known| {
        let mut known = known.borrow_mut();
        Arc::clone(known.entry((archives, whole, brief)).or_insert_with(|| read(archives, whole, brief)))
    })
}

fn read(archives: bool, whole: bool, brief: bool) -> Arc<Config> {
    let mixed = if whole { "whole" } else { "split" };
    let window = if brief { "1m" } else { "24h" };
    let mut text = format!(
        "[gateway]\nid = \"sim\"\ndata_dir = \"/data\"\n\
         [archive]\nmixed = \"{mixed}\"\nroll_bytes = \"4KiB\"\nroll_after = \"2s\"\n\
         [dedupe]\nwindow = \"{window}\"\n[[source]]\nname = \"main\"\nsecrets = [\"s\"]\n[routing]\ndefault = \"us\"\n"
    );
    for (at, (name, prefix)) in REGIONS.iter().enumerate() {
        let archive = if archives { format!("archive = \"file:///{name}\"\n") } else { String::new() };
        text += &format!(
            "[[region]]\nname = \"{name}\"\nendpoint = \"http://10.0.0.{}/\"\nprefixes = [\"{prefix}\"]\n\
             in_flight = 4\n{archive}",
            at + 1
        );
    }
    let read = Config::from_toml(&text, Path::new("/"));
    Arc::new(read.unwrap_or_else(|invalid| panic!("{invalid}")).0)
}
