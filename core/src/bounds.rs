//! How large every value may become, and how we know.

use alloc::format;
use alloc::vec::Vec;

use crate::error::PlanError;
use crate::fixed::power_of_two;
use crate::program::{Bound, Node, Numbers, Op, Origin, Tensor, Weights};

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
    /// |x| < 2^bits for every value but the inputs, whose range is declared anyway.
    Declared(i32),
}

/// All values lie in low..=high.
#[derive(Clone, Copy, Debug)]
struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    fn magnitude(self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    fn widened(self, by: f64) -> Self {
        Self { low: self.low - by, high: self.high + by }
    }

    fn of(values: &[f32]) -> Self {
        values.iter().map(|v| f64::from(*v)).fold(Self { low: 0.0, high: 0.0 }, |all, value| Self {
            low: all.low.min(value),
            high: all.high.max(value),
        })
    }
}

/// The smallest b with x < 2^b, at least -64.
fn bits_above(x: f64) -> i32 {
    (-64..64).find(|bits| x < power_of_two(*bits)).unwrap_or(64)
}

/// Fills in the bound of every node.
pub(crate) fn annotate(nodes: &mut [Node], numbers: Numbers, bounds: Bounds<'_>) -> Result<(), PlanError> {
    let mut intervals: Vec<Interval> = Vec::with_capacity(nodes.len());
    for index in 0..nodes.len() {
        let (before, rest) = nodes.split_at_mut(index);
        let Some(node) = rest.first_mut() else { break };
        let interval = match bounds {
            Bounds::Proved(weights) => prove(node, before, &intervals, numbers, weights)?,
            Bounds::Calibrated { weights, largest, margin } => match &node.op {
                Op::Input { .. } | Op::Variable { .. } => prove(node, before, &intervals, numbers, weights)?,
                _ => {
                    let seen = largest
                        .get(index)
                        .copied()
                        .filter(|seen| seen.is_finite())
                        .ok_or_else(|| PlanError::Program(format!("no calibrated magnitude for wire {index}")))?;
                    Interval { low: 0.0, high: seen * margin.max(1.0) }
                }
            },
            Bounds::Declared(bits) => match &node.op {
                Op::Input { range: [low, high], .. } => Interval { low: *low, high: *high },
                _ => Interval { low: 0.0, high: power_of_two(bits) * 0.999 },
            },
        };
        node.bound = Bound {
            bits: bits_above(interval.magnitude()),
            origin: match (bounds, &node.op) {
                (_, Op::Input { .. }) | (Bounds::Declared(_), _) => Origin::Declared,
                (Bounds::Proved(_), _) | (_, Op::Variable { .. }) => Origin::Proved,
                (Bounds::Calibrated { .. }, _) => Origin::Calibrated,
            },
        };
        intervals.push(interval);
    }
    Ok(())
}

fn prove(
    node: &Node,
    before: &[Node],
    intervals: &[Interval],
    numbers: Numbers,
    weights: &Weights,
) -> Result<Interval, PlanError> {
    let ulp = power_of_two(-(numbers.fraction_bits as i32));
    let missing = || PlanError::Program("an operand comes after its use".into());
    let operand = |id: &u32| intervals.get(*id as usize).copied().ok_or_else(missing);
    let values = |id: &u32| -> Result<&Tensor, PlanError> {
        weights
            .of(before.get(*id as usize).ok_or_else(missing)?)
            .map_err(|error| PlanError::Program(format!("{error}")))
    };
    Ok(match &node.op {
        Op::Input { range: [low, high], .. } => Interval { low: *low, high: *high },
        Op::Variable { .. } => {
            Interval::of(&weights.of(node).map_err(|error| PlanError::Program(format!("{error}")))?.values).widened(ulp)
        }
        Op::MatMul { x, weights } => {
            let tensor = values(weights)?;
            let outputs = tensor.shape.get(1).copied().unwrap_or(1).max(1) as usize;
            let columns = (0..outputs).map(|column| tensor.values.iter().skip(column).step_by(outputs));
            product(operand(x)?, columns, ulp)
        }
        Op::Conv2D { x, filters, padding, .. } => {
            let tensor = values(filters)?;
            let patch = tensor.shape.iter().skip(1).map(|n| *n as usize).product::<usize>().max(1);
            let mut x = operand(x)?;
            if padding.iter().any(|n| *n > 0) {
                x = Interval { low: x.low.min(0.0), high: x.high.max(0.0) };
            }
            product(x, tensor.values.chunks(patch).map(|filter| filter.iter()), ulp)
        }
        Op::Bias { x, bias } => {
            let (x, bias) = (operand(x)?, Interval::of(&values(bias)?.values));
            Interval { low: x.low + bias.low, high: x.high + bias.high }.widened(ulp)
        }
        Op::Normalise { x, mean, deviation } => {
            let x = operand(x)?;
            let [a, b] = [x.low, x.high].map(|end| (end - mean) / deviation);
            // The factor 1 / deviation is itself rounded.
            Interval { low: a.min(b), high: a.max(b) }.widened(ulp * (2.0 + x.magnitude()))
        }
        Op::Relu { x } => {
            let x = operand(x)?;
            Interval { low: x.low.max(0.0), high: x.high.max(0.0) }
        }
        Op::ArgMax { x } => {
            Interval { low: 0.0, high: before.get(*x as usize).ok_or_else(missing)?.elements() as f64 - 1.0 }
        }
        Op::MaxPool { x, .. } | Op::Reshape { x, .. } | Op::Output { x, .. } => operand(x)?,
    })
}

/// The interval of all inner products of weights with elements of x, where both are rounded: weights to the nearest,
/// x by a truncation that is off by less than one unit in the last place.
fn product<'a, W: Iterator<Item = &'a f32>>(x: Interval, outputs: impl Iterator<Item = W>, ulp: f64) -> Interval {
    let x = x.widened(ulp);
    outputs.fold(Interval { low: 0.0, high: 0.0 }, |all, weights| {
        let (mut one, mut terms) = (Interval { low: 0.0, high: 0.0 }, 0.0);
        for weight in weights.map(|w| f64::from(*w)) {
            one.high += (weight * x.high).max(weight * x.low);
            one.low += (weight * x.high).min(weight * x.low);
            terms += 1.0;
        }
        let one = one.widened(terms * ulp * x.magnitude());
        Interval { low: all.low.min(one.low), high: all.high.max(one.high) }
    })
}
