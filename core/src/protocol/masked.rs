//! Masked wires with dealt comparisons: the crypto producer's work is done before the question is asked.
//!
//! A hidden wire is opened once under its mask. That one opening serves its truncation, its sign and every comparison with
//! other wires, whose differences are masked too: what is said beyond it is a bit or two for each comparison. ReLU is fused
//! with the truncation that the next product wants.

use alloc::vec::Vec;

use crate::compare::hash::HashKind;
use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::gates::compare_table::MaskedBit;
use crate::gates::local::{combine, concat, constant, gather};
use crate::gates::mask::{mask, unmask};
use crate::gates::one_time_table::read_table;
use crate::gates::positive::positive;
use crate::gates::rank::{self, index_of_largest};
use crate::gates::select_masked::{lift_bit, select_masked};
use crate::gates::winner::{self, Comparisons, select_winner};
use crate::gates::{compare_dpf, compare_table};
use crate::plan::{Additive, Builder, Masked, Wire};
use crate::program::{Id, Node, Op};
use crate::protocol::Objective;
use crate::protocol::approximate::{self, Function, Table};
use crate::protocol::lowering::{Lowering, Selected, Value};
use crate::protocol::spline;

/// How bits of masked wires are compared out of them.
#[derive(Clone, Copy)]
enum Comparison {
    Table,
    Dpf(HashKind),
}

impl Comparison {
    fn bit(self, b: &mut Builder, z: Masked, position: u32) -> MaskedBit {
        match self {
            Comparison::Table => compare_table::bit(b, z, position),
            Comparison::Dpf(hash) => compare_dpf::bit(b, z, position, hash),
        }
    }
}

/// `table`: comparisons by dealt tables.
pub(super) fn table(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    nonlinear(l, id, node, x, Comparison::Table)
}

/// `fss`: comparisons by function secret sharing.
pub(super) fn fss(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value) -> Result<Value, PlanError> {
    let hash = l.variant.hash;
    nonlinear(l, id, node, x, Comparison::Dpf(hash))
}

fn nonlinear(l: &mut Lowering<'_>, id: Id, node: &Node, x: Value, compare: Comparison) -> Result<Value, PlanError> {
    let operand = node.op.operands().first().copied().unwrap_or(0);
    let candidates = l.program.node(operand).and_then(|node| node.shape.first().copied()).unwrap_or(1);
    if let Some(function) = spline::function(&node.op) {
        if let Some(read) = read(l, id, operand, function, &x)? {
            return Ok(read);
        }
        // One opening serves all knots: what is taken away from x leaves its mask what it is.
        let x = l.at(&x, l.fraction())?;
        let x = Value::masked(l.masked(id, &x)?, x.fraction);
        let width = l.magnitude_bits(operand, x.fraction) + 1;
        let latency = l.variant.objective == Objective::Latency;
        return spline::lower(l, id, operand, function, &x, |l, x, beside| {
            let (x, mut masked, position) = (l.masked(id, x)?, l.masked(id, beside)?, l.position(width));
            if let Comparison::Dpf(_) = compare {
                // What is taken away from x leaves its mask what it is, and one key serves all knots.
                masked.mask = x.mask;
            }
            let below = compare.bit(&mut l.builder, masked, position);
            // x where a knot is reached, from the same bits, saves the round of a product.
            let times = latency.then(|| {
                let (n, all) = (l.builder.elements(&x.hat), l.builder.elements(&below.e));
                let again: Vec<u32> = (0..all).map(|i| i % n.max(1)).collect();
                let x = pick(&mut l.builder, x, &again);
                select_masked(&mut l.builder, below, x, 0)
            });
            let below = lift_bit(&mut l.builder, below);
            Ok((combine(&mut l.builder, &[(below, -1)], 1), times))
        });
    }
    // |x| < 2^width, and differences of two such numbers are below 2^(width + 1).
    let width = l.magnitude_bits(operand, x.fraction);
    let (sign, apart) = (l.position(width), l.position(width + 1));
    let f = l.fraction();
    if let Op::Relu { .. } = node.op {
        let by = if l.is_taken(id) { x.fraction.saturating_sub(f) } else { 0 };
        let wire = l.shares(&x)?;
        let out = match positive_winner(l, wire, by, compare) {
            Some(out) => out,
            None => {
                let masked = l.masked(id, &x)?;
                match (compare, l.variant.objective) {
                    (Comparison::Dpf(hash), Objective::Latency) => positive(&mut l.builder, masked, sign, by, hash),
                    _ => {
                        let bit = compare.bit(&mut l.builder, masked, sign);
                        l.select(Selected::Kept { bit, z: masked }, by)
                    }
                }
            }
        };
        return Ok(Value::private(out, x.fraction - by));
    }
    let masked = l.masked(id, &x)?;
    let (out, fraction) = match &node.op {
        Op::Negative { .. } => {
            let bit = compare.bit(&mut l.builder, masked, sign);
            (lift_bit(&mut l.builder, bit), 0)
        }
        // 1 where neither x < 0 nor -x < 0.
        Op::EqualZero { .. } => {
            let negated = scaled(&mut l.builder, &[(masked, -1)]);
            let (below, above) =
                (compare.bit(&mut l.builder, masked, sign), compare.bit(&mut l.builder, negated, sign));
            let (below, above) = (lift_bit(&mut l.builder, below), lift_bit(&mut l.builder, above));
            (combine(&mut l.builder, &[(below, -1), (above, -1)], 1), 0)
        }
        Op::Bits { count, .. } => {
            let one = |b: &mut Builder, i: u32| {
                let bit = compare.bit(b, masked, i);
                lift_bit(b, bit)
            };
            // From the sign's place on, all bits are the sign's.
            let all: Vec<_> = (0..(*count).min(sign + 1)).map(|i| one(&mut l.builder, i)).collect();
            let last = all.last().copied();
            let more = (*count as usize).saturating_sub(all.len());
            let all: Vec<_> = all.into_iter().chain(last.into_iter().cycle().take(more)).collect();
            (concat(&mut l.builder, &all), 0)
        }
        Op::Max { .. } | Op::ArgMax { .. } => {
            l.check_room(operand, x.fraction, 3)?;
            let wire = l.shares(&x)?;
            let race = Race { candidates, apart, sign, compare };
            match (&node.op, l.variant.objective) {
                (Op::Max { .. }, Objective::Latency) => (race.flat(l, wire, None).0, x.fraction),
                (Op::Max { .. }, Objective::Bytes) => (race.tournament(&mut l.builder, wire, None).0, x.fraction),
                (_, Objective::Latency) if (2..=rank::MOST).contains(&candidates) => {
                    let pairs = race.all_pairs(&mut l.builder, masked, candidates);
                    (index_of_largest(&mut l.builder, candidates, pairs), 0)
                }
                (_, objective) => {
                    let indices = race.indices(&mut l.builder, masked);
                    let (_, index) = match objective {
                        Objective::Latency => race.flat(l, wire, Some(indices)),
                        Objective::Bytes => race.tournament(&mut l.builder, wire, Some(indices)),
                    };
                    (index.unwrap_or(wire), 0)
                }
            }
        }
        _ => return Err(l.unsupported(id, node)),
    };
    Ok(Value::private(out, fraction))
}

/// The most bits of a table's places: what is dealt for one element is 2^bits ring elements.
const PLACES: u32 = 10;

/// How far a value in a table may be from the next.
const APART: f64 = 1.0 / 128.0;

/// A function from a dealt table, without a round beyond x's opening, where that is what counts and the table is small.
fn read(
    l: &mut Lowering<'_>,
    id: Id,
    operand: Id,
    function: Function<'_>,
    x: &Value,
) -> Result<Option<Value>, PlanError> {
    let limit = l.program.node(operand).map_or(f64::INFINITY, |node| node.bound.limit());
    let table = match l.variant.objective {
        Objective::Latency => approximate::table(function, limit, x.fraction, PLACES, APART),
        Objective::Bytes => None,
    };
    let Some(Table { below, values, error }) = table else { return Ok(None) };
    let f = l.fraction();
    l.approximates(id, error + power_of_two(-(f as i32)));
    let values = values.iter().map(|y| l.encode(*y, f)).collect::<Result<_, _>>()?;
    let x = l.masked(id, x)?;
    Ok(Some(Value::private(read_table(&mut l.builder, x, below, values), f)))
}

/// Σ factor · x of masked tensors.
fn scaled(b: &mut Builder, terms: &[(Masked, i64)]) -> Masked {
    let (hats, masks): (Vec<_>, Vec<_>) = terms.iter().map(|(x, factor)| ((x.hat, *factor), (x.mask, *factor))).unzip();
    Masked { hat: combine(b, &hats, 0), mask: combine(b, &masks, 0) }
}

/// max(x, 0) / 2^by where x is the largest of some candidates that were all compared at once, or an arrangement of such: one
/// more bit for each candidate, at the same time as the others.
fn positive_winner(l: &mut Lowering<'_>, x: Wire<Additive>, by: u32, compare: Comparison) -> Option<Wire<Additive>> {
    if let Some(Selected::Winner { comparisons, z, sign }) = l.selected(x) {
        if comparisons.signs.is_some() {
            return None;
        }
        let signs = Some(compare.bit(&mut l.builder, z, sign));
        return Some(l.select(Selected::Winner { comparisons: Comparisons { signs, ..comparisons }, z, sign }, by));
    }
    let (source, places) = l.arranged_from(x)?;
    let out = positive_winner(l, source, by, compare)?;
    Some(l.arrange_wire(out, places))
}

/// The same places of both halves of a masked tensor.
fn pick(b: &mut Builder, x: Masked, places: &[u32]) -> Masked {
    Masked { hat: gather(b, x.hat, places.to_vec()), mask: gather(b, x.mask, places.to_vec()) }
}

/// How the largest of some candidates is found for each group. Tensors hold all groups' first candidates, then all second
/// ones, and so on.
#[derive(Clone, Copy)]
struct Race {
    candidates: u32,
    /// The sign bit of differences.
    apart: u32,
    /// The sign bit of candidates.
    sign: u32,
    compare: Comparison,
}

impl Race {
    fn groups(&self, b: &Builder, x: Wire<Additive>) -> u32 {
        (b.elements(&x) / self.candidates.max(1)).max(1)
    }

    /// The candidates' indices, known to everybody: under a mask of zero.
    fn indices(&self, b: &mut Builder, like: Masked) -> Masked {
        let elements = b.elements(&like.hat);
        let groups = (elements / self.candidates.max(1)).max(1) as usize;
        let all = (0..self.candidates).flat_map(|i| core::iter::repeat_n(i64::from(i), groups)).collect();
        Masked { hat: constant(b, all), mask: constant(b, alloc::vec![0; elements as usize]) }
    }

    /// 1 where the first of a pair is smaller than the second, for all pairs of so many candidates.
    fn all_pairs(&self, b: &mut Builder, z: Masked, candidates: u32) -> MaskedBit {
        let groups = (b.elements(&z.hat) / candidates.max(1)).max(1);
        let places = |of: fn((u32, u32)) -> u32| -> Vec<u32> {
            winner::pairs(candidates).map(of).flat_map(|at| at * groups..(at + 1) * groups).collect()
        };
        let (first, second) = (pick(b, z, &places(|(i, _)| i)), pick(b, z, &places(|(_, j)| j)));
        let difference = scaled(b, &[(first, 1), (second, -1)]);
        self.compare.bit(b, difference, self.apart)
    }

    /// All pairs at once, among up to four candidates; of more, the winners of as few and as equal parts as can be. The
    /// largest, and what `index` holds of it.
    fn flat(
        &self,
        l: &mut Lowering<'_>,
        mut x: Wire<Additive>,
        mut index: Option<Masked>,
    ) -> (Wire<Additive>, Option<Wire<Additive>>) {
        let (groups, mut left) = (self.groups(&l.builder, x), self.candidates);
        let mut indices = index.map(|index| unmask(&mut l.builder, index));
        while left > 1 {
            let z = mask(&mut l.builder, x);
            let parts = left.div_ceil(winner::MOST);
            let (mut winners, mut theirs) = (Vec::new(), Vec::new());
            let mut from = 0;
            for part in 0..parts {
                let candidates = left / parts + u32::from(part < left % parts);
                let places: Vec<u32> = (from * groups..(from + candidates) * groups).collect();
                from += candidates;
                let of = |b: &mut Builder, all: Masked| if parts == 1 { all } else { pick(b, all, &places) };
                let z = of(&mut l.builder, z);
                let pairs = self.all_pairs(&mut l.builder, z, candidates);
                let comparisons = Comparisons { candidates, pairs, signs: None };
                winners.push(l.select(Selected::Winner { comparisons, z, sign: self.sign }, 0));
                if let Some(index) = index {
                    let index = of(&mut l.builder, index);
                    theirs.push(select_winner(&mut l.builder, comparisons, index, 0));
                }
            }
            let together = |b: &mut Builder, parts: &[Wire<Additive>]| match parts {
                [one] => *one,
                all => concat(b, all),
            };
            x = together(&mut l.builder, &winners);
            indices = index.map(|_| together(&mut l.builder, &theirs));
            left = parts;
            if left > 1 {
                index = indices.map(|indices| mask(&mut l.builder, indices));
            }
        }
        (x, indices)
    }

    /// A match between neighbours x (left) and y (right) takes y + d·(x - y) with d = 1 where x - y >= 0, so ties go to the
    /// lower index. A round's winners are masked for the next one, with what `index` holds of them.
    fn tournament(
        &self,
        b: &mut Builder,
        mut x: Wire<Additive>,
        mut index: Option<Masked>,
    ) -> (Wire<Additive>, Option<Wire<Additive>>) {
        let (groups, mut candidates) = (self.groups(b, x), self.candidates);
        let mut indices = index.map(|index| unmask(b, index));
        let places = |of: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
            of.flat_map(|candidate| candidate * groups..(candidate + 1) * groups).collect()
        };
        while candidates > 1 {
            let paired = candidates & !1;
            let left = places(&mut (0..paired).step_by(2));
            let right = places(&mut (1..paired).step_by(2));
            let bye = places(&mut (paired..candidates));
            let masked = mask(b, x);
            let difference = |b: &mut Builder, all: Masked| {
                let (ahead, behind) = (pick(b, all, &left), pick(b, all, &right));
                scaled(b, &[(ahead, 1), (behind, -1)])
            };
            let apart = difference(b, masked);
            let lost = self.compare.bit(b, apart, self.apart);
            let advance = |b: &mut Builder, all: Wire<Additive>, apart: Masked| {
                let gain = select_masked(b, lost, apart, 0);
                let behind = gather(b, all, right.clone());
                let winners = combine(b, &[(behind, 1), (gain, 1)], 0);
                if bye.is_empty() {
                    return winners;
                }
                let rest = gather(b, all, bye.clone());
                concat(b, &[winners, rest])
            };
            candidates = candidates.div_ceil(2);
            x = advance(b, x, apart);
            if let (Some(masked), Some(all)) = (index, indices) {
                let apart = difference(b, masked);
                let winners = advance(b, all, apart);
                indices = Some(winners);
                index = (candidates > 1).then(|| mask(b, winners));
            }
        }
        (x, indices)
    }
}
