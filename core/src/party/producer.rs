//! The crypto producer's side of a plan: what it deals ahead, and what it does online where a protocol wants that.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zeroize::Zeroize;

use crate::error::Blame;
use crate::party::context::Context;
use crate::plan::{Held, Wire, WireId};
use crate::ring::Lane;
use crate::stream::{Label, Pair, Randomness, Scope, Source};

/// The masks of all weights, by variable, for one version and epoch.
pub(crate) type Masks<L> = Arc<BTreeMap<u32, Vec<L>>>;

/// The crypto producer, while it deals or takes part.
pub(crate) struct Producer<L: Lane, R> {
    pub(crate) at: Context<L, R>,
    registers: Vec<Option<Vec<L>>>,
    masks: Masks<L>,
}

impl<L: Lane, R> Drop for Producer<L, R> {
    fn drop(&mut self) {
        self.registers.iter_mut().flatten().for_each(Zeroize::zeroize);
    }
}

impl<L: Lane, R: Randomness> Producer<L, R> {
    pub(crate) fn new(at: Context<L, R>, masks: Masks<L>) -> Self {
        let registers = (0..at.plan.shapes.wires.len()).map(|_| None).collect();
        Self { at, registers, masks }
    }

    /// The crypto producer's value on `wire`.
    pub(crate) fn held(&self, wire: &Wire<Held>) -> Result<&[L], Blame> {
        match self.registers.get(wire.id() as usize) {
            Some(Some(words)) => Ok(words),
            _ => Err(Blame::bug(format!("wire {} has no value at the crypto producer", wire.id()))),
        }
    }

    /// What it dealt on a wire of masks.
    pub(crate) fn dealt(&self, wire: WireId) -> Result<&[L], Blame> {
        match self.registers.get(wire as usize) {
            Some(Some(words)) => Ok(words),
            _ => Err(Blame::bug(format!("wire {wire} has not been dealt"))),
        }
    }

    /// Keeps what it dealt on a wire of masks, for what follows from it.
    pub(crate) fn put(&mut self, wire: WireId, words: Vec<L>) {
        if let Some(place) = self.registers.get_mut(wire as usize) {
            *place = Some(words);
        }
    }

    /// Sets a wire.
    pub(crate) fn set(&mut self, wire: &Wire<Held>, words: Vec<L>) {
        self.put(wire.id(), words);
    }

    /// Forgets a wire that nobody will read again.
    pub(crate) fn forget(&mut self, id: WireId) {
        if let Some(mut words) = self.registers.get_mut(id as usize).and_then(Option::take) {
            words.zeroize();
        }
    }

    /// The sum of the two servers' random shares for `label`.
    pub(crate) fn mask(&self, label: Label, per_unit: usize) -> Result<Vec<L>, Blame> {
        let mut sum = self.at.draw_ring(Pair::Producer0, label, per_unit)?;
        self.at.ring.add_all(&mut sum, &self.at.draw_ring(Pair::Producer1, label, per_unit)?);
        Ok(sum)
    }

    /// The mask B of a weight.
    pub(crate) fn variable_mask(&self, variable: u32) -> Result<&[L], Blame> {
        self.masks.get(&variable).map(Vec::as_slice).ok_or_else(|| Blame::bug("a weight without a mask"))
    }
}

/// Draws the masks of all weights, both servers' shares added.
pub(crate) fn draw_masks<L: Lane, R: Randomness>(at: &Context<L, R>, label: Label) -> Result<Masks<L>, Blame> {
    let mut masks = BTreeMap::new();
    for (index, variable) in (0..).zip(&at.plan.variables).filter(|(_, variable)| variable.masked) {
        let mut sum = alloc::vec![L::default(); variable.elements as usize];
        for pair in [Pair::Producer0, Pair::Producer1] {
            let mut part = sum.clone();
            at.randomness
                .open(pair, Scope::Variable { index, version: at.version }, 0, label)?
                .ring(at.ring, &mut part);
            at.ring.add_all(&mut sum, &part);
            part.zeroize();
        }
        masks.insert(index, sum);
    }
    Ok(Arc::new(masks))
}
