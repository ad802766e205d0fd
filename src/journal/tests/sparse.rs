//! Which segments are thinned, and when.

use super::super::account::{Account, KEEP, PATIENCE, QUIET, Start, Wrote};
use super::super::{Mark, Position, Settled};

const ID: [u8; 16] = [7; 16];
/// Parcels of a segment here.
const PARCELS: u64 = 64;

/// One journal, everything in it archived.
struct Journal {
    account: Account,
    segments: u64,
}

impl Journal {
    fn new() -> Self {
        let start = Start {
            id: ID,
            written: true,
            spans: Vec::new(),
            listed: Vec::new(),
            open: Default::default(),
            floor: None,
            next_lsn: 0,
            next_frame: 1,
        };
        Self { account: Account::new(vec![start]), segments: 0 }
    }

    /// Writes so many segments in which all waits.
    fn grow(&mut self, segments: u64) {
        for _ in 0..segments {
            let first = self.segments * PARCELS;
            self.account.wrote(&Wrote {
                journal: ID,
                position: Position::new(self.segments, 8192),
                next: Position::new(self.segments, 16384),
                first_lsn: first,
                records: PARCELS as u32,
                first_entry: first,
                entries: PARCELS as u32,
                ..Wrote::default()
            });
            self.segments += 1;
        }
    }

    /// Of the first segment only the last so many parcels wait now.
    fn leave(&mut self, waiting: u64) {
        let settled =
            (0..PARCELS - waiting).map(|lsn| Mark { lsn, slot: 0, outcome: Settled::Delivered, tag: 0 });
        self.account.wrote(&Wrote {
            journal: ID,
            position: Position::new(self.segments - 1, 16384),
            next: Position::new(self.segments - 1, 20480),
            first_lsn: self.segments * PARCELS,
            marks: vec![(ID, settled.collect())],
            ..Wrote::default()
        });
    }

    /// Whether the first segment would be thinned now; if so, it is.
    fn thins(&mut self, short: bool) -> bool {
        let plan = self.account.plan(|_| Position::new(u64::from(u32::MAX), 0), short);
        for drop in &plan.drops {
            plan.lists.iter().for_each(|(journal, number)| self.account.listed(*journal, *number));
            let floor = self.account.floor(drop);
            self.account.dropped(drop, &floor);
        }
        plan.drops.iter().any(|drop| drop.thin == [0])
    }
}

#[test]
fn segment_in_which_little_waits_is_thinned_when_it_has_been_quiet() {
    let mut journal = Journal::new();
    journal.grow(PATIENCE as u64 + 1);
    journal.leave(5);
    journal.grow(QUIET);
    assert!(!journal.thins(false), "more than one parcel in sixteen waits");
    journal.leave(4);
    assert!(!journal.thins(false), "it is being settled");
    journal.grow(QUIET - 1);
    assert!(!journal.thins(false), "it is being settled");
    journal.grow(1);
    assert!(journal.thins(false), "it is sparse and quiet");
    assert!(!journal.thins(false), "nothing more of it can go");
}

#[test]
fn where_space_is_short_what_pays_is_thinned_at_once() {
    let mut journal = Journal::new();
    journal.grow(KEEP as u64 + 1);
    journal.leave(17);
    assert!(!journal.thins(true), "more than one parcel in four waits");
    journal.leave(16);
    assert!(!journal.thins(false), "it is being settled, and space is not short");
    assert!(journal.thins(true));
    journal.leave(5);
    assert!(!journal.thins(true), "too little of it can go");
    journal.leave(4);
    assert!(journal.thins(true));
}
