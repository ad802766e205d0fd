//! The books: what was answered with 200 against what the regions got. Pure: no socket, no clock.
//!
//! Times are those of the caller's own clock, counted from any moment. The ledger balances if every
//! event that was accepted arrived in its region exactly once, unaltered, signed and in its
//! conversation's order, nothing else arrived, and every accepted webhook is archived once (`kept`). A repeat that was announced as possible
//! (`penstock-possible-duplicate`) is counted, but is no error; a webhook without an answer may
//! arrive or not, since its sender could not know either.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::events::{Digest, Event};

pub use self::kept::{Archived, Kept};

mod kept;
#[cfg(test)]
mod tests;

/// One webhook that was posted.
#[derive(Debug, Clone)]
pub struct Posted {
    /// Its events in the body's order, each with the region it belongs to.
    pub events: Vec<(Event, String)>,
    /// Of the whole body.
    pub digest: Digest,
    /// False if its signature was wrong on purpose.
    pub genuine: bool,
    /// 0 if no answer came.
    pub status: u16,
    pub begun: Duration,
    pub answered: Duration,
}

impl Posted {
    fn is_accepted(&self) -> bool {
        self.genuine && self.status == 200
    }
}

/// One parcel that a region took.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub region: String,
    pub events: Vec<Event>,
    /// Of the whole body.
    pub digest: Digest,
    pub signed: bool,
    /// Marked as a possible duplicate.
    pub announced: bool,
}

/// Everything that was posted and everything that arrived.
#[derive(Debug)]
pub struct Ledger {
    regions: Vec<String>,
    posted: Vec<Posted>,
    arrived: Vec<Arrived>,
    archived: Vec<Archived>,
    due: HashSet<(String, String)>,
    got: HashSet<(String, String)>,
    repeated: usize,
}

/// One region's line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    pub region: String,
    /// Accepted webhooks with an event for this region.
    pub webhooks: usize,
    /// Events of these.
    pub expected: usize,
    /// Of the expected ones, how many arrived at least once.
    pub delivered: usize,
    pub lost: usize,
    /// Arrived again without being announced as possible duplicates.
    pub doubled: usize,
    /// Arrived again, announced.
    pub announced: usize,
    /// Arrived before an event of the same conversation that was answered before they were sent.
    pub disordered: usize,
    /// Other bytes than were sent.
    pub altered: usize,
    /// Events that belong elsewhere, or that nobody sent.
    pub strangers: usize,
}

/// The closed books.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    pub lines: Vec<Line>,
    /// Genuine webhooks that were answered with 200.
    pub accepted: usize,
    /// Events of these that had been accepted before.
    pub repeated: usize,
    pub forged: usize,
    /// Forged webhooks that were answered with 200.
    pub forged_accepted: usize,
    /// Events of forged webhooks that reached a region.
    pub forged_delivered: usize,
    pub parcels: usize,
    /// Parcels whose signature verified.
    pub signed: usize,
    /// Parcels that are a whole webhook.
    pub whole: usize,
    /// What the archives have.
    pub kept: Kept,
}

impl Ledger {
    pub fn new(regions: &[&str]) -> Self {
        Self {
            regions: regions.iter().map(|&region| region.to_owned()).collect(),
            posted: Vec::new(),
            arrived: Vec::new(),
            archived: Vec::new(),
            due: HashSet::new(),
            got: HashSet::new(),
            repeated: 0,
        }
    }

    pub fn post(&mut self, webhook: Posted) {
        if webhook.is_accepted() {
            for (event, region) in &webhook.events {
                self.repeated += usize::from(!self.due.insert((region.clone(), event.id.clone())));
            }
        }
        self.posted.push(webhook);
    }

    /// Parcels of one region must be told in the order in which it took them.
    pub fn arrive(&mut self, parcel: Arrived) {
        let got = parcel.events.iter().map(|event| (parcel.region.clone(), event.id.clone()));
        self.got.extend(got);
        self.arrived.push(parcel);
    }

    /// A record of an archive, once all objects are closed.
    pub fn archive(&mut self, record: Archived) {
        self.archived.push(record);
    }

    /// Accepted events that have not arrived yet.
    pub fn outstanding(&self) -> usize {
        self.due.difference(&self.got).count()
    }

    /// True if the event was accepted before: it must not arrive a second time.
    pub fn is_known(&self, region: &str, id: &str) -> bool {
        self.due.contains(&(region.to_owned(), id.to_owned()))
    }

    /// Closes the books.
    pub fn balance(&self) -> Balance {
        let index = self.index();
        let forged = self.posted.iter().filter(|posted| !posted.genuine);
        Balance {
            lines: self.regions.iter().map(|region| self.line(region, &index)).collect(),
            accepted: self.posted.iter().filter(|posted| posted.is_accepted()).count(),
            repeated: self.repeated,
            forged: forged.clone().count(),
            forged_accepted: forged.filter(|posted| posted.status == 200).count(),
            forged_delivered: self
                .arrived
                .iter()
                .flat_map(|parcel| &parcel.events)
                .filter(|event| index.get(event.id.as_str()).is_some_and(|(posted, _)| !posted.genuine))
                .count(),
            parcels: self.arrived.len(),
            signed: self.arrived.iter().filter(|parcel| parcel.signed).count(),
            whole: self.arrived.iter().filter(|parcel| whole(parcel, &index).is_some()).count(),
            kept: kept::audit(&self.posted, &self.archived),
        }
    }

    /// Where each event was posted: a repeat counts as the first that was accepted.
    fn index(&self) -> HashMap<&str, (&Posted, usize)> {
        let mut index: HashMap<&str, (&Posted, usize)> = HashMap::new();
        for posted in &self.posted {
            for (at, (event, _)) in posted.events.iter().enumerate() {
                let known = index.entry(&event.id).or_insert((posted, at));
                if !known.0.is_accepted() && posted.is_accepted() {
                    *known = (posted, at);
                }
            }
        }
        index
    }

    fn line(&self, region: &str, index: &HashMap<&str, (&Posted, usize)>) -> Line {
        let mut line = Line { region: region.to_owned(), ..Line::default() };
        let accepted = self.posted.iter().filter(|posted| posted.is_accepted());
        line.webhooks =
            accepted.filter(|posted| posted.events.iter().any(|(_, home)| home == region)).count();
        line.expected = self.due.iter().filter(|(home, _)| home == region).count();

        let mut seen = HashSet::new();
        let mut latest: HashMap<&str, Latest> = HashMap::new();
        for parcel in self.arrived.iter().filter(|parcel| parcel.region == region) {
            let altered_whole = whole(parcel, index).is_some_and(|posted| posted.digest != parcel.digest);
            line.altered += usize::from(altered_whole);
            for event in &parcel.events {
                let Some((posted, at)) = index.get(event.id.as_str()) else {
                    line.strangers += 1;
                    continue;
                };
                let (sent, home) = &posted.events[*at];
                if home != region {
                    line.strangers += 1;
                    continue;
                }
                if !seen.insert(event.id.as_str()) {
                    let repeats = if parcel.announced { &mut line.announced } else { &mut line.doubled };
                    *repeats += 1;
                    continue;
                }
                line.delivered += usize::from(self.due.contains(&(region.to_owned(), event.id.clone())));
                line.altered += usize::from(sent.digest != event.digest && !altered_whole);
                if let Some(conversation) = &sent.conversation {
                    let latest = latest.entry(conversation).or_default();
                    line.disordered += usize::from(latest.overtook(posted, *at));
                }
            }
        }
        line.lost = line.expected - line.delivered;
        line
    }
}

impl Balance {
    /// True if nothing is amiss.
    pub fn is_balanced(&self) -> bool {
        self.lines.iter().all(Line::is_balanced)
            && self.forged_accepted == 0
            && self.forged_delivered == 0
            && self.signed == self.parcels
            && self.kept.is_balanced()
    }
}

impl Line {
    pub fn is_balanced(&self) -> bool {
        self.lost + self.doubled + self.disordered + self.altered + self.strangers == 0
    }
}

/// The webhook that this parcel is all of, if it is: then even the bytes around the events must be the same.
fn whole<'a>(parcel: &Arrived, index: &HashMap<&str, (&'a Posted, usize)>) -> Option<&'a Posted> {
    let (posted, _) = index.get(parcel.events.first()?.id.as_str())?;
    let complete = posted.events.len() == parcel.events.len()
        && posted.events.iter().zip(&parcel.events).all(|((sent, _), event)| sent.id == event.id);
    complete.then_some(posted)
}

/// How far a conversation has come.
#[derive(Default)]
struct Latest {
    begun: Duration,
    at: usize,
}

impl Latest {
    /// True if an event that must come after this one has been here before it.
    ///
    /// Webhooks that were under way at the same time have no order; events of one webhook have the body's.
    fn overtook(&mut self, posted: &Posted, at: usize) -> bool {
        let late = self.begun > posted.answered || (self.begun == posted.begun && at < self.at);
        if (posted.begun, at) > (self.begun, self.at) {
            *self = Self { begun: posted.begun, at };
        }
        late
    }
}
