//! Models as programs: ONNX layers become a graph, the graph a program, and its bounds are found.
//!
//! The player who asks is called [`CLIENT`], the player who owns the weights [`TRAINER`]. Inputs are pixels in 0..=1.

use std::path::PathBuf;

use ndarray::{Array2, ArrayView2, ArrayViewD, Axis};
use rayon::prelude::*;
use selkie::graph::{Bounds, Convolution, Graph, Padding, Pooling, Tensor};
use selkie::program::{self, Numbers, Program, Weights};
use selkie::{Blame, Culprit, GraphError, PlanError, clear};

use crate::data;
use crate::exit::Failure;
use crate::onnx::{self, Layer, Model};
use crate::train::Net;

/// The player who feeds the input and receives the output.
pub const CLIENT: &str = "prediction-client";
/// The player who owns the weights.
pub const TRAINER: &str = "model-trainer";
/// What the program's input is called.
pub const INPUT: &str = "image";
/// Calibrated bounds allow the largest magnitude observed, times this; rounding up to an eighth of a power of two may add a
/// quarter, and makes it 1.5 at most.
pub const CALIBRATION_MARGIN: f64 = 1.2;

/// Rings up to this width are too narrow for what interval arithmetic proves of real networks.
const NARROW: u32 = 32;
/// Images that one thread calibrates with at a time.
const CALIBRATION_BATCH: usize = 64;

/// How a model becomes a program: the options that `evaluate`, `plan` and `deploy` have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// Bits of the ring, 8 to 64; 32 and fewer need --calibrate.
    #[arg(long, value_name = "K", default_value_t = 64)]
    pub ring: u32,
    /// Images (IDX or .npy) on which the largest magnitude of every value is observed, where it would be proved from the weights.
    #[arg(long, value_name = "FILE")]
    pub calibrate: Option<PathBuf>,
    /// What is subtracted from every pixel, as the program's first operation.
    #[arg(long, requires = "std", allow_negative_numbers = true)]
    pub mean: Option<f64>,
    /// What every pixel is divided by after that.
    #[arg(long, requires = "mean")]
    pub std: Option<f64>,
    /// Reveal the label alone, not the logits.
    #[arg(long)]
    pub label_only: bool,
}

impl ModelArgs {
    /// Reads what the options name.
    ///
    /// # Errors
    /// A file cannot be read, or the ring does not exist.
    pub fn options(&self) -> Result<ImportOptions, Error> {
        Ok(ImportOptions {
            numbers: numbers(self.ring)?,
            normalisation: self.mean.zip(self.std).map(|(mean, std)| Normalisation { mean, std }),
            label_only: self.label_only,
            calibration: self.calibrate.as_deref().map(data::images).transpose()?,
        })
    }
}

/// The encoding for a ring of `ring_bits` bits: f = 16 where products of two such numbers leave 12 bits before the point,
/// fewer in narrower rings (k = 32: f = 10).
///
/// # Errors
/// There is no such ring.
pub fn numbers(ring_bits: u32) -> Result<Numbers, Error> {
    if (8..=64).contains(&ring_bits) {
        Ok(Numbers { ring_bits, fraction_bits: (ring_bits.saturating_sub(12) / 2).clamp(1, 16) })
    } else {
        Err(Error::Ring(ring_bits))
    }
}

/// How a model becomes a program. The default: k = 64, f = 16, bounds proved from the weights, logits out.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Ring and encoding; see [`numbers()`].
    pub numbers: Numbers,
    /// The program's first operation.
    pub normalisation: Option<Normalisation>,
    /// Whether the label alone is revealed, not the logits.
    pub label_only: bool,
    /// Images to calibrate bounds with, a row of pixels in 0..=1 for each.
    pub calibration: Option<Array2<f32>>,
}

/// (x - mean) / std for every pixel; public.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Taken away first.
    pub mean: f64,
    /// Divided by then; not zero.
    pub std: f64,
}

impl Normalisation {
    /// What the program does to `images`, for a reference in clear.
    #[must_use]
    pub fn apply(&self, images: ArrayView2<'_, f32>) -> Array2<f32> {
        images.mapv(|x| ((f64::from(x) - self.mean) / self.std) as f32)
    }
}

/// A model, ready to be planned, evaluated or deployed.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What the parties agree on.
    pub program: Program,
    /// What only the model's owner knows.
    pub weights: Weights,
}

/// Why a model could not be made a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file.
    #[error(transparent)]
    Model(#[from] onnx::Error),
    /// The images to calibrate with.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Layers that do not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The program cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A ring that does not exist.
    #[error("a ring of {0} bits cannot be; give --ring 8 to 64")]
    Ring(u32),
    /// A narrow ring with proved bounds.
    #[error(
        "a ring of {0} bits is too narrow for bounds that are proved from the weights; give --calibrate FILE with images like \
         those to come, or a larger --ring"
    )]
    Uncalibrated(u32),
    /// Images that the model cannot be calibrated with.
    #[error("the images to calibrate with do not serve: {0}")]
    Images(String),
    /// Calibration failed otherwise.
    #[error("while calibrating: {0}")]
    Calibration(#[from] Blame),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Model(error) => error.into(),
            Error::Data(error) => error.into(),
            Error::Calibration(ref blame) if blame.culprit() == Culprit::Bug => Self::other(error),
            _ => Self::usage(error),
        }
    }
}

/// Makes a program of a model: the layers in order, variables named `0.weights`, `0.bias`, … by their layer.
///
/// # Errors
/// The layers do not fit, the bounds do not fit the ring, or the images to calibrate with do not fit the model.
pub fn import(model: &Model, options: &ImportOptions) -> Result<Imported, Error> {
    let (graph, weights) = graph(model, options)?;
    let numbers = options.numbers;
    let program = match &options.calibration {
        None if numbers.ring_bits <= NARROW => return Err(Error::Uncalibrated(numbers.ring_bits)),
        None => graph.compile(numbers, Bounds::Proved(&weights))?,
        Some(images) => {
            let uncalibrated = graph.compile(numbers, Bounds::Declared(0))?;
            let largest = observe(&uncalibrated, &weights, images.view())?;
            let bounds = Bounds::Calibrated { weights: &weights, largest: &largest, margin: CALIBRATION_MARGIN };
            graph.compile(numbers, bounds)?
        }
    };
    Ok(Imported { program, weights })
}

/// The program of a network that has no weights: for plans. Its bounds are declared, as large as the ring allows.
///
/// # Errors
/// The normalisation is none.
pub fn untrained(net: Net, options: &ImportOptions) -> Result<Program, Error> {
    let (graph, _) = graph(&net.untrained(0), options)?;
    // A mean of four has two bits more.
    let bits = largest_bound(options.numbers) - if net.averages() { 2 } else { 0 };
    Ok(graph.compile(options.numbers, Bounds::Declared(bits))?)
}

/// The bits of the largest bounds that the ring allows: comparisons leave three bits of it free, and their operands have twice
/// the fraction.
pub(crate) fn largest_bound(numbers: Numbers) -> i32 {
    let Numbers { ring_bits, fraction_bits } = numbers;
    ring_bits as i32 - 2 * fraction_bits as i32 - 3
}

/// A model as a graph, and its weights.
///
/// # Errors
/// The layers do not fit.
pub(crate) fn graph(model: &Model, options: &ImportOptions) -> Result<(Graph, Weights), Error> {
    // The model's own check names the layer that does not fit.
    model.shapes()?;
    let (graph, mut weights) = (Graph::new(), Weights::default());
    // Under a mask from the start, so that the first product opens nothing.
    let mut x = graph.masked_input(CLIENT, INPUT, &dimensions(&model.input), [0.0, 1.0])?;
    if let Some(Normalisation { mean, std }) = options.normalisation {
        x = x.normalise(mean, std)?;
    }
    let mut variable = |name: String, values: ArrayViewD<'_, f32>| {
        let tensor = graph.private_variable(TRAINER, &name, &dimensions(values.shape()))?;
        weights.0.insert(name, program::Tensor::from(values));
        Ok::<Tensor, GraphError>(tensor)
    };
    for (index, layer) in model.layers.iter().enumerate() {
        x = match layer {
            Layer::Dense { weights, bias } => {
                let weights = variable(format!("{index}.weights"), weights.view().into_dyn())?;
                x.matmul(&weights)?.bias(&variable(format!("{index}.bias"), bias.view().into_dyn())?)?
            }
            Layer::Conv2D { filters, bias, strides, padding: [[top, bottom], [left, right]] } => {
                let filters = variable(format!("{index}.weights"), filters.view().into_dyn())?;
                let padding = [*top, *bottom, *left, *right].map(dimension);
                let bias = variable(format!("{index}.bias"), bias.view().into_dyn())?;
                let how = Convolution {
                    strides: strides.map(dimension),
                    padding: Padding::Explicit(padding),
                    ..Convolution::default()
                };
                x.conv2d(&filters, how)?.bias(&bias)?
            }
            Layer::Relu => x.relu()?,
            Layer::MaxPool { window, strides } => {
                x.max_pool2d(Pooling { strides: strides.map(dimension), ..Pooling::of(window.map(dimension)) })?
            }
            Layer::AveragePool { window, strides, padding: [[top, bottom], [left, right]], padding_counts } => {
                let [[top, bottom], [left, right]] = [[*top, *bottom], [*left, *right]].map(|ends| ends.map(dimension));
                let how = Pooling { strides: strides.map(dimension), ..Pooling::of(window.map(dimension)) };
                if *padding_counts && [top, bottom, left, right] != [0; 4] {
                    x.pad(&[[0, 0], [top, bottom], [left, right]])?.avg_pool2d(how)?
                } else {
                    x.avg_pool2d(Pooling { padding: Padding::Explicit([top, bottom, left, right]), ..how })?
                }
            }
            Layer::Flatten => x.flatten()?,
            Layer::Affine { mean, std } => x.normalise(f64::from(*mean), f64::from(*std))?,
            Layer::ArgMax => x.argmax(0)?,
        };
    }
    if options.label_only && !matches!(model.layers.last(), Some(Layer::ArgMax)) {
        x = x.argmax(0)?;
    }
    graph.output(CLIENT, &x)?;
    Ok((graph, weights))
}

/// Model files bound their shapes far below 2^32; what is not bounded fits nothing.
fn dimension(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn dimensions(shape: &[usize]) -> Vec<u32> {
    shape.iter().copied().map(dimension).collect()
}

/// The largest magnitude of every value of the program on these images.
fn observe(program: &Program, weights: &Weights, images: ArrayView2<'_, f32>) -> Result<Vec<f64>, Error> {
    let wanted = program.inputs().next().map_or(0, |(_, node)| node.elements());
    if images.nrows() == 0 || images.ncols() != wanted {
        let [count, elements] = [images.nrows(), images.ncols()];
        return Err(Error::Images(format!("there are {count} of {elements} elements each, the model takes {wanted}")));
    }
    if let Some(outside) = images.iter().find(|x| !(0.0..=1.0).contains(*x)) {
        return Err(Error::Images(format!("a pixel is {outside}, all must lie in 0 to 1")));
    }
    let none = || vec![0.0f64; program.nodes().len()];
    let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    images
        .axis_chunks_iter(Axis(0), CALIBRATION_BATCH)
        .into_par_iter()
        .map(|images| {
            let (mut largest, flat) = (none(), images.iter().copied().collect::<Vec<f32>>());
            clear::evaluate(program, weights, &[&flat], images.nrows(), &mut |id, values| {
                if let Some(most) = largest.get_mut(id as usize) {
                    *most = values.iter().fold(*most, |most, x| larger(most, f64::from(x.abs())));
                }
            })?;
            Ok(largest)
        })
        .try_reduce(none, |a, b| Ok(a.iter().zip(&b).map(|(a, b)| larger(*a, *b)).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use selkie::program::{Op, Origin};

    use super::*;

    fn pseudo(count: usize) -> Vec<f32> {
        (0..count as u32).map(|i| f32::from((i.wrapping_mul(0x9e37_79b9) >> 16) as u16) / 65535.0).collect()
    }

    fn images(count: usize) -> Array2<f32> {
        Array2::from_shape_vec((count, 784), pseudo(count * 784)).unwrap()
    }

    #[test]
    fn programs_compute_what_the_reference_runtime_computes() {
        for net in Net::ALL {
            let model = net.untrained(3);
            let options = ImportOptions {
                normalisation: Some(Normalisation { mean: 0.1307, std: 0.3081 }),
                ..ImportOptions::default()
            };
            let Imported { program, weights } = import(&model, &options).unwrap();
            let images = images(3);
            let flat: Vec<f32> = images.iter().copied().collect();
            let ours = clear::evaluate(&program, &weights, &[&flat], 3, &mut |_, _| ()).unwrap();
            let reference = onnx::Plaintext::new(&onnx::write(&model).unwrap()).unwrap();
            let theirs = reference.logits(options.normalisation.unwrap().apply(images.view()).view()).unwrap();
            for (ours, theirs) in ours[0].iter().zip(&theirs) {
                assert!((ours - theirs).abs() < 1e-4, "{net}: {ours} {theirs}");
            }
            assert!(program.nodes().iter().all(|node| match node.op {
                Op::Input { .. } => node.bound.origin == Origin::Declared,
                _ => node.bound.origin == Origin::Proved,
            }));
        }
    }

    #[test]
    fn averages_are_those_of_the_reference_runtime() {
        for padding in [[[0, 0], [0, 0]], [[1, 1], [1, 0]], [[2, 0], [0, 1]]] {
            for padding_counts in [false, true] {
                let pool = Layer::AveragePool { window: [3, 2], strides: [2, 1], padding, padding_counts };
                let model = Model { input: vec![1, 28, 28], layers: vec![pool, Layer::Flatten] };
                let Imported { program, weights } = import(&model, &ImportOptions::default()).unwrap();
                let images = images(2);
                let flat: Vec<f32> = images.iter().copied().collect();
                let ours = clear::evaluate(&program, &weights, &[&flat], 2, &mut |_, _| ()).unwrap();
                let reference = onnx::Plaintext::new(&onnx::write(&model).unwrap()).unwrap();
                let theirs = reference.logits(images.view()).unwrap();
                assert_eq!(ours[0].len(), theirs.len());
                for (ours, theirs) in ours[0].iter().zip(&theirs) {
                    assert!((ours - theirs).abs() < 1e-5, "{padding:?} {padding_counts}: {ours} {theirs}");
                }
            }
        }
    }

    #[test]
    fn labels_alone_are_revealed_on_request() {
        let options = ImportOptions { label_only: true, ..ImportOptions::default() };
        let Imported { program, .. } = import(&Net::D.untrained(1), &options).unwrap();
        let outputs: Vec<_> = program.outputs().map(|(_, node)| node.shape.clone()).collect();
        assert_eq!(outputs, [[1]]);
        let mut model = Net::D.untrained(1);
        model.layers.push(Layer::ArgMax);
        assert_eq!(import(&model, &options).unwrap().program, program);
    }

    #[test]
    fn narrow_rings_want_calibration_and_calibration_wants_fitting_images() {
        let model = Net::A.untrained(1);
        let mut options = ImportOptions { numbers: numbers(32).unwrap(), ..ImportOptions::default() };
        assert_eq!(options.numbers, Numbers { ring_bits: 32, fraction_bits: 10 });
        let message = import(&model, &options).unwrap_err().to_string();
        assert!(message.contains("--calibrate"), "{message}");
        options.calibration = Some(images(70));
        let program = import(&model, &options).unwrap().program;
        let relu = program.nodes().iter().find(|node| matches!(node.op, Op::Relu { .. })).unwrap();
        assert_eq!(relu.bound.origin, Origin::Calibrated);
        let proved = import(&model, &ImportOptions::default()).unwrap().program;
        let relus = |program: &Program| -> i32 {
            program.nodes().iter().filter(|n| matches!(n.op, Op::Relu { .. })).map(|n| n.bound.bits).sum()
        };
        assert!(relus(&program) < relus(&proved), "observed magnitudes are smaller than proved ones");

        options.calibration = Some(Array2::zeros((3, 783)));
        assert!(import(&model, &options).unwrap_err().to_string().contains("the model takes 784"));
        options.calibration = Some(Array2::zeros((0, 784)));
        assert!(import(&model, &options).is_err());
        for bad in [f32::NAN, -0.1, 1.1] {
            options.calibration = Some(Array2::from_elem((2, 784), bad));
            assert!(import(&model, &options).unwrap_err().to_string().contains("0 to 1"));
        }
    }

    #[test]
    fn networks_without_weights_have_declared_bounds_that_fit() {
        for ring in [16, 32, 48, 64] {
            let options =
                ImportOptions { numbers: numbers(ring).unwrap(), label_only: true, ..ImportOptions::default() };
            for net in Net::ALL {
                let program = untrained(net, &options).unwrap();
                // An index cannot be larger than there are candidates, whatever anybody declares, and constants are known.
                let index = program.nodes().iter().position(|node| matches!(node.op, Op::ArgMax { .. })).unwrap();
                let known = |op: &Op| match op {
                    Op::Constant { .. } => true,
                    Op::Arrange { x, .. } => matches!(program.node(*x).unwrap().op, Op::Constant { .. }),
                    _ => false,
                };
                let mut values = program.nodes().iter().take(index).filter(|node| !known(&node.op));
                assert!(values.all(|node| node.bound.origin == Origin::Declared));
                selkie::plan::Plan::new(&program, selkie::Protocol::SecureNn).unwrap();
            }
        }
        assert!(matches!(numbers(7), Err(Error::Ring(7))));
        assert!(matches!(numbers(65), Err(Error::Ring(65))));
    }
}
