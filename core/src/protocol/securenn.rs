//! SecureNN: products by Beaver triples, everything else by exact comparisons with the crypto producer's help.

use alloc::vec::Vec;

use crate::error::PlanError;
use crate::gates::local::{combine, concat};
use crate::gates::low_bit::low_bit;
use crate::gates::maximum::{argmax, maximum};
use crate::gates::relu::{bit, drelu, relu};
use crate::plan::{Additive, Wire};
use crate::program::{Id, Node, Op};
use crate::protocol::lowering::{Lowering, Value};
use crate::protocol::spline;

pub(super) fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let candidates = l.program.node(operand).and_then(|node| node.shape.first().copied()).unwrap_or(1);
    if let Some(function) = spline::function(&node.op) {
        return spline::lower(l, id, operand, function, &x, |l, _, beside| {
            let beside = l.shares(beside)?;
            Ok((drelu(&mut l.builder, beside), None))
        });
    }
    let wire = l.shares(&x)?;
    let (out, fraction) = match &node.op {
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
