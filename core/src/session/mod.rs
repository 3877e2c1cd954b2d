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

mod deployed;
mod exchange;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use deployed::{Deployed, Given};
pub use exchange::{Moved, Tap};
use ndarray::{ArrayD, ArrayViewD};

use crate::client::ClientSpec;
use crate::error::Blame;
use crate::party::Clock;
use crate::plan::Plan;
use crate::program::{EntryPoints, Program, RUN, Weights, no_entry};
use crate::ring::Lane;
use crate::snapshot::SharedVariables;
use crate::state::State;
use crate::statistics::Statistics;
use crate::stock::Epoch;
use crate::stream::{Seed, Seeds};
use crate::{Protocol, Role};

/// Programs deployed to three parties in this process.
#[derive(Debug)]
pub struct Session {
    entries: BTreeMap<String, Deployed>,
    /// What [`Session::run`] runs.
    main: String,
    states: [State; 2],
    seed: Seed,
    epochs: u64,
    queries: u64,
    clock: Option<Clock>,
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
    /// Shares `weights` and opens them under their masks. `programs` is a program, or several entry points. All randomness
    /// comes from `seed`.
    ///
    /// # Errors
    /// A program cannot be planned, or weights do not fit it.
    pub fn local(
        programs: impl Into<EntryPoints>,
        weights: &Weights,
        protocol: Protocol,
        seed: [u8; 32],
    ) -> Result<Self, Blame> {
        let programs = programs.into();
        let plan = |(name, program): (&str, &Program)| {
            let plan = Plan::new(program, protocol);
            let plan = plan.map_err(|error| Blame::you(format!("the entry point {name}: {error}")))?;
            Ok((String::from(name), (program.clone(), Arc::new(plan))))
        };
        Self::of(programs.iter().map(plan).collect::<Result<_, Blame>>()?, weights, seed)
    }

    /// [`Session::local`] of one program, with a plan made before.
    ///
    /// # Errors
    /// The weights do not fit the program.
    pub fn with_plan(program: &Program, plan: Arc<Plan>, weights: &Weights, seed: [u8; 32]) -> Result<Self, Blame> {
        Self::of([(RUN.into(), (program.clone(), plan))].into(), weights, seed)
    }

    fn of(plans: BTreeMap<String, (Program, Arc<Plan>)>, weights: &Weights, seed: [u8; 32]) -> Result<Self, Blame> {
        let seed = Seed::new(seed);
        let epoch = epoch(&seed, 0);
        let derived = |purpose| seed.derive(purpose, &[]);
        let (servers, producer0, producer1) = (derived("servers"), derived("producer 0"), derived("producer 1"));
        let seeds = || {
            [
                Seeds::server0(servers.clone(), producer0.clone()),
                Seeds::server1(servers.clone(), producer1.clone()),
                Seeds::crypto_producer(producer0.clone(), producer1.clone()),
            ]
        };
        let mut entries = BTreeMap::new();
        for (version, (name, (program, plan))) in (1..).zip(plans) {
            let named = [name.as_bytes()];
            let shares_seed = seed.derive("weights", named.get(usize::from(version == 1)..).unwrap_or_default());
            let shares = SharedVariables::share(&program, &plan, version, weights, *shares_seed.bytes())?;
            entries.insert(name, Deployed::new(&program, plan, shares, version, epoch, seeds()));
        }
        let of = |role: Role| {
            let own = |entry: &Deployed| {
                let [zero, one] = &entry.shares;
                if role == Role::Server0 { zero.clone() } else { one.clone() }
            };
            let shares: Vec<_> = entries.values().map(|entry| (Arc::clone(&entry.plan), own(entry))).collect();
            State::new(role, shares.iter().map(|(plan, shares)| (&**plan, shares)))
        };
        let states = [of(Role::Server0)?, of(Role::Server1)?];
        entries.values_mut().try_for_each(|entry| entry.make_ready(&states))?;
        let main = if entries.contains_key(RUN) { Some(RUN) } else { entries.keys().next().map(String::as_str) };
        let main = main.unwrap_or(RUN).into();
        Ok(Self { entries, main, states, seed, epochs: 0, queries: 0, clock: None })
    }

    fn deployed(&self, entry: &str) -> Result<&Deployed, Blame> {
        let missing = || Blame::you(no_entry(entry, self.entries.keys().map(String::as_str)));
        self.entries.get(entry).ok_or_else(missing)
    }

    fn main(&self) -> &Deployed {
        // There is one: no session is made without.
        #[allow(clippy::indexing_slicing, reason = "`of` has put it there")]
        &self.entries[&self.main]
    }

    /// The plan of what [`Session::run`] runs.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.main().plan
    }

    /// The plan of an entry point.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn plan_of(&self, entry: &str) -> Result<&Arc<Plan>, Blame> {
        Ok(&self.deployed(entry)?.plan)
    }

    /// What clients know of what [`Session::run`] runs.
    pub fn spec(&self) -> &ClientSpec {
        &self.main().spec
    }

    /// What the crypto producer deals for these units.
    pub(crate) fn dealt(&self, units: core::ops::Range<u64>) -> Result<Vec<Vec<u8>>, Blame> {
        self.main().dealt(units)
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
        let found = self
            .entries
            .values()
            .find_map(|entry| entry.names.iter().position(|name| name == variable).map(|index| (entry, index)));
        let (entry, index) = found.ok_or_else(|| Blame::you(format!("no variable is called {variable}")))?;
        let of = |(shares, state): (&SharedVariables, &State)| match entry.plan.numbers().ring_bits {
            ..=32 => share_of::<u32>(entry, shares, state, index),
            _ => share_of::<u64>(entry, shares, state, index),
        };
        let ([shares0, shares1], [state0, state1]) = (&entry.shares, &self.states);
        Ok([of((shares0, state0))?, of((shares1, state1))?])
    }

    /// Both servers' kept variables, to go on with another time.
    pub fn states(&self) -> &[State; 2] {
        &self.states
    }

    /// Goes on with kept variables as they were, or those of another session of the same programs.
    ///
    /// # Errors
    /// They are two servers' of different versions, or of other variables.
    pub fn restore(&mut self, states: [State; 2]) -> Result<(), Blame> {
        for (new, old) in states.iter().zip(&self.states) {
            new.check_like(old)?;
        }
        let [zero, one] = &states;
        if zero.version() != one.version() {
            return Err(Blame::you(format!(
                "server0's state is of version {}, server1's of version {}",
                zero.version(),
                one.version()
            )));
        }
        self.states = states;
        // The same version may have been another state, and its masks are used.
        self.epochs += 1;
        let epoch = epoch(&self.seed, self.epochs);
        self.entries.values_mut().for_each(|entry| entry.begin(epoch));
        Ok(())
    }

    /// One run. `inputs` are fed by name; each has its input's shape, or that of a batch of them, with an axis more in front.
    ///
    /// # Errors
    /// An input is missing, unknown, of another shape, or has a value beyond its range.
    pub fn run(&mut self, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Run, Blame> {
        let main = self.main.clone();
        self.call(&main, inputs)
    }

    /// One run of an entry point, as [`Session::run`]. What it assigns, all others find from then on.
    ///
    /// # Errors
    /// There is no such entry point; or as [`Session::run`].
    pub fn call(&mut self, entry: &str, inputs: &[(&str, ArrayViewD<'_, f32>)]) -> Result<Run, Blame> {
        let deployed = self.deployed(entry)?;
        let (rows, batch) = deployed.spec.batch(inputs)?;
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let given = self.once(entry, &rows, batch.unwrap_or(1), &mut |_, _, _| ())?;
        let deployed = self.deployed(entry)?;
        let statistics = Statistics::new(&deployed.plan, batch.unwrap_or(1), given.moved, given.timeline);
        Ok(Run { outputs: deployed.spec.shaped(given.outputs, batch)?, statistics })
    }

    /// One query of `batch` samples, every input flat, in order; `tap` sees every frame.
    ///
    /// # Errors
    /// The inputs do not fit.
    pub fn run_rows(&mut self, inputs: &[&[f32]], batch: usize, tap: Tap<'_>) -> Result<(Vec<Vec<f32>>, Moved), Blame> {
        let main = self.main.clone();
        let given = self.once(&main, inputs, batch, tap)?;
        Ok((given.outputs, given.moved))
    }

    fn once(&mut self, entry: &str, inputs: &[&[f32]], batch: usize, tap: Tap<'_>) -> Result<Given, Blame> {
        self.queries += 1;
        let seed = self.seed.derive("query", &[&self.queries.to_le_bytes()]);
        let missing = no_entry(entry, self.entries.keys().map(String::as_str));
        let deployed = self.entries.get_mut(entry).ok_or_else(|| Blame::you(missing))?;
        let mut given = deployed.run(&self.states, inputs, batch, &seed, self.clock, tap)?;
        if let Some([zero, one]) = given.assigned.take() {
            let [state0, state1] = &self.states;
            self.states = [state0.after(zero)?, state1.after(one)?];
        }
        Ok(given)
    }
}

/// The session's first epoch, or a later one.
fn epoch(seed: &Seed, number: u64) -> Epoch {
    let number = number.to_le_bytes();
    let parts: &[&[u8]] = if number == [0; 8] { &[] } else { &[&number] };
    let [zero, one, two] = ["nonce 0", "nonce 1", "nonce 2"].map(|purpose| seed.derive(purpose, parts));
    Epoch::new([zero.bytes(), one.bytes(), two.bytes()])
}

fn share_of<L: Lane>(
    entry: &Deployed,
    shares: &SharedVariables,
    state: &State,
    index: usize,
) -> Result<Vec<u64>, Blame> {
    let kept = state.of::<L>(state.role(), &entry.plan)?.into_iter().find(|(at, _)| *at == index);
    let share = match kept {
        Some((_, share)) => Some(share),
        None => shares.expand::<L>(&entry.plan)?.into_iter().nth(index),
    };
    Ok(share.unwrap_or_default().iter().map(|x| x.to_u64()).collect())
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
