//! Puts steps in order and finds their levels.

use alloc::vec::Vec;

use super::{Kind, Placed, Shapes, Wire, WireId};
use crate::gates::{Gate, Step};
use crate::program::Numbers;

/// A plan under construction.
pub(crate) struct Builder {
    shapes: Shapes,
    levels: Vec<u32>,
    steps: Vec<Placed>,
    layer: u32,
}

impl Builder {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { shapes: Shapes { numbers, wires: Vec::new() }, levels: Vec::new(), steps: Vec::new(), layer: 0 }
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

    /// The steps in the order in which they run: level by level.
    pub(crate) fn finish(mut self) -> (Shapes, Vec<Placed>) {
        self.steps.sort_by_key(|placed| placed.level);
        (self.shapes, self.steps)
    }
}
