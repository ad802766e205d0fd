//! The newest links of the chains, at a second place: whoever holds one up to it can tell that an end was cut off.
//!
//! ```text
//! <archive.heads>/<region>/<gateway>/<number>.json     the link of an hour's digest, as the chain has it
//! ```
//!
//! A thread of its own puts them: archives never wait for it. Only the newest of each region matters, so a place that was
//! away gets that, once it is back. A process that ends before leaves it to the next hour's.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::chain;
use super::store::{Body, Store, StoreFault};
use crate::metrics::archive::ArchiveCells;

/// Pause after a failure.
const AGAIN: Duration = Duration::from_secs(30);
const STACK: usize = 512 << 10;

/// A link to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    /// Index of the region, and its name.
    pub(super) region: (usize, String),
    pub(super) gateway: String,
    pub(super) number: u64,
    pub(super) link: Vec<u8>,
}

impl Published {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.region.1, self.gateway, chain::file_name(self.number))
    }
}

/// Starts the thread; it ends with the last sender. `open` opens the place, which may be away.
pub(super) fn start<S: Store + 'static>(
    open: impl FnOnce() -> Result<S, StoreFault> + Send + 'static,
    cells: Arc<Vec<ArchiveCells>>,
) -> io::Result<Sender<Published>> {
    let (tell, told) = crossbeam_channel::unbounded();
    std::thread::Builder::new().name("heads".to_owned()).stack_size(STACK).spawn(move || match open() {
        Ok(store) => {
            Publisher { store, cells, newest: BTreeMap::new(), checked: false, failing: false }.run(&told)
        }
        // What cannot be opened says so at the start, as an archive does.
        Err(fault) => tracing::error!(%fault, "archive.heads cannot be used: no newest link is published"),
    })?;
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
        self.cells[link.region.0].unpublished.set(1);
        self.newest.insert(link.region.0, link);
    }

    /// False if a place did not take them.
    fn put(&mut self) -> bool {
        while let Some(entry) = self.newest.first_entry() {
            let link = entry.get();
            let checked = if self.checked { Ok(()) } else { self.store.check() };
            let put = checked.and_then(|()| self.store.put(&link.name(), &Body::Bytes(&link.link)));
            self.checked = put.is_ok();
            if let Err(fault) = put {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%fault, "archive.heads does not take the newest links; trying goes on");
                }
                return false;
            }
            self.cells[*entry.key()].unpublished.set(0);
            entry.remove();
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!("archive.heads has the newest links again");
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::store::Reason;

    /// Takes what it is given, unless it is away.
    #[derive(Default)]
    struct Shelved {
        names: Vec<String>,
        away: bool,
        checks: usize,
    }

    impl Store for Shelved {
        fn check(&mut self) -> Result<(), StoreFault> {
            self.checks += 1;
            Ok(())
        }

        fn put(&mut self, name: &str, _: &Body<'_>) -> Result<(), StoreFault> {
            if self.away {
                return Err(StoreFault::new(Reason::Unreachable, "away"));
            }
            self.names.push(name.to_owned());
            Ok(())
        }
    }

    fn link(region: usize, number: u64) -> Published {
        let region = (region, ["us", "in"][region].to_owned());
        Published { region, gateway: "edge-1".to_owned(), number, link: b"{}".to_vec() }
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
        publisher.store.away = false;
        assert!(publisher.put() && publisher.put());
        assert_eq!((lacks(), publisher.failing), (vec![0, 0], false));
        let names = ["us/edge-1/000000000005.json", "in/edge-1/000000000007.json"];
        assert_eq!(publisher.store.names, names);
        assert_eq!(publisher.store.checks, 4, "before the first one, and after each failure");
    }
}
