//! Training in clear: the model trainer's part, before anything is private.
//!
//! Small networks, mini-batches, Adam. Everything drawn follows from the seed; the same seed, data and processor give
//! the same network.

pub mod augment;
pub mod command;
mod layer;
mod nets;
mod network;
mod random;
#[cfg(test)]
mod recognition;
mod weights;
mod window;

use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::data::{Labelled, Mnist};
use crate::onnx;
pub use augment::Augmentation;
pub use nets::Net;
use network::Network;

/// A named way to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Recipe {
    /// TF Encrypted's tutorial: batches of 256, 3 epochs, a constant rate of 3e-3, the images as they are.
    Tutorial,
    /// What the shipped model was trained with: more epochs, the rate falling along a cosine, augmented images.
    Shipped,
}

/// What to train and how. [`Options::new`] gives a recipe's; every field can be changed after.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The network.
    pub net: Net,
    /// Times that every training image is shown, at least 1.
    pub epochs: u32,
    /// Images in a step, at least 1.
    pub batch: usize,
    /// Adam's rate, at the start.
    pub rate: f32,
    /// Whether the rate falls to zero along half a cosine.
    pub decay: bool,
    /// How images are changed before each showing.
    pub augmentation: Option<Augmentation>,
    /// What everything random follows from.
    pub seed: u64,
}

impl Options {
    /// A recipe's choices for a network.
    #[must_use]
    pub fn new(net: Net, recipe: Recipe) -> Self {
        match recipe {
            Recipe::Tutorial => {
                Self { net, epochs: 3, batch: 256, rate: 3e-3, decay: false, augmentation: None, seed: 1 }
            }
            Recipe::Shipped => {
                let (epochs, augmentation) = match net {
                    Net::A => (30, Augmentation::GENTLE),
                    Net::B | Net::BAvg => (12, Augmentation::GENTLE),
                    Net::C | Net::CAvg => (8, Augmentation::GENTLE),
                    Net::D => (15, Augmentation::GENTLE),
                    Net::Demo => (20, Augmentation::STRONG),
                };
                Self { net, epochs, batch: 128, rate: 2e-3, decay: true, augmentation: Some(augmentation), seed: 1 }
            }
        }
    }
}

/// How far training has come: reported after every step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The running epoch, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// The step within the epoch, from 1.
    pub step: usize,
    /// Steps in an epoch.
    pub steps: usize,
    /// The step's mean loss.
    pub loss: f32,
    /// The fraction of test images recognised; after an epoch's last step.
    pub test_accuracy: Option<f64>,
}

/// A trained network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trained {
    /// What a model file is made of.
    pub model: onnx::Model,
    /// The fraction of test images recognised.
    pub test_accuracy: f64,
}

/// Why nothing was trained.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A number that makes no sense.
    #[error("{option} is {value}; it must be {wanted}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// Images of another size, or none.
    #[error("the {set} images are {images} of {pixels} pixels; give at least one image of 28x28")]
    Images {
        /// Which set.
        set: &'static str,
        /// How many there are.
        images: usize,
        /// Their size.
        pixels: usize,
    },
    /// A label that is no digit.
    #[error("the {set} labels contain {label}; give labels from 0 to 9, one for each image")]
    Label {
        /// Which set.
        set: &'static str,
        /// The label.
        label: u8,
    },
    /// The loss is no longer a number.
    #[error("training diverged in epoch {epoch}; give a smaller --rate")]
    Diverged {
        /// The epoch.
        epoch: u32,
    },
}

/// Trains a network.
///
/// # Errors
/// An option or the data makes no sense, or the rate was so large that the loss left the numbers.
pub fn run(options: &Options, mnist: &Mnist, report: &mut dyn FnMut(Progress)) -> Result<Trained, Error> {
    check(options, mnist)?;
    let Options { net, epochs, batch, seed, .. } = *options;
    let train = &mnist.train;
    let steps = train.labels.len().div_ceil(batch);
    let mut network = Network::new(net, seed);
    let mut order: Vec<usize> = (0..train.labels.len()).collect();
    let mut test_accuracy = 0.0;
    for epoch in 1..=epochs {
        // Stream 0 drew the weights, and streams from 2^32 on change the images.
        random::shuffle(&mut order, &mut random::stream(seed, u64::from(epoch)));
        for (step, chosen) in order.chunks(batch).enumerate() {
            let (images, labels) = mini_batch(options, train, epoch, chosen);
            let done = ((epoch - 1) as usize * steps + step) as f32 / (epochs as usize * steps) as f32;
            let decay = if options.decay { 0.5 * (1.0 + (std::f32::consts::PI * done).cos()) } else { 1.0 };
            let loss = network.learn(images.view(), &labels, options.rate * decay);
            if !loss.is_finite() {
                return Err(Error::Diverged { epoch });
            }
            let last = step + 1 == steps;
            if last {
                test_accuracy = network.accuracy(mnist.test.images.view(), &mnist.test.labels);
            }
            let test_accuracy = last.then_some(test_accuracy);
            report(Progress { epoch, epochs, step: step + 1, steps, loss, test_accuracy });
        }
    }
    Ok(Trained { model: network.model(net), test_accuracy })
}

/// The chosen images, changed as the options want, and their labels.
fn mini_batch(options: &Options, train: &Labelled, epoch: u32, chosen: &[usize]) -> (Array2<f32>, Vec<u8>) {
    let mut images = train.images.select(Axis(0), chosen);
    let labels = chosen.iter().filter_map(|&i| train.labels.get(i)).copied().collect();
    if let Some(augmentation) = options.augmentation {
        images.axis_iter_mut(Axis(0)).into_par_iter().zip(chosen).for_each(|(mut image, &index)| {
            // Each showing of each image has a stream of its own.
            let mut rng = random::stream(options.seed, (u64::from(epoch) << 32) | index as u64);
            let before = image.to_vec();
            if let Some(out) = image.as_slice_mut() {
                augmentation.apply(&before, out, &mut rng);
            }
        });
    }
    (images, labels)
}

fn check(options: &Options, mnist: &Mnist) -> Result<(), Error> {
    let wrong = |option, value: &dyn ToString, wanted| Err(Error::Option { option, value: value.to_string(), wanted });
    if options.epochs == 0 {
        return wrong("--epochs", &options.epochs, "at least 1");
    }
    if options.batch == 0 {
        return wrong("--batch", &options.batch, "at least 1");
    }
    if !(options.rate > 0.0 && options.rate < 1.0) {
        return wrong("--rate", &options.rate, "between 0 and 1, such as 0.003");
    }
    for (set, Labelled { images, labels }) in [("training", &mnist.train), ("test", &mnist.test)] {
        if images.is_empty() || images.ncols() != 784 || images.nrows() != labels.len() {
            return Err(Error::Images { set, images: images.nrows(), pixels: images.ncols() });
        }
        if let Some(&label) = labels.iter().find(|&&label| label > 9) {
            return Err(Error::Label { set, label });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::*;

    /// Ten kinds of images that anything learns to tell apart: a bar across, at a height that is the label's.
    fn bars(count: usize) -> Labelled {
        let labels: Vec<u8> = (0..count).map(|i| (i * 3 % 10) as u8).collect();
        let images = Array2::from_shape_fn((count, 784), |(i, pixel)| {
            let (row, column) = (pixel / 28, pixel % 28);
            f32::from(u8::from(row / 2 == usize::from(labels[i]) + 2 && (4 + i % 5..24).contains(&column)))
        });
        Labelled { images, labels }
    }

    fn small() -> (Options, Mnist) {
        let options = Options { epochs: 4, batch: 20, ..Options::new(Net::D, Recipe::Shipped) };
        (options, Mnist { train: bars(300), test: bars(50) })
    }

    #[test]
    fn a_network_learns_reports_and_repeats_itself() {
        let (mut options, data) = small();
        options.augmentation = Some(Augmentation { shift: 0.5, ..Augmentation::GENTLE });
        let mut reports = Vec::new();
        let trained = run(&options, &data, &mut |progress| reports.push(progress)).unwrap();
        assert!(trained.test_accuracy > 0.9, "{}", trained.test_accuracy);
        assert_eq!(reports.len(), 4 * 15);
        assert_eq!(reports.iter().filter(|r| r.test_accuracy.is_some()).count(), 4);
        let again = run(&options, &data, &mut |_| {}).unwrap();
        assert_eq!(trained.model, again.model);
        options.seed = 2;
        assert_ne!(trained.model, run(&options, &data, &mut |_| {}).unwrap().model);
    }

    #[test]
    fn senseless_options_and_data_are_refused() {
        let (options, data) = small();
        let fails = |options: &Options, data: &Mnist| run(options, data, &mut |_| {}).unwrap_err();
        assert!(matches!(fails(&Options { epochs: 0, ..options.clone() }, &data), Error::Option { .. }));
        assert!(matches!(fails(&Options { batch: 0, ..options.clone() }, &data), Error::Option { .. }));
        assert!(matches!(fails(&Options { rate: f32::NAN, ..options.clone() }, &data), Error::Option { .. }));
        let mut other = small().1;
        other.test.labels[3] = 10;
        assert_eq!(fails(&options, &other), Error::Label { set: "test", label: 10 });
        other.train.images = Array2::zeros((300, 783));
        assert!(matches!(fails(&options, &other), Error::Images { set: "training", pixels: 783, .. }));
    }

    /// What the tutorial promises; the shipped recipe's promises take minutes to check, and `selkie train` prints what
    /// came of them.
    #[test]
    fn the_tutorials_recipe_reaches_the_tutorials_accuracy() {
        let Some(directory) = std::env::var_os("SELKIE_MNIST_DIR") else {
            eprintln!("SELKIE_MNIST_DIR is not set: training on MNIST is not tested");
            return;
        };
        let mnist = Mnist::read(std::path::Path::new(&directory)).unwrap();
        let options = Options::new(Net::A, Recipe::Tutorial);
        let trained = run(&options, &mnist, &mut |_| {}).unwrap();
        assert!(trained.test_accuracy >= 0.965, "{}", trained.test_accuracy);
        // The reference runtime, which shares no code with training, finds the same.
        let runtime = onnx::Plaintext::new(&onnx::write(&trained.model).unwrap()).unwrap();
        let logits = runtime.logits(mnist.test.images.view()).unwrap();
        let classes = logits.rows().into_iter().map(onnx::argmax);
        let right = classes.zip(&mnist.test.labels).filter(|(class, label)| *class == usize::from(**label)).count();
        assert!((right as f64 / 1e4 - trained.test_accuracy).abs() <= 1e-4, "{right}");
    }
}
