//! Gaps in conversations over restarts, and segments that go.

use super::*;

fn of(conversation: u64, n: u64) -> Letter {
    Letter { conversations: vec![conversation], ..letter(n) }
}

#[test]
fn a_gap_is_known_after_a_restart_until_it_is_told_or_its_letters_went_out() {
    let mut ground = Ground::new();
    let first = ground.bury(of(5, 1));
    ground.bury(of(5, 2));
    ground.bury(of(6, 3));
    let check = |ground: &mut Ground, expected: &[(u64, u32)]| {
        assert_eq!(ground.gaps(), expected);
        ground.again();
        assert_eq!(ground.gaps(), expected, "after a restart");
    };
    check(&mut ground, &[(5, 2), (6, 1)]);
    ground.change(What::Replayed, first);
    check(&mut ground, &[(5, 1), (6, 1)]);
    ground.graves.told(name_id("eu"), 6, 1).unwrap();
    check(&mut ground, &[(5, 1)]);
    ground.graves.told(name_id("eu"), 5, 1).unwrap();
    let late = ground.bury(of(5, 4));
    check(&mut ground, &[(5, 1)]);
    // One that was told of, and one that was not.
    let told = ground.ids()[0];
    ground.change(What::Replayed, told);
    check(&mut ground, &[(5, 1)]);
    ground.change(What::Replayed, late);
    check(&mut ground, &[]);
}

#[test]
fn a_segment_goes_when_nothing_in_it_is_alive_and_its_gaps_stay_known() {
    let mut ground = Ground::new();
    let (kept, gone) = (ground.bury(of(5, 1)), ground.bury(of(6, 2)));
    ground.graves.retire(1).unwrap();
    assert_eq!(ground.ids(), [kept, gone]);
    ground.change(What::Dropped, gone);
    ground.graves.retire(1).unwrap();
    assert_eq!(ground.ids(), [kept], "a segment with a letter stays");
    ground.change(What::Dropped, kept);
    ground.graves.retire(1).unwrap();
    assert_eq!(names(&ground.shelf()), ["00000002.index", "00000002.letters"]);
    for _ in 0..2 {
        assert_eq!(ground.gaps(), [(5, 1), (6, 1)]);
        ground.again();
    }
    let third = ground.bury(of(5, 3));
    assert_eq!(ground.gaps(), [(5, 2), (6, 1)]);
    ground.graves.told(name_id("eu"), 5, 1).unwrap();
    ground.graves.told(name_id("eu"), 6, 1).unwrap();
    ground.change(What::Dropped, third);
    ground.graves.retire(1).unwrap();
    assert_eq!((names(&ground.shelf()), ground.gaps()), (vec![], vec![]));
    ground.again();
    let new = ground.bury(of(5, 4));
    assert!(new > third, "no id is used twice");
}

#[test]
fn what_was_told_stays_told_when_the_segment_that_says_so_goes() {
    let mut ground = Ground::new();
    let old = ground.bury(of(5, 1));
    // Large enough to begin another segment.
    let body = "x".repeat(5 << 20);
    let large = |n| Letter { record: webhook("4917139200992", &body), ..of(90 + n, n) };
    let mut others = vec![ground.bury(large(2)), ground.bury(large(3))];
    others.push(ground.bury(large(4)));
    assert_eq!(names(&ground.shelf()).len(), 4, "two segments");
    ground.graves.told(name_id("eu"), 5, 1).unwrap();
    others.push(ground.bury(large(5)));
    others.push(ground.bury(large(6)));
    assert_eq!(names(&ground.shelf()).len(), 6, "three segments");
    for id in others {
        ground.change(What::Dropped, id);
    }
    ground.graves.retire(1).unwrap();
    assert_eq!(ground.ids(), [old]);
    let known = ground.gaps();
    assert!(known.iter().all(|(conversation, _)| *conversation != 5), "{known:?}");
    ground.again();
    assert_eq!(ground.gaps(), known);
}
