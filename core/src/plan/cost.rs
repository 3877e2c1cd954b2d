//! What a plan costs and discloses, exactly, before it runs.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::Serialize;

use super::{Block, Class, Placed, Plan, Route, WireId};
use crate::Role;
use crate::gates::Gate;
use crate::program::{Origin, Visibility};
use crate::wire::{HEADER_BYTES, frames_for};

/// When bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Once for each version of the weights and epoch.
    Setup,
    /// Ahead of the query.
    Offline,
    /// From the arrival of the inputs on.
    Online,
    /// On the client's links.
    Client,
}

/// One direction of one link, for one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkCost {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// When.
    pub phase: Phase,
    /// Payload.
    pub payload_bytes: u64,
    /// With the frames' headers.
    pub wire_bytes: u64,
}

/// The cost of one batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Messages on the longest chain among the three parties.
    pub rounds: u32,
    /// Payload among the three parties from the arrival of the inputs on.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// Payload on the client's links.
    pub client_bytes: u64,
    /// Payload of opening the masked weights, once for each version and epoch.
    pub setup_bytes: u64,
    /// Every link and direction that is used.
    pub links: Vec<LinkCost>,
}

impl Cost {
    /// Everything that one batch moves, frames' headers included; opening the weights is not part of it.
    pub fn wire_bytes(&self) -> u64 {
        self.links.iter().filter(|link| link.phase != Phase::Setup).map(|link| link.wire_bytes).sum()
    }
}

/// One operation's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerCost {
    /// The wire's number, as a name.
    pub name: String,
    /// The operation.
    pub op: String,
    /// One sample's shape.
    pub shape: Vec<u32>,
    /// Levels that belong to it.
    pub rounds: u32,
    /// Payload among the parties.
    pub online_bytes: u64,
    /// Payload dealt ahead.
    pub offline_bytes: u64,
    /// |x| < 2^bound_bits.
    pub bound_bits: i32,
    /// |x| < bound, which may be finer than a power of two.
    pub bound: f64,
    /// Where the bound comes from.
    pub bound_from: &'static str,
    /// How far an approximation may be off; 0 for what is exact.
    pub error_bound: f64,
}

/// What a party sees in clear.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Disclosure {
    /// Who sees it.
    pub to: &'static str,
    /// What.
    pub what: &'static str,
    /// Why that says nothing.
    pub because: &'static str,
}

const CLIENT: &str = "prediction-client";

impl Route {
    /// The directions in which a message of this route moves.
    pub(crate) fn directions(self) -> &'static [(Role, Role)] {
        use Role::{CryptoProducer, Server0, Server1};
        match self {
            Route::Servers => &[(Server0, Server1), (Server1, Server0)],
            Route::ToProducer => &[(Server0, CryptoProducer), (Server1, CryptoProducer)],
            Route::FromProducer => &[(CryptoProducer, Server1)],
        }
    }
}

impl Plan {
    /// The payload of one step, in one direction.
    pub(crate) fn step_bytes(&self, placed: &Placed, batch: usize) -> u64 {
        let traffic = placed.step.traffic(&self.shapes);
        traffic.map_or(0, |t| t.blocks.iter().map(|b| b.bytes(self.numbers(), batch) as u64).sum())
    }

    /// The blocks that a server is dealt for one step of one unit.
    pub(crate) fn dealt_blocks(&self, placed: &Placed, to: Role) -> Vec<Block> {
        let mut blocks = placed.step.words(&self.shapes);
        if to == Role::Server1 {
            blocks.extend(placed.step.material(&self.shapes));
        }
        blocks
    }

    /// The bytes that a server is dealt for one step of one unit.
    pub(crate) fn material_bytes(&self, placed: &Placed, to: Role) -> usize {
        self.dealt_blocks(placed, to).iter().map(|block| block.bytes(self.numbers(), 1)).sum()
    }

    /// The bytes that a server is dealt for one unit; none for the crypto producer.
    pub fn unit_bytes(&self, to: Role) -> usize {
        match to {
            Role::CryptoProducer => 0,
            _ => self.steps.iter().map(|placed| self.material_bytes(placed, to)).sum(),
        }
    }

    /// Rounds and bytes of one batch.
    pub fn cost(&self, batch: usize) -> Cost {
        let mut links: BTreeMap<(Phase, &str, &str), (u64, u64)> = BTreeMap::new();
        let mut add = |phase, from, to, bytes: u64| {
            let link = links.entry((phase, from, to)).or_default();
            link.0 += bytes;
            link.1 += bytes + frames_for(bytes) * HEADER_BYTES as u64;
        };
        for (phase, steps, batch) in [(Phase::Setup, &self.setup, 1), (Phase::Online, &self.steps, batch)] {
            for ((_, from, to), bytes) in self.messages(steps, batch) {
                add(phase, from.name(), to.name(), bytes);
            }
        }
        for server in [Role::Server0, Role::Server1] {
            let bytes = self.unit_bytes(server) as u64;
            for _ in 0..if bytes > 0 { batch } else { 0 } {
                add(Phase::Offline, Role::CryptoProducer.name(), server.name(), bytes);
            }
        }
        let ring = |elements: u32| crate::pack::packed_len(elements as usize * batch, self.numbers().ring_bits);
        let total =
            |ports: &[super::Port]| ports.iter().map(|p| ring(p.elements).unwrap_or(usize::MAX) as u64).sum::<u64>();
        let seed = crate::client::SEED_BYTES as u64;
        let (shared, sent): (Vec<_>, Vec<_>) =
            self.inputs.iter().cloned().partition(|port| port.visibility == Visibility::Private);
        let masked = sent.iter().filter(|port| port.visibility == Visibility::Masked).count();
        add(Phase::Client, CLIENT, Role::Server0.name(), seed * shared.len() as u64 + total(&sent));
        add(Phase::Client, CLIENT, Role::Server1.name(), total(&shared) + total(&sent));
        for server in [Role::Server0, Role::Server1] {
            add(Phase::Client, server.name(), CLIENT, total(&self.outputs));
            if masked > 0 {
                add(Phase::Client, server.name(), CLIENT, seed * (masked * batch) as u64);
            }
        }
        let sum = |wanted| links.iter().filter(|((phase, ..), _)| *phase == wanted).map(|(_, bytes)| bytes.0).sum();
        Cost {
            rounds: self.rounds(),
            online_bytes: sum(Phase::Online),
            offline_bytes: sum(Phase::Offline),
            client_bytes: sum(Phase::Client),
            setup_bytes: sum(Phase::Setup),
            links: links
                .iter()
                .map(|((phase, from, to), (payload_bytes, wire_bytes))| LinkCost {
                    from: (*from).into(),
                    to: (*to).into(),
                    phase: *phase,
                    payload_bytes: *payload_bytes,
                    wire_bytes: *wire_bytes,
                })
                .collect(),
        }
    }

    /// Every message by level and direction, and its payload.
    pub(crate) fn messages(&self, steps: &[Placed], batch: usize) -> BTreeMap<(u32, Role, Role), u64> {
        let mut messages = BTreeMap::new();
        for placed in steps {
            if let Some(traffic) = placed.step.traffic(&self.shapes) {
                for (from, to) in traffic.route.directions() {
                    *messages.entry((placed.level, *from, *to)).or_insert(0) += self.step_bytes(placed, batch);
                }
            }
        }
        messages
    }

    /// Each operation's share of the cost.
    pub fn layers(&self, batch: usize) -> Vec<LayerCost> {
        (0..)
            .zip(&self.layers)
            .map(|(index, layer)| {
                let own: Vec<&Placed> = self.steps.iter().filter(|placed| placed.layer == index).collect();
                let hops = own.iter().filter(|placed| placed.step.traffic(&self.shapes).is_some());
                let levels: BTreeSet<u32> = hops.clone().map(|placed| placed.level).collect();
                let online = hops.map(|placed| {
                    let directions = placed.step.traffic(&self.shapes).map_or(0, |t| t.route.directions().len());
                    self.step_bytes(placed, batch) * directions as u64
                });
                LayerCost {
                    name: alloc::format!("{index}"),
                    op: layer.op.clone(),
                    shape: layer.shape.clone(),
                    rounds: levels.len() as u32,
                    online_bytes: online.sum(),
                    offline_bytes: [Role::Server0, Role::Server1]
                        .into_iter()
                        .flat_map(|to| own.iter().map(move |placed| (self.material_bytes(placed, to) * batch) as u64))
                        .sum(),
                    bound_bits: layer.bound.bits,
                    bound: layer.bound.limit(),
                    error_bound: layer.error,
                    bound_from: match layer.bound.origin {
                        Origin::Proved => "proved",
                        Origin::Declared => "declared",
                        Origin::Calibrated => "calibrated",
                    },
                }
            })
            .collect()
    }

    /// What each party sees in clear, and why it may.
    pub fn disclosures(&self) -> Vec<Disclosure> {
        let all = self.setup.iter().chain(&self.steps).flat_map(|placed| placed.step.disclosures());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The largest number of bytes that each party holds in wires, messages, weights and material at one time.
    pub fn memory_peak(&self, batch: usize) -> Vec<(Role, u64)> {
        let lane = if self.numbers().ring_bits <= 32 { 4 } else { 8 };
        // Bytes at a server, and at the crypto producer.
        let size = |id: WireId| match self.shapes.wires.get(id as usize) {
            Some((elements, class)) => {
                let words = u64::from(*elements) * lane * batch as u64;
                match class {
                    Class::Words => [words, 0],
                    Class::Dealt => [words, words],
                    Class::Held => [0, words],
                    Class::Bytes => [u64::from(*elements) * batch as u64, 0],
                    Class::Bits => [u64::from(*elements) * u64::from(self.numbers().ring_bits) * batch as u64, 0],
                }
            }
            None => [0, 0],
        };
        let (last, mut live, mut peak) = (last_uses(&self.steps), [0u64; 2], [0u64; 2]);
        let mut ends: BTreeMap<usize, Vec<WireId>> = BTreeMap::new();
        for (id, at) in last {
            ends.entry(at).or_default().push(id);
        }
        for (index, placed) in self.steps.iter().enumerate() {
            let moving = self.step_bytes(placed, batch) * 2;
            for bytes in placed.step.writes().into_iter().map(size) {
                live.iter_mut().zip(bytes).for_each(|(live, bytes)| *live += bytes);
            }
            peak.iter_mut().zip(&live).for_each(|(peak, live)| *peak = (*peak).max(live + moving));
            for bytes in ends.remove(&index).into_iter().flatten().map(size) {
                live.iter_mut().zip(bytes).for_each(|(live, bytes)| *live -= bytes);
            }
        }
        let weights: u64 =
            self.variables.iter().map(|v| u64::from(v.elements) * lane * if v.masked { 2 } else { 1 }).sum();
        let material = |to| self.unit_bytes(to) as u64 * batch as u64;
        let [server, producer] = peak;
        vec![
            (Role::Server0, server + weights + material(Role::Server0)),
            (Role::Server1, server + weights + material(Role::Server1)),
            (Role::CryptoProducer, producer + weights + material(Role::Server1)),
        ]
    }
}

/// For each wire, the last step that reads it (or writes it, if nobody does).
pub(crate) fn last_uses(steps: &[Placed]) -> BTreeMap<WireId, usize> {
    let mut last = BTreeMap::new();
    for (index, placed) in steps.iter().enumerate() {
        for id in placed.step.reads().into_iter().chain(placed.step.writes()) {
            last.insert(id, index);
        }
    }
    last
}
