//! What the keeper makes of orders that come together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::*;
use crate::dead::keeper::{Keeper, Moment};
use crate::dead::office::Deed;
use crate::dead::{Desk, Filter, Held, Office, Start, Way};
use crate::journal::JournalId;

const UNIX_MS: u64 = 1_791_000_000_000;

/// A keeper of one region's letters, one core's desk, and what orders by hand.
struct Room {
    keeper: Keeper,
    desk: Desk,
    office: Office,
    now: Instant,
}

impl Room {
    fn start(folder: &Path, unsettled: &dyn Fn(&JournalId, u64, u16) -> bool) -> Self {
        let way = Way { id: name_id("eu"), name: "eu".to_owned(), core: 0 };
        let start = Start {
            graves: Graves::open(folder, false).unwrap(),
            regions: vec![way],
            forward_cores: 1,
            unsettled,
            cells: Arc::default(),
        };
        let now = Instant::now();
        let (keeper, mut desks, office) = Keeper::new(start, now).unwrap();
        Self { keeper, desk: desks.remove(0), office, now }
    }

    fn new(folder: &Path, letters: u64) -> Self {
        let mut room = Self::start(folder, &|_, _, _| false);
        // Ordered, and not waited for.
        (0..letters).for_each(|n| assert!(room.desk.bury(letter(n)).now_or_never().is_none()));
        room.turn(Duration::ZERO);
        room
    }

    fn turn(&mut self, later: Duration) {
        self.now += later;
        self.keeper.turn(Moment { now: self.now, unix_ms: UNIX_MS }).unwrap();
    }

    fn act(&mut self, deed: Deed) {
        assert!(self.office.act(deed, Filter::default(), None, false).now_or_never().is_none());
        self.turn(Duration::ZERO);
    }

    /// Letters that were sent to the core.
    fn sent(&self) -> Vec<LetterId> {
        std::iter::from_fn(|| self.desk.replay()).map(|replay| replay.id).collect()
    }
}

#[test]
fn letters_of_which_no_parcel_can_be_made_do_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut room = Room::new(folder.path(), 100);
    room.act(Deed::Replay { rate: u32::MAX });
    let first = room.sent();
    assert_eq!(first.len(), 64, "so many at once");
    first.iter().for_each(|id| room.desk.take_back(*id));
    room.turn(Duration::ZERO);
    assert_eq!(room.sent().len(), 36);
    let mut list = std::pin::pin!(room.office.list(Filter::default(), None, 1));
    assert!(list.as_mut().now_or_never().is_none());
    room.keeper.turn(Moment { now: room.now, unix_ms: UNIX_MS }).unwrap();
    assert_eq!(list.now_or_never().unwrap().unwrap().count, 100, "they stay letters");
}

#[test]
fn a_letter_that_is_dropped_or_replayed_stays_until_its_parcel_is_settled() {
    for replayed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("dead/eu/00000001.letters");
        // A crash came between the letter of one of them and its mark.
        drop(Room::new(folder.path(), 2));
        let unsettled = |_: &JournalId, lsn, _| lsn == 1;
        for start in 1..=2 {
            let mut room = Room::start(folder.path(), &unsettled);
            assert_eq!(room.desk.held(&[7; 16], 0, 0), None);
            assert_eq!(room.desk.held(&[7; 16], 1, 0), Some(&Held::Whole), "start {start}");
            if replayed {
                room.act(Deed::Replay { rate: u32::MAX });
                room.sent().iter().for_each(|id| room.desk.replayed(*id));
            } else {
                room.act(Deed::Drop);
            }
            (0..10).for_each(|_| room.turn(Duration::from_secs(60)));
            assert!(first.exists(), "start {start}, replayed: {replayed}");
        }
        // The mark is there.
        let mut room = Room::start(folder.path(), &|_, _, _| false);
        room.turn(Duration::from_secs(70));
        assert!(!first.exists(), "replayed: {replayed}");
    }
}

#[test]
fn letters_that_are_ordered_anew_go_at_the_new_rate() {
    let folder = tempfile::tempdir().unwrap();
    let mut room = Room::new(folder.path(), 10);
    room.act(Deed::Replay { rate: 1_000 });
    assert_eq!(room.sent().len(), 1);
    room.act(Deed::Keep);
    room.act(Deed::Replay { rate: 2 });
    let mut sent = 0;
    for _ in 0..100 {
        room.turn(Duration::from_millis(10));
        sent += room.sent().len();
    }
    assert!((1..=3).contains(&sent), "{sent} in a second");
}

#[test]
fn a_gap_that_was_told_does_not_cover_a_letter_that_comes_with_the_word() {
    let folder = tempfile::tempdir().unwrap();
    let way = Way { id: name_id("eu"), name: "eu".to_owned(), core: 0 };
    let start = Start {
        graves: Graves::open(folder.path(), false).unwrap(),
        regions: vec![way],
        forward_cores: 1,
        unsettled: &|_, _, _| false,
        cells: Arc::default(),
    };
    let now = Instant::now();
    let (mut keeper, desks, _office) = Keeper::new(start, now).unwrap();
    let at = Moment { now, unix_ms: 1_791_000_000_000 };
    let of = |n| Letter { conversations: vec![5], ..letter(n) };
    // Ordered, and not waited for.
    assert!(desks[0].bury(of(1)).now_or_never().is_none());
    keeper.turn(at).unwrap();
    desks[0].gap_told(name_id("eu"), 5);
    assert!(desks[0].bury(of(2)).now_or_never().is_none());
    keeper.turn(at).unwrap();
    assert!(keeper.is_idle() && desks[0].idle());
    let again = Graves::open(folder.path(), false).unwrap();
    let gaps: Vec<_> = again.gaps().map(|(_, conversation, gap)| (conversation, gap.count)).collect();
    assert_eq!(gaps, [(5, 1)]);
}
