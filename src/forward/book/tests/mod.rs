mod share;
mod sim;

use super::*;
use crate::dead::{Gap, LetterId};
use crate::forward::item::DEAD_LETTERS;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn rules() -> Rules {
    Rules {
        in_flight: 4,
        timeout: Duration::from_secs(10),
        rate: 0,
        retry: Retry::default(),
        window: 8,
        kept: 4,
    }
}

/// A book and its clock.
struct Desk {
    book: Book,
    now: Instant,
}

impl Desk {
    fn new(rules: Rules) -> Self {
        let now = Instant::now();
        Self { book: Book::new(rules, 1, now), now }
    }

    fn push(&mut self, lsn: u64, conversations: &[u64]) {
        self.book
            .push(Item { lsn, ..Item::default() }, conversations, || Some(Bytes::from_static(b"record")));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.book.tick(self.now);
    }

    fn next(&mut self) -> Option<(ParcelId, Item)> {
        match self.book.next(self.now)? {
            (id, Errand::Try(item)) => Some((id, item)),
            (_, Errand::Bury(item, death)) => panic!("{item:?} died: {death:?}"),
        }
    }

    fn deliver(&mut self, id: ParcelId) -> Done {
        self.book.done(id, Verdict::Delivered, self.now, self.now + MS)
    }

    fn fail(&mut self, id: ParcelId, status: u16) -> Done {
        self.refuse(id, Failed { status, asked: None, uncertain: false })
    }

    fn refuse(&mut self, id: ParcelId, failed: Failed) -> Done {
        self.book.done(id, Verdict::Failed(failed), self.now, self.now + MS)
    }

    /// Others go through.
    fn healthy(&mut self, parcels: u64) {
        for n in 0..parcels {
            self.push(1_000_000 + n, &[1_000_000 + n % 100]);
            let (id, _) = self.next().expect("a healthy parcel may start");
            self.deliver(id);
        }
    }

    /// Fails fresh parcels until the breaker is open.
    fn break_it(&mut self, status: u16) {
        for n in 0..200 {
            self.push(2_000_000 + n, &[2_000_000 + n]);
            let Some((id, _)) = self.next() else { break };
            self.fail(id, status);
        }
        assert_eq!(self.book.state(), State::Open);
    }
}

const DELIVERED: Done = Done::Delivered { mark: Some(Settled::Delivered), told: Vec::new() };

#[test]
fn parcel_that_waits_takes_little_memory() {
    // With 24 bytes of its slot and 20 for its place in one lane: 84 for each that is blocked.
    assert_eq!(size_of::<Held>(), 40);
    assert_eq!(size_of::<Option<Held>>(), 40);
}

#[test]
fn quarantined_parcel_is_buried_in_its_turn_and_never_tried() {
    let mut desk = Desk::new(rules());
    desk.push(1, &[7]);
    let quarantined = Item { lsn: 2, quarantined: true, ..Item::default() };
    desk.book.push(quarantined, &[7, 8], || None);
    desk.push(3, &[8]);
    let (first, _) = desk.next().unwrap();
    assert!(desk.book.next(desk.now).is_none(), "its turn has not come");
    desk.deliver(first);
    let Some((id, Errand::Bury(item, death))) = desk.book.next(desk.now) else { panic!("not buried") };
    assert_eq!((item.lsn, death.reason, death.first_tried), (2, Reason::Quarantined, None));
    assert!(desk.book.next(desk.now).is_none(), "the next waits until the letter is durable");
    assert_eq!(desk.book.buried(id, LetterId(9)), Some(Settled::Dead));
    let (_, next) = desk.next().unwrap();
    assert_eq!((next.lsn, next.gap), (3, 1));
}

#[test]
fn quarantined_parcel_is_no_probe() {
    let mut desk = Desk::new(rules());
    desk.break_it(500);
    desk.book.push(Item { lsn: 2, quarantined: true, ..Item::default() }, &[7], || None);
    let mut buried = 0;
    for _ in 0..1000 {
        desk.pass(100 * MS);
        match desk.book.next(desk.now) {
            Some((id, Errand::Try(item))) => {
                assert_ne!(item.lsn, 2);
                desk.fail(id, 500);
            }
            Some((id, Errand::Bury(item, _))) => {
                assert_eq!(item.lsn, 2);
                desk.book.buried(id, LetterId(9));
                buried += 1;
            }
            None => {}
        }
    }
    assert_eq!(buried, 1);
}

#[test]
fn what_is_blocked_takes_no_room_from_others() {
    let mut desk = Desk::new(rules());
    desk.healthy(30);
    desk.push(0, &[7]);
    let (id, _) = desk.next().unwrap();
    desk.fail(id, 500);
    for lsn in 1..=100 {
        assert!(!desk.book.full(), "{lsn} parcels behind a failing one");
        desk.push(lsn, &[7]);
        assert!(desk.book.has_room(), "{lsn}");
    }
    assert_eq!((desk.book.len(), desk.book.blocked_len()), (101, 100));
    desk.push(200, &[8]);
    assert_eq!(desk.next().unwrap().1.lsn, 200);
    // They are not without bound either, and count like others once the region itself is out.
    (101..=127).for_each(|lsn| desk.push(lsn, &[7]));
    assert!(!desk.book.full());
    desk.push(128, &[7]);
    assert!(desk.book.full());
}

#[test]
fn blocked_parcels_count_while_the_region_is_out() {
    let mut desk = Desk::new(rules());
    desk.healthy(30);
    desk.push(0, &[7]);
    let (id, _) = desk.next().unwrap();
    desk.fail(id, 500);
    (1..=20).for_each(|lsn| desk.push(lsn, &[7]));
    assert!(!desk.book.full());
    desk.break_it(500);
    assert!(desk.book.full());
}

#[test]
fn records_are_kept_for_what_goes_out_soon() {
    let mut desk = Desk::new(rules());
    desk.push(0, &[1]);
    assert!(desk.next().unwrap().1.record.is_some());
    (1..=8).for_each(|lsn| desk.push(lsn, &[lsn + 100]));
    assert_eq!(desk.book.records.len(), 3, "as many as `kept` says, the one under way counts");
    desk.break_it(500);
    assert!(desk.book.records.is_empty(), "an outage costs disk and not memory");
    desk.push(9, &[9]);
    assert!(desk.book.records.is_empty());
}

#[test]
fn at_most_in_flight_tries_at_once() {
    let mut desk = Desk::new(rules());
    (0..8).for_each(|lsn| desk.push(lsn, &[lsn]));
    assert_eq!(desk.book.startable(desk.now), 4);
    let ids: Vec<ParcelId> = std::iter::from_fn(|| desk.next().map(|(id, _)| id)).collect();
    assert_eq!((ids.len(), desk.book.busy(), desk.book.startable(desk.now)), (4, 4, 0));
    assert_eq!(desk.deliver(ids[2]), DELIVERED);
    assert_eq!(desk.next().unwrap().1.lsn, 4);
}

#[test]
fn while_the_core_gives_way_as_many_tries_begin_as_it_allows() {
    let mut desk = Desk::new(Rules { in_flight: 3, ..rules() });
    (0..9).for_each(|lsn| desk.push(lsn, &[lsn]));
    desk.book.give_way(Some(2));
    assert_eq!(desk.book.startable(desk.now), 2);
    let (first, _) = desk.next().unwrap();
    assert!(desk.next().is_some() && desk.next().is_none());
    desk.deliver(first);
    assert!(desk.next().is_none() && desk.book.startable(desk.now) == 0);
    desk.book.give_way(Some(7));
    assert!(desk.next().is_some() && desk.next().is_some() && desk.next().is_none(), "three are under way");
    desk.book.give_way(None);
    assert_eq!(desk.book.trying(), 3);
}

#[test]
fn open_breaker_lets_probes_through_and_a_success_makes_all_due() {
    let mut desk = Desk::new(rules());
    desk.break_it(503);
    let waiting = desk.book.len();
    assert!(desk.next().is_none());
    desk.pass(SECOND * 2);
    assert_eq!((desk.book.state(), desk.book.startable(desk.now)), (State::HalfOpen, 1));
    let (id, _) = desk.next().unwrap();
    assert!(desk.next().is_none(), "one probe at once");
    desk.fail(id, 503);
    assert_eq!(desk.book.state(), State::Open);
    desk.pass(SECOND * 3);
    let mut taken = 0;
    while desk.book.state() != State::Closed {
        let probes: Vec<ParcelId> = std::iter::from_fn(|| desk.next().map(|(id, _)| id)).collect();
        assert!(!probes.is_empty() && probes.len() <= 4, "{} probes", probes.len());
        taken += probes.len();
        for id in probes {
            desk.deliver(id);
        }
    }
    assert!((9..=12).contains(&taken), "{taken} probes, expected 1, 3 and 5");
    desk.pass(MS);
    assert_eq!(desk.book.limit(), 1, "slowly at first");
    assert_eq!(desk.book.lanes.ready_len(), (waiting - taken).min(50), "the budget holds");
}

#[test]
fn what_failed_before_an_outage_is_due_at_its_end() {
    let mut desk = Desk::new(rules());
    desk.push(0, &[0]);
    let (id, _) = desk.next().unwrap();
    desk.refuse(id, Failed { status: 500, asked: Some(SECOND * 3_000), uncertain: false });
    desk.break_it(503);
    for _ in 0..200 {
        desk.pass(MS * 100);
        while let Some((id, item)) = desk.next() {
            desk.deliver(id);
            if item.lsn == 0 {
                return;
            }
        }
    }
    panic!("it waits on");
}

#[test]
fn wish_of_the_region_holds_everything_and_is_bounded() {
    for (asked, expected) in [(0, 1), (3, 3), (86_400, 3_600)] {
        let mut desk = Desk::new(rules());
        (0..4).for_each(|lsn| desk.push(lsn, &[lsn]));
        let (id, _) = desk.next().unwrap();
        let asked = Some(Duration::from_secs(asked));
        desk.refuse(id, Failed { status: 429, asked, uncertain: false });
        assert_eq!((desk.book.state(), desk.next().is_none()), (State::Open, true));
        if expected > 10 {
            desk.pass(SECOND * (expected / 2 + 1));
            let (probe, _) = desk.next().expect("one probe halfway");
            desk.fail(probe, 503);
        } else {
            desk.pass(SECOND * expected - MS * 5);
        }
        assert!(desk.next().is_none(), "{asked:?}");
        desk.pass(SECOND * (expected / 2 + 1));
        assert!(desk.next().is_some(), "{asked:?}");
    }
}

#[test]
fn wish_in_other_answers_holds_only_its_parcel() {
    let mut desk = Desk::new(rules());
    desk.push(0, &[0]);
    let (id, _) = desk.next().unwrap();
    desk.refuse(id, Failed { status: 500, asked: Some(SECOND * 60), uncertain: false });
    desk.healthy(100);
    desk.pass(SECOND * 59);
    assert!(desk.next().is_none());
    desk.pass(SECOND * 2);
    assert_eq!(desk.next().unwrap().1.lsn, 0);
}

#[test]
fn gone_region_waits_for_a_probe() {
    let mut desk = Desk::new(rules());
    (0..6).for_each(|lsn| desk.push(lsn, &[lsn]));
    let (id, _) = desk.next().unwrap();
    desk.fail(id, 410);
    assert_eq!((desk.book.state(), desk.next().is_none()), (State::Paused, true));
    desk.pass(SECOND * 299);
    assert!(desk.next().is_none());
    desk.pass(SECOND * 2);
    let (id, item) = desk.next().unwrap();
    assert_eq!(item.lsn, 1, "another parcel than the one that was answered 410");
    assert!(desk.next().is_none());
    desk.fail(id, 410);
    assert_eq!(desk.book.state(), State::Paused);
    desk.pass(SECOND * 301);
    let (id, _) = desk.next().unwrap();
    desk.deliver(id);
    assert_eq!(desk.book.state(), State::HalfOpen);
}

#[test]
fn one_poison_answered_410_does_not_pause_its_region_for_ever() {
    let mut desk = Desk::new(rules());
    desk.healthy(100);
    desk.push(0, &[7]);
    let (id, _) = desk.next().unwrap();
    desk.fail(id, 410);
    desk.pass(SECOND * 301);
    desk.healthy(9);
    assert_eq!(desk.book.state(), State::Closed);
    // The first try after that may pause it again; from then on others are taken meanwhile.
    for _ in 0..10 {
        desk.pass(SECOND * 400);
        if let Some((id, item)) = desk.next() {
            assert_eq!(item.lsn, 0);
            desk.fail(id, 410);
        }
        if desk.book.state() == State::Paused {
            desk.pass(SECOND * 301);
        }
        desk.healthy(20);
    }
    desk.pass(SECOND * 20);
    assert_eq!(desk.book.state(), State::Closed);
}

#[test]
fn parcel_refused_twice_is_cut_and_its_parts_stand_in_its_place() {
    let mut desk = Desk::new(rules());
    desk.healthy(30);
    desk.push(0, &[1, 2, 3]);
    desk.push(1, &[2]);
    let (id, _) = desk.next().unwrap();
    assert_eq!(desk.fail(id, 500), Done::Again { cut: false });
    desk.pass(SECOND * 2);
    let (id, item) = desk.next().unwrap();
    assert_eq!((item.lsn, item.attempts), (0, 1));
    assert_eq!(desk.fail(id, 422), Done::Again { cut: true });
    let part = |number, conversations: &[u64], event: u32| Part {
        number,
        conversations: conversations.to_vec(),
        events: [event].into(),
    };
    assert!(
        !desk.book.split(id, vec![part(1, &[1], 0), part(2, &[2], 1)], &None, desk.now),
        "3 is in no part"
    );
    let parts = vec![part(1, &[1, 3], 0), part(2, &[2], 1)];
    assert!(desk.book.split(id, parts, &None, desk.now));
    desk.pass(MS);
    let tries: Vec<(ParcelId, Item)> = std::iter::from_fn(|| desk.next()).collect();
    let of = |number: u16| tries.iter().find(|(_, item)| item.part == number).unwrap().0;
    assert_eq!(tries.len(), 2, "the one behind waits");
    assert_eq!(desk.deliver(of(2)), Done::Delivered { mark: None, told: Vec::new() });
    assert_eq!(desk.next().unwrap().1.lsn, 1, "its conversation goes on");
    assert_eq!(desk.deliver(of(1)), DELIVERED, "the last part settles the parcel");
    assert!(desk.book.groups.is_empty() && desk.book.sides.is_empty());
}

#[test]
fn part_that_died_makes_its_parcel_a_dead_one_whoever_ends_last() {
    for dead_first in [true, false] {
        let mut desk = Desk::new(rules());
        desk.push(0, &[1, 2]);
        let (id, _) = desk.next().unwrap();
        desk.fail(id, 500);
        let part = |number: u16| Part {
            number,
            conversations: vec![u64::from(number)],
            events: [u32::from(number)].into(),
        };
        assert!(desk.book.split(id, vec![part(1), part(2)], &None, desk.now));
        desk.pass(MS);
        let [(one, _), (other, _)] = [desk.next().unwrap(), desk.next().unwrap()];
        if dead_first {
            assert_eq!(desk.book.buried(one, LetterId(9)), None);
            assert_eq!(desk.deliver(other), Done::Delivered { mark: Some(Settled::Dead), told: Vec::new() });
        } else {
            assert_eq!(desk.deliver(other), Done::Delivered { mark: None, told: Vec::new() });
            assert_eq!(desk.book.buried(one, LetterId(9)), Some(Settled::Dead));
        }
    }
}

#[test]
fn overload_and_silence_do_not_cut() {
    for status in [0, 408, 425, 429, 503] {
        let mut desk = Desk::new(rules());
        desk.healthy(30);
        desk.push(0, &[1, 2]);
        for _ in 0..4 {
            let (id, _) = desk.next().unwrap();
            assert_eq!(desk.fail(id, status), Done::Again { cut: false }, "{status}");
            desk.pass(SECOND * 60);
        }
    }
}

#[test]
fn gap_is_told_once_and_after_a_restart_too() {
    let mut desk = Desk::new(rules());
    desk.book.gap(7, Gap { since: LetterId(1), count: 2 });
    (0..3).for_each(|lsn| desk.push(lsn, &[7]));
    let (id, item) = desk.next().unwrap();
    assert_eq!(item.gap, 2);
    desk.fail(id, 500);
    desk.pass(SECOND * 2);
    let (id, item) = desk.next().unwrap();
    assert_eq!(item.gap, 2, "it was not delivered: not told");
    assert_eq!(desk.deliver(id), Done::Delivered { mark: Some(Settled::Delivered), told: vec![7] });
    assert_eq!(desk.next().unwrap().1.gap, 0);
}

#[test]
fn gap_shrinks_by_the_letters_that_went_out_again() {
    // Of letter 4 the region was told long ago.
    for (letters, gap) in [(vec![4], 2), (vec![4, 5], 1), (vec![5, 6], 0)] {
        let mut desk = Desk::new(rules());
        desk.book.gap(7, Gap { since: LetterId(5), count: 2 });
        for &lsn in &letters {
            desk.book.push(Item { journal: DEAD_LETTERS, lsn, ..Item::default() }, &[7], || None);
            let (id, item) = desk.next().unwrap();
            assert_eq!((item.letter(), item.gap), (Some(LetterId(lsn)), 0), "a letter tells of no gap");
            desk.deliver(id);
        }
        desk.push(1, &[7]);
        assert_eq!(desk.next().unwrap().1.gap, gap, "after {letters:?}");
    }
}

#[test]
fn rate_bounds_what_goes_out() {
    let mut desk = Desk::new(Rules { rate: 20, in_flight: 100, ..rules() });
    (0..100).for_each(|lsn| desk.push(lsn, &[lsn]));
    let mut out = 0;
    for _ in 0..100 {
        out += std::iter::from_fn(|| desk.next()).count();
        desk.pass(MS * 20);
    }
    assert!((39..=42).contains(&out), "{out} in 2 s at 20/s");
}

#[test]
fn what_could_not_be_begun_comes_again_and_costs_nothing() {
    let mut desk = Desk::new(rules());
    desk.push(0, &[7]);
    let (id, _) = desk.next().unwrap();
    desk.book.put_back(id, desk.now);
    assert_eq!(desk.book.busy(), 0);
    desk.pass(SECOND * 29);
    assert!(desk.next().is_none());
    desk.pass(SECOND * 2);
    assert_eq!(desk.next().unwrap().1.attempts, 0);
}

#[test]
fn what_could_not_be_begun_is_no_probe_before_its_time_and_takes_no_room() {
    let mut desk = Desk::new(rules());
    desk.break_it(500);
    desk.pass(SECOND * 120);
    while let Some((id, _)) = desk.next() {
        desk.book.put_back(id, desk.now);
    }
    desk.pass(SECOND * 29);
    assert!(desk.next().is_none(), "probed again at once");
    desk.pass(SECOND * 2);
    let (id, _) = desk.next().expect("its time has come");
    desk.deliver(id);

    let mut desk = Desk::new(rules());
    for lsn in 0..8 {
        desk.push(lsn, &[lsn]);
        let (id, _) = desk.next().unwrap();
        desk.book.put_back(id, desk.now);
        desk.push(100 + lsn, &[lsn]);
    }
    assert_eq!(desk.book.blocked_len(), 8, "those behind them");
}
