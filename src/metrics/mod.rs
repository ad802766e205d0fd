//! Every number's name, help text and home.
//!
//! A core writes its own cells only (one writer, relaxed); a scrape sums over cores. Nothing is
//! allocated or locked on the way of a webhook.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::parse::EventKind;

pub mod archive;
pub mod dead;
pub mod render;
pub mod text;

#[cfg(test)]
pub(crate) mod lint;
mod process;

/// A number that only grows. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        // One writer: a plain load and store is enough, and cheaper than a locked add.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down. One writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(n), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the histogram buckets, seconds: 100 us to 25 s, which spans a fast disk's
/// sync and the provider's 20 s patience.
pub const BUCKETS: [f64; 17] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    25.0,
];

/// Durations in buckets. One writer.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than [`BUCKETS`]: the last takes what is above.
    buckets: [Counter; BUCKETS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    pub fn observe_ns(&self, ns: u64) {
        let seconds = ns as f64 / 1e9;
        let at = BUCKETS.partition_point(|bound| seconds > *bound);
        self.buckets[at].add(1);
        self.sum_ns.add(ns);
    }

    /// Count of each bucket (not cumulated) and the sum in nanoseconds.
    pub fn read(&self) -> ([u64; BUCKETS.len() + 1], u64) {
        (std::array::from_fn(|i| self.buckets[i].get()), self.sum_ns.get())
    }
}

/// What became of a POST to a source's path. Label `outcome` of `penstock_webhooks_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum WebhookOutcome {
    /// Durable, answered 200.
    Accepted,
    /// Signature missing, malformed or wrong: 401.
    BadSignature,
    /// The journal could not take it: 503.
    Unavailable,
    /// Method, type or encoding refused: 4xx.
    Refused,
}

impl WebhookOutcome {
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Accepted, "accepted"),
        (Self::BadSignature, "bad_signature"),
        (Self::Unavailable, "unavailable"),
        (Self::Refused, "refused"),
    ];
}

/// Number of [`EventKind`]s.
pub const KINDS: usize = EventKind::ALL.len();

/// Per source, on one ingest core.
#[derive(Debug, Default)]
pub struct SourceCells {
    pub webhooks: [Counter; WebhookOutcome::ALL.len()],
    pub events: [Counter; KINDS],
    /// By index of the secret that verified; a rotation is over when the old one stands still. The last takes the rest.
    pub secret_used: [Counter; 4],
    /// Elements that name users of several regions, sent to the default region.
    pub mixed_elements: Counter,
    /// Signed bodies that were not understood.
    pub unparsed: Counter,
    /// Large ones that were given to the thread beside the core to be judged.
    pub offloaded: Counter,
}

/// What one ingest core counts.
#[derive(Debug, Default)]
pub struct IngestCells {
    pub sources: Vec<SourceCells>,
    /// Parcels that durable webhooks made, by region.
    pub parcels: Vec<Counter>,
    pub connections_open: Gauge,
    pub connections_accepted: Counter,
    /// Over the total cap, the cap per peer, or not in `allow_from`.
    pub connections_refused: Counter,
    /// Closed by a deadline.
    pub connections_timed_out: Counter,
    /// Requests answered with a framing or limit refusal.
    pub requests_refused: Counter,
    /// Header fields with `_` in the name of a framing or security field (`Content_Length`); ignored.
    pub lookalike_fields: Counter,
    pub panics: Counter,
    /// From the last byte of the request to the answer handed to the socket.
    pub ack_seconds: Histogram,
    /// One durable write of the journal.
    pub commit_seconds: Histogram,
    pub commits: Counter,
    pub committed_entries: Counter,
    pub committed_bytes: Counter,
    /// 1 while new webhooks are taken.
    pub accepting: Gauge,
    /// How late the core was when it was last looked at.
    pub lag_ns: Gauge,
    /// Journal segments made ahead.
    pub spare_segments: Gauge,
    /// Hand-overs that found a full channel.
    pub handoff_full: Counter,
    pub doorbells: Counter,
}

/// How an attempt ended. Label `outcome` of `penstock_attempts_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum AttemptOutcome {
    Delivered,
    /// An answer other than 2xx.
    Refused,
    Timeout,
    /// Connect, write or read failed, or the answer was no HTTP.
    Connection,
}

impl AttemptOutcome {
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Delivered, "delivered"),
        (Self::Refused, "refused"),
        (Self::Timeout, "timeout"),
        (Self::Connection, "connection"),
    ];
}

/// Per region, on the forwarding core that owns it.
#[derive(Debug, Default)]
pub struct RegionCells {
    pub attempts: [Counter; AttemptOutcome::ALL.len()],
    pub delivered: Counter,
    /// Parcels of which every event was a repeat.
    pub repeated: Counter,
    /// Parcels given up: they are dead letters.
    pub dead: Counter,
    /// Tries of parcels that had failed before.
    pub retries: Counter,
    /// Parcels cut per conversation because the region refused them.
    pub split: Counter,
    /// 0 closed, 1 half-open, 2 open, 3 paused.
    pub state: Gauge,
    /// Events dropped as repeats.
    pub duplicates: Counter,
    /// Events with the key of an earlier one and another value.
    pub changed_events: Counter,
    pub in_flight: Gauge,
    /// Parcels that were in the journal and not settled when the process started. With those of the
    /// ingest cores, less the delivered, the repeated and the dead, they are the backlog.
    pub recovered: Gauge,
    pub attempt_seconds: Histogram,
    /// Parcels cut from a webhook of several regions (the others go out byte for byte).
    pub cut: Counter,
    /// `contacts[]` elements that matched no event and had no default region's parcel to go to.
    pub contacts_dropped: Counter,
    /// 1 while the region is fed from the journal instead of the channel.
    pub lagging: Gauge,
    /// Parcels that it took from the channel meanwhile, ahead of what it had not read.
    pub ahead: Counter,
}

/// What one forwarding core counts. `regions` has every region; cells of regions it does not own stay 0.
#[derive(Debug, Default)]
pub struct ForwardCells {
    pub regions: Vec<RegionCells>,
    pub doorbells: Counter,
    pub connections_opened: Counter,
    /// Bytes of frame buffers that waiting parcels hold.
    pub held_bytes: Gauge,
    pub marks: Counter,
    /// Events remembered.
    pub dedupe_keys: Gauge,
    pub dedupe_bytes: Gauge,
    /// Events forgotten before the window was over; only grows.
    pub dedupe_evicted: Gauge,
    /// 1 while events within the window may be forgotten.
    pub dedupe_forgetful: Gauge,
    /// Bytes of the key log's files. Written by its thread, once that runs.
    pub key_log_bytes: Gauge,
    pub key_log_damaged_bytes: Counter,
}
