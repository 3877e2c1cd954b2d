//! A program evaluated in clear, in f32: what the page compares with, and what calibration observes.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::error::Blame;
use crate::program::{Id, Op, Program, Weights};

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
    let mut values: Vec<Vec<f32>> = Vec::with_capacity(program.nodes().len());
    let (mut given, mut outputs) = (inputs.iter(), vec![]);
    for (id, node) in (0..).zip(program.nodes()) {
        let operand = |id: &Id| {
            values.get(*id as usize).map(Vec::as_slice).ok_or_else(|| Blame::bug("an operand comes after its use"))
        };
        let value = match &node.op {
            Op::Input { name, .. } => match given.next() {
                Some(rows) if Some(rows.len()) == node.elements().checked_mul(batch) => rows.to_vec(),
                _ => {
                    return Err(Blame::you(format!(
                        "no {batch} rows of {} values for the input {name}",
                        node.elements()
                    )));
                }
            },
            Op::Variable { .. } => weights.of(node)?.values.clone(),
            Op::MatMul { x, weights } | Op::Conv2D { x, filters: weights, .. } => {
                let linear = program.linear(id).ok_or_else(|| Blame::bug("a linear map without its shapes"))?;
                let mut to = vec![0.0; linear.outputs() * batch];
                linear.apply(operand(x)?, operand(weights)?, &mut to);
                to
            }
            Op::Bias { x, bias } => {
                let bias = operand(bias)?;
                let run = (node.elements() / bias.len().max(1)).max(1);
                let mut sum = operand(x)?.to_vec();
                for (to, bias) in sum.chunks_mut(run).zip(bias.iter().cycle()) {
                    to.iter_mut().for_each(|to| *to += bias);
                }
                sum
            }
            Op::Normalise { x, mean, deviation } => {
                operand(x)?.iter().map(|x| ((f64::from(*x) - mean) / deviation) as f32).collect()
            }
            Op::Relu { x } => operand(x)?.iter().map(|x| x.max(0.0)).collect(),
            Op::MaxPool { x, .. } => {
                let x = operand(x)?;
                let windows = program.windows(id).ok_or_else(|| Blame::bug("a pooling without its shapes"))?;
                let sample = program.node(node.op.operands().first().copied().unwrap_or(0)).map_or(1, |n| n.elements());
                x.chunks(sample.max(1))
                    .flat_map(|sample| {
                        (0..node.elements()).map(|place| {
                            windows
                                .iter()
                                .filter_map(|offsets| offsets.get(place).and_then(|i| sample.get(*i as usize)))
                                .fold(f32::NEG_INFINITY, |most, x| most.max(*x))
                        })
                    })
                    .collect()
            }
            Op::ArgMax { x } => {
                let entries = program.node(*x).map_or(1, |node| node.elements()).max(1);
                let first_largest = |row: &[f32]| {
                    let start = (0usize, f32::NEG_INFINITY);
                    row.iter().enumerate().fold(start, |best, (i, x)| if *x > best.1 { (i, *x) } else { best }).0
                };
                operand(x)?.chunks(entries).map(|row| first_largest(row) as f32).collect()
            }
            Op::Reshape { x, .. } => operand(x)?.to_vec(),
            Op::Output { x, .. } => {
                outputs.push(operand(x)?.to_vec());
                operand(x)?.to_vec()
            }
        };
        observe(id, &value);
        values.push(value);
    }
    Ok(outputs)
}
