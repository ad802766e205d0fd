//! The line `a + b x` that lies closest to some points.

/// By least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub a: f64,
    pub b: f64,
    /// Share of the scatter that the line explains.
    pub r2: f64,
}

impl Line {
    /// `None` of fewer than two different `x`.
    pub fn through(points: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let points: Vec<_> = points.collect();
        let count = points.len() as f64;
        let mean = |read: fn(&(f64, f64)) -> f64| points.iter().map(read).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| {
            points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>()
        };
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        if points.is_empty() || xx == 0.0 {
            return None;
        }
        let b = xy / xx;
        let r2 = if yy == 0.0 { 1.0 } else { xy * xy / (xx * yy) };
        Some(Self { a: y - b * x, b, r2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_goes_through_points_that_lie_on_one() {
        let line = Line::through([(0.0, 3.0), (1.0, 5.0), (10.0, 23.0)].into_iter()).unwrap();
        assert!((line.a - 3.0).abs() < 1e-9 && (line.b - 2.0).abs() < 1e-9 && line.r2 > 0.999, "{line:?}");
        let flat = Line::through([(1.0, 4.0), (2.0, 4.0)].into_iter()).unwrap();
        assert_eq!((flat.a, flat.b, flat.r2), (4.0, 0.0, 1.0));
        // From a textbook: least squares of (1, 1), (2, 2), (3, 2).
        let line = Line::through([(1.0, 1.0), (2.0, 2.0), (3.0, 2.0)].into_iter()).unwrap();
        assert!(
            (line.b - 0.5).abs() < 1e-9 && (line.a - 2.0 / 3.0).abs() < 1e-9 && (line.r2 - 0.75).abs() < 1e-9
        );
    }

    #[test]
    fn one_place_makes_no_line() {
        assert_eq!(Line::through([(1.0, 4.0), (1.0, 5.0)].into_iter()), None);
        assert_eq!(Line::through(std::iter::empty()), None);
    }
}
