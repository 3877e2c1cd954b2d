//! Functions of one variable, as data.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// Points of a function that is written in a program.
const POINTS: u16 = 1025;
/// Points that a program from outside may have for one function.
const MOST: usize = 4097;
/// Values, and ends of ranges, are smaller.
const LARGEST: f64 = (1u64 << 40) as f64;
/// Points are at least so far apart.
const NEAREST: f64 = 1.0 / (1u64 << 40) as f64;

/// A function by its values at evenly spaced points: straight between neighbours, and straight on beyond the first and the
/// last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    low: f64,
    high: f64,
    values: Vec<f64>,
}

impl Samples {
    /// `function` at 1025 points of a range, both ends among them.
    ///
    /// # Errors
    /// The range is empty, or a value is not finite or not below 2^40.
    pub fn of([low, high]: [f64; 2], function: impl Fn(f64) -> f64) -> Result<Self, String> {
        let at = |i: u16| low + (high - low) * f64::from(i) / f64::from(POINTS - 1);
        let samples = Self { low, high, values: (0..POINTS).map(|i| function(at(i))).collect() };
        samples.check().map(|()| samples)
    }

    /// What [`Samples::of`] would not have made is refused.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { low, high, values } = self;
        if !(low.abs() < LARGEST && high.abs() < LARGEST && low < high) {
            return Err(format!("the range {low} to {high} must be two numbers below 2^40, the smaller first"));
        }
        if !(2..=MOST).contains(&values.len()) {
            return Err(format!("a function is given by 2 to {MOST} values, not {}", values.len()));
        }
        if self.spacing() < NEAREST {
            return Err(format!("points between {low} and {high} would be less than 2^-40 apart"));
        }
        match values.iter().find(|y| !y.is_finite() || y.abs() >= LARGEST) {
            Some(y) => Err(format!("a value between {low} and {high} is {y}: all must be numbers below 2^40")),
            None => Ok(()),
        }
    }

    /// How far apart the points are.
    pub(crate) fn spacing(&self) -> f64 {
        (self.high - self.low) / self.values.len().saturating_sub(1).max(1) as f64
    }

    /// The points.
    pub(crate) fn points(&self) -> impl Iterator<Item = f64> {
        (0..self.values.len()).map(|i| self.low + self.spacing() * i as f64)
    }

    /// The function's value, anywhere.
    pub(crate) fn at(&self, x: f64) -> f64 {
        let place = (x - self.low) / self.spacing();
        // NaN counts as the first place.
        let first = (libm::floor(place).max(0.0) as usize).min(self.values.len().saturating_sub(2));
        match self.values.get(first..).unwrap_or_default() {
            [a, b, ..] => a + (place - first as f64) * (b - a),
            _ => 0.0,
        }
    }

    /// The smallest and the largest value between two numbers.
    pub(crate) fn extremes(&self, low: f64, high: f64) -> [f64; 2] {
        let inside = self.points().zip(&self.values).filter(|(x, _)| (low..=high).contains(x)).map(|(_, y)| *y);
        inside
            .chain([self.at(low), self.at(high)])
            .fold([f64::INFINITY, f64::NEG_INFINITY], |[least, most], y| [least.min(y), most.max(y)])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn a_function_is_straight_between_its_points_and_beyond() {
        let square = Samples::of([-2.0, 2.0], |x| x * x).unwrap();
        for x in square.points() {
            assert_eq!(square.at(x), x * x);
        }
        let h = square.spacing();
        assert_eq!(h, 4.0 / 1024.0);
        // In the middle of a piece a parabola is off by h²/4, everywhere the same.
        for i in 0..1024 {
            let x = -2.0 + (f64::from(i) + 0.5) * h;
            assert!((square.at(x) - x * x - h * h / 4.0).abs() < 1e-12, "{x}");
        }
        // Straight on with the last slope, 4 - h.
        assert!((square.at(5.0) - (4.0 + 3.0 * (4.0 - h))).abs() < 1e-12);
        assert_eq!(square.at(-5.0), square.at(5.0));
        assert_eq!(square.extremes(-1.0, 0.5), [0.0, 1.0]);
        assert_eq!(square.extremes(0.5, 0.5), [0.25, 0.25]);
        assert_eq!(square.extremes(-3.0, 0.0), [0.0, square.at(3.0)]);
    }

    #[test]
    fn what_is_no_function_is_refused() {
        for ([low, high], function) in [
            ([1.0, 1.0], libm::exp as fn(f64) -> f64),
            ([1.0, 0.0], libm::exp),
            ([f64::NAN, 0.0], libm::exp),
            ([0.0, f64::INFINITY], libm::exp),
            ([0.0, 1e-12], libm::exp),
            ([0.0, 100.0], libm::exp),
            ([-1.0, 1.0], libm::log),
        ] {
            assert!(Samples::of([low, high], function).is_err(), "{low} {high}");
        }
        for count in [0, 1, MOST + 1] {
            let samples = Samples { low: 0.0, high: 1.0, values: alloc::vec![0.0; count] };
            assert!(samples.check().is_err() && samples.at(0.5) == 0.0);
        }
        let line = Samples { low: 0.0, high: 1.0, values: alloc::vec![1.0, 3.0] };
        assert!(line.check().is_ok());
        assert_eq!([line.at(-1.0), line.at(0.25), line.at(2.0)], [-1.0, 1.5, 5.0]);
        assert_eq!(line.at(f64::NAN).to_bits() & f64::INFINITY.to_bits(), f64::INFINITY.to_bits());
    }
}
