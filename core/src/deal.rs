//! The crypto producer's work ahead of the queries: plan and seeds in, material out.
//!
//! server0 expands its half of everything from its seed; server1's corrections, and what both are dealt alike, are what
//! [`Dealer::deal`] makes, unit by unit. A unit serves one sample; units are numbered, and dealing the same unit again gives the same bytes.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::Role;
use crate::error::Blame;
use crate::gates::{Gate, weights};
use crate::party::producer::{Masks, Producer, draw_masks};
use crate::party::{Binding, Machine, producing};
use crate::plan::last_uses;
use crate::ring::Lane;
use crate::stream::Randomness;

/// The masks of all weights, in the lanes of the plan's ring.
#[derive(Clone)]
enum AnyMasks {
    Narrow(Masks<u32>),
    Wide(Masks<u64>),
}

/// Deals one plan's material, for one version and epoch.
#[derive(Clone)]
pub struct Dealer {
    binding: Binding,
    masks: AnyMasks,
}

impl core::fmt::Debug for Dealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Dealer({:?})", self.binding)
    }
}

impl Dealer {
    /// Draws the masks of all weights.
    ///
    /// # Errors
    /// A bug: the binding is not the crypto producer's.
    pub fn new(binding: Binding) -> Result<Self, Blame> {
        let masks = if binding.plan().numbers().ring_bits <= 32 {
            AnyMasks::Narrow(draw_masks(&binding.context(0..0)?, weights::B)?)
        } else {
            AnyMasks::Wide(draw_masks(&binding.context(0..0)?, weights::B)?)
        };
        Ok(Self { binding, masks })
    }

    /// What its work belongs to.
    pub fn binding(&self) -> &Binding {
        &self.binding
    }

    /// What server `to` is dealt for `units`, one vector of bytes each.
    ///
    /// # Errors
    /// A bug.
    pub fn deal(&self, to: Role, units: Range<u64>) -> Result<Vec<Vec<u8>>, Blame> {
        match &self.masks {
            AnyMasks::Narrow(masks) => {
                deal(&mut Producer::<u32, _>::new(self.binding.context(units)?, Arc::clone(masks)), to)
            }
            AnyMasks::Wide(masks) => {
                deal(&mut Producer::<u64, _>::new(self.binding.context(units)?, Arc::clone(masks)), to)
            }
        }
    }

    pub(crate) fn party(&self, units: Range<u64>) -> Result<Box<dyn Machine + Send>, Blame> {
        Ok(match &self.masks {
            AnyMasks::Narrow(masks) => {
                producing(Producer::<u32, _>::new(self.binding.context(units)?, Arc::clone(masks)))
            }
            AnyMasks::Wide(masks) => {
                producing(Producer::<u64, _>::new(self.binding.context(units)?, Arc::clone(masks)))
            }
        })
    }
}

/// What every step deals to one server, in order, for each of the producer's units.
pub(crate) fn deal<L: Lane, R: Randomness>(producer: &mut Producer<L, R>, to: Role) -> Result<Vec<Vec<u8>>, Blame> {
    let plan = Arc::clone(&producer.at.plan);
    let mut units = vec![Vec::with_capacity(plan.unit_bytes(to)); producer.at.batch()];
    let last = last_uses(&plan.steps);
    for (index, placed) in plan.steps.iter().enumerate() {
        // Columns come for both servers, what both are dealt first; server0 is dealt nothing else.
        let blocks = plan.dealt_blocks(placed, to);
        producer.at.step = index as u32;
        let columns = placed.step.deal(producer)?;
        for (block, column) in blocks.iter().zip(&columns) {
            let bits = block.domain.bits(plan.numbers());
            for (at, unit) in units.iter_mut().enumerate() {
                column.pack(bits, at * block.elements, block.elements, unit);
            }
        }
        // Masks that nothing more follows from.
        placed.step.reads().into_iter().filter(|wire| last.get(wire) == Some(&index)).for_each(|w| producer.forget(w));
    }
    if units.iter().any(|unit| unit.len() != plan.unit_bytes(to)) {
        return Err(Blame::bug("a unit has another length than the plan says"));
    }
    Ok(units)
}
