//! What came of a seed, or of many.

use std::time::Duration;

/// What came of a seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) crashes: u64,
    pub(crate) power_cuts: u64,
    pub(crate) stops: u64,
    pub(crate) outages: u64,
    pub(crate) time: Duration,
    pub(crate) events: u64,
    pub(crate) acked: u64,
    pub(crate) takes: u64,
    pub(crate) repeats: u64,
    pub(crate) polls: u64,
    /// Dead letters that there were, that regions got after all, and that were dropped.
    pub(crate) letters: u64,
    pub(crate) replayed: u64,
    pub(crate) dropped: u64,
    pub(crate) recoveries_cut: u64,
    pub(crate) webhooks: u64,
    pub(crate) archives: u64,
    pub(crate) flips: u64,
    /// Parcels that went ahead of their region's backlog.
    pub(crate) ahead: u64,
    /// Worlds in which some did.
    pub(crate) ahead_worlds: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.recoveries_cut += other.recoveries_cut;
        self.stops += other.stops;
        self.outages += other.outages;
        self.time += other.time;
        self.webhooks += other.webhooks;
        self.events += other.events;
        self.acked += other.acked;
        self.takes += other.takes;
        self.repeats += other.repeats;
        self.polls += other.polls;
        self.letters += other.letters;
        self.replayed += other.replayed;
        self.dropped += other.dropped;
        self.archives += other.archives;
        self.flips += other.flips;
        self.ahead += other.ahead;
        self.ahead_worlds += other.ahead_worlds;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, power_cuts, recoveries_cut, stops, outages, time, .. } = self;
        let Self {
            webhooks,
            events,
            acked,
            takes,
            repeats,
            polls,
            letters,
            replayed,
            dropped,
            archives,
            flips,
            ahead,
            ahead_worlds,
            ..
        } = self;
        let days = time.as_secs_f64() / 86_400.0;
        write!(
            f,
            "{days:.1} days, {crashes} crashes ({power_cuts} of power, {recoveries_cut} in a start), {stops} stops, \
             {outages} outages; {webhooks} webhooks with {events} events, {acked} acknowledged, {takes} parcels taken, \
             {repeats} events again, {letters} dead letters ({replayed} replayed, {dropped} dropped), {flips} bits flipped; {ahead} parcels ahead of a backlog in {ahead_worlds} worlds; {archives} worlds with archives; {polls} turns"
        )
    }
}
