//! Pond, TF Encrypted's SPDZ-style protocol: products by Beaver triples, activations by polynomials, nothing compared.
//!
//! An activation is a Chebyshev series fitted to the operand's bound R: in t = x / R, which lies in -1..1, and evaluated in
//! that basis, where nothing grows: T_{m+n} = 2·T_m·T_n - T_{|m-n|}. What is even or odd is a series in u = 2t² - 1 alone,
//! half as long: |x| = R·P(u), and tanh x = t·P(u). The degree is the smallest that keeps the error below a tolerance, or
//! the one that is best with the rounding that it brings.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::program::{Id, Node, Op};
use crate::protocol::approximate::{self, Function, Series};
use crate::protocol::lowering::{Lowering, Value};

pub(super) fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    let function = match node.op {
        Op::Relu { .. } => Function::Relu,
        Op::Sigmoid { .. } => Function::Sigmoid,
        Op::Tanh { .. } => Function::Tanh,
        _ => return Err(l.unsupported(id, node)),
    };
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let bound = l.program.node(operand).map(|node| node.bound).unwrap_or_default();
    let f = l.fraction();
    let ulp = power_of_two(-(f as i32));
    // Rounding: t is off by its own scaling and truncation, u by four times that and a truncation, and so on up the basis.
    let t_error = ulp * (1.0 + power_of_two(-bound.bits.min(0)));
    let Series { coefficients, error, rounding } = approximate::series(function, bound.limit(), t_error, ulp);

    // t = x / R with R = eighths / 8 · 2^bits: the power of two only moves the point.
    let x = l.at(&x, f)?;
    let n = node.elements() as u32;
    let t = l.scaled(&x, 8.0 / f64::from(bound.eighths), bound.bits)?;
    let t = l.at(&t, f)?;
    let square = l.squared(id, &t)?;
    let u = l.weighted_at(&[(&square, 2)], -1.0, 2 * f)?;
    let u = l.at(&u, f)?;

    let mut basis = Basis(BTreeMap::from([(1, u)]));
    for degree in 2..coefficients.len() {
        basis.make(l, id, degree, n)?;
    }
    let terms: Vec<_> = basis
        .0
        .iter()
        .filter_map(|(degree, value)| coefficients.get(*degree).map(|coefficient| (value, *coefficient)))
        .collect();
    let even = l.weighted(&terms, coefficients.first().copied().unwrap_or(0.0))?;
    let value = match function {
        // x / 2 + R·|t| / 2
        Function::Relu => {
            let half = l.weighted_at(&[(&x, 1)], 0.0, f + 1)?;
            l.sum(&even, &half)?
        }
        // 1/2 + t·P(u), and t·P(u).
        Function::Sigmoid | Function::Tanh => {
            let even = l.at(&even, f)?;
            let odd = l.times(id, &t, &even, n)?;
            let centre = if function == Function::Sigmoid { 0.5 } else { 0.0 };
            l.weighted_at(&[(&odd, 1)], centre, 2 * f)?
        }
    };
    let largest: f64 = coefficients.iter().map(|c| c.abs()).sum();
    l.approximates(id, error + rounding + 2.0 * ulp + largest * t_error);
    Ok(value)
}

/// T_1(u), T_2(u), …, each with f bits after the point.
struct Basis(BTreeMap<usize, Value>);

impl Basis {
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
