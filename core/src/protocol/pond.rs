//! Pond, TF Encrypted's SPDZ-style protocol: products by Beaver triples, activations by polynomials, nothing compared.
//!
//! An activation is a Chebyshev series fitted to the operand's bound R: in t = x / R, which lies in -1..1, and evaluated in
//! that basis, where nothing grows: T_{m+n} = 2·T_m·T_n - T_{|m-n|}. What is even is a series in u = 2t² - 1 alone, half as
//! long: |x| = R·P(u), tanh x = t·P(u), and any function P(u) + t·Q(u). The degree is the smallest that keeps the error
//! below a tolerance, or the one that is best with the rounding that it brings.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::program::{Id, Node, Op};
use crate::protocol::approximate::{self, Function, Part, Series};
use crate::protocol::lowering::{Lowering, Value};

pub(super) fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    // What is no straight line of f = E + t·O.
    let (function, parts): (_, &[Part]) = match &node.op {
        Op::Relu { .. } => (Function::Relu, &[Part::Even]),
        Op::Sigmoid { .. } => (Function::Sigmoid, &[Part::Odd]),
        Op::Tanh { .. } => (Function::Tanh, &[Part::Odd]),
        Op::Function { samples, .. } => (Function::Sampled(samples), &[Part::Even, Part::Odd]),
        _ => return Err(l.unsupported(id, node)),
    };
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let bound = l.program.node(operand).map(|node| node.bound).unwrap_or_default();
    let f = l.fraction();
    let ulp = power_of_two(-(f as i32));
    // t is off by its own scaling and truncation.
    let t_error = ulp * (1.0 + power_of_two(-bound.bits.min(0)));
    let series: Vec<_> =
        parts.iter().map(|part| (*part, approximate::series(function, *part, bound.limit(), t_error, ulp))).collect();
    let of = |part: Part| series.iter().find(|(this, _)| *this == part).map(|(_, series)| series);

    // t = x / R with R = eighths / 8 · 2^bits: the power of two only moves the point.
    let x = l.at(&x, f)?;
    let n = node.elements() as u32;
    let t = l.scaled(&x, 8.0 / f64::from(bound.eighths), bound.bits)?;
    let t = l.at(&t, f)?;
    let square = l.squared(id, &t)?;
    let u = l.weighted_at(&[(&square, 2)], -1.0, 2 * f)?;
    let u = l.at(&u, f)?;

    let mut basis = Basis(BTreeMap::from([(1, u)]));
    for degree in 2..series.iter().map(|(_, series)| series.coefficients.len()).max().unwrap_or(0) {
        basis.make(l, id, degree, n)?;
    }
    let even = of(Part::Even).map(|series| basis.sum(l, series)).transpose()?;
    let odd = match of(Part::Odd) {
        Some(series) => {
            let sum = basis.sum(l, series)?;
            let sum = l.at(&sum, f)?;
            Some(l.times(id, &t, &sum, n)?)
        }
        None => None,
    };
    let value = match (even, odd) {
        (Some(even), Some(odd)) => l.sum(&even, &odd)?,
        // x / 2 + R·|t| / 2
        (Some(even), None) => {
            let half = l.weighted_at(&[(&x, 1)], 0.0, f + 1)?;
            l.sum(&even, &half)?
        }
        (None, Some(odd)) => {
            let centre = if function == Function::Sigmoid { 0.5 } else { 0.0 };
            l.weighted_at(&[(&odd, 1)], centre, 2 * f)?
        }
        (None, None) => return Err(l.unsupported(id, node)),
    };
    let error = |series: &Series| series.error + series.rounding + series.largest() * t_error;
    l.approximates(id, series.iter().map(|(_, series)| error(series)).sum::<f64>() + 2.0 * ulp);
    Ok(value)
}

/// T_1(u), T_2(u), …, each with f bits after the point.
struct Basis(BTreeMap<usize, Value>);

impl Basis {
    /// Σ c_i·T_i(u), with 2f bits after the point.
    fn sum(&self, l: &mut Lowering<'_>, series: &Series) -> Result<Value, PlanError> {
        let fraction = 2 * l.fraction();
        // It may be truncated: it must fit.
        l.encode(series.largest(), fraction)?;
        let coefficients = &series.coefficients;
        let terms: Vec<_> = self
            .0
            .iter()
            .filter_map(|(degree, value)| coefficients.get(*degree).map(|coefficient| (value, *coefficient)))
            .collect();
        l.weighted(&terms, coefficients.first().copied().unwrap_or(0.0))
    }

    fn make(&mut self, l: &mut Lowering<'_>, id: Id, degree: usize, n: u32) -> Result<(), PlanError> {
        if self.0.contains_key(&degree) {
            return Ok(());
        }
        // Halves keep the depth at the logarithm of the degree.
        let (high, low) = (degree.div_ceil(2), degree / 2);
        self.make(l, id, high, n)?;
        self.make(l, id, low, n)?;
        let f = l.fraction();
        let missing = || PlanError::Program("a series without its basis".into());
        let (high_value, low_value) =
            (self.0.get(&high).ok_or_else(missing)?.clone(), self.0.get(&low).ok_or_else(missing)?.clone());
        let value = if high == low {
            let square = l.squared(id, &high_value)?;
            l.weighted_at(&[(&square, 2)], -1.0, 2 * f)?
        } else {
            // high - low = 1
            let first = self.0.get(&1).ok_or_else(missing)?.clone();
            let product = l.times(id, &high_value, &low_value, n)?;
            let first = l.at(&first, 2 * f)?;
            l.weighted_at(&[(&product, 2), (&first, -1)], 0.0, 2 * f)?
        };
        let value = l.at(&value, f)?;
        self.0.insert(degree, value);
        Ok(())
    }
}
