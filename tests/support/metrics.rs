//! `/metrics` as numbers, and the names that the tests rely on.

use std::collections::BTreeMap;

pub const WEBHOOKS: &str = "penstock_webhooks_total";
pub const EVENTS: &str = "penstock_events_total";
pub const ATTEMPTS: &str = "penstock_attempts_total";
pub const PARCELS: &str = "penstock_parcels_total";
pub const RETRIES: &str = "penstock_retries_total";
pub const SPLIT: &str = "penstock_parcels_split_total";
pub const REGION_STATE: &str = "penstock_region_state";
pub const DUPLICATES: &str = "penstock_duplicates_total";
pub const CHANGED: &str = "penstock_changed_events_total";
pub const EVICTED: &str = "penstock_dedupe_evicted_total";
pub const BACKLOG: &str = "penstock_backlog_parcels";
pub const DEAD_LETTERS: &str = "penstock_dead_letters";
pub const COMMITS: &str = "penstock_commits_total";
pub const COMMITTED_ENTRIES: &str = "penstock_committed_entries_total";
pub const ACK_SECONDS: &str = "penstock_ack_seconds";
pub const COMMIT_SECONDS: &str = "penstock_commit_seconds";
pub const HANDOFF_FULL: &str = "penstock_handoff_full_total";
pub const LAGGING: &str = "penstock_region_lagging";
pub const SEGMENTS_REMOVED: &str = "penstock_journal_segments_removed_total";
pub const SEGMENTS_REUSED: &str = "penstock_journal_segments_reused_total";
pub const THIN_SEGMENTS: &str = "penstock_journal_thin_segments";
pub const OPEN_FILES: &str = "process_open_fds";
pub const MEMORY: &str = "process_resident_memory_bytes";

/// One scrape.
#[derive(Debug)]
pub struct Metrics {
    series: BTreeMap<String, f64>,
    text: String,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            // A value is followed by nothing: no time stamps, no exemplars.
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("metrics line {line:?}"));
            let value = value.parse().unwrap_or_else(|_| panic!("metrics line {line:?}: no number"));
            assert!(series.insert(name.to_owned(), value).is_none(), "series {name} comes twice");
        }
        Self { series, text: text.to_owned() }
    }

    /// The sum of all series of `name` that carry every one of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut found = false;
        let mut sum = 0.0;
        for (series, value) in &self.series {
            let (base, rest) = series.split_once('{').unwrap_or((series, ""));
            if base == name {
                found = true;
                if labels.iter().all(|(key, wanted)| rest.contains(&format!("{key}=\"{wanted}\""))) {
                    sum += value;
                }
            }
        }
        assert!(found, "metric {name} is not there; found:\n{}", self.text);
        sum
    }

    pub fn total(&self, name: &str) -> f64 {
        self.sum(name, &[])
    }

    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.series.keys().map(|series| series.split('{').next().unwrap_or(series)).collect();
        names.dedup();
        names
    }

    /// True if the scrape explains `name` (or, for a part of a histogram or a counter, its family).
    pub fn is_explained(&self, name: &str) -> bool {
        let parts = ["", "_total", "_bucket", "_sum", "_count", "_info"];
        parts.iter().filter_map(|part| name.strip_suffix(part)).any(|family| {
            self.text.lines().any(|line| {
                line.strip_prefix("# HELP ")
                    .and_then(|rest| rest.split_once(' '))
                    .is_some_and(|(n, help)| n == family && help.len() > 10)
            })
        })
    }
}
