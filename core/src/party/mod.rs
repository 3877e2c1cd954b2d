//! The machine that each role runs: frames in, frames out, nothing else.
//!
//! ```text
//!            handle(from, frame)                    poll()
//!  links ───────────────────────▶ Party (level by level) ───────▶ Transmit | Need | Output | Assign | Commit | Done
//! ```
//! A [`Party`] holds no socket, clock or thread, and the same seeds make it emit the same bytes on every machine. The
//! host drains [`Party::poll`] until it says [`Event::Need`] or [`Event::Done`], and feeds what the links bring to
//! [`Party::handle`]. Both ends know the plan, so every frame is checked for being exactly the next one expected.

pub(crate) mod column;
pub(crate) mod context;
pub(crate) mod driver;
mod inbox;
pub(crate) mod prepared;
pub(crate) mod producer;
pub(crate) mod server;

pub use prepared::Prepared;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::Role;
use crate::deal::Dealer;
use crate::error::Blame;
use crate::gates::Step;
use crate::gates::input::{Entry, Input};
use crate::kernel::{Alone, Threads};
use crate::pack;
use crate::party::context::Context;
use crate::party::driver::{Driver, Stage, Want};
use crate::party::prepared::{Ahead, together};
use crate::party::producer::Producer;
use crate::party::server::{Server, Variable};
use crate::plan::{Plan, Port};
use crate::program::Visibility;
use crate::ring::{Lane, Ring};
use crate::role::{S0, S1, Side};
use crate::share;
use crate::snapshot::{SharedVariables, Snapshot, Variables};
use crate::state::{Assigned, State};
use crate::stock::{Burnt, Epoch};
use crate::stream::{Randomness, Seed, Seeds};
use crate::wire::Frame;

/// What a party wants of its host.
#[derive(Debug)]
pub enum Event {
    /// Send this frame to that party.
    Transmit(Role, Frame),
    /// Nothing can be done until that party sends more.
    Need(Role),
    /// This server's shares of all outputs, packed, in the program's order: for the players that the policy names.
    Output(Vec<Vec<u8>>),
    /// The weights, opened under their masks: to be used from now on, once the peer has them too.
    Commit(Snapshot),
    /// What kept variables are from now on, once the peer has it too.
    Assign(Assigned),
    /// Finished.
    Done,
}

/// What moved, as the party counted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Payload sent to each party.
    pub sent: BTreeMap<Role, u64>,
    /// Payload received from each party.
    pub received: BTreeMap<Role, u64>,
    /// The levels at which this party sent or received.
    pub levels: BTreeSet<u32>,
    /// When it worked on what, if it was given a clock.
    pub timeline: Vec<Timed>,
}

/// Nanoseconds since some moment: a clock that the host injects, for whoever wants to know where the time goes.
pub type Clock = fn() -> u64;

/// What kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Making a step's message, before anything of that level was received.
    Send,
    /// The rest of the step.
    Finish,
    /// Putting a step's part of a message into bytes.
    Pack,
    /// Reading it back, checked.
    Unpack,
}

/// A piece of work on one operation of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timed {
    /// The operation's number in the program.
    pub layer: u32,
    /// The gate that it is part of, by its struct's name.
    pub gate: &'static str,
    /// What was done.
    pub work: Work,
    /// When it began, by the host's clock.
    pub start: u64,
    /// How many nanoseconds it took.
    pub nanoseconds: u64,
}

/// One role's part in one session.
pub struct Party {
    machine: Box<dyn Machine + Send>,
}

impl core::fmt::Debug for Party {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Party(hidden)")
    }
}

/// What a party's work on one deployed model belongs to: the plan, the version of the weights, the epoch.
#[derive(Clone, Debug)]
pub struct Binding {
    role: Role,
    plan: Arc<Plan>,
    hash: [u8; 32],
    version: u64,
    epoch: Epoch,
    seeds: Seeds,
    threads: Arc<dyn Threads>,
}

impl Binding {
    /// `seeds` are this role's for the epoch; they are bound to the plan here, so that no two models share a stream.
    /// `version` is unlike that of every other deployment of this plan within the epoch.
    pub fn new(role: Role, plan: Arc<Plan>, version: u64, epoch: Epoch, seeds: &Seeds) -> Self {
        let hash = plan.hash();
        let seeds = seeds.bound_to(&hash, version, &epoch);
        Self { role, plan, hash, version, epoch, seeds, threads: Arc::new(Alone) }
    }

    /// The same, with threads that the host lends for large products; without, there are none. The frames are the same.
    #[must_use]
    pub fn with_threads(self, threads: Arc<dyn Threads>) -> Self {
        Self { threads, ..self }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The plan's identity.
    pub fn plan_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The version of the weights.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whose it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What this server hands to the players who feed masked inputs: the seeds of its part of the masks of these units, one
    /// input after the other. They are handed out once: the units must be burnt for this query.
    ///
    /// # Errors
    /// A bug: this is no server.
    pub fn input_masks(&self, units: core::ops::Range<u64>) -> Result<Vec<u8>, Blame> {
        let mut seeds = Vec::new();
        for (step, placed) in (0..).zip(&self.plan.steps) {
            if let Step::Input(Input { entry: Entry::Masked(_) }) = &placed.step {
                for unit in units.clone() {
                    let seed = self.seeds.input_seed(unit, step);
                    seeds.extend(seed.ok_or_else(|| Blame::bug("only servers have masks to hand out"))?.bytes());
                }
            }
        }
        Ok(seeds)
    }

    /// Arithmetic and streams for `units`.
    pub(crate) fn context<L: Lane>(&self, units: Range<u64>) -> Result<Context<L, Seeds>, Blame> {
        let at = Context::new(Arc::clone(&self.plan), self.seeds.clone(), units, self.version)?;
        let mut public = Sha256::new();
        public.update(self.hash);
        public.update(self.version.to_le_bytes());
        public.update(self.epoch.as_bytes());
        Ok(at.with_threads(Arc::clone(&self.threads)).with_public(public.finalize().into()))
    }

    fn check(&self, material: &Burnt) -> Result<(), Blame> {
        if material.epoch() == self.epoch { Ok(()) } else { Err(Blame::you("material of another epoch")) }
    }
}

impl Party {
    /// A server that opens its weights under their masks, once for each version and epoch; ends with [`Event::Commit`]. Kept
    /// variables are what `state` says.
    ///
    /// # Errors
    /// The shares are not those of the plan's program, or the role is no server.
    pub fn setup(binding: &Binding, shares: &SharedVariables, state: &State) -> Result<Self, Blame> {
        if shares.program() != &binding.plan.program_hash()
            || binding.plan.version_at(shares.version(), state.version()) != binding.version
        {
            return Err(Blame::you("shares of another program or version"));
        }
        let narrow = binding.plan.numbers().ring_bits <= 32;
        match (binding.role, narrow) {
            (Role::Server0, true) => setup::<S0, u32>(binding, shares, state),
            (Role::Server0, false) => setup::<S0, u64>(binding, shares, state),
            (Role::Server1, true) => setup::<S1, u32>(binding, shares, state),
            (Role::Server1, false) => setup::<S1, u64>(binding, shares, state),
            (Role::CryptoProducer, _) => Err(Blame::bug("the crypto producer has no weights")),
        }
    }

    /// A server that answers one query; `inputs` are this server's shares of the inputs, as the client sent them, and `prepared`
    /// what was computed ahead for the units, if that was done for all of them.
    ///
    /// # Errors
    /// An input is not what the plan says, or the material, the weights and the plan do not belong together.
    pub fn server(
        binding: &Binding,
        variables: &Snapshot,
        inputs: &[Vec<u8>],
        material: Burnt,
        prepared: Vec<Prepared>,
    ) -> Result<Self, Blame> {
        binding.check(&material)?;
        if variables.belongs_to() != (binding.role, binding.hash, binding.version, binding.epoch) {
            return Err(Blame::you("weights of another plan, version or epoch"));
        }
        match (binding.role, variables.variables()) {
            (Role::Server0, Variables::Narrow(v)) => query::<S0, u32>(binding, v.clone(), inputs, material, prepared),
            (Role::Server0, Variables::Wide(v)) => query::<S0, u64>(binding, v.clone(), inputs, material, prepared),
            (Role::Server1, Variables::Narrow(v)) => query::<S1, u32>(binding, v.clone(), inputs, material, prepared),
            (Role::Server1, Variables::Wide(v)) => query::<S1, u64>(binding, v.clone(), inputs, material, prepared),
            (Role::CryptoProducer, _) => Err(Blame::bug("the crypto producer answers no queries")),
        }
    }

    /// The crypto producer's part online, for protocols that want one.
    ///
    /// # Errors
    /// The material is of another epoch.
    pub fn crypto_producer(dealer: &Dealer, material: Burnt) -> Result<Self, Blame> {
        dealer.binding().check(&material)?;
        dealer.party(material.units()).map(|machine| Self { machine })
    }

    /// Takes a frame that `from` sent.
    ///
    /// # Errors
    /// The frame is not the next one that the plan expects of `from`: the session is over.
    pub fn handle(&mut self, from: Role, frame: &Frame) -> Result<(), Blame> {
        self.machine.handle(from, frame)
    }

    /// What to do next.
    ///
    /// # Errors
    /// A message does not decode, or a bug: the session is over.
    pub fn poll(&mut self) -> Result<Event, Blame> {
        self.machine.poll()
    }

    /// Times every step from now on.
    pub fn observe(&mut self, clock: Clock) {
        self.machine.observe(clock);
    }

    /// What moved so far.
    pub fn measured(&self) -> &Measured {
        self.machine.measured()
    }
}

/// A role at work, whatever its lanes.
pub(crate) trait Machine {
    fn handle(&mut self, from: Role, frame: &Frame) -> Result<(), Blame>;
    fn poll(&mut self) -> Result<Event, Blame>;
    fn measured(&self) -> &Measured;
    fn observe(&mut self, clock: Clock);
}

/// Ends a session's work: what is handed out after the last level, one thing at a time.
type Harvest<A> = fn(&mut A) -> Result<Option<Event>, Blame>;

pub(crate) struct Working<A: driver::Actor> {
    driver: Driver<A>,
    harvest: Option<Harvest<A>>,
}

impl<A: driver::Actor> Machine for Working<A> {
    fn handle(&mut self, from: Role, frame: &Frame) -> Result<(), Blame> {
        self.driver.handle(from, frame)
    }

    fn poll(&mut self) -> Result<Event, Blame> {
        Ok(match self.driver.poll()? {
            Want::Transmit(to, frame) => Event::Transmit(to, frame),
            Want::Need(from) => Event::Need(from),
            Want::Finished => match self.harvest {
                Some(harvest) => harvest(&mut self.driver.actor)?.unwrap_or(Event::Done),
                None => Event::Done,
            },
        })
    }

    fn measured(&self) -> &Measured {
        &self.driver.measured
    }

    fn observe(&mut self, clock: Clock) {
        self.driver.clock = Some(clock);
    }
}

fn setup<S: Side, L: Lane>(binding: &Binding, shares: &SharedVariables, state: &State) -> Result<Party, Blame>
where
    Variables: From<Vec<Variable<L>>>,
{
    let form = |(values, planned): (Vec<L>, &crate::plan::PlannedVariable)| match planned.public {
        true => Variable::Public(Arc::new(values)),
        false => Variable::Plain(Arc::new(values)),
    };
    let mut values = shares.expand::<L>(&binding.plan)?;
    for (index, kept) in state.of::<L>(S::ROLE, &binding.plan)? {
        values.iter_mut().skip(index).take(1).for_each(|place| place.clone_from(&kept));
    }
    let plain = values.into_iter().zip(&binding.plan.variables).map(form).collect();
    let at = binding.context::<L>(0..1)?;
    // Material belongs to queries; opening weights wants none.
    let server = Server::<S, L, Seeds>::for_setup(at, plain);
    let driver = Driver::new(server, Arc::clone(&binding.plan), Stage::Setup, 1);
    let belongs = (binding.role, binding.hash, binding.version, binding.epoch);
    Ok(Party { machine: Box::new(SettingUp { driver, belongs, done: false }) })
}

/// A server that opens its weights.
struct SettingUp<S: Side, L: Lane> {
    driver: Driver<Server<S, L, Seeds>>,
    belongs: (Role, [u8; 32], u64, Epoch),
    done: bool,
}

impl<S: Side, L: Lane> Machine for SettingUp<S, L>
where
    Variables: From<Vec<Variable<L>>>,
{
    fn handle(&mut self, from: Role, frame: &Frame) -> Result<(), Blame> {
        self.driver.handle(from, frame)
    }

    fn poll(&mut self) -> Result<Event, Blame> {
        Ok(match self.driver.poll()? {
            Want::Transmit(to, frame) => Event::Transmit(to, frame),
            Want::Need(from) => Event::Need(from),
            Want::Finished if self.done => Event::Done,
            Want::Finished => {
                self.done = true;
                let mut variables = core::mem::take(&mut self.driver.actor.variables);
                for (index, opened) in core::mem::take(&mut self.driver.actor.opened) {
                    if let Some(place) = variables.get_mut(index as usize) {
                        *place = opened;
                    }
                }
                Event::Commit(Snapshot::new(self.belongs, variables.into()))
            }
        })
    }

    fn measured(&self) -> &Measured {
        &self.driver.measured
    }

    fn observe(&mut self, clock: Clock) {
        self.driver.clock = Some(clock);
    }
}

/// One input, as the client sent it: a seed for server0's share, everything else packed.
pub(crate) fn input_share<S: Side, L: Lane>(
    ring: Ring<L>,
    port: &Port,
    batch: usize,
    bytes: &[u8],
) -> Result<Vec<L>, Blame> {
    let count = port.elements as usize * batch;
    if S::INDEX == 0 && port.visibility == Visibility::Private {
        let seed: [u8; 32] =
            bytes.try_into().map_err(|_| Blame::client(format!("a seed of {} bytes, not 32", bytes.len())))?;
        return Ok(share::expand(ring, &Seed::new(seed), count));
    }
    let wanted = pack::packed_len(count, ring.bits()).ok_or_else(|| Blame::client("an input that is too large"))?;
    if bytes.len() != wanted {
        return Err(Blame::client(format!("an input of {} bytes, where {wanted} belong", bytes.len())));
    }
    Ok(pack::unpack_lanes(bytes, ring.bits(), count))
}

fn query<S: Side, L: Ahead>(
    binding: &Binding,
    variables: Vec<Variable<L>>,
    inputs: &[Vec<u8>],
    mut material: Burnt,
    prepared: Vec<Prepared>,
) -> Result<Party, Blame> {
    let plan = Arc::clone(&binding.plan);
    let at = binding.context::<L>(material.units())?;
    let batch = at.batch();
    if batch != 1 && plan.assigns() {
        return Err(Blame::client(format!(
            "{batch} samples, and a run that changes variables is one of a single sample"
        )));
    }
    if inputs.len() != plan.inputs.len() {
        return Err(Blame::client(format!("{} inputs, where {} belong", inputs.len(), plan.inputs.len())));
    }
    let shares = inputs.iter().zip(&plan.inputs);
    let shares = shares.map(|(bytes, port)| input_share::<S, L>(at.ring, port, batch, bytes));
    let shares = shares.collect::<Result<_, _>>()?;
    let mut server = Server::<S, L, Seeds>::new(at, variables, shares, material.take_material())?;
    server.ahead = together(material.units(), prepared);
    let driver = Driver::new(server, plan, Stage::Query, batch);
    Ok(Party { machine: Box::new(Working { driver, harvest: Some(harvest) }) })
}

fn harvest<S: Side, L: Lane, R: Randomness>(server: &mut Server<S, L, R>) -> Result<Option<Event>, Blame> {
    if !server.outputs.is_empty() {
        let bits = server.at.ring.bits();
        let packed = core::mem::take(&mut server.outputs).into_iter().map(|mut share| {
            let mut bytes = Vec::new();
            pack::pack_lanes(&share, bits, &mut bytes);
            share.zeroize();
            bytes
        });
        return Ok(Some(Event::Output(packed.collect())));
    }
    if server.assigned.is_empty() {
        return Ok(None);
    }
    let assigned = core::mem::take(&mut server.assigned);
    Ok(Some(Event::Assign(Assigned::new(&server.at.plan, assigned)?)))
}

pub(crate) fn producing<L: Lane>(producer: Producer<L, Seeds>) -> Box<dyn Machine + Send> {
    let (plan, batch) = (Arc::clone(&producer.at.plan), producer.at.batch());
    let driver = Driver::new(producer, plan, Stage::Query, batch);
    Box::new(Working { driver, harvest: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use crate::graph::{Bounds, Graph};
    use crate::program::{Numbers, Weights};
    use crate::{Protocol, Variant};

    /// Each input of each sample at each server has a sub-seed of its own, in every version and epoch: whoever burns
    /// units once issues each once.
    #[test]
    fn no_two_inputs_are_masked_from_one_sub_seed() {
        let graph = Graph::new();
        let [x, y] = ["x", "y"].map(|name| graph.masked_input("client", name, &[3], [-1.0, 1.0]).unwrap());
        graph.output("client", &(&x * &y).unwrap()).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Proved(&Weights::default())).unwrap();
        let plan = Arc::new(Plan::of_variant(&program, Protocol::Fss, Variant::default()).unwrap());
        let seeds = || [Seed::new([1; 32]), Seed::new([2; 32]), Seed::new([3; 32])];
        let ([servers, zero, one], mut issued) = (seeds(), BTreeSet::new());
        let epochs = [1, 2].map(|nonce| Epoch::new([&[nonce; 32], &[0; 32], &[0; 32]]));
        for (epoch, version) in epochs.into_iter().flat_map(|epoch| [1, 2].map(|version| (epoch, version))) {
            for (role, seeds) in [
                (Role::Server0, Seeds::server0(servers.clone(), zero.clone())),
                (Role::Server1, Seeds::server1(servers.clone(), one.clone())),
            ] {
                let binding = Binding::new(role, Arc::clone(&plan), version, epoch, &seeds);
                let all = binding.input_masks(0..3).unwrap();
                assert_eq!(all.len(), 2 * 3 * 32, "two inputs of three samples");
                for seed in all.chunks(32) {
                    assert!(
                        issued.insert(seed.to_vec()),
                        "{role}, version {version}: a sub-seed that was issued before"
                    );
                }
                // The same units have the same ones: only burning keeps them from being issued twice.
                let second = binding.input_masks(1..2).unwrap();
                assert!(second.chunks(32).all(|seed| issued.contains(seed)), "{role}");
            }
            let producer = Seeds::crypto_producer(zero.clone(), one.clone());
            let binding = Binding::new(Role::CryptoProducer, Arc::clone(&plan), version, epoch, &producer);
            assert!(binding.input_masks(0..1).is_err(), "who knows both parts hands out none");
        }
    }
}
