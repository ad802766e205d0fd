//! All cells of the process and the page a scrape gets.
//!
//! The one place that knows a metric's name, labels and help text. Cores write cells, nothing here
//! does; a scrape reads them relaxed and adds them up, so two numbers of one page may be a webhook
//! apart. Everything known at start is on the first page with 0: a rate over a label that appears
//! late would miss its first step. Labels are names from the configuration and closed lists, never
//! anything a caller sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::archive::{self, ArchiveCells};
use super::dead::{self, DeadCells};
use super::text::{Family, Page};
use super::{
    AttemptOutcome, Counter, ForwardCells, Gauge, IngestCells, RegionCells, SourceCells, WebhookOutcome,
    process,
};
use crate::parse::EventKind;

/// Label `secret` of `penstock_secret_used_total`: place in the source's list of secrets.
const SECRETS: [&str; 4] = ["1", "2", "3", "4+"];

/// Numbers that belong to no core. The side thread writes the gauges.
#[derive(Debug, Default)]
pub struct ProcessCells {
    /// Bytes that the journals take on the disk, spare files included.
    pub journal_bytes: Gauge,
    /// Journal files, spare ones included.
    pub journal_segments: Gauge,
    /// Journal files of which only what waits is still on the disk. The thread that frees writes these three.
    pub thin_segments: Gauge,
    /// Journal files removed since the start.
    pub segments_removed: Gauge,
    /// Journal files used again since the start.
    pub segments_reused: Gauge,
    /// Webhooks that are not handled any more in some step, as the start found them.
    pub quarantined: Gauge,
    /// Bytes free on the journal's file system.
    pub journal_free_bytes: Gauge,
    /// Log lines thrown away because their reader was too slow; many threads write it.
    pub log_lines_dropped: Arc<AtomicU64>,
}

/// The cells of every core, and the names that go with their indices.
#[derive(Debug)]
pub struct Registry {
    pub sources: Vec<String>,
    pub regions: Vec<String>,
    pub ingest: Vec<Arc<IngestCells>>,
    pub forward: Vec<Arc<ForwardCells>>,
    /// By region.
    pub archive: Arc<Vec<ArchiveCells>>,
    /// By region.
    pub dead: Arc<Vec<DeadCells>>,
    pub process: Arc<ProcessCells>,
}

impl Registry {
    /// Cells for that many cores, all 0: each ingest core has every source, each forwarding core every region.
    pub fn new(
        sources: Vec<String>,
        regions: Vec<String>,
        ingest_cores: usize,
        forward_cores: usize,
        log_lines_dropped: Arc<AtomicU64>,
    ) -> Self {
        let ingest = (0..ingest_cores).map(|_| {
            let sources = sources.iter().map(|_| SourceCells::default()).collect();
            let parcels = regions.iter().map(|_| Counter::default()).collect();
            Arc::new(IngestCells { sources, parcels, ..IngestCells::default() })
        });
        let forward = (0..forward_cores).map(|_| {
            let regions = regions.iter().map(|_| RegionCells::default()).collect();
            Arc::new(ForwardCells { regions, ..ForwardCells::default() })
        });
        Self {
            ingest: ingest.collect(),
            forward: forward.collect(),
            archive: Arc::new(regions.iter().map(|_| ArchiveCells::default()).collect()),
            dead: Arc::new(regions.iter().map(|_| DeadCells::default()).collect()),
            process: Arc::new(ProcessCells { log_lines_dropped, ..ProcessCells::default() }),
            sources,
            regions,
        }
    }

    /// The page, as [`super::text::CONTENT_TYPE`] says.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        page.gauge("penstock_build_info", "Always 1; the version is in the label.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        self.render_webhooks(&mut page);
        self.render_connections(&mut page);
        self.render_journal(&mut page);
        self.render_parcels(&mut page);
        self.render_forwarding(&mut page);
        dead::render(&mut page, &self.regions, &self.dead);
        archive::render(&mut page, &self.regions, &self.archive);
        process::render(&mut page);
        page.finish()
    }

    fn render_webhooks(&self, page: &mut Page) {
        let mut family =
            page.counter("penstock_webhooks_total", "POSTs to a source's path, by what became of them.");
        for (at, source) in self.sources.iter().enumerate() {
            for (outcome, label) in WebhookOutcome::ALL {
                let value = self.of_source(at, |cells| &cells.webhooks[outcome as usize]);
                family.sample(&[("source", source), ("outcome", label)], value);
            }
        }
        let mut family = page.counter("penstock_events_total", "Events in accepted webhooks.");
        for (at, source) in self.sources.iter().enumerate() {
            for (kind, label) in EventKind::ALL {
                let value = self.of_source(at, |cells| &cells.events[kind as usize]);
                family.sample(&[("source", source), ("kind", label)], value);
            }
        }
        let mut family = page.counter(
            "penstock_secret_used_total",
            "Webhooks by the secret that verified them; a rotation is over when the old one stands still.",
        );
        for (at, source) in self.sources.iter().enumerate() {
            for (place, label) in SECRETS.iter().enumerate() {
                let value = self.of_source(at, |cells| &cells.secret_used[place]);
                family.sample(&[("source", source), ("secret", label)], value);
            }
        }
        let family = page.counter(
            "penstock_unparsed_webhooks_total",
            "Webhooks with a right signature whose body was not understood; they went to the default region as they were.",
        );
        self.per_source(family, |cells| &cells.unparsed);
        let family = page.counter(
            "penstock_mixed_elements_total",
            "Elements that name users of several regions; they went to the default region.",
        );
        self.per_source(family, |cells| &cells.mixed_elements);
        let family = page.counter(
            "penstock_offloaded_webhooks_total",
            "Large webhooks whose signature and content were looked at beside their core.",
        );
        self.per_source(family, |cells| &cells.offloaded);
        page.histogram("penstock_ack_seconds", "From the last byte of a request to its answer.")
            .distribution(&[], self.ingest.iter().map(|cells| &cells.ack_seconds));
    }

    fn render_connections(&self, page: &mut Page) {
        let ingest = |read: fn(&IngestCells) -> u64| sum(&self.ingest, read);
        page.gauge("penstock_connections_open", "Open connections of the provider's side.")
            .sample(&[], ingest(|cells| cells.connections_open.get()));
        page.counter("penstock_connections_accepted_total", "Connections accepted.")
            .sample(&[], ingest(|cells| cells.connections_accepted.get()));
        page.counter(
            "penstock_connections_refused_total",
            "Connections closed at once: over a cap, or not in listen.allow_from.",
        )
        .sample(&[], ingest(|cells| cells.connections_refused.get()));
        page.counter(
            "penstock_connections_timed_out_total",
            "Connections closed because a deadline had passed.",
        )
        .sample(&[], ingest(|cells| cells.connections_timed_out.get()));
        page.counter("penstock_requests_refused_total", "Requests refused for their framing or a limit.")
            .sample(&[], ingest(|cells| cells.requests_refused.get()));
        page.counter(
            "penstock_panics_total",
            "Connections closed by a panic: each one is a defect, please report it.",
        )
        .sample(&[], ingest(|cells| cells.panics.get()));
    }

    fn render_journal(&self, page: &mut Page) {
        let ingest = |read: fn(&IngestCells) -> u64| sum(&self.ingest, read);
        page.gauge("penstock_ingest_cores", "Ingest cores.").sample(&[], self.ingest.len());
        let lag = self.ingest.iter().map(|cells| cells.lag_ns.get()).max().unwrap_or_default();
        page.gauge(
            "penstock_ingest_lag_seconds",
            "How late the ingest core that is latest is; from 0.05 on it is overloaded.",
        )
        .sample(&[], lag as f64 / 1e9);
        page.gauge("penstock_accepting_cores", "Ingest cores whose journal takes webhooks.")
            .sample(&[], ingest(|cells| cells.accepting.get()));
        page.histogram("penstock_commit_seconds", "One durable write of a journal.")
            .distribution(&[], self.ingest.iter().map(|cells| &cells.commit_seconds));
        page.counter("penstock_commits_total", "Durable writes of the journals.")
            .sample(&[], ingest(|cells| cells.commits.get()));
        page.counter(
            "penstock_committed_entries_total",
            "Entries made durable; by commits it is the batch size.",
        )
        .sample(&[], ingest(|cells| cells.committed_entries.get()));
        page.counter("penstock_committed_bytes_total", "Bytes written to the journals, padding included.")
            .sample(&[], ingest(|cells| cells.committed_bytes.get()));
        page.gauge(
            "penstock_journal_bytes",
            "Bytes that the journals take on the disk, files made ahead included.",
        )
        .sample(&[], self.process.journal_bytes.get());
        page.gauge("penstock_journal_segments", "Journal files, spare ones included.")
            .sample(&[], self.process.journal_segments.get());
        page.gauge(
            "penstock_journal_thin_segments",
            "Journal files of which only what still waits is on the disk.",
        )
        .sample(&[], self.process.thin_segments.get());
        page.counter(
            "penstock_journal_segments_removed_total",
            "Journal files removed: all in them was settled.",
        )
        .sample(&[], self.process.segments_removed.get());
        page.counter(
            "penstock_journal_segments_reused_total",
            "Journal files used again: all in them was settled.",
        )
        .sample(&[], self.process.segments_reused.get());
        page.counter(
            "penstock_quarantined_total",
            "Webhooks that are left out of a step because it ended the process three times with them.",
        )
        .sample(&[], self.process.quarantined.get());
        page.gauge("penstock_journal_spare_segments", "Journal files made ahead.")
            .sample(&[], sum(&self.ingest, |cells| cells.spare_segments.get()));
        page.gauge("penstock_journal_free_bytes", "Bytes free on the journal's file system.")
            .sample(&[], self.process.journal_free_bytes.get());
        page.counter(
            "penstock_log_lines_dropped_total",
            "Log lines thrown away because their reader was too slow.",
        )
        .sample(&[], self.process.log_lines_dropped.load(Relaxed));
    }

    fn render_parcels(&self, page: &mut Page) {
        let mut family = page.counter("penstock_parcels_total", "Parcels settled, by how.");
        for (at, region) in self.regions.iter().enumerate() {
            let delivered = self.of_region(at, |cells| cells.delivered.get());
            family.sample(&[("region", region), ("outcome", "delivered")], delivered);
            let repeated = self.of_region(at, |cells| cells.repeated.get());
            family.sample(&[("region", region), ("outcome", "duplicate")], repeated);
            let dead = self.of_region(at, |cells| cells.dead.get());
            family.sample(&[("region", region), ("outcome", "dead")], dead);
        }
        let mut family =
            page.counter("penstock_attempts_total", "Tries to hand a parcel over, by how they ended.");
        for (at, region) in self.regions.iter().enumerate() {
            for (outcome, label) in AttemptOutcome::ALL {
                let value = self.of_region(at, |cells| cells.attempts[outcome as usize].get());
                family.sample(&[("region", region), ("outcome", label)], value);
            }
        }
        let mut family = page.gauge("penstock_backlog_parcels", "Parcels accepted and not settled.");
        for (at, region) in self.regions.iter().enumerate() {
            // The three are read one after the other while cores write them.
            let accepted = sum(&self.ingest, |cells| cells.parcels[at].get());
            let settled =
                |cells: &RegionCells| cells.delivered.get() + cells.repeated.get() + cells.dead.get();
            let recovered = self.of_region(at, |cells| cells.recovered.get());
            let settled = self.of_region(at, settled);
            family.sample(&[("region", region)], (accepted + recovered).saturating_sub(settled));
        }
        let family = page.gauge("penstock_in_flight_parcels", "Parcels being tried now.");
        self.per_region(family, |cells| cells.in_flight.get());
        let family = page.gauge(
            "penstock_region_state",
            "0 the region gets its traffic, 1 some to see whether it takes it, 2 none because it failed or asked for a pause, 3 none because it answered 410.",
        );
        self.per_region(family, |cells| cells.state.get());
        let family = page.counter("penstock_retries_total", "Tries of parcels that had failed before.");
        self.per_region(family, |cells| cells.retries.get());
        let family = page.counter(
            "penstock_parcels_split_total",
            "Parcels that were cut per conversation because the region refused them twice.",
        );
        self.per_region(family, |cells| cells.split.get());
        let family = page.gauge(
            "penstock_region_lagging",
            "1 while the region is fed from the journal because it was too slow for the channel.",
        );
        self.per_region(family, |cells| cells.lagging.get());
        let family = page.counter(
            "penstock_parcels_ahead_total",
            "Parcels that went ahead of their region's backlog in the journal, which had nothing of their conversations.",
        );
        self.per_region(family, |cells| cells.ahead.get());
        let family =
            page.counter("penstock_parcels_cut_total", "Parcels cut from a webhook of several regions.");
        self.per_region(family, |cells| cells.cut.get());
        let family = page.counter(
            "penstock_contacts_dropped_total",
            "Elements of contacts[] that matched no event and had no default region's parcel to go to.",
        );
        self.per_region(family, |cells| cells.contacts_dropped.get());
        let family = page.counter(
            "penstock_duplicates_total",
            "Events dropped because the region had them with the same content within dedupe.window.",
        );
        self.per_region(family, |cells| cells.duplicates.get());
        let family = page.counter(
            "penstock_changed_events_total",
            "Events that came again with another content; they were delivered and said that they may be repeats.",
        );
        self.per_region(family, |cells| cells.changed_events.get());
        let mut family =
            page.histogram("penstock_attempt_seconds", "One try: connect, send and read the answer.");
        for (at, region) in self.regions.iter().enumerate() {
            let parts = self.forward.iter().map(|cells| &cells.regions[at].attempt_seconds);
            family.distribution(&[("region", region)], parts);
        }
    }

    fn render_forwarding(&self, page: &mut Page) {
        let forward = |read: fn(&ForwardCells) -> u64| sum(&self.forward, read);
        page.counter(
            "penstock_handoff_full_total",
            "Hand-overs that found a full channel and were left to the journal.",
        )
        .sample(&[], sum(&self.ingest, |cells| cells.handoff_full.get()));
        let mut family =
            page.counter("penstock_doorbells_total", "Wakes of another core, by the side that rang.");
        family.sample(&[("from", "ingest")], sum(&self.ingest, |cells| cells.doorbells.get()));
        family.sample(&[("from", "forward")], forward(|cells| cells.doorbells.get()));
        page.counter("penstock_region_connections_opened_total", "Connections opened to regions.")
            .sample(&[], forward(|cells| cells.connections_opened.get()));
        page.gauge("penstock_held_bytes", "Memory that waiting parcels hold.")
            .sample(&[], forward(|cells| cells.held_bytes.get()));
        page.counter("penstock_marks_total", "Marks written to the journals: parcels settled.")
            .sample(&[], forward(|cells| cells.marks.get()));
        self.render_dedupe(page);
    }

    fn render_dedupe(&self, page: &mut Page) {
        let forward = |read: fn(&ForwardCells) -> u64| sum(&self.forward, read);
        page.gauge("penstock_dedupe_keys", "Events remembered, to find repeats.")
            .sample(&[], forward(|cells| cells.dedupe_keys.get()));
        page.gauge("penstock_dedupe_bytes", "Memory of the events remembered; dedupe.memory bounds it.")
            .sample(&[], forward(|cells| cells.dedupe_bytes.get()));
        page.counter(
            "penstock_dedupe_evicted_total",
            "Events forgotten before dedupe.window was over because dedupe.memory was full.",
        )
        .sample(&[], forward(|cells| cells.dedupe_evicted.get()));
        page.gauge(
            "penstock_dedupe_forgetful_cores",
            "Forwarding cores that may have forgotten events of dedupe.window; their parcels say that they may be repeats.",
        )
        .sample(&[], forward(|cells| cells.dedupe_forgetful.get()));
        page.gauge("penstock_key_log_bytes", "Bytes of all files of the key log.")
            .sample(&[], forward(|cells| cells.key_log_bytes.get()));
        page.counter(
            "penstock_key_log_damaged_bytes_total",
            "Damaged bytes found in the key log at the start.",
        )
        .sample(&[], forward(|cells| cells.key_log_damaged_bytes.get()));
    }

    /// One sample per source.
    fn per_source(&self, mut family: Family<'_>, cell: fn(&SourceCells) -> &Counter) {
        for (at, source) in self.sources.iter().enumerate() {
            family.sample(&[("source", source)], self.of_source(at, cell));
        }
    }

    /// One sample per region.
    fn per_region(&self, mut family: Family<'_>, read: fn(&RegionCells) -> u64) {
        for (at, region) in self.regions.iter().enumerate() {
            family.sample(&[("region", region)], self.of_region(at, read));
        }
    }

    fn of_source(&self, at: usize, cell: impl Fn(&SourceCells) -> &Counter) -> u64 {
        sum(&self.ingest, |cells| cell(&cells.sources[at]).get())
    }

    fn of_region(&self, at: usize, read: impl Fn(&RegionCells) -> u64) -> u64 {
        sum(&self.forward, |cells| read(&cells.regions[at]))
    }
}

fn sum<C>(cores: &[Arc<C>], read: impl Fn(&C) -> u64) -> u64 {
    cores.iter().map(|cells| read(cells)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::lint::lint;
    use super::*;

    fn registry() -> Registry {
        Registry::new(
            vec!["main".into(), "od\"d\\\n".into()],
            vec!["eu".into(), "us".into()],
            2,
            2,
            Arc::default(),
        )
    }

    #[test]
    fn first_page_has_every_label_at_zero_and_is_well_formed() {
        let page = registry().render();
        let samples = lint(&page).unwrap();
        let zero = |series: &str| assert_eq!(samples.get(series), Some(&0.0), "{series} in\n{page}");
        for (_, outcome) in WebhookOutcome::ALL {
            zero(&format!("penstock_webhooks_total{{source=\"main\",outcome=\"{outcome}\"}}"));
        }
        for (_, outcome) in AttemptOutcome::ALL {
            zero(&format!("penstock_attempts_total{{region=\"us\",outcome=\"{outcome}\"}}"));
        }
        zero("penstock_events_total{source=\"od\\\"d\\\\\\n\",kind=\"session\"}");
        zero("penstock_parcels_total{region=\"eu\",outcome=\"delivered\"}");
        zero("penstock_parcels_total{region=\"eu\",outcome=\"dead\"}");
        zero("penstock_dead_letters{region=\"eu\"}");
        zero("penstock_backlog_parcels{region=\"eu\"}");
        zero("penstock_archive_lag_seconds{region=\"us\"}");
        zero("penstock_archive_objects_total{region=\"us\"}");
        zero("penstock_ack_seconds_count");
        zero("penstock_commit_seconds_bucket{le=\"+Inf\"}");
        for name in
            ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"]
        {
            assert!(samples[&format!("process_{name}")] > 0.0, "process_{name}");
        }
    }

    #[test]
    fn cores_are_added_up() {
        let registry = registry();
        for (n, cells) in registry.ingest.iter().enumerate() {
            cells.sources[1].webhooks[WebhookOutcome::BadSignature as usize].add(10 + n as u64);
            cells.ack_seconds.observe_ns(2_000_000);
        }
        registry.forward[1].regions[0].recovered.set(5);
        registry.ingest[0].parcels[0].add(3);
        registry.forward[1].regions[0].delivered.add(1);
        registry.forward[1].regions[0].repeated.add(2);
        let samples = lint(&registry.render()).unwrap();
        let source = "source=\"od\\\"d\\\\\\n\"";
        assert_eq!(samples[&format!("penstock_webhooks_total{{{source},outcome=\"bad_signature\"}}")], 21.0);
        assert_eq!(samples["penstock_ack_seconds_count"], 2.0);
        assert_eq!(samples["penstock_ack_seconds_sum"], 0.004);
        assert_eq!(samples["penstock_backlog_parcels{region=\"eu\"}"], 5.0);
        assert_eq!(samples["penstock_backlog_parcels{region=\"us\"}"], 0.0);
    }
}
