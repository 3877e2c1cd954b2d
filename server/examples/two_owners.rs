//! # Columns of two owners
//!
//! Two hospitals know different things about the same patients. Together they train a linear model on all columns; neither
//! sees the other's, and the servers see none.
//!
//! ```text
//! cargo run -p selkie-server --example two_owners                                 all three parties in this process
//! cargo run -p selkie-server --example two_owners -- --remote trial/cluster.toml  over three processes
//! ```
//!
//! Read on in `main`; the tutorial on logistic regression comes first.

#[path = "tutorial/mod.rs"]
mod tutorial;

use std::error::Error;

use clap::Parser;
use ndarray::{Array2, Axis, array, concatenate};
use selkie::Seed;
use selkie::graph::{Bounds, Graph, Tensor};
use selkie::layers::{Dense, Initialiser, Layer, Owner, Sgd, mean_squared_error};
use selkie::program::Numbers;
use tutorial::{Parties, Session};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    parties: Parties,
}

const ROWS: usize = 64;
const STEPS: usize = 60;

fn main() -> Result<(), Box<dyn Error>> {
    let Parties { protocol, remote } = Arguments::parse().parties;

    // ## Data
    //
    // Hospital a has two columns. Hospital b has one more, and what is to be foretold: 0.5 a1 - 0.25 a2 + 0.75 b1 + 0.1.

    let draw = |salt, columns: usize| -> Result<Array2<f32>, Box<dyn Error>> {
        let values = Initialiser::Uniform { limit: 1.0 }.draw(ROWS * columns, [1, 1], &Seed::new([salt; 32]));
        Ok(Array2::from_shape_vec((ROWS, columns), values)?)
    };
    let (a, b) = (draw(1, 2)?, draw(2, 1)?);
    let all = concatenate(Axis(1), &[a.view(), b.view()])?;
    let target = all.dot(&array![[0.5f32], [-0.25], [0.75]]) + 0.1;

    // ## Training
    //
    // Each owner feeds its own input; the program puts the columns side by side. The loss goes to hospital b.

    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([3; 32])).keeping([-2.0, 2.0]);
    let model = Dense::new(&owner, "linear", [3, 1], Initialiser::Zeros)?;
    let columns = |player, name, columns| graph.private_input(player, name, &[ROWS as u32, columns], [-2.0, 2.0]);
    let (of_a, of_b) = (columns("hospital-a", "a", 2)?, columns("hospital-b", "b", 1)?);
    let wanted = columns("hospital-b", "target", 1)?;
    let pass = model.pass(&Tensor::concat(&[&of_a, &of_b], 1)?)?;
    let loss = mean_squared_error(&pass.y, &wanted)?;
    let train = graph.entry("train");
    let sgd = Sgd { rate: 0.5.into(), samples: ROWS as u32 };
    for (parameter, gradient) in model.parameters().iter().zip(&model.parameter_gradients(&pass, &loss.gradient)?) {
        train.assign(parameter, &sgd.step(parameter, gradient)?)?;
    }
    train.output("hospital-b", &loss.value)?;

    // ## The model
    //
    // What was learnt is for its owner, who is granted it by an entry point of its own, and for nobody else.

    let reveal = graph.entry("reveal");
    for parameter in model.parameters() {
        reveal.output("model-owner", &parameter)?;
    }

    let weights = graph.weights();
    let programs = graph.compile_entries(Numbers::default(), Bounds::Proved(&weights))?;
    let mut session = match &remote {
        None => Session::local(&programs, &weights, protocol)?,
        Some(cluster) => Session::remote(cluster, &programs, &weights, protocol)?,
    };
    println!("protocol: {protocol}");
    for step in 1..=STEPS {
        let inputs = [("a", a.view().into_dyn()), ("b", b.view().into_dyn()), ("target", target.view().into_dyn())];
        let outputs = session.call("train", &inputs)?;
        if step % 20 == 0 {
            let loss = outputs.first().ok_or("no loss")?.1.sum() / ROWS as f32;
            println!("step {step}: mean squared error {loss:.6}");
        }
    }
    for (player, values) in session.call("reveal", &[])? {
        println!("{player} receives {:.2}", values.flatten());
    }
    Ok(())
}
