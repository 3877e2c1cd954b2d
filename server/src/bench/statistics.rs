//! Of many runs, one number; of many sizes, one power.

use serde::Serialize;

/// The median; of an even number, the mean of the two in the middle. 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (sorted.get(half.wrapping_sub(1)).unwrap_or(upper) + upper) / 2.0,
    }
}

/// The smallest. 0 of nothing.
pub(super) fn least(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or_default()
}

/// fixed + grown · (n / largest n)^exponent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Power {
    /// To a hundredth.
    pub(super) exponent: f64,
    /// What does not grow, …
    pub(super) fixed: f64,
    /// … and, at the largest n, what does.
    pub(super) grown: f64,
}

/// Exponents are sought up to this, in hundredths.
const STEEPEST: u32 = 400;
/// Sums of squares of relative errors that differ by less differ by rounding.
const ROUNDING: f64 = 1e-18;

/// The power through points (n, y) with the least squares of relative errors, since the smallest points say what is fixed.
/// Neither part is negative, and of what does not grow the exponent is 0. Points of no cost are left out.
pub(super) fn power(points: &[(f64, f64)]) -> Power {
    let points: Vec<_> = points.iter().filter(|(n, y)| *n > 0.0 && *y > 0.0).collect();
    if points.is_empty() {
        return Power::default();
    }
    let largest = points.iter().map(|(n, _)| *n).fold(0.0, f64::max);
    let (mut least, mut best) = (f64::INFINITY, Power::default());
    for exponent in (0..=STEEPEST).map(|hundredths| f64::from(hundredths) / 100.0) {
        // 1 = fixed · r + grown · s at every point, as nearly as can be.
        let terms = points.iter().map(|(n, y)| (1.0 / y, (n / largest).powf(exponent) / y));
        let sum = |of: fn(f64, f64) -> f64| terms.clone().map(|(r, s)| of(r, s)).sum::<f64>();
        let [r, s, rr, rs, ss] = [|r, _| r, |_, s| s, |r, _| r * r, |r, s| r * s, |_, s| s * s].map(sum);
        let determinant = rr * ss - rs * rs;
        let (fixed, grown) = ((r * ss - s * rs) / determinant, (s * rr - r * rs) / determinant);
        let (fixed, grown) = match (fixed, grown) {
            // At exponent 0 the two parts are one.
            (_, grown) if exponent == 0.0 || grown < 0.0 => (r / rr, 0.0),
            (fixed, _) if fixed < 0.0 => (0.0, s / ss),
            both => both,
        };
        let error: f64 = terms.map(|(r, s)| (fixed * r + grown * s - 1.0).powi(2)).sum();
        if error + ROUNDING < least {
            (least, best) = (error, Power { exponent, fixed, grown });
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!([median(&[]), median(&[3.0]), median(&[9.0, 1.0, 4.0]), median(&[4.0, 1.0])], [0.0, 3.0, 4.0, 2.5]);
        assert_eq!([least(&[]), least(&[2.0, 1.0])], [0.0, 1.0]);
    }

    #[test]
    fn powers_are_found_whatever_is_fixed() {
        let through = |of: fn(f64) -> f64| power(&[1.0, 2.0, 4.0, 8.0, 16.0].map(|n| (n, of(n))));
        let near = |found: Power, exponent, fixed: f64, grown: f64| {
            assert_eq!(found.exponent, exponent, "{found:?}");
            assert!((found.fixed - fixed).abs() + (found.grown - grown).abs() < 1e-6 * (fixed + grown), "{found:?}");
        };
        near(through(|n| 5.0 * n), 1.0, 0.0, 80.0);
        near(through(|n| 1000.0 + n), 1.0, 1000.0, 16.0);
        near(through(|n| 3.0 + n * n), 2.0, 3.0, 256.0);
        near(through(|n| 0.1 * n.powf(1.37)), 1.37, 0.0, 0.1 * 16f64.powf(1.37));
        near(through(|_| 7.0), 0.0, 7.0, 0.0);
        // Products beside comparisons; and what falls does not grow.
        let mixed = through(|n| 1.0 + n + 0.1 * n * n).exponent;
        assert!(mixed > 1.0 && mixed < 2.0, "{mixed}");
        assert_eq!((through(|n| 1.0 / n).exponent, through(|n| 1.0 / n).grown), (0.0, 0.0));
        assert_eq!([power(&[]), power(&[(1.0, 0.0), (2.0, 0.0)])], [Power::default(); 2]);
    }
}
