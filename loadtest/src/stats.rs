//! Medians, and how far they can be trusted.

/// 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// A median and the interval that the true one lies in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// How sure the interval is: 0.95 or more, or less where there are fewer than six values.
    pub sure: f64,
    pub values: usize,
}

impl Estimate {
    /// The interval of the sign test: the narrowest pair of order statistics, equally far from both ends, that holds
    /// the true median in 95 of 100 such runs. It assumes nothing about how the values scatter, only that each is as
    /// likely to lie above the true median as below; eight values give their smallest and largest (99.2 %).
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values = sorted(values);
        let n = values.len();
        // That the true median lies outside of the k-th smallest to k-th largest value: at most k - 1 of n fair coins
        // show heads, or at most k - 1 tails.
        let outside = |k: usize| 2.0 * (0..k).map(|heads| chance(n, heads)).sum::<f64>();
        let k = (1..=n / 2).take_while(|k| outside(*k) <= 0.05).last().unwrap_or(1);
        let (low, high) = (*values.get(k - 1)?, *values.get(n - k)?);
        let median = median(values.iter().copied());
        Some(Self { median, low, high, sure: (1.0 - outside(k)).max(0.0), values: n })
    }

    /// Of the ratios inside the pairs: what moves both sides of a pair drops out.
    pub fn of_ratios(above: impl Iterator<Item = f64>, below: impl Iterator<Item = f64>) -> Option<Self> {
        Self::of(above.zip(below).map(|(above, below)| above / below))
    }

    /// Shown where `decimals` are enough.
    pub fn text(&self, decimals: usize) -> String {
        let Self { median, low, high, .. } = self;
        format!("{median:.decimals$} ({low:.decimals$} to {high:.decimals$})")
    }
}

/// That `heads` of `n` fair coins show heads.
fn chance(n: usize, heads: usize) -> f64 {
    (0..heads).fold(0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX)), |chance, at| {
        chance * (n - at) as f64 / (at + 1) as f64
    })
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Estimate {
        Estimate::of(values.iter().copied()).unwrap()
    }

    #[test]
    fn median_of_an_even_count_lies_between() {
        let check =
            |values: &[f64], expected| assert_eq!(median(values.iter().copied()), expected, "{values:?}");
        check(&[], 0.0);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
    }

    #[test]
    fn interval_is_that_of_the_sign_test() {
        // k-th smallest to k-th largest, from tables of the sign test.
        let check = |n: usize, k: usize, sure: f64| {
            let values: Vec<f64> = (1..=n).rev().map(|value| value as f64).collect();
            let estimate = of(&values);
            assert_eq!((estimate.low, estimate.high), (k as f64, (n + 1 - k) as f64), "{n}");
            assert!((estimate.sure - sure).abs() < 0.0005, "{n}: {estimate:?}");
        };
        check(6, 1, 0.9688);
        check(8, 1, 0.9922);
        check(9, 2, 0.9609);
        check(12, 3, 0.9614);
        check(20, 6, 0.9586);
    }

    #[test]
    fn few_values_say_how_little_they_are_worth() {
        assert_eq!(Estimate::of(std::iter::empty()), None);
        assert_eq!(of(&[2.0]), Estimate { median: 2.0, low: 2.0, high: 2.0, sure: 0.0, values: 1 });
        assert!((of(&[1.0, 2.0, 3.0, 4.0, 5.0]).sure - 0.9375).abs() < 1e-9);
    }

    #[test]
    fn ratios_are_taken_inside_the_pairs() {
        // A machine that gets twice as slow in the middle of the run.
        let estimate = Estimate::of_ratios([3.0, 6.0, 6.6].into_iter(), [1.0, 2.0, 2.0].into_iter()).unwrap();
        assert_eq!((estimate.median, estimate.low, estimate.high), (3.0, 3.0, 3.3));
        assert_eq!(estimate.text(2), "3.00 (3.00 to 3.30)");
    }
}
