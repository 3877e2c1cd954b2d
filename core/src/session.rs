//! All three parties in this process, for trying things out, evaluation and tests.
//!
//! A [`Session`] runs the same machines as three servers would and hands their frames from one to the other. It is the one
//! place that holds both servers' shares, and so the one in which they can be looked at.
//!
//! ```
//! use ndarray::arr1;
//! use selkie::graph::{Bounds, Graph};
//! use selkie::program::Numbers;
//! use selkie::{Protocol, Session};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let graph = Graph::new();
//! let variable = graph.private_variable("owner", "variable", &[3])?;
//! graph.initialise(&variable, arr1(&[1.0, 2.0, 3.0]).view().into_dyn())?;
//! graph.output("receiver", &(&variable * 2.0)?)?;
//! let weights = graph.weights();
//! let program = graph.compile(Numbers::default(), Bounds::Proved(&weights))?;
//!
//! let mut session = Session::local(&program, &weights, Protocol::Pond, [7; 32])?;
//! let run = session.run(&[])?;
//! assert_eq!(run.output("receiver")?, arr1(&[2.0, 4.0, 6.0]).into_dyn());
//! # Ok(())
//! # }
//! ```

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};

use crate::client::ClientSpec;
use crate::deal::Dealer;
use crate::error::Blame;
use crate::party::{Binding, Clock, Event, Party};
use crate::plan::Plan;
use crate::program::{Op, Program, Weights};
use crate::snapshot::{SharedVariables, Snapshot};
use crate::statistics::{Span, Statistics};
use crate::stock::{Epoch, Stock};
use crate::stream::{Seed, Seeds};
use crate::wire::{Frame, HEADER_BYTES, frames_for};
use crate::{Protocol, Role};

/// What a run moved, counted frame by frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The longest chain of dependent messages, found by giving every frame a Lamport clock.
    pub rounds: u32,
    /// Payload among the parties.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
    /// All of these with the frames' headers.
    pub wire_bytes: u64,
    /// Payload by sender and receiver.
    pub links: BTreeMap<(Role, Role), u64>,
}

/// Sees every frame as it is handed over.
pub type Tap<'a> = &'a mut dyn FnMut(Role, Role, &Frame);

/// A program deployed to three parties in this process.
#[derive(Debug)]
pub struct Session {
    plan: Arc<Plan>,
    spec: ClientSpec,
    bindings: [Binding; 2],
    snapshots: [Snapshot; 2],
    dealer: Dealer,
    stocks: [Stock; 3],
    seed: Seed,
    queries: u64,
    clock: Option<Clock>,
    shares: [SharedVariables; 2],
    /// The variables' names, in order.
    names: Vec<String>,
    timeline: Vec<Span>,
}

/// What one run gave and cost.
#[derive(Clone, Debug)]
pub struct Run {
    /// The outputs in the program's order: who receives each, and its value. Batches have an axis more, in front.
    pub outputs: Vec<(String, ArrayD<f32>)>,
    /// What it cost, operation by operation.
    pub statistics: Statistics,
}

impl Run {
    /// The first output that `player` receives.
    ///
    /// # Errors
    /// There is none.
    pub fn output(&self, player: &str) -> Result<ArrayD<f32>, Blame> {
        let found = self.outputs.iter().find(|(receiver, _)| receiver == player);
        found.map(|(_, value)| value.clone()).ok_or_else(|| Blame::you(format!("no output is granted to {player}")))
    }
}

impl Session {
    /// Shares `weights` and opens them under their masks. All randomness comes from `seed`.
    ///
    /// # Errors
    /// The program cannot be planned, or weights do not fit it.
    pub fn local(program: &Program, weights: &Weights, protocol: Protocol, seed: [u8; 32]) -> Result<Self, Blame> {
        let plan = Arc::new(Plan::new(program, protocol).map_err(|error| Blame::you(format!("a program: {error}")))?);
        Self::with_plan(program, plan, weights, seed)
    }

    /// [`Session::local`] with a plan made before.
    ///
    /// # Errors
    /// The weights do not fit the program.
    pub fn with_plan(program: &Program, plan: Arc<Plan>, weights: &Weights, seed: [u8; 32]) -> Result<Self, Blame> {
        let seed = Seed::new(seed);
        let derived = |purpose| seed.derive(purpose, &[]);
        let epoch = Epoch::new([derived("nonce 0").bytes(), derived("nonce 1").bytes(), derived("nonce 2").bytes()]);
        let (servers, producer0, producer1) = (derived("servers"), derived("producer 0"), derived("producer 1"));
        let bind = |role, seeds: &Seeds| Binding::new(role, Arc::clone(&plan), 1, epoch, seeds);
        let bindings = [
            bind(Role::Server0, &Seeds::server0(servers.clone(), producer0.clone())),
            bind(Role::Server1, &Seeds::server1(servers, producer1.clone())),
        ];
        let dealer = Dealer::new(bind(Role::CryptoProducer, &Seeds::crypto_producer(producer0, producer1)))?;

        let shares = SharedVariables::share(program, &plan, 1, weights, *derived("weights").bytes())?;
        let [binding0, binding1] = &bindings;
        let [shares0, shares1] = &shares;
        let mut parties =
            [(Role::Server0, Party::setup(binding0, shares0)?), (Role::Server1, Party::setup(binding1, shares1)?)];
        let mut snapshots = Vec::new();
        exchange(&mut parties, &mut |_, _, _| (), &mut |_, event| {
            if let Event::Commit(snapshot) = event {
                snapshots.push(snapshot);
            }
        })?;
        let snapshots = <[Snapshot; 2]>::try_from(snapshots).map_err(|_| Blame::bug("weights were not opened"))?;
        let stocks = Role::ALL.map(|role| Stock::new(epoch, plan.unit_bytes(role), 1 << 20));
        let spec = ClientSpec::new(program, &plan);
        let names = program.variables().filter_map(|(_, node)| match &node.op {
            Op::Variable { name, .. } => Some(name.clone()),
            _ => None,
        });
        let names = names.collect();
        Ok(Self {
            plan,
            spec,
            bindings,
            snapshots,
            dealer,
            stocks,
            seed,
            queries: 0,
            clock: None,
            shares,
            names,
            timeline: Vec::new(),
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// What clients know.
    pub fn spec(&self) -> &ClientSpec {
        &self.spec
    }

    /// What the crypto producer deals for these units.
    pub(crate) fn dealt(&self, units: core::ops::Range<u64>) -> Result<Vec<Vec<u8>>, Blame> {
        let [zero, one] = [Role::Server0, Role::Server1].map(|role| self.dealer.deal(role, units.clone()));
        Ok([zero?, one?].concat())
    }

    /// Times every step from now on: `clock` gives nanoseconds since some moment. There is no clock in here.
    pub fn observe(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// What each server holds of a variable: its own share alone, which looks like nothing, as numbers of the ring.
    ///
    /// # Errors
    /// There is no private variable of that name.
    pub fn shares_of(&self, variable: &str) -> Result<[Vec<u64>; 2], Blame> {
        let index = self.names.iter().position(|name| name == variable);
        let missing = || Blame::you(format!("no variable is called {variable}"));
        let index = index.ok_or_else(missing)?;
        let of = |shares: &SharedVariables| -> Result<Vec<u64>, Blame> {
            Ok(match self.plan.numbers().ring_bits {
                ..=32 => shares
                    .expand::<u32>(&self.plan)?
                    .get(index)
                    .ok_or_else(missing)?
                    .iter()
                    .map(|x| u64::from(*x))
                    .collect(),
                _ => shares.expand::<u64>(&self.plan)?.get(index).ok_or_else(missing)?.clone(),
            })
        };
        let [zero, one] = &self.shares;
        Ok([of(zero)?, of(one)?])
    }

    /// One run. `inputs` are fed by name; each has its input's shape, or that of a batch of them, with an axis more in front.
    ///
    /// # Errors
    /// An input is missing, unknown, of another shape, or has a value beyond its range.
    pub fn run(&mut self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Run, Blame> {
        let (rows, batch) = self.spec.batch(inputs)?;
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let (outputs, moved) = self.run_rows(&rows, batch.unwrap_or(1), &mut |_, _, _| ())?;
        let statistics = Statistics::new(&self.plan, batch.unwrap_or(1), moved, core::mem::take(&mut self.timeline));
        Ok(Run { outputs: self.spec.shaped(outputs, batch)?, statistics })
    }

    /// One query of `batch` samples, every input flat, in order; `tap` sees every frame.
    ///
    /// # Errors
    /// The inputs do not fit.
    pub fn run_rows(&mut self, inputs: &[&[f32]], batch: usize, tap: Tap<'_>) -> Result<(Vec<Vec<f32>>, Moved), Blame> {
        self.queries += 1;
        let input_seed = self.seed.derive("query", &[&self.queries.to_le_bytes()]);
        let [stock0, stock1, stock2] = &mut self.stocks;
        let units = stock1.next()..stock1.next() + batch as u64;
        let [masks0, masks1] = [&self.bindings[0], &self.bindings[1]].map(|binding| binding.input_masks(units.clone()));
        let (masks0, masks1) = (masks0?, masks1?);
        let shared = self.spec.share_under(inputs, batch, *input_seed.bytes(), [&masks0, &masks1])?;
        let mut moved = Moved::default();
        for (role, stock) in [(Role::Server0, &mut *stock0), (Role::Server1, &mut *stock1)] {
            if self.plan.unit_bytes(role) == 0 {
                continue;
            }
            for (unit, material) in units.clone().zip(self.dealer.deal(role, units.clone())?) {
                moved.offline_bytes += material.len() as u64;
                moved.wire_bytes += with_headers(material.len());
                stock.put(unit, material)?;
            }
        }
        let [binding0, binding1] = &self.bindings;
        let [snapshot0, snapshot1] = &self.snapshots;
        let mut parties = [
            (Role::Server0, Party::server(binding0, snapshot0, &shared.server0, stock0.burn(units.clone())?)?),
            (Role::Server1, Party::server(binding1, snapshot1, &shared.server1, stock1.burn(units.clone())?)?),
            (Role::CryptoProducer, Party::crypto_producer(&self.dealer, stock2.burn(units)?)?),
        ];
        if let Some(clock) = self.clock {
            parties.iter_mut().for_each(|(_, party)| party.observe(clock));
        }
        let mut outputs: BTreeMap<Role, Vec<u8>> = BTreeMap::new();
        // The clocks of the messages that each party received, by level, and of those that it sent.
        let mut received: BTreeMap<(Role, u32), u32> = BTreeMap::new();
        let mut sent: BTreeMap<(Role, u32), u32> = BTreeMap::new();
        exchange(
            &mut parties,
            &mut |from, to, frame| {
                tap(from, to, frame);
                let bytes = frame.payload.len() as u64;
                moved.online_bytes += bytes;
                moved.wire_bytes += bytes + HEADER_BYTES as u64;
                *moved.links.entry((from, to)).or_default() += bytes;
                // What arrived early, for a later level, has not been read yet when this message leaves.
                let read = received.range((from, 0)..(from, frame.step)).map(|(_, clock)| *clock).max().unwrap_or(0);
                let clock = *sent.entry((from, frame.step)).or_insert(read + 1);
                let arrival = received.entry((to, frame.step)).or_default();
                *arrival = (*arrival).max(clock);
                moved.rounds = moved.rounds.max(clock);
            },
            &mut |role, event| {
                if let Event::Output(shares) = event {
                    outputs.insert(role, shares.concat());
                }
            },
        )?;
        for (role, party) in &parties {
            let spans = party.measured().timeline.iter().map(|timed| Span { role: *role, timed: *timed });
            self.timeline.extend(spans);
        }
        let share = |role| outputs.get(&role).map(Vec::as_slice).unwrap_or_default();
        let shares = [share(Role::Server0), share(Role::Server1)];
        // All inputs of one server travel together, and so do all outputs.
        let asked = [&shared.server0, &shared.server1].map(|inputs| inputs.iter().map(Vec::len).sum());
        let given = [masks0.len(), masks1.len()];
        for message in asked.into_iter().chain(given).chain(shares.map(<[u8]>::len)) {
            moved.client_bytes += message as u64;
            moved.wire_bytes += with_headers(message);
        }
        Ok((self.spec.reconstruct(batch, shares)?, moved))
    }
}

/// The bytes of a message, cut into frames.
fn with_headers(message: usize) -> u64 {
    message as u64 + frames_for(message as u64) * HEADER_BYTES as u64
}

/// Hands frames from party to party until all are done.
fn exchange(parties: &mut [(Role, Party)], tap: Tap<'_>, events: &mut dyn FnMut(Role, Event)) -> Result<(), Blame> {
    loop {
        let (mut done, mut frames) = (0, Vec::new());
        for (role, party) in parties.iter_mut() {
            loop {
                match party.poll()? {
                    Event::Transmit(to, frame) => frames.push((*role, to, frame)),
                    Event::Need(_) => break,
                    Event::Done => {
                        done += 1;
                        break;
                    }
                    event => events(*role, event),
                }
            }
        }
        if done == parties.len() {
            return Ok(());
        }
        if frames.is_empty() {
            return Err(Blame::bug("all parties wait for each other"));
        }
        for (from, to, frame) in frames {
            tap(from, to, &frame);
            let receiver = parties.iter_mut().find(|(role, _)| *role == to);
            receiver.ok_or_else(|| Blame::bug("a frame to a party that is not there"))?.1.handle(from, &frame)?;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::clear;
    use crate::graph::{Bounds, Convolution, Graph, Padding, Pooling};
    use crate::program::{Numbers, Tensor};
    use alloc::string::ToString;

    /// Numbers in -1..1 that look random.
    fn pseudo(count: usize, salt: u64) -> Vec<f32> {
        let mix = |i: u64| {
            (i + salt * 7919 + 1)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        (0..count as u64).map(|i| ((mix(i) >> 40) as f32) / (1u64 << 23) as f32 - 1.0).collect()
    }

    fn weights(shapes: &[(&str, &[u32])]) -> Weights {
        let tensor = |(i, (name, shape)): (usize, &(&str, &[u32]))| {
            let count = shape.iter().product::<u32>() as usize;
            (name.to_string(), Tensor { shape: shape.to_vec(), values: pseudo(count, i as u64) })
        };
        Weights(shapes.iter().enumerate().map(tensor).collect())
    }

    /// conv, max-pool, ReLU, dense, ReLU, dense; logits and label.
    fn network(numbers: Numbers) -> (Program, Weights) {
        let graph = Graph::new();
        let x = graph.private_input("client", "image", &[2, 8, 7], [-1.0, 1.0]).unwrap();
        let shapes: [(&str, &[u32]); 6] =
            [("f", &[3, 2, 3, 3]), ("fb", &[3]), ("w", &[27, 5]), ("b", &[5]), ("v", &[5, 4]), ("c", &[4])];
        let vars: Vec<_> =
            shapes.iter().map(|(name, shape)| graph.private_variable("owner", name, shape).unwrap()).collect();
        let y = x
            .normalise(0.1, 0.7)
            .unwrap()
            .conv2d(&vars[0], Convolution { padding: Padding::Explicit([0, 1, 1, 0]), ..Convolution::default() })
            .unwrap()
            .bias(&vars[1])
            .unwrap();
        assert_eq!(y.shape(), [3, 7, 6]);
        let y = y.max_pool2d(Pooling::of([2, 2])).unwrap().relu().unwrap().flatten().unwrap();
        let y = y.matmul(&vars[2]).unwrap().bias(&vars[3]).unwrap().relu().unwrap();
        let logits = y.matmul(&vars[4]).unwrap().bias(&vars[5]).unwrap();
        graph.output("client", &logits).unwrap();
        graph.output("client", &logits.argmax(0).unwrap()).unwrap();
        let weights = weights(&shapes);
        (graph.compile(numbers, Bounds::Proved(&weights)).unwrap(), weights)
    }

    #[test]
    fn a_network_agrees_with_itself_in_clear_and_costs_what_was_planned() {
        for (numbers, tolerance) in [
            (Numbers::default(), 2e-3),
            (Numbers { ring_bits: 32, fraction_bits: 8 }, 0.3),
            (Numbers { ring_bits: 48, fraction_bits: 13 }, 1e-2),
        ] {
            let (program, weights) = network(numbers);
            let mut session = Session::local(&program, &weights, Protocol::SecureNn, [5; 32]).unwrap();
            for batch in [1, 3] {
                let input = pseudo(112 * batch, 99);
                let (outputs, moved) = session.run_rows(&[&input], batch, &mut |_, _, _| ()).unwrap();
                let expected = clear::evaluate(&program, &weights, &[&input], batch, &mut |_, _| ()).unwrap();
                for (got, wanted) in outputs[0].iter().zip(&expected[0]) {
                    assert!((got - wanted).abs() < tolerance, "{numbers:?}: {outputs:?} {expected:?}");
                }
                assert_eq!(outputs[1], expected[1], "labels");
                let cost = session.plan().cost(batch);
                assert_eq!(moved.rounds, cost.rounds);
                assert_eq!(moved.online_bytes, cost.online_bytes);
                assert_eq!(moved.offline_bytes, cost.offline_bytes);
                assert_eq!(moved.client_bytes, cost.client_bytes);
                assert_eq!(moved.wire_bytes, cost.wire_bytes());
                for link in &cost.links {
                    if let (Some(from), Some(to), crate::plan::Phase::Online) =
                        (Role::named(&link.from), Role::named(&link.to), link.phase)
                    {
                        assert_eq!(moved.links[&(from, to)], link.payload_bytes);
                    }
                }
            }
        }
    }
}
