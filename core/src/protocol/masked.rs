//! Masked wires with dealt comparisons: the crypto producer's work is done before the question is asked.
//!
//! A hidden wire is opened once under its mask. That one opening serves its truncation, its sign and every comparison with
//! other wires, whose differences are masked too: what is said beyond it is a bit or two for each comparison. ReLU is fused
//! with the truncation that the next product wants.

use alloc::vec::Vec;

use crate::compare::hash::HashKind;
use crate::error::PlanError;
use crate::gates::compare_dpf;
use crate::gates::compare_table::{self, MaskedBit};
use crate::gates::local::{combine, concat, constant, gather};
use crate::gates::mask::mask;
use crate::gates::product::select_share;
use crate::gates::select_masked::{lift_bit, select_masked};
use crate::plan::{Additive, Builder, Masked, Wire};
use crate::program::{Id, Node, Op};
use crate::protocol::lowering::{Lowering, Value};
use crate::protocol::spline;

/// How bits of masked wires are compared out of them.
pub(super) type Bit = fn(&mut Builder, Masked, u32) -> MaskedBit;

/// `table`: comparisons by dealt tables.
pub(super) fn table(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    nonlinear(l, id, node, x, compare_table::bit)
}

/// `fss`: comparisons by function secret sharing.
pub(super) fn fss(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    nonlinear(l, id, node, x, |b, z, position| compare_dpf::bit(b, z, position, HashKind::Aes))
}

fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value, bit: Bit) -> Result<Value, PlanError> {
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let candidates = l.program.node(operand).and_then(|node| node.shape.first().copied()).unwrap_or(1);
    if let Some(function) = spline::function(&node.op) {
        // One opening serves all knots: what is taken away from x leaves its mask what it is.
        let x = l.at(&x, l.fraction())?;
        let x = Value::masked(l.masked(id, &x)?, x.fraction);
        let width = l.magnitude_bits(operand, x.fraction) + 1;
        return spline::lower(l, id, operand, function, &x, |l, beside| {
            let (masked, position) = (l.masked(id, beside)?, l.position(width));
            let below = bit(&mut l.builder, masked, position);
            let below = lift_bit(&mut l.builder, below);
            Ok(combine(&mut l.builder, &[(below, -1)], 1))
        });
    }
    let masked = l.masked(id, &x)?;
    // |x| < 2^width, and differences of two such numbers are below 2^(width + 1).
    let width = l.magnitude_bits(operand, x.fraction);
    let (sign, apart) = (l.position(width), l.position(width + 1));
    let f = l.fraction();
    let (out, fraction) = match &node.op {
        Op::Negative { .. } => {
            let bit = bit(&mut l.builder, masked, sign);
            (lift_bit(&mut l.builder, bit), 0)
        }
        // 1 where neither x < 0 nor -x < 0.
        Op::EqualZero { .. } => {
            let negated = scaled(&mut l.builder, &[(masked, -1)]);
            let (below, above) = (bit(&mut l.builder, masked, sign), bit(&mut l.builder, negated, sign));
            let (below, above) = (lift_bit(&mut l.builder, below), lift_bit(&mut l.builder, above));
            (combine(&mut l.builder, &[(below, -1), (above, -1)], 1), 0)
        }
        Op::Bits { count, .. } => {
            let one = |b: &mut Builder, i: u32| {
                let bit = bit(b, masked, i);
                lift_bit(b, bit)
            };
            // From the sign's place on, all bits are the sign's.
            let all: Vec<_> = (0..(*count).min(sign + 1)).map(|i| one(&mut l.builder, i)).collect();
            let last = all.last().copied();
            let more = (*count as usize).saturating_sub(all.len());
            let all: Vec<_> = all.into_iter().chain(last.into_iter().cycle().take(more)).collect();
            (concat(&mut l.builder, &all), 0)
        }
        Op::Relu { .. } => {
            let by = if l.is_taken(id) { x.fraction.saturating_sub(f) } else { 0 };
            let bit = bit(&mut l.builder, masked, sign);
            (select_masked(&mut l.builder, bit, masked, by), x.fraction - by)
        }
        Op::Max { .. } => {
            l.check_room(operand, x.fraction, 3)?;
            let wire = l.shares(&x)?;
            (tournament(&mut l.builder, wire, None, candidates, apart, bit).0, x.fraction)
        }
        Op::ArgMax { .. } => {
            l.check_room(operand, x.fraction, 3)?;
            let wire = l.shares(&x)?;
            let groups = l.builder.elements(&wire) / candidates.max(1);
            let indices = (0..candidates).flat_map(|i| core::iter::repeat_n(i64::from(i), groups as usize)).collect();
            let indices = constant(&mut l.builder, indices);
            let (_, index) = tournament(&mut l.builder, wire, Some(indices), candidates, apart, bit);
            (index.unwrap_or(wire), 0)
        }
        _ => return Err(l.unsupported(id, node)),
    };
    Ok(Value::private(out, fraction))
}

/// Σ factor · x of masked tensors.
fn scaled(b: &mut Builder, terms: &[(Masked, i64)]) -> Masked {
    let (hats, masks): (Vec<_>, Vec<_>) = terms.iter().map(|(x, factor)| ((x.hat, *factor), (x.mask, *factor))).unzip();
    Masked { hat: combine(b, &hats, 0), mask: combine(b, &masks, 0) }
}

/// The largest of `candidates` candidates for each group, and its index if there are indices; x holds all groups' first
/// candidates, then all second ones, and so on. A match between neighbours x (left) and y (right) takes y + d·(x - y) with
/// d = 1 where x - y >= 0, so ties go to the lower index. The difference is masked as soon as both are: a round's winners
/// are masked for the next one.
fn tournament(
    b: &mut Builder,
    mut x: Wire<Additive>,
    mut index: Option<Wire<Additive>>,
    mut candidates: u32,
    apart: u32,
    bit: Bit,
) -> (Wire<Additive>, Option<Wire<Additive>>) {
    let groups = (b.elements(&x) / candidates.max(1)).max(1);
    let places = |of: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
        of.flat_map(|candidate| candidate * groups..(candidate + 1) * groups).collect()
    };
    while candidates > 1 {
        let paired = candidates & !1;
        let left = places(&mut (0..paired).step_by(2));
        let right = places(&mut (1..paired).step_by(2));
        let bye = places(&mut (paired..candidates));
        let masked = mask(b, x);
        let half = |b: &mut Builder, places: &[u32]| Masked {
            hat: gather(b, masked.hat, places.to_vec()),
            mask: gather(b, masked.mask, places.to_vec()),
        };
        let (ahead, behind) = (half(b, &left), half(b, &right));
        let difference = scaled(b, &[(ahead, 1), (behind, -1)]);
        let lost = bit(b, difference, apart);
        let advance = |b: &mut Builder, all, winners| {
            if bye.is_empty() {
                return winners;
            }
            let rest = gather(b, all, bye.clone());
            concat(b, &[winners, rest])
        };
        index = index.map(|all| {
            let (ahead, behind) = (gather(b, all, left.clone()), gather(b, all, right.clone()));
            let lost = lift_bit(b, lost);
            let winners = select_share(b, lost, ahead, behind);
            advance(b, all, winners)
        });
        let gain = select_masked(b, lost, difference, 0);
        let behind = gather(b, x, right);
        let winners = combine(b, &[(behind, 1), (gain, 1)], 0);
        x = advance(b, x, winners);
        candidates = candidates.div_ceil(2);
    }
    (x, index)
}
