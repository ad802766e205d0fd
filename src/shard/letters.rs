//! The dead letters' thread.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::spawn::Fatal;
use super::{StartError, tell};
use crate::config::{Config, Region};
use crate::dead::{self, DeadError, Desk, Graves, Office};
use crate::entry::name_id;
use crate::journal::JournalId;
use crate::journal::store::Store;
use crate::metrics::dead::DeadCells;

/// Reads what is there and starts the thread: a desk per forwarding core, and the office.
pub(super) fn start(
    config: &Config,
    store: &Store,
    owners: &[u16],
    cells: &Arc<Vec<DeadCells>>,
    fatal: Sender<Fatal>,
) -> Result<(Vec<Desk>, Office), StartError> {
    let unsettled = |id: &JournalId, lsn, slot| {
        store.journals.iter().any(|journal| journal.id == *id && journal.open.contains(lsn, slot))
    };
    let failed = move |source: io::Error| {
        tracing::error!(error = %source, "the dead letters cannot be written; what is given up stays unsettled");
        tell(&fatal, Fatal::Io { core: "dead".to_owned(), source });
    };
    let start = dead::Start {
        graves: graves(config)?,
        regions: ways(config, owners),
        forward_cores: config.cores.forward.len(),
        unsettled: &unsettled,
        cells: Arc::clone(cells),
    };
    Ok(dead::start(start, failed)?)
}

/// Reads the dead letters, and says what is wrong with them.
fn graves(config: &Config) -> Result<Graves, DeadError> {
    let start = Instant::now();
    let graves = Graves::open(&config.gateway.data_dir, config.journal.sync)?;
    for damage in &graves.damages {
        tracing::error!(%damage, "dead letters are not as they were written");
    }
    let letters: usize = graves.stocks().iter().map(|stock| stock.letters).sum();
    if letters > 0 {
        tracing::info!(letters, took = ?start.elapsed(), "dead letters wait for a person: penstock dead list");
    }
    Ok(graves)
}

fn ways(config: &Config, owners: &[u16]) -> Vec<dead::Way> {
    let way = |(region, owner): (&Region, &u16)| dead::Way {
        id: name_id(&region.name),
        name: region.name.clone(),
        core: usize::from(*owner),
    };
    config.regions.iter().zip(owners).map(way).collect()
}
