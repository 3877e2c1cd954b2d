//! One layer at a time.

use super::definition::{Shape, dense, first, last, same};
use super::*;
use crate::graph::{Convolution, Layout, Padding, Pooling};

#[test]
fn dense_layers() {
    for (x, n) in [(&[2, 3][..], 2), (&[3], 1), (&[1, 3], 1), (&[2, 2, 3], 4)] {
        Case {
            name: &format!("dense {x:?}"),
            x,
            parameters: &[&[3, 4], &[4]],
            make: &|_, p| Box::new(Dense::of(p[0].clone(), Some(p[1].clone())).unwrap()),
            definition: &|x, p| dense(x, [n, 3, 4], &p[0], &p[1]),
            compares: false,
            protocols: BOTH,
        }
        .check();
    }
    Case {
        name: "dense without bias",
        x: &[2, 3],
        parameters: &[&[3, 1]],
        make: &|_, p| Box::new(Dense::of(p[0].clone(), None).unwrap()),
        definition: &|x, p| dense(x, [2, 3, 1], &p[0], &[0.0]),
        compares: false,
        protocols: BOTH,
    }
    .check();
}

#[test]
fn convolutions() {
    let plain = Convolution::default();
    let same_padding = Convolution { padding: Padding::Same, ..plain };
    // Image, filters [out, in / groups, high, wide], how; the padding, as it should be understood.
    type One = ([usize; 4], [usize; 4], Convolution, [usize; 4]);
    let cases: [One; 9] = [
        ([2, 2, 4, 3], [3, 2, 3, 2], plain, [0; 4]),
        ([1, 1, 5, 5], [2, 1, 3, 3], same_padding, [1, 1, 1, 1]),
        // Places at the end that no window reaches: three columns, of which strides leave two.
        ([2, 1, 5, 6], [2, 1, 2, 3], Convolution { strides: [2, 3], ..plain }, [0; 4]),
        ([1, 2, 5, 4], [1, 2, 3, 3], Convolution { strides: [2, 2], ..same_padding }, {
            let ([top, bottom], [left, right]) = (same(5, 3, 2), same(4, 3, 2));
            [top, bottom, left, right]
        }),
        ([1, 1, 6, 7], [1, 1, 2, 2], Convolution { dilations: [2, 3], ..plain }, [0; 4]),
        ([2, 1, 7, 6], [2, 1, 2, 3], Convolution { strides: [3, 1], dilations: [2, 2], ..plain }, [0; 4]),
        ([1, 1, 3, 4], [2, 1, 3, 2], Convolution { padding: Padding::Explicit([0, 2, 1, 0]), ..plain }, [0, 2, 1, 0]),
        ([2, 4, 3, 3], [6, 2, 2, 2], Convolution { groups: 2, strides: [1, 2], ..plain }, [0; 4]),
        ([2, 2, 3, 4], [2, 1, 3, 1], Convolution { groups: 2, ..same_padding }, [1, 1, 0, 0]),
    ];
    for (x, [o, inner, high, wide], how, padding) in cases {
        let shape = Shape {
            x,
            window: [high, wide],
            strides: how.strides.map(|n| n as usize),
            dilations: how.dilations.map(|n| n as usize),
            padding,
        };
        let filters = [o, inner, high, wide].map(|n| n as u32);
        let groups = how.groups as usize;
        let images = x.map(|n| n as u32);
        let make = |how: Convolution| {
            move |_: &Graph, p: &[Tensor]| -> Box<dyn Layer> {
                Box::new(Conv2D::of(p[0].clone(), Some(p[1].clone()), how).unwrap())
            }
        };
        let definition = |x: &[f64], p: &[Vec<f64>]| shape.conv(x, &p[0], o, groups, &p[1]);
        let name = format!("{x:?} {filters:?} {how:?}");
        let case = Case {
            name: &name,
            x: &images,
            parameters: &[&filters, &[o as u32]],
            make: &make(how),
            definition: &definition,
            compares: false,
            protocols: BOTH,
        };
        case.check();
        if x[0] == 1 {
            Case { x: &images[1..], protocols: &[], ..case }.check();
        }
        // The same with channels last.
        let [n, c, h, w] = x;
        let rows_and_columns = |y: &[f64]| y.len() / n / o;
        let channels_last = |x: &[f64], p: &[Vec<f64>]| {
            let y = definition(&first(x, [n, h, w, c]), p);
            last(&y, [n, o, rows_and_columns(&y), 1])
        };
        Case {
            name: &name,
            x: &[n, h, w, c].map(|n| n as u32),
            parameters: &[&filters, &[o as u32]],
            make: &make(Convolution { layout: Layout::ChannelsLast, ..how }),
            definition: &channels_last,
            compares: false,
            protocols: &[],
        }
        .check();
    }
}

#[test]
fn pooling() {
    let of = |window, strides, padding| Pooling { strides, padding, ..Pooling::of(window) };
    type One = ([usize; 4], Pooling, [usize; 4]);
    let cases: [One; 6] = [
        ([2, 2, 4, 4], Pooling::of([2, 2]), [0; 4]),
        ([1, 1, 5, 4], of([3, 2], [1, 1], Padding::Valid), [0; 4]),
        ([1, 2, 5, 5], of([2, 2], [2, 2], Padding::Same), [0, 1, 0, 1]),
        ([1, 1, 4, 5], of([3, 3], [1, 2], Padding::Same), [1, 1, 1, 1]),
        ([1, 1, 3, 4], of([3, 2], [2, 1], Padding::Explicit([2, 1, 1, 0])), [2, 1, 1, 0]),
        ([1, 1, 6, 5], of([1, 2], [2, 3], Padding::Valid), [0; 4]),
    ];
    for (x, how, padding) in cases {
        let [n, c, h, w] = x;
        let shape = Shape {
            x,
            window: how.window.map(|n| n as usize),
            strides: how.strides.map(|n| n as usize),
            dilations: [1, 1],
            padding,
        };
        let images = x.map(|n| n as u32);
        let last_images = [n, h, w, c].map(|n| n as u32);
        let last_how = Pooling { layout: Layout::ChannelsLast, ..how };
        let back = |y: Vec<f64>| {
            let places = y.len() / n / c;
            last(&y, [n, c, places, 1])
        };
        let average = Case {
            name: &format!("average {x:?} {how:?}"),
            x: &images,
            parameters: &[],
            make: &|graph, _| Box::new(AveragePooling2D::new(graph, how)),
            definition: &|x, _| shape.mean(x),
            compares: false,
            protocols: BOTH,
        };
        average.check();
        Case {
            x: &last_images,
            make: &|graph, _| Box::new(AveragePooling2D::new(graph, last_how)),
            definition: &|x, _| back(shape.mean(&first(x, [n, h, w, c]))),
            protocols: &[],
            ..average
        }
        .check();
        let max = Case {
            name: &format!("max {x:?} {how:?}"),
            x: &images,
            parameters: &[],
            make: &|_, _| Box::new(MaxPooling2D::new(how)),
            definition: &|x, _| shape.max(x),
            compares: true,
            protocols: SECURE_NN,
        };
        max.check();
        Case {
            x: &last_images,
            make: &|_, _| Box::new(MaxPooling2D::new(last_how)),
            definition: &|x, _| back(shape.max(&first(x, [n, h, w, c]))),
            protocols: &[],
            ..max
        }
        .check();
    }
    Case {
        name: "pooling without samples",
        x: &[1, 4, 4],
        parameters: &[],
        make: &|graph, _| {
            Box::new(
                Sequential::new()
                    .then(AveragePooling2D::new(graph, Pooling::of([2, 2])))
                    .then(MaxPooling2D::new(Pooling::of([1, 2]))),
            )
        },
        definition: &|x, _| {
            let shape = |x, window| Shape { x, window, strides: window, dilations: [1, 1], padding: [0; 4] };
            shape([1, 1, 2, 2], [1, 2]).max(&shape([1, 1, 4, 4], [2, 2]).mean(x))
        },
        compares: true,
        protocols: SECURE_NN,
    }
    .check();
}

#[test]
fn the_first_of_several_maxima_has_the_gradient() {
    let how = Pooling { strides: [1, 1], padding: Padding::Explicit([1, 0, 0, 1]), ..Pooling::of([2, 2]) };
    let graph = Graph::new();
    let x = graph.private_input("client", "x", &[1, 2, 2], [-1.0, 1.0]).unwrap();
    let g = graph.private_input("client", "g", &[1, 2, 2], [-8.0, 8.0]).unwrap();
    let layer = MaxPooling2D::new(how);
    let pass = layer.pass(&x).unwrap();
    graph.output("client", &layer.input_gradient(&pass, &g).unwrap()).unwrap();
    let weights = Weights::default();
    let program = graph.compile(Numbers::default(), Bounds::Proved(&weights)).unwrap();
    let mut session = Session::local(&program, &weights, Protocol::SecureNn, [4; 32]).unwrap();
    // Padded above and to the right, the windows are of the places 0 1, 1, 0 1 2 3 and 1 3.
    let g = [1.0, 2.0, 4.0, 8.0];
    for (x, expected) in [
        ([-0.5; 4], [1.0 + 4.0, 2.0 + 8.0, 0.0, 0.0]),
        ([0.25, 0.5, 0.5, 0.5], [0.0, 15.0, 0.0, 0.0]),
        ([0.0, -0.5, 0.25, 0.25], [1.0, 2.0, 4.0, 8.0]),
    ] {
        let clear = clear::evaluate(&program, &weights, &[&x, &g], 1, &mut |_, _| ()).unwrap();
        assert_eq!(clear[0], expected);
        let (private, _) = session.run_rows(&[&x, &g], 1, &mut |_, _, _| ()).unwrap();
        assert_eq!(private[0], expected);
    }
}

#[test]
fn activations() {
    for x in [&[2, 5][..], &[7], &[2, 1, 2, 3]] {
        Case {
            name: "relu",
            x,
            parameters: &[],
            make: &|_, _| Box::new(Relu),
            definition: &|x, _| x.iter().map(|x| x.max(0.0)).collect(),
            compares: true,
            protocols: SECURE_NN,
        }
        .check();
        // The plans' own errors: a spline of sixteen knots, a series to 1/512.
        let approximate = &[(Protocol::SecureNn, 0.02), (Protocol::Pond, 0.01)];
        Case {
            name: "sigmoid",
            x,
            parameters: &[],
            make: &|_, _| Box::new(Sigmoid),
            definition: &|x, _| x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
            compares: false,
            protocols: approximate,
        }
        .check();
        Case {
            name: "tanh",
            x,
            parameters: &[],
            make: &|_, _| Box::new(Tanh),
            definition: &|x, _| x.iter().map(|x| x.tanh()).collect(),
            compares: false,
            protocols: approximate,
        }
        .check();
    }
}

#[test]
fn shapes() {
    let keep: Definition<'_> = &|x, _| x.to_vec();
    let case =
        |x, make| Case { name: "shapes", x, parameters: &[], make, definition: keep, compares: false, protocols: BOTH };
    case(&[2, 3, 2], &|_, _| Box::new(Reshape(vec![3, -1]))).check();
    case(&[2, 3, 2], &|_, _| Box::new(Reshape::default())).check();
    case(&[2, 3, 2, 2], &|_, _| Box::new(Flatten)).check();
    case(&[3, 2, 2], &|_, _| Box::new(Flatten)).check();
    let graph = Graph::new();
    for (x, flat) in [(&[2, 3, 2, 2][..], &[2, 12][..]), (&[3, 2, 2], &[12]), (&[2, 5], &[2, 5]), (&[5], &[5])] {
        let x = graph.private_input("c", "x", x, [0.0, 1.0]).unwrap();
        assert_eq!(Flatten.forward(&x).unwrap().shape(), flat);
    }
    let x = graph.private_input("c", "x", &[2, 3, 2], [0.0, 1.0]).unwrap();
    assert_eq!(Reshape(vec![3, -1]).forward(&x).unwrap().shape(), [3, 4]);
    assert_eq!(Reshape::default().forward(&x).unwrap().shape(), [12]);
    for wanted in [vec![5, -1], vec![-1, -1], vec![0, -1], vec![-2, -6], vec![3, 5], vec![], vec![i64::MAX, i64::MAX]] {
        let error = Reshape(wanted.clone()).forward(&x).unwrap_err();
        assert!(error.reason.contains("[2, 3, 2]") && error.reason.contains(&format!("{wanted:?}")), "{error}");
    }
}

#[test]
fn batch_normalisation() {
    // How many channels follow each other, and how many elements of one.
    for (x, layout, run) in [
        (&[2, 3][..], Layout::ChannelsFirst, 1),
        (&[3], Layout::ChannelsFirst, 1),
        (&[2, 3, 2, 2], Layout::ChannelsFirst, 4),
        (&[3, 2, 1], Layout::ChannelsFirst, 2),
        (&[2, 2, 1, 3], Layout::ChannelsLast, 1),
    ] {
        Case {
            name: &format!("batchnorm {x:?}"),
            x,
            parameters: &[&[3], &[3]],
            make: &|_, p| Box::new(Batchnorm::of(p[0].clone(), p[1].clone(), layout).unwrap()),
            definition: &|x, p| x.iter().enumerate().map(|(i, x)| x * p[0][i / run % 3] + p[1][i / run % 3]).collect(),
            compares: false,
            protocols: BOTH,
        }
        .check();
    }
}

#[test]
fn layers_in_a_row() {
    let how = Convolution { padding: Padding::Same, ..Convolution::default() };
    Case {
        name: "sequential",
        x: &[2, 1, 4, 4],
        parameters: &[&[2, 1, 3, 3], &[2], &[8, 3], &[3]],
        make: &|graph, p| {
            let inner = Sequential::new()
                .then(Tanh)
                .then(AveragePooling2D::new(graph, Pooling::of([2, 2])))
                .then(Flatten)
                .then(Dense::of(p[2].clone(), Some(p[3].clone())).unwrap());
            Box::new(
                Sequential::new()
                    .then(Conv2D::of(p[0].clone(), Some(p[1].clone()), how).unwrap())
                    .then(inner)
                    .then(Sigmoid),
            )
        },
        definition: &|x, p| {
            let shape = |x, window, strides, padding| Shape { x, window, strides, dilations: [1, 1], padding };
            let y = shape([2, 1, 4, 4], [3, 3], [1, 1], [1; 4]).conv(x, &p[0], 2, 1, &p[1]);
            let y: Vec<f64> = y.iter().map(|x| x.tanh()).collect();
            let y = shape([2, 2, 4, 4], [2, 2], [2, 2], [0; 4]).mean(&y);
            dense(&y, [2, 8, 3], &p[2], &p[3]).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect()
        },
        compares: false,
        protocols: &[(Protocol::SecureNn, 0.05)],
    }
    .check();
}

#[test]
fn what_does_not_fit_is_named() {
    let graph = Graph::new();
    let tensor = |shape: &[u32]| graph.private_input("c", "x", shape, [0.0, 1.0]).unwrap();
    let refused = |error: GraphError, words: &[&str]| {
        let text = format!("{error}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    refused(Dense::of(tensor(&[3, 4]), Some(tensor(&[3]))).unwrap_err(), &["Dense", "[3, 4]", "[3]"]);
    refused(Dense::of(tensor(&[3]), None).unwrap_err(), &["Dense", "[3]"]);
    let layer = Dense::of(tensor(&[3, 4]), None).unwrap();
    refused(layer.forward(&tensor(&[2, 5])).unwrap_err(), &["matmul", "[2, 5]", "[3, 4]"]);
    let pass = layer.pass(&tensor(&[2, 3])).unwrap();
    refused(layer.input_gradient(&pass, &tensor(&[1, 4])).unwrap_err(), &["Dense", "[1, 4]", "[2, 4]"]);
    refused(layer.parameter_gradients(&pass, &tensor(&[1, 4])).unwrap_err(), &["Dense", "[1, 4]", "[2, 4]"]);

    let how = Convolution { padding: Padding::Explicit([2, 0, 0, 0]), ..Convolution::default() };
    refused(
        Conv2D::of(tensor(&[2, 1, 2, 2]), Some(tensor(&[1])), how).unwrap_err(),
        &["Conv2D", "[2, 1, 2, 2]", "[1]"],
    );
    let layer = Conv2D::of(tensor(&[2, 1, 2, 2]), None, how).unwrap();
    refused(layer.forward(&tensor(&[3, 4, 4])).unwrap_err(), &["conv2d", "[3, 4, 4]", "[2, 1, 2, 2]"]);
    let pass = layer.pass(&tensor(&[1, 4, 4])).unwrap();
    refused(layer.input_gradient(&pass, &pass.y).unwrap_err(), &["Conv2D", "[2, 0, 0, 0]", "[2, 2]"]);

    let layer = MaxPooling2D::new(Pooling::of([3, 3]));
    refused(layer.pass(&tensor(&[1, 2, 2])).unwrap_err(), &["MaxPooling2D", "[3, 3]", "[2, 2]"]);
    refused(layer.pass(&tensor(&[2, 2])).unwrap_err(), &["three axes", "[2, 2]"]);
    let pass = layer.pass(&tensor(&[1, 3, 3])).unwrap();
    // Passes are the layers' own.
    refused(Relu.input_gradient(&Tanh.pass(&tensor(&[2])).unwrap(), &tensor(&[2])).unwrap_err(), &["Relu", "another"]);
    refused(
        MaxPooling2D::new(Pooling::of([3, 3]))
            .input_gradient(&Pass { bits: vec![], ..pass }, &tensor(&[1, 1, 1]))
            .unwrap_err(),
        &["another"],
    );
    let network = Sequential::new().then(Tanh);
    refused(
        network.backward(&Tanh.pass(&tensor(&[2])).unwrap(), &tensor(&[2])).unwrap_err(),
        &["Sequential", "0", "1"],
    );

    let layer = Batchnorm::of(tensor(&[1]), tensor(&[1]), Layout::ChannelsFirst).unwrap();
    refused(layer.forward(&tensor(&[3, 2, 2])).unwrap_err(), &["Batchnorm", "[3, 2, 2]", "[1]"]);
    refused(
        Batchnorm::of(tensor(&[2]), tensor(&[3]), Layout::ChannelsFirst).unwrap_err(),
        &["Batchnorm", "[2]", "[3]"],
    );
    refused(
        mean_squared_error(&tensor(&[2, 1]), &tensor(&[2])).err().unwrap(),
        &["mean_squared_error", "[2, 1]", "[2]"],
    );
    refused(
        sigmoid_cross_entropy(&tensor(&[2, 1]), &tensor(&[2])).unwrap_err(),
        &["sigmoid_cross_entropy", "[2, 1]", "[2]"],
    );
    let sgd = Sgd { rate: 0.1.into(), samples: 1 };
    refused(sgd.step(&tensor(&[2]), &tensor(&[1])).unwrap_err(), &["Sgd", "[2]", "[1]"]);
    assert!(Sgd { samples: 0, ..sgd }.step(&tensor(&[2]), &tensor(&[2])).is_err());
}
