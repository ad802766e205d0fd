//! The newest links of the chains, at a second place: whoever holds one up to it can tell that an end was cut off.
//!
//! ```text
//! <archive.heads>/<region>/<gateway>-<archive>/<number>.json     a link, as the chain has it
//! ```
//!
//! Of every hour the digest's, and at each start the newest one. A thread of its own puts them: archives never wait for it.
//! Only the newest of each region matters, so a place that was away gets that, once it is back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::chain::{self, Newest};
use super::store::{Body, Store};
use crate::metrics::archive::ArchiveCells;

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(30);
const STACK: usize = 512 << 10;

/// A link to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Index of the region.
    pub(super) region: usize,
    pub(super) folder: String,
    pub(super) newest: Newest,
}

/// Where the links of a chain go: another archive of the same region has another chain.
pub(super) fn folder(region: &str, gateway: &str, archive: &str) -> String {
    format!("{region}/{gateway}-{}", chain::short(archive))
}

/// Starts the thread; it ends with the last sender.
pub(super) fn start<S: Store + Send + 'static>(
    store: S,
    cells: Arc<Vec<ArchiveCells>>,
) -> io::Result<Sender<Published>> {
    let (tell, told) = crossbeam_channel::unbounded();
    let publisher = Publisher { store, cells, newest: BTreeMap::new(), checked: false, failing: false };
    let thread = std::thread::Builder::new().name("heads".to_owned()).stack_size(STACK);
    thread.spawn(move || publisher.run(&told))?;
    Ok(tell)
}

struct Publisher<S> {
    store: S,
    cells: Arc<Vec<ArchiveCells>>,
    /// By region: what is not there yet.
    newest: BTreeMap<usize, Published>,
    /// The place was there and took something.
    checked: bool,
    failing: bool,
}

impl<S: Store> Publisher<S> {
    fn run(mut self, told: &Receiver<Published>) {
        let mut next = Instant::now();
        loop {
            let wait = if self.newest.is_empty() { Duration::MAX } else { next - Instant::now() };
            match told.recv_timeout(wait) {
                Ok(link) => self.take(link),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next && !self.put() {
                next = Instant::now() + AGAIN;
            }
        }
    }

    fn take(&mut self, link: Published) {
        self.cells[link.region].unpublished.set(1);
        self.newest.insert(link.region, link);
    }

    /// False if the place did not take all.
    fn put(&mut self) -> bool {
        let Self { store, cells, newest, checked, failing } = self;
        newest.retain(|region, Published { folder, newest: Newest { number, link }, .. }| {
            let name = format!("{folder}/{}", chain::file_name(*number));
            let is_there = if *checked { Ok(()) } else { store.check() };
            let put = is_there.and_then(|()| store.put(&name, &Body::Bytes(link)));
            *checked = put.is_ok();
            match put {
                Ok(()) => cells[*region].unpublished.set(0),
                Err(fault) if !std::mem::replace(failing, true) => {
                    tracing::error!(%name, %fault, "archive.heads does not take the newest links; trying goes on");
                }
                Err(_) => {}
            }
            !*checked
        });
        if newest.is_empty() && std::mem::take(failing) {
            tracing::info!("archive.heads has the newest links again");
        }
        newest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::store::{Reason, StoreFault};

    /// Takes what it is given, unless it is away, or for that region.
    #[derive(Default)]
    struct Shelved {
        names: Vec<String>,
        away: bool,
        refused: &'static str,
        checks: usize,
    }

    impl Store for Shelved {
        fn check(&mut self) -> Result<(), StoreFault> {
            self.checks += 1;
            Ok(())
        }

        fn put(&mut self, name: &str, _: &Body<'_>) -> Result<(), StoreFault> {
            if self.away || name.starts_with(self.refused) && !self.refused.is_empty() {
                return Err(StoreFault::new(Reason::Unreachable, "away"));
            }
            self.names.push(name.to_owned());
            Ok(())
        }
    }

    fn link(region: usize, number: u64) -> Published {
        let folder = folder(["us", "in"][region], "edge-1", "file:///srv/audit");
        Published { region, folder, newest: Newest { number, link: b"{}".to_vec() } }
    }

    #[test]
    fn a_place_that_was_away_gets_the_newest_link_of_each_region() {
        let cells = Arc::new(vec![ArchiveCells::default(), ArchiveCells::default()]);
        let store = Shelved { away: true, ..Shelved::default() };
        let mut publisher = Publisher {
            store,
            cells: Arc::clone(&cells),
            newest: BTreeMap::new(),
            checked: false,
            failing: false,
        };
        let lacks = || cells.iter().map(|cells| cells.unpublished.get()).collect::<Vec<_>>();
        for (region, number) in [(0, 3), (1, 7), (0, 5)] {
            publisher.take(link(region, number));
            assert!(!publisher.put());
        }
        assert_eq!((lacks(), publisher.failing), (vec![1, 1], true));
        (publisher.store.away, publisher.store.refused) = (false, "us");
        assert!(!publisher.put(), "one that is refused keeps no other from it");
        assert_eq!(lacks(), [1, 0]);
        publisher.store.refused = "";
        assert!(publisher.put() && publisher.put());
        assert_eq!((lacks(), publisher.failing), (vec![0, 0], false));
        let place = chain::short("file:///srv/audit");
        let names =
            [("in", 7), ("us", 5)].map(|(region, n)| format!("{region}/edge-1-{place}/00000000000{n}.json"));
        assert_eq!(publisher.store.names, names);
    }
}
