//! Masking: a private tensor becomes known to both servers under a mask that nobody but the crypto producer knows.
//!
//! Pond's masked tensors (the white paper of TF Encrypted, arXiv 1810.08130, §4), Beaver's openings: the crypto producer
//! and server j expand a_j from their common seed, and the servers open x̂ = x - a with a = a_0 + a_1. Whatever is computed
//! with x afterwards (any number of products and squares) uses this one opening.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{
    Additive, Block, Builder, Common, Disclosure, Domain, Mask, Masked, Route, Shapes, Traffic, Wire, WireId,
};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const A: Label = Label::new(0, "mask.mask");

/// x̂ = x - a.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenMasked {
    pub(crate) x: Wire<Additive>,
    pub(crate) hat: Wire<Common>,
    pub(crate) mask: Wire<Mask>,
}

/// x under a mask; the same one every time it is asked for.
pub(crate) fn mask(b: &mut Builder, x: Wire<Additive>) -> Masked {
    if let Some(masked) = b.masked(x) {
        return masked;
    }
    let n = b.elements(&x);
    let masked = Masked { hat: b.wire(n), mask: b.wire(n) };
    b.push(OpenMasked { x, hat: masked.hat, mask: masked.mask });
    b.remember_masked(x, masked);
    masked
}

/// Shares of a masked tensor: x_j = \[j = 0\] x̂ + a_j.
pub(crate) fn unmask(b: &mut Builder, masked: Masked) -> Wire<Additive> {
    let x = b.wire(b.elements(&masked.hat));
    b.push(Unmask { masked, x });
    // Should it be masked again, it is masked already.
    b.remember_masked(x, masked);
    x
}

impl Gate for OpenMasked {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.hat.id(), self.mask.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Ring, shapes.elements(&self.x) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a tensor minus its mask, X - A",
            because: "A is uniform, belongs to this tensor of this sample alone, and is known to neither server",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let mask = producer.mask(A, producer.at.elements(&self.mask))?;
        producer.put(self.mask.id(), mask);
        Ok(vec![])
    }

    fn prepare<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<(), Blame> {
        let mask = server.mask(A, server.at.elements(&self.x))?;
        server.set(&self.mask, mask);
        Ok(())
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let mask = server.mask(A, server.at.elements(&self.x))?;
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
        server.set(&self.hat, hat);
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

/// See [`unmask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unmask {
    pub(crate) masked: Masked,
    pub(crate) x: Wire<Additive>,
}

impl Gate for Unmask {
    fn reads(&self) -> Vec<WireId> {
        vec![self.masked.hat.id(), self.masked.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let x = server.combined(&self.masked)?;
        server.set(&self.x, x);
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
    use crate::testing::{Views, alike, exhaust, split, views};

    fn rig() -> (Rig, [Wire<Additive>; 2], Masked) {
        let (rig, (x, y, masked)) = Rig::new(2, 1, |b| {
            let x = b.wire(1);
            let masked = mask(b, x);
            assert_eq!(mask(b, x).hat.id(), masked.hat.id(), "a tensor is opened once");
            (x, unmask(b, masked), masked)
        });
        (rig, [x, y], masked)
    }

    #[test]
    fn masked_and_unmasked_is_the_same() {
        let (rig, [x_wire, y_wire], masked) = rig();
        for x in 0..4 {
            exhaust(Tape::new(|_| true), |tape| {
                let mut given = Given::default();
                let [x0, x1] = split(tape, 4, x);
                given.words(x_wire, x0, x1);
                let ran = rig.run(tape, given);
                assert_eq!(ran.server0.words(&masked.hat).unwrap(), ran.server1.words(&masked.hat).unwrap());
                let y = ran.server0.words(&y_wire).unwrap()[0] + ran.server1.words(&y_wire).unwrap()[0];
                assert_eq!(u64::from(y % 4), x);
            });
        }
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        let (rig, [x_wire, _], _) = rig();
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
        for server in [Role::Server0, Role::Server1] {
            assert!(alike(&seen(None), server));
            assert!(!alike(&seen(Some(Mutant::Zero(A.name))), server));
        }
    }

    /// Two inputs under one mask show their difference.
    #[test]
    fn a_mask_used_twice_is_noticed() {
        let (rig, [x_wire, _], _) = rig();
        let rig = rig.batch(2);
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |second| {
                let tape = mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    let ([a0, a1], [b0, b1]) = (split(tape, 4, 1), split(tape, 4, second));
                    given.words(x_wire, [a0, b0].concat(), [a1, b1].concat());
                })
            };
            (0..4).map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameUnit)), Role::Server0));
    }

    /// So do two tensors.
    #[test]
    fn a_mask_that_two_tensors_share_is_noticed() {
        let (rig, wires) = Rig::new(1, 1, |b| {
            let wires: [Wire<Additive>; 2] = [b.wire(1), b.wire(1)];
            for x in wires {
                mask(b, x);
            }
            wires
        });
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |values: [u64; 2]| {
                let tape = mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    for (wire, value) in wires.into_iter().zip(values) {
                        let [x0, x1] = split(tape, 2, value);
                        given.words(wire, x0, x1);
                    }
                })
            };
            [[0, 0], [0, 1], [1, 0], [1, 1]].into_iter().map(of).collect()
        };
        for server in [Role::Server0, Role::Server1] {
            assert!(alike(&seen(None), server));
            assert!(!alike(&seen(Some(Mutant::SameStep(A.name))), server));
        }
    }
}
