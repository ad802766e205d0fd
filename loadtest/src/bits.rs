//! A set of numbers that are close together and begin at 0: a bit for each.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One thread writes, any may read.
#[derive(Debug, Default)]
pub struct Bits {
    words: Mutex<Vec<u64>>,
}

impl Bits {
    fn words(&self) -> MutexGuard<'_, Vec<u64>> {
        // A bit is set or it is not, whoever panicked.
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it was there already.
    pub fn set(&self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        let mut words = self.words();
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        let new = words[word] & bit == 0;
        words[word] |= bit;
        new
    }

    pub fn len(&self) -> u64 {
        self.words().iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Numbers that are here and not there.
    pub fn without(&self, others: &Self) -> u64 {
        let (mine, others) = (self.words(), others.words());
        let missing = |(at, word): (usize, &u64)| (word & !others.get(at).copied().unwrap_or(0)).count_ones();
        mine.iter().enumerate().map(|at| u64::from(missing(at))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_once_and_missed_where_they_are_not() {
        let (one, other) = (Bits::default(), Bits::default());
        for number in [0, 63, 64, 1_000, 64] {
            one.set(number);
        }
        assert!(!one.set(1_000) && one.set(1_001));
        other.set(64);
        assert_eq!((one.len(), one.without(&other), other.without(&one)), (5, 4, 0));
    }
}
