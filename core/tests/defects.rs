//! What TF Encrypted 0.4 got wrong, each with the test that would have caught it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

mod lab;

use std::collections::BTreeSet;

use lab::{Bench, Form, Has, NARROW, Try, WIDE, Within, array, quarters};
use ndarray::{ArrayD, arr1};
use selkie::graph::{Along, Bounds, Convolution, Graph, Layout, Padding, Pooling, Tensor};
use selkie::program::Numbers;
use selkie::{GraphError, Protocol, Role, Session};

/// One query, and every frame that the parties sent each other.
fn frames(bench: &Bench, inputs: &[&[f32]], protocol: Protocol) -> (Session, Vec<Vec<f32>>, Vec<Sent>) {
    let mut session = bench.session(protocol, WIDE).unwrap();
    let mut frames = vec![];
    let mut tap = |from, to, frame: &selkie::wire::Frame| frames.push((from, to, frame.payload.to_vec()));
    let (outputs, _) = session.run_rows(inputs, 1, &mut tap).unwrap();
    (session, outputs, frames)
}

/// The elements of a message in a ring of 64 bits.
fn words(payload: &[u8]) -> Vec<u64> {
    assert_eq!(payload.len() % 8, 0);
    payload.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
}

fn flat(values: &ArrayD<f64>) -> Vec<f32> {
    values.iter().map(|x| *x as f32).collect()
}

/// A frame's payload, from whom and to whom.
type Sent = (Role, Role, Vec<u8>);

type Build = fn(&Tensor, &Tensor) -> Result<Tensor, GraphError>;

/// Every product, as (left, right) shapes and how it is written.
const PRODUCTS: [(&str, &[usize], &[usize], Build); 3] = [
    ("mul", &[2, 3], &[2, 3], |x, y| x.mul(y)),
    ("matmul", &[2, 3], &[3, 2], |x, y| x.matmul(y)),
    ("conv2d", &[1, 4, 4], &[2, 1, 3, 3], |x, y| x.conv2d(y, Convolution::default())),
];

// pond.py, _matmul_private_public: server1's share of the product is computed on server0, from server1's share.

#[test]
fn products_with_public_operands_send_nothing() {
    for protocol in Protocol::ALL {
        for (name, left, right, build) in PRODUCTS {
            for (a, b) in [
                (Form::PrivateInput, Form::PublicVariable),
                (Form::PublicVariable, Form::PrivateInput),
                (Form::PrivateVariable, Form::PublicVariable),
                (Form::PublicVariable, Form::PrivateVariable),
                (Form::PrivateVariable, Form::Constant),
                (Form::Constant, Form::PrivateInput),
            ] {
                let mut bench = Bench::default();
                let (x, y) = (quarters(left, 1), quarters(right, 2));
                let (tx, ty) = (bench.tensor(a, &x, false), bench.tensor(b, &y, false));
                bench.output(&build(&tx, &ty).unwrap());
                let fed: Vec<Vec<f32>> = [(a, &x), (b, &y)]
                    .into_iter()
                    .filter(|(form, _)| *form == Form::PrivateInput)
                    .map(|(_, values)| flat(values))
                    .collect();
                let fed: Vec<&[f32]> = fed.iter().map(Vec::as_slice).collect();
                let (session, _, sent) = frames(&bench, &fed, *protocol);
                let cost = session.plan().cost(1);
                assert!(sent.is_empty(), "{protocol}: {name} of {a:?} and {b:?} sends {} frames", sent.len());
                assert_eq!((cost.online_bytes, cost.offline_bytes, cost.setup_bytes), (0, 0, 0), "{protocol}: {name}");
            }
        }
    }
}

#[test]
fn no_product_puts_both_shares_at_one_server() {
    for protocol in Protocol::ALL {
        for (name, left, right, build) in PRODUCTS {
            // Variables, whose shares can be looked at; something is added, so that they are opened in the query as they are.
            let mut bench = Bench::default();
            let (x, y) = (quarters(left, 1), quarters(right, 2));
            let tx = bench.tensor(Form::PrivateVariable, &x, false);
            let ty = bench.tensor(Form::PrivateVariable, &y, false);
            let (sx, sy) = (tx.add(0.0).unwrap(), ty.add(0.0).unwrap());
            bench.output(&build(&sx, &sy).unwrap());
            bench.output(&sx);
            let (session, outputs, sent) = frames(&bench, &[], *protocol);
            assert_eq!(outputs[1], flat(&x));
            let mut shares = BTreeSet::new();
            for variable in ["x1", "x2"] {
                shares.extend(session.shares_of(variable).unwrap().concat());
            }
            let secret: BTreeSet<u64> = x.iter().chain(&y).map(|v| (v * 65536.0) as i64 as u64).collect();
            let mut opened = 0;
            for (from, to, payload) in sent {
                for word in words(&payload) {
                    opened += 1;
                    assert!(!shares.contains(&word), "{protocol}: {name}: {from} sends {to} a share");
                    assert!(!secret.contains(&word), "{protocol}: {name}: {from} sends {to} an element");
                }
            }
            // Both operands, in both directions, once.
            assert_eq!(opened, 2 * (x.len() + y.len()), "{protocol}: {name}");
        }
    }
}

// crt.py: one seed for all components of a tensor.

#[test]
fn no_two_tensors_have_the_same_randomness() {
    for protocol in Protocol::ALL {
        let mut bench = Bench::default();
        let ones = array(&[32], &[1.0; 32]);
        let fed: Vec<Tensor> = (0..4).map(|_| bench.tensor(Form::PrivateInput, &ones, false)).collect();
        let kept: Vec<Tensor> = (0..4).map(|_| bench.tensor(Form::PrivateVariable, &ones, false)).collect();
        for (x, w) in fed.iter().zip(&kept) {
            bench.output(&x.mul(w).unwrap());
            bench.output(&x.square().unwrap());
        }
        let inputs = [flat(&ones), flat(&ones), flat(&ones), flat(&ones)];
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mut session = bench.session(*protocol, WIDE).unwrap();
        let (mut seen, mut count) = (BTreeSet::new(), 0);
        for name in ["x5", "x6", "x7", "x8"] {
            for word in session.shares_of(name).unwrap().concat() {
                seen.insert(word);
                count += 1;
            }
        }
        // The same inputs three times over: nothing that is sent is ever sent again, and no two openings are the same, though
        // what is opened under a mask is always 1.
        for _ in 0..3 {
            let mut halves: [Vec<u64>; 2] = Default::default();
            session
                .run_rows(&inputs, 1, &mut |from, _, frame| match from {
                    Role::Server0 => halves[0].extend(words(&frame.payload)),
                    Role::Server1 => halves[1].extend(words(&frame.payload)),
                    Role::CryptoProducer => panic!("the crypto producer has nothing to say to a product"),
                })
                .unwrap();
            assert_eq!(halves[0].len(), halves[1].len());
            let opened = halves[0].iter().zip(&halves[1]).map(|(a, b)| a.wrapping_add(*b));
            for word in halves.iter().flatten().copied().chain(opened) {
                seen.insert(word);
                count += 1;
            }
        }
        assert!(count >= 2 * 4 * 32 + 3 * 3 * 4 * 32, "{protocol}: {count}");
        assert_eq!(seen.len(), count, "{protocol}: all of these are uniform in 64 bits, two are equal");
    }
}

// securenn.py: no ShareConvert, so signs of what is near zero come out wrong. What the producer sees of private compare, which
// the original neither permuted nor re-shared, is compared exactly in `gates::private_compare`.

#[test]
fn comparisons_are_exact_around_zero() {
    for protocol in Protocol::ALL.iter().filter(|protocol| protocol.compares()) {
        for numbers in [WIDE, NARROW, Numbers { ring_bits: 33, fraction_bits: 8 }] {
            let ulp = 0.5f64.powi(numbers.fraction_bits as i32);
            let values: Vec<f64> = (0..500).map(|i| f64::from(i % 5 - 2) * ulp).collect();
            let x = array(&[500], &values);
            let mut t = Try { protocol: *protocol, numbers, has: Has::Comparing, whole: false, checked: 0 };
            let bit = |of: fn(f64) -> bool| x.mapv(|x| f64::from(u8::from(of(x))));
            let forms = [Form::PrivateInput, Form::MaskedInput];
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].negative(), bit(|x| x < 0.0), Within::Exactly);
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].greater(0.0), bit(|x| x > 0.0), Within::Exactly);
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].equal_zero(), bit(|x| x == 0.0), Within::Exactly);
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].relu(), x.mapv(|x| x.max(0.0)), Within::Exactly);
            assert_eq!(t.checked, 8);
        }
    }
}

// pond.py, truncate: the bound was scaled twice, so that large products were cut off wrongly.

#[test]
fn truncation_is_right_up_to_the_bound() {
    for protocol in Protocol::ALL {
        for numbers in [WIDE, NARROW, Numbers { ring_bits: 48, fraction_bits: 12 }] {
            let Numbers { ring_bits, fraction_bits } = numbers;
            // x·y reaches just below 2^(k - 2) at 2f bits after the point: 2^(k - 2 - 2f).
            let room = ring_bits as i32 - 2 - 2 * fraction_bits as i32;
            let x = 2f64.powi(room / 2) - 0.5;
            let y = 2f64.powi(room - room / 2) - 0.5;
            let many = 64;
            let x = array(&[many], &(0..many).map(|i| if i % 2 == 0 { x } else { -x }).collect::<Vec<_>>());
            let y = array(&[many], &vec![y; many]);
            // Brought back to where f32 holds it exactly.
            let small = 0.5f64.powi(8);
            let z = array(&[many], &vec![small; many]);
            let mut t = Try { protocol: *protocol, numbers, has: Has::Every, whole: false, checked: 0 };
            let scaled = f64::from(1u32 << fraction_bits);
            let expected = &x * &y * &z;
            let f32_rounding = expected.iter().fold(0.0, |all: f64, x| all.max(x.abs())) * 2f64.powi(-24) * scaled;
            t.check(&[x, y, z], |v| v[0].mul(&v[1])?.mul(&v[2]), expected, Within::Ulps(small + f32_rounding));
            assert!(t.checked > 0);
        }
    }
}

#[test]
fn truncation_is_off_by_less_than_a_unit() {
    for protocol in Protocol::ALL {
        let mut t = Try { protocol: *protocol, numbers: WIDE, has: Has::Every, whole: false, checked: 0 };
        let ulp = 0.5f64.powi(16);
        let x = array(&[256], &(0..256).map(|i| f64::from(i * 97 - 12000) * ulp).collect::<Vec<_>>());
        let y = array(&[256], &(0..256).map(|i| f64::from(i * 31 + 5) * ulp).collect::<Vec<_>>());
        let one = array(&[256], &[1.0; 256]);
        t.check_in(
            Form::HIDDEN,
            &[x.clone(), y.clone()],
            |v| v[0].mul(&v[1])?.mul(&v[0].sub(&v[0])?.add(1.0)?),
            &x * &y * one,
            Within::Ulps(1.0),
        );
        assert!(t.checked > 0);
    }
}

// tensor.py: __rsub__ is self - other; 1.0 + x fails.

#[test]
fn numbers_may_stand_on_the_left() {
    let right = |t: &mut Try| {
        let x = quarters(&[5], 1);
        t.check(std::slice::from_ref(&x), |v| 1.0 - &v[0], x.mapv(|x| 1.0 - x), Within::Exactly);
        t.check(std::slice::from_ref(&x), |v| 1.0 + &v[0], x.mapv(|x| 1.0 + x), Within::Exactly);
        t.check(std::slice::from_ref(&x), |v| 2.0 * &v[0], x.mapv(|x| 2.0 * x), Within::Exactly);
    };
    Try::everywhere(Has::Every, right);
}

// pond.py: results are remembered under keys that leave out permutation, slice and axis.

#[test]
fn transposes_slices_and_stacks_of_one_tensor_are_not_confused() {
    let apart = |t: &mut Try| {
        let x = quarters(&[3, 3, 3], 1);
        // All in one graph: differences of what is arranged in one way and in another.
        let transposed = |axes: [usize; 3]| x.clone().permuted_axes(axes.as_slice()).as_standard_layout().into_owned();
        let expected = transposed([1, 0, 2]) - transposed([2, 0, 1]) * 2.0 + transposed([0, 2, 1]) * 4.0;
        let build = |v: &[Tensor]| {
            let (a, b, c) = (v[0].transpose(&[1, 0, 2])?, v[0].transpose(&[2, 0, 1])?, v[0].transpose(&[0, 2, 1])?);
            a.sub(&b.mul(2.0)?)?.add(&c.mul(4.0)?)
        };
        t.check(std::slice::from_ref(&x), build, expected, Within::Exactly);

        let x = quarters(&[4, 4], 2);
        let part = |begin: usize, step: usize| {
            array(
                &[2, 4],
                &(0..2)
                    .flat_map(|i| (0..4).map(move |j| (i, j)))
                    .map(|(i, j)| x[[begin + i * step, j].as_slice()])
                    .collect::<Vec<_>>(),
            )
        };
        let build = |v: &[Tensor]| {
            let even = v[0].slice(&[Along::from(0..4).step(2)])?;
            let odd = v[0].slice(&[Along::from(1..4).step(2)])?;
            even.sub(&odd.mul(2.0)?)?.add(&v[0].slice(&[(1..3).into()])?.mul(4.0)?)
        };
        t.check(std::slice::from_ref(&x), build, part(0, 2) - part(1, 2) * 2.0 + part(1, 1) * 4.0, Within::Exactly);

        let x = quarters(&[2, 2], 3);
        let stacked = |axis: usize| {
            ndarray::stack(ndarray::Axis(axis), &[x.view(), (&x * 2.0).view()])
                .unwrap()
                .as_standard_layout()
                .into_owned()
        };
        let build = |v: &[Tensor]| {
            let y = v[0].mul(2.0)?;
            let along = |axis| Tensor::stack(&[&v[0], &y], axis);
            along(0)?.sub(&along(1)?.mul(2.0)?)?.add(&along(2)?.mul(4.0)?)
        };
        t.check(std::slice::from_ref(&x), build, stacked(0) - stacked(1) * 2.0 + stacked(2) * 4.0, Within::Exactly);
    };
    Try::everywhere(Has::Every, apart);
}

// pond.py: strided_slice of a masked tensor mixes up its arguments, squeeze drops its axis, pad fails.

#[test]
fn masked_tensors_are_sliced_squeezed_and_padded() {
    let masked = |t: &mut Try| {
        let x = quarters(&[1, 4, 1, 3], 1);
        let row = |i: usize| (0..3).map(move |j| (i, j));
        let cut: Vec<f64> = row(3).chain(row(1)).map(|(i, j)| x[[0, i, 0, j].as_slice()]).collect();
        let build = |v: &[Tensor]| v[0].slice(&[(..).into(), Along::default().step(-2)])?.squeeze(&[2])?.square();
        let expected = array(&[1, 2, 3], &cut.iter().map(|x| x * x).collect::<Vec<_>>());
        t.check_in(Form::MASKED, std::slice::from_ref(&x), build, expected, Within::Exactly);
        let x = quarters(&[2], 1);
        let expected = array(&[4], &[0.0, x[[0].as_slice()].powi(2), x[[1].as_slice()].powi(2), 0.0]);
        t.check_in(Form::MASKED, &[x], |v| v[0].pad(&[[1, 1]])?.square(), expected, Within::Exactly);
    };
    Try::everywhere(Has::Every, masked);
}

// securenn.py: relu and comparisons of a masked tensor fail, and its max-pooling is broken.

#[test]
fn masked_tensors_are_compared_and_pooled() {
    let masked = |t: &mut Try| {
        let x = quarters(&[1, 4, 4], 1);
        t.check_in(
            Form::MASKED,
            std::slice::from_ref(&x),
            |v| v[0].less(0.25),
            x.mapv(|x| f64::from(u8::from(x < 0.25))),
            Within::Exactly,
        );
        let expected = array(
            &[1, 2, 2],
            &[(0, 0), (0, 2), (2, 0), (2, 2)].map(|(i, j)| {
                [(0, 0), (0, 1), (1, 0), (1, 1)]
                    .map(|(a, b)| x[[0, i + a, j + b].as_slice()])
                    .into_iter()
                    .fold(f64::MIN, f64::max)
            }),
        );
        t.check_in(
            Form::MASKED,
            std::slice::from_ref(&x),
            |v| v[0].max_pool2d(Pooling::of([2, 2])),
            expected,
            Within::Exactly,
        );
        // A product beside it: the mask that was made for one serves the other.
        let build = |v: &[Tensor]| v[0].square()?.add(&v[0].max_pool2d(Pooling::of([4, 4]))?);
        let largest = x.iter().copied().fold(f64::MIN, f64::max);
        t.check_in(Form::MASKED, std::slice::from_ref(&x), build, x.mapv(|x| x * x + largest), Within::Exactly);
    };
    Try::everywhere(Has::Comparing, masked);
    Try::everywhere(Has::Every, |t| {
        let x = quarters(&[1, 4, 4], 1);
        t.check_in(
            Form::MASKED,
            std::slice::from_ref(&x),
            |v| v[0].relu(),
            x.mapv(|x| x.max(0.0)),
            Within::Planned(1.0),
        );
    });
}

// pond.py, conv2d: NotImplementedError for every mix with a public operand but one.

#[test]
fn convolutions_take_every_mix() {
    let mixes = |t: &mut Try| {
        let (x, one) = (quarters(&[1, 2, 2], 1), array(&[1, 1, 1, 1], &[2.0]));
        t.check(&[x.clone(), one], |v| v[0].conv2d(&v[1], Convolution::default()), &x * 2.0, Within::Exactly);
        assert_eq!(t.checked, Form::ALL.len() * Form::ALL.len());
    };
    Try::everywhere(Has::Every, mixes);
}

// pond.py, avgpool2d: SAME divides by the full window, and strides[0] serves both directions.

#[test]
fn average_pooling_counts_as_tensorflow_does() {
    let pools = |t: &mut Try| {
        // TensorFlow: tf.nn.avg_pool2d of ones is ones, whatever the padding.
        let ones = array(&[1, 3, 5], &[1.0; 15]);
        let how = Pooling { window: [2, 2], strides: [2, 1], padding: Padding::Same, layout: Layout::ChannelsFirst };
        t.check(&[ones], |v| v[0].avg_pool2d(how), array(&[1, 2, 5], &[1.0; 10]), Within::Exactly);
        let x = array(&[1, 1, 3], &[1.0, 2.0, 4.0]);
        let how = Pooling { window: [1, 2], strides: [1, 2], padding: Padding::Same, layout: Layout::ChannelsFirst };
        t.check(&[x], |v| v[0].avg_pool2d(how), array(&[1, 1, 2], &[1.5, 4.0]), Within::Exactly);
    };
    Try::everywhere(Has::Every, pools);
}

// pond.py: the coefficients of sigmoid and relu that matter furthest out are zero in its own fixed point.

#[test]
fn activations_keep_the_error_that_the_plan_says_over_the_whole_bound() {
    for limit in [4.0, 12.0] {
        for protocol in Protocol::ALL {
            let mut t = Try { protocol: *protocol, numbers: WIDE, has: Has::Every, whole: false, checked: 0 };
            let x = array(&[129], &(-64..=64).map(|i| f64::from(i) / 64.0 * limit).collect::<Vec<_>>());
            let forms = [Form::PrivateInput];
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].relu(), x.mapv(|x| x.max(0.0)), Within::Planned(1.0));
            let sigmoid = x.mapv(|x| 1.0 / (1.0 + (-x).exp()));
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].sigmoid(), sigmoid, Within::Planned(1.0));
            t.check_in(&forms, std::slice::from_ref(&x), |v| v[0].tanh(), x.mapv(f64::tanh), Within::Planned(1.0));
            // And that error is small: the original's relu was off by 0.44 at zero, and by 15 at -10.
            let mut bench = Bench::default();
            let y = bench.tensor(Form::PrivateInput, &x, false);
            for y in [y.relu(), y.sigmoid(), y.tanh()] {
                bench.output(&y.unwrap());
            }
            for layer in bench.session(*protocol, WIDE).unwrap().plan().layers(1) {
                // The fitted bound is up to a quarter larger than the limit.
                // A tanh that is steep on its bound wants a high degree, whose roundings add up; the original's was off by 1.6 at 4.
                let most = match layer.op.as_str() {
                    "relu" => 1.25 * limit / 64.0,
                    "tanh" if limit > 4.0 => 1.0 / 12.0,
                    _ => 1.0 / 64.0,
                };
                assert!(layer.error_bound <= most, "{protocol}: {} is off by {}", layer.op, layer.error_bound);
            }
        }
    }
}

// layers: Dense says [batch, in, batch, out] instead of [batch, out]; a convolution's shape ignores its padding.

#[test]
fn shapes_of_products_are_those_of_their_results() {
    for protocol in Protocol::ALL {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[1, 8, 7], [0.0, 1.0]).unwrap();
        let filters = graph.private_variable("owner", "f", &[3, 1, 3, 2]).unwrap();
        let how = Convolution { strides: [2, 3], padding: Padding::Same, ..Convolution::default() };
        let y = x.conv2d(&filters, how).unwrap();
        assert_eq!(y.shape(), [3, 4, 3]);
        let w = graph.private_variable("owner", "w", &[36, 5]).unwrap();
        let z = y.flatten().unwrap().matmul(&w).unwrap();
        assert_eq!(z.shape(), [5]);
        graph.output("client", &y).unwrap();
        graph.output("client", &z).unwrap();
        let program = graph.compile(WIDE, Bounds::Declared(8)).unwrap();
        let mut weights = graph.weights();
        for (name, shape) in [("f", vec![3u32, 1, 3, 2]), ("w", vec![36, 5])] {
            let values = vec![0.5; shape.iter().product::<u32>() as usize];
            weights.0.insert(name.into(), selkie::program::Tensor { shape, values });
        }
        let mut session = Session::local(&program, &weights, *protocol, [1; 32]).unwrap();
        for batch in [1, 4] {
            let x = ArrayD::<f32>::ones(vec![batch, 1, 8, 7]);
            let run = session.run(&[("x", x.view())]).unwrap();
            assert_eq!(run.outputs[0].1.shape(), [batch, 3, 4, 3]);
            assert_eq!(run.outputs[1].1.shape(), [batch, 5]);
        }
    }
}

// Ours: an output that needed no round left before an earlier one that did, and each player received the other's.

#[test]
fn every_player_receives_what_it_was_granted() {
    for protocol in Protocol::ALL {
        let graph = Graph::new();
        let x = graph.private_input("client", "x", &[2], [-4.0, 4.0]).unwrap();
        let square = x.square().unwrap();
        graph.output("late", &square.mul(&square).unwrap()).unwrap();
        graph.output("early", &x).unwrap();
        graph.output("between", &square).unwrap();
        graph.output("public", &graph.number(7.0).unwrap()).unwrap();
        let program = graph.compile(WIDE, Bounds::Declared(10)).unwrap();
        let mut session = Session::local(&program, &graph.weights(), *protocol, [1; 32]).unwrap();
        let run = session.run(&[("x", arr1(&[2.0f32, -1.5]).view().into_dyn())]).unwrap();
        let received = |player| run.output(player).unwrap().into_raw_vec_and_offset().0;
        assert_eq!(received("early"), [2.0, -1.5]);
        assert_eq!(received("between"), [4.0, 2.25]);
        assert_eq!(received("public"), [7.0]);
        assert!(received("late").iter().zip([16.0, 5.0625]).all(|(x, y)| (x - y).abs() < 1e-3));
    }
}
