//! Which entries a region took ahead of its pass, until the pass has come to them. Pure.

use std::collections::VecDeque;

use crate::journal::JournalIndex;

/// Entries of one word.
const WORD: u64 = 64;
/// Words of all journals together: 8 MiB, of 34 million entries if they lie side by side.
const WORDS: usize = 512 * 1024;

/// A bit for each of 64 LSNs.
#[derive(Debug, Clone, Copy)]
struct Word {
    /// The first of them, by 64.
    number: u64,
    bits: u64,
}

/// By journal; LSNs come and are asked for in rising order.
#[derive(Debug)]
pub(super) struct Ahead {
    journals: Vec<VecDeque<Word>>,
    words: usize,
}

impl Ahead {
    pub(super) fn new(journals: usize) -> Self {
        Self { journals: vec![VecDeque::new(); journals], words: 0 }
    }

    /// Remembers an entry; false if that is not possible.
    pub(super) fn take(&mut self, journal: JournalIndex, lsn: u64) -> bool {
        let Some(words) = self.journals.get_mut(journal) else { return false };
        let (number, bit) = (lsn / WORD, 1 << (lsn % WORD));
        match words.back_mut() {
            Some(last) if last.number == number => last.bits |= bit,
            Some(last) if last.number > number => return false,
            _ if self.words >= WORDS => return false,
            _ => {
                words.push_back(Word { number, bits: bit });
                self.words += 1;
            }
        }
        true
    }

    /// Whether it was taken; forgets what lies words before it.
    pub(super) fn has(&mut self, journal: JournalIndex, lsn: u64) -> bool {
        let Some(words) = self.journals.get_mut(journal) else { return false };
        // Of a segment that was thinned some never come by.
        while words.front().is_some_and(|first| first.number < lsn / WORD) {
            words.pop_front();
            self.words -= 1;
        }
        let first = words.front().filter(|first| first.number == lsn / WORD);
        first.is_some_and(|first| first.bits & 1 << (lsn % WORD) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_found_once_passed_and_forgotten_behind_it() {
        let mut ahead = Ahead::new(2);
        let taken = [(0, 1), (0, 63), (0, 64), (1, 64), (0, 1_000), (1, 1_000_000)];
        for (journal, lsn) in taken {
            assert!(ahead.take(journal, lsn));
        }
        assert!(!ahead.take(0, 900), "backwards");
        for lsn in [1, 2, 63, 64, 65, 1_000, 1_001] {
            assert_eq!(ahead.has(0, lsn), taken.contains(&(0, lsn)), "{lsn}");
        }
        assert_eq!((ahead.journals[0].len(), ahead.words), (1, 3));
        // Entries between them are gone from the journal.
        assert!(!ahead.has(0, 5_000) && ahead.has(1, 1_000_000));
        assert_eq!(ahead.words, 1);
    }

    #[test]
    fn memory_is_bounded_and_free_again_behind_the_pass() {
        let mut ahead = Ahead::new(2);
        let count = (0..).take_while(|n| ahead.take((*n % 2) as usize, n * 1_000)).count();
        assert_eq!(count, WORDS);
        assert_eq!(WORDS * size_of::<Word>(), 8 << 20);
        assert!(!ahead.take(0, u64::MAX));
        assert!(!ahead.has(0, 1_000_000_001) && ahead.words == WORDS / 2, "{}", ahead.words);
        assert!(ahead.take(0, u64::MAX));
    }
}
