//! Numbers that look like chance and come from a seed: the same seed is the same load.

/// SplitMix64: good enough for load, and the seed is the whole state.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// At least 0, below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The time until the next of things that come at random, 1 on average.
    pub fn gap(&mut self) -> f64 {
        -(1.0 - self.share()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fill_their_range_and_gaps_are_one_on_average() {
        let mut random = Random(3);
        let shares: Vec<f64> = (0..10_000).map(|_| random.share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        assert!((shares.iter().sum::<f64>() / 1e4 - 0.5).abs() < 0.02);
        let gaps: Vec<f64> = (0..10_000).map(|_| random.gap()).collect();
        assert!((gaps.iter().sum::<f64>() / 1e4 - 1.0).abs() < 0.05);
        // A third waits longer than the average: what sets it apart from even spacing.
        let long = gaps.iter().filter(|gap| **gap > 1.0).count();
        assert!((3_400..3_950).contains(&long), "{long}");
    }
}
