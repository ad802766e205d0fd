//! The data folder at a start: what waits in its journals, and for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StartError;
use crate::config::{Config, OnDamage};
use crate::entry::{Meta, name_id};
use crate::journal::store::{self, Seen, Store, StoreOptions};
use crate::metrics::ForwardCells;

/// Opens the data folder; counts what is not settled, by region.
pub(super) fn open(
    config: &Config,
    cores: usize,
    owners: &[u16],
    cells: &[Arc<ForwardCells>],
) -> Result<Store, StartError> {
    let options = StoreOptions {
        data_dir: config.gateway.data_dir.clone(),
        segment_bytes: config.journal.segment,
        sync: config.journal.sync,
        halt_on_damage: config.journal.on_damage == OnDamage::Halt,
    };
    let index =
        |id: u32| config.regions.iter().position(|r| name_id(&r.name) == id).unwrap_or(config.default_region);
    let known = |id: &u32| config.regions.iter().any(|r| name_id(&r.name) == *id);
    let mut waiting = vec![0i64; config.regions.len()];
    // Of regions that are gone from the configuration.
    let mut orphans: BTreeMap<u32, i64> = BTreeMap::new();
    let mut of_entry: Vec<u32> = Vec::new();
    let store = store::open_store(&options, cores, &mut |seen| match seen {
        Seen::Entry(entry) => {
            of_entry.clear();
            of_entry.extend(Meta::read(entry.meta).iter().flat_map(|m| m.regions()));
            for id in &of_entry {
                waiting[index(*id)] += 1;
                if !known(id) {
                    *orphans.entry(*id).or_default() += 1;
                }
            }
        }
        Seen::Listed { slot } => {
            if let Some(id) = of_entry.get(usize::from(slot)) {
                waiting[index(*id)] -= 1;
                orphans.entry(*id).and_modify(|count| *count -= 1);
            }
        }
        Seen::Settled(tag) => {
            waiting[index(tag)] -= 1;
            orphans.entry(tag).and_modify(|count| *count -= 1);
        }
    })?;
    warn_of_orphans(config, &orphans);
    for (region, count) in waiting.into_iter().enumerate() {
        // Below zero only if marks outlived the entries they settle.
        let count = u64::try_from(count).unwrap_or(0);
        cells[usize::from(owners[region])].regions[region].recovered.set(count);
    }
    Ok(store)
}

/// Says what becomes of parcels whose region is gone. What the default region took of them in earlier runs is
/// counted too as long as the journal has it: its mark is that of the default region.
fn warn_of_orphans(config: &Config, orphans: &BTreeMap<u32, i64>) {
    let parcels: i64 = orphans.values().filter(|count| **count > 0).sum();
    if parcels == 0 {
        return;
    }
    let default = &config.regions[config.default_region];
    let archive = match &default.archive {
        Some(_) => "in the archive of the default region, as far as that had not passed them",
        None => "in no archive: the default region has none",
    };
    tracing::warn!(
        regions = orphans.values().filter(|count| **count > 0).count(), parcels, default = %default.name, archive,
        "the journal holds parcels of regions that are no longer configured, up to so many not settled: they go to the \
         default region, and what their own archive lacks of them goes where `archive` says; configure the regions \
         again under their old names if that is not wanted"
    );
}
