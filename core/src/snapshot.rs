//! A program's variables on the servers: as they are stored, and as they are used.
//!
//! What is stored are shares ([`SharedVariables`]): server0's is a seed, server1's the difference. What is used is a
//! [`Snapshot`], in which weights are open under masks of one version and epoch; it lives in memory only.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Role;
use crate::error::Blame;
use crate::fixed::encode;
use crate::pack;
use crate::party::server::Variable;
use crate::plan::Plan;
use crate::program::{Program, Weights};
use crate::ring::{Lane, Ring};
use crate::share;
use crate::state::State;
use crate::stock::Epoch;
use crate::stream::Seed;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
enum Shares {
    /// server0's: every private variable is expanded from this.
    Seed([u8; 32]),
    /// server1's: each private variable packed.
    Packed(Vec<Vec<u8>>),
}

/// One server's shares of all variables of a program: what is deployed and stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedVariables {
    program: [u8; 32],
    version: u64,
    shares: Shares,
    /// The public variables, packed, the same at both servers.
    public: Vec<Vec<u8>>,
}

impl core::fmt::Debug for SharedVariables {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SharedVariables(version {}, hidden)", self.version)
    }
}

impl SharedVariables {
    /// Shares `weights` for the two servers; `seed` is fresh, and becomes server0's part.
    ///
    /// # Errors
    /// A value is missing, not finite, or beyond what the program declares.
    pub fn share(
        program: &Program,
        plan: &Plan,
        version: u64,
        weights: &Weights,
        seed: [u8; 32],
    ) -> Result<[Self; 2], Blame> {
        let (packed, public) = if plan.numbers().ring_bits <= 32 {
            pack_variables::<u32>(program, plan, weights, &Seed::new(seed))?
        } else {
            pack_variables::<u64>(program, plan, weights, &Seed::new(seed))?
        };
        let shared = |shares| Self { program: plan.program_hash(), version, shares, public: public.clone() };
        Ok([shared(Shares::Seed(seed)), shared(Shares::Packed(packed))])
    }

    /// The program whose variables these are, by its hash.
    pub fn program(&self) -> &[u8; 32] {
        &self.program
    }

    /// Unlike that of every other deployment.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether these are the shares that `role` wants, of the sizes that `plan` wants.
    ///
    /// # Errors
    /// They are another server's, or of another program.
    pub fn check(&self, role: Role, plan: &Plan) -> Result<(), Blame> {
        let right =
            matches!((role, &self.shares), (Role::Server0, Shares::Seed(_)) | (Role::Server1, Shares::Packed(_)));
        if !right {
            return Err(Blame::you(format!("shares that are not {role}'s")));
        }
        if self.program != plan.program_hash() {
            return Err(Blame::you("shares of another program"));
        }
        let bits = plan.numbers().ring_bits;
        let fit = |packed: &[Vec<u8>], public: bool| {
            let wanted = plan.variables.iter().filter(|variable| variable.public == public);
            let wanted: Vec<_> = wanted.map(|variable| pack::packed_len(variable.elements as usize, bits)).collect();
            packed.iter().map(|bytes| Some(bytes.len())).collect::<Vec<_>>() == wanted
        };
        let private = match &self.shares {
            Shares::Seed(_) => true,
            Shares::Packed(packed) => fit(packed, false),
        };
        if private && fit(&self.public, true) {
            Ok(())
        } else {
            Err(Blame::you("shares of other sizes than the program's variables"))
        }
    }

    /// This server's share of every private variable, and every public one, in order.
    pub(crate) fn expand<L: Lane>(&self, plan: &Plan) -> Result<Vec<Vec<L>>, Blame> {
        let ring = ring_of::<L>(plan)?;
        self.check(self.role(), plan)?;
        let mut public = self.public.iter();
        let mut packed = match &self.shares {
            Shares::Seed(_) => [].iter(),
            Shares::Packed(packed) => packed.iter(),
        };
        let unpack = |bytes: &[u8], count| pack::unpack_lanes(bytes, ring.bits(), count);
        let mut one = |(index, variable): (usize, &crate::plan::PlannedVariable)| {
            let count = variable.elements as usize;
            match &self.shares {
                Shares::Seed(seed) if !variable.public => {
                    Some(share::expand(ring, &variable_seed(&Seed::new(*seed), index), count))
                }
                _ => Some(unpack(if variable.public { &mut public } else { &mut packed }.next()?, count)),
            }
        };
        let all: Option<Vec<Vec<L>>> = plan.variables.iter().enumerate().map(&mut one).collect();
        all.ok_or_else(|| Blame::bug("checked shares that do not fit"))
    }

    fn role(&self) -> Role {
        match self.shares {
            Shares::Seed(_) => Role::Server0,
            Shares::Packed(_) => Role::Server1,
        }
    }
}

fn ring_of<L: Lane>(plan: &Plan) -> Result<Ring<L>, Blame> {
    Ring::new(plan.numbers().ring_bits).ok_or_else(|| Blame::bug("the plan's ring does not fit its lanes"))
}

fn variable_seed(seed: &Seed, index: usize) -> Seed {
    seed.derive("variable share", &[&(index as u64).to_le_bytes()])
}

/// server1's part of the private variables, and the public ones.
type Packed = (Vec<Vec<u8>>, Vec<Vec<u8>>);

fn pack_variables<L: Lane>(program: &Program, plan: &Plan, weights: &Weights, seed: &Seed) -> Result<Packed, Blame> {
    let ring = ring_of::<L>(plan)?;
    let (mut private, mut public) = (Vec::new(), Vec::new());
    for (index, ((_, node), planned)) in program.variables().zip(&plan.variables).enumerate() {
        let values = weights.of(node)?.values.iter();
        let encoded = values.map(|value| encode(ring, planned.fraction_bits, node.bound.limit(), f64::from(*value)));
        let mut encoded: Vec<L> = encoded.collect::<Result<_, _>>()?;
        let pack = |elements: &[L]| {
            let mut bytes = Vec::new();
            pack::pack_lanes(elements, ring.bits(), &mut bytes);
            bytes
        };
        if planned.public {
            public.push(pack(&encoded));
        } else {
            let mut rest = share::complement(ring, &variable_seed(seed, index), &encoded);
            private.push(pack(&rest));
            rest.zeroize();
        }
        encoded.zeroize();
    }
    Ok((private, public))
}

/// A server's variables, in the lanes of the plan's ring.
#[derive(Clone)]
pub(crate) enum Variables {
    /// Rings of up to 32 bits.
    Narrow(Vec<Variable<u32>>),
    /// Wider rings.
    Wide(Vec<Variable<u64>>),
}

impl From<Vec<Variable<u32>>> for Variables {
    fn from(variables: Vec<Variable<u32>>) -> Self {
        Variables::Narrow(variables)
    }
}

impl From<Vec<Variable<u64>>> for Variables {
    fn from(variables: Vec<Variable<u64>>) -> Self {
        Variables::Wide(variables)
    }
}

/// One server's variables, ready for use: weights open under the masks of one version and epoch. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    belongs: (Role, [u8; 32], u64, Epoch),
    variables: Variables,
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Snapshot(version {}, hidden)", self.belongs.2)
    }
}

impl Snapshot {
    pub(crate) fn new(belongs: (Role, [u8; 32], u64, Epoch), variables: Variables) -> Self {
        Self { belongs, variables }
    }

    /// The role, plan, version and epoch that it belongs to.
    pub(crate) fn belongs_to(&self) -> (Role, [u8; 32], u64, Epoch) {
        self.belongs
    }

    /// The same, with the kept variables as they are in `state`. Where they are open under masks of one version of the state, the
    /// snapshot is of that version already and stays what it is.
    ///
    /// # Errors
    /// The state is another server's, or of other variables.
    pub fn at(&self, plan: &Plan, state: &State) -> Result<Self, Blame> {
        let mut next = self.clone();
        if !plan.reads_state() || plan.opens_state() {
            return Ok(next);
        }
        let (role, ..) = self.belongs;
        match &mut next.variables {
            Variables::Narrow(variables) => overlay(variables, state.of(role, plan)?),
            Variables::Wide(variables) => overlay(variables, state.of(role, plan)?),
        }
        Ok(next)
    }

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }
}

fn overlay<L: Lane>(variables: &mut [Variable<L>], kept: Vec<(usize, Vec<L>)>) {
    for (index, values) in kept {
        if let Some(place) = variables.get_mut(index) {
            *place = match place {
                Variable::Public(_) => Variable::Public(Arc::new(values)),
                _ => Variable::Plain(Arc::new(values)),
            };
        }
    }
}
