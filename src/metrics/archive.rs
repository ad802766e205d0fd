//! What the archiver counts, by region. One writer: its thread.

use std::time::{Duration, SystemTime};

use super::text::{Family, Page};
use super::{Counter, Gauge};

/// Per region.
#[derive(Debug, Default)]
pub struct ArchiveCells {
    /// When the oldest webhook that no closed object has was received, unix milliseconds; 0 = there is none.
    pub oldest_ms: Gauge,
    /// 1 while the last try to write or close an object failed.
    pub failing: Gauge,
    /// Objects closed.
    pub objects: Counter,
    /// Records in them.
    pub records: Counter,
    /// Bytes of these records before compression.
    pub raw_bytes: Counter,
    /// Bytes of the objects.
    pub stored_bytes: Counter,
    /// Tries to write or close an object that failed.
    pub failures: Counter,
}

pub(super) fn render(page: &mut Page, regions: &[String], cells: &[ArchiveCells]) {
    let each = |mut family: Family<'_>, read: fn(&ArchiveCells) -> u64| {
        for (region, cells) in regions.iter().zip(cells) {
            family.sample(&[("region", region)], read(cells));
        }
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut family = page.gauge(
        "penstock_archive_lag_seconds",
        "Age of the oldest webhook that is in no closed archive object yet; 0 if there is none.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        let age = match cells.oldest_ms.get() {
            0 => Duration::ZERO,
            oldest => now.saturating_sub(Duration::from_millis(oldest)),
        };
        family.sample(&[("region", region)], age.as_millis() as f64 / 1e3);
    }
    let family = page.gauge(
        "penstock_archive_failing",
        "1 while the region's archive cannot be written; the journal keeps what it has not got.",
    );
    each(family, |cells| cells.failing.get());
    let family = page.counter(
        "penstock_archive_failures_total",
        "Failed tries to write or close an archive object; each is repeated.",
    );
    each(family, |cells| cells.failures.get());
    each(page.counter("penstock_archive_objects_total", "Archive objects closed."), |cells| {
        cells.objects.get()
    });
    each(page.counter("penstock_archive_records_total", "Records in closed archive objects."), |cells| {
        cells.records.get()
    });
    let family = page.counter(
        "penstock_archive_raw_bytes_total",
        "Bytes of the records in closed archive objects, before compression.",
    );
    each(family, |cells| cells.raw_bytes.get());
    let family = page.counter("penstock_archive_stored_bytes_total", "Bytes of closed archive objects.");
    each(family, |cells| cells.stored_bytes.get());
}
