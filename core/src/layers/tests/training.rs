//! Losses, steps, owners: what layers are for.

use ndarray::{Array, Array1, Array2, Array4, arr1};

use super::definition::{Shape, dense};
use super::*;
use crate::Seed;
use crate::error::PlanError;
use crate::graph::{Convolution, Layout, Pooling};
use crate::plan::Plan;
use crate::program::{Op, Visibility};

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

fn array<const N: usize>(shape: [usize; N], salt: u64) -> Vec<f32> {
    pseudo(shape.iter().product(), salt)
}

/// These tensors of a graph, computed in clear and under protocols.
fn everywhere(
    graph: &Graph,
    tensors: &[&Tensor],
    inputs: &[&[f32]],
    protocols: &[Protocol],
    tolerance: f64,
) -> Vec<Vec<f32>> {
    grant(graph, tensors);
    let sizes: Vec<usize> = tensors.iter().map(|tensor| super::elements(&tensor.shape())).collect();
    let weights = graph.weights();
    let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();
    let clear = clear::evaluate(&program, &weights, inputs, 1, &mut |_, _| ()).unwrap();
    let clear = apart(&clear[0], &sizes);
    for protocol in protocols {
        let mut session = Session::local(&program, &weights, *protocol, [8; 32]).unwrap();
        let (outputs, _) = session.run_rows(inputs, 1, &mut |_, _, _| ()).unwrap();
        for (i, (output, clear)) in apart(&outputs[0], &sizes).iter().zip(&clear).enumerate() {
            close(&format!("{protocol:?}, output {i}"), output, &wide(clear), tolerance);
        }
    }
    clear
}

const ALL: &[Protocol] = &[Protocol::SecureNn, Protocol::Pond];

#[test]
fn squared_error_and_its_gradient() {
    for (shape, elements) in [(&[3, 2][..], 2.0), (&[4], 4.0), (&[2, 1, 2, 2], 4.0)] {
        let graph = Graph::new();
        let y = graph.private_input("c", "y", shape, [-2.0, 2.0]).unwrap();
        let target = graph.private_input("c", "t", shape, [-2.0, 2.0]).unwrap();
        let loss = mean_squared_error(&y, &target).unwrap();
        let n = super::elements(shape);
        let (y, target) = (pseudo(n, 1), pseudo(n, 2));
        let outputs = everywhere(&graph, &[&loss.value, &loss.gradient], &[&y, &target], ALL, 1e-3);
        let value = |y: &[f64]| y.iter().zip(&target).map(|(y, t)| (y - f64::from(*t)).powi(2)).sum::<f64>() / elements;
        close("loss", &outputs[0], &[value(&wide(&y))], 1e-5);
        close("gradient", &outputs[1], &differences(&wide(&y), value), 1e-5);
    }
}

/// Central differences of f.
fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let moved = |i: usize, h: f64| {
        let mut x = x.to_vec();
        x[i] += h;
        f(&x)
    };
    (0..x.len()).map(|i| (moved(i, 1e-3) - moved(i, -1e-3)) / 2e-3).collect()
}

#[test]
fn cross_entropy_and_its_gradient() {
    let graph = Graph::new();
    let z = graph.private_input("c", "z", &[2, 3], [-2.0, 2.0]).unwrap();
    let y = graph.private_input("c", "y", &[2, 3], [0.0, 1.0]).unwrap();
    let gradient = sigmoid_cross_entropy(&z, &y).unwrap();
    let (z, y) = (pseudo(6, 5).iter().map(|z| 2.0 * z).collect::<Vec<_>>(), [0.0, 1.0, 0.0, 1.0, 1.0, 0.25]);
    let outputs = everywhere(&graph, &[&gradient], &[&z, &y], ALL, 0.015);
    let defined = |z: &[f64]| {
        let one = |(z, y): (&f64, &f32)| {
            let (sigma, y) = (1.0 / (1.0 + (-z).exp()), f64::from(*y));
            -y * sigma.ln() - (1.0 - y) * (1.0 - sigma).ln()
        };
        z.iter().zip(&y).map(one).sum::<f64>()
    };
    assert!((sigmoid_cross_entropy_in_clear(&z, &y) - defined(&wide(&z))).abs() < 1e-9);
    assert!(sigmoid_cross_entropy_in_clear(&[1e4, -1e4], &[1.0, 0.0]).abs() < 1e-9);
    close("gradient", &outputs[0], &differences(&wide(&z), defined), 1e-5);
}

#[test]
fn steps_follow_the_mean_gradient() {
    for scheduled in [false, true] {
        let graph = Graph::new();
        let tensor = |name| graph.private_input("c", name, &[2], [-8.0, 8.0]).unwrap();
        let (w, v, g) = (tensor("w"), tensor("v"), tensor("g"));
        let rate = graph.public_input("c", "rate", &[1], [0.0, 1.0]).unwrap();
        let sgd = Sgd { rate: if scheduled { (&rate).into() } else { 0.25.into() }, samples: 4 };
        let (moved, velocity) = sgd.step_with_momentum(&w, &v, &g, 0.5).unwrap();
        let plain = sgd.step(&w, &g).unwrap();
        let outputs = everywhere(
            &graph,
            &[&plain, &moved, &velocity],
            &[&[1.0, -2.0], &[0.5, 1.0], &[4.0, -6.0], &[0.25]],
            ALL,
            1e-4,
        );
        assert_eq!(outputs[0], [0.75, -1.625]);
        assert_eq!(outputs[1], [1.0 - 0.25 * 1.25, -2.0 + 0.25]);
        assert_eq!(outputs[2], [1.25, -1.0]);
    }
}

/// One step of training on private variables: what both servers hold afterwards is what a step in clear gives.
fn step(network: &Sequential, graph: &Graph, x: &[u32], classes: u32) -> Vec<Tensor> {
    let samples = x[0];
    let input = graph.private_input("data-owner", "x", x, [-1.0, 1.0]).unwrap();
    let labels = graph.private_input("data-owner", "labels", &[samples, classes], [0.0, 1.0]).unwrap();
    let pass = network.pass(&input).unwrap();
    let gradient = sigmoid_cross_entropy(&pass.y, &labels).unwrap();
    let sgd = Sgd { rate: 0.5.into(), samples };
    let gradients = network.parameter_gradients(&pass, &gradient).unwrap();
    let parameters = network.parameters();
    assert_eq!(gradients.len(), parameters.len());
    let better = |(parameter, gradient): (&Tensor, &Tensor)| {
        assert_eq!(parameter.visibility(), Visibility::Private);
        sgd.step(parameter, gradient).unwrap()
    };
    parameters.iter().zip(&gradients).map(better).collect()
}

#[test]
fn a_step_of_training_is_the_same_in_private() {
    for protocol in [Protocol::SecureNn, Protocol::Pond] {
        let graph = Graph::new();
        let owner = Owner::new(&graph, "model-trainer", Seed::new([5; 32]));
        let conv =
            Conv2D::new(&owner, "conv", [2, 1, 3, 3], Convolution::default(), Initialiser::GlorotUniform).unwrap();
        let network = Sequential::new().then(conv);
        let network = match protocol {
            Protocol::Pond => network.then(AveragePooling2D::new(&graph, Pooling::of([2, 2]))).then(Tanh),
            _ => network.then(MaxPooling2D::new(Pooling::of([2, 2]))).then(Relu),
        };
        let dense = Dense::new(&owner, "dense", [8, 3], Initialiser::default()).unwrap();
        let network = network.then(Flatten).then(dense);
        let better = step(&network, &graph, &[4, 1, 6, 6], 3);
        let labels: Vec<f32> = (0..12).map(|i| f32::from(u8::from(i % 4 == 0))).collect();
        everywhere(&graph, &better.iter().collect::<Vec<_>>(), &[&pseudo(144, 3), &labels], &[protocol], 0.01);
    }
}

#[test]
fn pond_refuses_what_compares() {
    let layers: [Box<dyn Layer>; 2] = [Box::new(Relu), Box::new(MaxPooling2D::new(Pooling::of([2, 2])))];
    for layer in layers {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[1, 2, 2], [-1.0, 1.0]).unwrap();
        let pass = layer.pass(&x).unwrap();
        graph.output("c", &layer.input_gradient(&pass, &pass.y).unwrap()).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
        assert!(matches!(Plan::new(&program, Protocol::Pond), Err(PlanError::Unsupported { .. })));
    }
}

fn moments() -> Moments {
    Moments {
        mean: arr1(&[0.25, -0.5, 1.5]),
        variance: arr1(&[0.5, 2.0, 0.125]),
        scale: Some(arr1(&[1.5, -0.75, 1.0])),
        offset: Some(arr1(&[0.125, 0.5, -1.0])),
        epsilon: 1e-3,
    }
}

/// As it is printed.
fn normalised(x: f64, moments: &Moments, channel: usize) -> f64 {
    let of =
        |values: &Option<Array1<f32>>, none: f64| values.as_ref().map_or(none, |values| f64::from(values[channel]));
    let (mean, variance) = (f64::from(moments.mean[channel]), f64::from(moments.variance[channel]));
    (x - mean) / (variance + f64::from(moments.epsilon)).sqrt() * of(&moments.scale, 1.0) + of(&moments.offset, 0.0)
}

#[test]
fn batch_normalisation_is_folded_in_three_ways() {
    let full = moments();
    for moments in [Moments { scale: None, ..full.clone() }, Moments { offset: None, ..full.clone() }, full] {
        let (w, b) = (array([2, 3], 1), array([3], 2));
        let (f, x, image) = (array([3, 1, 2, 2], 3), pseudo(2, 4), pseudo(9, 5));
        let w = Array2::from_shape_vec((2, 3), w).unwrap();
        let b = arr1(&b);
        let f = Array4::from_shape_vec((3, 1, 2, 2), f).unwrap();

        let graph = Graph::new();
        let owner = Owner::new(&graph, "owner", Seed::new([1; 32]));
        let input = graph.private_input("c", "x", &[2], [-1.0, 1.0]).unwrap();
        let picture = graph.private_input("c", "image", &[1, 3, 3], [-1.0, 1.0]).unwrap();
        let how = Convolution::default();
        let norm = |name| Batchnorm::new(&owner, name, &moments, Layout::ChannelsFirst).unwrap();
        let apart = Sequential::new()
            .then(Dense::given(&owner, "dense", w.view(), Some(b.view())).unwrap())
            .then(norm("dense norm"));
        let apart_conv = Sequential::new()
            .then(Conv2D::given(&owner, "conv", f.view(), Some(b.view()), how).unwrap())
            .then(norm("norm"));
        let folded = moments.fold_into_dense(w.view(), Some(b.view())).unwrap();
        let folded = Dense::given(&owner, "folded", folded.0.view(), Some(folded.1.view())).unwrap();
        let folded_conv = moments.fold_into_conv2d(f.view(), Some(b.view())).unwrap();
        let folded_conv =
            Conv2D::given(&owner, "folded conv", folded_conv.0.view(), Some(folded_conv.1.view()), how).unwrap();
        let plain = moments.fold_into_dense(w.view(), None).unwrap();
        let plain = Dense::given(&owner, "plain", plain.0.view(), Some(plain.1.view())).unwrap();
        let layers = [
            (&apart as &dyn Layer, &input),
            (&folded, &input),
            (&apart_conv, &picture),
            (&folded_conv, &picture),
            (&plain, &input),
        ];
        let results: Vec<Tensor> = layers.iter().map(|(layer, x)| layer.forward(x).unwrap()).collect();
        let outputs = everywhere(&graph, &results.iter().collect::<Vec<_>>(), &[&x, &image], ALL, 2e-3);

        let norm = |y: Vec<f64>, run: usize| {
            y.iter().enumerate().map(|(i, y)| normalised(*y, &moments, i / run)).collect::<Vec<_>>()
        };
        let w = wide(w.as_slice().unwrap());
        let y = norm(dense(&wide(&x), [1, 2, 3], &w, &wide(b.as_slice().unwrap())), 1);
        let shape = Shape { x: [1, 1, 3, 3], window: [2, 2], strides: [1, 1], dilations: [1, 1], padding: [0; 4] };
        let filters = wide(f.as_slice().unwrap());
        let images = norm(shape.conv(&wide(&image), &filters, 3, 1, &wide(b.as_slice().unwrap())), 4);
        close("dense, then norm", &outputs[0], &y, 1e-5);
        close("dense, folded", &outputs[1], &y, 1e-5);
        close("conv, then norm", &outputs[2], &images, 1e-5);
        close("conv, folded", &outputs[3], &images, 1e-5);
        close("no bias", &outputs[4], &norm(dense(&wide(&x), [1, 2, 3], &w, &[0.0; 3]), 1), 1e-5);
    }
}

#[test]
fn what_batch_normalisation_knows_stays_its_owners() {
    let graph = Graph::new();
    let owner = Owner::new(&graph, "owner", Seed::new([1; 32]));
    let x = graph.private_input("c", "x", &[3, 2, 2], [-1.0, 1.0]).unwrap();
    let layer = Batchnorm::new(&owner, "norm", &moments(), Layout::ChannelsFirst).unwrap();
    let pass = layer.pass(&x).unwrap();
    let gradients = layer.backward(&pass, &pass.y).unwrap();
    for output in [&pass.y, &gradients.input].into_iter().chain(&gradients.parameters) {
        graph.output("c", output).unwrap();
    }
    let weights = graph.weights();
    let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();
    let (scale, shift) = moments().fold().unwrap();
    assert_eq!(weights.0["norm/scale"].values, scale.to_vec());
    assert_eq!(weights.0["norm/shift"].values, shift.to_vec());
    let mut variables = 0;
    for node in program.nodes() {
        // Nothing at all in this program is known to the servers, and nothing stands in it.
        assert_ne!(node.visibility, Visibility::Public, "{node:?}");
        assert!(!matches!(node.op, Op::Constant { .. } | Op::Reveal { .. }), "{node:?}");
        variables += usize::from(matches!(node.op, Op::Variable { .. }));
    }
    assert_eq!(variables, 2);
    assert_eq!(format!("{:?}", moments()), "Moments(3 channels, hidden)");
    // Nor do their values stand anywhere else in what all parties agree on.
    let bytes = program.to_bytes();
    for value in scale.iter().chain(&shift) {
        let (single, double) = (value.to_le_bytes(), f64::from(*value).to_le_bytes());
        assert!(!bytes.windows(4).any(|part| part == single) && !bytes.windows(8).any(|part| part == double));
    }
}

#[test]
fn moments_without_meaning_are_refused() {
    let refused = |moments: Moments| {
        let error = format!("{}", moments.fold().unwrap_err());
        assert!(error.contains("Batchnorm"), "{error}");
    };
    refused(Moments { variance: arr1(&[1.0, 1.0]), ..moments() });
    refused(Moments { scale: Some(arr1(&[1.0])), ..moments() });
    refused(Moments { variance: arr1(&[1.0, 1.0, -1.0]), ..moments() });
    refused(Moments { variance: arr1(&[1.0, 1.0, 0.0]), epsilon: 0.0, ..moments() });
    refused(Moments { mean: arr1(&[1.0, 1.0, f32::NAN]), ..moments() });
    let weights = Array::zeros((2, 4));
    let error = format!("{}", moments().fold_into_dense(weights.view(), None).unwrap_err());
    assert!(error.contains("[2, 4]") && error.contains('3'), "{error}");
}

#[test]
fn tensorflows_filters_are_turned() {
    // [height, width, in, out], numbered by where they should go.
    let (high, wide, inputs, outputs) = (2, 3, 2, 4);
    let filters = Array4::from_shape_fn((high, wide, inputs, outputs), |(y, x, i, o)| {
        (((o * inputs + i) * high + y) * wide + x) as f32
    });
    let turned = hwio_to_oihw(filters.view());
    assert_eq!(turned.shape(), [outputs, inputs, high, wide]);
    assert!(turned.iter().enumerate().all(|(i, x)| *x == i as f32));
    assert!(turned.is_standard_layout());
}
