//! Sigmoid and tanh where comparisons are exact: straight pieces between knots, chosen by comparisons with all knots at once.
//!
//! With b_i = 1 where x >= knot i, slope and height are sums of the b_i with public factors, so a spline costs one
//! comparison for each knot and one product.

use alloc::vec::Vec;

use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::gates::local::{combine, gather};
use crate::plan::{Additive, Wire};
use crate::program::{Id, Op};
use crate::protocol::approximate::{self, Function, Spline};
use crate::protocol::lowering::{Lowering, Value};

/// Comparisons that a spline may cost for each element.
const KNOTS: usize = 16;

/// The function that an operation is, if it is approximated by a spline.
pub(super) fn function(op: &Op) -> Option<Function> {
    match op {
        Op::Sigmoid { .. } => Some(Function::Sigmoid),
        Op::Tanh { .. } => Some(Function::Tanh),
        _ => None,
    }
}

/// `reached` gives shares of 1 where a value is not negative.
pub(super) fn lower(
    l: &mut Lowering<'_>,
    id: Id,
    operand: Id,
    function: Function,
    x: &Value,
    reached: impl FnOnce(&mut Lowering<'_>, &Value) -> Result<Wire<Additive>, PlanError>,
) -> Result<Value, PlanError> {
    let f = l.fraction();
    let limit = l.program.node(operand).map_or(1.0, |node| node.bound.limit());
    let Spline { knots, slopes, heights, error } = approximate::spline(function, limit, KNOTS);
    // Slopes, heights and knots are rounded, x too.
    let ulp = power_of_two(-(f as i32));
    l.approximates(id, error + ulp * (2.0 + limit) * (1.0 + knots.len() as f64));
    l.check_room(operand, f, 3)?;

    let x = l.at(x, f)?;
    let beside = knots.iter().map(|knot| l.weighted_at(&[(&x, 1)], -knot, f)).collect::<Result<Vec<_>, _>>()?;
    let beside = l.joined(&beside)?;
    let all = reached(l, &beside)?;
    let n = l.builder.elements(&all) / (knots.len() as u32).max(1);
    let mut bits = Vec::with_capacity(knots.len());
    for i in 0..knots.len() as u32 {
        bits.push(gather(&mut l.builder, all, (i * n..(i + 1) * n).collect()));
    }
    let mut pieces = |values: &[f64], fraction: u32| -> Result<Wire<Additive>, PlanError> {
        let mut terms = Vec::new();
        let mut before = l.encode(values.first().copied().unwrap_or(0.0), fraction)?;
        let constant = before;
        for (bit, value) in bits.iter().zip(values.iter().skip(1)) {
            let value = l.encode(*value, fraction)?;
            terms.push((*bit, value - before));
            before = value;
        }
        Ok(combine(&mut l.builder, &terms, constant))
    };
    let (slope, height) = (pieces(&slopes, f)?, pieces(&heights, 2 * f)?);
    let rise = l.times(id, &Value::private(slope, f), &x, n)?;
    let rise = l.shares(&rise)?;
    Ok(Value::private(combine(&mut l.builder, &[(rise, 1), (height, 1)], 0), 2 * f))
}
