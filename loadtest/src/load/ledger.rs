//! What was sent, what the server says it took, and what arrived: do they fit together?

use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use crate::gateway::{outcome, total};
use crate::generator::Sent;

/// The gateway's own counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Page {
    pub accepted: u64,
    /// Events dropped as repeats.
    pub duplicates: u64,
    /// Parcels that wait now.
    pub waiting: u64,
}

impl Page {
    pub fn read(page: &str) -> Self {
        Self {
            accepted: outcome(page, "accepted"),
            duplicates: total(page, "penstock_duplicates_total") as u64,
            waiting: total(page, "penstock_backlog_parcels") as u64,
        }
    }

    pub fn since(self, earlier: &Self) -> Self {
        Self {
            accepted: self.accepted.saturating_sub(earlier.accepted),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            waiting: self.waiting,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Answered 200, answered otherwise, and not answered.
    pub ok: u64,
    pub other: u64,
    pub unanswered: u64,
    /// Sent before.
    pub again: u64,
    /// Every webhook is one parcel.
    pub single: bool,
    /// No region failed on purpose, so nothing has a reason to come twice.
    pub calm: bool,
    pub page: Option<Page>,
    /// Parcels that arrived, and those that came again.
    pub arrived: Option<[u64; 2]>,
}

impl Ledger {
    /// Once the load has ended.
    pub fn of(sent: &Sent, single: bool, calm: bool) -> Self {
        Self {
            ok: sent.ok.load(Relaxed),
            other: sent.other.load(Relaxed),
            unanswered: sent.failed.load(Relaxed),
            again: sent.again.load(Relaxed) + sent.repeated.load(Relaxed),
            single,
            calm,
            page: None,
            arrived: None,
        }
    }

    /// What does not fit, each in a sentence.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut between = |what: &str, found: u64, least: u64, most: u64| {
            if found < least || found > most {
                let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
                faults.push(format!("{what}: {found}, expected {expected}"));
            }
        };
        // What has no answer may have been taken all the same; what repeats it is then no repeat.
        let unsure = self.other + self.unanswered;
        if let Some(page) = self.page {
            between("webhooks that the server accepted", page.accepted, self.ok, self.ok + self.unanswered);
            if self.arrived.is_some() {
                between("parcels that wait", page.waiting, 0, 0);
            }
            if self.single && unsure == 0 {
                between("repeats that the server dropped", page.duplicates, self.again, self.again);
            }
        }
        if let Some([distinct, twice]) = self.arrived {
            if self.single {
                let least = self.ok.saturating_sub(self.again);
                let most = if unsure == 0 { least } else { self.ok + self.unanswered };
                between("parcels that arrived", distinct, least, most);
            }
            if self.calm {
                between("parcels that arrived again", twice, 0, 0);
            }
        }
        faults
    }

    pub fn text(&self) -> String {
        let Self { ok, other, unanswered, again, .. } = self;
        let mut text =
            format!("ledger   {ok} answered 200, {other} otherwise, {unanswered} not; {again} were repeats");
        if let Some(page) = self.page {
            text += &format!("; the server accepted {} and dropped {}", page.accepted, page.duplicates);
        }
        if let Some([distinct, twice]) = self.arrived {
            text += &format!("; {distinct} parcels arrived, {twice} again");
        }
        let verdict = match (self.page, self.arrived) {
            (None, None) => "nobody to compare with",
            _ if self.faults().is_empty() => "balances",
            _ => "DOES NOT BALANCE",
        };
        format!("{text}: {verdict}")
    }

    pub fn json(&self) -> Value {
        json!({
            "answered_200": self.ok, "answered_otherwise": self.other, "unanswered": self.unanswered,
            "repeats": self.again,
            "server_accepted": self.page.map(|page| page.accepted),
            "server_dropped": self.page.map(|page| page.duplicates),
            "arrived": self.arrived.map(|arrived| arrived[0]),
            "arrived_again": self.arrived.map(|arrived| arrived[1]),
            "faults": self.faults(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(accepted: u64, duplicates: u64, arrived: u64) -> Ledger {
        Ledger {
            ok: 100,
            again: 10,
            single: true,
            calm: true,
            page: Some(Page { accepted, duplicates, waiting: 0 }),
            arrived: Some([arrived, 0]),
            ..Ledger::default()
        }
    }

    #[test]
    fn every_webhook_must_be_accepted_and_arrive_once() {
        let check = |ledger: Ledger, faults: &[&str]| {
            let found = ledger.faults();
            assert_eq!(found.len(), faults.len(), "{found:?}");
            assert!(found.iter().zip(faults).all(|(found, fault)| found.contains(fault)), "{found:?}");
            assert_eq!(ledger.text().ends_with(": balances"), faults.is_empty());
        };
        check(ledger(100, 10, 90), &[]);
        check(ledger(99, 10, 90), &["accepted: 99, expected 100"]);
        check(ledger(100, 9, 91), &["dropped: 9", "arrived: 91, expected 90"]);
        check(ledger(100, 10, 89), &["arrived: 89"]);
        check(Ledger { arrived: Some([90, 2]), ..ledger(100, 10, 90) }, &["arrived again: 2"]);
        check(Ledger { arrived: Some([90, 2]), calm: false, ..ledger(100, 10, 90) }, &[]);
    }

    #[test]
    fn what_had_no_answer_may_have_arrived_or_not() {
        let ledger = |arrived| Ledger { unanswered: 3, ..ledger(102, 12, arrived) };
        assert!(ledger(90).faults().is_empty() && ledger(93).faults().is_empty());
        assert_eq!((ledger(89).faults().len(), ledger(104).faults().len()), (1, 1));
    }
}
