//! What the keeper makes of orders that come together.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;

use super::*;
use crate::dead::keeper::{Keeper, Moment};
use crate::dead::{Start, Way};

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
