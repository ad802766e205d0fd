//! What the archiver and its shippers count, by region. One writer each: the archiver's thread, the region's shipper, the
//! thread that speaks to buckets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::text::{Family, Page};
use super::{Counter, Gauge};

/// Per region.
#[derive(Debug, Default)]
pub struct ArchiveCells {
    /// When the oldest webhook that is not in the archive was received, unix milliseconds; 0 = there is none.
    pub oldest_ms: Gauge,
    /// When the archiver last looked for more, unix milliseconds; 0 = it never will.
    pub looked_ms: Gauge,
    /// 1 while the last try to make an object failed. The archiver's own, as what stands above and `failures`.
    pub failing: Gauge,
    /// Bytes of closed objects that are not in the archive yet.
    pub spool_bytes: Gauge,
    /// 1 while the archive does not take objects. The shipper's, as all that follows but `failures`.
    pub unshipped: Gauge,
    /// Tries of it that failed, by reason.
    pub faults: [Counter; REASONS.len()],
    /// Objects in the archive.
    pub objects: Counter,
    /// Records in them.
    pub records: Counter,
    /// Bytes of these records before compression.
    pub raw_bytes: Counter,
    /// Bytes of the objects.
    pub stored_bytes: Counter,
    /// Tries to make an object that failed.
    pub failures: Counter,
    /// Links of this gateway's chain.
    pub links: Gauge,
    /// Number and hash of the newest of them.
    pub head: watch::Sender<Option<(u64, String)>>,
    pub traffic: Arc<Traffic>,
    /// 1 while `archive.heads` lacks the newest of the links that it is to have. Of the thread that puts them there.
    pub unpublished: Gauge,
}

/// What goes to one region's bucket. Of the thread that speaks to buckets alone.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Parts that a store took of objects that go in parts.
    pub parts: Counter,
    /// Requests that were sent once more at once, since their answer was none or may pass.
    pub retries: Counter,
}

/// Why an archive does not take an object, in the order of `archive::store::Reason`.
pub const REASONS: [&str; 9] =
    ["denied", "throttled", "unreachable", "timeout", "missing", "unlocked", "taken", "full", "other"];

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
        "Age of the oldest webhook that is not in its archive yet; 0 if there is none. If the archiver gets no CPU: \
         how long already.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region)], cells.lag(now).as_millis() as f64 / 1e3);
    }
    let family = page.gauge(
        "penstock_archive_failing",
        "1 while objects cannot be made or the region's archive does not take them; this machine keeps what it has not got.",
    );
    each(family, |cells| cells.failing.get().max(cells.unshipped.get()));
    let mut family = page.counter(
        "penstock_archive_failures_total",
        "Failed tries to make an archive object (reason=\"spool\") or to put it into its archive; each is repeated.",
    );
    for (region, cells) in regions.iter().zip(cells) {
        family.sample(&[("region", region), ("reason", "spool")], cells.failures.get());
        for (reason, count) in REASONS.iter().zip(&cells.faults) {
            family.sample(&[("region", region), ("reason", reason)], count.get());
        }
    }
    each(page.counter("penstock_archive_objects_total", "Objects in the archive."), |cells| {
        cells.objects.get()
    });
    each(page.counter("penstock_archive_records_total", "Records in archive objects."), |cells| {
        cells.records.get()
    });
    let family = page.counter(
        "penstock_archive_raw_bytes_total",
        "Bytes of the records in archive objects, before compression.",
    );
    each(family, |cells| cells.raw_bytes.get());
    let family = page.counter("penstock_archive_stored_bytes_total", "Bytes of archive objects.");
    each(family, |cells| cells.stored_bytes.get());
    let family = page.counter(
        "penstock_archive_parts_total",
        "Parts that the region's bucket took of objects that are sent in parts.",
    );
    each(family, |cells| cells.traffic.parts.get());
    let family = page.counter(
        "penstock_archive_retries_total",
        "Requests that put objects into the region's bucket (s3://) and were sent again at once, because none answered or with \
         what may pass.",
    );
    each(family, |cells| cells.traffic.retries.get());
    let family = page.gauge(
        "penstock_archive_spool_bytes",
        "Bytes of closed archive objects on this machine that are not in their archive yet.",
    );
    each(family, |cells| cells.spool_bytes.get());
    let family = page.gauge(
        "penstock_archive_chain_links",
        "Links of this gateway's chain in the region's archive; 0 without archive.signing_key.",
    );
    each(family, |cells| cells.links.get());
    let family = page.gauge(
        "penstock_archive_head_unpublished",
        "1 while archive.heads lacks a link that it is to have, an hour's or at a start the newest.",
    );
    each(family, |cells| cells.unpublished.get());
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
