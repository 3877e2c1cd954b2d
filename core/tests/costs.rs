//! Rounds and bytes of whole networks, by protocol and variant: planned, measured, and below what they are meant to be.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use std::sync::Arc;

use ndarray::{Array1, ArrayD};
use selkie::graph::{Bounds, Convolution, Graph, Pooling, Tensor};
use selkie::plan::{Phase, Plan};
use selkie::program::{Numbers, Program, Weights};
use selkie::{Objective, Protocol, Session, Variant, clear};

const NUMBERS: Numbers = Numbers { ring_bits: 32, fraction_bits: 10 };

/// Numbers between -1 and 1 that look random.
fn noise(count: usize, salt: u32) -> Vec<f32> {
    let one = |i: u32| {
        (i.wrapping_mul(2_654_435_769).wrapping_add(salt.wrapping_mul(40_503)) >> 9) as f32 / 4_194_304.0 - 1.0
    };
    (0..count as u32).map(|i| one(i.wrapping_mul(i | 1) ^ i)).collect()
}

/// A variable with weights of the size that trained ones have.
fn variable(graph: &Graph, name: &str, shape: &[u32], inputs: u32) -> Tensor {
    let variable = graph.private_variable("owner", name, shape).unwrap();
    let limit = (3.0 / inputs as f32).sqrt();
    let values = noise(shape.iter().product::<u32>() as usize, name.len() as u32 + inputs);
    let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
    let values = values.iter().map(|x| limit * x).collect();
    graph.initialise(&variable, ArrayD::from_shape_vec(shape, values).unwrap().view()).unwrap();
    variable
}

fn dense(graph: &Graph, x: &Tensor, outputs: u32, name: &str) -> Tensor {
    let inputs = *x.shape().last().unwrap();
    let bias = variable(graph, &format!("{name} bias"), &[outputs], inputs);
    x.matmul(&variable(graph, name, &[inputs, outputs], inputs)).unwrap().bias(&bias).unwrap()
}

/// The input is masked by its client.
fn image(graph: &Graph, shape: &[u32]) -> Tensor {
    graph.masked_input("client", "image", shape, [0.0, 1.0]).unwrap()
}

/// 784-128-128-10.
fn a(graph: &Graph) -> Tensor {
    let x = dense(graph, &image(graph, &[784]), 128, "0").relu().unwrap();
    let x = dense(graph, &x, 128, "1").relu().unwrap();
    dense(graph, &x, 10, "2")
}

/// Two convolutions of 16 filters, each pooled, 256-100-10. The second has its ReLU in front of the pooling, which is no
/// difference.
fn b(graph: &Graph) -> Tensor {
    let mut x = image(graph, &[1, 28, 28]);
    for (name, channels) in [("0", 1), ("1", 16)] {
        let filters = variable(graph, name, &[16, channels, 5, 5], channels * 25);
        let bias = variable(graph, &format!("{name} bias"), &[16], channels * 25);
        x = x.conv2d(&filters, Convolution::default()).unwrap().bias(&bias).unwrap();
        x = match name {
            "0" => x.max_pool2d(Pooling::of([2, 2])).unwrap().relu().unwrap(),
            _ => x.relu().unwrap().max_pool2d(Pooling::of([2, 2])).unwrap(),
        };
    }
    let x = dense(graph, &x.flatten().unwrap(), 100, "2").relu().unwrap();
    dense(graph, &x, 10, "3")
}

fn pixels() -> Vec<f32> {
    noise(784, 3).iter().map(|x| x.max(0.0)).collect()
}

fn network(write: fn(&Graph) -> Tensor, label_only: bool) -> (Program, Weights) {
    let graph = Graph::new();
    let logits = write(&graph);
    graph.output("client", &if label_only { logits.argmax(0).unwrap() } else { logits }).unwrap();
    let weights = graph.weights();
    let uncalibrated = graph.compile(NUMBERS, Bounds::Declared(0)).unwrap();
    let mut largest = vec![0.0f64; uncalibrated.nodes().len()];
    clear::evaluate(&uncalibrated, &weights, &[&pixels()], 1, &mut |id, values| {
        largest[id as usize] = values.iter().fold(0.0, |most, x| most.max(f64::from(x.abs())));
    })
    .unwrap();
    let bounds = Bounds::Calibrated { weights: &weights, largest: &largest, margin: 1.25 };
    (graph.compile(NUMBERS, bounds).unwrap(), weights)
}

/// Rounds, bytes between the servers online, and bytes dealt for one query, after it has been run and the answer compared.
fn measured(program: &Program, weights: &Weights, protocol: Protocol, objective: Objective) -> (u32, u64, u64) {
    let plan = Arc::new(Plan::of_variant(program, protocol, Variant::from(objective)).unwrap());
    let cost = plan.cost(1);
    assert_eq!(plan.variant().objective, objective);
    let mut session = Session::with_plan(program, plan, weights, [3; 32]).unwrap();
    let (answer, moved) = session.run_rows(&[&pixels()], 1, &mut |_, _, _| ()).unwrap();
    assert_eq!(
        (moved.rounds, moved.online_bytes, moved.offline_bytes, moved.client_bytes),
        (cost.rounds, cost.online_bytes, cost.offline_bytes, cost.client_bytes),
        "{protocol} {objective}: measured and planned"
    );
    let expected = clear::evaluate(program, weights, &[&pixels()], 1, &mut |_, _| ()).unwrap();
    let off = Array1::from(answer.concat()) - Array1::from(expected.concat());
    assert!(off.iter().all(|x| x.abs() < 0.1), "{protocol} {objective}: {off}");
    assert!(cost.links.iter().filter(|link| link.phase == Phase::Online).all(|link| link.payload_bytes > 0));
    (moved.rounds, moved.online_bytes, moved.offline_bytes)
}

#[test]
fn networks_take_as_few_rounds_and_bytes_as_they_are_meant_to() {
    use Objective::{Bytes, Latency};
    use Protocol::{Fss, Table};
    type Case = (&'static str, fn(&Graph) -> Tensor, Protocol, Objective, [u64; 3]);
    // Rounds exactly; bytes online, and in all, at most.
    let cases: [Case; 8] = [
        ("A", a, Table, Bytes, [8, 5_400, 17_000]),
        ("A", a, Table, Latency, [8, 5_400, 17_000]),
        ("A", a, Fss, Bytes, [6, 4_300, 140_000]),
        ("A", a, Fss, Latency, [4, 4_300, 290_000]),
        ("B", b, Table, Bytes, [24, 220_000, 700_000]),
        ("B", b, Table, Latency, [12, 220_000, 2_700_000]),
        ("B", b, Fss, Bytes, [17, 220_000, 6_000_000]),
        ("B", b, Fss, Latency, [8, 220_000, 16_000_000]),
    ];
    for (name, write, protocol, objective, [rounds, online, all]) in cases {
        let (program, weights) = network(write, false);
        let found = measured(&program, &weights, protocol, objective);
        println!("{name} {protocol} {objective}: {found:?}");
        assert!(
            u64::from(found.0) == rounds && found.1 <= online && found.1 + found.2 <= all,
            "{name} {protocol} {objective}: {found:?}"
        );
    }
}

/// The label alone leaves: one element, whatever the variant, and no other output.
#[test]
fn a_label_alone_is_one_number() {
    for (protocol, objective) in
        [Protocol::Fss, Protocol::Table].iter().flat_map(|p| Objective::ALL.iter().map(|o| (*p, *o)))
    {
        let (program, weights) = network(a, true);
        let found = measured(&program, &weights, protocol, objective);
        println!("A, its label alone, {protocol} {objective}: {found:?}");
        let plan = Plan::of_variant(&program, protocol, objective.into()).unwrap();
        let down =
            plan.cost(1).links.into_iter().filter(|link| link.phase == Phase::Client && link.to == "prediction-client");
        // A share of the label, and the seed of the input's mask.
        assert!(down.into_iter().all(|link| link.payload_bytes <= 4 + 32));
        assert!(!plan.disclosures().iter().any(|disclosure| disclosure.what.contains("reveal")));
    }
}
