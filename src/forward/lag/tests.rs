//! One region's feed, told as a model: what it takes, it takes once, and each conversation in order.

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::forward::retry::Rng;

#[derive(Debug, Clone)]
struct Entry {
    seq: u64,
    lsn: u64,
    conversations: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Frame {
    journal: JournalIndex,
    position: Position,
    next: Position,
    entries: Vec<Entry>,
}

struct Feed {
    seed: u64,
    rng: Rng,
    conversations: u64,
    seq: u64,
    journals: Vec<Vec<Frame>>,
    lsns: Vec<u64>,
    channel: VecDeque<Frame>,
    standing: Vec<Position>,
    lag: Option<Lag>,
    /// The last that was taken, by conversation.
    last: HashMap<u64, u64>,
    taken: HashMap<u64, bool>,
}

impl Feed {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(3) as usize;
        let conversations = 2 + rng.below(40);
        let mut feed = Self {
            seed,
            rng,
            conversations,
            seq: 0,
            journals: vec![Vec::new(); count],
            lsns: vec![1; count],
            channel: VecDeque::new(),
            standing: vec![Position::default(); count],
            lag: None,
            last: HashMap::new(),
            taken: HashMap::new(),
        };
        // A process before this one left a backlog.
        (0..feed.rng.below(30)).for_each(|_| feed.commit());
        feed.channel.clear();
        feed.standing = feed.ends();
        feed.lag = Some(Lag::new(vec![Cursor::default(); count], &feed.standing));
        feed
    }

    fn ends(&self) -> Vec<Position> {
        self.journals.iter().map(|frames| frames.last().map(|frame| frame.next).unwrap_or_default()).collect()
    }

    fn commit(&mut self) {
        let journal = self.rng.below(self.journals.len() as u64) as usize;
        let number = self.journals[journal].len() as u64 + 1;
        let entries = (0..1 + self.rng.below(3)).map(|_| {
            self.seq += 1;
            // Marks take numbers, too.
            self.lsns[journal] += 1 + self.rng.below(2) * self.rng.below(200);
            let named = if self.rng.below(8) == 0 { self.rng.below(4) } else { 1 };
            let conversations = (0..named).map(|_| self.rng.below(self.conversations)).collect();
            Entry { seq: self.seq, lsn: self.lsns[journal], conversations }
        });
        let entries = entries.collect();
        let at = |number: u64| Position::new(1 + number / 8, (1 + number % 8) * 4096);
        let frame = Frame { journal, position: at(number), next: at(number + 1), entries };
        self.journals[journal].push(frame.clone());
        self.channel.push_back(frame);
    }

    fn take(&mut self, entry: &Entry, ahead: bool) {
        let seed = self.seed;
        assert_eq!(self.taken.insert(entry.seq, ahead), None, "seed {seed}: {entry:?} twice");
        for conversation in &entry.conversations {
            let last = self.last.insert(*conversation, entry.seq).unwrap_or(0);
            assert!(
                last < entry.seq || entry.conversations.len() > 1 && last == entry.seq,
                "seed {seed}: {entry:?} behind {last} of conversation {conversation}"
            );
        }
    }

    /// What the channel has, a frame.
    fn live(&mut self) {
        let Some(frame) = self.channel.pop_front() else { return };
        if frame.position < self.standing[frame.journal] {
            return;
        }
        for entry in &frame.entries {
            let room = self.rng.below(8) > 0;
            let lag = self.lag.as_mut();
            let ahead = lag.map(|lag| lag.comes(frame.journal, entry.lsn, room, &entry.conversations));
            if ahead != Some(false) {
                self.take(entry, ahead == Some(true));
            }
        }
        self.standing[frame.journal] = frame.next;
        if self.lag.is_none() && self.rng.below(20) == 0 {
            let cursors = self.standing.iter().copied().map(Cursor::before).collect();
            self.lag = Some(Lag::new(cursors, &self.standing));
        }
    }

    fn overflow(&mut self) {
        let before: Vec<Cursor> = self.standing.iter().copied().map(Cursor::before).collect();
        // Sometimes what was pushed before the snapshot comes after it.
        if self.rng.below(2) == 0 {
            self.channel.clear();
        }
        self.standing = self.ends();
        match &mut self.lag {
            Some(lag) => lag.miss(&self.standing),
            None => self.lag = Some(Lag::new(before, &self.standing)),
        }
    }

    /// A pass reads so many entries, and not to the end of a frame.
    fn pass(&mut self, most: u64) {
        let Some(lag) = &self.lag else { return };
        let mut at: Vec<Cursor> = (0..self.journals.len()).map(|journal| lag.cursor(journal)).collect();
        for _ in 0..most {
            let next = |journal: usize| {
                let at = at[journal];
                let here =
                    self.journals[journal].iter().filter(|frame| frame.position < self.standing[journal]);
                here.flat_map(|frame| frame.entries.iter().map(move |entry| (frame, entry)))
                    .find(|(frame, entry)| Cursor { frame: frame.position, lsn: entry.lsn } >= at)
                    .map(|(frame, entry)| (frame.position, journal, entry.clone()))
            };
            let heads = (0..self.journals.len()).filter_map(next);
            let Some((frame, journal, entry)) = heads.min_by_key(|(_, _, entry)| entry.seq) else {
                self.lag = None;
                return;
            };
            let cursor = Cursor { frame, lsn: entry.lsn };
            at[journal] = Cursor { frame, lsn: entry.lsn + 1 };
            // What was settled and thinned away does not come by.
            let gone = self.taken.contains_key(&entry.seq) && self.rng.below(2) == 0;
            let lag = self.lag.as_mut().unwrap();
            if !gone && lag.passes(journal, cursor, &entry.conversations) {
                self.take(&entry, false);
            }
        }
        // A journal that has no more up to where the core stands ends there.
        for (journal, at) in at.iter_mut().enumerate() {
            let more = |frame: &Frame| {
                let last = frame.entries.last().map_or(0, |entry| entry.lsn);
                frame.position < self.standing[journal] && Cursor { frame: frame.position, lsn: last } >= *at
            };
            if !self.journals[journal].iter().any(more) {
                *at = (*at).max(Cursor::before(self.standing[journal]));
            }
        }
        self.lag.as_mut().unwrap().reach(&at);
    }
}

#[test]
fn each_entry_is_taken_once_and_each_conversation_in_order_whatever_goes_ahead() {
    let (mut ahead, mut lives) = (0, 0);
    for seed in 0..600 {
        let mut feed = Feed::new(seed);
        for _ in 0..150 {
            match feed.rng.below(16) {
                0..6 => feed.commit(),
                6..11 => feed.live(),
                11..15 => {
                    let most = feed.rng.below(5);
                    feed.pass(most);
                }
                _ if feed.rng.below(5) == 0 => feed.overflow(),
                _ => {}
            }
        }
        while !feed.channel.is_empty() {
            feed.live();
        }
        feed.pass(u64::MAX);
        assert!(feed.lag.is_none());
        assert_eq!(feed.taken.len() as u64, feed.seq, "seed {seed}: something was never taken");
        let own = feed.taken.values().filter(|ahead| **ahead).count();
        ahead += own;
        lives += usize::from(own > 0);
    }
    println!("{ahead} taken ahead in {lives} of 600 lives");
    assert!(ahead > 1_000 && lives > 100, "{ahead} taken ahead in {lives} lives: the test tested little");
}

/// A region that lags since the first entry of its only journal, all of which came by.
fn lag() -> Lag {
    let start = Position::new(1, 4096);
    Lag::new(vec![Cursor::before(start)], &[start])
}

fn at(frame: u64, lsn: u64) -> Cursor {
    Cursor { frame: Position::new(1, 4096 * frame), lsn }
}

#[test]
fn a_conversation_with_something_unread_waits_for_it_and_nobody_else_does() {
    let mut lag = lag();
    assert!(!lag.comes(0, 1, false, &[7, 8]), "there is no room");
    assert!(lag.has_unread());
    assert!(!lag.comes(0, 2, true, &[8, 9]) && !lag.comes(0, 3, true, &[9]), "9 waits for 8");
    assert!(lag.comes(0, 4, true, &[5]) && lag.comes(0, 5, true, &[5]));
    assert!(!lag.comes(0, 6, true, &[]), "nobody");
    for (lsn, conversations) in [(1, &[7, 8][..]), (2, &[8, 9]), (3, &[9])] {
        assert!(!lag.comes(0, 10 + lsn, true, &[9]));
        assert!(lag.passes(0, at(1, lsn), conversations));
    }
    assert!(lag.comes(0, 20, true, &[7]), "its entry was read");
    assert!(!lag.passes(0, at(1, 4), &[5]) && !lag.passes(0, at(1, 5), &[5]), "it has them already");
    assert!(lag.passes(0, at(1, 6), &[]));
}

#[test]
fn nothing_goes_ahead_of_what_was_never_seen() {
    // Journal 1 was there before, and journal 0 overflows.
    let [start, end] = [1, 9].map(|frame| Position::new(1, 4096 * frame));
    let mut lag = Lag::new(vec![Cursor::before(start), Cursor::default()], &[start, end]);
    assert!(!lag.comes(0, 1, true, &[7]));
    lag.reach(&[Cursor::before(start), at(8, 100)]);
    assert!(!lag.comes(0, 2, true, &[8]));
    lag.reach(&[Cursor::before(start), Cursor::before(end)]);
    assert!(lag.comes(0, 3, true, &[9]) && !lag.comes(0, 4, true, &[8]));
    lag.miss(&[end, end]);
    assert!(!lag.comes(0, 50, true, &[9]) && !lag.comes(1, 50, true, &[10]));
    lag.reach(&[Cursor::before(end), at(9, 70)]);
    assert!(lag.comes(0, 60, true, &[8]), "what was counted before is behind the cursor");
    assert!(!lag.comes(0, 61, true, &[9]), "what came since is not");
    assert!(!lag.passes(0, at(2, 3), &[9]), "what was taken before still is");
}
