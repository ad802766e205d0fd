//! The table against a plain map, and its size.

use std::collections::HashMap;
use std::time::Duration;

use super::seen::{Seen, Sighting};
use crate::parse::Key;
use crate::parse::tests::Rng;

const HOUR: Duration = Duration::from_secs(3600);

fn key(n: u64) -> Key {
    // As a digest would be: SplitMix64 twice.
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def0;
    let mut key = Key::default();
    for half in key.chunks_exact_mut(8) {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        half.copy_from_slice(&z.to_le_bytes());
    }
    key
}

fn mixer(rng: &mut Rng) -> u128 {
    u128::from(rng.next()) << 64 | u128::from(rng.next())
}

#[test]
fn same_is_a_repeat_other_is_a_change_and_another_region_is_new() {
    let mut seen = Seen::new(HOUR, 1 << 20, 7);
    assert_eq!(seen.claim(1, &key(1), 10), Sighting::New);
    assert_eq!(seen.claim(1, &key(1), 10), Sighting::Repeat);
    assert_eq!(seen.claim(1, &key(1), 11), Sighting::Changed);
    assert_eq!(seen.claim(1, &key(1), 11), Sighting::Repeat);
    assert_eq!(seen.claim(1, &key(1), 10), Sighting::Repeat);
    assert_eq!(seen.claim(2, &key(1), 10), Sighting::New);
    assert_eq!(seen.keys(), 3);
    assert!(!seen.forgets());
}

#[test]
fn an_event_is_remembered_for_the_window_and_not_longer() {
    let mut seen = Seen::new(HOUR, 1 << 20, 7);
    seen.pass(1000);
    seen.claim(1, &key(1), 1);
    seen.pass(60);
    assert_eq!(seen.claim(1, &key(1), 1), Sighting::Repeat, "60 minutes may be 60 or nearly 61");
    seen.pass(1);
    assert_eq!(seen.keys(), 0);
    assert_eq!(seen.claim(1, &key(1), 2), Sighting::New, "what is forgotten makes no change");
    assert_eq!(seen.claim(1, &key(1), 1), Sighting::Changed);
    // Nor does it come back when the 16 bits of a minute have gone round.
    for jump in [65_535, 65_536, 65_537, 40_000, 25_536, 131_072] {
        let mut seen = Seen::new(30 * 24 * HOUR, 1 << 20, 7);
        seen.claim(1, &key(1), 1);
        seen.pass(jump);
        let expected = if jump <= 43_200 { Sighting::Repeat } else { Sighting::New };
        assert_eq!(seen.claim(1, &key(1), 1), expected, "after {jump} minutes");
    }
}

#[test]
fn what_the_log_tells_is_remembered_in_any_order() {
    let mut seen = Seen::new(HOUR, 1 << 20, 7);
    for (n, minute) in [(1, 5000), (2, 4950), (3, 4939), (4, 5010), (5, 4950), (6, 10)] {
        seen.recall(1, &key(n), 1, minute);
    }
    assert_eq!((seen.now(), seen.keys()), (5010, 4));
    for (n, expected) in
        [(1, Sighting::Repeat), (2, Sighting::Repeat), (3, Sighting::New), (6, Sighting::New)]
    {
        assert_eq!(seen.claim(1, &key(n), 1), expected, "key {n}");
    }
    seen.pass(1);
    assert_eq!(seen.claim(1, &key(5), 1), Sighting::New, "61 minutes after 4950");
}

#[test]
fn what_was_alive_when_the_oldest_of_what_waits_came_is_still_known() {
    let mut seen = Seen::new(HOUR, 1 << 20, 7);
    seen.pass(1000);
    seen.claim(1, &key(1), 1);
    seen.pass(60);
    seen.hold(1060);
    seen.pass(5000);
    seen.claim(1, &key(2), 1);
    assert_eq!((seen.oldest(), seen.forgets()), (1000, false));
    assert_eq!(seen.claim(1, &key(1), 1), Sighting::Repeat, "it is a repeat for what came at 1060");
    seen.hold(1061);
    assert_eq!((seen.oldest(), seen.keys()), (1001, 1));
    assert_eq!(seen.claim(1, &key(1), 1), Sighting::New);
    seen.hold(seen.now());
    assert_eq!(seen.claim(1, &key(2), 1), Sighting::Repeat);
    // Ages have 16 bits: what waits longer than that says that it may be a repeat.
    seen.pass(40_000);
    assert_eq!(seen.claim(1, &key(2), 1), Sighting::Repeat);
    assert!(!seen.forgets_held());
    seen.pass(100_000);
    assert!(seen.forgets_held() && !seen.forgets(), "all of the last hour is known");
    assert_eq!(seen.claim(1, &key(2), 1), Sighting::New);
    assert_eq!(seen.oldest(), seen.now() - 49_151);
    seen.hold(u32::MAX);
    assert!(!seen.forgets_held(), "nothing waits any more");
}

#[test]
fn a_log_of_more_than_the_bound_allows_fills_it_and_the_oldest_die_first() {
    let mut rng = Rng::from_env();
    let bound = 8 << 20;
    let mut seen = Seen::new(HOUR, bound, mixer(&mut rng));
    seen.hold(0);
    // About twice as many as there is room for.
    let count = 2 * bound as u64 / 24;
    let mut expected = seen.expected();
    (0..count).for_each(|n| expected.add(1, &key(n)));
    seen.prepare(&expected);
    (0..count).for_each(|n| seen.recall(1, &key(n), 1, (n * 1000 / count) as u32));
    seen.recalled();
    assert!(seen.bytes() <= bound, "{}", seen.bytes());
    assert!(seen.keys() as u64 * 32 > bound as u64 * 8 / 10, "{} of {count}", seen.keys());
    let newest = count - seen.keys() as u64 / 2;
    assert!((newest..count).all(|n| seen.claim(1, &key(n), 1) == Sighting::Repeat));
    assert!(seen.forgets_held());
}

#[test]
fn evictions_do_not_move_the_clock_that_others_go_by() {
    let mut rng = Rng::from_env();
    let mut seen = Seen::new(HOUR, 1 << 20, mixer(&mut rng));
    seen.pass(500);
    (0..500_000).for_each(|n| _ = seen.claim(1, &key(n), 1));
    assert!(seen.evicted() > 400_000 && seen.forgets());
    assert_eq!((seen.now(), seen.oldest()), (500, 440));
    // What the log tells of this minute is younger than what was evicted, and stays.
    seen.recall(1, &key(1 << 40), 1, 500);
    assert_eq!(seen.claim(1, &key(1 << 40), 1), Sighting::Repeat);
    seen.pass(60);
    assert!(seen.forgets());
    seen.pass(1);
    assert!(!seen.forgets());
}

/// Exact answers as long as there is room: what the map says, the table says.
#[test]
fn the_table_answers_like_a_map_through_growth_and_expiry() {
    let mut rng = Rng::from_env();
    for round in 0..6 {
        let window = 1 + rng.below(90) as u64;
        let mut seen = Seen::new(Duration::from_secs(window * 60), 64 << 20, mixer(&mut rng));
        let mut map: HashMap<(u32, u64, u64), u32> = HashMap::new();
        let mut now = 0u32;
        let keys = 1 << (4 + 2 * round);
        for _ in 0..60_000 {
            let asked = (rng.below(2) as u32, rng.below(keys) as u64, rng.below(3) as u64);
            let alive = |minute: &u32| now - minute <= window as u32;
            let same = map.get(&asked).is_some_and(alive);
            let other = (0..3).any(|v| v != asked.2 && map.get(&(asked.0, asked.1, v)).is_some_and(alive));
            let expected = match (same, other) {
                (true, _) => Sighting::Repeat,
                (false, true) => Sighting::Changed,
                (false, false) => Sighting::New,
            };
            assert_eq!(seen.claim(asked.0, &key(asked.1), asked.2), expected);
            map.entry(asked)
                .and_modify(|m| {
                    if !alive(m) {
                        *m = now
                    }
                })
                .or_insert(now);
            if rng.one_in(50) {
                let minutes = 1 + rng.below(3) as u32;
                now += minutes;
                seen.pass(minutes);
            }
            if rng.one_in(100) {
                seen.sweep();
            }
        }
        assert_eq!(seen.keys(), map.values().filter(|minute| now - **minute <= window as u32).count());
        assert_eq!((seen.evicted(), seen.forgets()), (0, false));
        // Once all is dead and swept, all memory is given back.
        seen.pass(window as u32 + 1);
        (0..4096).for_each(|_| seen.sweep());
        assert_eq!((seen.keys(), seen.bytes()), (0, Seen::new(HOUR, 64 << 20, 1).bytes()));
    }
}

#[test]
fn at_the_bound_the_oldest_go_first_and_it_is_said_until_a_window_has_passed() {
    let mut rng = Rng::from_env();
    let bound = 1 << 20;
    let mut seen = Seen::new(HOUR, bound, mixer(&mut rng));
    let mut n = 0;
    let mut minutes = Vec::new();
    for _ in 0..50 {
        let from = n;
        for _ in 0..1000 + rng.below(1000) {
            assert_eq!(seen.claim(1, &key(n), 1), Sighting::New, "a new event is never taken for a repeat");
            n += 1;
        }
        minutes.push(from..n);
        seen.pass(1);
        assert!(seen.bytes() <= bound + 256 * 26 * 16, "{} bytes", seen.bytes());
    }
    assert!(seen.evicted() > 20_000 && seen.forgets());
    assert_eq!(seen.keys() as u64 + seen.evicted(), n);
    // 32,768 at 32 bytes; shards of a few kilobytes fill unevenly, and the fullest makes all give.
    assert!(seen.keys() > 16_384, "only {} keys fit in 1 MiB", seen.keys());
    // Of the minutes the newest are whole, the older ones are gone.
    let kept = |minute: &std::ops::Range<u64>, seen: &mut Seen| {
        minute.clone().filter(|n| seen.claim(1, &key(*n), 1) == Sighting::Repeat).count() as u64
    };
    let mut probe = seen;
    let newest = minutes.last().unwrap();
    assert_eq!(kept(newest, &mut probe), newest.end - newest.start);
    assert_eq!(kept(&minutes[0], &mut probe), 0);
    let more = (0..).take_while(|_| {
        probe.pass(1);
        probe.forgets()
    });
    assert!((1..=60).contains(&more.count()), "as long as the newest that went would be remembered");
}

#[test]
fn a_burst_that_fills_the_bound_within_a_minute_is_taken() {
    let mut seen = Seen::new(HOUR, 1 << 20, 99);
    for n in 0..300_000 {
        assert_eq!(seen.claim(1, &key(n), 1), Sighting::New);
        assert_eq!(seen.claim(1, &key(n), 1), Sighting::Repeat, "what was seen a moment ago");
    }
    assert!(seen.bytes() <= (1 << 20) + 256 * 26 * 16 && seen.forgets());
}

#[test]
fn lost_keys_are_said_for_a_window() {
    let mut seen = Seen::new(HOUR, 1 << 20, 99);
    seen.pass(500);
    seen.lose(seen.now());
    assert!(seen.forgets());
    seen.pass(60);
    assert!(seen.forgets());
    seen.pass(1);
    assert!(!seen.forgets());
}

/// 32 bytes a key beside what an empty table has, at every size. (At most 7 bytes a shard more, of tags
/// that fill up a group; they matter below some 10 keys a shard.)
#[test]
fn a_key_takes_at_most_32_bytes_at_every_size() {
    let bound = 64 << 20;
    let mut seen = Seen::new(24 * HOUR, bound, 0x1234_5678_9abc_def1_1234_5678_9abc_def1);
    let (empty, shards) = (seen.bytes(), bound / (128 * 1024));
    let mut worst = 0.0f64;
    for n in 1..=1_000_000usize {
        seen.claim(1, &key(n as u64), 1);
        if n < 100 || n % 997 == 0 || n.is_power_of_two() {
            let more = seen.bytes() - empty;
            assert!(more <= 32 * n + (7 * shards).min(7 * n), "{n} keys take {more} bytes");
            if n > 10 * shards {
                worst = worst.max(more as f64 / n as f64);
            }
        }
    }
    assert!(worst <= 32.0);
    assert_eq!(seen.keys(), 1_000_000);
    let mut again = Seen::new(24 * HOUR, bound, 99);
    (0..300_000).for_each(|n| again.recall(1, &key(n), 1, 7));
    again.recalled();
    assert_eq!(again.keys(), 300_000);
    assert!(again.bytes() - empty <= 32 * 300_000, "after a start too: {}", again.bytes());
}
