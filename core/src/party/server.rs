//! A server's side of a plan: its registers, its variables, its material.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zeroize::Zeroize;

use crate::Role;
use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::context::Context;
use crate::plan::{BitShares, Block, Domain, Kind, Masked, OwnBytes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::share::Share;
use crate::stream::{Label, Randomness, Scope, Source};

/// A wire's value at one server.
enum Register<S, L: Lane> {
    Words(Share<S, L>),
    Bytes(Share<S, u8>),
}

/// A variable at one server.
#[derive(Clone)]
pub(crate) enum Variable<L: Lane> {
    /// A share, added as it is.
    Plain(Arc<Vec<L>>),
    /// A weight W that has been opened as Ŵ = W - B.
    Masked {
        /// Ŵ, the same at both servers.
        hat: Arc<Vec<L>>,
        /// This server's share of W: B_0 + Ŵ at server0, B_1 at server1.
        share: Arc<Vec<L>>,
    },
    /// A public variable, the same at both servers.
    Public(Arc<Vec<L>>),
}

/// One server, while it carries out a plan.
pub(crate) struct Server<S, L: Lane, R> {
    pub(crate) at: Context<L, R>,
    registers: Vec<Option<Register<S, L>>>,
    /// By the program's order of variables.
    pub(crate) variables: Vec<Variable<L>>,
    /// Weights that were just opened, by variable.
    pub(crate) opened: Vec<(u32, Variable<L>)>,
    /// The inputs' shares, taken by the input steps in order.
    pub(crate) inputs: VecDeque<Vec<L>>,
    /// The outputs' shares, in order.
    pub(crate) outputs: Vec<Vec<L>>,
    /// Variables' new values, by variable.
    pub(crate) assigned: Vec<(u32, Vec<L>)>,
    /// What followed from material alone, by step; see [`super::prepared`].
    pub(crate) ahead: BTreeMap<u32, Vec<L>>,
    /// What was dealt for each unit.
    material: Vec<Vec<u8>>,
    /// Where each step's corrections begin in a unit.
    offsets: Vec<usize>,
}

impl<S, L: Lane, R> Drop for Server<S, L, R> {
    fn drop(&mut self) {
        self.material.iter_mut().for_each(Zeroize::zeroize);
        self.inputs.iter_mut().for_each(Zeroize::zeroize);
        self.outputs.iter_mut().for_each(Zeroize::zeroize);
        self.ahead.values_mut().for_each(Zeroize::zeroize);
        self.assigned.iter_mut().for_each(|(_, values)| values.zeroize());
    }
}

impl<S: Side, L: Lane, R: Randomness> Server<S, L, R> {
    pub(crate) fn new(
        at: Context<L, R>,
        variables: Vec<Variable<L>>,
        inputs: Vec<Vec<L>>,
        mut material: Vec<Vec<u8>>,
    ) -> Result<Self, Blame> {
        let mut offsets = Vec::with_capacity(at.plan.steps.len());
        let mut offset = 0;
        for placed in &at.plan.steps {
            offsets.push(offset);
            offset += at.plan.material_bytes(placed, S::ROLE);
        }
        // Plans without products want nothing dealt: their units are empty.
        material.retain(|unit| !unit.is_empty());
        let wanted = if offset == 0 { 0 } else { at.batch() };
        if material.len() != wanted || material.iter().any(|unit| unit.len() != offset) {
            return Err(Blame::bug(format!(
                "{} units of material where {wanted} of {offset} bytes are wanted",
                material.len()
            )));
        }
        let registers = (0..at.plan.shapes.wires.len()).map(|_| None).collect();
        Ok(Self {
            at,
            registers,
            variables,
            opened: Vec::new(),
            inputs: inputs.into(),
            outputs: Vec::new(),
            assigned: Vec::new(),
            ahead: BTreeMap::new(),
            material,
            offsets,
        })
    }

    /// A server that only opens its weights, for which it needs neither inputs nor material.
    pub(crate) fn for_setup(at: Context<L, R>, variables: Vec<Variable<L>>) -> Self {
        let (inputs, outputs, registers) = (VecDeque::new(), Vec::new(), Vec::new());
        Self {
            at,
            registers,
            variables,
            opened: Vec::new(),
            inputs,
            outputs,
            assigned: Vec::new(),
            ahead: BTreeMap::new(),
            material: Vec::new(),
            offsets: Vec::new(),
        }
    }

    /// 1 at server0, 0 at server1: the `[j = 0]` by which public constants enter sums of shares.
    pub(crate) fn first(&self) -> L {
        L::from_u64(1 - S::INDEX as u64)
    }

    /// This server's value on `wire`.
    pub(crate) fn words<K>(&self, wire: &Wire<K>) -> Result<&[L], Blame> {
        self.words_of(wire.id())
    }

    /// The same by the wire's number.
    pub(crate) fn words_of(&self, wire: WireId) -> Result<&[L], Blame> {
        match self.registers.get(wire as usize) {
            Some(Some(Register::Words(words))) => Ok(words.elements()),
            _ => Err(Blame::bug(format!("wire {wire} has no value at {}", S::ROLE))),
        }
    }

    /// This server's share of a masked tensor: \[j = 0\] x̂ + a_j.
    pub(crate) fn combined(&self, masked: &Masked) -> Result<Vec<L>, Blame> {
        let mut share = self.words(&masked.mask)?.to_vec();
        if S::INDEX == 0 {
            self.at.ring.add_all(&mut share, self.words(&masked.hat)?);
        }
        Ok(share)
    }

    /// This server's shares of bits on `wire`, ℓ for each element, lowest bit first.
    pub(crate) fn bits(&self, wire: &Wire<BitShares>) -> Result<&[u8], Blame> {
        match self.registers.get(wire.id() as usize) {
            Some(Some(Register::Bytes(bits))) => Ok(bits.elements()),
            _ => Err(Blame::bug(format!("wire {} has no bits at {}", wire.id(), S::ROLE))),
        }
    }

    /// This server's bytes on `wire`.
    pub(crate) fn bytes(&self, wire: &Wire<OwnBytes>) -> Result<&[u8], Blame> {
        match self.registers.get(wire.id() as usize) {
            Some(Some(Register::Bytes(bytes))) => Ok(bytes.elements()),
            _ => Err(Blame::bug(format!("wire {} has no bytes at {}", wire.id(), S::ROLE))),
        }
    }

    fn put(&mut self, id: WireId, register: Register<S, L>) {
        if let Some(place) = self.registers.get_mut(id as usize) {
            *place = Some(register);
        }
    }

    /// Sets a wire.
    pub(crate) fn set<K: Kind>(&mut self, wire: &Wire<K>, words: Vec<L>) {
        self.put(wire.id(), Register::Words(Share::new(words)));
    }

    /// The same by the wire's number.
    pub(crate) fn put_words(&mut self, wire: WireId, words: Vec<L>) {
        self.put(wire, Register::Words(Share::new(words)));
    }

    /// Sets a wire of bits.
    pub(crate) fn set_bits(&mut self, wire: &Wire<BitShares>, bits: Vec<u8>) {
        self.put(wire.id(), Register::Bytes(Share::new(bits)));
    }

    /// Sets a wire of bytes.
    pub(crate) fn set_bytes(&mut self, wire: &Wire<OwnBytes>, bytes: Vec<u8>) {
        self.put(wire.id(), Register::Bytes(Share::new(bytes)));
    }

    /// Forgets a wire that nobody will read again.
    pub(crate) fn forget(&mut self, id: WireId) {
        if let Some(place) = self.registers.get_mut(id as usize) {
            *place = None;
        }
    }

    /// A random share that the crypto producer can draw too: uniform elements of Z_2^k.
    pub(crate) fn mask(&self, label: Label, per_unit: usize) -> Result<Vec<L>, Blame> {
        self.at.draw_ring(S::DEALT, label, per_unit)
    }

    /// This server's share of correlated randomness: block `index` of the step's material.
    pub(crate) fn dealt(&self, gate: &impl Gate, index: usize, label: Label) -> Result<Column<L>, Blame> {
        let blocks = gate.material(&self.at.plan.shapes);
        let block =
            *blocks.get(index).ok_or_else(|| Blame::bug("a step asks for material that it does not declare"))?;
        if S::INDEX == 0 {
            return self.at.draw_block(S::DEALT, label, block);
        }
        let words: usize = gate.words(&self.at.plan.shapes).iter().map(|block| self.block_bytes(block)).sum();
        let before: usize = blocks.iter().take(index).map(|block| self.block_bytes(block)).sum();
        self.unpack(words + before, block)
    }

    /// What both servers were dealt alike: block `index` of the step's words, byte by byte.
    pub(crate) fn dealt_words(&self, gate: &impl Gate, index: usize) -> Result<Vec<u8>, Blame> {
        let blocks = gate.words(&self.at.plan.shapes);
        let block = *blocks.get(index).ok_or_else(|| Blame::bug("a step asks for words that it does not declare"))?;
        let before: usize = blocks.iter().take(index).map(|block| self.block_bytes(block)).sum();
        self.unpack(before, block)?.field()
    }

    fn block_bytes(&self, block: &Block) -> usize {
        block.bytes(self.at.plan.numbers(), 1)
    }

    /// A block of every unit's material, so many bytes into the step's part.
    fn unpack(&self, before: usize, block: Block) -> Result<Column<L>, Blame> {
        let numbers = self.at.plan.numbers();
        let start = self.offsets.get(self.at.step as usize).copied().unwrap_or(0) + before;
        let (mut words, mut field) = (Vec::new(), Vec::new());
        for unit in &self.material {
            let bytes = unit.get(start..start + self.block_bytes(&block));
            let bytes = bytes.ok_or_else(|| Blame::bug("material is too short"))?;
            match Column::<L>::unpack(Role::CryptoProducer, numbers, block.domain, block.elements, bytes)? {
                Column::Words(more) => words.extend(more),
                Column::Field(more) => field.extend(more),
            }
        }
        Ok(match block.domain {
            Domain::Byte | Domain::Field => Column::Field(field),
            _ => Column::Words(words),
        })
    }

    /// This server's share of what the crypto producer shares in this step: drawn by server0, received by server1.
    pub(crate) fn received(
        &self,
        traffic: Option<Traffic>,
        label: Label,
        theirs: Vec<Column<L>>,
    ) -> Result<Column<L>, Blame> {
        let block =
            traffic.and_then(|t| t.blocks.first().copied()).ok_or_else(|| Blame::bug("a message without a block"))?;
        if S::INDEX == 0 {
            return self.at.draw_block(S::DEALT, label, block);
        }
        theirs.into_iter().next().ok_or_else(|| Blame::bug("a message was not received"))
    }

    /// This server's share of the mask of a variable, for the version at hand.
    pub(crate) fn variable_mask(&self, variable: u32, label: Label, count: usize) -> Result<Vec<L>, Blame> {
        let scope = Scope::Variable { index: variable, version: self.at.version };
        let mut mask = alloc::vec![L::default(); count];
        self.at.randomness.open(S::DEALT, scope, 0, label)?.ring(self.at.ring, &mut mask);
        Ok(mask)
    }
}
