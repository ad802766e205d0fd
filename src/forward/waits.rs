//! Since when does something wait? In minutes of the clock that keys are remembered by. Pure.
//!
//! What waits is asked whether it is a repeat when it is taken up, which may be long after it came: the region was
//! out, or a start takes it up once more. So no key may die that was alive when the oldest of what waits came.
//! Each minute is noted where the core stood in the journals; the oldest of what waits lies behind one
//! of these places and came after it. What was there at the start came at a minute that nobody knows.

use std::collections::VecDeque;

use crate::journal::Position;

/// Minutes that are noted at once, a little more than the longest window has: beyond that something waits from
/// before the last one that still is.
const NOTED: usize = 1 << 16;

/// Where a core stood, minute by minute.
#[derive(Debug)]
pub struct Waits {
    /// By journal: all before it came before that minute. The first one is the start.
    noted: VecDeque<(u32, Vec<Position>)>,
}

impl Waits {
    /// `minute` is the clock's at the start, `ends` what was there then.
    pub fn new(minute: u32, ends: Vec<Position>) -> Self {
        Self { noted: VecDeque::from([(minute, ends)]) }
    }

    /// The core stands here. Call at least once a minute.
    pub fn note(&mut self, minute: u32, standing: &[Position]) {
        let last = self.noted.back().map_or(0, |(minute, _)| *minute);
        if minute > last && self.noted.len() < NOTED {
            self.noted.push_back((minute, standing.to_vec()));
        }
    }

    /// A minute that was not over when the oldest of what waits came, all of which lies behind `oldest` in its journal;
    /// 0: it was there at the start.
    pub fn since(&mut self, oldest: &[Position]) -> u32 {
        let before =
            |noted: &(u32, Vec<Position>)| noted.1.iter().zip(oldest).all(|(at, oldest)| at <= oldest);
        while self.noted.get(1).is_some_and(before) {
            self.noted.pop_front();
        }
        // What was on its way to the core at the moment that was noted came a little before.
        self.noted.front().filter(|noted| before(noted)).map_or(0, |(minute, _)| minute.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(segments: [u64; 2]) -> Vec<Position> {
        segments.map(|segment| Position::new(segment, 0)).to_vec()
    }

    #[test]
    fn what_waits_is_never_younger_than_said() {
        let mut waits = Waits::new(100, at([5, 0]));
        assert_eq!(waits.since(&at([4, 0])), 0, "it was there at the start");
        assert_eq!(waits.since(&at([5, 0])), 99);
        for minute in 101..=110u32 {
            let segment = u64::from(minute - 95);
            waits.note(minute, &at([segment, segment]));
            waits.note(minute, &at([99, 99]));
        }
        assert_eq!(
            waits.since(&at([7, 6])),
            100,
            "in the second journal it lies behind the place of minute 101"
        );
        assert_eq!(waits.since(&at([9, 9])), 103);
        assert_eq!(waits.since(&at([99, 99])), 109);
    }
}
