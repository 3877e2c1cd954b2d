//! How large every value may become, and how we know.

use alloc::format;
use alloc::vec::Vec;

use crate::clear::{self, Value};
use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::program::{Bound, Node, Numbers, Op, Origin, Weights};

/// How a program's bounds are found.
#[derive(Clone, Copy, Debug)]
pub enum Bounds<'a> {
    /// By interval arithmetic over the weights in clear, fixed-point rounding included. Only the resulting powers of two
    /// enter the program.
    Proved(&'a Weights),
    /// As observed: the largest magnitude of each node on given data, times a margin of at least 1.
    Calibrated {
        /// The variables' values, whose bounds are proved all the same.
        weights: &'a Weights,
        /// The largest magnitude of each node.
        largest: &'a [f64],
        /// What to allow beyond it.
        margin: f64,
    },
    /// |x| < 2^bits for every value but the inputs, whose range is declared anyway, and those that cannot be larger.
    Declared(i32),
}

impl Bounds<'_> {
    fn weights(&self) -> Option<&Weights> {
        match self {
            Bounds::Proved(weights) | Bounds::Calibrated { weights, .. } => Some(weights),
            Bounds::Declared(_) => None,
        }
    }
}

/// All values lie in low..=high.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    const UNIT: Self = Self { low: 0.0, high: 1.0 };

    fn magnitude(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    fn widened(self, by: f64) -> Self {
        Self { low: self.low - by, high: self.high + by }
    }

    fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    fn times(self, other: Self) -> Self {
        let ends = [self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high];
        let (low, high) = ends.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        Self { low, high }
    }

    /// The sum of up to `terms` such values.
    fn sums(self, terms: usize) -> Self {
        Self { low: self.low.min(0.0) * terms as f64, high: self.high.max(0.0) * terms as f64 }
    }

    fn of(values: &[f32]) -> Self {
        let all = values.iter().map(|v| f64::from(*v));
        all.fold(Self { low: 0.0, high: 0.0 }, |all, value| all.union(Self { low: value, high: value }))
    }

    /// The bound of all these values; `fine`: to an eighth of a power of two.
    fn bound(self, fine: bool, origin: Origin) -> Bound {
        let magnitude = self.magnitude();
        let bits = (-64..64).find(|bits| magnitude < power_of_two(*bits)).unwrap_or(64);
        let eighths = match fine {
            true => (5..8).find(|n| magnitude < f64::from(*n) / 8.0 * power_of_two(bits)).unwrap_or(8),
            false => 8,
        };
        Bound { bits, eighths, origin }
    }
}

/// Fills in the bound of every node.
pub(crate) fn annotate(nodes: &mut [Node], numbers: Numbers, bounds: Bounds<'_>) -> Result<(), PlanError> {
    let mut prover =
        Prover { ulp: power_of_two(-(numbers.fraction_bits as i32)), intervals: Vec::new(), known: Vec::new() };
    for index in 0..nodes.len() {
        let (before, rest) = nodes.split_at_mut(index);
        let Some(node) = rest.first_mut() else { break };
        let known = prover.value(node, before, bounds.weights())?;
        // What cannot be larger whatever the data, and what its owner knows.
        let certain = known.is_some()
            || matches!(
                node.op,
                Op::Input { .. }
                    | Op::Constant { .. }
                    | Op::Negative { .. }
                    | Op::EqualZero { .. }
                    | Op::Bits { .. }
                    | Op::ArgMax { .. }
                    | Op::Sigmoid { .. }
                    | Op::Tanh { .. }
            );
        let (interval, fine, origin) = match bounds {
            _ if matches!(node.op, Op::Input { .. } | Op::Variable { kept: Some(_), .. }) => {
                (prover.prove(node, before, &known)?, true, Origin::Declared)
            }
            Bounds::Proved(_) => (prover.prove(node, before, &known)?, false, Origin::Proved),
            _ if certain => (prover.prove(node, before, &known)?, false, Origin::Proved),
            Bounds::Calibrated { largest, margin, .. } => {
                let seen = largest.get(index).copied().filter(|seen| seen.is_finite());
                let seen =
                    seen.ok_or_else(|| PlanError::Program(format!("no calibrated magnitude for wire {index}")))?;
                let limit = seen * margin.max(1.0);
                (Interval { low: -limit, high: limit }, true, Origin::Calibrated)
            }
            Bounds::Declared(bits) => {
                let limit = power_of_two(bits) * 0.999;
                (Interval { low: -limit, high: limit }, false, Origin::Declared)
            }
        };
        node.bound = interval.bound(fine, origin);
        prover.intervals.push(interval);
        prover.known.push(known);
    }
    Ok(())
}

struct Prover {
    ulp: f64,
    intervals: Vec<Interval>,
    /// The values of variables and constants, and of those arranged anew.
    known: Vec<Option<Value>>,
}

impl Prover {
    /// The value of a variable or constant, or of one arranged anew, if the weights are at hand.
    fn value(&self, node: &Node, before: &[Node], weights: Option<&Weights>) -> Result<Option<Value>, PlanError> {
        let invalid = |error: crate::Blame| PlanError::Program(format!("{error}"));
        match (&node.op, weights) {
            // Whatever a kept variable is now, its owner has said where it stays.
            (Op::Input { .. } | Op::Variable { kept: Some(_), .. }, _) | (Op::Variable { .. }, None) => Ok(None),
            (Op::Variable { .. }, Some(weights)) => {
                let rows = weights.of(node).map_err(invalid)?.values.clone();
                Ok(Some(Value { rows, samples: 1 }))
            }
            (op @ (Op::Constant { .. } | Op::Arrange { .. } | Op::Concat { .. }), _) => {
                let operand = |id: u32| before.get(id as usize).zip(self.known.get(id as usize)?.as_ref());
                let operands: Option<Vec<_>> = op.operands().into_iter().map(operand).collect();
                Ok(operands.map(|operands| clear::compute(node, &operands)))
            }
            _ => Ok(None),
        }
    }

    fn prove(&self, node: &Node, before: &[Node], known: &Option<Value>) -> Result<Interval, PlanError> {
        let ulp = self.ulp;
        if let Some(value) = known {
            return Ok(Interval::of(&value.rows).widened(if node.whole { 0.0 } else { ulp }));
        }
        let missing = || PlanError::Program("an operand comes after its use".into());
        let operand = |id: &u32| self.intervals.get(*id as usize).copied().ok_or_else(missing);
        let length = |id: &u32, axis: u32| {
            before.get(*id as usize).and_then(|node| node.shape.get(axis as usize)).map_or(1, |n| *n as usize)
        };
        // What a product takes has been truncated to f bits, unless it is whole.
        let factor = |id: &u32| {
            let whole = before.get(*id as usize).is_some_and(|node| node.whole);
            Ok::<_, PlanError>(operand(id)?.widened(if whole { 0.0 } else { ulp }))
        };
        Ok(match &node.op {
            Op::Input { range: [low, high], .. } | Op::Variable { kept: Some([low, high]), .. } => {
                Interval { low: *low, high: *high }
            }
            Op::Variable { .. } | Op::Constant { .. } => return Err(missing()),
            Op::Arrange { x, .. } => operand(x)?.union(Interval { low: 0.0, high: 0.0 }),
            Op::Concat { parts, .. } => {
                let parts = parts.iter().map(operand).collect::<Result<Vec<_>, _>>()?;
                parts.into_iter().reduce(Interval::union).ok_or_else(missing)?
            }
            Op::Add { x, y } => {
                let (x, y) = (operand(x)?, operand(y)?);
                Interval { low: x.low + y.low, high: x.high + y.high }
            }
            Op::Sub { x, y } => {
                let (x, y) = (operand(x)?, operand(y)?);
                Interval { low: x.low - y.high, high: x.high - y.low }
            }
            Op::Sum { x, axis } | Op::CumSum { x, axis } => operand(x)?.sums(length(x, *axis)),
            Op::Normalise { x, mean, deviation } => {
                let x = operand(x)?;
                let [a, b] = [x.low, x.high].map(|end| (end - mean) / deviation);
                // The factor 1 / deviation is itself rounded.
                Interval { low: a.min(b), high: a.max(b) }.widened(ulp * (2.0 + x.magnitude() + 1.0 / deviation.abs()))
            }
            Op::Mul { x, y } => factor(x)?.times(factor(y)?),
            Op::Square { x } => {
                let x = factor(x)?;
                let square = x.times(x);
                Interval { low: 0.0, high: square.high }
            }
            Op::MatMul { x, y } | Op::Conv2D { x, filters: y, .. } => {
                let product = before.get(*x as usize).zip(before.get(*y as usize));
                let product = product.and_then(|(x, y)| node.op.bilinear(&x.shape, &y.shape)).ok_or_else(missing)?;
                match self.known.get(*y as usize) {
                    Some(Some(right)) => self.weighted(node, factor(x)?, &product, &right.rows),
                    _ => factor(x)?.times(factor(y)?).sums(product.terms()),
                }
            }
            Op::Reciprocal { least, .. } => {
                let most = 1.0 / least;
                Interval { low: most.min(0.0), high: most.max(0.0) }.widened(ulp)
            }
            Op::Negative { .. } | Op::EqualZero { .. } | Op::Bits { .. } => Interval::UNIT,
            Op::Relu { x } => {
                let x = operand(x)?;
                // It may have been truncated, up.
                Interval { low: x.low.max(0.0), high: x.high.max(0.0) + ulp }
            }
            // Approximations may leave the range that they approximate.
            Op::Sigmoid { .. } => Interval::UNIT.widened(0.0625),
            Op::Tanh { .. } => Interval { low: -1.0, high: 1.0 }.widened(0.0625),
            Op::Function { x, samples } => {
                let x = operand(x)?.widened(ulp);
                let [low, high] = samples.extremes(x.low, x.high);
                Interval { low, high }.widened((high - low) / 16.0 + ulp)
            }
            Op::ArgMax { x } => Interval { low: 0.0, high: length(x, 0) as f64 - 1.0 },
            Op::Max { x } | Op::Reveal { x } | Op::Mask { x } | Op::Output { x, .. } => operand(x)?,
            Op::Assign { x, variable } => operand(x)?.union(operand(variable)?),
        })
    }

    /// The interval of all inner products of known weights with elements of x, where both are rounded: weights to the
    /// nearest, x by a truncation that is off by less than one unit in the last place (which `x` includes).
    fn weighted(&self, node: &Node, x: Interval, product: &crate::bilinear::Bilinear, weights: &[f32]) -> Interval {
        let inner = product.terms().max(1);
        let none = Interval { low: 0.0, high: 0.0 };
        // Padding adds zeros to what a filter sees.
        let x = if matches!(node.op, Op::Conv2D { .. }) { x.union(none) } else { x };
        let one = |weights: &mut dyn Iterator<Item = f32>| {
            let sum = weights.fold(none, |sum, weight| {
                let (a, b) = (f64::from(weight) * x.low, f64::from(weight) * x.high);
                Interval { low: sum.low + a.min(b), high: sum.high + a.max(b) }
            });
            sum.widened(inner as f64 * self.ulp * x.magnitude())
        };
        match node.op {
            Op::Conv2D { .. } => {
                weights.chunks(inner).map(|filter| one(&mut filter.iter().copied())).fold(none, Interval::union)
            }
            _ => {
                // Each [inner, columns] block by its columns.
                let columns = (product.right() / inner).max(1);
                let columns = match product {
                    crate::bilinear::Bilinear::MatMul { columns, .. } => (*columns).max(1) as usize,
                    _ => columns,
                };
                let blocks = weights.chunks(inner * columns);
                let lanes = blocks.flat_map(|block| (0..columns).map(move |at| block.iter().skip(at).step_by(columns)));
                lanes.map(|lane| one(&mut lane.copied())).fold(none, Interval::union)
            }
        }
    }
}
