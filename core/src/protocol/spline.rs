//! Functions of one variable where comparisons are exact: straight pieces between knots, chosen by comparisons with all knots at once.
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

/// For all knots one after the other: 1 where x has reached it, and perhaps x there.
type Reached = (Wire<Additive>, Option<Wire<Additive>>);

/// The function that an operation is, if it is approximated by a spline.
pub(super) fn function(op: &Op) -> Option<Function<'_>> {
    match op {
        Op::Sigmoid { .. } => Some(Function::Sigmoid),
        Op::Tanh { .. } => Some(Function::Tanh),
        Op::Function { samples, .. } => Some(Function::Sampled(samples)),
        _ => None,
    }
}

/// `reached` is given x and x less each knot, and gives shares of 1 where the latter is not negative, and, if it can for less
/// than a product, of x there.
pub(super) fn lower(
    l: &mut Lowering<'_>,
    id: Id,
    operand: Id,
    function: Function<'_>,
    x: &Value,
    reached: impl FnOnce(&mut Lowering<'_>, &Value, &Value) -> Result<Reached, PlanError>,
) -> Result<Value, PlanError> {
    let f = l.fraction();
    let limit = l.program.node(operand).map_or(1.0, |node| node.bound.limit());
    let Spline { knots, slopes, heights, error } = approximate::spline(function, limit, KNOTS);
    // Slopes, heights and knots are rounded, x too.
    let ulp = power_of_two(-(f as i32));
    let steepest = slopes.iter().fold(1.0, |most: f64, slope| most.max(slope.abs()));
    l.approximates(id, error + ulp * (1.0 + steepest + limit) * (1.0 + knots.len() as f64));
    l.check_room(operand, f, 3)?;

    let x = l.at(x, f)?;
    let beside = knots.iter().map(|knot| l.weighted_at(&[(&x, 1)], -knot, f)).collect::<Result<Vec<_>, _>>()?;
    let beside = l.joined(&beside)?;
    let (all, times) = reached(l, &x, &beside)?;
    let n = l.builder.elements(&all) / (knots.len() as u32).max(1);
    // Σ step · knot's part of `all` + first.
    let pieces = |l: &mut Lowering<'_>, all: Wire<Additive>, steps: &[i64], first: i64| {
        let mut terms = Vec::with_capacity(steps.len());
        for (i, step) in (0..).zip(steps) {
            terms.push((gather(&mut l.builder, all, (i * n..(i + 1) * n).collect()), *step));
        }
        combine(&mut l.builder, &terms, first)
    };
    let steps = |l: &Lowering<'_>, values: &[f64], fraction: u32| -> Result<(i64, Vec<i64>), PlanError> {
        let values = values.iter().map(|x| l.encode(*x, fraction)).collect::<Result<Vec<_>, _>>()?;
        let steps = values.iter().zip(values.iter().skip(1)).map(|(before, after)| after - before).collect();
        Ok((values.first().copied().unwrap_or(0), steps))
    };
    let ((slope, slopes), (height, heights)) = (steps(l, &slopes, f)?, steps(l, &heights, 2 * f)?);
    let height = pieces(l, all, &heights, height);
    let rise = match times {
        Some(times) => {
            let rise = pieces(l, times, &slopes, 0);
            let x = l.shares(&x)?;
            combine(&mut l.builder, &[(rise, 1), (x, slope)], 0)
        }
        None => {
            let slope = pieces(l, all, &slopes, slope);
            let rise = l.times(id, &Value::private(slope, f), &x, n)?;
            l.shares(&rise)?
        }
    };
    Ok(Value::private(combine(&mut l.builder, &[(rise, 1), (height, 1)], 0), 2 * f))
}
