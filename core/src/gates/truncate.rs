//! Truncation by f bits of a masked tensor: without a word, stochastic, and it never fails.
//!
//! Escudero et al., "Improved primitives for MPC over mixed arithmetic-binary circuits" (ePrint 2020/338), §5.1, for
//! |z| < 2^(k-2) that is open as ẑ = z + r (see [`super::mask`], whose mask a is -r):
//!
//! 1. The crypto producer deals shares of r ≫ f, and shares modulo 2^f of r's top bit.
//! 2. The servers take c = ẑ + 2^(k-2), so that z + 2^(k-2) lies in 0..2^(k-1).
//! 3. y = (c ≫ f) - 2^(k-2-f) - \[r ≫ f\] + (1 - msb c)·\[msb r\]·2^(k-f).
//!
//! The last term puts back the wrap of c: it can only have happened if r's top bit was set and c's is not.
//! y is ⌊z / 2^f⌋ or one more, and the probability of one more is exactly the fraction that is cut off. What is realised is
//! the functionality that exposes its mask (Curl, ePrint 2024/1127); SECURITY.md says what follows.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::mask::mask;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Domain, Masked, Shapes, Wire, WireId};
use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::{Label, Randomness};

const HIGH: Label = Label::new(0, "truncate.high");
const TOP: Label = Label::new(1, "truncate.top");

/// y = z / 2^by, rounded down or up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Truncate {
    pub(crate) z: Masked,
    /// f: the bits that are cut off.
    pub(crate) by: u32,
    pub(crate) y: Wire<Additive>,
}

/// z / 2^by.
pub(crate) fn truncate(b: &mut Builder, z: Wire<Additive>, by: u32) -> Wire<Additive> {
    let (z, y) = (mask(b, z), b.wire(b.elements(&z)));
    b.push(Truncate { z, by, y });
    y
}

/// What the crypto producer shares of r = -a: r ≫ by, and r's top bit.
pub(crate) fn parts<L: Lane>(ring: Ring<L>, a: &[L], by: u32) -> [Vec<L>; 2] {
    let r = || a.iter().map(|a| ring.sub(L::default(), *a).to_u64());
    [r().map(|r| L::from_u64(r >> by)).collect(), r().map(|r| L::from_u64(r >> (ring.bits() - 1))).collect()]
}

/// What the servers know of y: (c ≫ by) - 2^(k-2-by), and the factor (1 - msb c)·2^(k-by) of r's top bit.
pub(crate) fn known<L: Lane>(ring: Ring<L>, hat: L, by: u32) -> (L, L) {
    let k = ring.bits();
    let c = ring.add(hat, ring.element(1 << (k - 2))).to_u64();
    let high = ring.sub(ring.element(c >> by), ring.element(1 << (k - 2 - by)));
    (high, ring.element(1u64.wrapping_sub(c >> (k - 1)) << (k - by)))
}

impl Gate for Truncate {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let n = shapes.elements(&self.y) as usize;
        vec![Block::new(Domain::Ring, n), Block::new(Domain::Low(self.by), n)]
    }

    fn deal<L: Lane, Q: Randomness>(&self, producer: &mut Producer<L, Q>) -> Result<Vec<Column<L>>, Blame> {
        let secrets = parts(producer.at.ring, producer.dealt(self.z.mask.id())?, self.by);
        let blocks = self.material(&producer.at.plan.shapes);
        let secrets = [HIGH, TOP].into_iter().zip(secrets).zip(blocks);
        secrets.map(|((label, secret), block)| producer.at.correction(label, block, Column::Words(secret))).collect()
    }

    fn finish<S: Side, L: Lane, Q: Randomness>(
        &self,
        server: &mut Server<S, L, Q>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, first) = (server.at.ring, server.first());
        let (high, top) = (server.dealt(self, 0, HIGH)?.words()?, server.dealt(self, 1, TOP)?.words()?);
        let rows = server.words(&self.z.hat)?.iter().zip(high.into_iter().zip(top));
        let y = rows.map(|(hat, (high, top))| {
            let (open, wrapped) = known(ring, *hat, self.by);
            ring.reduce(open.times(first).minus(high).plus(wrapped.times(top)))
        });
        let y = y.collect();
        server.set(&self.y, y);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    /// Every number within the bound, every mask in every sharing: down or up by one, up exactly as often as the fraction
    /// that is cut off says.
    #[test]
    fn rounding_is_exactly_stochastic_and_never_fails() {
        for (k, f) in [(5u32, 2u32), (5, 1), (4, 1)] {
            let (rig, (z_wire, y_wire)) = Rig::new(k, f, |b| {
                let z = b.wire(1);
                (z, truncate(b, z, f))
            });
            let (ring, bound) = (Ring::<u32>::new(k).unwrap(), 1i64 << (k - 2));
            for z in -bound..bound {
                let mut up = 0;
                let runs = exhaust(Tape::new(|name| name == "mask.mask"), |tape| {
                    let mut given = Given::default();
                    given.words(z_wire, vec![3], vec![ring.sub(ring.element(z as u64), 3)]);
                    let ran = rig.run(tape, given);
                    let y = ring.add(ran.server0.words(&y_wire).unwrap()[0], ran.server1.words(&y_wire).unwrap()[0]);
                    let off = ring.signed(y) - (z >> f);
                    assert!(off == 0 || off == 1, "{k} {f}: {z} became {}", ring.signed(y));
                    up += off as u64;
                });
                assert_eq!(up << f, runs * (z & ((1 << f) - 1)) as u64, "{k} {f}: {z}");
            }
        }
    }

    fn over_all_numbers(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, z_wire) = Rig::new(3, 1, |b| {
            let z = b.wire(1);
            truncate(b, z, 1);
            z
        });
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let of = |z| {
            views(tape(), &rig, |tape, given| {
                let [z0, z1] = split(tape, 8, z);
                given.words(z_wire, z0, z1);
            })
        };
        [6, 7, 0, 1].into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        let shipped = over_all_numbers(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        assert!(!alike(&over_all_numbers(Some(Mutant::Zero("mask.mask"))), Role::Server0));
        for label in [HIGH, TOP] {
            assert!(!alike(&over_all_numbers(Some(Mutant::Zero(label.name))), Role::Server1), "{}", label.name);
        }
    }
}
