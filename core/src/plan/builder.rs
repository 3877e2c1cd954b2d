//! Puts steps in order and finds their levels.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Additive, Kind, Masked, Placed, Shapes, Wire, WireId};
use crate::gates::{Gate, Step};
use crate::program::Numbers;

/// A plan under construction.
pub(crate) struct Builder {
    shapes: Shapes,
    levels: Vec<u32>,
    steps: Vec<Placed>,
    layer: u32,
    /// Tensors that have been masked: each is opened once.
    masked: BTreeMap<WireId, Masked>,
}

impl Builder {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self {
            shapes: Shapes { numbers, wires: Vec::new() },
            levels: Vec::new(),
            steps: Vec::new(),
            layer: 0,
            masked: BTreeMap::new(),
        }
    }

    /// The program's operation that the next steps belong to.
    pub(crate) fn layer(&mut self, layer: u32) {
        self.layer = layer;
    }

    /// A new wire of so many elements for each sample.
    pub(crate) fn wire<K: Kind>(&mut self, elements: u32) -> Wire<K> {
        let id = self.shapes.wires.len() as WireId;
        self.shapes.wires.push((elements, K::CLASS));
        self.levels.push(0);
        Wire::new(id)
    }

    /// Elements of one sample on `wire`.
    pub(crate) fn elements<K>(&self, wire: &Wire<K>) -> u32 {
        self.shapes.elements(wire)
    }

    /// Ring and encoding.
    pub(crate) fn numbers(&self) -> Numbers {
        self.shapes.numbers
    }

    /// `x` under a mask, if it has one already.
    pub(crate) fn masked(&self, x: Wire<Additive>) -> Option<Masked> {
        self.masked.get(&x.id()).copied()
    }

    /// Keeps the masked form of `x` for everybody who will ask for it.
    pub(crate) fn remember_masked(&mut self, x: Wire<Additive>, masked: Masked) {
        self.masked.insert(x.id(), masked);
    }

    /// Adds a step: after everything that it reads, one level later if it sends.
    pub(crate) fn push(&mut self, step: impl Into<Step>) {
        let step = step.into();
        let ready = step.reads().iter().filter_map(|id| self.levels.get(*id as usize)).max().copied().unwrap_or(0);
        let level = ready + u32::from(step.traffic(&self.shapes).is_some());
        for id in step.writes() {
            if let Some(place) = self.levels.get_mut(id as usize) {
                *place = level;
            }
        }
        self.steps.push(Placed { step, level, layer: self.layer });
    }

    /// All steps in the order in which they run, whether anybody needs them or not: for tests of a few steps.
    #[cfg(test)]
    pub(crate) fn finish_all(mut self) -> (Shapes, Vec<Placed>) {
        self.steps.sort_by_key(|placed| placed.level);
        (self.shapes, self.steps)
    }

    /// The steps in the order in which they run: level by level, without those that nobody needs.
    pub(crate) fn finish(mut self) -> (Shapes, Vec<Placed>) {
        let mut needed: BTreeSet<WireId> = BTreeSet::new();
        let mut kept: Vec<Placed> = Vec::new();
        while let Some(placed) = self.steps.pop() {
            if placed.step.is_essential() || placed.step.writes().iter().any(|wire| needed.contains(wire)) {
                needed.extend(placed.step.reads());
                kept.push(placed);
            }
        }
        kept.reverse();
        self.steps = kept;
        // Outputs leave in the program's order, whichever is there first: who receives one is known by its place.
        let mut latest = 0;
        for placed in self.steps.iter_mut().filter(|placed| matches!(placed.step, Step::Output(_))) {
            latest = latest.max(placed.level);
            placed.level = latest;
        }
        self.steps.sort_by_key(|placed| placed.level);
        (self.shapes, self.steps)
    }
}
