//! Products with private weights: Beaver triples whose right half is fixed.
//!
//! Beaver, "Efficient multiparty protocols using circuit randomization" (CRYPTO 1991), for matrices as in SecureNN
//! (Algorithm 1), with the weights' mask kept as in Pond's masked tensors:
//!
//! 1. Once for each version of the weights and epoch, the servers open Ŵ = W - B.
//! 2. For each sample, they open X̂ = X - A.
//! 3. Z_j = \[j = 0\] X̂·Ŵ + X̂·B_j + A_j·Ŵ + C_j, where C = A·B. Then Z_0 + Z_1 = (X̂ + A)(Ŵ + B) = X·W.
//!
//! A_j and B_j are expanded from the seed that server j shares with the crypto producer, C_0 too; only C_1 is sent.
//! B belongs to one version of the variable in one epoch: another version under the same B would show the difference of
//! the two. A belongs to one unit, and is used once.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::kernel::Linear;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::{Server, Variable};
use crate::plan::{Additive, Block, Builder, Disclosure, Domain, Own, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

/// The mask A of an input.
const A: Label = Label::new(0, "linear.input-mask");
/// C = A·B.
const C: Label = Label::new(1, "linear.product");
/// The mask B of the weights.
pub(crate) const B: Label = Label::new(2, "linear.weight-mask");

/// Step 1: opens a variable under its mask.
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
        let mut operand = server.variable_mask(self.variable, B, hat.len())?;
        if S::INDEX == 0 {
            ring.add_all(&mut operand, &hat);
        }
        server.opened.push((self.variable, Variable::Masked { hat: Arc::new(hat), operand: Arc::new(operand) }));
        Ok(())
    }
}

/// Steps 2 and 3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Apply {
    pub(crate) x: Wire<Additive>,
    pub(crate) variable: u32,
    pub(crate) linear: Linear,
    /// A_j, until step 3.
    pub(crate) mask: Wire<Own>,
    pub(crate) out: Wire<Additive>,
}

/// The image of x under the linear map whose weights are a variable.
pub(crate) fn apply(b: &mut Builder, x: Wire<Additive>, variable: u32, linear: Linear) -> Wire<Additive> {
    let (mask, out) = (b.wire(linear.inputs() as u32), b.wire(linear.outputs() as u32));
    b.push(Apply { x, variable, linear, mask, out });
    out
}

impl Gate for Apply {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.mask.id(), self.out.id()]
    }

    fn traffic(&self, _shapes: &Shapes) -> Option<Traffic> {
        Some(Traffic { route: Route::Servers, blocks: vec![Block::new(Domain::Ring, self.linear.inputs())] })
    }

    fn material(&self, _shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, self.linear.outputs())]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "the input of a product minus its mask, X - A",
            because: "A is uniform, belongs to this sample alone, and is known to neither server",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let mask = producer.mask(A, self.linear.inputs())?;
        let mut product = vec![L::default(); self.linear.outputs() * producer.at.batch()];
        self.linear.apply(&mask, producer.variable_mask(self.variable)?, &mut product);
        product.iter_mut().for_each(|c| *c = producer.at.ring.reduce(*c));
        let block = Block::new(Domain::Ring, self.linear.outputs());
        Ok(vec![producer.at.correction(C, block, Column::Words(product))?])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let mask = server.mask(A, self.linear.inputs())?;
        let mut hat = server.words(&self.x)?.to_vec();
        server.at.ring.sub_all(&mut hat, &mask);
        server.set(&self.mask, mask);
        Ok(vec![Column::Words(hat)])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let hat = opened(server, mine, theirs)?;
        let Some(Variable::Masked { hat: weights, operand }) = server.variables.get(self.variable as usize) else {
            return Err(Blame::bug("a weight was not opened under its mask"));
        };
        let mut out = server.dealt(self, 0, C)?.words()?;
        self.linear.apply(&hat, operand, &mut out);
        self.linear.apply(server.words(&self.mask)?, weights, &mut out);
        out.iter_mut().for_each(|z| *z = server.at.ring.reduce(*z));
        server.set(&self.out, out);
        server.forget(self.mask.id());
        Ok(())
    }
}

/// The sum of both servers' messages of one column.
pub(crate) fn opened<S: Side, L: Lane, R: Randomness>(
    server: &Server<S, L, R>,
    mine: Vec<Column<L>>,
    theirs: Vec<Column<L>>,
) -> Result<Vec<L>, Blame> {
    let missing = || Blame::bug("an opening without its message");
    let mut sum = mine.into_iter().next().ok_or_else(missing)?.words()?;
    server.at.ring.add_all(&mut sum, &theirs.into_iter().next().ok_or_else(missing)?.words()?);
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, split, views};

    fn rig() -> (Rig, (Wire<Additive>, Wire<Additive>)) {
        let (rig, wires) = Rig::new(2, 1, |b| {
            let x = b.wire(1);
            (x, apply(b, x, 0, Linear::MatMul { inputs: 1, outputs: 1 }))
        });
        (rig.with_weights(&[1]), wires)
    }

    #[test]
    fn every_product_is_right() {
        let (rig, (x_wire, z_wire)) = rig();
        for (x, w, salt) in (0..4).flat_map(|x| (0..4).flat_map(move |w| (0..32).map(move |salt| (x, w, salt)))) {
            let mut given = Given::default();
            given.words(x_wire, vec![u32::from(salt) % 4], vec![(x + 4 - u32::from(salt) % 4) % 4]);
            given.versions = vec![vec![[vec![u32::from(salt) / 4 % 4], vec![(w + 4 - u32::from(salt) / 4 % 4) % 4]]]];
            let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
            let z = ran.server0.words(&z_wire).unwrap()[0] + ran.server1.words(&z_wire).unwrap()[0];
            assert_eq!(z % 4, x * w % 4);
        }
    }

    fn over_all_factors(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, (x_wire, _)) = rig();
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let of = |(x, w)| {
            views(tape(), &rig, |tape, given| {
                let ([x0, x1], weight) = (split(tape, 4, x), split(tape, 4, w));
                given.words(x_wire, x0, x1);
                given.versions = vec![vec![weight]];
            })
        };
        [(0, 0), (0, 3), (1, 1), (2, 1), (3, 2)].into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_factors() {
        let shipped = over_all_factors(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        for label in [A, B] {
            let broken = over_all_factors(Some(Mutant::Zero(label.name)));
            assert!(!alike(&broken, Role::Server0) && !alike(&broken, Role::Server1), "{}", label.name);
        }
        assert!(!alike(&over_all_factors(Some(Mutant::Zero(C.name))), Role::Server1), "server1 is sent the product");
    }

    /// Two inputs under one mask show their difference.
    #[test]
    fn a_triple_used_twice_is_noticed() {
        let (rig, (x_wire, _)) = rig();
        let rig = rig.batch(2);
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |second| {
                let tape = mutant.iter().fold(Tape::new(|name| name == A.name), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    let ([a0, a1], [b0, b1]) = (split(tape, 4, 1), split(tape, 4, second));
                    given.words(x_wire, [a0, b0].concat(), [a1, b1].concat());
                    given.versions = vec![vec![[vec![1], vec![2]]]];
                })
            };
            (0..4).map(of).collect()
        };
        // server0's view has no material in it, whose own masks are not enumerated here.
        assert!(alike(&seen(None), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameUnit)), Role::Server0));
    }

    /// Two versions of a weight under one mask show their difference.
    #[test]
    fn a_mask_kept_for_the_next_version_of_a_weight_is_noticed() {
        let (rig, (x_wire, _)) = rig();
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |second| {
                let tape = mutant.iter().fold(Tape::new(|name| name == B.name), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    given.words(x_wire, vec![0], vec![0]);
                    given.versions = vec![vec![split(tape, 4, 1)], vec![split(tape, 4, second)]];
                })
            };
            (0..4).map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameVersion)), Role::Server0));
    }
}
