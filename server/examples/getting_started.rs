//! # Getting started
//!
//! Selkie computes on data that nobody but its owner ever sees. Its owner splits a tensor into two random-looking shares, one
//! for each of two servers, which compute on them with the help of a crypto producer. Each party alone holds noise.
//!
//! ```text
//! cargo run -p selkie-server --example getting_started                                 all three parties in this process
//! cargo run -p selkie-server --example getting_started -- --protocol pond              under another protocol
//! cargo run -p selkie-server --example getting_started -- --remote trial/cluster.toml  over three processes
//! ```
//!
//! Read on in `main`.

#[path = "tutorial/mod.rs"]
mod tutorial;

use std::error::Error;

use clap::Parser;
use ndarray::arr1;
use selkie::graph::{Bounds, Graph};
use selkie::program::Numbers;
use tutorial::{Parties, Session};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    parties: Parties,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Parties { protocol, remote } = Arguments::parse().parties;

    // ## Public values
    //
    // A `Graph` is what people write. Players have names, any names: the tensor's owner, and whoever receives the answer. A
    // public variable lives at both servers in clear.

    let graph = Graph::new();
    let variable = graph.public_variable("owner", "variable", &[3])?;
    graph.initialise(&variable, arr1(&[1.0, 2.0, 3.0]).view().into_dyn())?;
    println!("variable: {} {:?}", variable.visibility().name(), variable.shape());

    // Operators make new tensors. Nothing is computed yet, but shapes are checked here, at the line that does not fit.

    let answer = (&variable * 2.0)?;
    graph.output("receiver", &answer)?;

    // The graph is compiled to a program, on which all parties agree; how large its values may become is proved from the
    // variables' values, which their owner knows. A session runs it: here, or, by changing this one line, over three parties.

    let weights = graph.weights();
    let program = graph.compile(Numbers::default(), Bounds::Proved(&weights))?;
    let mut session = match &remote {
        None => Session::local(&program, &weights, protocol)?,
        Some(cluster) => Session::remote(cluster, &program, &weights, protocol)?,
    };
    print_outputs("public variable * 2", &mut session)?;

    // ## Private values
    //
    // Written the same, but for one word. The owner shares the variable: the servers hold numbers modulo 2^64 that look like
    // nothing, and whose sum is the value with 16 bits after the point.

    let graph = Graph::new();
    let variable = graph.private_variable("owner", "variable", &[3])?;
    graph.initialise(&variable, arr1(&[1.0, 2.0, 3.0]).view().into_dyn())?;
    println!("variable: {} {:?}", variable.visibility().name(), variable.shape());
    graph.output("receiver", &(&variable * 2.0)?)?;

    let weights = graph.weights();
    let program = graph.compile(Numbers::default(), Bounds::Proved(&weights))?;
    let mut session = match &remote {
        None => Session::local(&program, &weights, protocol)?,
        Some(cluster) => Session::remote(cluster, &program, &weights, protocol)?,
    };

    // Where all parties are in one process, one can look at what each of them holds. Every run shares anew.

    match session.shares_of("variable")? {
        Some(shares) => {
            for (server, share) in shares.iter().enumerate() {
                println!("server{server}'s share: {:?}", share.iter().map(|x| *x as i64).collect::<Vec<_>>());
            }
        }
        None => println!("each server holds one share of it, and shows it to nobody"),
    }

    // The same product, on shares. Only the receiver puts them together.

    print_outputs("private variable * 2", &mut session)?;
    Ok(())
}

fn print_outputs(what: &str, session: &mut Session) -> Result<(), Box<dyn Error>> {
    for (player, values) in session.run(&[])? {
        println!("{what}: {player} receives {}", values.flatten());
    }
    Ok(())
}
