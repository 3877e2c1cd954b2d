//! What is measured: programs with weights and inputs that are random, since nothing but shapes matters, and the same in
//! clear.

use std::fmt;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use ndarray::{Array1, Array2, ArrayView2};
use selkie::graph::{Bounds, Graph};
use selkie::layers::{Dense, Initialiser, Layer as _, Owner, Sgd, sigmoid_cross_entropy};
use selkie::program::{Op, Program, Weights};
use selkie::{Protocol, Seed, clear};

use super::growth::Sweep;
use crate::exit::Failure;
use crate::model::{self, CALIBRATION_MARGIN, CLIENT, ImportOptions, TRAINER};
use crate::onnx::{self, Layer, Model, OneThread};
use crate::train::Net;

/// Elements of a sample in the rows of a million elements, …
const SLICE: usize = 10_000;
/// … samples in one query, …
const SAMPLES: usize = 10;
/// … and queries, one after the other: so no party holds more than a tenth of the million at a time.
const SLICES: usize = 10;
/// What these rows' elements lie between.
const RANGE: [f64; 2] = [-4.0, 4.0];

/// One computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// A network, under the names.
    Network(Net),
    /// See [`logistic_regression_step`].
    LogisticRegressionStep,
    /// x W for a private x of 784 elements and a private W of 784 by 128.
    MatMul,
    /// A million ReLUs.
    Relu,
    /// The larger ones of a million pairs.
    Maximum,
    /// A million sigmoids.
    Sigmoid,
    /// The network of one size of a sweep, for `--growth`.
    Grown(Sweep, usize),
}

impl Workload {
    /// All that have a row of their own.
    pub(super) const ALL: [Self; 11] = [
        Self::Network(Net::A),
        Self::Network(Net::B),
        Self::Network(Net::C),
        Self::Network(Net::D),
        Self::Network(Net::BAvg),
        Self::Network(Net::CAvg),
        Self::LogisticRegressionStep,
        Self::MatMul,
        Self::Relu,
        Self::Maximum,
        Self::Sigmoid,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Network(Net::A) => "network_a",
            Self::Network(Net::B) => "network_b",
            Self::Network(Net::C) => "network_c",
            Self::Network(Net::D) => "network_d",
            Self::Network(Net::BAvg) => "network_b_avg",
            Self::Network(Net::CAvg) => "network_c_avg",
            Self::Network(Net::Demo) => "network_demo",
            Self::LogisticRegressionStep => "logistic_regression_step",
            Self::MatMul => "matmul_784x128",
            Self::Relu => "relu_1m",
            Self::Maximum => "max_1m",
            Self::Sigmoid => "sigmoid_1m",
            Self::Grown(sweep, _) => sweep.name(),
        }
    }

    pub(super) fn named(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|workload| workload.name() == name);
        found.ok_or_else(|| format!("there is no such row; there are: {}", names()))
    }

    /// Whether it has a row for each batch.
    pub(super) const fn has_batches(self) -> bool {
        matches!(self, Self::Network(_))
    }

    /// The size of a sweep's point.
    pub(super) const fn size(self) -> Option<usize> {
        match self {
            Self::Grown(_, size) => Some(size),
            _ => None,
        }
    }

    /// Whether it is measured by this protocol: pooling by averages is there for the one that cannot compute maxima.
    pub(super) const fn is_for(self, protocol: Protocol) -> bool {
        !(matches!(self, Self::Network(Net::BAvg | Net::CAvg)) && protocol.compares())
    }

    /// Whether variants of a protocol differ for it: where something is compared, and more than two at a time, or selected.
    pub(super) const fn has_variants(self) -> bool {
        !matches!(self, Self::MatMul | Self::Maximum)
    }

    /// Whether it is one of those of a million elements.
    pub(super) const fn is_million(self) -> bool {
        matches!(self, Self::Relu | Self::Maximum | Self::Sigmoid)
    }

    /// How a row of this batch is asked: samples in a query, and queries one after the other.
    pub(super) const fn queries(self, batch: usize) -> (usize, usize) {
        match self {
            Self::Network(_) | Self::Grown(..) => (batch, 1),
            Self::LogisticRegressionStep | Self::MatMul => (1, 1),
            Self::Relu | Self::Maximum | Self::Sigmoid => (SAMPLES, SLICES),
        }
    }

    /// The batch that a row is listed under.
    pub(super) const fn listed(self, batch: usize) -> usize {
        match self {
            Self::Network(_) | Self::Grown(..) => batch,
            Self::LogisticRegressionStep => 100,
            _ => 1,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size() {
            Some(size) => write!(f, "{} {size}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// A computation in a ring, ready to be deployed and asked.
pub(super) struct Prepared {
    pub(super) program: Program,
    pub(super) weights: Weights,
    /// The weights in clear, after as many queries as were asked.
    trained: Weights,
    /// One query's inputs, in the program's order, `samples` rows each.
    pub(super) inputs: Vec<Vec<f32>>,
    pub(super) samples: usize,
    pub(super) clear: Clear,
}

/// The same computation in clear, on one thread.
pub(super) enum Clear {
    /// By tract.
    Tract(OneThread),
    /// By our own evaluation in f32, where tract has no operators for it.
    Own,
}

impl Clear {
    /// Who computes, for the report.
    pub(super) const fn by(&self) -> &'static str {
        match self {
            Self::Tract(_) => "tract",
            Self::Own => "selkie",
        }
    }
}

impl Prepared {
    /// With bounds that are calibrated on the very inputs that will be asked; in a sweep they are declared, because bounds, and
    /// the bytes of comparisons with them, must be the same at all of its sizes.
    pub(super) fn new(workload: Workload, samples: usize, ring_bits: u32) -> Result<Self, Failure> {
        let (graph, weights, model) = build(workload)?;
        let numbers = model::numbers(ring_bits)?;
        let uncalibrated = graph.compile(numbers, Bounds::Declared(0)).map_err(Failure::other)?;
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let inputs = uncalibrated.inputs().map(|(_, node)| {
            let [low, high] = match node.op {
                Op::Input { range, .. } => range,
                _ => [0.0, 1.0],
            };
            uniform(&mut random, node.elements() * samples, low, high)
        });
        let inputs: Vec<Vec<f32>> = inputs.collect();
        let mut largest = vec![0.0f64; uncalibrated.nodes().len()];
        let bounds = if workload.size().is_some() {
            Bounds::Declared(model::largest_bound(numbers))
        } else {
            clear::evaluate(&uncalibrated, &weights, &rows(&inputs), samples, &mut |id, values| {
                if let Some(most) = largest.get_mut(id as usize) {
                    *most = values.iter().fold(*most, |most, x| most.max(f64::from(x.abs())));
                }
            })
            .map_err(Failure::other)?;
            Bounds::Calibrated { weights: &weights, largest: &largest, margin: CALIBRATION_MARGIN }
        };
        let program = graph.compile(numbers, bounds).map_err(Failure::other)?;
        let clear = match (&model, inputs.first()) {
            (Some(model), Some(input)) => {
                let elements = input.len() / samples.max(1);
                let images = ArrayView2::from_shape((samples, elements), input).map_err(Failure::other)?;
                Clear::Tract(OneThread::new(&onnx::write(model)?, images)?)
            }
            _ => Clear::Own,
        };
        let trained = weights.clone();
        Ok(Self { program, weights, trained, inputs, samples, clear })
    }

    /// One query's outputs in clear, and what it changes: the next is asked after it.
    pub(super) fn step(&mut self) -> Result<Vec<Vec<f32>>, Failure> {
        if self.program.assigned().next().is_none() {
            return self.in_clear();
        }
        clear::run(&self.program, &mut self.trained, &rows(&self.inputs)).map_err(Failure::other)
    }

    /// One query's outputs in clear.
    pub(super) fn in_clear(&self) -> Result<Vec<Vec<f32>>, Failure> {
        match &self.clear {
            Clear::Tract(reference) => Ok(vec![reference.run()?]),
            Clear::Own => {
                clear::evaluate(&self.program, &self.weights, &rows(&self.inputs), self.samples, &mut |_, _| ())
                    .map_err(Failure::other)
            }
        }
    }
}

fn rows(inputs: &[Vec<f32>]) -> Vec<&[f32]> {
    inputs.iter().map(Vec::as_slice).collect()
}

fn uniform(random: &mut ChaCha8Rng, count: usize, low: f64, high: f64) -> Vec<f32> {
    let unit = |bits: u32| f64::from(bits >> 8) / f64::from(1u32 << 24);
    (0..count).map(|_| (low + (high - low) * unit(random.next_u32())) as f32).collect()
}

/// Weights between -limit and limit.
pub(super) fn weights(seed: u64, count: usize, limit: f64) -> Vec<f32> {
    uniform(&mut ChaCha8Rng::seed_from_u64(seed), count, -limit, limit)
}

/// A graph, its weights, and the same as a model file, where there is one.
fn build(workload: Workload) -> Result<(Graph, Weights, Option<Model>), Failure> {
    let of_model = |model: Model| {
        let (graph, weights) = model::graph(&model, &ImportOptions::default())?;
        Ok((graph, weights, Some(model)))
    };
    let of_graph = |graph: Graph| {
        let weights = graph.weights();
        Ok((graph, weights, None))
    };
    match workload {
        Workload::Network(net) => of_model(net.untrained(7)),
        Workload::Grown(sweep, size) => of_model(sweep.model(size)?),
        Workload::LogisticRegressionStep => of_graph(logistic_regression_step()?),
        Workload::MatMul => {
            let weights = Array2::from_shape_vec((784, 128), weights(2, 784 * 128, 0.1)).map_err(Failure::other)?;
            let layers = vec![Layer::Dense { weights, bias: Array1::zeros(128) }];
            of_model(Model { input: vec![784], layers })
        }
        Workload::Relu => {
            let graph = Graph::new();
            let x = graph.masked_input(CLIENT, "x", &[SLICE as u32], RANGE).map_err(Failure::other)?;
            graph.output(CLIENT, &x.relu().map_err(Failure::other)?).map_err(Failure::other)?;
            let model = Model { input: vec![SLICE], layers: vec![Layer::Relu] };
            let weights = graph.weights();
            Ok((graph, weights, Some(model)))
        }
        Workload::Maximum => {
            let graph = Graph::new();
            let input = |name| graph.masked_input(CLIENT, name, &[SLICE as u32], RANGE).map_err(Failure::other);
            let (x, y) = (input("x")?, input("y")?);
            graph.output(CLIENT, &x.maximum(&y).map_err(Failure::other)?).map_err(Failure::other)?;
            of_graph(graph)
        }
        Workload::Sigmoid => {
            let graph = Graph::new();
            let x = graph.masked_input(CLIENT, "x", &[SLICE as u32], RANGE).map_err(Failure::other)?;
            graph.output(CLIENT, &x.sigmoid().map_err(Failure::other)?).map_err(Failure::other)?;
            of_graph(graph)
        }
    }
}

/// One step of training logistic regression on 100 samples of 10 features, at the rate 0.01: the tutorial's, whose outputs are
/// the logits. The step is about all samples, so they are one sample of the program, of shape \[100, 10\].
///
/// # Errors
/// A bug: the shapes fit.
pub(super) fn logistic_regression_step() -> Result<Graph, Failure> {
    const SAMPLES: u32 = 100;
    const FEATURES: u32 = 10;
    let graph = Graph::new();
    let step = || {
        let owner = Owner::new(&graph, TRAINER, Seed::new([3; 32])).keeping([-1.0, 1.0]);
        let model = Dense::new(&owner, "dense", [FEATURES, 1], Initialiser::GlorotUniform)?;
        let x = graph.masked_input(CLIENT, "x", &[SAMPLES, FEATURES], [-0.5, 0.5])?;
        let y = graph.private_input(CLIENT, "y", &[SAMPLES, 1], [0.0, 1.0])?;
        let pass = model.pass(&x)?;
        let gradients = model.parameter_gradients(&pass, &sigmoid_cross_entropy(&pass.y, &y)?)?;
        let sgd = Sgd { rate: 0.01.into(), samples: SAMPLES };
        for (parameter, gradient) in model.parameters().iter().zip(&gradients) {
            graph.assign(parameter, &sgd.step(parameter, gradient)?)?;
        }
        graph.output(CLIENT, &pass.y)
    };
    step().map_err(|error: selkie::GraphError| Failure::other(error))?;
    Ok(graph)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own_and_can_be_prepared() {
        for workload in Workload::ALL {
            assert_eq!(Workload::named(workload.name()), Ok(workload));
            let prepared = Prepared::new(workload, 2, 32).unwrap();
            let outputs = prepared.in_clear().unwrap();
            assert!(outputs.iter().flatten().all(|x| x.is_finite()) && !outputs[0].is_empty(), "{workload}");
            // Both ways in clear agree.
            let ours =
                clear::evaluate(&prepared.program, &prepared.weights, &rows(&prepared.inputs), 2, &mut |_, _| ());
            for (a, b) in outputs.concat().iter().zip(ours.unwrap().concat()) {
                assert!((a - b).abs() < 1e-3, "{workload}: {a} {b}");
            }
        }
        assert!(Workload::named("network_z").unwrap_err().contains("network_a, "));
    }
}
