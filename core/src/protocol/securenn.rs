//! SecureNN: products by Beaver triples, everything else by exact comparisons with the crypto producer's help.
//!
//! Sigmoid and tanh are splines: straight pieces between knots, chosen by comparisons with all knots at once. With b_i = 1
//! where x >= knot i, slope and height at zero are sums of the b_i with public factors, so a spline costs one comparison
//! for each knot and one product.

use alloc::vec;
use alloc::vec::Vec;

use crate::error::PlanError;
use crate::gates::local::{combine, concat, gather};
use crate::gates::low_bit::low_bit;
use crate::gates::maximum::{argmax, maximum};
use crate::gates::relu::{bit, drelu, relu};
use crate::plan::{Additive, Wire};
use crate::program::{Id, Node, Op};
use crate::protocol::approximate::{self, Function, Spline};
use crate::protocol::lowering::{Lowering, Value};

/// Comparisons that a spline may cost for each element.
const KNOTS: usize = 16;

pub(super) fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let candidates = l.program.node(operand).and_then(|node| node.shape.first().copied()).unwrap_or(1);
    match &node.op {
        Op::Sigmoid { .. } => spline(l, id, operand, Function::Sigmoid, &x),
        Op::Tanh { .. } => spline(l, id, operand, Function::Tanh, &x),
        op => {
            let wire = l.shares(&x)?;
            let (out, fraction) = match op {
                Op::Negative { .. } => {
                    let positive = drelu(&mut l.builder, wire);
                    (combine(&mut l.builder, &[(positive, -1)], 1), 0)
                }
                // 1 where neither x < 0 nor -x < 0.
                Op::EqualZero { .. } => {
                    let negated = combine(&mut l.builder, &[(wire, -1)], 0);
                    let (not_below, not_above) = (drelu(&mut l.builder, wire), drelu(&mut l.builder, negated));
                    (combine(&mut l.builder, &[(not_below, 1), (not_above, 1)], -1), 0)
                }
                Op::Bits { count, .. } => (bits(l, wire, *count), 0),
                Op::Relu { .. } => (relu(&mut l.builder, wire), x.fraction),
                // What is compared with its like leaves three bits free, for the difference.
                Op::Max { .. } => {
                    l.check_room(operand, x.fraction, 3)?;
                    (maximum(&mut l.builder, wire, candidates), x.fraction)
                }
                Op::ArgMax { .. } => {
                    l.check_room(operand, x.fraction, 3)?;
                    (argmax(&mut l.builder, wire, candidates), 0)
                }
                _ => return Err(l.unsupported(id, node)),
            };
            Ok(Value::private(out, fraction))
        }
    }
}

/// The lowest `count` bits of a number, one after the other.
fn bits(l: &mut Lowering<'_>, x: Wire<Additive>, count: u32) -> Wire<Additive> {
    let k = l.program.numbers().ring_bits;
    let b = &mut l.builder;
    // |x| < 2^(k-2): from bit k - 2 on, all bits are the sign's.
    let sign = (count > k - 2).then(|| {
        let positive = drelu(b, x);
        combine(b, &[(positive, -1)], 1)
    });
    let one = |b: &mut _, i: u32| match i {
        0 => low_bit(b, x),
        _ => bit(b, x, i),
    };
    let all: Vec<_> = (0..count).map(|i| sign.filter(|_| i >= k - 2).unwrap_or_else(|| one(b, i))).collect();
    concat(b, &all)
}

fn spline(l: &mut Lowering<'_>, id: Id, operand: Id, function: Function, x: &Value) -> Result<Value, PlanError> {
    let f = l.fraction();
    let limit = l.program.node(operand).map_or(1.0, |node| node.bound.limit());
    let Spline { knots, slopes, heights, error } = approximate::spline(function, limit, KNOTS);
    // Slopes, heights and knots are rounded, x too.
    let ulp = crate::fixed::power_of_two(-(f as i32));
    l.approximates(id, error + ulp * (2.0 + limit) * (1.0 + knots.len() as f64));
    l.check_room(operand, f, 3)?;

    let x = l.at(x, f)?;
    let wire = l.shares(&x)?;
    let n = l.builder.elements(&wire);
    // All comparisons at once: x beside every knot.
    let mut beside = Vec::with_capacity(knots.len());
    for knot in &knots {
        let knot = l.encode(*knot, f)?;
        beside.push(combine(&mut l.builder, &[(wire, 1)], -knot));
    }
    let beside = concat(&mut l.builder, &beside);
    let reached = drelu(&mut l.builder, beside);
    let reached: Vec<_> =
        (0..knots.len() as u32).map(|i| gather(&mut l.builder, reached, (i * n..(i + 1) * n).collect())).collect();
    let mut pieces = |values: &[f64], fraction: u32| -> Result<Wire<Additive>, PlanError> {
        let mut terms = vec![];
        let mut before = l.encode(values.first().copied().unwrap_or(0.0), fraction)?;
        let constant = before;
        for (bit, value) in reached.iter().zip(values.iter().skip(1)) {
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
