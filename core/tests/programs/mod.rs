//! The programs that the vocabulary's rows run; expected values come from `ndarray`, or from loops over f64.

use ndarray::{Array2, Axis, Ix1, Ix2, Ix3, Slice, arr1, concatenate, stack};
use selkie::graph::{Along, Bounds, Convolution, Graph, Layout, Padding, Pooling, Tensor};
use selkie::program::{Numbers, Op, Visibility};
use selkie::{Protocol, Session};

use crate::lab::{Bench, Form, Try, Values, Within, array, quarters};
use Within::{Exactly, Planned, Ulps};

fn permuted(x: &Values, axes: &[usize]) -> Values {
    x.clone().permuted_axes(axes).as_standard_layout().into_owned()
}

fn reshaped(x: &Values, shape: &[usize]) -> Values {
    array(shape, &x.iter().copied().collect::<Vec<_>>())
}

/// x \[channels, height, width\] convolved with filters \[out, channels / groups, height, width\], by the definition.
fn convolved(
    x: &Values,
    filters: &Values,
    strides: [usize; 2],
    dilations: [usize; 2],
    padding: [usize; 4],
    groups: usize,
) -> Values {
    let (x, f) = (x.view().into_dimensionality::<Ix3>().unwrap(), filters.view());
    let ((channels, height, width), shape) = (x.dim(), f.shape());
    let (count, inner, high, wide) = (shape[0], shape[1], shape[2], shape[3]);
    let [top, bottom, left, right] = padding;
    let rows = (height + top + bottom - (high - 1) * dilations[0] - 1) / strides[0] + 1;
    let columns = (width + left + right - (wide - 1) * dilations[1] - 1) / strides[1] + 1;
    assert_eq!(channels, inner * groups);
    Values::from_shape_fn(vec![count, rows, columns], |at| {
        let first = at[0] / (count / groups) * inner;
        let mut sum = 0.0;
        for (c, i, j) in (0..inner).flat_map(|c| (0..high).flat_map(move |i| (0..wide).map(move |j| (c, i, j)))) {
            let (row, column) = (at[1] * strides[0] + i * dilations[0], at[2] * strides[1] + j * dilations[1]);
            if (top..top + height).contains(&row) && (left..left + width).contains(&column) {
                sum += x[[first + c, row - top, column - left]] * f[[at[0], c, i, j]];
            }
        }
        sum
    })
}

/// Pooled as TensorFlow defines SAME: what lies outside does not count.
fn pooled(x: &Values, window: [usize; 2], strides: [usize; 2], padding: [usize; 4], f: fn(&[f64]) -> f64) -> Values {
    let (height, width) = (x.shape()[1], x.shape()[2]);
    let [top, bottom, left, right] = padding;
    let rows = (height + top + bottom - window[0]) / strides[0] + 1;
    let columns = (width + left + right - window[1]) / strides[1] + 1;
    Values::from_shape_fn(vec![x.shape()[0], rows, columns], |at| {
        let place = |step: usize, stride: usize, i: usize, before: usize, length: usize| {
            (step * stride + i).checked_sub(before).filter(|at| *at < length)
        };
        let mut inside = vec![];
        for (i, j) in (0..window[0]).flat_map(|i| (0..window[1]).map(move |j| (i, j))) {
            let row = place(at[1], strides[0], i, top, height);
            if let (Some(row), Some(column)) = (row, place(at[2], strides[1], j, left, width)) {
                inside.push(x[[at[0], row, column].as_slice()]);
            }
        }
        f(&inside)
    })
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

fn largest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

// Globals.

pub(crate) fn protocols_by_name(t: &mut Try) {
    assert_eq!(Protocol::named(t.protocol.name()), Some(t.protocol));
    assert_eq!(Protocol::named("spdz"), None);
    let mut bench = Bench::default();
    let x = bench.tensor(Form::PrivateInput, &quarters(&[2], 0), false);
    bench.output(&x);
    let session = bench.session(t.protocol, t.numbers).unwrap();
    assert_eq!(session.plan().protocol(), t.protocol);
    t.checked += 1;
}

pub(crate) fn any_players(t: &mut Try) {
    let graph = Graph::new();
    let a = graph.private_input("hospital-a", "a", &[2], [0.0, 4.0]).unwrap();
    let b = graph.private_input("hospital-b", "b", &[2], [0.0, 4.0]).unwrap();
    graph.output("statistician", &(&a + &b).unwrap()).unwrap();
    graph.output("hospital-a", &(&a - &b).unwrap()).unwrap();
    let program = graph.compile(t.numbers, Bounds::Declared(4)).unwrap();
    let who = |(_, node): (_, &selkie::program::Node)| match &node.op {
        Op::Input { player, .. } | Op::Output { player, .. } => player.clone(),
        _ => String::new(),
    };
    assert_eq!(program.inputs().map(who).collect::<Vec<_>>(), ["hospital-a", "hospital-b"]);
    assert_eq!(program.outputs().map(who).collect::<Vec<_>>(), ["statistician", "hospital-a"]);
    let mut session = Session::local(&program, &graph.weights(), t.protocol, [1; 32]).unwrap();
    let (a, b) = (arr1(&[1.0f32, 2.0]).into_dyn(), arr1(&[3.0f32, 0.5]).into_dyn());
    let run = session.run(&[("b", b.view()), ("a", a.view())]).unwrap();
    assert_eq!(run.output("statistician").unwrap(), &a + &b);
    assert_eq!(run.output("hospital-a").unwrap(), &a - &b);
    assert!(run.output("hospital-b").is_err());
    t.checked += 1;
}

pub(crate) fn a_session_runs(t: &mut Try) {
    let graph = Graph::new();
    let x = graph.private_input("client", "x", &[2], [-4.0, 4.0]).unwrap();
    let y = graph.public_input("client", "y", &[2], [-4.0, 4.0]).unwrap();
    let w = graph.private_variable("owner", "w", &[2]).unwrap();
    graph.initialise(&w, arr1(&[2.0, -3.0]).view().into_dyn()).unwrap();
    graph.output("client", &(&(&x * &w).unwrap() + &y).unwrap()).unwrap();
    let weights = graph.weights();
    let program = graph.compile(t.numbers, Bounds::Proved(&weights)).unwrap();
    let mut session = Session::local(&program, &weights, t.protocol, [1; 32]).unwrap();
    let one = arr1(&[1.5f32, -2.0]).into_dyn();
    // One sample, three at once, and one again.
    for batch in [None, Some(3), None] {
        let rows = |by: f32| match batch {
            None => one.clone() * by,
            Some(count) => {
                let rows: Vec<_> = (0..count).map(|i| one.clone() * by * (i as f32 - 1.0)).collect();
                stack(Axis(0), &rows.iter().map(|row| row.view()).collect::<Vec<_>>()).unwrap()
            }
        };
        let (x, y) = (rows(1.0), rows(0.5));
        let run = session.run(&[("x", x.view()), ("y", y.view())]).unwrap();
        assert_eq!(run.output("client").unwrap(), &x * &arr1(&[2.0f32, -3.0]) + &y);
        assert!(run.statistics.table().contains("mul"));
    }
    for wrong in [vec![("x", one.view())], vec![("x", one.view()), ("z", one.view())]] {
        assert!(session.run(&wrong).is_err(), "inputs are missing, or unknown");
    }
    t.checked += 1;
}

pub(crate) fn used_twice_is_opened_once(t: &mut Try) {
    let bytes = |products: fn([&Tensor; 3]) -> Vec<Tensor>| {
        let mut bench = Bench::default();
        let [x, y, z] = [1, 2, 3].map(|salt| bench.tensor(Form::PrivateInput, &quarters(&[4], salt), false));
        products([&x, &y, &z]).iter().for_each(|product| bench.output(product));
        bench.session(t.protocol, t.numbers).unwrap().plan().cost(1).online_bytes
    };
    let one = bytes(|[x, y, _]| vec![(x * y).unwrap()]);
    let apart = bytes(|[x, y, z]| vec![(x * y).unwrap(), (x * z).unwrap(), (z * y).unwrap()]);
    // Three tensors are opened, however many products they are factors of.
    assert_eq!(2 * apart, 3 * one);
    t.checked += 1;
}

// Definitions.

fn arrives(t: &mut Try, forms: &[Form], visibility: Visibility) {
    let x = quarters(&[2, 3], 4);
    t.check_in(
        forms,
        std::slice::from_ref(&x),
        |v| {
            assert_eq!(v[0].visibility(), visibility);
            &v[0] * 2.0
        },
        &x * 2.0,
        Exactly,
    );
}

pub(crate) fn constants(t: &mut Try) {
    arrives(t, &[Form::Constant], Visibility::Public);
    assert!(Graph::new().constant(arr1(&[f64::NAN]).view().into_dyn()).is_err());
}

pub(crate) fn public_variables(t: &mut Try) {
    arrives(t, &[Form::PublicVariable], Visibility::Public);
}

pub(crate) fn private_variables(t: &mut Try) {
    arrives(t, &[Form::PrivateVariable], Visibility::Private);
    let mut bench = Bench::default();
    let values = quarters(&[5], 1);
    let x = bench.tensor(Form::PrivateVariable, &values, false);
    bench.output(&(&x * 2.0).unwrap());
    let session = bench.session(t.protocol, t.numbers).unwrap();
    let [share0, share1] = session.shares_of("x1").unwrap();
    let Numbers { ring_bits, fraction_bits } = t.numbers;
    for ((a, b), value) in share0.iter().zip(&share1).zip(&values) {
        let sum = a.wrapping_add(*b) << (64 - ring_bits);
        assert_eq!((sum as i64 >> (64 - ring_bits)) as f64, value * f64::from(1 << fraction_bits));
        assert!(*a != 0 && *b != 0 && a != b);
    }
    assert!(session.shares_of("nobody").is_err());
}

pub(crate) fn public_inputs(t: &mut Try) {
    arrives(t, &[Form::PublicInput], Visibility::Public);
}

pub(crate) fn private_inputs(t: &mut Try) {
    arrives(t, &[Form::PrivateInput], Visibility::Private);
}

pub(crate) fn masked_inputs(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check_in(&[Form::MaskedInput], std::slice::from_ref(&x), |v| v[0].square(), &x * &x, Exactly);
    // The first opening is the client's own: a product of masked inputs opens nothing.
    let online = |form| {
        let mut bench = Bench::default();
        let [x, y] = [0, 1].map(|salt| bench.tensor(form, &quarters(&[64], salt), false));
        bench.output(&(&x * &y).unwrap());
        bench.session(t.protocol, t.numbers).unwrap().plan().cost(1).online_bytes
    };
    let (masked, private) = (online(Form::MaskedInput), online(Form::PrivateInput));
    assert!(masked * 10 < private, "{masked} {private}: no more than the digest of what was sent is compared");
}

pub(crate) fn outputs(t: &mut Try) {
    t.check(&[quarters(&[2, 3], 4)], |v| Ok(v[0].clone()), quarters(&[2, 3], 4), Exactly);
}

pub(crate) fn reveals(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    let revealed = |v: &[Tensor]| {
        let y = v[0].square()?.reveal()?;
        assert_eq!(y.visibility(), Visibility::Public);
        y.mul(&y)
    };
    // Squared once more, it has more bits after the point than the ring keeps.
    t.check(std::slice::from_ref(&x), revealed, x.mapv(|x| x.powi(4)), Ulps(6.0));
}

pub(crate) fn masks(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    let masked = |v: &[Tensor]| {
        let y = v[0].mask()?;
        assert_eq!(y.visibility(), Visibility::Masked);
        y.sub(&v[0])?.add(&y.square()?)
    };
    t.check_in(Form::HIDDEN, std::slice::from_ref(&x), masked, &x * &x, Exactly);
}

pub(crate) fn caches(t: &mut Try) {
    let mut bench = Bench::default();
    let x = bench.tensor(Form::PrivateInput, &quarters(&[1, 3], 0), false);
    let w = bench.tensor(Form::PrivateVariable, &quarters(&[3, 50], 1), false);
    bench.output(&x.matmul(&w).unwrap());
    let mut session = bench.session(t.protocol, t.numbers).unwrap();
    let cost = session.plan().cost(1);
    let ring = u64::from(t.numbers.ring_bits) / 8;
    // 150 weights once, at deployment; three elements of x for each query, in both directions.
    assert_eq!((cost.setup_bytes, cost.online_bytes), (2 * 150 * ring, 2 * 3 * ring));
    let first = bench.run(&mut session).unwrap();
    let second = bench.run(&mut session).unwrap();
    assert_eq!(first.outputs, second.outputs);
    assert_eq!(second.statistics.online_bytes, cost.online_bytes);
    t.checked += 1;
}

/// Entry points over one kept variable, which begins as [1, -2]: `double`, `feed`, `show`, and `product` with an input of ones.
fn kept(t: &Try) -> Session {
    let graph = Graph::new();
    let kept = graph.kept_variable("owner", "kept", &[2], [-8.0, 8.0]).unwrap();
    graph.initialise(&kept, ndarray::arr1(&[1.0, -2.0]).view().into_dyn()).unwrap();
    graph.entry("double").assign(&kept, &(&kept * 2.0).unwrap()).unwrap();
    let fed = graph.private_input("player", "fed", &[2], [-8.0, 8.0]).unwrap();
    graph.entry("feed").assign(&kept, &fed).unwrap();
    graph.entry("show").output("owner", &kept).unwrap();
    let ones = graph.private_input("player", "ones", &[2], [0.0, 1.0]).unwrap();
    graph.entry("product").output("player", &(&kept * &ones).unwrap()).unwrap();
    let weights = graph.weights();
    let entries = graph.compile_entries(t.numbers, Bounds::Proved(&weights)).unwrap();
    Session::local(&entries, &weights, t.protocol, [5; 32]).unwrap()
}

fn shown(session: &mut Session, entry: &str) -> Vec<f32> {
    let ones = ndarray::arr1(&[1.0f32, 1.0]).into_dyn();
    let inputs = [("ones", ones.view())];
    let inputs = if entry == "product" { &inputs[..] } else { &[] };
    session.call(entry, inputs).unwrap().outputs[0].1.iter().copied().collect()
}

pub(crate) fn assignments(t: &mut Try) {
    let mut session = kept(t);
    assert_eq!(shown(&mut session, "show"), [1.0, -2.0]);
    for times in [2.0, 4.0] {
        assert!(session.call("double", &[]).unwrap().outputs.is_empty());
        assert_eq!(shown(&mut session, "show"), [times, -2.0 * times]);
    }
    t.checked += 1;
}

pub(crate) fn caches_follow_assignments(t: &mut Try) {
    let mut session = kept(t);
    // The opening of the variable lasts from run to run, and is made anew after an assignment.
    for times in [1.0, 1.0, 2.0] {
        if times > 1.0 {
            session.call("double", &[]).unwrap();
        }
        let product = shown(&mut session, "product");
        assert_eq!(product, [times, -2.0 * times]);
        let cost = session.plan_of("product").unwrap().cost(1);
        assert_eq!(cost.setup_bytes, 2 * 2 * u64::from(t.numbers.ring_bits) / 8);
    }
    t.checked += 1;
}

pub(crate) fn what_is_fed_is_kept(t: &mut Try) {
    let mut session = kept(t);
    let values = ndarray::arr1(&[0.5f32, 3.25]).into_dyn();
    session.call("feed", &[("fed", values.view())]).unwrap();
    for entry in ["show", "product", "show"] {
        assert_eq!(shown(&mut session, entry), [0.5, 3.25]);
    }
    let states = session.states().clone();
    session.call("double", &[]).unwrap();
    assert_eq!(shown(&mut session, "show"), [1.0, 6.5]);
    session.restore(states).unwrap();
    assert_eq!(shown(&mut session, "product"), [0.5, 3.25]);
    t.checked += 1;
}

pub(crate) fn numbers_on_either_side(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    type Build = fn(&[Tensor]) -> Result<Tensor, selkie::GraphError>;
    type Clear = fn(f64) -> f64;
    let cases: [(Build, Clear); 6] = [
        (|v| &v[0] + 0.5, |x| x + 0.5),
        (|v| 0.5 + &v[0], |x| x + 0.5),
        (|v| &v[0] - 0.5, |x| x - 0.5),
        (|v| 0.5 - &v[0], |x| 0.5 - x),
        (|v| &v[0] * 3.0, |x| x * 3.0),
        (|v| 0.5 * &v[0], |x| x * 0.5),
    ];
    for (build, expected) in cases {
        t.check(std::slice::from_ref(&x), build, x.mapv(expected), Exactly);
    }
}

pub(crate) fn integers(t: &mut Try) {
    t.whole = true;
    let (x, y) = (array(&[4], &[-3.0, 0.0, 1.0, 12.0]), array(&[4], &[5.0, -7.0, 2.0, 1.0]));
    let both = |v: &[Tensor]| {
        assert!(v[0].is_whole() && v[1].is_whole());
        v[0].mul(&v[1])?.sub(&v[0])
    };
    t.check(&[x.clone(), y.clone()], both, &x * &y - &x, Exactly);
    // An integer beside a fraction.
    t.check(std::slice::from_ref(&x), |v| &v[0] * 0.25, &x * 0.25, Exactly);
}

// Rings and fixed point.

pub(crate) fn rings(t: &mut Try) {
    let (x, y) = (array(&[3], &[1.5, -2.0, 0.25]), array(&[3], &[-0.5, 1.5, 2.0]));
    for ring_bits in [16, 31, 32, 33, 48, 63, 64] {
        let numbers = Numbers { ring_bits, fraction_bits: 4 };
        let mut narrow = Try { numbers, ..*t };
        narrow.check(&[x.clone(), y.clone()], |v| &v[0] * &v[1], &x * &y, Exactly);
        t.checked = narrow.checked;
    }
}

pub(crate) fn encodings(t: &mut Try) {
    let ulp = 0.5f64.powi(t.numbers.fraction_bits as i32);
    // Half a unit goes to the even neighbour, on both sides of zero.
    let halves = array(&[6], &[0.5, 1.5, 2.5, -0.5, -1.5, -2.5]) * ulp;
    let rounded = array(&[6], &[0.0, 2.0, 2.0, 0.0, -2.0, -2.0]) * ulp;
    let inputs = [Form::PublicInput, Form::PrivateInput, Form::MaskedInput];
    t.check_in(&inputs, &[halves], |v| Ok(v[0].clone()), rounded, Exactly);
    for wrong in [f32::NAN, f32::INFINITY, 1.5] {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[1], [-1.0, 1.0]).unwrap();
        graph.output("client", &x).unwrap();
        let program = graph.compile(t.numbers, Bounds::Declared(2)).unwrap();
        let mut session = Session::local(&program, &graph.weights(), t.protocol, [1; 32]).unwrap();
        assert!(session.run(&[("x", arr1(&[wrong]).view().into_dyn())]).is_err(), "{wrong}");
        assert!(session.run(&[("x", arr1(&[1.0f32]).view().into_dyn())]).is_ok());
    }
}

pub(crate) fn truncations(t: &mut Try) {
    let [x, y, z] = [0, 1, 2].map(|salt| (quarters(&[7], salt) / 3.0).mapv(|x| f64::from(x as f32)));
    let rounded = |x: &Values| {
        x.mapv(|x| (x * f64::from(1 << t.numbers.fraction_bits)).round_ties_even())
            / f64::from(1 << t.numbers.fraction_bits)
    };
    let expected = rounded(&x) * rounded(&y) * rounded(&z);
    // x·y is cut off by less than a unit before it is a factor below 1.
    t.check(&[x, y, z], |v| v[0].mul(&v[1])?.mul(&v[2]), expected, Ulps(1.0));
}

pub(crate) fn polynomials(t: &mut Try) {
    let x = quarters(&[6], 2);
    let expected = x.mapv(|x| 0.5 + 2.0 * x - 0.25 * x.powi(2) + 0.125 * x.powi(3));
    t.check(std::slice::from_ref(&x), |v| v[0].polynomial(&[0.5, 2.0, -0.25, 0.125]), expected, Ulps(8.0));
    t.check(std::slice::from_ref(&x), |v| v[0].polynomial(&[0.5]), x.mapv(|_| 0.5), Exactly);
    // What the original's fixed point lost: the highest coefficient of its relu is smaller than a unit.
    let small = x.mapv(|x| 1e-6 * x);
    t.check(&[x], |v| v[0].polynomial(&[0.0, 1e-6]), small, Ulps(2.0));
}

// Sums and products.

pub(crate) fn addition(t: &mut Try) {
    let (x, y) = (quarters(&[2, 3], 4), quarters(&[3], 5));
    t.check(&[x.clone(), y.clone()], |v| &v[0] + &v[1], &x + &y, Exactly);
    // Other scales: a product has twice as many bits after the point, an integer none.
    t.check(&[x.clone(), y.clone()], |v| v[0].square()?.add(&v[1]), &x * &x + &y, Exactly);
    let whole = |v: &[Tensor]| (2.0 * &v[0])?.add(&v[1]);
    t.check(&[x.clone(), y.clone()], whole, &x * 2.0 + &y, Exactly);
}

pub(crate) fn subtraction(t: &mut Try) {
    let (x, y) = (quarters(&[3], 4), quarters(&[2, 1], 5));
    t.check(&[x.clone(), y.clone()], |v| &v[0] - &v[1], &x - &y, Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].sub(&v[1].square()?), &x - &(&y * &y), Exactly);
}

pub(crate) fn multiplication(t: &mut Try) {
    let (x, y) = (quarters(&[2, 3], 4), quarters(&[2, 1], 5));
    t.check(&[x.clone(), y.clone()], |v| &v[0] * &v[1], &x * &y, Exactly);
}

pub(crate) fn products_of_matrices(t: &mut Try) {
    let two = |x: &Values| x.clone().into_dimensionality::<Ix2>().unwrap();
    let (x, y) = (quarters(&[2, 3], 4), quarters(&[3, 2], 5));
    t.check(&[x.clone(), y.clone()], |v| v[0].matmul(&v[1]), two(&x).dot(&two(&y)).into_dyn(), Exactly);
    let row = quarters(&[3], 6);
    let column = row.clone().into_dimensionality::<Ix1>().unwrap();
    t.check(&[x.clone(), row], |v| v[0].matmul(&v[1]), two(&x).dot(&column).into_dyn(), Exactly);
    let (x, y) = (quarters(&[2, 2, 3], 4), quarters(&[2, 3, 2], 5));
    let parts: Vec<Array2<f64>> = (0..2)
        .map(|i| two(&x.index_axis(Axis(0), i).to_owned()).dot(&two(&y.index_axis(Axis(0), i).to_owned())))
        .collect();
    let expected = stack(Axis(0), &[parts[0].view(), parts[1].view()]).unwrap().into_dyn();
    t.check(&[x, y], |v| v[0].matmul(&v[1]), expected, Exactly);
}

pub(crate) fn squares(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].square(), &x * &x, Exactly);
    t.check(std::slice::from_ref(&x), |v| &v[0] * &v[0], &x * &x, Exactly);
    let cost = |product: fn(&Tensor, &Tensor) -> Tensor| {
        let mut bench = Bench::default();
        let [x, y] = [0, 0].map(|salt| bench.tensor(Form::PrivateInput, &quarters(&[4], salt), false));
        bench.output(&product(&x, &y));
        bench.session(t.protocol, t.numbers).unwrap().plan().cost(1)
    };
    let (square, product) = (cost(|x, _| x.square().unwrap()), cost(|x, y| (x * y).unwrap()));
    assert!(2 * square.online_bytes == product.online_bytes && square.offline_bytes <= product.offline_bytes);
}

pub(crate) fn convolutions(t: &mut Try) {
    let (x, f) = (quarters(&[2, 5, 4], 4), quarters(&[2, 2, 3, 2], 5));
    let plain = convolved(&x, &f, [1, 1], [1, 1], [0; 4], 1);
    t.check(&[x.clone(), f.clone()], |v| v[0].conv2d(&v[1], Convolution::default()), plain.clone(), Exactly);
    // SAME: ⌈5 / 2⌉ rows and ⌈4 / 1⌉ columns; what is odd is added below and to the right.
    let same = Convolution { strides: [2, 1], padding: Padding::Same, ..Convolution::default() };
    let expected = convolved(&x, &f, [2, 1], [1, 1], [1, 1, 0, 1], 1);
    t.check_in(Form::KINDS, &[x.clone(), f.clone()], |v| v[0].conv2d(&v[1], same), expected, Exactly);
    let last = Convolution { layout: Layout::ChannelsLast, ..Convolution::default() };
    let (x, expected) = (permuted(&x, &[1, 2, 0]), permuted(&plain, &[1, 2, 0]));
    t.check_in(Form::KINDS, &[x, f], |v| v[0].conv2d(&v[1], last), expected, Exactly);
}

pub(crate) fn other_convolutions(t: &mut Try) {
    let (x, f) = (quarters(&[2, 6, 5], 4), quarters(&[2, 2, 2, 2], 5));
    let explicit = Padding::Explicit([1, 0, 0, 2]);
    let dilated = Convolution { dilations: [2, 3], strides: [1, 2], padding: explicit, ..Convolution::default() };
    let expected = convolved(&x, &f, [1, 2], [2, 3], [1, 0, 0, 2], 1);
    t.check(&[x.clone(), f], |v| v[0].conv2d(&v[1], dilated), expected, Exactly);
    let depthwise = Convolution { groups: 2, ..Convolution::default() };
    let f = quarters(&[4, 1, 2, 2], 5);
    let expected = convolved(&x, &f, [1, 1], [1, 1], [0; 4], 2);
    t.check(&[x, f], |v| v[0].conv2d(&v[1], depthwise), expected, Exactly);
}

pub(crate) fn sums(t: &mut Try) {
    let x = quarters(&[2, 3, 2], 4);
    for axis in 0..3 {
        t.check(std::slice::from_ref(&x), |v| v[0].reduce_sum(axis), x.sum_axis(Axis(axis as usize)), Exactly);
    }
}

pub(crate) fn running_sums(t: &mut Try) {
    let x = quarters(&[2, 3, 2], 4);
    for axis in 0..3 {
        let mut expected = x.clone();
        expected.accumulate_axis_inplace(Axis(axis as usize), |before, x| *x += before);
        t.check(std::slice::from_ref(&x), |v| v[0].cumsum(axis), expected, Exactly);
    }
}

pub(crate) fn means(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].reduce_mean(0), x.mean_axis(Axis(0)).unwrap(), Exactly);
    // 1/3 is rounded by half a unit at most, and multiplied by a sum below 4.5.
    t.check(std::slice::from_ref(&x), |v| v[0].reduce_mean(1), x.mean_axis(Axis(1)).unwrap(), Ulps(2.25));
}

pub(crate) fn divisions(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].div(4.0), &x / 4.0, Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].div(3.0), &x / 3.0, Ulps(1.0));
}

pub(crate) fn divisions_by_public_tensors(t: &mut Try) {
    let (x, y) = (quarters(&[3], 4), array(&[3], &[3.0, 0.5, 7.0]));
    t.check_in(Form::PUBLIC, &[x.clone(), y.clone()], |v| v[0].div_public(&v[1], 0.5), &x / &y, Ulps(2.0));
    // A hidden dividend, and a divisor that both servers know in every form.
    let revealed = |v: &[Tensor]| v[0].div_public(&v[1].reveal()?, 0.5);
    t.check(&[x.clone(), y.clone()], revealed, &x / &y, Ulps(2.0));
}

pub(crate) fn negations(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check(std::slice::from_ref(&x), |v| -&v[0], x.mapv(|x| -x), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].neg(), x.mapv(|x| -x), Exactly);
}

// Arrangements.

pub(crate) fn transposes(t: &mut Try) {
    let x = quarters(&[2, 3, 4], 4);
    for axes in [[1, 0, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let expected = permuted(&x, &axes.map(|axis| axis as usize));
        t.check(std::slice::from_ref(&x), |v| v[0].transpose(&axes), expected, Exactly);
    }
}

pub(crate) fn reshapes(t: &mut Try) {
    let x = quarters(&[2, 3, 2], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].reshape(&[4, 3]), reshaped(&x, &[4, 3]), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].flatten(), reshaped(&x, &[12]), Exactly);
    let wide = quarters(&[1, 3], 1);
    let expected = wide.broadcast(vec![2, 2, 3]).unwrap().to_owned();
    t.check(&[wide], |v| v[0].broadcast_to(&[2, 2, 3]), expected, Exactly);
}

pub(crate) fn new_axes(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    for axis in 0..3 {
        let expected = x.clone().insert_axis(Axis(axis as usize));
        t.check(std::slice::from_ref(&x), |v| v[0].expand_dims(axis), expected, Exactly);
    }
}

pub(crate) fn squeezes(t: &mut Try) {
    let x = quarters(&[1, 2, 1, 3], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].squeeze(&[]), reshaped(&x, &[2, 3]), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].squeeze(&[0]), reshaped(&x, &[2, 1, 3]), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].squeeze(&[2]), reshaped(&x, &[1, 2, 3]), Exactly);
}

pub(crate) fn slices(t: &mut Try) {
    let x = quarters(&[4, 5], 4);
    let cut = |rows: Slice, columns: Slice| {
        x.slice_axis(Axis(0), rows).slice_axis(Axis(1), columns).as_standard_layout().into_owned()
    };
    let cases: [(Vec<Along>, Values); 5] = [
        (vec![(1..3).into()], cut(Slice::from(1..3), Slice::from(..))),
        (vec![(..).into(), (1..4).into()], cut(Slice::from(..), Slice::from(1..4))),
        (
            vec![Along::from(0..4).step(2), Along::from(1..).step(3)],
            cut(Slice::new(0, Some(4), 2), Slice::new(1, None, 3)),
        ),
        (vec![Along::default().step(-1), (-2..).into()], cut(Slice::new(0, None, -1), Slice::from(-2..))),
        (vec![(-1..).into(), (..-3).into()], cut(Slice::from(-1..), Slice::from(..-3))),
    ];
    for (parts, expected) in cases {
        t.check(std::slice::from_ref(&x), |v| v[0].slice(&parts), expected, Exactly);
    }
    let mut flipped = x.clone();
    flipped.invert_axis(Axis(1));
    t.check(std::slice::from_ref(&x), |v| v[0].flip(&[1]), flipped.as_standard_layout().into_owned(), Exactly);
}

pub(crate) fn splits(t: &mut Try) {
    let x = quarters(&[2, 6], 4);
    for part in 0..3 {
        let expected = x.slice_axis(Axis(1), Slice::from(2 * part..2 * part + 2)).as_standard_layout().into_owned();
        t.check(std::slice::from_ref(&x), |v| Ok(v[0].split(3, 1)?[part as usize].clone()), expected, Exactly);
    }
}

pub(crate) fn stacks(t: &mut Try) {
    let (x, y) = (quarters(&[2, 3], 4), quarters(&[2, 3], 5));
    for axis in 0..3 {
        let expected = stack(Axis(axis as usize), &[x.view(), y.view()]).unwrap().as_standard_layout().into_owned();
        t.check(&[x.clone(), y.clone()], |v| Tensor::stack(&[&v[0], &v[1]], axis), expected, Exactly);
    }
}

pub(crate) fn concatenations(t: &mut Try) {
    let (x, y) = (quarters(&[2, 3], 4), quarters(&[2, 1], 5));
    let expected = concatenate(Axis(1), &[x.view(), y.view()]).unwrap().as_standard_layout().into_owned();
    t.check(&[x.clone(), y], |v| Tensor::concat(&[&v[0], &v[1]], 1), expected, Exactly);
    let z = quarters(&[1, 3], 6);
    let expected = concatenate(Axis(0), &[x.view(), z.view()]).unwrap().as_standard_layout().into_owned();
    t.check(&[x, z], |v| Tensor::concat(&[&v[0], &v[1]], 0), expected, Exactly);
}

pub(crate) fn paddings(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    let mut expected = Values::zeros(vec![3, 6]);
    expected.slice_axis_mut(Axis(0), Slice::from(1..)).slice_axis_mut(Axis(1), Slice::from(2..5)).assign(&x);
    t.check(&[x], |v| v[0].pad(&[[1, 0], [2, 1]]), expected, Exactly);
}

pub(crate) fn zeros(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    let zero = Values::zeros(vec![2, 3]);
    t.check(&[x.clone(), zero.clone()], |v| &v[0] + &v[1], x.clone(), Exactly);
    t.check(&[x, zero.clone()], |v| &v[0] * &v[1], zero, Exactly);
}

pub(crate) fn spaces_to_batch(t: &mut Try) {
    // TensorFlow's example: [1, 4, 4, 1] in blocks of 2 × 2, and another padded to it.
    let x = Values::from_shape_fn(vec![1, 4, 4, 1], |at| (at[1] * 4 + at[2]) as f64);
    let expected =
        Values::from_shape_fn(vec![4, 2, 2, 1], |at| ((at[1] * 2 + at[0] / 2) * 4 + at[2] * 2 + at[0] % 2) as f64);
    t.check(std::slice::from_ref(&x), |v| v[0].space_to_batch(&[2, 2], &[[0, 0], [0, 0]]), expected, Exactly);
    let x = quarters(&[1, 3, 2, 2], 3);
    let expected = Values::from_shape_fn(vec![4, 2, 1, 2], |at| {
        let (row, column) = (at[1] * 2 + at[0] / 2, at[2] * 2 + at[0] % 2);
        row.checked_sub(1).map_or(0.0, |row| x[[0, row, column, at[3]].as_slice()])
    });
    t.check(std::slice::from_ref(&x), |v| v[0].space_to_batch(&[2, 2], &[[1, 0], [0, 0]]), expected, Exactly);
}

pub(crate) fn batches_to_space(t: &mut Try) {
    let x = quarters(&[4, 2, 1, 2], 3);
    let expected = Values::from_shape_fn(vec![1, 3, 2, 2], |at| {
        let (row, column) = (at[1] + 1, at[2]);
        x[[row % 2 * 2 + column % 2, row / 2, column / 2, at[3]].as_slice()]
    });
    t.check(std::slice::from_ref(&x), |v| v[0].batch_to_space(&[2, 2], &[[1, 0], [0, 0]]), expected, Exactly);
    let back =
        |v: &[Tensor]| v[0].batch_to_space(&[2, 2], &[[0, 0], [0, 0]])?.space_to_batch(&[2, 2], &[[0, 0], [0, 0]]);
    t.check(std::slice::from_ref(&x), back, x.clone(), Exactly);
}

pub(crate) fn gathers_and_tiles(t: &mut Try) {
    let x = quarters(&[2, 3], 4);
    t.check(std::slice::from_ref(&x), |v| v[0].gather(&[2, 0, 2, 1], 1), x.select(Axis(1), &[2, 0, 2, 1]), Exactly);
    let expected = Values::from_shape_fn(vec![4, 3], |at| x[[at[0] % 2, at[1]].as_slice()]);
    t.check(&[x], |v| v[0].tile(&[2, 1]), expected, Exactly);
}

// Windows.

pub(crate) fn average_pooling(t: &mut Try) {
    let x = quarters(&[2, 4, 5], 4);
    let plain = Pooling { window: [2, 2], strides: [2, 1], padding: Padding::Valid, layout: Layout::ChannelsFirst };
    t.check(std::slice::from_ref(&x), |v| v[0].avg_pool2d(plain), pooled(&x, [2, 2], [2, 1], [0; 4], mean), Exactly);
    // SAME: windows of 3 at 0, 2 of 4 rows, and at 0, 2, 4 of 5 columns; 1/9, 1/6, 1/4 are rounded, sums stay below 13.5.
    let same = Pooling { window: [3, 3], strides: [2, 2], padding: Padding::Same, layout: Layout::ChannelsFirst };
    let expected = pooled(&x, [3, 3], [2, 2], [0, 1, 1, 1], mean);
    t.check(std::slice::from_ref(&x), |v| v[0].avg_pool2d(same), expected, Ulps(6.75));
    let last = Pooling { layout: Layout::ChannelsLast, ..plain };
    let expected = permuted(&pooled(&x, [2, 2], [2, 1], [0; 4], mean), &[1, 2, 0]);
    t.check(&[permuted(&x, &[1, 2, 0])], |v| v[0].avg_pool2d(last), expected, Exactly);
}

pub(crate) fn max_pooling(t: &mut Try) {
    let x = quarters(&[2, 4, 5], 4);
    let plain = Pooling { window: [2, 2], strides: [2, 1], padding: Padding::Valid, layout: Layout::ChannelsFirst };
    t.check(std::slice::from_ref(&x), |v| v[0].max_pool2d(plain), pooled(&x, [2, 2], [2, 1], [0; 4], largest), Exactly);
    // What lies outside is not zero: all elements are negative.
    let below = &x - 4.0;
    let same = Pooling { window: [3, 3], strides: [2, 2], padding: Padding::Same, layout: Layout::ChannelsFirst };
    let expected = pooled(&below, [3, 3], [2, 2], [0, 1, 1, 1], largest);
    t.check(&[below], |v| v[0].max_pool2d(same), expected, Exactly);
}

// Activations.

/// Values over an interval, zero among them.
fn range(limit: f64) -> Values {
    array(&[9], &(-4..=4).map(|i| f64::from(i) * limit / 4.0).collect::<Vec<_>>())
}

pub(crate) fn sigmoids(t: &mut Try) {
    for limit in [1.0, 8.0] {
        let x = range(limit);
        t.check(std::slice::from_ref(&x), |v| v[0].sigmoid(), x.mapv(|x| 1.0 / (1.0 + (-x).exp())), Planned(1.0));
    }
}

pub(crate) fn relus(t: &mut Try) {
    for limit in [1.0, 8.0] {
        let x = range(limit);
        t.check(std::slice::from_ref(&x), |v| v[0].relu(), x.mapv(|x| x.max(0.0)), Planned(1.0));
    }
}

pub(crate) fn tanhs(t: &mut Try) {
    for limit in [1.0, 4.0] {
        let x = range(limit);
        t.check(std::slice::from_ref(&x), |v| v[0].tanh(), x.mapv(f64::tanh), Planned(1.0));
    }
}

pub(crate) fn functions(t: &mut Try) {
    let softplus = |x: f64| x.exp().ln_1p();
    let gelu = |x: f64| x / (1.0 + (-1.702 * x).exp());
    for limit in [1.0, 4.0] {
        let x = range(limit);
        // Straight beyond the points that it is given at.
        let straight = |x: f64| (x - 0.75).clamp(-0.5, 0.5) + x;
        for (reach, function) in [(4.0, &softplus as &dyn Fn(f64) -> f64), (4.0, &gelu), (2.0, &straight)] {
            let all = std::slice::from_ref(&x);
            t.check(all, |v| v[0].function([-reach, reach], function), x.mapv(function), Planned(2.0));
        }
    }
}

pub(crate) fn magnitudes(t: &mut Try) {
    let x = range(2.0);
    t.check(std::slice::from_ref(&x), |v| v[0].abs(), x.mapv(f64::abs), Planned(2.0));
}

// Bits and comparisons.

fn truth(x: &Values, of: impl Fn(f64) -> bool) -> Values {
    x.mapv(|x| f64::from(u8::from(of(x))))
}

/// What compares with one unit more, one less, and itself.
fn around(t: &Try) -> (Values, Values) {
    let ulp = 0.5f64.powi(t.numbers.fraction_bits as i32);
    (array(&[6], &[1.0, 1.0, 1.0, -0.5, 0.0, 3.0]), array(&[6], &[1.0, 1.0 + ulp, 1.0 - ulp, 0.5, -ulp, -3.0]))
}

pub(crate) fn bit_operations(t: &mut Try) {
    t.whole = true;
    let (x, y) = (array(&[4], &[0.0, 0.0, 1.0, 1.0]), array(&[4], &[0.0, 1.0, 0.0, 1.0]));
    let both = |f: fn(bool, bool) -> bool| {
        Values::from_shape_fn(vec![4], |at| f64::from(u8::from(f(x[at.clone()] == 1.0, y[at] == 1.0))))
    };
    t.check(std::slice::from_ref(&x), |v| v[0].not(), truth(&x, |x| x == 0.0), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].and(&v[1]), both(|x, y| x && y), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].or(&v[1]), both(|x, y| x || y), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].xor(&v[1]), both(|x, y| x != y), Exactly);
}

pub(crate) fn signs(t: &mut Try) {
    let ulp = 0.5f64.powi(t.numbers.fraction_bits as i32);
    let x = array(&[7], &[-3.0, -1.0, -ulp, 0.0, ulp, 1.0, 3.0]);
    t.check(std::slice::from_ref(&x), |v| v[0].msb(), truth(&x, |x| x < 0.0), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].negative(), truth(&x, |x| x < 0.0), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].non_negative(), truth(&x, |x| x >= 0.0), Exactly);
}

pub(crate) fn zero_tests(t: &mut Try) {
    let ulp = 0.5f64.powi(t.numbers.fraction_bits as i32);
    let x = array(&[5], &[-3.0, -ulp, 0.0, ulp, 1.0]);
    t.check(std::slice::from_ref(&x), |v| v[0].equal_zero(), truth(&x, |x| x == 0.0), Exactly);
}

pub(crate) fn equality(t: &mut Try) {
    let (x, y) = around(t);
    t.check(&[x.clone(), y.clone()], |v| v[0].equal(&v[1]), truth(&(&x - &y), |x| x == 0.0), Exactly);
}

pub(crate) fn comparisons(t: &mut Try) {
    let (x, y) = around(t);
    let difference = &x - &y;
    t.check(&[x.clone(), y.clone()], |v| v[0].less(&v[1]), truth(&difference, |x| x < 0.0), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].less_equal(&v[1]), truth(&difference, |x| x <= 0.0), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].greater(&v[1]), truth(&difference, |x| x > 0.0), Exactly);
    t.check(&[x.clone(), y], |v| v[0].greater_equal(&v[1]), truth(&difference, |x| x >= 0.0), Exactly);
    t.check(std::slice::from_ref(&x), |v| v[0].less(0.25), truth(&x, |x| x < 0.25), Exactly);
}

const INTEGERS: [f64; 7] = [-130.0, -2.0, -1.0, 0.0, 1.0, 2.0, 101.0];

pub(crate) fn lowest_bits(t: &mut Try) {
    t.whole = true;
    let x = array(&[7], &INTEGERS);
    t.check(std::slice::from_ref(&x), |v| v[0].lsb(), truth(&x, |x| x as i64 & 1 == 1), Exactly);
}

pub(crate) fn all_bits(t: &mut Try) {
    t.whole = true;
    let x = array(&[7], &INTEGERS);
    let count = t.numbers.ring_bits;
    let expected = Values::from_shape_fn(vec![count as usize, 7], |at| (INTEGERS[at[1]] as i64 >> at[0] & 1) as f64);
    t.check_in(Form::KINDS, &[x], |v| v[0].bits(count), expected, Exactly);
}

pub(crate) fn selections(t: &mut Try) {
    let (bit, x, y) = (array(&[4], &[0.0, 1.0, 1.0, 0.0]), quarters(&[4], 3), quarters(&[4], 7));
    let expected = Values::from_shape_fn(vec![4], |at| if bit[at.clone()] == 0.0 { x[at] } else { y[at] });
    t.check(&[bit, x, y], |v| v[0].select(&v[1], &v[2]), expected, Exactly);
}

pub(crate) fn larger_and_smaller(t: &mut Try) {
    let (x, y) = around(t);
    let of = |f: fn(f64, f64) -> f64| Values::from_shape_fn(vec![6], |at| f(x[at.clone()], y[at]));
    t.check(&[x.clone(), y.clone()], |v| v[0].maximum(&v[1]), of(f64::max), Exactly);
    t.check(&[x.clone(), y.clone()], |v| v[0].minimum(&v[1]), of(f64::min), Exactly);
}

pub(crate) fn maxima(t: &mut Try) {
    let x = quarters(&[3, 5], 4);
    for axis in 0..2 {
        let expected = x.fold_axis(Axis(axis), f64::NEG_INFINITY, |a, b| a.max(*b));
        t.check(std::slice::from_ref(&x), |v| v[0].reduce_max(axis as u32), expected, Exactly);
    }
}

pub(crate) fn argmaxima(t: &mut Try) {
    // Ties go to the lowest index.
    let x = array(&[3, 5], &[1.0, 2.0, 0.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0, 5.0, -1.0, -3.0, -2.0, -1.0, -1.0]);
    t.check(std::slice::from_ref(&x), |v| v[0].argmax(1), array(&[3], &[1.0, 0.0, 0.0]), Exactly);
    t.check(&[x], |v| v[0].argmax(0), array(&[5], &[1.0; 5]), Exactly);
}
