//! Whole programs in lock step with integers: every operation's result, put together from both servers' registers, is what
//! the operation makes of its operands' integers. After a truncation it goes on from the private value, which must be the
//! floor or one more; everything else must be equal, and approximations within the error that the plan says.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::rig::{Keep, exchange};
use crate::client::ClientSpec;
use crate::compare::hash::HashKind;
use crate::fixed::{encode, power_of_two};
use crate::gates::weights;
use crate::party::driver::{Driver, Stage};
use crate::party::producer::{Producer, draw_masks};
use crate::party::server::{Server, Variable};
use crate::party::{Binding, input_share};
use crate::plan::{Plan, Wire};
use crate::program::{NOWHERE, Node, Op, Program, Weights};
use crate::protocol::lowering::{Held, Trace, Value};
use crate::ring::{Lane, Ring};
use crate::role::{S0, S1};
use crate::snapshot::SharedVariables;
use crate::stock::Epoch;
use crate::stream::{Seed, Seeds};
use crate::{Objective, Protocol, Role, Variant};

/// Runs `program` on `inputs` (one vector for each, `batch` rows) and checks every operation; `why` names the program.
/// Returns, for each approximated operation, the largest part of its error bound that an element's error took.
pub(crate) fn check(
    program: &Program,
    (protocol, variant): (Protocol, Variant),
    weights: &Weights,
    inputs: &[Vec<f32>],
    batch: usize,
    why: &str,
) -> Vec<f64> {
    if program.numbers().ring_bits <= 32 {
        Run::<u32>::new(program, (protocol, variant), weights, inputs, batch).check(why)
    } else {
        Run::<u64>::new(program, (protocol, variant), weights, inputs, batch).check(why)
    }
}

type AtServer<S, L> = Server<S, L, Seeds>;

struct Run<'a, L: Lane> {
    program: &'a Program,
    protocol: Protocol,
    plan: Arc<Plan>,
    trace: Trace,
    weights: &'a Weights,
    inputs: &'a [Vec<f32>],
    ring: Ring<L>,
    batch: usize,
    server0: AtServer<S0, L>,
    server1: AtServer<S1, L>,
}

impl<'a, L: Lane> Run<'a, L> {
    fn new(
        program: &'a Program,
        (protocol, variant): (Protocol, Variant),
        weights: &'a Weights,
        inputs: &'a [Vec<f32>],
        batch: usize,
    ) -> Self {
        let (plan, trace) = protocol.trace(program, variant).unwrap();
        let plan = Arc::new(plan);
        let ring = Ring::<L>::new(program.numbers().ring_bits).unwrap();
        let epoch = Epoch::new([&[1; 32], &[2; 32], &[3; 32]]);
        let seed = |n| Seed::new([n; 32]);
        let seeds = [
            Seeds::server0(seed(1), seed(2)),
            Seeds::server1(seed(1), seed(3)),
            Seeds::crypto_producer(seed(2), seed(3)),
        ];
        let binding = |role: Role| Binding::new(role, Arc::clone(&plan), 1, epoch, &seeds[role as usize]);
        let at = |role: Role, units| binding(role).context::<L>(units).unwrap();
        let units = 0..batch as u64;

        // The weights are opened.
        let shares = SharedVariables::share(program, &plan, 1, weights, [9; 32]).unwrap();
        let plain = |shares: &SharedVariables| -> Vec<Variable<L>> {
            let all = shares.expand::<L>(&plan).unwrap().into_iter().zip(&plan.variables);
            all.map(|(v, p)| if p.public { Variable::Public(Arc::new(v)) } else { Variable::Plain(Arc::new(v)) })
                .collect()
        };
        let mut setup0 = Driver::new(
            Server::<S0, L, Seeds>::for_setup(at(Role::Server0, 0..1), plain(&shares[0])),
            Arc::clone(&plan),
            Stage::Setup,
            1,
        );
        let mut setup1 = Driver::new(
            Server::<S1, L, Seeds>::for_setup(at(Role::Server1, 0..1), plain(&shares[1])),
            Arc::clone(&plan),
            Stage::Setup,
            1,
        );
        let mut views = Default::default();
        exchange(&mut views, &mut [(Role::Server0, &mut setup0), (Role::Server1, &mut setup1)]);
        let opened = |mut variables: Vec<Variable<L>>, opened: Vec<(u32, Variable<L>)>| {
            for (index, variable) in opened {
                variables[index as usize] = variable;
            }
            variables
        };
        let variables0 = opened(plain(&shares[0]), setup0.actor.opened.clone());
        let variables1 = opened(plain(&shares[1]), setup1.actor.opened.clone());

        // Material is dealt, inputs are sent.
        let masks = draw_masks(&at(Role::CryptoProducer, 0..0), weights::B).unwrap();
        let mut dealing = Producer::new(at(Role::CryptoProducer, units.clone()), Arc::clone(&masks));
        let words = crate::deal::deal(&mut dealing, Role::Server0).unwrap();
        let material = crate::deal::deal(&mut dealing, Role::Server1).unwrap();
        let spec = ClientSpec::new(program, &plan);
        let rows: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let handed = [Role::Server0, Role::Server1].map(|role| binding(role).input_masks(units.clone()).unwrap());
        let sent = spec.share_under(&rows, batch, [8; 32], [&handed[0], &handed[1]]).unwrap();
        let given0 =
            sent.server0.iter().zip(&plan.inputs).map(|(b, p)| input_share::<S0, L>(ring, p, batch, b).unwrap());
        let given1 =
            sent.server1.iter().zip(&plan.inputs).map(|(b, p)| input_share::<S1, L>(ring, p, batch, b).unwrap());
        let offline: usize = words.iter().chain(&material).map(Vec::len).sum();

        let server0 = Server::new(at(Role::Server0, units.clone()), variables0, given0.collect(), words).unwrap();
        let server1 = Server::new(at(Role::Server1, units.clone()), variables1, given1.collect(), material).unwrap();
        let producer = Producer::new(at(Role::CryptoProducer, units), masks);
        let mut server0 = Driver::new(Keep(server0), Arc::clone(&plan), Stage::Query, batch);
        let mut server1 = Driver::new(Keep(server1), Arc::clone(&plan), Stage::Query, batch);
        let mut producer = Driver::new(Keep(producer), Arc::clone(&plan), Stage::Query, batch);
        exchange(
            &mut views,
            &mut [(Role::Server0, &mut server0), (Role::Server1, &mut server1), (Role::CryptoProducer, &mut producer)],
        );
        let sent = [&server0.measured, &server1.measured, &producer.measured];
        let online: u64 = sent.iter().flat_map(|measured| measured.sent.values()).sum();
        let levels = sent.iter().flat_map(|measured| measured.levels.iter()).max().copied().unwrap_or(0);
        let cost = plan.cost(batch);
        assert_eq!((cost.online_bytes, cost.offline_bytes, cost.rounds), (online, offline as u64, levels), "planned");
        Self {
            program,
            protocol,
            plan: Arc::clone(&plan),
            trace,
            weights,
            inputs,
            ring,
            batch,
            server0: server0.actor.0,
            server1: server1.actor.0,
        }
    }

    fn wire(&self, wire: u32) -> Option<Vec<i64>> {
        let (zero, one) = (self.server0.words_of(wire).ok()?, self.server1.words_of(wire).ok()?);
        Some(zero.iter().zip(one).map(|(a, b)| self.ring.signed(self.ring.add(*a, *b))).collect())
    }

    /// The integers of a value, a row for each sample; `None` if nobody needed it.
    fn integers(&self, value: &Value) -> Option<Vec<i64>> {
        match &value.held {
            Held::Constant(values) => {
                let row = values.iter().map(|x| libm::rint(x * power_of_two(value.fraction as i32)) as i64);
                Some(row.collect::<Vec<_>>().repeat(self.batch))
            }
            Held::Private(wire) => self.wire(wire.id()),
            Held::Public(wire) => {
                let words = self.server0.words_of(wire.id()).ok()?;
                assert_eq!(
                    words,
                    self.server1.words_of(wire.id()).unwrap(),
                    "what is public is the same at both servers"
                );
                Some(words.iter().map(|x| self.ring.signed(*x)).collect())
            }
            Held::Masked(masked) => {
                let hat = self.server0.words_of(masked.hat.id()).ok()?;
                let mask = self.wire(Wire::<crate::plan::Mask>::id(&masked.mask))?;
                let sum = hat.iter().zip(mask).map(|(hat, a)| self.ring.add(*hat, self.ring.element(a as u64)));
                Some(sum.map(|x| self.ring.signed(x)).collect())
            }
            Held::Variable { index, places } => {
                let (_, node) = self.program.variables().nth(*index as usize).unwrap();
                let values = &self.weights.of(node).unwrap().values;
                let one = |x: &f32| {
                    let fraction = self.plan.variables[*index as usize].fraction_bits;
                    self.ring.signed(encode(self.ring, fraction, f64::INFINITY, f64::from(*x)).unwrap())
                };
                let all: Vec<i64> = values.iter().map(one).collect();
                let row = match places {
                    Some(places) => places.iter().map(|p| if *p == NOWHERE { 0 } else { all[*p as usize] }).collect(),
                    None => all,
                };
                Some(row.repeat(self.batch))
            }
        }
    }

    /// A node's integers: where its value was never made, because what follows was made of it at once, what its operation
    /// makes of its operand.
    fn integers_of(&self, id: u32) -> Option<Vec<i64>> {
        let (value, node) = (&self.trace.values[id as usize], &self.program.nodes()[id as usize]);
        if let Some(found) = self.integers(value) {
            return Some(found);
        }
        let (Op::Max { x } | Op::Arrange { x, .. }) = node.op else { return None };
        let before = match self.trace.used.get(&id).and_then(|used| used.first()) {
            Some(used) => self.integers(used)?,
            None => self.integers_of(x)?,
        };
        let ideal = self.ideal(node, &[&self.program.nodes()[x as usize]], &[before], value.fraction);
        Some(ideal.into_iter().map(|x| self.ring.signed(self.ring.element(x as u64))).collect())
    }

    fn fraction(&self, value: &Value) -> u32 {
        match value.held {
            Held::Variable { index, .. } => self.plan.variables[index as usize].fraction_bits,
            _ => value.fraction,
        }
    }

    fn check(&self, why: &str) -> Vec<f64> {
        let mut taken = Vec::new();
        let nodes = self.program.nodes();
        let mut inputs = self.inputs.iter();
        for (id, node) in (0u32..).zip(nodes) {
            let result = &self.trace.values[id as usize];
            let place = format!("{why}\nnode {id}: {node:?} as {result:?}");
            if let Op::Input { whole, .. } = &node.op {
                let fraction = if *whole { 0 } else { self.program.numbers().fraction_bits };
                let [mean, deviation] = self.program.normalisation(id).unwrap_or([0.0, 1.0]);
                let one =
                    |x: &f32| libm::rint((f64::from(*x) - mean) / deviation * power_of_two(fraction as i32)) as i64;
                let expected: Vec<i64> = inputs.next().unwrap().iter().map(one).collect();
                if let Some(got) = self.integers(result) {
                    assert_eq!(got, expected, "{place}");
                }
                continue;
            }
            if matches!(node.op, Op::Variable { .. } | Op::Constant { .. } | Op::Output { .. } | Op::Assign { .. }) {
                continue;
            }
            let declared: Vec<&Value> = node.op.operands().iter().map(|id| &self.trace.values[*id as usize]).collect();
            let used = self.trace.used.get(&id);
            let used: Vec<&Value> = used.map_or_else(|| declared.clone(), |used| used.iter().collect());
            for ((id, declared), used) in node.op.operands().iter().zip(&declared).zip(&used) {
                self.check_scale(*id, declared, used, &place);
            }
            let operands = used.iter().zip(&declared).zip(node.op.operands());
            let integers: Option<Vec<Vec<i64>>> = operands
                .map(|((used, declared), id)| match used.fraction == declared.fraction {
                    true => self.integers(used).or_else(|| self.integers_of(id)),
                    false => self.integers(used),
                })
                .collect();
            let (Some(integers), Some(got)) = (integers, self.integers(result)) else { continue };
            let shapes: Vec<&Node> = node.op.operands().iter().map(|id| &nodes[*id as usize]).collect();
            let error = self.plan.layers[id as usize].error;
            let approximated = matches!(node.op, Op::Sigmoid { .. } | Op::Tanh { .. } | Op::Function { .. })
                || (self.protocol == Protocol::Pond && matches!(node.op, Op::Relu { .. }));
            if approximated && !matches!(result.held, Held::Public(_)) {
                let scale = power_of_two(-(self.fraction(used[0]) as i32));
                let mut most = 0.0f64;
                for (x, y) in integers[0].iter().zip(&got) {
                    let (x, y) = (*x as f64 * scale, *y as f64 * power_of_two(-(result.fraction as i32)));
                    let expected = match &node.op {
                        Op::Sigmoid { .. } => 1.0 / (1.0 + libm::exp(-x)),
                        Op::Tanh { .. } => libm::tanh(x),
                        Op::Function { samples, .. } => samples.at(x),
                        _ => x.max(0.0),
                    };
                    let off = (y - expected).abs();
                    // The plan speaks of operands within their bounds; what is approximated before may lead out of proved ones.
                    if x.abs() > shapes[0].bound.limit() {
                        continue;
                    }
                    assert!(off <= error, "{place}\n f({x}) = {expected}, not {y}: beyond {error}");
                    most = most.max(off / error);
                }
                taken.push(most);
                continue;
            }
            assert_eq!(error, 0.0, "{place}");
            // A ReLU may be truncated on its way.
            let by = self.fraction(used[0]).saturating_sub(self.fraction(result));
            if matches!(node.op, Op::Relu { .. }) && by > 0 {
                for (x, y) in integers[0].iter().zip(&got) {
                    let off = y - (x.max(&0) >> by);
                    assert!(off == 0 || (off == 1 && *x > 0), "{place}\nrelu({x}) is not {y}");
                }
                continue;
            }
            let ideal = self.ideal(node, &shapes, &integers, self.fraction(result));
            let reduced = ideal.into_iter().map(|x| self.ring.signed(self.ring.element(x as u64)));
            assert_eq!(got, reduced.collect::<Vec<_>>(), "{place}\nof {integers:?}");
        }
        taken
    }

    /// What was used is the declared value, truncated (up or down, if it is private) or raised to another scale.
    fn check_scale(&self, id: u32, declared: &Value, used: &Value, place: &str) {
        if matches!(declared.held, Held::Constant(_)) {
            return;
        }
        let (Some(before), Some(after)) = (self.integers_of(id), self.integers(used)) else { return };
        let (from, to) = (self.fraction(declared), self.fraction(used));
        for (before, after) in before.iter().zip(&after) {
            let right = if to >= from {
                before << (to - from) == *after
            } else {
                let off = after - (before >> (from - to));
                off == 0 || (off == 1 && !matches!(used.held, Held::Public(_)))
            };
            assert!(right, "{place}\n{before} at {from} became {after} at {to}");
        }
    }

    /// The operation on integers.
    fn ideal(&self, node: &Node, operands: &[&Node], values: &[Vec<i64>], fraction: u32) -> Vec<i128> {
        let wide = |x: &Vec<i64>| x.iter().map(|x| i128::from(*x)).collect::<Vec<_>>();
        let x = values.first().map(wide).unwrap_or_default();
        let y = values.get(1).map(wide).unwrap_or_default();
        let shape: Vec<usize> = operands[0].shape.iter().map(|n| *n as usize).collect();
        let sample: usize = shape.iter().product();
        let rows = || x.chunks(sample);
        // For every sample, every lane along an axis, put back in order.
        let lanes = |axis: usize, f: &dyn Fn(Vec<i128>) -> Vec<i128>| -> Vec<i128> {
            let array = |row: &[i128]| ndarray::ArrayD::from_shape_vec(shape.clone(), row.to_vec()).unwrap();
            rows()
                .flat_map(|row| {
                    let array = array(row);
                    let lanes: Vec<Vec<i128>> =
                        array.lanes(ndarray::Axis(axis)).into_iter().map(|l| f(l.to_vec())).collect();
                    let kept = lanes[0].len();
                    let mut other = shape.clone();
                    other.remove(axis);
                    other.push(kept);
                    let out = ndarray::ArrayD::from_shape_vec(other, lanes.concat()).unwrap();
                    let rank = shape.len();
                    let mut order: Vec<usize> = (0..rank - 1).collect();
                    order.insert(axis, rank - 1);
                    out.permuted_axes(order).iter().copied().collect::<Vec<_>>()
                })
                .collect()
        };
        let each = |f: &dyn Fn(i128) -> i128| x.iter().map(|x| f(*x)).collect::<Vec<_>>();
        let both = |f: &dyn Fn(i128, i128) -> i128| x.iter().zip(&y).map(|(x, y)| f(*x, *y)).collect::<Vec<_>>();
        let f = self.program.numbers().fraction_bits as i32;
        let scaled = |x: f64, bits: i32| libm::rint(x * power_of_two(bits)) as i128;
        match &node.op {
            Op::Arrange { how, .. } => {
                let places = how.places(&operands[0].shape);
                let pick = |row: &[i128], p: &u32| if *p == NOWHERE { 0 } else { row[*p as usize] };
                rows().flat_map(|row| places.iter().map(|p| pick(row, p)).collect::<Vec<_>>()).collect()
            }
            Op::Concat { axis, .. } => {
                let of = |sample: usize| {
                    let parts = operands.iter().zip(values).map(|(node, rows)| {
                        let n = node.elements();
                        let shape: Vec<usize> = node.shape.iter().map(|n| *n as usize).collect();
                        ndarray::ArrayD::from_shape_vec(shape, rows[sample * n..(sample + 1) * n].to_vec()).unwrap()
                    });
                    let parts: Vec<_> = parts.collect();
                    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
                    ndarray::concatenate(ndarray::Axis(*axis as usize), &views).unwrap()
                };
                (0..self.batch).flat_map(|i| of(i).iter().map(|x| i128::from(*x)).collect::<Vec<_>>()).collect()
            }
            Op::Add { .. } => both(&|x, y| x + y),
            Op::Sub { .. } => both(&|x, y| x - y),
            Op::Mul { .. } => both(&|x, y| x * y),
            Op::Square { .. } => each(&|x| x * x),
            Op::Sum { axis, .. } => lanes(*axis as usize, &|lane| vec![lane.iter().sum()]),
            Op::CumSum { axis, .. } => lanes(*axis as usize, &|lane| {
                lane.iter()
                    .scan(0, |sum, x| {
                        *sum += x;
                        Some(*sum)
                    })
                    .collect()
            }),
            Op::Normalise { x, .. } if self.program.normalisation(*x).is_some() => each(&|x| x),
            Op::Normalise { mean, deviation, .. } => {
                let factor = scaled(1.0 / deviation, f);
                each(&|x| x * factor + scaled(-mean, f) * factor)
            }
            Op::MatMul { .. } | Op::Conv2D { .. } => {
                let product = self.program.bilinear(self.id_of(node)).unwrap();
                let wrap = |x: &Vec<i64>| x.iter().map(|x| *x as u64).collect::<Vec<_>>();
                let out = product.product(&wrap(&values[0]), &wrap(&values[1]), self.batch);
                out.into_iter().map(|x| i128::from(x as i64)).collect()
            }
            Op::Reciprocal { least, .. } => {
                let unit = power_of_two(f);
                each(&|x| {
                    let x = x as f64 / unit;
                    scaled(1.0 / if *least > 0.0 { x.max(*least) } else { x.min(*least) }, f)
                })
            }
            Op::Negative { .. } => each(&|x| i128::from(x < 0)),
            Op::EqualZero { .. } => each(&|x| i128::from(x == 0)),
            Op::Bits { count, .. } => rows()
                .flat_map(|row| (0..*count).flat_map(|i| row.iter().map(move |x| x >> i & 1)).collect::<Vec<_>>())
                .collect(),
            Op::Relu { .. } => each(&|x| x.max(0)),
            Op::Sigmoid { .. } => each(&|x| scaled(1.0 / (1.0 + libm::exp(-(x as f64) * power_of_two(-f))), f)),
            Op::Tanh { .. } => each(&|x| scaled(libm::tanh(x as f64 * power_of_two(-f)), f)),
            Op::Function { samples, .. } => each(&|x| scaled(samples.at(x as f64 * power_of_two(-f)), f)),
            Op::Max { .. } => lanes(0, &|lane| vec![*lane.iter().max().unwrap()]),
            Op::ArgMax { .. } => lanes(0, &|lane| {
                let most = lane.iter().max().unwrap();
                vec![lane.iter().position(|x| x == most).unwrap() as i128]
            }),
            Op::Reveal { .. } | Op::Mask { .. } => {
                let _ = fraction;
                x
            }
            Op::Input { .. } | Op::Variable { .. } | Op::Constant { .. } | Op::Assign { .. } | Op::Output { .. } => {
                vec![]
            }
        }
    }

    fn id_of(&self, node: &Node) -> u32 {
        (0u32..).zip(self.program.nodes()).find(|(_, n)| core::ptr::eq(*n, node)).unwrap().0
    }
}

/// The networks that pond runs, with calibrated bounds: what the plan says of each activation's error holds for images that
/// calibration has not seen.
mod networks {
    use super::*;
    use crate::clear;
    use crate::graph::{Bounds, Convolution, Graph, Pooling, Tensor};
    use crate::program::Numbers;
    use chacha20::ChaCha8Rng;
    use chacha20::rand_core::{Rng, SeedableRng};
    use ndarray::ArrayD;

    const PIXELS: usize = 784;

    fn uniform(dice: &mut ChaCha8Rng) -> f32 {
        (dice.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Dark images with a bright patch each.
    fn images(count: usize, dice: &mut ChaCha8Rng) -> Vec<f32> {
        let mut image = || {
            let [top, left] = [dice.next_u32() as usize % 16, dice.next_u32() as usize % 16];
            let inside = |i: usize| (top..top + 12).contains(&(i / 28)) && (left..left + 12).contains(&(i % 28));
            (0..PIXELS).map(|i| if inside(i) { uniform(dice) } else { 0.0 }).collect::<Vec<_>>()
        };
        (0..count).flat_map(|_| image()).collect()
    }

    /// A variable with He's initial weights.
    fn variable(graph: &Graph, name: &str, shape: &[u32], inputs: u32, dice: &mut ChaCha8Rng) -> Tensor {
        let variable = graph.private_variable("owner", name, shape).unwrap();
        let limit = libm::sqrtf(6.0 / inputs as f32);
        let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        let values = (0..shape.iter().product()).map(|_| limit * (2.0 * uniform(dice) - 1.0)).collect();
        graph.initialise(&variable, ArrayD::from_shape_vec(shape, values).unwrap().view()).unwrap();
        variable
    }

    fn dense(graph: &Graph, x: &Tensor, outputs: u32, name: &str, dice: &mut ChaCha8Rng) -> Tensor {
        let inputs = x.shape()[0];
        x.matmul(&variable(graph, name, &[inputs, outputs], inputs, dice)).unwrap()
    }

    /// 784-128-128-10.
    fn a(graph: &Graph, dice: &mut ChaCha8Rng) {
        let x = graph.private_input("client", "image", &[PIXELS as u32], [0.0, 1.0]).unwrap();
        let x = dense(graph, &x, 128, "0", dice).relu().unwrap();
        let x = dense(graph, &x, 128, "1", dice).relu().unwrap();
        graph.output("client", &dense(graph, &x, 10, "2", dice)).unwrap();
    }

    /// Two convolutions of 16 filters, each averaged, 256-100-10.
    fn b_with_averages(graph: &Graph, dice: &mut ChaCha8Rng) {
        let mut x = graph.private_input("client", "image", &[1, 28, 28], [0.0, 1.0]).unwrap();
        for (name, channels) in [("0", 1), ("1", 16)] {
            let filters = variable(graph, name, &[16, channels, 5, 5], channels * 25, dice);
            x = x.conv2d(&filters, Convolution::default()).unwrap();
            x = x.avg_pool2d(Pooling::of([2, 2])).unwrap().relu().unwrap();
        }
        let x = dense(graph, &x.flatten().unwrap(), 100, "2", dice).relu().unwrap();
        graph.output("client", &dense(graph, &x, 10, "3", dice)).unwrap();
    }

    fn check_network(write: fn(&Graph, &mut ChaCha8Rng), activations: usize, numbers: Numbers) {
        const SEEN: usize = 60;
        let dice = &mut ChaCha8Rng::seed_from_u64(7);
        let graph = Graph::new();
        write(&graph, dice);
        let weights = graph.weights();
        let uncalibrated = graph.compile(numbers, Bounds::Declared(0)).unwrap();
        let mut largest = vec![0.0f64; uncalibrated.nodes().len()];
        clear::evaluate(&uncalibrated, &weights, &[&images(SEEN, dice)], SEEN, &mut |id, values| {
            let most = &mut largest[id as usize];
            *most = values.iter().fold(*most, |most, x| most.max(f64::from(x.abs())));
        })
        .unwrap();
        let bounds = Bounds::Calibrated { weights: &weights, largest: &largest, margin: 1.25 };
        let program = graph.compile(numbers, bounds).unwrap();
        for batch in [1, 4] {
            let why = format!("{activations} activations in {} bits", numbers.ring_bits);
            let taken =
                check(&program, (Protocol::Pond, Variant::default()), &weights, &[images(batch, dice)], batch, &why);
            assert_eq!(taken.len(), activations);
            // The bounds say something: errors come near them, less so where most of the bound is for roundings that
            // would all have to add up.
            let near = if numbers.fraction_bits < 16 { 0.05 } else { 0.2 };
            assert!(taken.iter().all(|part| *part > near), "{why}: {taken:?}");
        }
    }

    #[test]
    fn ponds_activations_keep_their_bound_in_dense_networks() {
        check_network(a, 2, Numbers::default());
        check_network(a, 2, Numbers { ring_bits: 32, fraction_bits: 10 });
    }

    #[test]
    fn ponds_activations_keep_their_bound_in_convolutional_networks() {
        check_network(b_with_averages, 3, Numbers::default());
        check_network(b_with_averages, 3, Numbers { ring_bits: 32, fraction_bits: 10 });
    }
}

mod random {
    use super::*;
    use crate::graph::{Along, Bounds, Convolution, Graph, Padding, Pooling, Tensor};
    use crate::program::{Numbers, Visibility};
    use chacha20::ChaCha8Rng;
    use chacha20::rand_core::{Rng, SeedableRng};
    use proptest::prelude::*;

    /// A graph under random construction.
    struct Writer {
        graph: Graph,
        dice: ChaCha8Rng,
        numbers: Numbers,
        compares: bool,
        tensors: Vec<Tensor>,
        history: Vec<&'static str>,
        /// Values stay below 2^bits.
        bits: i32,
    }

    impl Writer {
        fn below(&mut self, n: usize) -> usize {
            self.dice.next_u32() as usize % n
        }

        fn number(&mut self) -> f64 {
            (self.below(65) as f64 - 32.0) / 16.0
        }

        fn pick(&mut self) -> Tensor {
            // Later ones more often, so that programs become deep.
            let n = self.tensors.len();
            let at = self.below(n).max(self.below(n));
            self.tensors[at].clone()
        }

        fn with_rank(&mut self, rank: usize) -> Tensor {
            for _ in 0..8 {
                let x = self.pick();
                if x.shape().len() == rank {
                    return x;
                }
            }
            let x = self.pick();
            let n = x.shape().iter().product();
            let mut shape = vec![1; rank];
            shape[rank - 1] = n;
            x.reshape(&shape).unwrap()
        }

        fn axis(&mut self, x: &Tensor) -> u32 {
            self.below(x.shape().len()) as u32
        }

        fn bit(&mut self) -> Option<Tensor> {
            if !self.compares {
                let x = self.pick().reveal().ok()?;
                return x.negative().ok();
            }
            let (x, y) = (self.pick(), self.pick());
            match self.below(4) {
                0 => x.less(&y).ok(),
                1 => x.greater_equal(self.number()).ok(),
                2 => x.equal_zero().ok(),
                _ => x.non_negative().ok(),
            }
        }

        /// One more operation; `None` if the dice asked for what does not fit.
        fn step(&mut self) -> Option<Tensor> {
            let (name, made): (&'static str, Option<Tensor>) = match self.below(42) {
                0 | 1 => ("add", self.pick().add(&self.pick()).ok()),
                2 => ("sub", self.pick().sub(&self.pick()).ok()),
                3 | 4 => ("mul", self.pick().mul(&self.pick()).ok()),
                5 => {
                    let (c, x) = (self.number(), self.pick());
                    (
                        "number on the left",
                        match self.below(4) {
                            0 => (c - &x).ok(),
                            1 => (c + &x).ok(),
                            2 => (c * &x).ok(),
                            // Few of f bits after the point would be left of it.
                            _ => (c * 0.3 * power_of_two(-(self.below(16) as i32)) * &x).ok(),
                        },
                    )
                }
                6 => ("neg", (-&self.pick()).ok()),
                7 => ("square", self.pick().square().ok()),
                8 | 9 => {
                    let x = self.with_rank(2);
                    let y = self.with_rank(2);
                    (
                        "matmul",
                        match x.matmul(&y) {
                            Ok(z) => Some(z),
                            Err(_) => x.matmul(&x.transpose(&[1, 0]).ok()?).ok(),
                        },
                    )
                }
                10 => {
                    let x = self.with_rank(3);
                    let stacked = Tensor::stack(&[&x, &x], 0).ok()?;
                    ("batched matmul", stacked.matmul(&stacked.transpose(&[0, 1, 3, 2]).ok()?).ok())
                }
                11 | 12 => {
                    let x = self.with_rank(3);
                    let shape = x.shape();
                    let k = [1 + self.below(2) as u32, 1 + self.below(2) as u32];
                    let channels = shape[0];
                    let all = self.pick().flatten().ok()?;
                    let wanted = 2 * channels * k[0] * k[1];
                    let have = all.shape()[0];
                    let filters = all.gather(&(0..wanted).map(|i| i % have).collect::<Vec<_>>(), 0).ok()?;
                    let filters = filters.reshape(&[2, channels, k[0], k[1]]).ok()?;
                    let how = Convolution {
                        strides: [1 + self.below(2) as u32, 1 + self.below(2) as u32],
                        dilations: [1 + self.below(2) as u32, 1],
                        padding: [Padding::Valid, Padding::Same, Padding::Explicit([0, 1, 1, 0])][self.below(3)],
                        ..Convolution::default()
                    };
                    ("conv2d", x.conv2d(&filters, how).ok())
                }
                13 => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    ("reduce_sum", x.reduce_sum(axis).ok())
                }
                14 => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    ("reduce_mean", x.reduce_mean(axis).ok())
                }
                15 => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    ("cumsum", x.cumsum(axis).ok())
                }
                16 => {
                    let x = self.pick();
                    let mut axes: Vec<u32> = (0..x.shape().len() as u32).collect();
                    let n = axes.len();
                    for i in 0..n {
                        let j = self.below(n);
                        axes.swap(i, j);
                    }
                    ("transpose", x.transpose(&axes).ok())
                }
                17 => {
                    let x = self.pick();
                    let parts: Vec<Along> = (0..x.shape().len())
                        .map(|_| {
                            let along = Along::from(self.below(2) as i64..);
                            [Along::from(..), along, Along::from(..).step(-1), Along::from(..).step(2)][self.below(4)]
                        })
                        .collect();
                    ("slice", x.slice(&parts).ok())
                }
                18 => {
                    let (x, y) = (self.pick(), self.pick());
                    let axis = self.axis(&x);
                    ("concat", Tensor::concat(&[&x, &y], axis).or_else(|_| Tensor::concat(&[&x, &x], axis)).ok())
                }
                19 => {
                    let x = self.pick();
                    let axis = self.below(x.shape().len() + 1) as u32;
                    ("stack", Tensor::stack(&[&x, &x], axis).ok())
                }
                20 => {
                    let x = self.pick();
                    let padding: Vec<[u32; 2]> =
                        x.shape().iter().map(|_| [self.below(2) as u32, self.below(2) as u32]).collect();
                    ("pad", x.pad(&padding).ok())
                }
                21 => {
                    let x = self.pick();
                    let times: Vec<u32> = x.shape().iter().map(|_| 1 + self.below(2) as u32).collect();
                    ("tile", x.tile(&times).ok())
                }
                22 => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    let n = x.shape()[axis as usize] as usize;
                    let indices: Vec<u32> = (0..3).map(|_| self.below(n) as u32).collect();
                    ("gather", x.gather(&indices, axis).ok())
                }
                23 => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    ("split", x.split(2, axis).ok().and_then(|parts| parts.into_iter().next()))
                }
                24 => ("reveal", self.pick().reveal().ok()),
                25 | 26 => ("mask", self.pick().mask().ok()),
                27 => ("sigmoid", self.pick().sigmoid().ok()),
                28 => ("tanh", self.pick().tanh().ok()),
                29 => ("relu", self.pick().relu().ok()),
                41 => {
                    let reach = power_of_two(self.below(8) as i32 - 2);
                    let function: fn(f64) -> f64 = [
                        |x: f64| libm::exp(x.min(1.0)),
                        |x: f64| libm::log1p(libm::exp(x)),
                        |x: f64| x / (1.0 + libm::exp(-1.702 * x)),
                        |x: f64| libm::sin(3.0 * x) - 0.5,
                        |x: f64| 1.0 / (1.0 + x * x),
                    ][self.below(5)];
                    ("function", self.pick().function([-reach, reach], function).ok())
                }
                // Whichever comes first, and both in one.
                40 if self.compares => {
                    let (x, how) = (self.with_rank(3), Pooling::of([2, 1 + self.below(2) as u32]));
                    let axis = self.axis(&x);
                    let made = match self.below(4) {
                        0 => x.relu().and_then(|x| x.max_pool2d(how)),
                        1 => x.max_pool2d(how).and_then(|x| x.relu()),
                        2 => x.reduce_max(axis).and_then(|x| x.flatten()).and_then(|x| x.relu()),
                        _ => x.relu().and_then(|x| x.reduce_max(axis)),
                    };
                    ("relu and pool", made.ok())
                }
                30 => {
                    let (bit, x, y) = (self.bit()?, self.pick(), self.pick());
                    ("select", bit.select(&x, &y).ok())
                }
                31 => {
                    let (a, b) = (self.bit()?, self.bit()?);
                    (
                        "boolean",
                        match self.below(4) {
                            0 => a.and(&b).ok(),
                            1 => a.or(&b).ok(),
                            2 => a.xor(&b).ok(),
                            _ => a.not().ok(),
                        },
                    )
                }
                32 if self.compares => ("maximum", self.pick().maximum(&self.pick()).ok()),
                33 if self.compares => ("minimum", self.pick().minimum(0.5).ok()),
                34 if self.compares => {
                    let x = self.pick();
                    let axis = self.axis(&x);
                    ("argmax", x.argmax(axis).ok())
                }
                35 if self.compares => {
                    let bits = self.bit()?;
                    let sum = bits.flatten().ok()?.reduce_sum(0).ok()?;
                    ("bits", sum.bits(1 + self.below(4) as u32).ok())
                }
                36 => {
                    let x = self.with_rank(3);
                    let how = Pooling {
                        strides: [1, 1],
                        padding: Padding::Same,
                        ..Pooling::of([2, 1 + self.below(2) as u32])
                    };
                    ("pool", if self.compares { x.max_pool2d(how).ok() } else { x.avg_pool2d(how).ok() })
                }
                37 => {
                    let public = self.tensors.iter().find(|x| x.is_public() && !x.is_whole()).cloned()?;
                    ("div_public", self.pick().div_public(&(&public.square().ok()? + 0.5).ok()?, 0.5).ok())
                }
                38 => ("polynomial", {
                    let c = [self.number(), self.number(), self.number()];
                    self.pick().polynomial(&c).ok()
                }),
                _ => ("abs", if self.compares { self.pick().abs().ok() } else { self.pick().expand_dims(0).ok() }),
            };
            let made = made?;
            let shape = made.shape();
            if shape.len() > 5 || shape.iter().product::<u32>() > 48 {
                return None;
            }
            self.history.push(name);
            let over = self.graph.magnitude_bits(&made, self.numbers) - self.bits;
            if over > 0 { (&made * power_of_two(-over)).ok() } else { Some(made) }
        }
    }

    /// A program of up to `steps` operations, its weights and a batch of inputs.
    fn write(
        seed: u64,
        steps: usize,
        protocol: Protocol,
        numbers: Numbers,
    ) -> (Program, Weights, Vec<Vec<f32>>, Vec<&'static str>) {
        let graph = Graph::new();
        let input = |name: &str, shape: &[u32], visibility, whole| {
            graph
                .input("client", name, shape, if whole { [-4.0, 4.0] } else { [-1.0, 1.0] }, visibility, whole)
                .unwrap()
        };
        let mut tensors = vec![
            input("private", &[2, 3], Visibility::Private, false),
            input("masked", &[2, 3], Visibility::Masked, false),
            input("public", &[3], Visibility::Public, false),
            input("whole", &[2], Visibility::Private, true),
            input("image", &[1, 3, 4], Visibility::Private, false),
        ];
        for (name, shape, visibility) in [
            ("w", &[3, 2], Visibility::Private),
            ("v", &[1, 3], Visibility::Private),
            ("p", &[2, 3], Visibility::Public),
        ] {
            let variable = graph.variable("owner", name, shape, visibility, false).unwrap();
            let count = shape.iter().product::<u32>() as usize;
            let values = (0..count).map(|i| ((i * 5 + name.len() * 3) % 17) as f32 / 8.0 - 1.0).collect();
            let values = ndarray::ArrayD::from_shape_vec(shape.map(|n| n as usize).to_vec(), values).unwrap();
            graph.initialise(&variable, values.view()).unwrap();
            tensors.push(variable);
        }
        let count = tensors.len();
        let bits = if numbers.ring_bits > 32 { 8 } else { 4 };
        let mut writer = Writer {
            graph: graph.clone(),
            dice: ChaCha8Rng::seed_from_u64(seed),
            numbers,
            compares: protocol.compares(),
            tensors,
            history: vec![],
            bits,
        };
        while writer.tensors.len() < count + steps {
            if let Some(made) = writer.step() {
                writer.tensors.push(made);
            }
        }
        // Everything that nobody took is an output, so that nothing is left out.
        for tensor in writer.tensors.iter().skip(count) {
            graph.output("client", tensor).unwrap();
        }
        let weights = graph.weights();
        let program = graph.compile(numbers, Bounds::Proved(&weights)).unwrap();
        let batch = 2;
        let inputs = program
            .inputs()
            .map(|(_, node)| {
                (0..node.elements() * batch)
                    .map(|_| {
                        let at = writer.below(129) as f32 / 64.0 - 1.0;
                        if node.whole { libm::rintf(at * 4.0) } else { at }
                    })
                    .collect()
            })
            .collect();
        (program, weights, inputs, writer.history)
    }

    /// Programs for each protocol and ring; SELKIE_PROGRAMS asks for another number.
    fn programs() -> u32 {
        std::env::var("SELKIE_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(250)
    }

    fn run(protocol: Protocol, numbers: Numbers) {
        let config = ProptestConfig {
            cases: programs(),
            failure_persistence: None,
            max_shrink_iters: 200,
            ..ProptestConfig::default()
        };
        proptest!(config, |(seed in any::<u64>(), steps in 1..=30usize, flat in any::<bool>(), chacha in any::<bool>())| {
            let variant = Variant {
                objective: if flat { Objective::Latency } else { Objective::Bytes },
                hash: if chacha { HashKind::ChaCha } else { HashKind::Aes },
                ..Variant::default()
            };
            let (program, weights, inputs, history) = write(seed, steps, protocol, numbers);
            let why = format!("{variant:?}, seed {seed}, {steps} steps: {history:?}");
            // Pooling comes first, as when it is planned.
            let program = protocol.arranged(&program);
            check(&program, (protocol, variant), &weights, &inputs, 2, &why);
        });
    }

    #[test]
    fn pond_computes_random_programs_in_64_bits() {
        run(Protocol::Pond, Numbers::default());
    }

    #[test]
    fn pond_computes_random_programs_in_32_bits() {
        run(Protocol::Pond, Numbers { ring_bits: 32, fraction_bits: 8 });
    }

    #[test]
    fn fss_computes_random_programs_in_64_bits() {
        run(Protocol::Fss, Numbers::default());
    }

    #[test]
    fn fss_computes_random_programs_in_32_bits() {
        run(Protocol::Fss, Numbers { ring_bits: 32, fraction_bits: 8 });
    }

    #[test]
    fn table_computes_random_programs_in_64_bits() {
        run(Protocol::Table, Numbers::default());
    }

    #[test]
    fn table_computes_random_programs_in_32_bits() {
        run(Protocol::Table, Numbers { ring_bits: 32, fraction_bits: 8 });
    }

    #[test]
    fn securenn_computes_random_programs_in_64_bits() {
        run(Protocol::SecureNn, Numbers::default());
    }

    #[test]
    fn securenn_computes_random_programs_in_32_bits() {
        run(Protocol::SecureNn, Numbers { ring_bits: 32, fraction_bits: 8 });
    }
}
