//! The judge: compares what was sent and answered with what the regions were given, and with what was given up.
//!
//! It knows the promise, not the gateway. After quiescence it demands of every webhook answered 200
//! that each of its events was delivered to its own region, unaltered and properly signed, or is a dead letter
//! of that region, once and not both; that where B was sent after A was answered and both are of one conversation, A's first delivery was over before
//! B's began; and that nothing was delivered twice but for a kill in between, or an answer cut off.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::body::{Webhook, ids};
use super::gateway::Gateway;
use super::http::find;
use super::letters::Letter;
use super::metrics::DEAD_LETTERS;
use super::region::{Parcel, Region};
use super::sender::Sent;
use super::{SECRET, signature};

/// A kill may undo the knowledge of deliveries this long before it: marks are written in batches
/// at most 100 ms apart; the rest is a loaded test machine. `PENSTOCK_UNMARKED_SECONDS` for one that does
/// other things meanwhile.
const UNMARKED_SECONDS: u64 = 1;
/// An attempt counts as open at the kill if its answer left at most this long before it; 50 ms of this
/// pass until [`super::gateway::Gateway::kill9`] calls the kill done.
const IN_FLIGHT: Duration = Duration::from_millis(150);

/// How often it is looked for more dead letters.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Ledger {
    sent: Vec<Sent>,
    kills: Vec<Instant>,
    /// Event id to (webhook, event in it).
    index: HashMap<String, (usize, usize)>,
}

/// What was found wrong, each by its event ids; and the sums.
#[derive(Debug, Default)]
pub struct Report {
    pub sent: usize,
    pub acked: usize,
    /// Events of acked webhooks.
    pub due: usize,
    /// Events delivered at least once.
    pub delivered: usize,
    /// Deliveries of events beyond the first.
    pub repeats: usize,
    /// Events that were given up and are dead letters.
    pub dead: Vec<String>,
    pub dead_twice: Vec<String>,
    pub dead_and_delivered: Vec<String>,
    pub lost: Vec<String>,
    pub out_of_order: Vec<String>,
    /// With what speaks against it.
    pub unexcused: Vec<String>,
    pub altered: Vec<String>,
    pub unsigned: Vec<String>,
    pub misrouted: Vec<String>,
    pub unknown: Vec<String>,
}

/// A delivery of one event.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    began: Instant,
    done: Instant,
    flagged: bool,
}

impl Ledger {
    pub fn add(&mut self, sent: Vec<Sent>) {
        for webhook in sent {
            let at = self.sent.len();
            for (n, event) in webhook.webhook.events.iter().enumerate() {
                self.index.insert(event.id.clone(), (at, n));
            }
            self.sent.push(webhook);
        }
    }

    pub fn killed(&mut self, at: Instant) {
        self.kills.push(at);
    }

    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Waits until every event of an acked webhook was delivered or died, and then a little for what should
    /// not come any more. Gives up at `limit`; [`Ledger::audit`] then names what is missing. The dead letters.
    pub fn settle(&self, gateway: &Gateway, regions: &[Region], limit: Duration) -> Vec<Letter> {
        let deadline = Instant::now() + super::patience(limit);
        let mut missing: HashMap<&str, ()> = HashMap::new();
        for sent in self.sent.iter().filter(|sent| sent.acked().is_some()) {
            missing.extend(sent.webhook.events.iter().map(|event| (event.id.as_str(), ())));
        }
        let (mut read, mut dead, mut look) = (vec![0; regions.len()], 0.0, Instant::now());
        while !missing.is_empty() && Instant::now() < deadline {
            for (region, read) in regions.iter().zip(&mut read) {
                for parcel in region.parcels_from(*read) {
                    *read += 1;
                    if parcel.delivered() {
                        ids(parcel.body()).unwrap_or_default().iter().for_each(|id| {
                            missing.remove(id.as_str());
                        });
                    }
                }
            }
            if look.elapsed() < LOOK {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            look = Instant::now();
            let count = gateway.try_metrics().map_or(0.0, |metrics| metrics.total(DEAD_LETTERS));
            if count != dead {
                dead = count;
                gateway.letters().iter().flat_map(|letter| self.events_of(letter, regions)).for_each(
                    |(at, n)| {
                        missing.remove(self.sent[at].webhook.events[n].id.as_str());
                    },
                );
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        gateway.letters()
    }

    /// Settles, judges, prints the table and fails the test if a promise was broken, or anything died.
    pub fn assert_kept(&self, gateway: &Gateway, regions: &[Region], limit: Duration) -> Report {
        let report = self.assert_kept_but(gateway, regions, limit);
        assert_eq!(report.dead.len(), 0, "nothing was to die: {report}");
        report
    }

    /// The same where something may die.
    pub fn assert_kept_but(&self, gateway: &Gateway, regions: &[Region], limit: Duration) -> Report {
        let letters = self.settle(gateway, regions, limit);
        let report = self.audit(regions, &letters);
        println!("{report}");
        assert!(report.is_clean(), "a promise was broken: {report}");
        assert!(report.acked > 0, "nothing was acked: the test tested nothing");
        report
    }

    pub fn audit(&self, regions: &[Region], letters: &[Letter]) -> Report {
        let mut report = Report { sent: self.sent.len(), ..Report::default() };
        let mut deliveries: HashMap<(usize, usize), Vec<Delivery>> = HashMap::new();
        for (at, region) in regions.iter().enumerate() {
            for parcel in region.parcels() {
                self.look_into(at, &parcel, &mut deliveries, &mut report);
            }
        }
        for list in deliveries.values_mut() {
            list.sort_by_key(|delivery| delivery.began);
        }
        report.delivered = deliveries.len();
        let mut dead = HashSet::new();
        for letter in letters {
            let events = self.events_of(letter, regions);
            // Of nobody's, or of nothing: what is in a webhook is known by any event of it.
            if events.is_empty() {
                report.unknown.push(format!("dead letter {}", letter.shown["id"]));
            }
            for (at, n) in events {
                let Webhook { body, events } = &self.sent[at].webhook;
                let id = || events[n].id.clone();
                if regions[events[n].region].name != letter.region() {
                    report.misrouted.push(id());
                }
                if *body != letter.webhook {
                    report.altered.push(id());
                }
                match dead.insert((at, n)) {
                    true => report.dead.push(id()),
                    false => report.dead_twice.push(id()),
                }
                if deliveries.contains_key(&(at, n)) {
                    report.dead_and_delivered.push(id());
                }
            }
        }
        for (at, sent) in self.sent.iter().enumerate().filter(|(_, sent)| sent.acked().is_some()) {
            report.acked += 1;
            for (n, event) in sent.webhook.events.iter().enumerate() {
                report.due += 1;
                if !deliveries.contains_key(&(at, n)) && !dead.contains(&(at, n)) {
                    report.lost.push(event.id.clone());
                }
            }
        }
        let cuts: Vec<Vec<Instant>> = regions.iter().map(Region::cuts).collect();
        for (&(at, n), list) in &deliveries {
            report.repeats += list.len() - 1;
            let event = &self.sent[at].webhook.events[n];
            let excused = |pair: &&[Delivery]| self.excused(pair[0], pair[1], &cuts[event.region]);
            if let Some(pair) = list.windows(2).find(|pair| !excused(pair)) {
                let kill = self.kills.iter().find(|kill| **kill > pair[0].began);
                let age = kill.map(|kill| kill.saturating_duration_since(pair[0].done));
                let flagged = pair[1].flagged;
                report.unexcused.push(format!("{}: {age:.1?} before a kill, flagged: {flagged}", event.id));
            }
        }
        self.check_order(&deliveries, &mut report);
        report
    }

    /// The events in a dead letter.
    fn events_of(&self, letter: &Letter, regions: &[Region]) -> Vec<(usize, usize)> {
        let known = ids(&letter.webhook).unwrap_or_default();
        let Some((at, _)) = known.iter().find_map(|id| self.index.get(id)).copied() else {
            return Vec::new();
        };
        // As they stand in the body.
        let events = &self.sent[at].webhook.events;
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_unstable_by_key(|n| events[*n].range.start);
        let places = letter.places();
        let mine = |(place, n): &(usize, usize)| match places.is_empty() {
            true => regions[events[*n].region].name == letter.region(),
            false => places.contains(place),
        };
        order.into_iter().enumerate().filter(mine).map(|(_, n)| (at, n)).collect()
    }

    /// How long events of acked webhooks sent within `[from, to)` took from the answer to the delivery.
    pub fn delays(&self, regions: &[Region], region: usize, from: Instant, to: Instant) -> Vec<Duration> {
        let mut first: HashMap<(usize, usize), Instant> = HashMap::new();
        for parcel in regions[region].parcels().iter().filter(|parcel| parcel.delivered()) {
            for id in ids(parcel.body()).unwrap_or_default() {
                if let Some(event) = self.index.get(&id) {
                    first.entry(*event).or_insert(parcel.done);
                }
            }
        }
        let delay = |(&(at, _), done): (&(usize, usize), &Instant)| {
            let sent = &self.sent[at];
            let acked = sent.acked().filter(|_| (from..to).contains(&sent.sent))?;
            Some(done.saturating_duration_since(acked))
        };
        first.iter().filter_map(delay).collect()
    }

    /// How long answers took to webhooks sent within `[from, to)`; whatever was not a 200 is a failure.
    pub fn ack_times(&self, from: Instant, to: Instant) -> Vec<Duration> {
        let within = self.sent.iter().filter(|sent| (from..to).contains(&sent.sent));
        within
            .map(|sent| {
                let at = sent.acked().unwrap_or_else(|| panic!("not acked: {:?}", sent.answered));
                at - sent.sent
            })
            .collect()
    }

    fn look_into(
        &self,
        region: usize,
        parcel: &Arc<Parcel>,
        deliveries: &mut HashMap<(usize, usize), Vec<Delivery>>,
        report: &mut Report,
    ) {
        let body = parcel.body();
        let name = || format!("{} in {}", parcel.header("webhook-id"), parcel.header("penstock-region"));
        if parcel.head.header("x-hub-signature-256") != Some(signature(SECRET, body).as_str()) {
            report.unsigned.push(name());
        }
        let found = ids(body).unwrap_or_default();
        if found.is_empty() {
            return report.altered.push(name());
        }
        let mut webhooks = Vec::new();
        for id in &found {
            let Some(&(at, n)) = self.index.get(id) else {
                report.unknown.push(id.clone());
                continue;
            };
            let webhook = &self.sent[at].webhook;
            let event = &webhook.events[n];
            if event.region != region {
                report.misrouted.push(id.clone());
            }
            if find(body, &webhook.body[event.range.clone()]).is_none() {
                report.altered.push(id.clone());
            }
            webhooks.push(at);
            if parcel.delivered() {
                let flagged = parcel.head.header("penstock-possible-duplicate") == Some("true");
                let delivery = Delivery { began: parcel.head.began, done: parcel.done, flagged };
                deliveries.entry((at, n)).or_default().push(delivery);
            }
        }
        webhooks.dedup();
        // A parcel with all events of one webhook is that webhook, byte for byte.
        if let [at] = webhooks[..] {
            let webhook = &self.sent[at].webhook;
            if webhook.events.len() == found.len() && webhook.body != body {
                report.altered.push(name());
            }
        }
    }

    fn excused(&self, first: Delivery, again: Delivery, cuts: &[Instant]) -> bool {
        let between = |at: &&Instant| first.began < **at && **at < again.began;
        let unmarked = Duration::from_secs(super::setting("PENSTOCK_UNMARKED_SECONDS", UNMARKED_SECONDS));
        let killed = self.kills.iter().filter(between).any(|kill| {
            let age = kill.saturating_duration_since(first.done);
            age <= IN_FLIGHT || again.flagged && age <= unmarked
        });
        // The region's answer may have been lost with the connection; then the repeat must say so.
        let cut = |at: &Instant| at.saturating_duration_since(first.done) <= IN_FLIGHT;
        killed || again.flagged && cuts.iter().filter(between).any(cut)
    }

    fn check_order(&self, deliveries: &HashMap<(usize, usize), Vec<Delivery>>, report: &mut Report) {
        struct Step<'a> {
            id: &'a str,
            sent: Instant,
            acked: Option<Instant>,
            first: Option<Delivery>,
        }
        let mut conversations: HashMap<usize, Vec<Step<'_>>> = HashMap::new();
        for (at, sent) in self.sent.iter().enumerate() {
            for (n, event) in sent.webhook.events.iter().enumerate() {
                let first = deliveries.get(&(at, n)).map(|list| list[0]);
                let step = Step { id: &event.id, sent: sent.sent, acked: sent.acked(), first };
                conversations.entry(event.conversation).or_default().push(step);
            }
        }
        for steps in conversations.values_mut() {
            steps.sort_by_key(|step| step.sent);
            let mut acked: Vec<(Instant, Instant)> =
                steps.iter().filter_map(|step| Some((step.acked?, step.first?.done))).collect();
            acked.sort_unstable();
            // Walking in the order of sending, `over` is when the last delivery of what was answered before ended.
            let mut before = acked.into_iter().peekable();
            let mut over: Option<Instant> = None;
            for step in steps {
                while let Some((_, done)) = before.next_if(|(answered, _)| *answered < step.sent) {
                    over = over.max(Some(done));
                }
                if step.first.is_some_and(|first| over.is_some_and(|over| over > first.began)) {
                    report.out_of_order.push(step.id.to_owned());
                }
            }
        }
    }
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.faults().iter().all(|(_, list)| list.is_empty())
    }

    pub fn faults(&self) -> [(&'static str, &[String]); 9] {
        [
            ("lost", &self.lost),
            ("out of order", &self.out_of_order),
            ("repeated without excuse", &self.unexcused),
            ("altered", &self.altered),
            ("wrong signature", &self.unsigned),
            ("wrong region", &self.misrouted),
            ("never sent", &self.unknown),
            ("dead twice", &self.dead_twice),
            ("dead and delivered", &self.dead_and_delivered),
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, acked, due, delivered, repeats, dead, .. } = self;
        let [dead, lost, out_of_order] = [dead, &self.lost, &self.out_of_order].map(Vec::len);
        writeln!(
            f,
            "LEDGER | sent {sent} | acked {acked} | delivered {delivered} | duplicates {repeats} | dead {dead} | \
             lost {lost} | out of order {out_of_order}"
        )?;
        writeln!(f, "webhooks sent {sent}, acked {acked} with {due} events")?;
        writeln!(f, "events delivered {delivered}, and again {repeats}")?;
        for (name, list) in self.faults() {
            write!(f, "{name:<24}{:>8}", list.len())?;
            match list.first() {
                Some(first) => writeln!(f, "   e.g. {first}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
