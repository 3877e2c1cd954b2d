//! Squares, cheaper than products: one mask, one opening.
//!
//! SPDZ's squaring (Damgård, Pastro, Smart, Zakarias, CRYPTO 2012, §"squaring"), as Pond's square triple: with x open as
//! x̂ = x - a, z_j = \[j = 0\] x̂² + 2·x̂·a_j + q_j, where the crypto producer shares q = a².

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Domain, Masked, Shapes, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const Q: Label = Label::new(0, "square.square");

/// z = x².
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Square {
    pub(crate) x: Masked,
    pub(crate) z: Wire<Additive>,
}

/// x², element by element.
pub(crate) fn square(b: &mut Builder, x: Masked) -> Wire<Additive> {
    let z = b.wire(b.elements(&x.hat));
    b.push(Square { x, z });
    z
}

impl Gate for Square {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.hat.id(), self.x.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.z.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, shapes.elements(&self.z) as usize)]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let ring = producer.at.ring;
        let q = producer.dealt(self.x.mask.id())?.iter().map(|a| ring.mul(*a, *a)).collect();
        let block = Block::new(Domain::Ring, producer.at.elements(&self.z));
        Ok(vec![producer.at.correction(Q, block, Column::Words(q))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, first) = (server.at.ring, server.first());
        let mut z = server.dealt(self, 0, Q)?.words()?;
        let pairs = server.words(&self.x.hat)?.iter().zip(server.words(&self.x.mask)?);
        for (z, (hat, a)) in z.iter_mut().zip(pairs) {
            *z = ring.reduce(z.plus(hat.times(hat.times(first).plus(*a).plus(*a))));
        }
        server.set(&self.z, z);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::gates::mask::mask;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    fn rig() -> (Rig, [Wire<Additive>; 2]) {
        Rig::new(2, 1, |b| {
            let x = b.wire(1);
            let masked = mask(b, x);
            [x, square(b, masked)]
        })
    }

    #[test]
    fn every_square_is_right() {
        let (rig, [x_wire, z_wire]) = rig();
        for x in 0..4 {
            exhaust(Tape::new(|_| true), |tape| {
                let mut given = Given::default();
                let [x0, x1] = split(tape, 4, x);
                given.words(x_wire, x0, x1);
                let ran = rig.run(tape, given);
                let z = ran.server0.words(&z_wire).unwrap()[0] + ran.server1.words(&z_wire).unwrap()[0];
                assert_eq!(u64::from(z % 4), x * x % 4);
            });
        }
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        let (rig, [x_wire, _]) = rig();
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |x| {
                let tape = mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    let [x0, x1] = split(tape, 4, x);
                    given.words(x_wire, x0, x1);
                })
            };
            (0..4).map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server0) && alike(&seen(None), Role::Server1));
        assert!(!alike(&seen(Some(Mutant::Zero("mask.mask"))), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::Zero(Q.name))), Role::Server1), "server1 is sent the square");
    }
}
