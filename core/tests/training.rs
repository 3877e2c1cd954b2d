//! What the servers keep from run to run: entry points over the same variables, and private training with them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use ndarray::{Array, Array1, Array2, ArrayD, arr1, arr2};
use selkie::graph::{Bounds, Graph, Tensor};
use selkie::layers::{Dense, Initialiser, Layer, Owner, Sgd, sigmoid_cross_entropy, sigmoid_cross_entropy_in_clear};
use selkie::program::{EntryPoints, Numbers, Weights};
use selkie::{Protocol, Seed, Session, Truncation, Variant, clear};

const FEATURES: usize = 4;
const ROWS: usize = 20;

/// A counter that `add` changes by what its player says, and `twice` and `show` read: the one in a product, the other as it is.
fn counter() -> (EntryPoints, Weights) {
    let graph = Graph::new();
    let counter = graph.kept_variable("owner", "counter", &[2], [-100.0, 100.0]).unwrap();
    graph.initialise(&counter, arr1(&[1.0, -2.0]).view().into_dyn()).unwrap();
    let by = graph.private_input("player", "by", &[2], [-10.0, 10.0]).unwrap();
    let add = graph.entry("add");
    add.assign(&counter, &(&counter + &by).unwrap()).unwrap();
    add.output("player", &(&counter * 1.0).unwrap()).unwrap();
    graph.entry("show").output("owner", &counter).unwrap();
    let factor = graph.private_input("player", "factor", &[2], [-10.0, 10.0]).unwrap();
    graph.entry("times").output("player", &(&counter * &factor).unwrap()).unwrap();
    let weights = graph.weights();
    (graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap(), weights)
}

fn only(outputs: &[(String, ArrayD<f32>)]) -> Vec<f32> {
    assert_eq!(outputs.len(), 1);
    outputs[0].1.iter().map(|x| (x * 1000.0).round() / 1000.0).collect()
}

#[test]
fn what_a_run_assigns_the_others_find() {
    let (entries, weights) = counter();
    for protocol in Protocol::ALL.iter().copied() {
        let mut session = Session::local(&entries, &weights, protocol, [3; 32]).unwrap();
        let add = |session: &mut Session, by: [f32; 2]| {
            only(&session.call("add", &[("by", arr1(&by).view().into_dyn())]).unwrap().outputs)
        };
        let times = |session: &mut Session, by: [f32; 2]| {
            only(&session.call("times", &[("factor", arr1(&by).view().into_dyn())]).unwrap().outputs)
        };
        assert_eq!(times(&mut session, [2.0, 2.0]), [2.0, -4.0]);
        assert_eq!(add(&mut session, [0.5, 1.0]), [1.0, -2.0], "outputs are those of before");
        assert_eq!(only(&session.call("show", &[]).unwrap().outputs), [1.5, -1.0]);
        assert_eq!(times(&mut session, [2.0, 2.0]), [3.0, -2.0]);
        let kept = session.states().clone();
        assert_eq!(kept[0].version(), 1);
        assert_eq!(add(&mut session, [10.0, 10.0]), [1.5, -1.0]);
        assert_eq!(times(&mut session, [1.0, 1.0]), [11.5, 9.0]);
        session.restore(kept.clone()).unwrap();
        assert_eq!(only(&session.call("show", &[]).unwrap().outputs), [1.5, -1.0]);
        assert_eq!(times(&mut session, [1.0, 2.0]), [1.5, -2.0]);
        // Another session of the same programs goes on where this one was.
        let mut other = Session::local(&entries, &weights, protocol, [4; 32]).unwrap();
        other.restore(kept.clone()).unwrap();
        assert_eq!(add(&mut other, [0.0, 0.0]), [1.5, -1.0]);
        let [zero, one] = kept;
        assert!(other.restore([one, zero]).is_err(), "the servers' states are not to be mixed up");
        let [zero, _] = session.states().clone();
        let [_, one] = other.states().clone();
        assert_ne!(zero.version(), one.version());
        let error = session.restore([zero, one]).unwrap_err().to_string();
        assert!(error.contains("version 1") && error.contains("version 2"), "{error}");
    }
}

/// The share of server0 alone changes with every assignment, whatever is assigned: nothing shows that a value stayed.
#[test]
fn shares_are_fresh_after_each_step() {
    let graph = Graph::new();
    let w = graph.kept_variable("owner", "w", &[64], [-1.0, 1.0]).unwrap();
    graph.initialise(&w, Array1::zeros(64).view().into_dyn()).unwrap();
    // A product of the weight, so that the result is shared anew.
    graph.assign(&w, &(&w * &graph.number(0.5).unwrap()).unwrap()).unwrap();
    let weights = graph.weights();
    let entries = graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap();
    let mut session = Session::local(&entries, &weights, Protocol::Table, [3; 32]).unwrap();
    let mut seen = vec![session.shares_of("w").unwrap()[0].clone()];
    for _ in 0..3 {
        session.run(&[]).unwrap();
        seen.push(session.shares_of("w").unwrap()[0].clone());
    }
    for (i, one) in seen.iter().enumerate() {
        assert!(seen[..i].iter().all(|other| one.iter().zip(other).all(|(a, b)| a != b)));
    }
}

#[test]
fn what_cannot_be_is_refused_where_it_is_written() {
    let graph = Graph::new();
    let kept = graph.kept_variable("owner", "kept", &[2], [-1.0, 1.0]).unwrap();
    let fixed = graph.private_variable("owner", "fixed", &[2]).unwrap();
    let other = graph.private_input("player", "x", &[3], [0.0, 1.0]).unwrap();
    let says = |error: selkie::GraphError, words: &[&str]| {
        let error = error.to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    says(graph.assign(&fixed, &kept).unwrap_err(), &["assign", "kept_variable"]);
    says(graph.assign(&kept, &other).unwrap_err(), &["assign", "[2]", "[3]"]);
    says(graph.kept_variable("owner", "k", &[2], [1.0, -1.0]).unwrap_err(), &["range"]);
    graph.assign(&kept, &fixed).unwrap();
    graph.assign(&kept, &fixed).unwrap();
    let error = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap_err().to_string();
    assert!(error.contains("assigned twice"), "{error}");

    let (entries, weights) = counter();
    assert_eq!(EntryPoints::from_bytes(&entries.to_bytes()).unwrap(), entries);
    for cut in 0..entries.to_bytes().len() {
        assert!(EntryPoints::from_bytes(&entries.to_bytes()[..cut]).is_err());
    }
    let mut session = Session::local(&entries, &weights, Protocol::Pond, [1; 32]).unwrap();
    let error = session.call("subtract", &[]).unwrap_err().to_string();
    assert!(error.contains("subtract") && error.contains("add, show, times"), "{error}");
    let two = arr2(&[[1.0, 1.0], [2.0, 2.0]]);
    let error = session.call("add", &[("by", two.view().into_dyn())]).unwrap_err().to_string();
    assert!(error.contains("single sample"), "{error}");
    assert_eq!(session.states()[0].version(), 0);
}

/// Local truncation is there on request, costs no opening, and is refused where it would fail too often.
#[test]
fn local_truncation_is_for_small_numbers_in_large_rings() {
    let plan = |fraction_bits, truncation| {
        let graph = Graph::new();
        let x = graph.private_input("player", "x", &[4], [-1.0, 1.0]).unwrap();
        // Three products, the second of which takes a truncated factor.
        let y = (&(&(&x * &x).unwrap() * &x).unwrap() * &x).unwrap();
        graph.output("player", &y).unwrap();
        let weights = graph.weights();
        let numbers = Numbers { ring_bits: 64, fraction_bits };
        let program = graph.compile(numbers, Bounds::Proved(&weights)).unwrap();
        let variant = Variant { truncation, ..Variant::default() };
        let plan = selkie::plan::Plan::of_variant(&program, Protocol::Pond, variant);
        plan.map(|plan| (program, std::sync::Arc::new(plan)))
    };
    let (_, dealt) = plan(8, Truncation::Dealt).unwrap();
    let (program, local) = plan(8, Truncation::Local).unwrap();
    assert!(local.cost(1).offline_bytes < dealt.cost(1).offline_bytes, "nothing is dealt for it");
    assert!(local.rounds() <= dealt.rounds());
    let mut session = Session::with_plan(&program, local, &Weights::default(), [3; 32]).unwrap();
    let x = arr1(&[0.5f32, -0.75, 1.0, 0.25]);
    let run = session.run(&[("x", x.view().into_dyn())]).unwrap();
    for (got, x) in run.output("player").unwrap().iter().zip(&x) {
        assert!((got - x.powi(4)).abs() < 0.02, "{got} {x}");
    }
    let error = plan(16, Truncation::Local).unwrap_err().to_string();
    assert!(error.contains("local truncation") && error.contains("dealt truncation"), "{error}");
}

/// Points on both sides of a plane.
fn data() -> (Array2<f32>, Array2<f32>) {
    let draw = |i: usize, j: usize| (((i * 31 + j * 17) * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
    let x = Array2::from_shape_fn((ROWS, FEATURES), |(i, j)| draw(i, j));
    let y = Array2::from_shape_fn((ROWS, 1), |(i, _)| f32::from(u8::from(x[[i, 0]] - 0.5 * x[[i, 1]] > 0.1)));
    (x, y)
}

/// Logistic regression: a step of training, and prediction.
fn regression() -> (EntryPoints, Weights) {
    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([5; 32])).keeping([-8.0, 8.0]);
    let dense = Dense::new(&owner, "dense", [FEATURES as u32, 1], Initialiser::GlorotUniform).unwrap();
    let x = graph.private_input("data-owner", "x", &[ROWS as u32, FEATURES as u32], [-1.0, 1.0]).unwrap();
    let y = graph.private_input("data-owner", "y", &[ROWS as u32, 1], [0.0, 1.0]).unwrap();
    let pass = dense.pass(&x).unwrap();
    let gradient = sigmoid_cross_entropy(&pass.y, &y).unwrap();
    let train = graph.entry("train");
    let sgd = Sgd { rate: 2.0.into(), samples: ROWS as u32 };
    let gradients = dense.parameter_gradients(&pass, &gradient).unwrap();
    for (parameter, gradient) in dense.parameters().iter().zip(&gradients) {
        train.assign(parameter, &sgd.step(parameter, gradient).unwrap()).unwrap();
    }
    train.output("data-owner", &pass.y).unwrap();
    let asked = graph.private_input("prediction-client", "asked", &[FEATURES as u32], [-1.0, 1.0]).unwrap();
    let answer: Tensor = dense.forward(&asked).unwrap().sigmoid().unwrap();
    graph.entry("predict").output("prediction-client", &answer).unwrap();
    let weights = graph.weights();
    (graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap(), weights)
}

#[test]
fn training_is_the_same_in_private() {
    let (entries, initial) = regression();
    let (x, y) = data();
    let labels: Vec<f32> = y.iter().copied().collect();
    let cost = |logits: &[f32]| sigmoid_cross_entropy_in_clear(logits, &labels) / ROWS as f64;
    let mut weights = initial.clone();
    let mut clear_costs = Vec::new();
    for _ in 0..12 {
        let rows: Vec<f32> = x.iter().copied().collect();
        let outputs = clear::run(entries.get("train").unwrap(), &mut weights, &[&rows, &labels]).unwrap();
        clear_costs.push(cost(&outputs[0]));
    }
    assert!(clear_costs[11] < 0.6 * clear_costs[0], "it learns: {clear_costs:?}");
    for protocol in Protocol::ALL.iter().copied() {
        let mut session = Session::local(&entries, &initial, protocol, [8; 32]).unwrap();
        for expected in &clear_costs {
            let run = session.call("train", &[("x", x.view().into_dyn()), ("y", y.view().into_dyn())]).unwrap();
            let planned = session.plan_of("train").unwrap().cost(1);
            assert_eq!(run.statistics.rounds, planned.rounds);
            assert_eq!(run.statistics.online_bytes, planned.online_bytes);
            let logits: Vec<f32> = run.output("data-owner").unwrap().iter().copied().collect();
            assert!((cost(&logits) - expected).abs() < 0.02, "{protocol:?}: {} {expected}", cost(&logits));
        }
        // A model that nobody ever saw, asked about all points in one batch.
        let answers = session.call("predict", &[("asked", x.view().into_dyn())]).unwrap();
        let answers = answers.output("prediction-client").unwrap();
        let rows: Vec<f32> = x.iter().copied().collect();
        let program = entries.get("predict").unwrap();
        let expected = clear::evaluate(program, &weights, &[&rows], ROWS, &mut |_, _| ()).unwrap();
        let expected = Array::from_vec(expected[0].clone());
        let worst = answers.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(worst < 0.03, "{protocol:?}: {worst}");
    }
}
