//! A program's variables on the servers: as they are stored, and as they are used.
//!
//! What is stored are shares ([`SharedVariables`]): server0's is a seed, server1's the difference. What is used is a
//! [`Snapshot`], in which weights are open under masks of one version and epoch; it lives in memory only.

use alloc::format;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Role;
use crate::error::Blame;
use crate::fixed::{encode, power_of_two};
use crate::pack;
use crate::party::server::Variable;
use crate::plan::Plan;
use crate::program::{Program, Weights};
use crate::ring::{Lane, Ring};
use crate::share;
use crate::stock::Epoch;
use crate::stream::Seed;

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
enum Shares {
    /// server0's: every variable is expanded from this.
    Seed([u8; 32]),
    /// server1's: each variable packed.
    Packed(Vec<Vec<u8>>),
}

/// One server's shares of all variables of a program: what is deployed and stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedVariables {
    program: [u8; 32],
    version: u64,
    shares: Shares,
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
        let packed = if plan.numbers().ring_bits <= 32 {
            pack_variables::<u32>(program, plan, weights, &Seed::new(seed))?
        } else {
            pack_variables::<u64>(program, plan, weights, &Seed::new(seed))?
        };
        let shared = |shares| Self { program: plan.program_hash(), version, shares };
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
        let Shares::Packed(packed) = &self.shares else { return Ok(()) };
        let bits = plan.numbers().ring_bits;
        let fits = |(bytes, variable): (&Vec<u8>, &crate::plan::PlannedVariable)| {
            Some(bytes.len()) == pack::packed_len(variable.elements as usize, bits)
        };
        if packed.len() == plan.variables.len() && packed.iter().zip(&plan.variables).all(fits) {
            Ok(())
        } else {
            Err(Blame::you("shares of other sizes than the program's variables"))
        }
    }

    /// This server's share of every variable.
    pub(crate) fn expand<L: Lane>(&self, plan: &Plan) -> Result<Vec<Vec<L>>, Blame> {
        let ring = ring_of::<L>(plan)?;
        let counts = plan.variables.iter().map(|variable| variable.elements as usize);
        Ok(match &self.shares {
            Shares::Seed(seed) => {
                let seed = Seed::new(*seed);
                counts
                    .enumerate()
                    .map(|(index, count)| share::expand(ring, &variable_seed(&seed, index), count))
                    .collect()
            }
            Shares::Packed(packed) => {
                self.check(Role::Server1, plan)?;
                let unpack = |(bytes, count): (&Vec<u8>, usize)| {
                    pack::unpack(bytes, ring.bits(), count).map(L::from_u64).collect()
                };
                packed.iter().zip(counts).map(unpack).collect()
            }
        })
    }
}

fn ring_of<L: Lane>(plan: &Plan) -> Result<Ring<L>, Blame> {
    Ring::new(plan.numbers().ring_bits).ok_or_else(|| Blame::bug("the plan's ring does not fit its lanes"))
}

fn variable_seed(seed: &Seed, index: usize) -> Seed {
    seed.derive("variable share", &[&(index as u64).to_le_bytes()])
}

fn pack_variables<L: Lane>(
    program: &Program,
    plan: &Plan,
    weights: &Weights,
    seed: &Seed,
) -> Result<Vec<Vec<u8>>, Blame> {
    let ring = ring_of::<L>(plan)?;
    let mut packed = Vec::new();
    for (index, ((_, node), planned)) in program.variables().zip(&plan.variables).enumerate() {
        let limit = power_of_two(node.bound.bits);
        let values = weights.of(node)?.values.iter();
        let encoded = values.map(|value| encode(ring, planned.fraction_bits, limit, f64::from(*value)));
        let mut encoded: Vec<L> = encoded.collect::<Result<_, _>>()?;
        let mut rest = share::complement(ring, &variable_seed(seed, index), &encoded);
        encoded.zeroize();
        let mut bytes = Vec::new();
        pack::pack(rest.iter().map(|x| x.to_u64()), ring.bits(), &mut bytes);
        rest.zeroize();
        packed.push(bytes);
    }
    Ok(packed)
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

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }
}
