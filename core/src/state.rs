//! The variables that the servers keep from run to run: each server's share, at one version.
//!
//! A run that assigns makes the next version of the state of it ([`State::after`]); the host makes sure that both servers
//! take the step or neither does, and keeps the version before until it knows that the other has the new one.
//! What a program's entry points find in the kept variables is the state at hand when they begin.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Role;
use crate::error::Blame;
use crate::pack;
use crate::plan::Plan;
use crate::ring::Lane;
use crate::snapshot::SharedVariables;

/// One variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    elements: u32,
    /// This server's share, or the value of a public variable, packed.
    packed: Vec<u8>,
}

/// One server's shares of all kept variables, by name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    role: Role,
    ring_bits: u32,
    version: u64,
    variables: BTreeMap<String, Kept>,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "State({}, version {}, hidden)", self.role, self.version)
    }
}

/// What a run has assigned, at one server.
#[derive(Clone, PartialEq, Eq)]
pub struct Assigned(BTreeMap<String, Kept>);

impl core::fmt::Debug for Assigned {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Assigned({:?}, hidden)", self.0.keys())
    }
}

impl Assigned {
    /// By the plan's variables.
    pub(crate) fn new<L: Lane>(plan: &Plan, values: Vec<(u32, Vec<L>)>) -> Result<Self, Blame> {
        let bits = plan.numbers().ring_bits;
        let one = |(variable, mut values): (u32, Vec<L>)| {
            let name = plan.variables.get(variable as usize).and_then(|variable| variable.kept.clone());
            let name = name.ok_or_else(|| Blame::bug("a variable that is not kept was assigned"))?;
            let kept = Kept { elements: values.len() as u32, packed: packed(bits, &values) };
            values.zeroize();
            Ok((name, kept))
        };
        Ok(Self(values.into_iter().map(one).collect::<Result<_, Blame>>()?))
    }
}

fn packed<L: Lane>(bits: u32, values: &[L]) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack::pack_lanes(values, bits, &mut bytes);
    bytes
}

impl State {
    /// The first version: the kept variables as they were deployed. Every plan comes with the shares of its own variables; of a
    /// variable that several have, the first one's count.
    ///
    /// # Errors
    /// The shares do not fit the plans, or are not this role's.
    pub fn new<'a>(
        role: Role,
        entries: impl IntoIterator<Item = (&'a Plan, &'a SharedVariables)>,
    ) -> Result<Self, Blame> {
        let mut state = Self { role, ring_bits: 0, version: 0, variables: BTreeMap::new() };
        for (plan, shares) in entries {
            shares.check(role, plan)?;
            state.ring_bits = plan.numbers().ring_bits;
            if !plan.reads_state() {
                continue;
            }
            match state.ring_bits {
                ..=32 => state.take(plan, shares.expand::<u32>(plan)?),
                _ => state.take(plan, shares.expand::<u64>(plan)?),
            }
        }
        Ok(state)
    }

    fn take<L: Lane>(&mut self, plan: &Plan, values: Vec<Vec<L>>) {
        for (planned, mut values) in plan.variables.iter().zip(values) {
            if let Some(name) = &planned.kept {
                let kept = || Kept { elements: planned.elements, packed: packed(self.ring_bits, &values) };
                self.variables.entry(name.clone()).or_insert_with(kept);
            }
            values.zeroize();
        }
    }

    /// How many runs have changed it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whose it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }

    /// The next version.
    ///
    /// # Errors
    /// A bug: what was assigned is not kept here.
    pub fn after(&self, assigned: Assigned) -> Result<Self, Blame> {
        let mut next = self.clone();
        next.version += 1;
        for (name, kept) in assigned.0 {
            match next.variables.get_mut(&name) {
                Some(place) if place.elements == kept.elements => *place = kept,
                _ => return Err(Blame::bug("a variable was assigned that the state does not keep")),
            }
        }
        Ok(next)
    }

    /// Whether these are `role`'s shares of the same variables as `other`'s, in the same ring: states that may replace each other.
    ///
    /// # Errors
    /// They are not; the error says what differs.
    pub fn check_like(&self, other: &State) -> Result<(), Blame> {
        let sizes = |state: &State| -> Vec<(String, u32, usize)> {
            let one = |(name, kept): (&String, &Kept)| (name.clone(), kept.elements, kept.packed.len());
            state.variables.iter().map(one).collect()
        };
        if self.role != other.role {
            return Err(Blame::you(format!("a state that is {}'s, not {}'s", self.role, other.role)));
        }
        if (self.ring_bits, sizes(self)) != (other.ring_bits, sizes(other)) {
            return Err(Blame::you("a state of other variables than the program keeps"));
        }
        Ok(())
    }

    /// This server's shares of the variables of `plan` that are kept, by their place in it.
    pub(crate) fn of<L: Lane>(&self, role: Role, plan: &Plan) -> Result<Vec<(usize, Vec<L>)>, Blame> {
        let mut all = Vec::new();
        for (index, planned) in plan.variables.iter().enumerate() {
            let Some(name) = &planned.kept else { continue };
            let kept = self.variables.get(name).filter(|kept| {
                let bytes = pack::packed_len(planned.elements as usize, plan.numbers().ring_bits);
                kept.elements == planned.elements && Some(kept.packed.len()) == bytes
            });
            match kept {
                Some(kept) if (self.role, self.ring_bits) == (role, plan.numbers().ring_bits) => {
                    all.push((index, pack::unpack_lanes(&kept.packed, self.ring_bits, kept.elements as usize)));
                }
                _ => return Err(Blame::you(format!("a state without this server's share of the variable {name}"))),
            }
        }
        Ok(all)
    }
}
