//! One region's life under a virtual clock: parcels come, the region is well, down, overloaded or half
//! deployed, some conversations are poison, and the promises must hold for every seed.
//!
//! The loop knows the promises, not the rules: what is counted, when the breaker opens and how long a wait
//! is are nothing to it. `PENSTOCK_SEED` repeats one life.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::forward::book::*;

/// How the region treats what comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Well,
    /// Nobody answers, after so many milliseconds.
    Silent(u64),
    /// Everything is answered with that.
    Answers(u16),
    /// That share of tries, in percent, is answered with that.
    Some(u16, u64),
    /// That share of conversations, in percent, is: half of a fleet was deployed wrongly.
    Part(u16, u64),
    /// It asks to be left alone for so many seconds.
    Asks(u16, u64),
    /// It takes nearly the time-out to answer.
    Slow,
}

const TIMEOUT: Duration = Duration::from_secs(15);
const MS: Duration = Duration::from_millis(1);

/// What a life is made of.
struct Life {
    seed: u64,
    rng: Rng,
    start: Instant,
    now: Instant,
    book: Book,
    rules: Rules,
    conversations: u64,
    /// Parcels a second.
    arrivals: f64,
    /// Conversations that are never taken, from 0, and what they get.
    poison: u64,
    poison_status: u16,
    /// When each weather begins.
    weather: Vec<(Instant, Weather)>,
    /// Tries under way, by their end.
    under_way: BTreeMap<(Instant, u64), (ParcelId, u64, Instant, Verdict)>,
    tries: u64,
    /// By conversation: numbers of its parcels in the order of their arrival.
    waiting: HashMap<u64, VecDeque<u64>>,
    conversation: HashMap<u64, u64>,
    pushed: u64,
    delivered: u64,
    dead: u64,
    retries: u64,
    /// (when, tries) since the region was told to wait.
    most_at_once: usize,
    /// Gaps that must be told: by conversation.
    gaps: HashMap<u64, u32>,
    innocent_deaths: Vec<u64>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let start = Instant::now();
        let rules = Rules {
            in_flight: 16,
            timeout: TIMEOUT,
            rate: 0,
            retry: Retry { attempts: 0, window: Duration::from_hours(24) },
            window: 1_000,
            kept: 10,
        };
        Self {
            seed,
            rng: Rng::new(seed),
            start,
            now: start,
            book: Book::new(rules, seed, start),
            rules,
            conversations: 40,
            arrivals: 20.0,
            poison: 0,
            poison_status: 400,
            weather: vec![(start, Weather::Well)],
            under_way: BTreeMap::new(),
            tries: 0,
            waiting: HashMap::new(),
            conversation: HashMap::new(),
            pushed: 0,
            delivered: 0,
            dead: 0,
            retries: 0,
            most_at_once: 0,
            gaps: HashMap::new(),
            innocent_deaths: Vec::new(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self.book = Book::new(self.rules, self.seed, self.start);
        self
    }

    fn elapsed(&self) -> f64 {
        self.now.duration_since(self.start).as_secs_f64()
    }

    fn weather(&self) -> Weather {
        self.weather.iter().rev().find(|(at, _)| *at <= self.now).map_or(Weather::Well, |(_, w)| *w)
    }

    fn push(&mut self) {
        let conversation = self.rng.below(self.conversations);
        let number = self.pushed;
        self.pushed += 1;
        self.waiting.entry(conversation).or_default().push_back(number);
        self.conversation.insert(number, conversation);
        self.book.push(Item { lsn: number, ..Item::default() }, &[conversation], || None);
    }

    /// How a try of this conversation goes, and how long it takes.
    fn answer(&mut self, conversation: u64) -> (Verdict, Duration) {
        let quick = MS * (20 + self.rng.below(30) as u32);
        let failed = |status, asked: Option<u64>| {
            Verdict::Failed(Failed { status, asked: asked.map(Duration::from_secs), uncertain: status == 0 })
        };
        let percent = self.rng.below(100);
        match self.weather() {
            Weather::Silent(ms) => (failed(0, None), MS * ms as u32),
            Weather::Answers(status) => (failed(status, None), quick),
            Weather::Asks(status, seconds) => (failed(status, Some(seconds)), quick),
            Weather::Some(status, share) if percent < share => (failed(status, None), quick),
            Weather::Part(status, share) if conversation * 37 % 100 < share => (failed(status, None), quick),
            _ if conversation < self.poison => (failed(self.poison_status, None), quick),
            Weather::Slow => (Verdict::Delivered, TIMEOUT / 10 * 9),
            _ => (Verdict::Delivered, quick),
        }
    }

    /// Lets `seconds` pass, with arrivals or without.
    fn pass(&mut self, seconds: u64, arrivals: bool) {
        let end = self.now + Duration::from_secs(seconds);
        let gap = Duration::from_secs_f64(1.0 / self.arrivals);
        let mut next_push = self.now + gap;
        loop {
            let wake = self.book.tick(self.now);
            self.start_what_may();
            let mut next = self.now + Duration::from_secs(1);
            next = next.min(wake.map_or(end, |wake| wake.max(self.now + MS)));
            if arrivals {
                next = next.min(next_push);
            }
            if let Some((&(at, _), _)) = self.under_way.first_key_value() {
                next = next.min(at);
            }
            if next >= end {
                self.now = end;
                break;
            }
            self.now = next;
            if arrivals && next_push <= self.now {
                // As a full window would leave it to the journal.
                if !self.book.full() {
                    self.push();
                }
                next_push = self.now + gap;
            }
            self.end_what_ended();
        }
        self.check();
    }

    fn start_what_may(&mut self) {
        while let Some((id, errand)) = self.book.next(self.now) {
            let seed = self.seed;
            match errand {
                Errand::Try(item) => {
                    let conversation = self.conversation[&item.lsn];
                    let head = self.waiting[&conversation].front();
                    assert_eq!(head, Some(&item.lsn), "seed {seed}: out of order");
                    let gap = self.gaps.get(&conversation).copied().unwrap_or(0);
                    assert_eq!(item.gap, gap, "seed {seed}: the gap of conversation {conversation}");
                    self.retries += u64::from(item.attempts > 0);
                    let (verdict, took) = self.answer(conversation);
                    self.tries += 1;
                    let end = self.now + took;
                    self.under_way.insert((end, self.tries), (id, item.lsn, self.now, verdict));
                    self.most_at_once = self.most_at_once.max(self.under_way.len());
                }
                Errand::Bury(item, death) => {
                    let conversation = self.conversation[&item.lsn];
                    if conversation >= self.poison {
                        println!("seed {seed}: {item:?} died of {death:?} after {:.0} s", self.elapsed());
                        self.innocent_deaths.push(item.lsn);
                    }
                    assert_eq!(self.book.buried(id, crate::dead::LetterId(item.lsn)), Some(Settled::Dead));
                    self.leave(item.lsn);
                    self.dead += 1;
                    *self.gaps.entry(conversation).or_default() += 1;
                }
            }
        }
        assert!(self.under_way.len() <= self.rules.in_flight, "seed {}: too many at once", self.seed);
        assert_eq!(self.book.trying(), self.under_way.len(), "seed {}", self.seed);
    }

    fn end_what_ended(&mut self) {
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let ((ended, _), (id, number, started, verdict)) = entry.remove_entry();
            match self.book.done(id, verdict, started, ended) {
                Done::Delivered { mark, told } => {
                    assert_eq!(mark, Some(Settled::Delivered));
                    self.delivered += 1;
                    let conversation = self.leave(number);
                    let gap = self.gaps.remove(&conversation);
                    assert_eq!(gap.is_some(), told == [conversation], "seed {}: {told:?}", self.seed);
                }
                Done::Again { cut } => assert!(!cut, "of one conversation"),
            }
        }
    }

    fn leave(&mut self, number: u64) -> u64 {
        let conversation = self.conversation.remove(&number).unwrap();
        let left = self.waiting.get_mut(&conversation).unwrap().pop_front();
        assert_eq!(left, Some(number), "seed {}: out of order", self.seed);
        conversation
    }

    /// What holds at any moment.
    fn check(&self) {
        let seed = self.seed;
        assert!(self.innocent_deaths.is_empty(), "seed {seed}: gave up what its region failed");
        // Probes are few and not paid for.
        let bound = 0.1 * self.delivered as f64 + 5.0 * self.elapsed() + 50.0 + self.elapsed() / 2.0 + 20.0;
        assert!((self.retries as f64) <= bound, "seed {seed}: {} retries, {bound} allowed", self.retries);
        let waiting: usize = self.waiting.values().map(VecDeque::len).sum();
        assert_eq!(self.book.len(), waiting, "seed {seed}: something was lost");
        assert_eq!(self.delivered + self.dead + waiting as u64, self.pushed, "seed {seed}");
    }

    /// Parcels of conversations that are not poison.
    fn healthy_waiting(&self) -> usize {
        self.waiting.iter().filter(|(c, _)| **c >= self.poison).map(|(_, queue)| queue.len()).sum()
    }
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    match std::env::var("PENSTOCK_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        // More, for a night.
        None => {
            1..=std::env::var("PENSTOCK_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(count)
        }
    }
}

const BAD: [Weather; 17] = [
    Weather::Silent(0),
    Weather::Silent(15_000),
    Weather::Answers(500),
    Weather::Answers(401),
    Weather::Answers(403),
    Weather::Answers(404),
    Weather::Answers(400),
    Weather::Answers(302),
    Weather::Some(500, 50),
    Weather::Some(404, 50),
    Weather::Some(503, 30),
    Weather::Part(401, 50),
    Weather::Part(404, 100),
    Weather::Part(500, 40),
    Weather::Asks(429, 30),
    Weather::Asks(503, 5),
    Weather::Slow,
];

#[test]
fn no_outage_of_any_kind_makes_a_dead_letter_and_all_is_delivered_in_order_afterwards() {
    for seed in seeds(20) {
        let mut life = Life::new(seed).with(|life| {
            life.arrivals = [0.05, 0.5, 5.0, 50.0][life.rng.below(4) as usize];
            life.conversations = [3, 10, 100, 1_000][life.rng.below(4) as usize];
            // Short tempers, if the region accepts others.
            life.rules.retry = Retry { attempts: 3, window: Duration::from_mins(1) };
            life.rules.in_flight = [1, 4, 64][life.rng.below(3) as usize];
        });
        life.pass(60, true);
        for _ in 0..3 {
            let bad = BAD[life.rng.below(BAD.len() as u64) as usize];
            let seconds = 10 + life.rng.below(1_200);
            println!(
                "seed {seed}: {} parcels/s of {} conversations, {} at once: {bad:?} for {seconds} s",
                life.arrivals, life.conversations, life.rules.in_flight
            );
            life.weather.push((life.now, bad));
            life.pass(seconds, true);
            life.weather.push((life.now, Weather::Well));
            let seconds = 30 + life.rng.below(300);
            life.pass(seconds, true);
        }
        // Nothing waits for ever: a wait alone is a minute at most, a pause 75 s.
        let mut patience = 0;
        while !life.book.is_empty() {
            life.pass(30, false);
            patience += 1;
            assert!(patience < 60, "seed {seed}: {} parcels wait for ever", life.book.len());
        }
        // With traffic again it is as it was.
        life.arrivals = 50.0;
        life.pass(60, true);
        assert_eq!(
            (life.book.state(), life.book.limit()),
            (State::Closed, life.rules.in_flight),
            "seed {seed}"
        );
    }
}

#[test]
fn every_poison_dies_and_nobody_else_while_the_region_is_well() {
    for seed in seeds(6) {
        let mut life = Life::new(seed).with(|life| {
            life.poison = 1 + life.rng.below(3);
            life.conversations = 40 + life.rng.below(100);
            life.arrivals = [2.0, 20.0, 100.0][life.rng.below(3) as usize];
            let (status, attempts) =
                [(400, 0), (404, 0), (422, 0), (500, 4), (0, 4)][life.rng.below(5) as usize];
            life.poison_status = status;
            life.rules.retry.attempts = attempts;
        });
        println!("seed {seed}: {} of {} get {}", life.poison, life.conversations, life.poison_status);
        life.pass(1_800, true);
        // A poison is at the head of its conversation for some 5 to 15 minutes; then comes the next.
        assert!(life.dead > 0, "seed {seed}: no poison died");
        let (waiting, pushed) = (life.healthy_waiting(), life.pushed);
        assert!(
            waiting < 10 + pushed as usize / 100,
            "seed {seed}: poison held up {waiting} others of {pushed}"
        );
        assert_eq!(life.book.state(), State::Closed, "seed {seed}: poison is no outage");
        let dead = life.dead;
        life.pass(3_600, true);
        assert!(life.dead > dead, "seed {seed}: one poison died, the next one behind it did not");
    }
}

#[test]
fn poison_dies_after_an_outage_as_before_it_and_the_outage_counts_nothing() {
    for seed in seeds(3) {
        let mut life = Life::new(seed).with(|life| life.poison = 1);
        life.pass(60, true);
        for bad in [Weather::Answers(401), Weather::Some(500, 50), Weather::Part(404, 50)] {
            life.weather.push((life.now, bad));
            life.pass(1_200, true);
            life.weather.push((life.now, Weather::Well));
            let dead = life.dead;
            life.pass(1_800, true);
            assert!(life.dead > dead, "seed {seed}: after {bad:?}");
        }
    }
}
