//! What follows from material alone, computed when it arrives: A_j·Ŵ + C_j for every product with a weight, so that a server has
//! one product left when the inputs come, and reads each weight once.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use zeroize::Zeroize;

use crate::error::Blame;
use crate::gates::{Gate, Step};
use crate::party::Binding;
use crate::party::server::{Server, Variable};
use crate::ring::Lane;
use crate::role::{S0, S1, Side};
use crate::snapshot::{Snapshot, Variables};
use crate::stream::Seeds;
use crate::{Role, plan::Plan};

/// By step; in the lanes of the plan's ring.
enum Products {
    Narrow(BTreeMap<u32, Vec<u32>>),
    Wide(BTreeMap<u32, Vec<u64>>),
}

/// One unit's. It belongs to one server's binding, and is good for the run that burns the unit.
pub struct Prepared {
    unit: u64,
    products: Products,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        match &mut self.products {
            Products::Narrow(products) => products.values_mut().for_each(Zeroize::zeroize),
            Products::Wide(products) => products.values_mut().for_each(Zeroize::zeroize),
        }
    }
}

impl core::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Prepared(unit {}, hidden)", self.unit)
    }
}

/// The lanes' part of it.
pub(crate) trait Ahead: Lane {
    fn of(prepared: &mut Prepared) -> Option<&mut BTreeMap<u32, Vec<Self>>>;
}

impl Ahead for u32 {
    fn of(prepared: &mut Prepared) -> Option<&mut BTreeMap<u32, Vec<u32>>> {
        match &mut prepared.products {
            Products::Narrow(products) => Some(products),
            Products::Wide(_) => None,
        }
    }
}

impl Ahead for u64 {
    fn of(prepared: &mut Prepared) -> Option<&mut BTreeMap<u32, Vec<u64>>> {
        match &mut prepared.products {
            Products::Wide(products) => Some(products),
            Products::Narrow(_) => None,
        }
    }
}

impl Plan {
    /// The bytes of what follows from one unit's material alone; 0 if nothing does.
    pub fn prepared_bytes(&self) -> usize {
        let lane = if self.numbers().ring_bits <= 32 { 4 } else { 8 };
        let of = |step: &Step| match step {
            Step::Product(product) if product.has_variable() => product.product.out() * lane,
            _ => 0,
        };
        self.steps.iter().map(|placed| of(&placed.step)).sum()
    }

    /// Whether anything follows from material alone.
    pub fn prepares(&self) -> bool {
        self.prepared_bytes() > 0
    }
}

impl Prepared {
    /// For one of this server's units; `material` is what was dealt for it, if anything is.
    ///
    /// # Errors
    /// The binding, the weights and the material do not belong together.
    pub fn new(binding: &Binding, snapshot: &Snapshot, unit: u64, material: &[u8]) -> Result<Self, Blame> {
        let products = match (binding.role(), snapshot.variables()) {
            (Role::Server0, Variables::Narrow(v)) => Products::Narrow(prepare::<S0, u32>(binding, v, unit, material)?),
            (Role::Server0, Variables::Wide(v)) => Products::Wide(prepare::<S0, u64>(binding, v, unit, material)?),
            (Role::Server1, Variables::Narrow(v)) => Products::Narrow(prepare::<S1, u32>(binding, v, unit, material)?),
            (Role::Server1, Variables::Wide(v)) => Products::Wide(prepare::<S1, u64>(binding, v, unit, material)?),
            (Role::CryptoProducer, _) => return Err(Blame::bug("the crypto producer prepares nothing")),
        };
        Ok(Self { unit, products })
    }

    /// The unit.
    pub fn unit(&self) -> u64 {
        self.unit
    }
}

fn prepare<S: Side, L: Lane>(
    binding: &Binding,
    variables: &[Variable<L>],
    unit: u64,
    material: &[u8],
) -> Result<BTreeMap<u32, Vec<L>>, Blame> {
    let at = binding.context::<L>(unit..unit + 1)?;
    let material = if material.is_empty() { vec![] } else { vec![material.to_vec()] };
    let mut server = Server::<S, L, Seeds>::new(at, variables.to_vec(), Vec::new(), material)?;
    for (index, placed) in (0..).zip(&binding.plan().steps) {
        server.at.step = index;
        placed.step.prepare(&mut server)?;
    }
    Ok(core::mem::take(&mut server.ahead))
}

/// What was prepared for all of these units, by step, the units one after the other; nothing, if one of them is missing.
pub(crate) fn together<L: Ahead>(units: core::ops::Range<u64>, mut prepared: Vec<Prepared>) -> BTreeMap<u32, Vec<L>> {
    let mut all: BTreeMap<u32, Vec<L>> = BTreeMap::new();
    if !prepared.iter().map(Prepared::unit).eq(units) {
        return all;
    }
    for products in prepared.iter_mut().filter_map(L::of) {
        for (step, values) in products.iter() {
            all.entry(*step).or_default().extend_from_slice(values);
        }
    }
    all
}
