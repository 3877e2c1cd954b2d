//! Two samples at full width: what a server holds and is told of one set of secrets looks like what it holds and is
//! told of another, in whole programs, with the shipping streams.
//!
//! A run is an epoch of its own: weights are opened, two units dealt, one query of two samples answered. What is
//! collected of it is everything by which a server could tell secrets apart:
//!
//! - every message from server to server, and every word on its wires, among them all that is opened;
//! - every block that it is dealt;
//! - each dealt bit XOR every public number that its step reads, for a bit dealt in clear is uniform by itself;
//! - and the XOR of the two samples' everything, for a mask that serves twice is uniform by itself.
//!
//! The two sets of secrets are as far apart as can be: zeros, where the two samples are the same; and inputs and
//! weights of both signs, where the second sample is the first one's negative. Each byte of each field is a table of
//! counts over all runs, and each set's runs have seeds of their own, so under the hypothesis both tables are drawn
//! alike. They are compared by each bit's number of ones and, where bytes take many values, by Pearson's two-sample
//! statistic. What is dealt does not depend on secrets at all, so nothing would come of comparing it: it is compared
//! with the uniform distribution, which it has, each share under its own stream. (That correction words hide their tree
//! from who has a root is more than uniformity of each; see [`crate::compare::dpf`].)
//!
//! One number, [`FAR`], decides. 7 standard deviations are p = 10⁻¹¹·⁶, and one program makes less than 10⁶
//! comparisons: nine for each of at most 10⁵ bytes. So the shipped protocol would fail for one choice of seeds in 10⁵;
//! the seeds are fixed, and it fails always or never. A bit that is 1 in a sixth more of the runs is seen in [`MANY`]
//! of them. That the test sees what it should is tested too: each draw of the protocol, left out or used for both
//! samples, is noticed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::rig::exchange;
use crate::client::ClientSpec;
use crate::error::Blame;
use crate::gates::{Gate, Step, weights};
use crate::graph::{Bounds, Graph, Pooling};
use crate::pack;
use crate::party::column::Column;
use crate::party::context::Context;
use crate::party::driver::{Actor, Driver, Stage};
use crate::party::producer::{Producer, draw_masks};
use crate::party::server::{Server, Variable};
use crate::party::{Binding, input_share};
use crate::plan::{Domain, Plan};
use crate::program::{Numbers, Program, Tensor, Weights};
use crate::ring::{Lane, OddRing, Ring};
use crate::role::{S0, S1, Side};
use crate::snapshot::SharedVariables;
use crate::stock::Epoch;
use crate::stream::{Label, Pair, Randomness, Scope, Seed, Seeds, Source, Stream};
use crate::{Objective, Protocol, Role, Variant};

/// Standard deviations from which on two tables of counts are not drawn alike.
const FAR: f64 = 7.0;

/// How the draws of one label are broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mutant {
    /// They are all zero.
    Zero(&'static str),
    /// Both samples have the first one's.
    Twice(&'static str),
}

/// The shipping streams, broken or not.
#[derive(Clone)]
struct Streams {
    seeds: Seeds,
    mutant: Option<Mutant>,
    /// The labels that belong to units, and were drawn.
    drawn: Rc<RefCell<BTreeSet<&'static str>>>,
}

enum Draw {
    Stream(Box<Stream>),
    Zeros,
}

impl Randomness for Streams {
    type Source = Draw;

    fn open(&self, pair: Pair, scope: Scope, step: u32, label: Label) -> Result<Draw, Blame> {
        let twice = self.mutant == Some(Mutant::Twice(label.name));
        let scope = match scope {
            Scope::Unit(_) if twice => Scope::Unit(0),
            Scope::Input { step, .. } if twice => Scope::Input { unit: 0, step },
            scope => scope,
        };
        self.drawn.borrow_mut().insert(label.name);
        match self.mutant {
            Some(Mutant::Zero(name)) if name == label.name => Ok(Draw::Zeros),
            _ => self.seeds.open(pair, scope, step, label).map(Box::new).map(Draw::Stream),
        }
    }
}

impl Source for Draw {
    fn ring<L: Lane>(&mut self, ring: Ring<L>, out: &mut [L]) {
        match self {
            Draw::Stream(stream) => stream.ring(ring, out),
            Draw::Zeros => out.fill(L::default()),
        }
    }

    fn odd<L: Lane>(&mut self, ring: OddRing, out: &mut [L]) {
        match self {
            Draw::Stream(stream) => stream.odd(ring, out),
            Draw::Zeros => out.fill(L::default()),
        }
    }

    fn bytes(&mut self, out: &mut [u8]) {
        match self {
            Draw::Stream(stream) => stream.bytes(out),
            Draw::Zeros => out.fill(0),
        }
    }

    fn below(&mut self, bound: impl Fn(usize) -> u8, out: &mut [u8]) {
        match self {
            Draw::Stream(stream) => stream.below(bound, out),
            Draw::Zeros => out.fill(0),
        }
    }
}

/// A server that forgets nothing and keeps what it received, by step.
struct Recording<A: Actor> {
    server: A,
    received: BTreeMap<usize, Vec<Column<A::Lane>>>,
}

impl<A: Actor> Recording<A> {
    fn new(server: A) -> Self {
        Self { server, received: BTreeMap::new() }
    }
}

impl<A: Actor> Actor for Recording<A> {
    type Lane = A::Lane;

    fn role(&self) -> Role {
        self.server.role()
    }

    fn send(&mut self, index: usize, step: &Step) -> Result<Vec<Column<A::Lane>>, Blame> {
        self.server.send(index, step)
    }

    fn finish(
        &mut self,
        index: usize,
        step: &Step,
        mine: Vec<Column<A::Lane>>,
        theirs: Vec<Vec<Column<A::Lane>>>,
    ) -> Result<(), Blame> {
        self.received.insert(index, theirs.concat());
        self.server.finish(index, step, mine, theirs)
    }

    fn forget(&mut self, _wire: u32) {}
}

/// One field of what is seen: what it is, its bytes in a row, for the first sample, and whether they are uniform.
struct Field {
    what: String,
    places: core::ops::Range<usize>,
    uniform: bool,
    /// The bits in use of the last byte.
    last: u8,
}

/// What was seen in one run: the same fields in all runs of a plan.
#[derive(Default)]
struct Seen {
    /// Whether fields are listed; their bytes are enough for all runs but one.
    listed: bool,
    fields: Vec<Field>,
    /// All fields of each sample.
    samples: [Vec<u8>; 2],
}

impl Seen {
    fn put(&mut self, what: &dyn Fn() -> String, bits: Option<usize>, samples: [&[u8]; 2]) {
        let start = self.samples[0].len();
        self.samples.iter_mut().zip(samples).for_each(|(row, bytes)| row.extend_from_slice(bytes));
        if !self.listed {
            return;
        }
        let last = bits.map_or(0xff, |bits| 0xff >> (bits.wrapping_neg() % 8));
        let places = start..self.samples[0].len();
        self.fields.push(Field { what: what(), places, uniform: bits.is_some(), last });
    }

    fn words<L: Lane>(&mut self, what: &dyn Fn() -> String, words: &[L]) {
        let mut bytes = vec![];
        pack::pack_lanes(words, L::BITS, &mut bytes);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        self.put(what, None, [first, second]);
    }

    fn columns<L: Lane>(&mut self, what: &dyn Fn() -> String, columns: &[Column<L>]) {
        for column in columns {
            match column {
                Column::Words(words) => self.words(what, words),
                Column::Field(bytes) => {
                    let (first, second) = bytes.split_at(bytes.len() / 2);
                    self.put(what, None, [first, second]);
                }
            }
        }
    }

    /// Everything at one server.
    fn server<S: Side, L: Lane>(&mut self, at: &Recording<Server<S, L, Streams>>, dealt: &[Vec<u8>]) {
        let plan = Arc::clone(&at.server.at.plan);
        let (role, numbers) = (S::ROLE, plan.numbers());
        for (step, columns) in &at.received {
            let name = || format!("{role}: received in step {step}, {}", plan.steps[*step].step.name());
            self.columns(&name, columns);
        }
        for wire in 0..plan.shapes.wires.len() as u32 {
            if let Ok(words) = at.server.words_of(wire) {
                self.words(&|| format!("{role}: wire {wire}"), words);
            }
        }
        let mut offset = 0;
        for (step, placed) in plan.steps.iter().enumerate() {
            for (index, block) in plan.dealt_blocks(placed, role).into_iter().enumerate() {
                let name = || format!("{role}: dealt in step {step}, {}, block {index}", placed.step.name());
                let range = offset..offset + block.bytes(numbers, 1);
                let [first, second] = [0, 1].map(|unit: usize| &dealt[unit][range.clone()]);
                let width = block.domain.bits(numbers);
                self.put(&name, Some(block.elements * width as usize), [first, second]);
                offset = range.end;
                let (Domain::Bits(1) | Domain::Low(1)) = block.domain else { continue };
                for wire in placed.step.reads() {
                    let Ok(words) = at.server.words_of(wire) else { continue };
                    let mut words = words.to_vec();
                    let each = (words.len() / 2).max(1);
                    for (words, bits) in words.chunks_mut(each).zip([first, second]) {
                        let bits: Vec<u64> = pack::unpack(bits, 1, block.elements).collect();
                        for (word, bit) in words.iter_mut().zip(bits.iter().cycle()) {
                            *word = L::from_u64(word.to_u64() ^ bit.wrapping_neg());
                        }
                    }
                    self.words(&|| format!("{}, with wire {wire}", name()), &words);
                }
            }
        }
    }
}

/// The two samples' input and the weights.
#[derive(Clone)]
struct Secrets {
    number: u64,
    inputs: Vec<f32>,
    weights: Weights,
}

struct Setting {
    program: Program,
    plan: Arc<Plan>,
    secrets: [Secrets; 2],
}

/// A dense layer with ReLU, and another with sigmoid behind it; a pool and an argmax of the first.
fn setting(protocol: Protocol, objective: Objective, numbers: Numbers) -> Setting {
    let graph = Graph::new();
    let x = graph.masked_input("client", "x", &[3], [-1.0, 1.0]).unwrap();
    let shapes: [(&str, &[u32]); 2] = [("v", &[3, 4]), ("w", &[4, 1])];
    let [v, w] = shapes.map(|(name, shape)| graph.private_variable("owner", name, shape).unwrap());
    let y = x.matmul(&v).unwrap();
    let hidden = y.relu().unwrap();
    graph.output("client", &hidden.matmul(&w).unwrap().sigmoid().unwrap()).unwrap();
    graph.output("client", &y.reshape(&[1, 2, 2]).unwrap().max_pool2d(Pooling::of([2, 2])).unwrap()).unwrap();
    graph.output("client", &y.argmax(0).unwrap()).unwrap();
    let weights = |of: &dyn Fn(u32) -> f32| {
        let tensor = |(name, shape): &(&str, &[u32])| {
            let values = (0..shape.iter().product()).map(of).collect();
            ((*name).to_string(), Tensor { shape: shape.to_vec(), values })
        };
        Weights(shapes.iter().map(tensor).collect())
    };
    // 0.9, -0.65, 0.4, ...: no two sums are alike.
    let far = |i: u32| (0.9 - 0.25 * (i % 7) as f32) * if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let secrets = [
        Secrets { number: 0, inputs: vec![0.0; 6], weights: weights(&|_| 0.0) },
        Secrets { number: 1, inputs: vec![0.9, -0.7, 0.8, -0.9, 0.7, -0.8], weights: weights(&far) },
    ];
    let program = graph.compile(numbers, Bounds::Proved(&secrets[1].weights)).unwrap();
    let program = protocol.arranged(&program).into_owned();
    let plan = Arc::new(Plan::of_variant(&program, protocol, Variant::from(objective)).unwrap());
    Setting { program, plan, secrets }
}

impl Setting {
    /// One run with everything fresh, and the labels of what was drawn in it; run 0 lists its fields.
    fn run<L: Lane>(&self, secrets: &Secrets, run: u64, mutant: Option<Mutant>) -> (Seen, BTreeSet<&'static str>) {
        let (program, plan) = (&self.program, &self.plan);
        let seed = Seed::new([5; 32]).derive("run", &[&secrets.number.to_le_bytes(), &run.to_le_bytes()]);
        let derived = |purpose| seed.derive(purpose, &[]);
        let (zero, one) = (derived("producer 0"), derived("producer 1"));
        let seeds = [
            Seeds::server0(derived("servers"), zero.clone()),
            Seeds::server1(derived("servers"), one.clone()),
            Seeds::crypto_producer(zero, one),
        ];
        let epoch = Epoch::new([derived("nonce").bytes(); 3]);
        let bindings = Role::ALL.map(|role| Binding::new(role, Arc::clone(plan), 1, epoch, &seeds[role as usize]));
        let drawn = Rc::default();
        let at = |role: Role| {
            let seeds = bindings[role as usize].context::<L>(0..2).unwrap().randomness;
            let streams = Streams { seeds, mutant, drawn: Rc::clone(&drawn) };
            Context::new(Arc::clone(plan), streams, 0..2, 1).unwrap().with_public(*epoch.as_bytes())
        };
        let ring = Ring::<L>::new(plan.numbers().ring_bits).unwrap();
        let mut seen = Seen { listed: run == 0, ..Seen::default() };

        let shares = SharedVariables::share(program, plan, 1, &secrets.weights, *derived("weights").bytes()).unwrap();
        let [plain0, plain1] = shares.map(|shares| -> Vec<Variable<L>> {
            shares.expand::<L>(plan).unwrap().into_iter().map(|share| Variable::Plain(Arc::new(share))).collect()
        });
        let setup0 = Server::<S0, L, _>::for_setup(at(Role::Server0), plain0);
        let setup1 = Server::<S1, L, _>::for_setup(at(Role::Server1), plain1);
        let mut setup0 = Driver::new(Recording::new(setup0), Arc::clone(plan), Stage::Setup, 1);
        let mut setup1 = Driver::new(Recording::new(setup1), Arc::clone(plan), Stage::Setup, 1);
        let mut views = Default::default();
        exchange(&mut views, &mut [(Role::Server0, &mut setup0), (Role::Server1, &mut setup1)]);
        for (index, variable) in &setup0.actor.server.opened {
            let Variable::Masked { hat, .. } = variable else { continue };
            seen.words(&|| format!("weight {index}, opened"), &hat.repeat(2));
        }
        for received in [&setup0.actor.received, &setup1.actor.received] {
            received.values().flatten().cloned().for_each(|column| {
                let words = column.words().unwrap().repeat(2);
                seen.words(&|| "a server's share of a weight minus its mask".into(), &words);
            });
        }
        let opened = |opened: Vec<(u32, Variable<L>)>| opened.into_iter().map(|(_, variable)| variable).collect();

        let masks = draw_masks(&at(Role::CryptoProducer), weights::B).unwrap();
        let mut dealing = Producer::new(at(Role::CryptoProducer), masks);
        let dealt = [Role::Server0, Role::Server1].map(|role| crate::deal::deal(&mut dealing, role).unwrap());
        let handed = [&bindings[0], &bindings[1]].map(|binding| match mutant {
            Some(Mutant::Twice("input.mask")) => binding.input_masks(0..1).unwrap().repeat(2),
            _ => binding.input_masks(0..2).unwrap(),
        });
        let spec = ClientSpec::new(program, plan);
        let seed = *derived("client").bytes();
        let sent = spec.share_under(&[&secrets.inputs], 2, seed, [&handed[0], &handed[1]]).unwrap();
        let given0 = input_share::<S0, L>(ring, &plan.inputs[0], 2, &sent.server0[0]).unwrap();
        let given1 = input_share::<S1, L>(ring, &plan.inputs[0], 2, &sent.server1[0]).unwrap();

        let variables = [opened(setup0.actor.server.opened.clone()), opened(setup1.actor.server.opened.clone())];
        let [variables0, variables1] = variables;
        let server0 = Server::new(at(Role::Server0), variables0, vec![given0], dealt[0].clone()).unwrap();
        let server1 = Server::new(at(Role::Server1), variables1, vec![given1], dealt[1].clone()).unwrap();
        let mut server0 = Driver::new(Recording::<Server<S0, L, _>>::new(server0), Arc::clone(plan), Stage::Query, 2);
        let mut server1 = Driver::new(Recording::<Server<S1, L, _>>::new(server1), Arc::clone(plan), Stage::Query, 2);
        exchange(&mut views, &mut [(Role::Server0, &mut server0), (Role::Server1, &mut server1)]);
        seen.server(&server0.actor, &dealt[0]);
        seen.server(&server1.actor, &dealt[1]);
        let drawn = drawn.borrow().clone();
        (seen, drawn)
    }

    /// One run in the plan's lanes.
    fn seen(&self, secrets: &Secrets, run: u64, mutant: Option<Mutant>) -> (Seen, BTreeSet<&'static str>) {
        match self.plan.numbers().ring_bits {
            ..=32 => self.run::<u32>(secrets, run, mutant),
            _ => self.run::<u64>(secrets, run, mutant),
        }
    }

    /// Runs both secrets so often and compares all fields.
    fn compare(&self, runs: u64, mutant: Option<Mutant>) -> Compared {
        let rows = self.secrets.each_ref().map(|secrets| -> Vec<Vec<u8>> {
            (0..runs).map(|run| self.seen(secrets, run, mutant).0.samples.concat()).collect()
        });
        let fields = self.seen(&self.secrets[0], 0, mutant).0.fields;
        let mut compared = Compared::default();
        let half = rows[0][0].len() / 2;
        for field in &fields {
            for place in field.places.clone() {
                let used = if place + 1 == field.places.end { field.last } else { 0xff };
                for (which, column) in [
                    ("of the first sample", &(|row: &[u8]| row[place]) as &dyn Fn(&[u8]) -> u8),
                    ("of the second sample", &|row| row[place + half]),
                    ("of both samples' XOR", &|row| row[place] ^ row[place + half]),
                ] {
                    let counts = rows.each_ref().map(|rows| Counts::of(rows.iter().map(|row| column(row))));
                    let far = match field.uniform {
                        true => {
                            counts.each_ref().map(|counts| counts.beside_uniform(used)).into_iter().fold(0.0, f64::max)
                        }
                        false => counts[0].beside(&counts[1]),
                    };
                    compared.bytes += 1;
                    if far > compared.far {
                        compared.far = far;
                        compared.what = format!("{}, byte {} {which}", field.what, place - field.places.start);
                    }
                    if far > FAR {
                        return compared;
                    }
                }
            }
        }
        compared
    }

    fn labels(&self) -> BTreeSet<&'static str> {
        self.seen(&self.secrets[0], 0, None).1
    }
}

/// What is furthest off, or the first that is too far, and how many bytes were compared.
#[derive(Debug, Default)]
struct Compared {
    far: f64,
    what: String,
    bytes: u64,
}

/// How often a byte had each value.
struct Counts([u32; 256]);

impl Counts {
    fn of(bytes: impl Iterator<Item = u8>) -> Self {
        let mut counts = [0; 256];
        bytes.for_each(|byte| counts[usize::from(byte)] += 1);
        Self(counts)
    }

    fn all(&self) -> f64 {
        f64::from(self.0.iter().sum::<u32>())
    }

    fn ones(&self) -> [f64; 8] {
        let mut ones = [0; 8];
        for (value, count) in (0u32..).zip(&self.0) {
            ones.iter_mut().enumerate().for_each(|(bit, ones)| *ones += count * (value >> bit & 1));
        }
        ones.map(f64::from)
    }

    /// Deviations between two tables of as many counts.
    fn beside(&self, other: &Self) -> f64 {
        let all = 2.0 * self.all();
        let bits = self.ones().into_iter().zip(other.ones()).map(|(a, b)| {
            let variance = (a + b) * (all - a - b) / all;
            if variance > 0.0 { (a - b).abs() / variance.sqrt() } else { 0.0 }
        });
        let pairs = self.0.iter().zip(&other.0).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let terms: Vec<f64> = pairs.filter(|(a, b)| a + b > 0.0).map(|(a, b)| (a - b).powi(2) / (a + b)).collect();
        bits.fold(pearson(&terms), f64::max)
    }

    /// Deviations from uniform bits, of which the last byte of a block may use some.
    fn beside_uniform(&self, used: u8) -> f64 {
        let all = self.all();
        let bits = self.ones().into_iter().enumerate().filter(|(bit, _)| used >> bit & 1 == 1);
        let bits = bits.map(|(_, ones)| (ones - all / 2.0).abs() / (all / 4.0).sqrt());
        let expected = all / 256.0;
        let terms: Vec<f64> = self.0.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).collect();
        bits.fold(if used == 0xff { pearson(&terms) } else { 0.0 }, f64::max)
    }
}

/// Pearson's statistic in its standard deviations (Wilson and Hilferty), where it has many terms; few are few bits.
fn pearson(terms: &[f64]) -> f64 {
    if terms.len() < 16 {
        return 0.0;
    }
    let df = (terms.len() - 1) as f64;
    let rest = 2.0 / (9.0 * df);
    ((terms.iter().sum::<f64>() / df).cbrt() - (1.0 - rest)) / rest.sqrt()
}

/// Runs of each of the two secrets.
const MANY: u64 = 1024;
/// Runs of what is broken.
const FEW: u64 = 128;

const WIDE: Numbers = Numbers { ring_bits: 64, fraction_bits: 16 };
const NARROW: Numbers = Numbers { ring_bits: 32, fraction_bits: 8 };

fn nothing_tells_secrets_apart(protocol: Protocol, numbers: Numbers) {
    for objective in Objective::ALL {
        let compared = setting(protocol, *objective, numbers).compare(MANY, None);
        assert!(compared.far < FAR, "{protocol}, {numbers:?}, {objective}: {compared:?}");
        assert!((10_000..100_000).contains(&compared.bytes), "{compared:?}");
    }
}

#[test]
fn nothing_tells_secrets_apart_in_fss_in_64_bits() {
    nothing_tells_secrets_apart(Protocol::Fss, WIDE);
}

#[test]
fn nothing_tells_secrets_apart_in_fss_in_32_bits() {
    nothing_tells_secrets_apart(Protocol::Fss, NARROW);
}

#[test]
fn nothing_tells_secrets_apart_in_table_in_64_bits() {
    nothing_tells_secrets_apart(Protocol::Table, WIDE);
}

#[test]
fn nothing_tells_secrets_apart_in_table_in_32_bits() {
    nothing_tells_secrets_apart(Protocol::Table, NARROW);
}

/// What two samples of this program cannot show, and what shows it.
fn is_shown_elsewhere(mutant: Mutant) -> bool {
    match mutant {
        // A tree whose root is no secret is pseudorandom still, but not to who computes it: `compare::dpf`.
        Mutant::Zero("compare-dpf.root" | "positive.root") | Mutant::Twice("compare-dpf.root" | "positive.root") => {
            true
        }
        // Sums of products are nearly uniform in clear. Over all values in `gates::product`.
        Mutant::Zero("product.product") | Mutant::Twice("product.product") => true,
        // The servers compare digests of what they were sent, which are pseudorandom under any key: `gates::agree`.
        Mutant::Zero("agree.key") | Mutant::Twice("agree.key") => true,
        // The client is sent nothing but outputs: `gates::output`.
        Mutant::Zero("output.zero-share") | Mutant::Twice("output.zero-share") => true,
        // The client has its part of what it draws from seeds that are never zero.
        Mutant::Zero("input.mask") => true,
        // Weights' masks belong to a version, not to a sample: `gates::weights`.
        Mutant::Twice("weights.mask") => true,
        _ => false,
    }
}

/// Each draw, left out and used twice: ρ, dealt bits, masks, shares of what is dealt, the input's sub-seed.
fn every_draw_counts(protocol: Protocol) {
    let mut seen = BTreeSet::new();
    for objective in Objective::ALL {
        let setting = setting(protocol, *objective, NARROW);
        let shipped = setting.compare(FEW, None);
        assert!(shipped.far < FAR, "{protocol}, {objective}: {shipped:?}");
        for label in setting.labels().into_iter().filter(|label| seen.insert(*label)) {
            for mutant in [Mutant::Zero(label), Mutant::Twice(label)] {
                if !is_shown_elsewhere(mutant) {
                    let compared = setting.compare(FEW, Some(mutant));
                    assert!(compared.far > FAR, "{protocol}, {objective}, {mutant:?} was not noticed: {compared:?}");
                }
            }
        }
    }
    for label in ["input.mask", "mask.mask", "open-bit.rho", "open-bit.bit", "truncate.top", "open-ranks.turn"] {
        assert!(seen.contains(label), "{protocol} draws {label}: {seen:?}");
    }
}

#[test]
fn every_draw_of_fss_counts() {
    every_draw_counts(Protocol::Fss);
}

#[test]
fn every_draw_of_table_counts() {
    every_draw_counts(Protocol::Table);
}
