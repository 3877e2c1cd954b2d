//! Products of two private tensors, element by element, and what selects by them.
//!
//! Beaver's triples (see [`super::linear`]) with both halves fresh: the servers open x̂ = x - a and ŷ = y - b, then
//! z_j = \[j = 0\] x̂·ŷ + x̂·b_j + a_j·ŷ + c_j with c = a·b. The share is fresh, since c_j is.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::arrange::combine;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Disclosure, Domain, Own, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const A: Label = Label::new(0, "multiply.left-mask");
const B: Label = Label::new(1, "multiply.right-mask");
const C: Label = Label::new(2, "multiply.product");

/// z = x·y.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Multiply {
    pub(crate) x: Wire<Additive>,
    pub(crate) y: Wire<Additive>,
    /// a_j and b_j, until the openings have arrived.
    pub(crate) masks: [Wire<Own>; 2],
    pub(crate) z: Wire<Additive>,
}

/// x·y, element by element.
pub(crate) fn multiply(b: &mut Builder, x: Wire<Additive>, y: Wire<Additive>) -> Wire<Additive> {
    let n = b.elements(&x);
    let (masks, z) = ([b.wire(n), b.wire(n)], b.wire(n));
    b.push(Multiply { x, y, masks, z });
    z
}

/// SelectShare (SecureNN, Algorithm 2): x where α = 0 and y where α = 1, as x + α·(y - x).
pub(crate) fn select_share(
    b: &mut Builder,
    alpha: Wire<Additive>,
    x: Wire<Additive>,
    y: Wire<Additive>,
) -> Wire<Additive> {
    let difference = combine(b, &[(y, 1), (x, -1)], 0);
    let chosen = multiply(b, alpha, difference);
    combine(b, &[(x, 1), (chosen, 1)], 0)
}

impl Gate for Multiply {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id(), self.y.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.masks[0].id(), self.masks[1].id(), self.z.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Ring, shapes.elements(&self.z) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block, block] })
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, shapes.elements(&self.z) as usize)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "both factors of a product minus their masks",
            because: "the masks are uniform, belong to this product alone, and are known to neither server",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let n = producer.at.elements(&self.z);
        let (a, b, ring) = (producer.mask(A, n)?, producer.mask(B, n)?, producer.at.ring);
        let c = a.iter().zip(&b).map(|(a, b)| ring.mul(*a, *b)).collect();
        Ok(vec![producer.at.correction(C, Block::new(Domain::Ring, n), Column::Words(c))?])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let n = server.at.elements(&self.z);
        let mut columns = vec![];
        for ((factor, label), place) in [(&self.x, A), (&self.y, B)].into_iter().zip(&self.masks) {
            let mask = server.mask(label, n)?;
            let mut hat = server.words(factor)?.to_vec();
            server.at.ring.sub_all(&mut hat, &mask);
            server.set(place, mask);
            columns.push(Column::Words(hat));
        }
        Ok(columns)
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let ring = server.at.ring;
        let mut hats = vec![];
        for (mine, theirs) in mine.into_iter().zip(theirs) {
            let mut hat = mine.words()?;
            ring.add_all(&mut hat, &theirs.words()?);
            hats.push(hat);
        }
        let [x, y] = hats.as_slice() else { return Err(Blame::bug("a product without its openings")) };
        let (a, b) = (server.words(&self.masks[0])?, server.words(&self.masks[1])?);
        let first = server.first();
        let mut z = server.dealt(self, 0, C)?.words()?;
        for ((z, (x, y)), (a, b)) in z.iter_mut().zip(x.iter().zip(y)).zip(a.iter().zip(b)) {
            let open = x.times(y.times(first).plus(*b));
            *z = ring.reduce(z.plus(open).plus(a.times(*y)));
        }
        server.set(&self.z, z);
        self.masks.iter().for_each(|mask| server.forget(mask.id()));
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

    fn rig() -> (Rig, [Wire<Additive>; 3]) {
        Rig::new(2, 1, |b| {
            let (x, y) = (b.wire(1), b.wire(1));
            [x, y, multiply(b, x, y)]
        })
    }

    #[test]
    fn every_product_is_right() {
        let (rig, [x_wire, y_wire, z_wire]) = rig();
        for (x, y, salt) in (0..4).flat_map(|x| (0..4).flat_map(move |y| (0..32).map(move |salt| (x, y, salt)))) {
            let mut given = Given::default();
            given.words(x_wire, vec![u32::from(salt) % 4], vec![(x + 4 - u32::from(salt) % 4) % 4]);
            given.words(y_wire, vec![u32::from(salt) / 4 % 4], vec![(y + 4 - u32::from(salt) / 4 % 4) % 4]);
            let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
            let z = ran.server0.words(&z_wire).unwrap()[0] + ran.server1.words(&z_wire).unwrap()[0];
            assert_eq!(z % 4, x * y % 4);
        }
    }

    fn over_all_factors(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, [x_wire, y_wire, _]) = rig();
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let factors = [(0, 0), (0, 3), (1, 1), (2, 1), (3, 2)];
        let of = |(x, y)| {
            views(tape(), &rig, |tape, given| {
                let ([x0, x1], [y0, y1]) = (split(tape, 4, x), split(tape, 4, y));
                given.words(x_wire, x0, x1);
                given.words(y_wire, y0, y1);
            })
        };
        factors.into_iter().map(of).collect()
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

    /// Two products under one triple show the difference of their factors.
    #[test]
    fn a_triple_used_twice_is_noticed() {
        let (rig, [x_wire, y_wire, _]) = rig();
        let rig = rig.batch(2);
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |second| {
                let tape = mutant.iter().fold(Tape::new(|name| name == A.name), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |tape, given| {
                    let ([a0, a1], [b0, b1]) = (split(tape, 4, 1), split(tape, 4, second));
                    given.words(x_wire, [a0, b0].concat(), [a1, b1].concat());
                    given.words(y_wire, vec![0, 0], vec![0, 0]);
                })
            };
            (0..4).map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameUnit)), Role::Server0));
    }
}
