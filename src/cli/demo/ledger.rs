//! The books: what was answered with 200 against what the regions got. Pure: no socket, no clock.
//!
//! Times are those of the caller's own clock, counted from any moment. The ledger balances if every
//! event that was accepted arrived in its region exactly once, unaltered, signed and in its
//! conversation's order, and nothing else arrived. A repeat that was announced as possible
//! (`penstock-possible-duplicate`) is counted, but is no error; a webhook without an answer may
//! arrive or not, since its sender could not know either.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::events::{Digest, Event};

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
    due: HashSet<(String, String)>,
    got: HashSet<(String, String)>,
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
}

impl Ledger {
    pub fn new(regions: &[&str]) -> Self {
        Self {
            regions: regions.iter().map(|&region| region.to_owned()).collect(),
            posted: Vec::new(),
            arrived: Vec::new(),
            due: HashSet::new(),
            got: HashSet::new(),
        }
    }

    pub fn post(&mut self, webhook: Posted) {
        if webhook.is_accepted() {
            let due = webhook.events.iter().map(|(event, region)| (region.clone(), event.id.clone()));
            self.due.extend(due);
        }
        self.posted.push(webhook);
    }

    /// Parcels of one region must be told in the order in which it took them.
    pub fn arrive(&mut self, parcel: Arrived) {
        let got = parcel.events.iter().map(|event| (parcel.region.clone(), event.id.clone()));
        self.got.extend(got);
        self.arrived.push(parcel);
    }

    /// Accepted events that have not arrived yet.
    pub fn outstanding(&self) -> usize {
        self.due.difference(&self.got).count()
    }

    /// Closes the books.
    pub fn balance(&self) -> Balance {
        let index = self.index();
        let forged = self.posted.iter().filter(|posted| !posted.genuine);
        Balance {
            lines: self.regions.iter().map(|region| self.line(region, &index)).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A webhook number `at` with one event per `(id, conversation)`, all of `europe`, sent in its own second.
    fn posted(at: u64, events: &[(&str, &str)]) -> Posted {
        let events: Vec<_> = events
            .iter()
            .map(|(id, conversation)| (event(id, conversation, 1), "europe".to_owned()))
            .collect();
        let digest = [u8::try_from(at).unwrap(); 32];
        let begun = Duration::from_secs(at);
        Posted { events, digest, genuine: true, status: 200, begun, answered: begun + Duration::from_millis(2) }
    }

    fn event(id: &str, conversation: &str, digest: u8) -> Event {
        Event { id: id.to_owned(), conversation: Some(conversation.to_owned()), digest: [digest; 32] }
    }

    fn arrived(webhook: &Posted) -> Arrived {
        Arrived {
            region: "europe".to_owned(),
            events: webhook.events.iter().map(|(event, _)| event.clone()).collect(),
            digest: webhook.digest,
            signed: true,
            announced: false,
        }
    }

    /// Three webhooks (a: one event of Ann, b: Ann and Ben, c: Ann), arriving as `change` leaves them;
    /// then the line of Europe must differ from the balanced one as `expect` says.
    fn check(change: impl FnOnce(&mut Vec<Posted>, &mut Vec<Arrived>), expect: impl FnOnce(&mut Balance)) {
        let mut webhooks = vec![
            posted(1, &[("a", "ann")]),
            posted(2, &[("b1", "ann"), ("b2", "ben")]),
            posted(3, &[("c", "ann")]),
        ];
        let mut parcels: Vec<_> = webhooks.iter().map(arrived).collect();
        let mut expected = Balance { parcels: 3, signed: 3, whole: 3, ..Balance::default() };
        let europe =
            Line { region: "europe".to_owned(), webhooks: 3, expected: 4, delivered: 4, ..Line::default() };
        expected.lines = vec![europe, Line { region: "asia".to_owned(), ..Line::default() }];
        let undisturbed = expected.clone();

        change(&mut webhooks, &mut parcels);
        expect(&mut expected);
        let mut ledger = Ledger::new(&["europe", "asia"]);
        webhooks.into_iter().for_each(|webhook| ledger.post(webhook));
        parcels.into_iter().for_each(|parcel| ledger.arrive(parcel));
        let balance = ledger.balance();
        assert_eq!(balance, expected);
        assert_eq!(ledger.outstanding(), balance.lines.iter().map(|line| line.lost).sum::<usize>());
        if expected == undisturbed {
            assert!(balance.is_balanced());
        }
    }

    /// As [`check`], for what must never balance.
    fn check_amiss(
        change: impl FnOnce(&mut Vec<Posted>, &mut Vec<Arrived>),
        expect: impl FnOnce(&mut Balance),
    ) {
        check(change, |balance| {
            expect(balance);
            assert!(!balance.is_balanced(), "{balance:?}");
        });
    }

    #[test]
    fn undisturbed_traffic_balances() {
        check(|_, _| {}, |_| {});
    }

    #[test]
    fn lost_parcel_is_noticed() {
        check_amiss(
            |_, parcels| drop(parcels.remove(1)),
            |balance| {
                (balance.parcels, balance.signed, balance.whole) = (2, 2, 2);
                (balance.lines[0].delivered, balance.lines[0].lost) = (2, 2);
            },
        );
    }

    #[test]
    fn lost_event_of_a_batch_is_noticed() {
        check_amiss(
            |_, parcels| drop(parcels[1].events.pop()),
            |balance| {
                balance.whole = 2;
                (balance.lines[0].delivered, balance.lines[0].lost) = (3, 1);
            },
        );
    }

    #[test]
    fn doubled_parcel_is_noticed_and_an_announced_one_is_excused() {
        let doubled = |announced: bool| {
            move |_: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
                parcels.push(Arrived { announced, ..parcels[0].clone() });
            }
        };
        let count = |balance: &mut Balance| (balance.parcels, balance.signed, balance.whole) = (4, 4, 4);
        check_amiss(doubled(false), |balance| {
            count(balance);
            balance.lines[0].doubled = 1;
        });
        check(doubled(true), |balance| {
            count(balance);
            balance.lines[0].announced = 1;
            assert!(balance.is_balanced());
        });
    }

    #[test]
    fn overtaking_in_a_conversation_is_noticed() {
        check_amiss(|_, parcels| parcels.swap(1, 2), |balance| balance.lines[0].disordered = 1);
        check_amiss(|_, parcels| parcels.rotate_right(1), |balance| balance.lines[0].disordered = 2);
        check_amiss(
            |webhooks, parcels| {
                webhooks[1].events[1].0.conversation = Some("ann".to_owned());
                parcels[1].events.swap(0, 1);
            },
            |balance| {
                balance.whole = 2;
                balance.lines[0].disordered = 1;
            },
        );
    }

    #[test]
    fn what_was_under_way_at_once_has_no_order() {
        let late_answer = |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
            webhooks[1].answered = Duration::from_secs(4);
            parcels.swap(1, 2);
        };
        check(late_answer, |_| {});
        let strangers = |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
            webhooks[2].events[0].0.conversation = Some("cem".to_owned());
            parcels.rotate_right(1);
        };
        check(strangers, |_| {});
    }

    #[test]
    fn altered_bytes_are_noticed_inside_and_around_the_events() {
        check_amiss(|_, parcels| parcels[2].digest = [9; 32], |balance| balance.lines[0].altered = 1);
        check_amiss(
            |_, parcels| {
                parcels.insert(2, parcels[1].clone());
                parcels[1].events.pop();
                parcels[2].events.remove(0);
                parcels[2].events[0].digest = [9; 32];
            },
            |balance| {
                (balance.parcels, balance.signed, balance.whole) = (4, 4, 2);
                balance.lines[0].altered = 1;
            },
        );
    }

    #[test]
    fn wrong_signature_is_noticed() {
        check_amiss(|_, parcels| parcels[0].signed = false, |balance| balance.signed = 2);
    }

    #[test]
    fn event_in_a_wrong_region_is_lost_and_a_stranger() {
        check_amiss(
            |_, parcels| parcels[0].region = "asia".to_owned(),
            |balance| {
                (balance.lines[0].delivered, balance.lines[0].lost) = (3, 1);
                balance.lines[1].strangers = 1;
            },
        );
        check_amiss(
            |_, parcels| parcels[0].events.push(event("never sent", "ann", 1)),
            |balance| {
                balance.whole = 2;
                balance.lines[0].strangers = 1;
            },
        );
    }

    #[test]
    fn forgery_must_neither_be_accepted_nor_arrive() {
        let forged = |status: u16, arrives: bool| {
            move |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
                let forged = Posted { genuine: false, status, ..posted(4, &[("f", "ann")]) };
                if arrives {
                    parcels.push(arrived(&forged));
                }
                webhooks.push(forged);
            }
        };
        check(forged(401, false), |balance| {
            balance.forged = 1;
            assert!(balance.is_balanced());
        });
        check_amiss(forged(200, false), |balance| (balance.forged, balance.forged_accepted) = (1, 1));
        check_amiss(forged(401, true), |balance| {
            (balance.forged, balance.forged_delivered) = (1, 1);
            (balance.parcels, balance.signed, balance.whole) = (4, 4, 4);
        });
    }

    #[test]
    fn repeat_of_a_webhook_is_expected_once() {
        let repeat = |status: u16| {
            move |webhooks: &mut Vec<Posted>, _: &mut Vec<Arrived>| {
                let again = Duration::from_secs(5);
                webhooks.push(Posted { status, begun: again, answered: again, ..webhooks[0].clone() });
            }
        };
        check(repeat(200), |balance| {
            balance.lines[0].webhooks = 4;
            assert!(balance.is_balanced());
        });
        check(repeat(503), |balance| assert!(balance.is_balanced()));
    }

    #[test]
    fn webhook_without_a_200_may_arrive_or_not() {
        let refused = |arrives: bool| {
            move |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
                webhooks[2].status = 503;
                if !arrives {
                    parcels.pop();
                }
            }
        };
        let fewer = |balance: &mut Balance| {
            let line = &mut balance.lines[0];
            (line.webhooks, line.expected, line.delivered) = (2, 3, 3);
            assert!(balance.is_balanced());
        };
        check(refused(true), fewer);
        check(refused(false), |balance| {
            fewer(balance);
            (balance.parcels, balance.signed, balance.whole) = (2, 2, 2);
        });
    }
}
