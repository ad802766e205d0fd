//! Whoever writes to a region that works off a backlog.

use super::*;

impl Desk {
    fn push_live(&mut self, lsn: u64, conversations: &[u64]) {
        self.book.push(Item { lsn, live: true, ..Item::default() }, conversations, || None);
    }

    /// Starts and delivers so many; how many of them were of conversations from 1000 on.
    fn work(&mut self, starts: usize) -> usize {
        let mut young = 0;
        for _ in 0..starts {
            let Some((id, item)) = self.next() else { break };
            young += usize::from(item.lsn >= 1_000);
            self.deliver(id);
        }
        young
    }
}

#[test]
fn who_writes_now_and_the_backlog_share_a_region_and_nothing_is_kept_free() {
    let mut desk = Desk::new(Rules { window: 400, ..rules() });
    (0..100).for_each(|n| desk.push(n, &[n]));
    (0..40).for_each(|n| desk.push_live(1_000 + n, &[1_000 + n]));
    assert_eq!(desk.work(50), 35);
    // The other five, and then the backlog alone.
    assert_eq!(desk.work(50), 5);
    assert!(desk.book.len() == 40 && desk.work(40) == 0);
    (0..20).for_each(|n| desk.push_live(2_000 + n, &[n]));
    assert_eq!(desk.work(20), 20);
}

#[test]
fn a_conversation_keeps_its_order_whatever_its_parcels_count_as() {
    let mut desk = Desk::new(rules());
    desk.push(1, &[7]);
    desk.push_live(1_000, &[7]);
    desk.push(2, &[8]);
    let (first, item) = desk.next().unwrap();
    assert_eq!(item.lsn, 1, "the young one stands behind it");
    assert_eq!(desk.next().unwrap().1.lsn, 2);
    assert!(desk.next().is_none());
    desk.deliver(first);
    assert_eq!(desk.next().unwrap().1.lsn, 1_000);
}

#[test]
fn what_failed_is_backlog_and_holds_up_its_own_conversation_alone() {
    let mut desk = Desk::new(Rules { window: 80, ..rules() });
    desk.push_live(1_000, &[7]);
    let (id, _) = desk.next().unwrap();
    desk.fail(id, 500);
    (0..100).for_each(|n| desk.push_live(2_000 + n, &[7]));
    assert!(desk.book.has_fresh_room(), "what is blocked takes no room from others");
    desk.pass(SECOND * 3);
    (0..9).for_each(|n| desk.push_live(3_000 + n, &[100 + n]));
    let started: Vec<u64> = (0..3).map(|_| desk.next().unwrap().1.lsn).collect();
    assert_eq!(started, [3_000, 1_000, 3_001], "it comes as backlog, in its turn");
}

#[test]
fn fresh_parcels_have_room_beside_a_full_window_and_no_more_than_that() {
    let mut desk = Desk::new(Rules { window: 80, ..rules() });
    (0..80).for_each(|n| desk.push(n, &[n]));
    assert!(desk.book.full() && desk.book.has_fresh_room());
    let room = (0..100).take_while(|n| {
        let room = desk.book.has_fresh_room();
        if room {
            desk.push_live(1_000 + n, &[1_000 + n]);
        }
        room
    });
    assert_eq!(room.count(), 10);
    assert!(desk.book.full());
    // Fresh ones that have left make no room for the backlog, and the backlog's none for them.
    assert_eq!(desk.work(10), 7);
    assert!(desk.book.has_fresh_room() && !desk.book.full());
    (0..3).for_each(|n| desk.push(100 + n, &[100 + n]));
    assert!(desk.book.full());
}

#[test]
fn what_comes_while_the_region_is_down_is_backlog() {
    let mut desk = Desk::new(Rules { window: 400, ..rules() });
    desk.break_it(0);
    assert!(!desk.book.has_fresh_room());
    let before = desk.book.len();
    (0..10).for_each(|n| desk.push_live(1_000 + n, &[1_000 + n]));
    assert_eq!((desk.book.lanes.fresh_len(), desk.book.len()), (0, before + 10));
}
