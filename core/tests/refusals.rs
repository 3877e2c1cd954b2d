//! Graphs and programs that cannot be: where they are refused, and what the error says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

use ndarray::{ArrayD, arr1};
use selkie::graph::{Along, Bounds, Convolution, Graph, Layout, Padding, Pooling, Tensor};
use selkie::plan::Plan;
use selkie::program::{Numbers, Visibility};
use selkie::{GraphError, PlanError, Protocol, Session};

/// The tensors that the table's operators are tried on.
struct Given {
    graph: Graph,
    /// \[2, 3\]
    x: Tensor,
    /// \[4, 5\]
    y: Tensor,
    /// \[2, 6, 6\]
    image: Tensor,
    /// \[3, 4, 3, 3\]
    filters: Tensor,
    /// \[2, 3\], public.
    public: Tensor,
    /// \[3\], integers.
    whole: Tensor,
}

impl Given {
    fn new() -> Self {
        let graph = Graph::new();
        let private = |name, shape: &[u32]| graph.private_input("client", name, shape, [0.0, 1.0]).unwrap();
        let (x, y) = (private("x", &[2, 3]), private("y", &[4, 5]));
        let (image, filters) = (private("image", &[2, 6, 6]), private("filters", &[3, 4, 3, 3]));
        let public = graph.public_input("client", "public", &[2, 3], [0.0, 1.0]).unwrap();
        let whole = graph.input("client", "whole", &[3], [0.0, 4.0], Visibility::Private, true).unwrap();
        Self { graph, x, y, image, filters, public, whole }
    }
}

type Wrong = fn(&Given) -> Result<Tensor, GraphError>;

fn nothing(result: Result<(), GraphError>, given: &Given) -> Result<Tensor, GraphError> {
    result.map(|()| given.x.clone())
}

/// The operation, how it is written wrongly, and what the error must say: all operands' shapes, where there are any.
const TABLE: &[(&str, Wrong, &[&str])] = &[
    // Shapes of two operands.
    ("add", |g| &g.x + &g.y, &["[2, 3]", "[4, 5]"]),
    ("sub", |g| &g.x - &g.y, &["[2, 3]", "[4, 5]"]),
    ("mul", |g| &g.x * &g.y, &["[2, 3]", "[4, 5]"]),
    ("matmul", |g| g.x.matmul(&g.y), &["[2, 3]", "[4, 5]"]),
    ("conv2d", |g| g.image.conv2d(&g.filters, Convolution::default()), &["[2, 6, 6]", "[3, 4, 3, 3]"]),
    ("conv2d", |g| g.x.conv2d(&g.filters, Convolution::default()), &["[2, 3]", "[3, 4, 3, 3]"]),
    (
        "conv2d",
        |g| g.image.conv2d(&g.filters, Convolution { groups: 2, ..Convolution::default() }),
        &["[2, 6, 6]", "[3, 4, 3, 3]"],
    ),
    (
        "conv2d",
        |g| g.image.conv2d(&g.filters, Convolution { strides: [0, 1], ..Convolution::default() }),
        &["[2, 6, 6]", "[3, 4, 3, 3]"],
    ),
    (
        "conv2d",
        |g| g.image.conv2d(&g.filters, Convolution { dilations: [0, 1], ..Convolution::default() }),
        &["[3, 4, 3, 3]"],
    ),
    (
        "conv2d",
        |g| g.x.conv2d(&g.filters, Convolution { layout: Layout::ChannelsLast, ..Convolution::default() }),
        &["[2, 3]"],
    ),
    ("bias", |g| g.x.bias(&g.y), &["[2, 3]", "[4, 5]"]),
    ("bias", |g| g.x.bias(&g.whole), &["[2, 3]", "[3, 1]"]),
    ("less", |g| g.x.less(&g.y), &["[2, 3]", "[4, 5]"]),
    ("less_equal", |g| g.x.less_equal(&g.y), &["[2, 3]", "[4, 5]"]),
    ("greater", |g| g.x.greater(&g.y), &["[2, 3]", "[4, 5]"]),
    ("greater_equal", |g| g.x.greater_equal(&g.y), &["[2, 3]", "[4, 5]"]),
    ("equal", |g| g.x.equal(&g.y), &["[2, 3]", "[4, 5]"]),
    ("maximum", |g| g.x.maximum(&g.y), &["[2, 3]", "[4, 5]"]),
    ("minimum", |g| g.x.minimum(&g.y), &["[2, 3]", "[4, 5]"]),
    ("and", |g| g.x.and(&g.y), &["[2, 3]", "[4, 5]"]),
    ("or", |g| g.x.or(&g.y), &["[2, 3]", "[4, 5]"]),
    ("xor", |g| g.x.xor(&g.y), &["[2, 3]", "[4, 5]"]),
    ("select", |g| g.x.select(&g.x, &g.y), &["[2, 3]", "[4, 5]"]),
    ("select", |g| g.y.select(&g.x, &g.x), &["[2, 3]", "[4, 5]"]),
    ("div_public", |g| g.y.div_public(&g.public, 1.0), &["[2, 3]", "[4, 5]"]),
    ("concat", |g| Tensor::concat(&[&g.x, &g.y], 0), &["[2, 3]", "[4, 5]"]),
    ("concat", |_| Tensor::concat(&[], 0), &[]),
    ("stack", |g| Tensor::stack(&[&g.x, &g.y], 0), &["2, 3]", "4, 5]"]),
    ("stack", |g| Tensor::stack(&[&g.x, &g.x], 3), &["[2, 3]"]),
    // Shapes of one.
    ("reshape", |g| g.x.reshape(&[5]), &["[2, 3]", "[5]"]),
    ("broadcast", |g| g.x.broadcast_to(&[4, 5]), &["[2, 3]", "[4, 5]"]),
    ("transpose", |g| g.x.transpose(&[0, 0]), &["[2, 3]", "[0, 0]"]),
    ("expand_dims", |g| g.x.expand_dims(3), &["[2, 3]"]),
    ("squeeze", |g| g.x.squeeze(&[0]), &["[2, 3]"]),
    ("slice", |g| g.x.slice(&[(2..).into()]), &["[2, 3]"]),
    ("slice", |g| g.x.slice(&[Along::default(); 3]), &["[2, 3]"]),
    ("slice", |g| g.x.slice(&[Along::default().step(0)]), &["[2, 3]"]),
    ("split", |g| g.x.split(2, 1).map(|_| g.x.clone()), &["[2, 3]"]),
    ("split", |g| g.x.split(0, 0).map(|_| g.x.clone()), &["[2, 3]"]),
    ("pad", |g| g.x.pad(&[[1, 1]]), &["[2, 3]"]),
    ("tile", |g| g.x.tile(&[2]), &["[2, 3]"]),
    ("tile", |g| g.x.tile(&[0, 1]), &["[0, 3]"]),
    ("gather", |g| g.x.gather(&[3], 1), &["[2, 3]"]),
    ("gather", |g| g.x.gather(&[0], 2), &["[2, 3]"]),
    ("dilate", |g| g.x.dilate(&[0, 1]), &["[2, 3]"]),
    ("flip", |g| g.x.flip(&[2]), &["[2, 3]"]),
    ("space_to_batch", |g| g.image.space_to_batch(&[4], &[[0, 0]]), &["[2, 6, 6]"]),
    ("batch_to_space", |g| g.image.batch_to_space(&[3], &[[0, 0]]), &["[2, 6, 6]"]),
    ("batch_to_space", |g| g.image.batch_to_space(&[2], &[[6, 6]]), &["[1, 12, 6]"]),
    ("reduce_sum", |g| g.x.reduce_sum(2), &["[2, 3]"]),
    ("reduce_mean", |g| g.x.reduce_mean(2), &["[2, 3]"]),
    ("cumsum", |g| g.x.cumsum(2), &["[2, 3]"]),
    ("reduce_max", |g| g.x.reduce_max(2), &["[2, 3]"]),
    ("argmax", |g| g.x.argmax(2), &["[2, 3]"]),
    ("max_pool2d", |g| g.image.max_pool2d(Pooling::of([7, 1])), &["[2, 6, 6]"]),
    ("max_pool2d", |g| g.x.max_pool2d(Pooling::of([1, 1])), &["[2, 3]"]),
    ("avg_pool2d", |g| g.image.avg_pool2d(Pooling::of([1, 7])), &["[2, 6, 6]"]),
    ("avg_pool2d", |g| g.image.avg_pool2d(Pooling { strides: [0, 1], ..Pooling::of([2, 2]) }), &["[2, 6, 6]"]),
    (
        "avg_pool2d",
        |g| g.image.avg_pool2d(Pooling { padding: Padding::Explicit([2, 0, 0, 0]), ..Pooling::of([2, 2]) }),
        &["[2, 6, 6]"],
    ),
    ("avg_pool2d", |g| g.x.avg_pool2d(Pooling { layout: Layout::ChannelsLast, ..Pooling::of([1, 1]) }), &["[2, 3]"]),
    // Types.
    ("bits", |g| g.x.bits(4), &["whole"]),
    ("bits", |g| g.whole.bits(65), &["1 to 64", "[3]"]),
    ("lsb", |g| g.x.lsb(), &["whole"]),
    // Visibility.
    ("mask", |g| g.public.mask(), &["public"]),
    ("div_public", |g| g.x.div_public(&g.x, 1.0), &["public", "reveal"]),
    ("variable", |g| g.graph.variable("owner", "m", &[2], Visibility::Masked, false), &["public or private"]),
    // Numbers.
    ("add", |g| &g.x + f64::NAN, &["finite"]),
    ("mul", |g| &g.x * f64::INFINITY, &["finite"]),
    ("greater", |g| g.x.greater(f64::NAN), &["finite"]),
    ("div", |g| g.x.div(0.0), &["0"]),
    ("div_public", |g| g.x.div_public(&g.public, 0.0), &["not zero", "[2, 3]"]),
    ("normalise", |g| g.x.normalise(0.0, 0.0), &["deviation", "[2, 3]"]),
    ("polynomial", |g| g.x.polynomial(&[]), &["coefficients"]),
    ("constant", |g| g.graph.constant(arr1(&[f64::NAN]).view().into_dyn()), &["finite"]),
    ("constant", |g| g.graph.constant(ArrayD::zeros(vec![2, 0]).view()), &["[2, 0]"]),
    ("input", |g| g.graph.private_input("client", "z", &[0], [0.0, 1.0]), &["[0]"]),
    ("input", |g| g.graph.private_input("client", "z", &[], [0.0, 1.0]), &["[]"]),
    ("input", |g| g.graph.private_input("client", "z", &[1; 9], [0.0, 1.0]), &["axes"]),
    ("input", |g| g.graph.masked_input("client", "z", &[1 << 20, 1 << 20], [0.0, 1.0]), &["elements"]),
    ("input", |g| g.graph.public_input("client", "z", &[1], [1.0, 0.0]), &["range"]),
    ("variable", |g| g.graph.private_variable("owner", "v", &[0]), &["[0]"]),
    (
        "initialise",
        |g| {
            let v = g.graph.private_variable("owner", "v", &[2, 3])?;
            nothing(g.graph.initialise(&v, arr1(&[1.0]).view().into_dyn()), g)
        },
        &["[1]", "[2, 3]"],
    ),
    ("initialise", |g| nothing(g.graph.initialise(&g.x, arr1(&[1.0]).view().into_dyn()), g), &["variables"]),
    // Tensors of other graphs.
    ("add", |g| &g.x + &Given::new().x, &["different graphs"]),
    ("matmul", |g| g.x.matmul(&Given::new().y), &["different graphs"]),
    ("conv2d", |g| g.image.conv2d(&Given::new().filters, Convolution::default()), &["different graphs"]),
    ("concat", |g| Tensor::concat(&[&g.x, &Given::new().x], 0), &["different graphs"]),
    ("stack", |g| Tensor::stack(&[&g.x, &Given::new().x], 0), &["different graphs"]),
    ("div_public", |g| g.x.div_public(&Given::new().public, 1.0), &["different graphs"]),
    ("output", |g| nothing(g.graph.output("client", &Given::new().x), g), &["different graphs"]),
];

#[test]
fn graphs_are_refused_at_the_line_that_makes_them() {
    for (operation, wrong, says) in TABLE {
        let given = Given::new();
        let Err(error) = wrong(&given) else { panic!("{operation}, which must say {says:?}, is accepted") };
        let text = error.to_string();
        assert_eq!(error.operation, *operation, "{text}");
        assert!(text.starts_with(operation), "{text}");
        for word in *says {
            assert!(text.contains(word), "{operation} must say {word:?}: {text}");
        }
        // What was refused leaves nothing behind: the graph goes on as if it had not been tried.
        given.graph.output("client", &given.x).unwrap();
        assert!(given.graph.compile(Numbers::default(), Bounds::Declared(4)).is_ok(), "{operation}");
    }
}

#[test]
fn a_bound_that_does_not_fit_names_the_wire_and_the_missing_bits() {
    let graph = Graph::new();
    let x = graph.private_input("client", "x", &[2], [-1000.0, 1000.0]).unwrap();
    let y = (&x * &x).unwrap();
    graph.output("client", &(&y * &x).unwrap()).unwrap();
    // 1000² < 2^20, twice 10 bits after the point: 40 bits, where 30 fit. The square is wire 1.
    let numbers = Numbers { ring_bits: 32, fraction_bits: 10 };
    let program = graph.compile(numbers, Bounds::Proved(&graph.weights())).unwrap();
    for protocol in Protocol::ALL {
        let error = Plan::new(&program, *protocol).unwrap_err();
        let PlanError::Bound { wire, op, needed, room, missing, ring_bits } = error else { panic!("{error}") };
        assert_eq!((wire, op, needed, room, missing, ring_bits), (1, "square", 40, 30, 10, 32));
        let text = error.to_string();
        assert!(
            ["wire 1", "square", "10 bits are missing", "larger ring"].iter().all(|says| text.contains(says)),
            "{text}"
        );
        // The same in a ring of 64 bits, and what the error counted is enough: 42 hold the square.
        let wide =
            graph.compile(Numbers { ring_bits: 64, fraction_bits: 10 }, Bounds::Proved(&graph.weights())).unwrap();
        assert!(Plan::new(&wide, *protocol).is_ok());
        let enough =
            graph.compile(Numbers { ring_bits: 42, fraction_bits: 10 }, Bounds::Proved(&graph.weights())).unwrap();
        let next = Plan::new(&enough, *protocol).unwrap_err();
        assert!(matches!(next, PlanError::Bound { wire: 2, op: "mul", .. }), "{next}");
    }
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    let graph = Graph::new();
    let x = graph.private_input("client", "x", &[2], [-1.0, 1.0]).unwrap();
    graph.output("client", &x).unwrap();
    for (ring_bits, fraction_bits) in [(7, 1), (65, 16), (64, 0), (32, 15), (64, 31), (0, 0), (u32::MAX, 1)] {
        let error = graph.compile(Numbers { ring_bits, fraction_bits }, Bounds::Declared(1)).unwrap_err();
        assert!(matches!(&error, PlanError::Numbers(text) if text.contains("ring")), "{error}");
    }
}

#[test]
fn protocols_that_do_not_compare_say_who_does_when_planning() {
    type Compares = fn(&Tensor) -> Result<Tensor, GraphError>;
    let all: [(&str, Compares); 12] = [
        ("negative", |x| x.negative()),
        ("negative", |x| x.non_negative()),
        ("negative", |x| x.msb()),
        ("negative", |x| x.less(0.5)),
        ("negative", |x| x.less_equal(0.5)),
        ("negative", |x| x.greater(0.5)),
        ("negative", |x| x.greater_equal(0.5)),
        ("equal_zero", |x| x.equal(0.5)),
        ("reduce_max", |x| x.max_pool2d(Pooling::of([2, 2]))),
        ("reduce_max", |x| x.reduce_max(1)),
        ("reduce_max", |x| x.maximum(0.5)),
        ("argmax", |x| x.argmax(1)),
    ];
    for (op, build) in all {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[1, 2, 2], [0.0, 1.0]).unwrap();
        graph.output("client", &build(&x).unwrap()).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
        for protocol in Protocol::ALL {
            let planned = Plan::new(&program, *protocol);
            let session = Session::local(&program, &graph.weights(), *protocol, [1; 32]);
            if protocol.compares() {
                assert!(planned.is_ok() && session.is_ok(), "{protocol}: {op}");
                continue;
            }
            let error = planned.unwrap_err();
            assert!(matches!(&error, PlanError::Unsupported { op: named, .. } if *named == op), "{error}");
            for text in [error.to_string(), session.unwrap_err().to_string()] {
                assert!(text.contains(protocol.name()) && text.contains(op), "{text}");
                let able = Protocol::ALL.iter().filter(|protocol| protocol.compares());
                assert!(able.clone().count() > 0 && able.clone().all(|able| text.contains(able.name())), "{text}");
            }
        }
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_anything_is_sent() {
    for protocol in Protocol::ALL {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[2], [-1.0, 1.0]).unwrap();
        graph.output("client", &x.square().unwrap()).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(4)).unwrap();
        let mut session = Session::local(&program, &graph.weights(), *protocol, [1; 32]).unwrap();
        let fits = arr1(&[0.5f32, -0.5]).into_dyn();
        for (inputs, says) in [
            (vec![], "x"),
            (vec![("y", fits.clone())], "y"),
            (vec![("x", fits.clone()), ("x", fits.clone())], "twice"),
            (vec![("x", arr1(&[0.5f32]).into_dyn())], "[2]"),
            (vec![("x", arr1(&[0.5f32, f32::NAN]).into_dyn())], "x"),
            (vec![("x", arr1(&[0.5f32, 1.25]).into_dyn())], "1.25"),
        ] {
            let views: Vec<_> = inputs.iter().map(|(name, values)| (*name, values.view())).collect();
            let error = session.run(&views).unwrap_err();
            assert_eq!(error.culprit(), selkie::Culprit::You);
            assert!(error.to_string().contains(says), "{error} must say {says}");
        }
        let run = session.run(&[("x", fits.view())]).unwrap();
        assert_eq!(run.output("client").unwrap(), &fits * &fits);
    }
}
