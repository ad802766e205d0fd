//! What the archiver counts, by region. One writer: its thread.

use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::text::{Family, Page};
use super::{Counter, Gauge};

/// Per region.
#[derive(Debug, Default)]
pub struct ArchiveCells {
    /// When the oldest webhook that no closed object has was received, unix milliseconds; 0 = there is none.
    pub oldest_ms: Gauge,
    /// When the archiver last looked for more, unix milliseconds; 0 = it never will.
    pub looked_ms: Gauge,
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
    /// Links of this gateway's chain.
    pub links: Gauge,
    /// Number and hash of the newest of them.
    pub head: watch::Sender<Option<(u64, String)>>,
}

/// It looks ten times a second; if it does not for so long, nobody knows what it lacks.
const UNSEEN: Duration = Duration::from_secs(1);

impl ArchiveCells {
    fn lag(&self, now: Duration) -> Duration {
        let since =
            |ms: u64| if ms == 0 { Duration::ZERO } else { now.saturating_sub(Duration::from_millis(ms)) };
        let unseen = since(self.looked_ms.get());
        since(self.oldest_ms.get()).max(if unseen > UNSEEN { unseen } else { Duration::ZERO })
    }
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
        "Age of the oldest webhook that is in no closed archive object yet; 0 if there is none. If the archiver gets no CPU: \
         how long already.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region)], cells.lag(now).as_millis() as f64 / 1e3);
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
    let family = page.gauge(
        "penstock_archive_chain_links",
        "Links of this gateway's chain in the region's archive; 0 without archive.signing_key.",
    );
    each(family, |cells| cells.links.get());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archiver_that_does_not_look_any_more_lags() {
        let cells = ArchiveCells::default();
        let lag = |seconds| cells.lag(Duration::from_secs(seconds)).as_secs();
        assert_eq!(lag(1_000), 0, "nothing is archived");
        cells.looked_ms.set(1_000_000);
        assert_eq!((lag(1_000), lag(1_001), lag(1_060)), (0, 0, 60));
        cells.oldest_ms.set(900_000);
        assert_eq!((lag(1_000), lag(1_060)), (100, 160));
    }
}
