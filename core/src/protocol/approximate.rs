//! Functions that are not computed but approximated, found when a plan is made.
//!
//! Every party plans for itself and must find the same, so the arithmetic is IEEE's and the functions are libm's, which is
//! the same code on every machine.

use alloc::vec;
use alloc::vec::Vec;

use crate::fixed::power_of_two;
use crate::program::Samples;

/// Points at which errors are measured.
const GRID: usize = 4096;

/// What is approximated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function<'a> {
    Relu,
    Sigmoid,
    Tanh,
    Sampled(&'a Samples),
}

/// A half of a function f of t = x / limit, f = E + t·O, where E and O are even, so that both are series in t² alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// E(t) = (f(t) + f(-t)) / 2.
    Even,
    /// O(t) = (f(t) - f(-t)) / 2t.
    Odd,
}

impl Part {
    /// How much an error of the half counts at t.
    fn weight(self, t: f64) -> f64 {
        match self {
            Part::Even => 1.0,
            Part::Odd => t,
        }
    }
}

impl Function<'_> {
    fn value(self, x: f64) -> f64 {
        match self {
            Function::Relu => x.max(0.0),
            Function::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
            Function::Tanh => libm::tanh(x),
            Function::Sampled(samples) => samples.at(x),
        }
    }

    /// The degree of a series in u = 2t² - 1 is at most this: a polynomial of twice the degree in t. |t| has a corner, and its
    /// error falls as slowly as the degree rises; a power of two makes the most of the rounds. The others bend the more sharply
    /// the larger the bound.
    fn most(self) -> usize {
        match self {
            Function::Relu => 32,
            Function::Sigmoid | Function::Tanh | Function::Sampled(_) => 28,
        }
    }

    /// The error that is good enough, for operands up to `limit`.
    fn tolerance(self, limit: f64) -> f64 {
        match self {
            Function::Relu => limit / 256.0,
            Function::Sigmoid | Function::Tanh => 1.0 / 256.0,
            Function::Sampled(samples) => {
                let [low, high] = samples.extremes(-limit, limit);
                (high - low) / 256.0
            }
        }
    }

    /// The slope at 0.
    fn slope(self) -> f64 {
        match self {
            Function::Relu => 0.5,
            Function::Sigmoid => 0.25,
            Function::Tanh => 1.0,
            Function::Sampled(samples) => {
                let h = samples.spacing() / 2.0;
                (samples.at(h) - samples.at(-h)) / (2.0 * h)
            }
        }
    }

    /// A half at t = x / limit.
    fn half(self, part: Part, limit: f64, t: f64) -> f64 {
        let (there, opposite) = (self.value(limit * t), self.value(-limit * t));
        match part {
            Part::Even => (there + opposite) / 2.0,
            Part::Odd if t == 0.0 => limit * self.slope(),
            Part::Odd => (there - opposite) / (2.0 * t),
        }
    }

    /// The function bends between -reach and reach, and hardly beyond.
    fn reach(self) -> f64 {
        match self {
            Function::Relu => 0.0,
            Function::Sigmoid => 8.0,
            Function::Tanh => 4.0,
            Function::Sampled(samples) => samples.points().fold(0.0, |most, x| x.abs().max(most)),
        }
    }

    /// Slope and height of the straight line that the function is beyond x.
    fn beyond(self, x: f64) -> (f64, f64) {
        match self {
            Function::Relu | Function::Sigmoid | Function::Tanh => (0.0, self.value(x)),
            Function::Sampled(_) => {
                let slope = (self.value(2.0 * x) - self.value(x)) / x;
                (slope, self.value(x) - slope * x)
            }
        }
    }
}

/// Σ coefficients\[i\]·T_i(u).
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) coefficients: Vec<f64>,
    /// The largest error of the function itself, in exact arithmetic.
    pub(crate) error: f64,
    /// The largest error of the sum, where it is rounded.
    pub(crate) rounding: f64,
}

impl Series {
    /// The sum is at most this.
    pub(crate) fn largest(&self) -> f64 {
        self.coefficients.iter().map(|c| c.abs()).sum()
    }
}

/// How far T_i(u) may be off, for i up to `degree`, where u is off by `first`, T_i is 2·T_⌈i/2⌉·T_⌊i/2⌋ - T_(0 or 1), and every
/// product is rounded by `ulp`.
fn drift(degree: usize, first: f64, ulp: f64) -> Vec<f64> {
    let mut errors = vec![0.0, first];
    for i in 2..=degree {
        let error = |i: usize| errors.get(i).copied().unwrap_or(f64::INFINITY);
        let (high, low) = (error(i.div_ceil(2)), error(i / 2));
        errors.push(2.0 * (high + low + high * low) + error(i % 2) + ulp);
    }
    errors
}

/// Fits a half of `function` for |x| <= `limit`, to be summed with an `ulp` of rounding for each product and term and
/// with t off by `first`. The degree is the smallest whose series meets the tolerance, or the one that is best when it is
/// rounded as it will be: what a term more improves, its rounding may undo. (What rounding does at worst is too much to go by:
/// all of it would have to add up.)
pub(crate) fn series(function: Function<'_>, part: Part, limit: f64, first: f64, ulp: f64) -> Series {
    const NODES: usize = 256;
    // T_i at Chebyshev's nodes is a cosine, so coefficients are sums of cosines (Clenshaw and Curtis).
    let angle = |node: usize| core::f64::consts::PI * (node as f64 + 0.5) / NODES as f64;
    let samples: Vec<f64> = (0..NODES)
        .map(|node| function.half(part, limit, libm::sqrt(((libm::cos(angle(node)) + 1.0) / 2.0).max(0.0))))
        .collect();
    let coefficient = |degree: usize| {
        let sum: f64 = samples.iter().enumerate().map(|(node, g)| g * libm::cos(degree as f64 * angle(node))).sum();
        sum * if degree == 0 { 1.0 } else { 2.0 } / NODES as f64
    };
    let most = function.most();
    let mut coefficients: Vec<f64> = (0..=most).map(coefficient).collect();
    let exact = errors(function, part, limit, &coefficients, 0.0, 0.0);
    let rounded = errors(function, part, limit, &coefficients, first, ulp);
    let mut best = (0, f64::INFINITY);
    for (degree, (error, rounded)) in exact.iter().zip(&rounded).enumerate().skip(1) {
        if *rounded < best.1 {
            best = (degree, *rounded);
        }
        if *error <= function.tolerance(limit) {
            break;
        }
    }
    coefficients.truncate(best.0 + 1);
    let rounding =
        coefficients.iter().zip(drift(best.0, 4.0 * first + ulp, ulp)).skip(1).map(|(c, e)| c.abs() * e + ulp);
    Series { error: exact.get(best.0).copied().unwrap_or(f64::INFINITY), rounding: rounding.sum(), coefficients }
}

/// The largest error on a grid, of the sum of the first `degree` terms for each degree, where t is off by `first` and every
/// product and coefficient is rounded down to a multiple of `ulp`.
fn errors(function: Function<'_>, part: Part, limit: f64, coefficients: &[f64], first: f64, ulp: f64) -> Vec<f64> {
    let down = |value: f64| if ulp == 0.0 { value } else { libm::floor(value / ulp) * ulp };
    let mut errors = vec![0.0f64; coefficients.len()];
    let mut basis = vec![1.0; coefficients.len()];
    for i in 0..=GRID {
        let t = i as f64 / GRID as f64;
        let (exact, weight) = (function.half(part, limit, t), part.weight(t));
        let mut sum = 0.0;
        for (degree, (c, error)) in coefficients.iter().zip(&mut errors).enumerate() {
            let of = |degree: usize| basis.get(degree).copied().unwrap_or(0.0);
            let value = match degree {
                0 => 1.0,
                1 => down(2.0 * (t - first) * (t - first) - 1.0),
                _ => down(2.0 * of(degree.div_ceil(2)) * of(degree / 2) - of(degree % 2)),
            };
            if let Some(place) = basis.get_mut(degree) {
                *place = value;
            }
            sum += down(*c) * value;
            *error = error.max((sum - exact).abs() * weight);
        }
    }
    errors
}

/// Σ c_i·T_i(u).
#[cfg(test)]
fn clenshaw(coefficients: &[f64], u: f64) -> f64 {
    let (mut next, mut after) = (0.0, 0.0);
    for c in coefficients.iter().skip(1).rev() {
        (next, after) = (2.0 * u * next - after + c, next);
    }
    coefficients.first().copied().unwrap_or(0.0) + u * next - after
}

/// slopes\[i\]·x + heights\[i\] from the i-th knot on; the first piece lies before all knots.
#[derive(Clone, Debug)]
pub(crate) struct Spline {
    pub(crate) knots: Vec<f64>,
    pub(crate) slopes: Vec<f64>,
    pub(crate) heights: Vec<f64>,
    /// The largest error, in exact arithmetic.
    pub(crate) error: f64,
}

/// Straight pieces between `count` knots on |x| <= `limit`, and straight on beyond where the function hardly bends any more.
pub(crate) fn spline(function: Function<'_>, limit: f64, count: usize) -> Spline {
    let reach = limit.min(function.reach());
    let at = |i: usize| -reach + 2.0 * reach * i as f64 / GRID as f64;
    // A straight piece of length h is off by h²·|f''| / 8: knots are dense where √|f''| is large.
    let step = (2.0 * reach / GRID as f64).max(1e-3);
    // What is given at points bends in these alone.
    let step = if let Function::Sampled(samples) = function { step.max(samples.spacing()) } else { step };
    let bend = |i: usize| {
        let (x, h) = (at(i), step);
        let second = (function.value(x + h) - 2.0 * function.value(x) + function.value(x - h)) / (h * h);
        libm::sqrt(second.abs()) + 0.01
    };
    let total: f64 = (0..GRID).map(bend).sum();
    let (mut knots, mut sum) = (vec![-reach], 0.0);
    for i in 0..GRID {
        sum += bend(i);
        if knots.len() < count - 1 && sum >= total * knots.len() as f64 / (count - 1) as f64 {
            knots.push(at(i + 1));
        }
    }
    knots.push(reach);
    let (slope, height) = function.beyond(-reach);
    let (mut slopes, mut heights) = (vec![slope], vec![height]);
    for pair in knots.windows(2) {
        if let [a, b] = pair {
            let slope = (function.value(*b) - function.value(*a)) / (b - a);
            slopes.push(slope);
            heights.push(function.value(*a) - slope * a);
        }
    }
    let (slope, height) = function.beyond(reach);
    slopes.push(slope);
    heights.push(height);
    let spline = |x: f64| {
        let piece = knots.iter().filter(|knot| x >= **knot).count();
        slopes.get(piece).copied().unwrap_or(0.0) * x + heights.get(piece).copied().unwrap_or(0.0)
    };
    let off = |x: f64| (spline(x) - function.value(x)).abs();
    let grid = (0..=GRID).map(at).chain([-limit, limit]).map(off).fold(0.0, f64::max);
    let error = match function {
        // Two functions of straight pieces are the furthest apart at ends of pieces.
        Function::Sampled(samples) => samples.points().filter(|x| x.abs() <= limit).map(off).fold(grid, f64::max),
        _ => grid,
    };
    Spline { knots, slopes, heights, error }
}

/// The function's values at j·2^below, of an operand's integers, for 2^w numbers j around 0: at place j mod 2^w.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) below: u32,
    pub(crate) values: Vec<f64>,
    /// The largest difference to either neighbour, between which an operand lies: 0 where operands are hit exactly.
    pub(crate) error: f64,
}

/// The smallest table of at most 2^`most` values for |x| <= `limit` with `fraction` bits after the point whose error is at most
/// `good`, if there is one. It reaches one value further than it must: what is computed may be off by a rounding.
pub(crate) fn table(function: Function<'_>, limit: f64, fraction: u32, most: u32, good: f64) -> Option<Table> {
    (3..=most).find_map(|bits| {
        let half = 1i32 << (bits - 1);
        let reach = f64::from(half - 2);
        let largest = limit * power_of_two(fraction as i32);
        let below = (0..62).find(|below| reach * power_of_two(*below) >= largest)?;
        let value = |j: i32| function.value(f64::from(j) * power_of_two(below - fraction as i32));
        let apart = (1 - half..half - 1).map(|j| (value(j + 1) - value(j)).abs()).fold(0.0, f64::max);
        let error = if below == 0 { 0.0 } else { apart };
        let values = (0..half).chain(-half..0).map(value).collect();
        (error <= good).then_some(Table { below: below as u32, values, error })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;

    /// The half that is not a straight line.
    fn part(function: Function<'_>) -> Part {
        if function == Function::Relu { Part::Even } else { Part::Odd }
    }

    /// Functions of all kinds: bumps, steep ones, with corners, unbounded, given on one side of 0 only.
    fn sampled() -> Vec<Samples> {
        let function = |range, function: fn(f64) -> f64| Samples::of(range, function).unwrap();
        vec![
            function([-4.0, 4.0], |x| 1.0 / (1.0 + x * x)),
            function([-8.0, 8.0], |x| x / (1.0 + libm::exp(-1.702 * x))),
            function([-2.0, 2.0], libm::exp),
            function([-3.0, 3.0], |x| (x - 1.0).abs()),
            function([-1.0, 1.0], |x| libm::tanh(20.0 * x)),
            function([0.5, 4.0], |x| 1.0 / x),
        ]
    }

    #[test]
    fn series_of_any_function_are_as_good_as_they_say() {
        for samples in sampled() {
            let function = Function::Sampled(&samples);
            for limit in [0.5, 3.0, 6.0] {
                let [even, odd] = [Part::Even, Part::Odd].map(|part| series(function, part, limit, 0.0, 0.0));
                for i in -1000..=1000 {
                    let t = f64::from(i) / 1000.0;
                    let of = |half: &Series| clenshaw(&half.coefficients, 2.0 * t * t - 1.0);
                    let off = (of(&even) + t * of(&odd) - samples.at(limit * t)).abs();
                    assert!(off <= 1.01 * (even.error + odd.error) + 1e-9, "{limit} {t}: {off}");
                }
            }
        }
        // Where the function is smooth, few terms are good.
        let bump = Function::Sampled(&sampled()[0]);
        let series = series(bump, Part::Even, 4.0, 0.0, 0.0);
        assert!(series.error < 1.0 / 256.0 && series.coefficients.len() < 20, "{series:?}");
    }

    #[test]
    fn series_are_as_good_as_they_say() {
        for function in [Function::Relu, Function::Sigmoid, Function::Tanh] {
            for limit in [0.5, 1.0, 3.0, 8.0, 12.5] {
                let Series { coefficients, error, rounding } = series(function, part(function), limit, 0.0, 0.0);
                assert_eq!(rounding, 0.0);
                let mut worst = 0.0f64;
                for i in -1000..=1000 {
                    let (t, x) = (f64::from(i) / 1000.0, limit * f64::from(i) / 1000.0);
                    let even = clenshaw(&coefficients, 2.0 * t * t - 1.0);
                    let value = match function {
                        Function::Relu => x / 2.0 + even,
                        Function::Sigmoid => 0.5 + t * even,
                        _ => t * even,
                    };
                    worst = worst.max((value - function.value(x)).abs());
                }
                assert!(worst <= error * 1.001 + 1e-12, "{function:?} {limit}: {worst} {error}");
                assert!(coefficients.len() > function.most() || error <= function.tolerance(limit));
            }
        }
        assert!(series(Function::Sigmoid, Part::Odd, 8.0, 0.0, 0.0).error < 0.01);
        assert!(series(Function::Relu, Part::Even, 8.0, 0.0, 0.0).error < 0.05);
    }

    #[test]
    fn coarser_numbers_have_shorter_series() {
        let of = |bits: i32| {
            let Series { coefficients, error, .. } =
                series(Function::Relu, Part::Even, 8.0, power_of_two(-bits), power_of_two(-bits));
            (coefficients.len() - 1, error)
        };
        let all = [4, 6, 8, 16].map(of);
        assert!(all.is_sorted_by(|a, b| a.0 <= b.0 && a.1 >= b.1), "{all:?}");
        assert!(all[0].0 < 16 && all[3].0 == 32, "{all:?}");
    }

    #[test]
    fn as_many_terms_are_taken_as_help() {
        // One term more or less than the chosen ones is no better once it is rounded, where the tolerance is out of reach.
        for (function, limit, bits) in
            [(Function::Relu, 8.0, 8), (Function::Relu, 64.0, 8), (Function::Sigmoid, 40.0, 10)]
        {
            let ulp = power_of_two(-bits);
            let chosen = series(function, part(function), limit, ulp, ulp).coefficients;
            let all = series(function, part(function), limit, 0.0, 0.0).coefficients;
            assert!(all.starts_with(&chosen), "{function:?} {limit}");
            let rounded = errors(function, part(function), limit, &all, ulp, ulp);
            assert!(
                rounded.iter().all(|error| *error >= rounded[chosen.len() - 1]),
                "{function:?} {limit}: {rounded:?}"
            );
        }
    }

    #[test]
    fn rounding_drifts_no_further_than_it_says() {
        // u off by its most, and every product rounded to a grid: what comes of it beside the cosine.
        let (ulp, first, most) = (power_of_two(-10), 3.0 * power_of_two(-10), 32);
        let errors = drift(most, first, ulp);
        for step in 0..200 {
            let exact = f64::from(step) / 100.0 - 0.995;
            for u in [exact - first, exact + first] {
                let mut values = vec![1.0, u];
                for i in 2..=most {
                    let value = 2.0 * values[i.div_ceil(2)] * values[i / 2] - values[i % 2];
                    values.push(libm::floor(value / ulp) * ulp);
                }
                for (i, (value, error)) in values.iter().zip(&errors).enumerate() {
                    let off = (value - libm::cos(i as f64 * libm::acos(exact))).abs();
                    assert!(off <= error + 1e-12, "T_{i}({exact}) is off by {off}, not {error}");
                }
            }
        }
    }

    #[test]
    fn splines_are_as_good_as_they_say() {
        for (function, good) in [(Function::Sigmoid, 0.01), (Function::Tanh, 0.015)] {
            for limit in [0.5, 3.0, 20.0] {
                let spline = spline(function, limit, 16);
                assert_eq!((spline.knots.len(), spline.slopes.len(), spline.heights.len()), (16, 17, 17));
                assert!(spline.knots.is_sorted());
                assert!(spline.error < good, "{function:?} {limit}: {}", spline.error);
            }
        }
        for samples in sampled() {
            for limit in [0.5, 3.0, 20.0] {
                let Spline { knots, slopes, heights, error } = spline(Function::Sampled(&samples), limit, 16);
                let [low, high] = samples.extremes(-limit, limit);
                assert!(error <= 0.04 * (high - low), "{limit}: {error} of {low} to {high}");
                for i in -997..=997 {
                    let x = limit * f64::from(i) / 997.0;
                    let piece = knots.iter().filter(|knot| x >= **knot).count();
                    let off = (slopes[piece] * x + heights[piece] - samples.at(x)).abs();
                    assert!(off <= error + 1e-9, "{limit} {x}: {off} beyond {error}");
                }
            }
        }
    }

    #[test]
    fn tables_are_as_good_as_they_say_and_no_larger_than_they_must_be() {
        for (function, steepest) in [(Function::Sigmoid, 0.25), (Function::Tanh, 1.0)] {
            for (limit, fraction) in [(0.5, 20), (2.0, 10), (3.9, 32), (7.9, 20)] {
                let Table { below, values, error } = table(function, limit, fraction, 12, 1.0 / 128.0).unwrap();
                let (half, step) = (values.len() as i32 / 2, power_of_two(below as i32 - fraction as i32));
                assert!(f64::from(half - 2) * step >= limit && error <= steepest * step && error <= 1.0 / 128.0);
                for i in -1000..=1000 {
                    let x = limit * f64::from(i) / 1000.0;
                    for j in [0, 1].map(|up| libm::floor(x / step) as i32 + up) {
                        let read = values[j.rem_euclid(2 * half) as usize];
                        assert!((read - function.value(x)).abs() <= error, "{function:?} {limit}: {x} {j}");
                    }
                }
                let smaller = table(function, limit, fraction, values.len().ilog2() - 1, 1.0 / 128.0);
                assert!(smaller.is_none(), "{function:?} {limit}");
            }
        }
        assert!(table(Function::Tanh, 30.0, 10, 10, 1.0 / 128.0).is_none());
        let exact = table(Function::Tanh, 3.0, 0, 10, 0.0).unwrap();
        assert_eq!((exact.below, exact.values.len(), exact.error), (0, 16, 0.0));
    }
}
