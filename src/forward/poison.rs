//! When a parcel is given up: because of what it is, never because of its region.
//!
//! From one parcel's side an outage and a poison look alike: it fails, again and again. What tells them
//! apart is what happens to others. So a try counts only if, from before it until the next one is due,
//!
//! - the breaker was closed all the time,
//! - others were taken, and of their first tries fewer than a tenth failed, and
//! - the conversations that failed were few beside those that were taken,
//!
//! and a parcel dies only when some dozens of others were taken over its counted tries: in a quiet region
//! that takes its time. Where one of the last two does not hold, all that was counted before is void: what
//! looked like health may have been luck. The time that ran stays: a whole `window` of moments in which others were taken
//! is none. A try is judged when the next one is due: what comes after it tells as much as what
//! came before.
//!
//! Only first tries tell about the region. What failed before fails more often than others.
//!
//! Pure: the moment is an argument.

use std::time::{Duration, Instant};

use crate::config::Retry;
use crate::dead::Reason;
use crate::fault;

/// Counted tries of a parcel that the region does not want.
const REFUSALS: u32 = 5;
/// Others that were taken over its counted tries before a parcel may die. If half of all failed, as many
/// would be taken with so few failures once in some billions.
const EVIDENCE: u64 = 50;
/// One failing first try of so many is too much.
const FAILING: u64 = 10;
/// One failing conversation beside so many that are taken is too much; a single one never is.
const FAILING_CONVERSATIONS: usize = 8;
/// How long a conversation that was taken is one of those that are.
const TAKEN: Duration = Duration::from_mins(5);

/// The first tries of a region's parcels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Firsts {
    pub taken: u64,
    pub failed: u64,
}

/// What a region does to its parcels.
#[derive(Debug)]
pub struct Standing {
    pub firsts: Firsts,
    /// Parcels that failed and are not settled.
    failing: usize,
    conversations: Conversations,
    /// When too many conversations failed beside those that were taken.
    crowded: Option<Instant>,
}

impl Standing {
    pub fn new(now: Instant) -> Self {
        Self { firsts: Firsts::default(), failing: 0, conversations: Conversations::new(now), crowded: None }
    }

    /// A parcel of this conversation was taken.
    pub fn take(&mut self, conversation: u64) {
        self.conversations.insert(conversation);
    }

    /// One more parcel failed, for the first time.
    pub fn fail(&mut self, now: Instant) {
        self.failing += 1;
        self.look(now);
    }

    /// A parcel that failed is settled.
    pub fn settle(&mut self) {
        self.failing -= 1;
    }

    /// Lets the time pass.
    pub fn tick(&mut self, now: Instant) {
        self.conversations.tick(now);
        self.look(now);
    }

    fn look(&mut self, now: Instant) {
        if self.failing > (self.conversations.count() / FAILING_CONVERSATIONS).max(1) {
            self.crowded = Some(now);
        }
    }
}

/// The last try of a parcel.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    pub started: Instant,
    pub ended: Instant,
    /// As they were at its end.
    pub firsts: Firsts,
    /// The answer was one that no repetition mends.
    pub unwanted: bool,
}

/// The tries of a parcel that failed.
#[derive(Debug, Clone, Default)]
pub struct Tries {
    /// Not judged yet.
    last: Option<Try>,
    counted: u32,
    /// Of the counted: those that the region did not want.
    unwanted: u32,
    ran: Duration,
    evidence: u64,
    suspect: bool,
    /// The last one that was judged counted.
    counts: bool,
}

impl Tries {
    pub fn failed(&mut self, last: Try) {
        self.last = Some(last);
    }

    /// It failed while others were taken: what it brings next says little about its region.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Judges the last try; `closed_since` is the breaker's.
    pub fn judge(&mut self, standing: &Standing, closed_since: Option<Instant>, now: Instant) {
        let Some(last) = self.last.take() else { return };
        let taken = standing.firsts.taken - last.firsts.taken;
        let failed = standing.firsts.failed - last.firsts.failed;
        let open = closed_since.is_some_and(|since| since <= last.started)
            || fault::planted("outage-counts-as-tries");
        let crowded = standing.crowded.is_some_and(|at| at >= last.started);
        let well =
            !crowded && failed * FAILING <= taken + failed || fault::planted("brown-out-counts-as-tries");
        self.suspect = open && taken > 0;
        self.counts = self.suspect && well;
        if open && !well {
            (self.counted, self.unwanted, self.evidence) = (0, 0, 0);
        } else if self.counts {
            self.counted += 1;
            self.unwanted += u32::from(last.unwanted);
            self.ran += now.saturating_duration_since(last.ended);
            self.evidence += taken;
        }
    }

    /// Why it is to be given up.
    pub fn verdict(&self, limits: &Retry) -> Option<Reason> {
        if self.evidence < EVIDENCE && !fault::planted("dies-without-evidence") {
            None
        } else if self.unwanted >= REFUSALS {
            Some(Reason::Refused)
        } else if limits.attempts > 0 && self.counted >= limits.attempts {
            Some(Reason::Attempts)
        } else if self.ran >= limits.window {
            Some(Reason::Window)
        } else {
            None
        }
    }

    /// Counted tries so far, as long as they count; `None`: it may be the region.
    pub fn counted(&self) -> Option<u32> {
        self.counts.then_some(self.counted)
    }

    /// What is left of the window.
    pub fn time_left(&self, limits: &Retry) -> Duration {
        limits.window.saturating_sub(self.ran)
    }
}

/// Words of 64 bits: from half a million conversations on they are not counted any more.
const WORDS: usize = 1 << 10;

/// How many conversations were taken lately, counted by their hashes in two bit maps that take turns.
#[derive(Debug)]
struct Conversations {
    /// This turn's, and those of it or the turn before.
    maps: [Box<[u64; WORDS]>; 2],
    /// Bits that are set.
    counts: [usize; 2],
    turn: Instant,
}

impl Conversations {
    fn new(now: Instant) -> Self {
        Self { maps: [Box::new([0; WORDS]), Box::new([0; WORDS])], counts: [0; 2], turn: now }
    }

    fn insert(&mut self, conversation: u64) {
        let (word, bit) = (conversation as usize % WORDS, conversation >> 10 & 63);
        for (map, count) in self.maps.iter_mut().zip(&mut self.counts) {
            let new = map[word] >> bit & 1 == 0;
            map[word] |= 1 << bit;
            *count += usize::from(new);
        }
    }

    /// Some share a bit: with that many bits set, this many are the likeliest (linear counting, Whang and others,
    /// 1990).
    fn count(&self) -> usize {
        let bits = (WORDS * 64) as f64;
        let free = bits - self.counts[1] as f64;
        (bits * (bits / free.max(1.0)).ln()).round() as usize
    }

    /// The older map becomes what the younger one is, which begins anew.
    fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.turn) >= TAKEN {
            self.turn = now;
            self.maps.swap(0, 1);
            self.counts.swap(0, 1);
            self.maps[0].fill(0);
            self.counts[0] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::retry::Rng;

    const SECOND: Duration = Duration::from_secs(1);

    /// A parcel's tries beside a region's traffic.
    struct Case {
        now: Instant,
        closed_since: Option<Instant>,
        standing: Standing,
        tries: Tries,
        limits: Retry,
    }

    impl Case {
        fn new() -> Self {
            let now = Instant::now();
            let mut standing = Standing::new(now);
            (0..100).for_each(|conversation| standing.take(conversation));
            standing.fail(now);
            let limits = Retry { attempts: 0, window: Duration::from_hours(24) };
            Self { now, closed_since: Some(now), standing, tries: Tries::default(), limits }
        }

        /// One try that fails, then that much traffic of others until the next one is due.
        fn fail(&mut self, unwanted: bool, taken: u64, failed: u64) -> Option<Reason> {
            self.now += SECOND;
            let firsts = self.standing.firsts;
            self.tries.failed(Try { started: self.now, ended: self.now, firsts, unwanted });
            self.standing.firsts.taken += taken;
            self.standing.firsts.failed += failed;
            self.now += SECOND * 60;
            self.tries.judge(&self.standing, self.closed_since, self.now);
            self.tries.verdict(&self.limits)
        }

        /// How many such tries it takes; none of two thousand: `None`.
        fn dies(&mut self, unwanted: bool, taken: u64, failed: u64) -> Option<(usize, Reason)> {
            (1..=2_000).find_map(|n| Some((n, self.fail(unwanted, taken, failed)?)))
        }
    }

    #[test]
    fn unwanted_parcel_dies_after_five_counted_tries() {
        assert_eq!(Case::new().dies(true, 100, 0), Some((5, Reason::Refused)));
        assert_eq!(Case::new().dies(true, 100, 9), Some((5, Reason::Refused)), "others fail now and then");
    }

    #[test]
    fn attempts_and_window_count_only_counted_tries() {
        let mut case = Case::new();
        case.limits.attempts = 3;
        assert_eq!((case.fail(false, 0, 0), case.fail(false, 100, 50)), (None, None));
        assert_eq!(case.dies(false, 100, 0), Some((3, Reason::Attempts)));
        let mut case = Case::new();
        case.limits.window = Duration::from_mins(10);
        assert_eq!((case.fail(false, 0, 0), case.fail(false, 100, 50)), (None, None));
        assert_eq!(case.dies(false, 100, 0), Some((10, Reason::Window)));
        assert_eq!(Case::new().dies(false, 100, 0).unwrap().0, 24 * 60);
    }

    #[test]
    fn nothing_counts_where_nobody_else_is_taken_or_many_fail() {
        let short = Retry { attempts: 1, window: SECOND };
        for (taken, failed) in [(0, 0), (0, 10), (50, 50), (90, 11), (1, 1)] {
            let mut case = Case::new();
            case.limits = short;
            assert_eq!(case.dies(true, taken, failed), None, "{taken} taken, {failed} failed");
        }
        let mut case = Case::new();
        case.limits = short;
        assert_eq!(case.dies(true, 3, 0).unwrap().0, 17, "a quiet region takes its time: 50 others");
    }

    #[test]
    fn nothing_counts_while_the_breaker_was_not_closed_all_the_time() {
        let mut case = Case::new();
        case.limits.attempts = 1;
        case.closed_since = None;
        assert_eq!(case.fail(true, 100, 0), None);
        case.closed_since = Some(case.now + SECOND * 30);
        assert_eq!(case.fail(true, 100, 0), None, "it was open when the try began");
        assert!(case.fail(true, 100, 0).is_some());
    }

    #[test]
    fn nothing_counts_while_many_conversations_fail() {
        let mut case = Case::new();
        case.limits.attempts = 1;
        // As many as a half-deployed fleet: once they fail they try nothing first any more.
        (0..20).for_each(|_| case.standing.fail(case.now + SECOND * 2));
        assert_eq!(case.fail(true, 1_000, 0), None);
        (0..15).for_each(|_| case.standing.settle());
        assert!(case.fail(true, 1_000, 0).is_some(), "a few of them are poison");
    }

    #[test]
    fn poison_of_a_busy_region_dies_although_there_is_much_of_it() {
        let busy = || {
            let mut case = Case::new();
            (0..50_000u64).for_each(|n| case.standing.take(Rng::new(n).next_u64()));
            (0..2_000).for_each(|_| case.standing.fail(case.now));
            case
        };
        assert_eq!(busy().dies(true, 1_000, 0), Some((5, Reason::Refused)), "one conversation of 25 fails");
        let mut case = busy();
        (0..4).for_each(|_| assert_eq!(case.fail(true, 1_000, 0), None));
        (0..6_000).for_each(|_| case.standing.fail(case.now + SECOND * 2));
        assert_eq!(case.fail(true, 1_000, 0), None, "one of six: it may be the region");
    }

    #[test]
    fn luck_of_a_moment_is_void_once_others_fail() {
        let mut case = Case::new();
        (0..4).for_each(|_| assert_eq!(case.fail(true, 100, 0), None));
        assert_eq!(case.fail(true, 50, 50), None);
        assert_eq!(case.dies(true, 100, 0), Some((5, Reason::Refused)));
    }

    #[test]
    fn conversations_are_counted_for_some_minutes() {
        let start = Instant::now();
        let hashed = |n| Rng::new(n).next_u64();
        for (many, least, most) in [(100, 98, 102), (10_000, 9_800, 10_200), (200_000, 195_000, 205_000)] {
            let mut conversations = Conversations::new(start);
            (0..many).for_each(|n| conversations.insert(hashed(n)));
            assert!((least..=most).contains(&conversations.count()), "{many}: {}", conversations.count());
        }
        let mut conversations = Conversations::new(start);
        (0..100).for_each(|n| conversations.insert(hashed(n)));
        conversations.tick(start + TAKEN);
        assert!(conversations.count() >= 98);
        conversations.insert(1);
        conversations.tick(start + TAKEN * 2);
        assert_eq!(conversations.count(), 1);
    }
}
