//! Three parties carrying out a few steps, from given shares.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::tape::Tape;
use crate::Role;
use crate::gates::weights;
use crate::party::context::Context;
use crate::party::driver::{Driver, Stage, Want};
use crate::party::producer::{Producer, draw_masks};
use crate::party::server::{Server, Variable};
use crate::plan::{BitShares, Builder, Held, Placed, Plan, PlannedVariable, Wire};
use crate::program::Numbers;
use crate::role::{S0, S1};
use crate::stream::Pair;
use crate::wire::Frame;

/// A plan of a few steps.
pub(crate) struct Rig {
    plan: Arc<Plan>,
    units: u64,
}

/// What the parties hold before the first step.
#[derive(Default)]
pub(crate) struct Given {
    words: Vec<(u32, [Vec<u32>; 2])>,
    bits: Vec<(u32, [Vec<u8>; 2])>,
    held: Vec<(u32, Vec<u32>)>,
    /// What the crypto producer knows besides, from having dealt it.
    pub(crate) known_to_producer: Vec<u64>,
    /// Shares of the variables, for each version that is deployed, one after the other.
    pub(crate) versions: Vec<Vec<[Vec<u32>; 2]>>,
}

impl Given {
    /// Both servers' values of a wire.
    pub(crate) fn words<K>(&mut self, wire: Wire<K>, server0: Vec<u32>, server1: Vec<u32>) {
        self.words.push((wire.id(), [server0, server1]));
    }

    /// Both servers' shares of bits.
    pub(crate) fn bits(&mut self, wire: Wire<BitShares>, server0: Vec<u8>, server1: Vec<u8>) {
        self.bits.push((wire.id(), [server0, server1]));
    }

    /// The crypto producer's value of a wire.
    pub(crate) fn held(&mut self, wire: Wire<Held>, words: Vec<u32>) {
        self.held.push((wire.id(), words));
    }
}

/// What the parties hold after the last step, and saw on the way.
pub(crate) struct Ran {
    pub(crate) server0: Server<S0, u32, Tape>,
    pub(crate) server1: Server<S1, u32, Tape>,
    pub(crate) producer: Producer<u32, Tape>,
    dealing: Producer<u32, Tape>,
    /// Everything that each party saw: its shares of what was given, all streams it can expand, its material, and every
    /// message it received, both shares where it received both.
    pub(crate) views: [Vec<u64>; 3],
}

impl Ran {
    /// What the crypto producer dealt on a wire of masks.
    pub(crate) fn dealt(&self, wire: u32) -> &[u32] {
        self.dealing.dealt(wire).unwrap()
    }
}

impl Rig {
    /// Lays out steps in a ring of `ring_bits` bits.
    pub(crate) fn new<T>(ring_bits: u32, fraction_bits: u32, lay: impl FnOnce(&mut Builder) -> T) -> (Self, T) {
        let mut builder = Builder::new(Numbers { ring_bits, fraction_bits });
        let wires = lay(&mut builder);
        (Self { plan: Arc::new(Plan::bare(builder, vec![], vec![])), units: 1 }, wires)
    }

    /// The same with variables that are opened first.
    pub(crate) fn with_weights(mut self, elements: &[u32]) -> Self {
        let plan = Arc::get_mut(&mut self.plan).unwrap();
        plan.variables = elements
            .iter()
            .map(|n| PlannedVariable { elements: *n, masked: true, public: false, fraction_bits: 0, kept: None })
            .collect();
        let open = |(variable, elements): (u32, &u32)| Placed {
            step: weights::OpenWeights { variable, elements: *elements }.into(),
            level: 1,
            layer: 0,
        };
        plan.setup = (0..).zip(elements).map(open).collect();
        self
    }

    /// The plan.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The same for a batch.
    pub(crate) fn batch(mut self, units: u64) -> Self {
        self.units = units;
        self
    }

    fn at(&self, tape: &Tape, version: u64) -> Context<u32, Tape> {
        Context::new(Arc::clone(&self.plan), tape.clone(), 0..self.units, version).unwrap()
    }

    /// Carries out the steps.
    pub(crate) fn run(&self, tape: &Tape, given: Given) -> Ran {
        let mut views: [Vec<u64>; 3] = Default::default();
        let mut version = 0;
        let mut variables = [vec![], vec![]];
        for shares in &given.versions {
            let plain = |index: usize| shares.iter().map(|s| Variable::Plain(Arc::new(s[index].clone()))).collect();
            for (view, index) in views.iter_mut().zip([0, 1]) {
                view.extend(shares.iter().flat_map(|s| s[index].iter().map(|x| u64::from(*x))));
            }
            version += 1;
            let mut server0 = Driver::new(
                Server::<S0, u32, Tape>::for_setup(self.at(tape, version), plain(0)),
                Arc::clone(&self.plan),
                Stage::Setup,
                1,
            );
            let mut server1 = Driver::new(
                Server::<S1, u32, Tape>::for_setup(self.at(tape, version), plain(1)),
                Arc::clone(&self.plan),
                Stage::Setup,
                1,
            );
            exchange(&mut views, &mut [(Role::Server0, &mut server0), (Role::Server1, &mut server1)]);
            variables = [server0.actor.opened.clone(), server1.actor.opened.clone()]
                .map(|opened| opened.into_iter().map(|v| v.1).collect());
        }

        let masks = draw_masks(&self.at(tape, version), weights::B).unwrap();
        let mut dealing = Producer::new(self.at(tape, version), Arc::clone(&masks));
        let words = crate::deal::deal(&mut dealing, Role::Server0).unwrap();
        let material = crate::deal::deal(&mut dealing, Role::Server1).unwrap();
        views[0].extend(words.iter().flatten().map(|byte| u64::from(*byte)));
        views[1].extend(material.iter().flatten().map(|byte| u64::from(*byte)));
        let [variables0, variables1] = variables;
        let mut server0 = Server::<S0, u32, Tape>::new(self.at(tape, version), variables0, vec![], words).unwrap();
        let mut server1 = Server::<S1, u32, Tape>::new(self.at(tape, version), variables1, vec![], material).unwrap();
        let mut producer = Producer::new(self.at(tape, version), masks);
        for (wire, [first, second]) in given.words {
            views[0].extend(first.iter().map(|x| u64::from(*x)));
            views[1].extend(second.iter().map(|x| u64::from(*x)));
            server0.set(&Wire::<crate::plan::Own>::new(wire), first);
            server1.set(&Wire::<crate::plan::Own>::new(wire), second);
        }
        for (wire, [first, second]) in given.bits {
            views[0].extend(first.iter().map(|x| u64::from(*x)));
            views[1].extend(second.iter().map(|x| u64::from(*x)));
            server0.set_bits(&Wire::new(wire), first);
            server1.set_bits(&Wire::new(wire), second);
        }
        for (wire, words) in given.held {
            views[2].extend(words.iter().map(|x| u64::from(*x)));
            producer.set(&Wire::new(wire), words);
        }
        views[2].extend(given.known_to_producer);
        let batch = self.units as usize;
        let mut server0 = Driver::new(Keep(server0), Arc::clone(&self.plan), Stage::Query, batch);
        let mut server1 = Driver::new(Keep(server1), Arc::clone(&self.plan), Stage::Query, batch);
        let mut producer = Driver::new(Keep(producer), Arc::clone(&self.plan), Stage::Query, batch);
        exchange(
            &mut views,
            &mut [(Role::Server0, &mut server0), (Role::Server1, &mut server1), (Role::CryptoProducer, &mut producer)],
        );
        views[0].extend(tape.known_to(&[Pair::Servers, Pair::Producer0]));
        views[1].extend(tape.known_to(&[Pair::Servers, Pair::Producer1]));
        views[2].extend(tape.known_to(&[Pair::Producer0, Pair::Producer1]));
        Ran { server0: server0.actor.0, server1: server1.actor.0, producer: producer.actor.0, dealing, views }
    }
}

/// An actor that forgets nothing, so that tests can look at every wire.
pub(crate) struct Keep<A>(pub(crate) A);

impl<A: crate::party::driver::Actor> crate::party::driver::Actor for Keep<A> {
    type Lane = A::Lane;

    fn role(&self) -> Role {
        self.0.role()
    }

    fn send(
        &mut self,
        index: usize,
        step: &crate::gates::Step,
    ) -> Result<Vec<crate::party::column::Column<A::Lane>>, crate::Blame> {
        self.0.send(index, step)
    }

    fn finish(
        &mut self,
        index: usize,
        step: &crate::gates::Step,
        mine: Vec<crate::party::column::Column<A::Lane>>,
        theirs: Vec<Vec<crate::party::column::Column<A::Lane>>>,
    ) -> Result<(), crate::Blame> {
        self.0.finish(index, step, mine, theirs)
    }

    fn forget(&mut self, _wire: u32) {}
}

pub(crate) trait Pump {
    fn pump(&mut self) -> Vec<(Role, Frame)>;
    fn take(&mut self, from: Role, frame: &Frame);
}

impl<A: crate::party::driver::Actor> Pump for Driver<A> {
    fn pump(&mut self) -> Vec<(Role, Frame)> {
        let mut frames = vec![];
        while let Want::Transmit(to, frame) = self.poll().unwrap() {
            frames.push((to, frame));
        }
        frames
    }

    fn take(&mut self, from: Role, frame: &Frame) {
        self.handle(from, frame).unwrap();
    }
}

pub(crate) fn exchange(views: &mut [Vec<u64>; 3], parties: &mut [(Role, &mut dyn Pump)]) {
    let mut received: BTreeMap<(Role, Role), Vec<u64>> = BTreeMap::new();
    loop {
        let mut frames = vec![];
        for (from, party) in parties.iter_mut() {
            frames.extend(party.pump().into_iter().map(|(to, frame)| (*from, to, frame)));
        }
        if frames.is_empty() {
            break;
        }
        for (from, to, frame) in frames {
            received.entry((to, from)).or_default().extend(frame.payload.iter().map(|byte| u64::from(*byte)));
            parties.iter_mut().find(|(role, _)| *role == to).unwrap().1.take(from, &frame);
        }
    }
    for ((to, _), bytes) in received {
        views[to as usize].extend(bytes);
    }
}
