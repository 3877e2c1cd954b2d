//! A program evaluated in clear, in f32: what the page compares with, and what calibration observes.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::error::Blame;
use crate::program::{Id, NOWHERE, Node, Op, Program, Tensor, Weights};

/// The program's outputs for `batch` samples: one vector for each output, in order.
///
/// `inputs` are the inputs' values in order, `batch` rows each; `observe` sees every value that is computed.
///
/// # Errors
/// Inputs or weights are missing or of another size than declared.
pub fn evaluate(
    program: &Program,
    weights: &Weights,
    inputs: &[&[f32]],
    batch: usize,
    observe: &mut dyn FnMut(Id, &[f32]),
) -> Result<Vec<Vec<f32>>, Blame> {
    let nodes = program.nodes();
    let mut values: Vec<Value> = Vec::with_capacity(nodes.len());
    let (mut given, mut outputs) = (inputs.iter(), vec![]);
    for (id, node) in (0..).zip(nodes) {
        let value = match &node.op {
            Op::Input { name, .. } => match given.next() {
                Some(rows) if Some(rows.len()) == node.elements().checked_mul(batch) => {
                    Value { rows: rows.to_vec(), samples: batch }
                }
                _ => {
                    let elements = node.elements();
                    return Err(Blame::you(format!("no {batch} rows of {elements} values for the input {name}")));
                }
            },
            Op::Variable { .. } => Value { rows: weights.of(node)?.values.clone(), samples: 1 },
            op => {
                let operand = |id: Id| {
                    let node = nodes.get(id as usize).zip(values.get(id as usize));
                    node.ok_or_else(|| Blame::bug("an operand comes after its use"))
                };
                let operands = op.operands().into_iter().map(operand).collect::<Result<Vec<_>, _>>()?;
                compute(node, &operands)
            }
        };
        observe(id, &value.rows);
        if let Op::Output { .. } = &node.op {
            // A tensor that does not depend on an input is the same for every sample.
            let repeat = batch / value.samples.max(1);
            outputs.push(value.rows.repeat(repeat.max(1)));
        }
        values.push(value);
    }
    Ok(outputs)
}

/// [`evaluate`] of one sample, after which `weights` are what the program has assigned to its variables: a step of training in
/// clear.
///
/// # Errors
/// As [`evaluate`].
pub fn run(program: &Program, weights: &mut Weights, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, Blame> {
    let mut assigned = Vec::new();
    let mut note = |id: Id, values: &[f32]| {
        if let Some(Node { op: Op::Assign { variable, .. }, .. }) = program.node(id) {
            assigned.push((*variable, values.to_vec()));
        }
    };
    let outputs = evaluate(program, weights, inputs, 1, &mut note)?;
    for (variable, values) in assigned {
        if let Some(Node { op: Op::Variable { name, .. }, shape, .. }) = program.node(variable) {
            weights.0.insert(name.clone(), Tensor { shape: shape.clone(), values });
        }
    }
    Ok(outputs)
}

/// A node's value: one row for each sample, or a single one for all samples.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) rows: Vec<f32>,
    pub(crate) samples: usize,
}

/// A function of one sample: its shape and its row.
type OfSample<'a> = &'a dyn Fn(&[u32], &[f32]) -> Vec<f32>;

/// What `node` makes of its operands; inputs and variables have none, and no value here.
pub(crate) fn compute(node: &Node, operands: &[(&Node, &Value)]) -> Value {
    let samples = operands.iter().map(|(_, value)| value.samples).max().unwrap_or(1);
    let of = |index: usize| operands.get(index).copied();
    let each = |f: &dyn Fn(f32) -> f32| of(0).map_or_else(Vec::new, |(_, x)| x.rows.iter().map(|x| f(*x)).collect());
    let both = |f: &dyn Fn(f32, f32) -> f32| match (of(0), of(1)) {
        (Some((_, x)), Some((_, y))) => {
            let count = node.elements() * samples;
            x.rows.iter().cycle().zip(y.rows.iter().cycle()).take(count).map(|(x, y)| f(*x, *y)).collect()
        }
        _ => Vec::new(),
    };
    // Every sample of the first operand by itself.
    let by_sample = |f: OfSample<'_>| {
        of(0).map_or_else(Vec::new, |(x, value)| {
            value.rows.chunks(x.elements().max(1)).flat_map(|row| f(&x.shape, row)).collect()
        })
    };
    let rows = match &node.op {
        Op::Input { .. } | Op::Variable { .. } => Vec::new(),
        Op::Constant { values } => values.iter().map(|x| *x as f32).collect(),
        Op::Arrange { how, .. } => {
            let places = of(0).map_or_else(Vec::new, |(x, _)| how.places(&x.shape));
            let pick = |row: &[f32], place: u32| match place {
                NOWHERE => 0.0,
                place => row.get(place as usize).copied().unwrap_or(0.0),
            };
            by_sample(&|_, row| places.iter().map(|place| pick(row, *place)).collect())
        }
        Op::Concat { axis, .. } => {
            let mut rows = Vec::with_capacity(node.elements() * samples);
            // A run is what one part contributes between two steps of the axes in front.
            let run = |node: &Node| node.shape.iter().skip(*axis as usize).map(|n| *n as usize).product::<usize>();
            let front = node.shape.iter().take(*axis as usize).map(|n| *n as usize).product::<usize>();
            for sample in 0..samples {
                for at in 0..front {
                    for (part, value) in operands {
                        let start = (sample % value.samples) * part.elements() + at * run(part);
                        rows.extend(value.rows.iter().skip(start).take(run(part)));
                    }
                }
            }
            rows
        }
        Op::Add { .. } => both(&|x, y| x + y),
        Op::Sub { .. } => both(&|x, y| x - y),
        Op::Mul { .. } => both(&|x, y| x * y),
        Op::MatMul { .. } | Op::Conv2D { .. } => match (of(0), of(1)) {
            (Some((x, left)), Some((y, right))) => match node.op.bilinear(&x.shape, &y.shape) {
                Some(product) if left.samples == samples => product.product(&left.rows, &right.rows, samples),
                Some(product) => product.product(&left.rows.repeat(samples), &right.rows, samples),
                None => Vec::new(),
            },
            _ => Vec::new(),
        },
        Op::Sum { axis, .. } => by_sample(&|shape, row| along(shape, *axis, row, |lane| vec![lane.iter().sum()])),
        Op::CumSum { axis, .. } => by_sample(&|shape, row| {
            along(shape, *axis, row, |lane| {
                let add = |sum: &mut f32, x: &f32| {
                    *sum += x;
                    Some(*sum)
                };
                lane.iter().scan(0.0, add).collect()
            })
        }),
        Op::Normalise { mean, deviation, .. } => each(&|x| ((f64::from(x) - mean) / deviation) as f32),
        Op::Square { .. } => each(&|x| x * x),
        Op::Reciprocal { least, .. } => each(&|x| {
            let x = f64::from(x);
            (1.0 / if least.is_sign_positive() { x.max(*least) } else { x.min(*least) }) as f32
        }),
        Op::Negative { .. } => each(&|x| f32::from(u8::from(x < 0.0))),
        Op::EqualZero { .. } => each(&|x| f32::from(u8::from(x == 0.0))),
        Op::Bits { count, .. } => by_sample(&|_, row| {
            let bit = |i: u32| row.iter().map(move |x| f32::from((libm::rint(f64::from(*x)) as i64 >> i & 1) as u8));
            (0..*count).flat_map(bit).collect()
        }),
        Op::Relu { .. } => each(&|x| x.max(0.0)),
        Op::Sigmoid { .. } => each(&|x| (1.0 / (1.0 + libm::exp(-f64::from(x)))) as f32),
        Op::Tanh { .. } => each(&|x| libm::tanh(f64::from(x)) as f32),
        Op::Function { samples, .. } => each(&|x| samples.at(f64::from(x)) as f32),
        Op::Max { .. } => by_sample(&|shape, row| {
            along(shape, 0, row, |lane| vec![lane.iter().copied().fold(f32::NEG_INFINITY, f32::max)])
        }),
        Op::ArgMax { .. } => by_sample(&|shape, row| {
            along(shape, 0, row, |lane| {
                let best = (0u16..)
                    .zip(lane)
                    .fold((0, f32::NEG_INFINITY), |best, (i, x)| if *x > best.1 { (i, *x) } else { best });
                vec![f32::from(best.0)]
            })
        }),
        Op::Reveal { .. } | Op::Mask { .. } | Op::Assign { .. } | Op::Output { .. } => each(&|x| x),
    };
    Value { rows, samples }
}

/// Applies `f` to every lane along `axis`; the lanes of the result have the lengths that `f` gives them.
fn along(shape: &[u32], axis: u32, row: &[f32], f: impl Fn(&[f32]) -> Vec<f32>) -> Vec<f32> {
    let length = shape.get(axis as usize).map_or(1, |n| *n as usize).max(1);
    let inner = shape.iter().skip(axis as usize + 1).map(|n| *n as usize).product::<usize>().max(1);
    let mut out = Vec::new();
    for block in row.chunks(length * inner) {
        let lanes: Vec<Vec<f32>> =
            (0..inner).map(|at| f(&block.iter().skip(at).step_by(inner).copied().collect::<Vec<_>>())).collect();
        let kept = lanes.first().map_or(0, Vec::len);
        out.extend((0..kept).flat_map(|i| lanes.iter().filter_map(move |lane| lane.get(i).copied())));
    }
    out
}
