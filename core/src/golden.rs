//! Golden transcripts: one digest for each role of everything it sends or deals in a fixed run with fixed seeds.
//!
//! The same seeds must make the same bytes on every machine. This run goes through every gate of the protocol; its digests
//! are committed, and compared natively, in Node and in a browser.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use crate::compare::hash::HashKind;
use crate::error::Blame;
use crate::graph::{Bounds, Convolution, Graph, Pooling};
use crate::plan::Plan;
use crate::program::{Numbers, Program, Tensor, Weights};
use crate::session::Session;
use crate::{Objective, Protocol, Role, Variant};

/// For each protocol and ring, and another variant of the masked-wire protocols: its name, and the digests of server0, server1 and crypto-producer in hexadecimal.
///
/// # Errors
/// A bug: the run does not finish.
pub fn transcripts() -> Result<Vec<(String, [String; 3])>, Blame> {
    let rings =
        [Numbers::default(), Numbers { ring_bits: 32, fraction_bits: 8 }, Numbers { ring_bits: 40, fraction_bits: 11 }];
    let mut all = Vec::new();
    for (protocol, numbers) in Protocol::ALL.iter().flat_map(|protocol| rings.map(|numbers| (*protocol, numbers))) {
        let name = format!("{protocol}-{}-{}", numbers.ring_bits, numbers.fraction_bits);
        all.push((name.clone(), transcript(protocol, Variant::default(), numbers)?));
        if let Protocol::Fss | Protocol::Table = protocol {
            let variant = Variant { objective: Objective::Latency, hash: HashKind::ChaCha, ..Variant::default() };
            all.push((format!("{name}-latency-chacha"), transcript(protocol, variant, numbers)?));
        }
    }
    Ok(all)
}

fn transcript(protocol: Protocol, variant: Variant, numbers: Numbers) -> Result<[String; 3], Blame> {
    let (program, weights) = network(protocol, numbers)?;
    let plan = Plan::of_variant(&program, protocol, variant).map_err(|error| Blame::bug(error.to_string()))?;
    let mut session = Session::with_plan(&program, Arc::new(plan), &weights, [7; 32])?;
    let image: Vec<f32> = fractions(2 * 64, 5).collect();
    let [masked, public] = [6, 7].map(|step| fractions(2 * 5, step).collect::<Vec<f32>>());
    let mut hashes: BTreeMap<Role, Sha256> = BTreeMap::new();
    session.run_rows(&[&image, &masked, &public], 2, &mut |from, to, frame| {
        let hash = hashes.entry(from).or_default();
        hash.update(to.name());
        hash.update((frame.payload.len() as u64).to_le_bytes());
        hash.update(frame.encode());
    })?;
    for unit in session.dealt(0..2)? {
        hashes.entry(Role::CryptoProducer).or_default().update(unit);
    }
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(Role::ALL.map(|role| hex(&hashes.remove(&role).unwrap_or_default().finalize())))
}

/// Multiples of 1/64 in -1..1, which every machine represents alike.
fn fractions(count: usize, step: u32) -> impl Iterator<Item = f32> {
    (0..count as u32).map(move |i| ((i * step * 37 + 11) % 128) as f32 / 64.0 - 1.0)
}

/// Every kind of step that there is: a masked, a public and a shared input, normalisation, convolution, products of every
/// mix, squares, activations, revealing, and comparisons, max-pooling and argmax where the protocol can.
fn network(protocol: Protocol, numbers: Numbers) -> Result<(Program, Weights), Blame> {
    let bug = |error: &dyn core::fmt::Display| Blame::bug(error.to_string());
    let shapes: [(&str, &[u32]); 4] =
        [("filters", &[2, 1, 3, 3]), ("offsets", &[2]), ("weights", &[18, 5]), ("bias", &[5])];
    let tensor = |(index, (name, shape)): (u32, &(&str, &[u32]))| {
        let values = fractions(shape.iter().product::<u32>() as usize, index + 1).collect();
        (name.to_string(), Tensor { shape: shape.to_vec(), values })
    };
    let weights = Weights((0..).zip(&shapes).map(tensor).collect());
    let build = || {
        let graph = Graph::new();
        let x = graph.private_input("client", "image", &[1, 8, 8], [-1.0, 1.0])?;
        let [filters, offsets, dense, bias] = shapes.map(|(name, shape)| graph.private_variable("owner", name, shape));
        let x = x.normalise(0.125, 0.5)?.conv2d(&filters?, Convolution::default())?.bias(&offsets?)?;
        let x = match protocol.compares() {
            true => x.max_pool2d(Pooling::of([2, 2]))?.relu()?,
            false => x.avg_pool2d(Pooling::of([2, 2]))?.tanh()?,
        };
        let logits = x.flatten()?.matmul(&dense?)?.bias(&bias?)?;
        graph.output("client", &logits)?;
        let masked = graph.masked_input("client", "masked", &[5], [-1.0, 1.0])?;
        let public = graph.public_input("client", "public", &[5], [-1.0, 1.0])?;
        let mixed = (&(&masked.square()? * &public)? - &masked)?;
        graph.output("client", &(&mixed.sigmoid()? * &logits)?)?;
        graph.output("client", &mixed.reveal()?.relu()?)?;
        if protocol.compares() {
            graph.output("client", &logits.argmax(0)?)?;
            graph.output("client", &mixed.equal(0.0)?)?;
        }
        Ok::<Graph, crate::GraphError>(graph)
    };
    let graph = build().map_err(|error| bug(&error))?;
    let program = graph.compile(numbers, Bounds::Proved(&weights)).map_err(|error| bug(&error))?;
    Ok((program, weights))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn transcripts_are_those_committed() {
        let committed = include_str!("../../tests/golden.txt");
        let lines = transcripts().unwrap().into_iter().map(|(name, digests)| format!("{name} {}\n", digests.join(" ")));
        let now: String = lines.collect();
        assert_eq!(now, committed, "if the protocol was changed on purpose, commit the new digests");
    }
}
