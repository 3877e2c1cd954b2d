//! Every layer three times: its way forth against a definition in f64, its way back against central differences, and both
//! under each protocol against the same in clear.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

mod backward;
mod definition;
mod training;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::Protocol;
use crate::clear;
use crate::graph::{Bounds, Graph};
use crate::program::{Numbers, Weights};
use crate::session::Session;

/// Numbers in -1..1 that look random.
fn pseudo(count: usize, salt: u64) -> Vec<f32> {
    let mix = |i: u64| {
        (i + salt * 7919 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    (0..count as u64).map(|i| ((mix(i) >> 40) as f32) / (1u64 << 23) as f32 - 1.0).collect()
}

/// Numbers in no order, an eighth or more from each other and a sixteenth from zero, so that no comparison changes between
/// x - h and x + h.
fn spaced(count: usize) -> Vec<f32> {
    let step = (count / 3 + 1..).find(|step| gcd(*step, count) == 1).unwrap();
    (0..count).map(|i| ((i * step % count) as f32 - (count / 2) as f32 + 0.5) / 8.0).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn elements(shape: &[u32]) -> usize {
    shape.iter().map(|n| *n as usize).product()
}

/// Grants all these tensors in one output, one after the other, and a product besides: whatever else a program does, it
/// has one output and wants material.
fn grant(graph: &Graph, tensors: &[&Tensor]) {
    let product = tensors[0].square().unwrap();
    let flat: Vec<Tensor> = tensors.iter().chain([&&product]).map(|tensor| tensor.flatten().unwrap()).collect();
    graph.output("client", &Tensor::concat(&flat.iter().collect::<Vec<_>>(), 0).unwrap()).unwrap();
}

/// One sample's tensors of these sizes.
fn apart(mut output: &[f32], sizes: &[usize]) -> Vec<Vec<f32>> {
    let mut next = |size: &usize| {
        let (first, rest) = output.split_at(*size);
        output = rest;
        first.to_vec()
    };
    sizes.iter().map(&mut next).collect()
}

/// A layer made of parameters.
type Make<'a> = &'a dyn Fn(&Graph, &[Tensor]) -> Box<dyn Layer>;
/// What a layer should make of x and its parameters.
type Definition<'a> = &'a dyn Fn(&[f64], &[Vec<f64>]) -> Vec<f64>;

/// A layer and what it is tried on.
struct Case<'a> {
    name: &'a str,
    x: &'a [u32],
    parameters: &'a [&'a [u32]],
    make: Make<'a>,
    definition: Definition<'a>,
    /// Whether it compares elements of x with each other or with zero.
    compares: bool,
    /// Protocols that can, and how far they may be off.
    protocols: &'a [(Protocol, f32)],
}

const BOTH: &[(Protocol, f32)] = &[(Protocol::SecureNn, 2e-3), (Protocol::Pond, 2e-3)];
const SECURE_NN: &[(Protocol, f32)] = &[(Protocol::SecureNn, 2e-3)];

/// Half the distance of the central differences.
const H: f32 = 1.0 / 64.0;

fn close(name: &str, got: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(got.len(), wanted.len(), "{name}");
    for (i, (got, wanted)) in got.iter().zip(wanted).enumerate() {
        let off = (f64::from(*got) - wanted).abs();
        assert!(off <= tolerance * (1.0 + wanted.abs()), "{name}, element {i}: {got}, not {wanted}");
    }
}

impl Case<'_> {
    /// x, the parameters and the gradient of some loss are inputs; outputs are y twice, the gradient by x and those by the
    /// parameters.
    fn check(&self) {
        let graph = Graph::new();
        let range = if self.compares { [-32.0, 32.0] } else { [-2.0, 2.0] };
        let mut values = vec![if self.compares { spaced(elements(self.x)) } else { pseudo(elements(self.x), 1) }];
        let x = graph.private_input("client", "x", self.x, range).unwrap();
        let mut parameters = vec![];
        for (i, shape) in self.parameters.iter().enumerate() {
            parameters.push(graph.private_input("client", &format!("p{i}"), shape, [-2.0, 2.0]).unwrap());
            values.push(pseudo(elements(shape), 2 + i as u64));
        }
        let layer = (self.make)(&graph, &parameters);
        let shapes = |tensors: &[Tensor]| tensors.iter().map(Tensor::shape).collect::<Vec<_>>();
        assert_eq!(shapes(&layer.parameters()), shapes(&parameters), "{}", self.name);
        let pass = layer.pass(&x).unwrap();
        let gradient = graph.private_input("client", "g", &pass.y.shape(), [-1.0, 1.0]).unwrap();
        values.push(pseudo(elements(&pass.y.shape()), 77));
        let gradients = layer.backward(&pass, &gradient).unwrap();
        assert_eq!(gradients.input.shape(), x.shape(), "{}", self.name);
        assert_eq!(shapes(&gradients.parameters), shapes(&parameters), "{}", self.name);
        let outputs = [&[layer.forward(&x).unwrap(), pass.y, gradients.input], &gradients.parameters[..]].concat();
        grant(&graph, &outputs.iter().collect::<Vec<_>>());
        let sizes: Vec<usize> = outputs.iter().map(|tensor| elements(&tensor.shape())).collect();
        let weights = Weights::default();
        let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();

        // The first sample as it is, then two for each element of x and the parameters: a little more, a little less.
        let mut batches: Vec<Vec<f32>> = values.clone();
        let moving: usize = values[..values.len() - 1].iter().map(Vec::len).sum();
        let places = (0..values.len() - 1).flat_map(|tensor| (0..values[tensor].len()).map(move |at| (tensor, at)));
        for (tensor, at) in places {
            for h in [H, -H] {
                for (i, (batch, values)) in batches.iter_mut().zip(&values).enumerate() {
                    batch.extend(values);
                    if i == tensor {
                        let end = batch.len() - values.len();
                        batch[end + at] += h;
                    }
                }
            }
        }
        let rows: Vec<&[f32]> = batches.iter().map(Vec::as_slice).collect();
        let samples = 1 + 2 * moving;
        let clear = clear::evaluate(&program, &weights, &rows, samples, &mut |_, _| ()).unwrap();
        let clear: Vec<Vec<Vec<f32>>> =
            clear[0].chunks(clear[0].len() / samples).map(|sample| apart(sample, &sizes)).collect();
        let first = &clear[0];

        let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
        let parameters: Vec<Vec<f64>> = values[1..values.len() - 1].iter().map(|values| wide(values)).collect();
        let defined = (self.definition)(&wide(&values[0]), &parameters);
        close(&format!("{} forward", self.name), &first[0], &defined, 1e-5);
        close(&format!("{} pass", self.name), &first[1], &defined, 1e-5);

        let g = values.last().unwrap();
        let loss = |y: &[f32]| y.iter().zip(g).map(|(y, g)| f64::from(*y) * f64::from(*g)).sum::<f64>();
        let losses: Vec<f64> = clear.iter().map(|outputs| loss(&outputs[1])).collect();
        let differences: Vec<f64> =
            losses[1..].chunks(2).map(|pair| (pair[0] - pair[1]) / (2.0 * f64::from(H))).collect();
        close(&format!("{} backward", self.name), &first[2..].concat(), &differences, 1e-3);

        let inputs: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        for (protocol, tolerance) in self.protocols {
            let mut session = Session::local(&program, &weights, *protocol, [9; 32]).unwrap();
            let (outputs, _) = session.run_rows(&inputs, 1, &mut |_, _, _| ()).unwrap();
            for (i, (output, clear)) in apart(&outputs[0], &sizes).iter().zip(first).enumerate() {
                let name = format!("{} under {protocol:?}, output {i}", self.name);
                close(&name, output, &wide(clear), f64::from(*tolerance));
            }
        }
    }
}
