//! The ledger: what k6 saw answered 200, what the gateway says it accepted, and what arrived at the regions.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::gateway::{outcome, total};

use super::books::Books;

/// k6's side.
#[derive(Debug, Default, Clone)]
pub struct Sent {
    /// Posts answered 200, repeats included.
    pub accepted: u64,
    pub repeated: u64,
    /// Forgeries answered 401.
    pub forged: u64,
    /// Tries without an answer: the gateway may have accepted them all the same.
    pub unanswered: u64,
    /// Those of them that were not refused a connection.
    pub cut: u64,
    pub regions: Vec<Due>,
    /// Of answers, as k6 prints them, in milliseconds: median, 99th percentile, longest.
    pub times: [f64; 3],
    /// Thresholds that were crossed.
    pub crossed: Vec<String>,
}

/// What a region must have got by k6's side.
#[derive(Debug, Default, Clone, Copy)]
pub struct Due {
    /// Events of accepted webhooks, each counted once, and the digest of their names.
    pub events: u64,
    pub digest: u64,
    /// Events that went out once more.
    pub again: u64,
    /// Events of webhooks that never had an answer.
    pub open: u64,
}

impl Sent {
    /// From what `k6 run --summary-export` wrote.
    pub fn read(summary: &Path, regions: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(summary).context("read k6's summary")?;
        Ok(Self::of(&serde_json::from_str(&text).context("read k6's summary")?, regions))
    }

    fn of(summary: &Value, regions: usize) -> Self {
        let metrics = &summary["metrics"];
        // A counter that never moved is not there.
        let count = |name: &str| metrics[format!("penstock_{name}")]["count"].as_u64().unwrap_or(0);
        let due = |region| {
            let count = |name: &str| count(&format!("{name}_region_{region}"));
            Due {
                events: count("events"),
                digest: count("digest"),
                again: count("events_again"),
                open: count("events_open"),
            }
        };
        let time = |name: &str| metrics["penstock_answer"][name].as_f64().unwrap_or(0.0);
        Self {
            accepted: count("accepted"),
            repeated: count("repeated"),
            forged: count("forged"),
            unanswered: count("unanswered"),
            cut: count("cut"),
            regions: (0..regions).map(due).collect(),
            times: [time("med"), time("p(99)"), time("max")],
            crossed: crossed(metrics),
        }
    }

    /// Events that must arrive.
    pub fn due(&self) -> u64 {
        self.regions.iter().map(|due| due.events).sum()
    }
}

/// Each threshold that did not hold, with what was found.
fn crossed(metrics: &Value) -> Vec<String> {
    let mut crossed = Vec::new();
    for (name, metric) in metrics.as_object().into_iter().flatten() {
        for (threshold, failed) in metric["thresholds"].as_object().into_iter().flatten() {
            if failed == &Value::Bool(true) {
                let mut found = metric.clone();
                found.as_object_mut().map(|found| found.remove("thresholds"));
                crossed.push(format!("{name}: {found}, expected {threshold}"));
            }
        }
    }
    crossed
}

/// The gateway's side, over all its lives.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Noted {
    pub accepted: u64,
    pub bad_signature: u64,
    /// Events dropped as repeats.
    pub duplicates: u64,
    /// Parcels that wait at the end of the last life.
    pub waiting: u64,
}

impl Noted {
    /// From what `/metrics` said at the end of each life.
    pub fn read(pages: &[String]) -> Self {
        let sum = |count: fn(&str) -> u64| pages.iter().map(|page| count(page)).sum();
        Self {
            accepted: sum(|page| outcome(page, "accepted")),
            bad_signature: sum(|page| outcome(page, "bad_signature")),
            duplicates: sum(|page| total(page, "penstock_duplicates_total") as u64),
            waiting: pages.last().map_or(0, |page| total(page, "penstock_backlog_parcels") as u64),
        }
    }
}

/// What does not fit together.
pub fn compare(sent: &Sent, noted: Noted, books: &Books) -> Vec<String> {
    if sent.accepted == 0 {
        return vec!["k6 had nothing accepted: expected 1 or more".to_owned()];
    }
    let mut faults = Vec::new();
    let mut between = |what: &str, found: u64, least: u64, most: u64| {
        if found < least || found > most {
            let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
            faults.push(format!("{what}: {found}, expected {expected}"));
        }
    };
    let mut same = |what: &str, found: u64, expected: u64| between(what, found, expected, expected);
    same("forgeries that the gateway refused", noted.bad_signature, sent.forged);
    same("forged events that arrived", books.forged, 0);
    same("parcels with a wrong signature", books.unsigned, 0);
    same("events that nobody sent or that belong elsewhere", books.strangers, 0);
    same("parcels that wait", noted.waiting, 0);
    for (region, due) in sent.regions.iter().enumerate() {
        let arrived = books.of(region);
        same(&format!("events that arrived again at region-{region}"), arrived.again, 0);
        // Of the same number, others could have come.
        if due.open == 0 && arrived.events == due.events {
            same(&format!("digest of the events at region-{region}"), arrived.digest, due.digest);
        }
    }
    for (region, due) in sent.regions.iter().enumerate() {
        let what = format!("events that arrived at region-{region}");
        between(&what, books.of(region).events, due.events, due.events + due.open);
    }
    // A try without an answer may have been accepted: if its webhook is sent again, that is a repeat.
    let most = sent.accepted + sent.unanswered;
    between("webhooks that the gateway accepted", noted.accepted, sent.accepted, most);
    if sent.unanswered == 0 {
        let again = sent.regions.iter().map(|due| due.again).sum();
        between("repeated events that the gateway dropped", noted.duplicates, again, again);
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP penstock_webhooks_total x\npenstock_webhooks_total{source=\"a\",outcome=\"accepted\"} 3\n\
                        penstock_webhooks_total{source=\"b\",outcome=\"accepted\"} 1\n\
                        penstock_webhooks_total{source=\"a\",outcome=\"bad_signature\"} 2\n\
                        penstock_duplicates_total{region=\"r\"} 1\npenstock_backlog_parcels{region=\"r\"} 0\n";

    fn balanced() -> (Sent, Noted, Books) {
        let mut books = Books::default();
        books.take(0, "s1.0/sent".into());
        books.take(0, "s1.0/read".into());
        books.take(1, "m2.0/".into());
        let due = |region, again| Due {
            events: books.of(region).events,
            digest: books.of(region).digest,
            again,
            open: 0,
        };
        let sent = Sent {
            accepted: 4,
            repeated: 1,
            forged: 2,
            regions: vec![due(0, 1), due(1, 0)],
            ..Sent::default()
        };
        (sent, Noted::read(&[PAGE.to_owned()]), books)
    }

    #[test]
    fn books_balance_and_every_fault_breaks_the_balance() {
        let (sent, noted, books) = balanced();
        assert_eq!(compare(&sent, noted, &books), Vec::<String>::new());
        let check = |change: fn(&mut Sent, &mut Noted, &mut Books), expected: &str| {
            let (mut sent, mut noted, mut books) = balanced();
            change(&mut sent, &mut noted, &mut books);
            let faults = compare(&sent, noted, &books);
            assert_eq!(faults.len(), 1, "{expected}: {faults:?}");
            assert!(faults[0].contains(expected), "{expected}: {faults:?}");
        };
        check(|sent, _, _| sent.accepted = 0, "nothing accepted");
        check(|sent, _, _| sent.accepted = 5, "accepted: 4, expected 5");
        check(|_, noted, _| noted.accepted = 5, "accepted: 5, expected 4");
        check(|sent, _, _| sent.forged = 1, "refused: 2, expected 1");
        check(|_, noted, _| noted.duplicates = 0, "dropped: 0, expected 1");
        check(|_, noted, _| noted.waiting = 7, "parcels that wait: 7, expected 0");
        // Lost, doubled, accepted though it was forged, and one for another.
        check(|sent, _, _| sent.regions[0].events = 3, "arrived at region-0: 2, expected 3");
        check(|_, _, books| assert!(books.take(1, "m3.0/".into())), "arrived at region-1: 2, expected 1");
        check(|_, _, books| assert!(!books.take(1, "m2.0/".into())), "again at region-1: 1, expected 0");
        check(|_, _, books| assert!(!books.take(1, "fm2.0/".into())), "forged events that arrived: 1");
        check(|sent, _, _| sent.regions[1].digest += 1, "digest of the events at region-1");
        check(|_, _, books| books.unsigned = 1, "wrong signature");
        check(|_, _, books| books.strangers = 1, "belong elsewhere");
    }

    #[test]
    fn what_had_no_answer_may_have_been_accepted_or_not_and_no_more() {
        let check = |accepted, events: &[&str], faults: usize| {
            let (mut sent, mut noted, mut books) = balanced();
            (sent.unanswered, sent.regions[1].open, noted.accepted) = (2, 1, accepted);
            events.iter().for_each(|event| assert!(books.take(1, (*event).to_owned())));
            assert_eq!(compare(&sent, noted, &books).len(), faults, "{accepted} {events:?}");
        };
        check(4, &[], 0);
        check(6, &["m3.0/"], 0);
        check(7, &[], 1);
        check(3, &[], 1);
        check(4, &["m3.0/", "m4.0/"], 1);
    }

    #[test]
    fn lives_of_the_gateway_add_up() {
        let pages = [PAGE.replace("r\"} 0", "r\"} 9"), PAGE.to_owned()];
        let expected = Noted { accepted: 8, bad_signature: 4, duplicates: 2, waiting: 0 };
        assert_eq!(Noted::read(&pages), expected);
    }

    #[test]
    fn summary_is_read_with_the_thresholds_that_did_not_hold() {
        let summary = serde_json::json!({"metrics": {
            "penstock_accepted": {"count": 7, "rate": 1.5},
            "penstock_events_region_1": {"count": 9, "rate": 1.5},
            "penstock_answer": {"med": 1.5, "p(99)": 9.0, "max": 11.0, "thresholds": {"med<=250": false}},
            "dropped_iterations": {"count": 3, "rate": 0.1, "thresholds": {"count==0": true}},
        }});
        let sent = Sent::of(&summary, 2);
        assert_eq!((sent.accepted, sent.due(), sent.regions[1].events), (7, 9, 9));
        assert_eq!((sent.times, sent.crossed.len()), ([1.5, 9.0, 11.0], 1));
        assert!(
            sent.crossed[0].starts_with("dropped_iterations")
                && sent.crossed[0].ends_with("expected count==0")
        );
    }
}
