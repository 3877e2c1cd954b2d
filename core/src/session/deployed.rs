//! One entry point in this process: its weights opened, its material dealt, run after run.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::exchange::{Moved, Tap, exchange, with_headers};
use crate::Role;
use crate::client::ClientSpec;
use crate::deal::Dealer;
use crate::error::Blame;
use crate::party::{Binding, Clock, Event, Party, Prepared};
use crate::plan::Plan;
use crate::program::{Op, Program};
use crate::snapshot::{SharedVariables, Snapshot};
use crate::state::{Assigned, State};
use crate::statistics::Span;
use crate::stock::{Burnt, Epoch, Stock};
use crate::stream::{Seed, Seeds};

/// An entry point and everybody's part of it.
#[derive(Debug)]
pub(super) struct Deployed {
    pub(super) plan: Arc<Plan>,
    pub(super) spec: ClientSpec,
    pub(super) shares: [SharedVariables; 2],
    /// The variables' names, in order.
    pub(super) names: Vec<String>,
    version: u64,
    epoch: Epoch,
    seeds: [Seeds; 3],
    /// For the version of the state at which it was last run, if the masks of weights depend on it.
    ready: Option<Ready>,
}

/// What belongs to one version.
#[derive(Debug)]
struct Ready {
    version: u64,
    bindings: [Binding; 2],
    snapshots: [Snapshot; 2],
    dealer: Dealer,
    stocks: [Stock; 3],
}

/// What a run gave.
pub(super) struct Given {
    pub(super) outputs: Vec<Vec<f32>>,
    pub(super) assigned: Option<[Assigned; 2]>,
    pub(super) moved: Moved,
    pub(super) timeline: Vec<Span>,
}

impl Deployed {
    /// `version` is unlike that of the other entry points of the epoch.
    pub(super) fn new(
        program: &Program,
        plan: Arc<Plan>,
        shares: [SharedVariables; 2],
        version: u64,
        epoch: Epoch,
        seeds: [Seeds; 3],
    ) -> Self {
        let names = program.variables().filter_map(|(_, node)| match &node.op {
            Op::Variable { name, .. } => Some(name.clone()),
            _ => None,
        });
        let (names, spec) = (names.collect(), ClientSpec::new(program, &plan));
        Self { plan, spec, shares, names, version, epoch, seeds, ready: None }
    }

    fn bind(&self, role: Role, version: u64) -> Binding {
        let [zero, one, producer] = &self.seeds;
        let seeds = match role {
            Role::Server0 => zero,
            Role::Server1 => one,
            Role::CryptoProducer => producer,
        };
        Binding::new(role, Arc::clone(&self.plan), version, self.epoch, seeds)
    }

    /// Opens the weights under their masks.
    fn set_up(&self, version: u64, states: &[State; 2]) -> Result<Ready, Blame> {
        let bindings = [Role::Server0, Role::Server1].map(|role| self.bind(role, version));
        let dealer = Dealer::new(self.bind(Role::CryptoProducer, version))?;
        let [binding0, binding1] = &bindings;
        let ([shares0, shares1], [state0, state1]) = (&self.shares, states);
        let mut parties = [
            (Role::Server0, Party::setup(binding0, shares0, state0)?),
            (Role::Server1, Party::setup(binding1, shares1, state1)?),
        ];
        let mut snapshots = Vec::new();
        exchange(&mut parties, &mut |_, _, _| (), &mut |_, event| {
            if let Event::Commit(snapshot) = event {
                snapshots.push(snapshot);
            }
        })?;
        let snapshots = <[Snapshot; 2]>::try_from(snapshots).map_err(|_| Blame::bug("weights were not opened"))?;
        let stocks = Role::ALL.map(|role| Stock::new(self.epoch, self.plan.unit_bytes(role), 1 << 20));
        Ok(Ready { version, bindings, snapshots, dealer, stocks })
    }

    /// Opens the weights for these states, if that has not been done.
    pub(super) fn make_ready(&mut self, states: &[State; 2]) -> Result<(), Blame> {
        let [state, _] = states;
        let version = self.plan.version_at(self.version, state.version());
        if self.ready.as_ref().is_none_or(|ready| ready.version != version) {
            self.ready = Some(self.set_up(version, states)?);
        }
        Ok(())
    }

    /// A new epoch: nothing that was dealt or opened before is used any more.
    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.ready = None;
    }

    /// What the crypto producer deals for these units.
    pub(super) fn dealt(&self, units: core::ops::Range<u64>) -> Result<Vec<Vec<u8>>, Blame> {
        let ready = self.ready.as_ref().ok_or_else(|| Blame::bug("an entry point that was not set up"))?;
        let [zero, one] = [Role::Server0, Role::Server1].map(|role| ready.dealer.deal(role, units.clone()));
        Ok([zero?, one?].concat())
    }

    /// One query of `batch` samples, every input flat, in order; `tap` sees every frame. All that clients draw is from `seed`.
    pub(super) fn run(
        &mut self,
        states: &[State; 2],
        inputs: &[&[f32]],
        batch: usize,
        seed: &Seed,
        clock: Option<Clock>,
        tap: Tap<'_>,
    ) -> Result<Given, Blame> {
        self.make_ready(states)?;
        let Self { plan, spec, ready, .. } = self;
        let ready = ready.as_mut().ok_or_else(|| Blame::bug("an entry point that was not set up"))?;
        let [stock0, stock1, stock2] = &mut ready.stocks;
        let units = stock1.next()..stock1.next() + batch as u64;
        let [binding0, binding1] = &ready.bindings;
        let [masks0, masks1] = [binding0, binding1].map(|binding| binding.input_masks(units.clone()));
        let (masks0, masks1) = (masks0?, masks1?);
        let shared = spec.share_under(inputs, batch, *seed.bytes(), [&masks0, &masks1])?;
        let mut moved = Moved::default();
        for (role, stock) in [(Role::Server0, &mut *stock0), (Role::Server1, &mut *stock1)] {
            if plan.unit_bytes(role) == 0 {
                continue;
            }
            for (unit, material) in units.clone().zip(ready.dealer.deal(role, units.clone())?) {
                moved.offline_bytes += material.len() as u64;
                moved.wire_bytes += with_headers(material.len());
                stock.put(unit, material)?;
            }
        }
        let ([snapshot0, snapshot1], [state0, state1]) = (&ready.snapshots, states);
        let (snapshot0, snapshot1) = (snapshot0.at(plan, state0)?, snapshot1.at(plan, state1)?);
        let (burnt0, burnt1) = (stock0.burn(units.clone())?, stock1.burn(units.clone())?);
        let prepare = |binding: &Binding, snapshot: &Snapshot, burnt: &Burnt| -> Result<Vec<Prepared>, Blame> {
            let of = |(unit, material)| Prepared::new(binding, snapshot, unit, material);
            if plan.prepares() { burnt.material().map(of).collect() } else { Ok(Vec::new()) }
        };
        let ahead0 = prepare(binding0, &snapshot0, &burnt0)?;
        let ahead1 = prepare(binding1, &snapshot1, &burnt1)?;
        let mut parties = [
            (Role::Server0, Party::server(binding0, &snapshot0, &shared.server0, burnt0, ahead0)?),
            (Role::Server1, Party::server(binding1, &snapshot1, &shared.server1, burnt1, ahead1)?),
            (Role::CryptoProducer, Party::crypto_producer(&ready.dealer, stock2.burn(units)?)?),
        ];
        if let Some(clock) = clock {
            parties.iter_mut().for_each(|(_, party)| party.observe(clock));
        }
        let (mut outputs, mut assigned) = (BTreeMap::new(), Vec::new());
        moved.exchange(&mut parties, tap, &mut |role, event| match event {
            Event::Output(shares) => drop(outputs.insert(role, shares.concat())),
            Event::Assign(values) => assigned.push((role, values)),
            _ => {}
        })?;
        let spans = parties.iter().flat_map(|(role, party)| {
            party.measured().timeline.iter().map(|timed| Span { role: *role, timed: *timed })
        });
        let timeline = spans.collect();
        assigned.sort_by_key(|(role, _)| *role);
        let assigned: Vec<Assigned> = assigned.into_iter().map(|(_, values)| values).collect();
        let share = |role| outputs.get(&role).map(Vec::as_slice).unwrap_or_default();
        let shares = [share(Role::Server0), share(Role::Server1)];
        // All inputs of one server travel together, and so do all outputs.
        let asked = [&shared.server0, &shared.server1].map(|inputs| inputs.iter().map(Vec::len).sum());
        let given = [masks0.len(), masks1.len()];
        for message in asked.into_iter().chain(given).chain(shares.map(<[u8]>::len)) {
            moved.client_bytes += message as u64;
            moved.wire_bytes += with_headers(message);
        }
        let outputs = spec.reconstruct(batch, shares)?;
        Ok(Given { outputs, assigned: <[Assigned; 2]>::try_from(assigned).ok(), moved, timeline })
    }
}
