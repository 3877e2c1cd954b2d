//! # MNIST
//!
//! A model is trained in clear by its owner, the model trainer, and then predicts on images that only the prediction client
//! ever sees; the client learns nothing of the model but its answers.
//!
//! ```text
//! export SELKIE_MNIST_DIR=…                                   the directory with MNIST's four files
//! cargo run -p selkie-server --example mnist                  all three parties in this process
//! cargo run -p selkie-server --example mnist -- --protocol pond
//! cargo run -p selkie-server --example mnist -- --model my.onnx
//! cargo run -p selkie-server --example mnist -- --remote trial/cluster.toml
//! ```
//!
//! Without the data set, the shipped model predicts on a hundred drawn digits of this project's own. Read on in `main`.

#[path = "tutorial/mod.rs"]
mod tutorial;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Parser;
use ndarray::{Array2, Axis, s};
use selkie_server::data::{Labelled, Mnist};
use selkie_server::model::{CLIENT, INPUT, ImportOptions, import};
use selkie_server::onnx::{self, argmax};
use selkie_server::train::{self, Net, Options, Recipe};
use tutorial::{Parties, Session, drawings};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    parties: Parties,
    /// A trained model, instead of training one here.
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
}

/// Five batches of twenty.
const BATCHES: usize = 5;
const BATCH: usize = 20;
/// Images with which bounds are calibrated.
const CALIBRATION: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { parties: Parties { protocol, remote }, model } = Arguments::parse();

    // ## Data
    //
    // Pixels are numbers in 0..=1. What the model's owner trains with and what the client asks about have nothing in common.

    let (owner, client) = match std::env::var_os("SELKIE_MNIST_DIR") {
        Some(directory) => {
            let Mnist { train, test } = Mnist::read(Path::new(&directory))?;
            (Trainer::Mnist { train, model }, test)
        }
        None => {
            println!("SELKIE_MNIST_DIR is not set: the images are this project's own drawings of digits");
            (Trainer::Drawings { examples: drawings("examples.json")?, model }, drawings("strokes.json")?)
        }
    };

    // ## Training in clear
    //
    // The model trainer trains network A, 784-128-128-10 with ReLU between, as it always has.

    let (model, familiar) = owner.provide()?;

    // ## The program
    //
    // The model becomes a program: one private input, fed by the prediction client; private variables, given by the trainer;
    // one output, granted to the client. How large values may become is observed on the trainer's own images: Pond
    // approximates a ReLU by a polynomial, the better the smaller the interval.

    let options = ImportOptions { calibration: Some(familiar), ..ImportOptions::default() };
    let imported = import(&model, &options)?;
    let (program, weights) = (imported.program, imported.weights);

    // ## The protocol
    //
    // One word. `securenn` is exact, `pond` approximates activations by polynomials. And one line for where the parties are.

    println!("protocol: {protocol}");
    let mut session = match &remote {
        None => Session::local(&program, &weights, protocol)?,
        Some(cluster) => Session::remote(cluster, &program, &weights, protocol)?,
    };

    // ## Private predictions
    //
    // A client shares twenty images at once; each server computes on what looks like noise; the client puts the twenty rows of
    // logits together and takes the largest of each. Nobody else saw an image, a label or an activation.

    let shape: Vec<usize> = [BATCH].iter().chain(&model.input).copied().collect();
    let mut right = 0;
    for batch in 0..BATCHES {
        let part = batch * BATCH..(batch + 1) * BATCH;
        let labels = client.labels.get(part.clone()).ok_or("there are fewer than 100 images")?;
        let images = client.images.slice(s![part, ..]).to_owned().into_shape_with_order(shape.as_slice())?;
        let outputs = session.run(&[(INPUT, images.view())])?;
        let logits = outputs.into_iter().find(|(player, _)| player == CLIENT).ok_or("the client received nothing")?.1;
        let actual: Vec<usize> = logits.axis_iter(Axis(0)).map(|row| argmax(row.flatten().view())).collect();
        let hits = actual.iter().zip(labels).filter(|(actual, label)| **actual == usize::from(**label)).count();
        right += hits;
        println!("EXPECT: {labels:?}");
        println!("ACTUAL: {actual:?}");
        println!("accuracy: {}", hits as f64 / BATCH as f64);
    }
    println!("accuracy over all batches: {}", right as f64 / (BATCHES * BATCH) as f64);
    Ok(())
}

/// What the model's owner has.
enum Trainer {
    Mnist { train: Labelled, model: Option<PathBuf> },
    Drawings { examples: Labelled, model: Option<PathBuf> },
}

impl Trainer {
    /// The model, and images of the owner's own to calibrate it with.
    fn provide(self) -> Result<(onnx::Model, Array2<f32>), Box<dyn Error>> {
        let read = |path: &Path| -> Result<onnx::Model, Box<dyn Error>> { Ok(onnx::read(&onnx::bytes(path)?)?) };
        match self {
            Self::Mnist { train, model } => {
                let familiar = train.images.slice(s![..CALIBRATION.min(train.images.nrows()), ..]).to_owned();
                let model = match model {
                    Some(path) => read(&path)?,
                    None => trained(train)?,
                };
                Ok((model, familiar))
            }
            // Ten drawings are too few to train with.
            Self::Drawings { examples, model } => {
                let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.onnx");
                if model.is_none() {
                    println!("the model is the shipped one, which was trained on MNIST");
                }
                Ok((read(&model.unwrap_or(shipped))?, examples.images))
            }
        }
    }
}

/// Three epochs of batches of 256, a tenth of the images kept aside to measure with.
fn trained(train: Labelled) -> Result<onnx::Model, Box<dyn Error>> {
    let kept = train.labels.len() / 10 * 9;
    let part = |from: usize, to: usize| Labelled {
        images: train.images.slice(s![from..to, ..]).to_owned(),
        labels: train.labels.get(from..to).unwrap_or_default().to_vec(),
    };
    let mnist = Mnist { train: part(0, kept), test: part(kept, train.labels.len()) };
    let trained = train::run(&Options::new(Net::A, Recipe::Tutorial), &mnist, &mut |progress| {
        if progress.step == progress.steps {
            println!("epoch {} of {}: loss {:.4}", progress.epoch, progress.epochs, progress.loss);
        }
    })?;
    println!("training complete: accuracy in clear {:.4}", trained.test_accuracy);
    Ok(trained.model)
}
