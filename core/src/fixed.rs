//! Fixed-point numbers: x is held as round(x · 2^f) in two's complement modulo 2^k.

use alloc::format;

use crate::error::Blame;
use crate::ring::{Lane, Ring};

/// Rounds half to even, as every party must. Exact for |x| < 2^52; beyond that every f64 is an integer already.
fn round(x: f64) -> f64 {
    const INTEGERS_ONLY: f64 = 4_503_599_627_370_496.0;
    if x.abs() >= INTEGERS_ONLY {
        return x;
    }
    // Adding and taking away 2^52 makes the processor round to the nearest integer, ties to even.
    if x >= 0.0 { (x + INTEGERS_ONLY) - INTEGERS_ONLY } else { (x - INTEGERS_ONLY) + INTEGERS_ONLY }
}

/// 2^exponent.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    let step = if exponent < 0 { 0.5 } else { 2.0 };
    (0..exponent.unsigned_abs().min(1100)).fold(1.0, |power, _| power * step)
}

/// `value` with `fraction` bits after the point.
///
/// # Errors
/// NaN, infinity, and magnitudes above `limit` (a number before scaling) are refused, never clipped.
pub(crate) fn encode<L: Lane>(ring: Ring<L>, fraction: u32, limit: f64, value: f64) -> Result<L, Blame> {
    if !value.is_finite() {
        return Err(Blame::you(format!("{value}, which is not a finite number")));
    }
    if value.abs() > limit {
        return Err(Blame::you(format!("{value}, which lies beyond the declared range of -{limit} to {limit}")));
    }
    Ok(ring.element(round(value * power_of_two(fraction as i32)) as i64 as u64))
}

/// The number that `element` with `fraction` bits after the point stands for.
pub(crate) fn decode<L: Lane>(ring: Ring<L>, fraction: u32, element: L) -> f64 {
    ring.signed(element) as f64 * power_of_two(-(fraction as i32))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn known_answers() {
        let ring = Ring::<u64>::new(64).unwrap();
        let encode = |x| encode(ring, 2, 1e9, x).map(|e| ring.signed(e));
        for (x, expected) in [
            (0.0, 0),
            (0.125, 0),
            (0.375, 2),
            (0.625, 2),
            (-0.125, 0),
            (-0.375, -2),
            (1.0, 4),
            (-2.3, -9),
            (1e8, 400_000_000),
        ] {
            assert_eq!(encode(x), Ok(expected), "{x}");
        }
        for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1.1e9] {
            assert!(encode(bad).is_err());
        }
        assert_eq!(decode(ring, 2, ring.element(-9i64 as u64)), -2.25);
    }

    #[test]
    fn powers() {
        assert_eq!(power_of_two(-3), 0.125);
        assert_eq!(power_of_two(10), 1024.0);
    }
}
