//! # Private training
//!
//! Network A, 784-128-128-10 with ReLU between, is trained on images that only their owner ever sees, and then predicts for
//! somebody else. The weights are shares from the first step to the last: nobody ever sees the model.
//!
//! ```text
//! export SELKIE_MNIST_DIR=…                                                            the directory with MNIST's four files
//! cargo run -p selkie-server --example private_training                                 all three parties in this process
//! cargo run -p selkie-server --example private_training -- --protocol fss --steps 50
//! cargo run -p selkie-server --example private_training -- --remote trial/cluster.toml  over three processes
//! ```
//!
//! Pond cannot: a ReLU's way back compares. Without the data set, the images are this project's own drawings of digits, far too
//! few to learn much from. Read on in `main`.

#[path = "tutorial/mod.rs"]
mod tutorial;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ndarray::{Array2, ArrayView2, Axis};
use selkie::graph::{Bounds, Graph};
use selkie::layers::{
    Dense, Initialiser, Layer, Owner, Relu, Sequential, Sgd, sigmoid_cross_entropy, sigmoid_cross_entropy_in_clear,
};
use selkie::program::{EntryPoints, Numbers, Weights};
use selkie::{Seed, clear};
use selkie_server::data::{Batches, Mnist};
use selkie_server::onnx::argmax;
use tutorial::{Parties, Session, drawings};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    parties: Parties,
    /// Passes over the data.
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// Stop after so many steps.
    #[arg(long)]
    steps: Option<usize>,
    /// Images to test with.
    #[arg(long, default_value_t = 1000)]
    test: usize,
}

const BATCH: usize = 128;
/// As many as the servers' stock of material allows (`limits.stock_units`), or fewer.
const PREDICTED_AT_ONCE: usize = 50;
const LEARNING_RATE: f64 = 0.1;
const MEAN: f64 = 0.1307;
const DEVIATION: f64 = 0.3081;
/// No value of a step is larger than 2^13: the sums over a batch, that is, of which logits and activations fall far short.
const BOUND: i32 = 13;

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { parties: Parties { protocol, remote }, epochs, steps, test } = Arguments::parse();

    // ## Data
    //
    // The data owner reads its images a batch at a time: what it holds of them in memory does not depend on how many there are.

    let source = Source::find();

    // ## The model, and a step of its training
    //
    // Nothing new to whoever has seen logistic regression: three layers instead of one. Pixels are normalised by the program.

    let (programs, initial) = network()?;
    let mut session = match &remote {
        None => Session::local(&programs, &initial, protocol)?,
        Some(cluster) => Session::remote(cluster, &programs, &initial, protocol)?,
    };
    println!("protocol: {protocol}");

    // ## Training
    //
    // The loss is for the data owner, who is granted the logits. The same steps in clear, by the same program in f32, show what
    // privacy costs in accuracy: nothing that can be measured.

    let mut in_clear = initial.clone();
    let planned = steps.unwrap_or(usize::MAX).min(epochs * source.batches()?);
    let bar = progress(planned);
    let (mut done, mut private_time, mut clear_time) = (0, Vec::new(), Duration::ZERO);
    'training: for epoch in 1..=epochs {
        let mut losses = [0.0; 2];
        let before = done;
        for batch in source.open()? {
            if done == planned {
                break 'training;
            }
            let (images, labels) = batch?;
            let start = Instant::now();
            let outputs =
                session.call("train", &[("images", images.view().into_dyn()), ("labels", labels.view().into_dyn())])?;
            private_time.push(start.elapsed());
            let logits: Vec<f32> = outputs.first().ok_or("no logits")?.1.iter().copied().collect();

            let start = Instant::now();
            let flat = [&images, &labels].map(|array| array.iter().copied().collect::<Vec<f32>>());
            let [x, y] = &flat;
            let clear_logits = clear::run(programs.get("train")?, &mut in_clear, &[x, y])?.concat();
            clear_time += start.elapsed();
            for (sum, logits) in losses.iter_mut().zip([&logits, &clear_logits]) {
                *sum += sigmoid_cross_entropy_in_clear(logits, y) / BATCH as f64;
            }
            done += 1;
            bar.inc(1);
            bar.set_message(format!("epoch {epoch}, loss {:.3}", losses[0] / (done - before) as f64));
        }
        let count = (done - before).max(1) as f64;
        bar.suspend(|| println!("epoch {epoch}: loss {:.4} in clear: {:.4}", losses[0] / count, losses[1] / count));
    }
    bar.finish_and_clear();
    private_time.sort_unstable();
    let median = private_time.get(private_time.len() / 2).copied().unwrap_or_default();
    println!(
        "{done} steps of {BATCH}: {:.1} ms each in private, {:.1} ms in clear",
        median.as_secs_f64() * 1e3,
        clear_time.as_secs_f64() * 1e3 / done.max(1) as f64
    );

    // ## Prediction with a model that nobody ever saw

    let (images, labels) = source.test(test)?;
    let mut right = [0; 2];
    for (images, labels) in images.axis_chunks_iter(Axis(0), PREDICTED_AT_ONCE).zip(labels.chunks(PREDICTED_AT_ONCE)) {
        let outputs = session.call("predict", &[("image", images.into_dyn())])?;
        let private = outputs.first().ok_or("no predictions")?.1.view().into_dimensionality()?;
        let rows: Vec<f32> = images.iter().copied().collect();
        let clear =
            clear::evaluate(programs.get("predict")?, &in_clear, &[&rows], labels.len(), &mut |_, _| ())?.concat();
        let clear = ArrayView2::from_shape((labels.len(), 10), &clear)?;
        for (right, logits) in right.iter_mut().zip([private, clear]) {
            *right += logits
                .rows()
                .into_iter()
                .zip(labels)
                .filter(|(row, label)| argmax(row.view()) == usize::from(**label))
                .count();
        }
    }
    let [private, clear] = right.map(|right| right as f64 / labels.len().max(1) as f64);
    println!("accuracy on {} test images: {private} in clear: {clear}", labels.len());
    Ok(())
}

/// Training and prediction over the same weights.
fn network() -> Result<(EntryPoints, Weights), Box<dyn Error>> {
    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([7; 32])).keeping([-4.0, 4.0]);
    let dense = |name, features| Dense::new(&owner, name, features, Initialiser::HeNormal);
    let model = Sequential::new()
        .then(dense("dense1", [784, 128])?)
        .then(Relu)
        .then(dense("dense2", [128, 128])?)
        .then(Relu)
        .then(dense("dense3", [128, 10])?);

    let images = graph.private_input("data-owner", "images", &[BATCH as u32, 784], [0.0, 1.0])?;
    let labels = graph.private_input("data-owner", "labels", &[BATCH as u32, 10], [0.0, 1.0])?;
    let pass = model.pass(&images.normalise(MEAN, DEVIATION)?)?;
    let gradient = sigmoid_cross_entropy(&pass.y, &labels)?;
    let gradients = model.parameter_gradients(&pass, &gradient)?;
    let train = graph.entry("train");
    let sgd = Sgd { rate: LEARNING_RATE.into(), samples: BATCH as u32 };
    for (parameter, gradient) in model.parameters().iter().zip(&gradients) {
        train.assign(parameter, &sgd.step(parameter, gradient)?)?;
    }
    train.output("data-owner", &pass.y)?;

    let image = graph.private_input("prediction-client", "image", &[784], [0.0, 1.0])?;
    graph.entry("predict").output("prediction-client", &model.forward(&image.normalise(MEAN, DEVIATION)?)?)?;
    let weights = graph.weights();
    Ok((graph.compile_entries(Numbers::default(), Bounds::Declared(BOUND))?, weights))
}

/// Where images come from.
enum Source {
    Mnist(PathBuf),
    Drawings,
}

/// One pass over the data.
type BoxedBatches = Box<dyn Iterator<Item = Result<Batch, Box<dyn Error>>>>;

/// Images and one-hot labels.
type Batch = (Array2<f32>, Array2<f32>);

impl Source {
    fn find() -> Self {
        match std::env::var_os("SELKIE_MNIST_DIR") {
            Some(directory) => Self::Mnist(directory.into()),
            None => {
                println!("SELKIE_MNIST_DIR is not set: the images are this project's own drawings of digits");
                Self::Drawings
            }
        }
    }

    /// Whole batches of one pass.
    fn batches(&self) -> Result<usize, Box<dyn Error>> {
        match self {
            Self::Mnist(directory) => Ok(Batches::of_mnist(directory, BATCH)?.rows() / BATCH),
            Self::Drawings => Ok(1),
        }
    }

    fn open(&self) -> Result<BoxedBatches, Box<dyn Error>> {
        let one_hot = |labels: &[u8]| {
            Array2::from_shape_fn((labels.len(), 10), |(i, class)| {
                f32::from(u8::from(labels.get(i).is_some_and(|label| usize::from(*label) == class)))
            })
        };
        Ok(match self {
            Self::Mnist(directory) => Box::new(Batches::of_mnist(directory, BATCH)?.map(move |batch| {
                let batch = batch?;
                Ok((batch.images, one_hot(&batch.labels)))
            })),
            Self::Drawings => {
                let drawings = drawings("strokes.json")?;
                let rows = (0..BATCH).map(|i| i % drawings.labels.len());
                let labels: Vec<u8> = rows.clone().filter_map(|i| drawings.labels.get(i).copied()).collect();
                let images = drawings.images.select(Axis(0), &rows.collect::<Vec<_>>());
                Box::new(std::iter::once(Ok((images, one_hot(&labels)))))
            }
        })
    }

    /// The prediction client's own images.
    fn test(&self, count: usize) -> Result<(Array2<f32>, Vec<u8>), Box<dyn Error>> {
        let test = match self {
            Self::Mnist(directory) => Mnist::read(Path::new(directory))?.test,
            Self::Drawings => drawings("examples.json")?,
        };
        let count = count.min(test.labels.len());
        let images = test.images.select(Axis(0), &(0..count).collect::<Vec<_>>());
        Ok((images, test.labels.get(..count).unwrap_or_default().to_vec()))
    }
}

fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} step {pos} of {len}, {msg}, {eta} left");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
