//! Weights: variables of the servers, private ones opened under a mask once for each version and epoch.
//!
//! As in Pond's cached masked tensors: the servers open Ŵ = W - B, where B = B_0 + B_1 is expanded from the seeds that they
//! share with the crypto producer. All products with W in this version and epoch use this one opening (see
//! [`super::product`]). B belongs to one version of the variable in one epoch: another version under the same B would show
//! the difference of the two.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::mask::opened;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::{Server, Variable};
use crate::plan::{Additive, Block, Builder, Common, Disclosure, Domain, Masked, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

/// The mask B of the weights.
pub(crate) const B: Label = Label::new(0, "weights.mask");

/// Opens a variable under its mask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenWeights {
    pub(crate) variable: u32,
    pub(crate) elements: u32,
}

impl Gate for OpenWeights {
    fn reads(&self) -> Vec<WireId> {
        vec![]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![]
    }

    fn traffic(&self, _shapes: &Shapes) -> Option<Traffic> {
        Some(Traffic { route: Route::Servers, blocks: vec![Block::new(Domain::Ring, self.elements as usize)] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a weight minus its mask, W - B",
            because: "B is uniform, drawn anew for each version of the weight and each epoch, and known to neither server",
        }]
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let Some(Variable::Plain(share)) = server.variables.get(self.variable as usize) else {
            return Err(Blame::bug("a weight has no share"));
        };
        let mut hat = share.to_vec();
        server.at.ring.sub_all(&mut hat, &server.variable_mask(self.variable, B, share.len())?);
        Ok(vec![Column::Words(hat)])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let ring = server.at.ring;
        let hat = opened(server, mine, theirs)?;
        let mut share = server.variable_mask(self.variable, B, hat.len())?;
        if S::INDEX == 0 {
            ring.add_all(&mut share, &hat);
        }
        server.opened.push((self.variable, Variable::Masked { hat: Arc::new(hat), share: Arc::new(share) }));
        Ok(())
    }
}

/// Puts a variable on wires, the same for every sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) variable: u32,
    pub(crate) to: Loaded,
}

/// As what a variable is put on wires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Loaded {
    /// Shares of a private variable.
    Shares(Wire<Additive>),
    /// A private variable that is open under its mask.
    Masked(Masked),
    /// A public variable.
    Public(Wire<Common>),
}

/// The shares of a private variable.
pub(crate) fn load(b: &mut Builder, variable: u32, elements: u32) -> Wire<Additive> {
    let out = b.wire(elements);
    b.push(Load { variable, to: Loaded::Shares(out) });
    out
}

/// A private variable under its mask.
pub(crate) fn load_masked(b: &mut Builder, variable: u32, elements: u32) -> Masked {
    let masked = Masked { hat: b.wire(elements), mask: b.wire(elements) };
    b.push(Load { variable, to: Loaded::Masked(masked) });
    masked
}

/// A public variable.
pub(crate) fn load_public(b: &mut Builder, variable: u32, elements: u32) -> Wire<Common> {
    let out = b.wire(elements);
    b.push(Load { variable, to: Loaded::Public(out) });
    out
}

impl Gate for Load {
    fn reads(&self) -> Vec<WireId> {
        vec![]
    }

    fn writes(&self) -> Vec<WireId> {
        match &self.to {
            Loaded::Shares(out) => vec![out.id()],
            Loaded::Masked(masked) => vec![masked.hat.id(), masked.mask.id()],
            Loaded::Public(out) => vec![out.id()],
        }
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        if let Loaded::Masked(masked) = &self.to {
            let mask = producer.variable_mask(self.variable)?.repeat(producer.at.batch());
            producer.put(masked.mask.id(), mask);
        }
        Ok(vec![])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let batch = server.at.batch();
        let variable = server.variables.get(self.variable as usize).cloned();
        match (&self.to, variable) {
            (Loaded::Shares(out), Some(Variable::Plain(share) | Variable::Masked { share, .. })) => {
                server.set(out, share.repeat(batch));
            }
            (Loaded::Public(out), Some(Variable::Public(value))) => server.set(out, value.repeat(batch)),
            (Loaded::Masked(masked), Some(Variable::Masked { hat, share })) => {
                let mut mask = share.to_vec();
                if S::INDEX == 0 {
                    server.at.ring.sub_all(&mut mask, &hat);
                }
                server.set(&masked.hat, hat.repeat(batch));
                server.set(&masked.mask, mask.repeat(batch));
            }
            _ => return Err(Blame::bug("a variable is not what its plan says")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, split, views};

    #[test]
    fn weights_are_loaded_as_shares_and_under_their_mask() {
        let (rig, (shares, masked)) = Rig::new(4, 1, |b| (load(b, 0, 2), load_masked(b, 0, 2)));
        let rig = rig.with_weights(&[2]).batch(2);
        let mut given = Given::default();
        given.versions = vec![vec![[vec![3, 9], vec![15, 9]]]];
        let ran = rig.run(&Tape::new(|_| false), given);
        let (zero, one) = (&ran.server0, &ran.server1);
        let sum = |a: &[u32], b: &[u32]| a.iter().zip(b).map(|(a, b)| (a + b) % 16).collect::<Vec<_>>();
        assert_eq!(sum(zero.words(&shares).unwrap(), one.words(&shares).unwrap()), [2, 2, 2, 2]);
        let mask = sum(zero.words(&masked.mask).unwrap(), one.words(&masked.mask).unwrap());
        assert_eq!(zero.words(&masked.hat).unwrap(), one.words(&masked.hat).unwrap());
        assert_eq!(sum(zero.words(&masked.hat).unwrap(), &mask), [2, 2, 2, 2]);
        assert_eq!(ran.dealt(masked.mask.id()), mask);
    }

    /// Two versions of a weight under one mask show their difference.
    #[test]
    fn a_mask_kept_for_the_next_version_of_a_weight_is_noticed() {
        let (rig, _) = Rig::new(2, 1, |b| load_masked(b, 0, 1));
        let rig = rig.with_weights(&[1]);
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |second| {
                let tape = mutant.iter().fold(Tape::new(|name| name == B.name), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    given.versions = vec![vec![split(tape, 4, 1)], vec![split(tape, 4, second)]];
                })
            };
            (0..4).map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server0) && alike(&seen(None), Role::Server1));
        assert!(!alike(&seen(Some(Mutant::SameVersion)), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::Zero(B.name))), Role::Server0));
    }
}
