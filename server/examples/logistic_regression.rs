//! # Logistic regression
//!
//! A model is trained on data that only its owner ever sees. The weights live on the servers as shares, from the first step to
//! the last: neither the servers nor the owner of the data know them.
//!
//! ```text
//! cargo run -p selkie-server --example logistic_regression                                 all three parties in this process
//! cargo run -p selkie-server --example logistic_regression -- --protocol securenn
//! cargo run -p selkie-server --example logistic_regression -- --remote trial/cluster.toml  over three processes
//! ```
//!
//! Read on in `main`. Some familiarity with machine learning is taken for granted.

#[path = "tutorial/mod.rs"]
mod tutorial;

use std::error::Error;

use clap::Parser;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use selkie::graph::{Bounds, Graph};
use selkie::layers::{Dense, Initialiser, Layer, Owner, Sgd, sigmoid_cross_entropy, sigmoid_cross_entropy_in_clear};
use selkie::program::{Numbers, Weights};
use selkie::{Seed, clear};
use tutorial::{Parties, Session};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    parties: Parties,
}

const FEATURES: usize = 10;
const TRAINING_SET: usize = 2000;
const TEST_SET: usize = 100;
const BATCH: usize = 100;
const PREDICTED_AT_ONCE: usize = 50;
const EPOCHS: usize = 10;
const LEARNING_RATE: f64 = 0.01;

fn main() -> Result<(), Box<dyn Error>> {
    let Parties { protocol, remote } = Arguments::parse().parties;

    // ## Data
    //
    // It belongs to the input provider: points of ten features, and on which side of a plane each lies.

    let (x, y) = points(TRAINING_SET, 1);
    let (x_test, y_test) = points(TEST_SET, 2);

    // ## The model
    //
    // One layer, whose weights begin small and whose bias begins at zero. `keeping` says that the servers keep them from run to
    // run, and in which range they will stay.

    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([1; 32])).keeping([-1.0, 1.0]);
    let model = Dense::new(&owner, "dense", [FEATURES as u32, 1], Initialiser::Normal { deviation: 0.005 })?;

    // ## A step of training
    //
    // A mini-batch of the input provider's: its rows are one input, because a step is about all of them. The layer knows its way
    // back. An entry point, `train`, assigns the parameters their new values. The logits are granted to the input provider, who
    // computes the cost from them; nothing at all is revealed to the servers.

    let batch = |name, columns| graph.private_input("input-provider", name, &[BATCH as u32, columns], [-0.5, 1.0]);
    let (rows, labels) = (batch("rows", FEATURES as u32)?, batch("labels", 1)?);
    let pass = model.pass(&rows)?;
    let gradient = sigmoid_cross_entropy(&pass.y, &labels)?;
    let gradients = model.parameter_gradients(&pass, &gradient)?;

    let train = graph.entry("train");
    let sgd = Sgd { rate: LEARNING_RATE.into(), samples: BATCH as u32 };
    for (parameter, gradient) in model.parameters().iter().zip(&gradients) {
        train.assign(parameter, &sgd.step(parameter, gradient)?)?;
    }
    train.output("input-provider", &pass.y)?;

    // ## A prediction
    //
    // Another entry point over the same weights. Its input is one row; a batch of rows may be asked at once, as large as the
    // servers' stock of material allows (`limits.stock_units`).

    let row = graph.private_input("input-provider", "row", &[FEATURES as u32], [-0.5, 0.5])?;
    graph.entry("predict").output("input-provider", &model.forward(&row)?.sigmoid()?)?;

    // ## Training
    //
    // Here, or, by changing this one line, over three parties.

    let initial = graph.weights();
    let programs = graph.compile_entries(Numbers::default(), Bounds::Proved(&initial))?;
    let mut session = match &remote {
        None => Session::local(&programs, &initial, protocol)?,
        Some(cluster) => Session::remote(cluster, &programs, &initial, protocol)?,
    };

    println!("protocol: {protocol}");
    let mut in_clear = initial.clone();
    for epoch in 1..=EPOCHS {
        let (mut cost, mut clear_cost) = (0.0, 0.0);
        for (x, y) in x.axis_chunks_iter(Axis(0), BATCH).zip(y.axis_chunks_iter(Axis(0), BATCH)) {
            let outputs = session.call("train", &[("rows", x.into_dyn()), ("labels", y.into_dyn())])?;
            cost += mean_cost(&outputs.first().ok_or("no logits")?.1.flatten().to_owned(), y)?;

            // The same in clear, to compare: this, too, only the input provider could do.
            let (x, labels) = (x.iter().copied().collect::<Vec<_>>(), y.iter().copied().collect::<Vec<_>>());
            let logits = clear::run(programs.get("train")?, &mut in_clear, &[&x, &labels])?;
            clear_cost += mean_cost(&Array1::from_vec(logits.concat()), y)?;
        }
        let batches = (TRAINING_SET / BATCH) as f64;
        println!("Epoch: {epoch:04} cost= {:.9} in clear: {:.9}", cost / batches, clear_cost / batches);
    }
    println!("Optimization Finished!");

    // ## Prediction with a model that nobody has ever seen

    let mut predictions = Vec::with_capacity(TEST_SET);
    for rows in x_test.axis_chunks_iter(Axis(0), PREDICTED_AT_ONCE) {
        let outputs = session.call("predict", &[("row", rows.into_dyn())])?;
        predictions.extend(outputs.first().ok_or("no predictions")?.1.iter().copied());
    }
    let private = accuracy(predictions.into_iter(), y_test.view());
    println!("Accuracy: {private} in clear: {}", accuracy_in_clear(&programs, &in_clear, &x_test, &y_test)?);
    println!("You have just done private training without revealing anything about the input!");
    Ok(())
}

/// Points in a cube, and which of them lie above a plane through its middle.
fn points(count: usize, salt: u64) -> (Array2<f32>, Array2<f32>) {
    let seed = Seed::new([salt as u8; 32]);
    let x = Initialiser::Uniform { limit: 0.5 }.draw(count * FEATURES, [1, 1], &seed);
    let x = Array2::from_shape_fn((count, FEATURES), |(i, j)| x.get(i * FEATURES + j).copied().unwrap_or_default());
    let y = x.map_axis(Axis(1), |row| f32::from(u8::from(row.sum() > 0.0))).insert_axis(Axis(1));
    (x, y)
}

fn mean_cost(logits: &Array1<f32>, y: ArrayView2<'_, f32>) -> Result<f64, Box<dyn Error>> {
    let labels: Vec<f32> = y.iter().copied().collect();
    let logits = logits.as_slice().ok_or("logits in one piece")?;
    Ok(sigmoid_cross_entropy_in_clear(logits, &labels) / labels.len() as f64)
}

fn accuracy(predictions: impl Iterator<Item = f32>, y: ArrayView2<'_, f32>) -> f64 {
    let right = predictions.zip(y.iter()).filter(|(p, y)| (*p > 0.5) == (**y > 0.5)).count();
    right as f64 / y.len() as f64
}

fn accuracy_in_clear(
    programs: &selkie::program::EntryPoints,
    weights: &Weights,
    x: &Array2<f32>,
    y: &Array2<f32>,
) -> Result<f64, Box<dyn Error>> {
    let rows: Vec<f32> = x.slice(s![.., ..]).iter().copied().collect();
    let predictions = clear::evaluate(programs.get("predict")?, weights, &[&rows], y.len(), &mut |_, _| ())?;
    Ok(accuracy(predictions.concat().into_iter(), y.view()))
}
