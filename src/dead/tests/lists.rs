//! Lists, filters, and what becomes of letters.

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::dead::State;
use crate::dead::words::{self, Wanted};

#[test]
fn letters_are_found_by_what_is_known_of_them() {
    let mut ground = Ground::with(3);
    let other = Letter {
        source: name_id("other"),
        last: Failure { reason: Reason::Window, status: 0, attempts: 2, at_ms: 1_795_000_000_000 },
        record: webhook("+1 (555) 123-4567", "{}"),
        ..letter(4)
    };
    let id = ground.graves.name(other.last.at_ms);
    ground.graves.bury("us", &[(id, &other)]).unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_000 + 3_600_000);
    let check = |ground: &Ground, wanted: Wanted, expected: &[u64]| {
        let (mut filter, user) = wanted.filter(now).unwrap();
        filter.user = user.map(|user| ground.graves.user(&user));
        let ids = ground.graves.matched(&filter).unwrap();
        let lsns: Vec<u64> = ground.graves.cards(&ids).unwrap().iter().map(|card| card.lsn).collect();
        assert_eq!(lsns, expected, "{wanted:?}");
    };
    let all = Wanted::default;
    let text = |text: &str| Some(text.to_owned());
    check(&ground, all(), &[1, 2, 3, 4]);
    check(&ground, Wanted { region: text("us"), ..all() }, &[4]);
    check(&ground, Wanted { region: text("asia"), ..all() }, &[]);
    check(&ground, Wanted { source: text("main"), ..all() }, &[1, 2, 3]);
    check(&ground, Wanted { since: text("2h"), ..all() }, &[4]);
    check(&ground, Wanted { until: text("2h"), ..all() }, &[1, 2, 3]);
    check(&ground, Wanted { until: text("2026-09-21T14:13:20.002Z"), ..all() }, &[1]);
    check(&ground, Wanted { since: text("2026-09-21T14:13:20.002Z"), region: text("eu"), ..all() }, &[2, 3]);
    check(&ground, Wanted { reason: text("window"), ..all() }, &[4]);
    check(&ground, Wanted { status: Some(422), ..all() }, &[1, 2, 3]);
    check(&ground, Wanted { user: text("+49 171 392-00002"), ..all() }, &[2]);
    check(&ground, Wanted { user: text("15551234567"), ..all() }, &[4]);
    check(&ground, Wanted { user: text("4917139200"), ..all() }, &[]);
    check(&ground, Wanted { id: vec![id.0.to_string()], ..all() }, &[4]);
    check(&ground, Wanted { after: text(&ground.ids()[1].0.to_string()), ..all() }, &[3, 4]);
    let second = ground.ids()[1];
    ground.change(What::Ordered { rate: 5 }, second);
    for _ in 0..2 {
        check(&ground, Wanted { state: text("ordered"), ..all() }, &[2]);
        check(&ground, Wanted { state: text("waiting"), ..all() }, &[1, 3, 4]);
        ground.again();
    }
}

#[test]
fn words_that_cannot_be_used_are_refused_with_what_to_write() {
    let check = |wanted: Wanted, part: &str| {
        let said = wanted.filter(SystemTime::now()).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(Wanted { since: text("soon"), ..Wanted::default() }, "2h");
    check(Wanted { reason: text("bored"), ..Wanted::default() }, "refused");
    check(Wanted { state: text("gone"), ..Wanted::default() }, "ordered");
    check(Wanted { id: vec!["x".to_owned()], ..Wanted::default() }, "penstock dead list");
}

#[test]
fn users_are_shown_as_hashes_of_this_folder_alone() {
    let (here, there) = (Ground::with(1), Ground::with(1));
    let shown = |ground: &Ground| words::shown(&ground.cards()[0], &|_| None).to_string();
    assert!(!shown(&here).contains("4917139200001"), "{}", shown(&here));
    let users = |ground: &Ground| ground.cards()[0].users.clone();
    assert_ne!(users(&here), users(&there));
    assert_eq!(users(&here), [here.graves.user("4917139200001")]);
    // The index is what is read for lists.
    let index = std::fs::read(here.file("index")).unwrap();
    assert!(!index.windows(13).any(|bytes| bytes == b"4917139200001"));
}

#[test]
fn what_was_decided_stays_decided() {
    let mut ground = Ground::with(4);
    let ids = ground.ids();
    assert_eq!(ground.change(What::Dropped, ids[0]), 1);
    assert_eq!(ground.change(What::Replayed, ids[0]), 0, "dropped is dropped");
    assert_eq!(ground.change(What::Ordered { rate: 7 }, ids[1]), 1);
    assert_eq!(ground.change(What::Ordered { rate: 7 }, ids[1]), 0, "ordered twice is ordered once");
    assert_eq!(ground.change(What::Replayed, ids[1]), 1);
    assert_eq!(ground.change(What::Ordered { rate: 7 }, ids[1]), 0, "the region has it");
    let again = Failure { reason: Reason::Attempts, status: 500, attempts: 9, at_ms: 1_799_000_000_000 };
    ground.change(What::Ordered { rate: 7 }, ids[2]);
    assert_eq!(ground.change(What::Failed(again), ids[2]), 1);
    ground.change(What::Ordered { rate: 7 }, ids[3]);
    assert_eq!(ground.change(What::Kept, ids[3]), 1);
    for _ in 0..2 {
        assert_eq!(ground.ids(), ids[2..]);
        let cards = ground.cards();
        assert_eq!((cards[0].state, cards[0].last), (State::Waiting, again));
        assert_eq!((cards[1].state, cards[1].last.attempts), (State::Waiting, 5));
        assert_eq!(ground.graves.ordered(), []);
        ground.again();
    }
}

/// `PENSTOCK_LETTERS=1000000` for the promised size.
#[test]
fn a_million_letters_are_listed_within_a_second() {
    let count: u64 = std::env::var("PENSTOCK_LETTERS").map_or(20_000, |text| text.parse().unwrap());
    let mut ground = Ground::new();
    let record = webhook("4917139200992", &"x".repeat(300));
    for from in (0..count).step_by(10_000) {
        let letters: Vec<Letter> = (from..(from + 10_000).min(count))
            .map(|n| Letter {
                lsn: n,
                last: Failure { at_ms: 1_790_000_000_000 + n, ..letter(0).last },
                conversations: vec![n],
                record: record.clone(),
                ..letter(0)
            })
            .collect();
        let named: Vec<_> = letters.iter().map(|l| (ground.graves.name(l.last.at_ms), l)).collect();
        ground.graves.bury("eu", &named).unwrap();
    }
    let start = Instant::now();
    ground.again();
    let opened = start.elapsed();
    let ids = ground.graves.matched(&Filter { status: Some(422), ..Filter::default() }).unwrap();
    let cards = ground.graves.cards(&ids[..100]).unwrap();
    let listed = start.elapsed();
    assert_eq!((ids.len() as u64, cards.len()), (count, 100));
    println!("{count} letters: read in {opened:?}, read and listed in {listed:?}");
    // Five times what it should be, for a machine that is busy with other tests.
    assert!(listed < Duration::from_secs(5), "{listed:?}");
}
