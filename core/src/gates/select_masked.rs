//! What follows from a masked bit: the bit itself in the ring, and a masked tensor where the bit is 0.
//!
//! The bit s is open as e = s ⊕ ρ (see [`super::compare_table`]), so d = 1 - s = e' + (1 - 2e')·ρ with e' = 1 ⊕ e. Everything
//! is affine in what the crypto producer knows, who deals shares of it; nothing is said.
//!
//! - s = e + (1 - 2e)·\[ρ\].
//! - d·z for z = ẑ + a: (e' + (1 - 2e')ρ)·(ẑ + a) = e'·(ẑ + a) + (1 - 2e')·(ẑ·\[ρ\] + \[ρ·a\]).
//! - d·(z ≫ f), truncated on the way (see [`super::truncate`]) with what it takes of r = -a: R₁ = r ≫ f and R₂ = msb r.
//!   z ≫ f = P - R₁ + Q·R₂ with P and Q known, so d·(z ≫ f) = e'·(P - \[R₁\] + Q·\[R₂\]) + (1 - 2e')·(P·\[ρ\] - \[ρR₁\] +
//!   Q·\[ρR₂\]).
//!
//! ReLU is the second or third for z's sign. SIGMA and Orca fuse the same.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::compare_table::MaskedBit;
use crate::gates::truncate::{known, parts};
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Domain, Masked, Shapes, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const RHO: Label = Label::new(0, "select-masked.rho");
const PRODUCT: Label = Label::new(1, "select-masked.product");
const HIGH: Label = Label::new(2, "select-masked.high");
const TOP: Label = Label::new(3, "select-masked.top");
const TOP_PRODUCT: Label = Label::new(4, "select-masked.top-product");

/// out = the bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiftBit {
    pub(crate) bit: MaskedBit,
    pub(crate) out: Wire<Additive>,
}

/// The bit, as shares in the ring.
pub(crate) fn lift_bit(b: &mut Builder, bit: MaskedBit) -> Wire<Additive> {
    let out = b.wire(b.elements(&bit.e));
    b.push(LiftBit { bit, out });
    out
}

impl Gate for LiftBit {
    fn reads(&self) -> Vec<WireId> {
        vec![self.bit.e.id(), self.bit.rho.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, shapes.elements(&self.out) as usize)]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let rho = producer.held(&self.bit.rho)?.to_vec();
        let block = Block::new(Domain::Ring, producer.at.elements(&self.out));
        Ok(vec![producer.at.correction(RHO, block, Column::Words(rho))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, first) = (server.at.ring, server.first());
        let rho = server.dealt(self, 0, RHO)?.words()?;
        let pairs = server.words(&self.bit.e)?.iter().zip(rho);
        let out = pairs.map(|(e, rho)| ring.reduce(e.times(first).plus(rho).minus(e.plus(*e).times(rho))));
        let out = out.collect();
        server.set(&self.out, out);
        Ok(())
    }
}

/// out = z / 2^by where the bit is 0, else 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SelectMasked {
    pub(crate) bit: MaskedBit,
    pub(crate) z: Masked,
    /// The bits that are cut off, or 0.
    pub(crate) by: u32,
    pub(crate) out: Wire<Additive>,
}

/// z / 2^by where the bit is 0, else 0.
pub(crate) fn select_masked(b: &mut Builder, bit: MaskedBit, z: Masked, by: u32) -> Wire<Additive> {
    let out = b.wire(b.elements(&bit.e));
    b.push(SelectMasked { bit, z, by, out });
    out
}

impl Gate for SelectMasked {
    fn reads(&self) -> Vec<WireId> {
        vec![self.bit.e.id(), self.bit.rho.id(), self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let n = shapes.elements(&self.out) as usize;
        let (ring, low) = (Block::new(Domain::Ring, n), Block::new(Domain::Low(self.by), n));
        if self.by == 0 { vec![ring, ring] } else { vec![ring, ring, ring, low, low] }
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (ring, rho) = (producer.at.ring, producer.held(&self.bit.rho)?.to_vec());
        let times = |x: &[L]| rho.iter().zip(x).map(|(rho, x)| ring.mul(*rho, *x)).collect::<Vec<_>>();
        let a = producer.dealt(self.z.mask.id())?;
        let secrets = if self.by == 0 {
            let product = times(a);
            vec![(RHO, rho), (PRODUCT, product)]
        } else {
            let [high, top] = parts(ring, a, self.by);
            let (product, top_product) = (times(&high), times(&top));
            vec![(RHO, rho), (PRODUCT, product), (HIGH, high), (TOP, top), (TOP_PRODUCT, top_product)]
        };
        let blocks = self.material(&producer.at.plan.shapes);
        let secrets = secrets.into_iter().zip(blocks);
        secrets.map(|((label, secret), block)| producer.at.correction(label, block, Column::Words(secret))).collect()
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, first, one) = (server.at.ring, server.first(), L::from_u64(1));
        let (rho, product) = (server.dealt(self, 0, RHO)?.words()?, server.dealt(self, 1, PRODUCT)?.words()?);
        let (e, hat) = (server.words(&self.bit.e)?, server.words(&self.z.hat)?);
        let rows = e.iter().zip(hat).zip(rho.iter().zip(&product));
        let out: Vec<L> = if self.by == 0 {
            let mask = server.words(&self.z.mask)?;
            let rows = rows.zip(mask).map(|(((e, hat), (rho, product)), a)| {
                let kept = one.minus(*e);
                let turned = one.minus(kept.plus(kept));
                let plain = kept.times(hat.times(first).plus(*a));
                ring.reduce(plain.plus(turned.times(hat.times(*rho).plus(*product))))
            });
            rows.collect()
        } else {
            let dealt = |index, label| server.dealt(self, index, label)?.words();
            let (high, top, top_product) = (dealt(2, HIGH)?, dealt(3, TOP)?, dealt(4, TOP_PRODUCT)?);
            let tops = top.iter().zip(&top_product);
            let rows =
                rows.zip(high.iter().zip(tops)).map(|(((e, hat), (rho, product)), (high, (top, top_product)))| {
                    let kept = one.minus(*e);
                    let turned = one.minus(kept.plus(kept));
                    let (open, wrapped) = known(ring, *hat, self.by);
                    let plain = open.times(first).minus(*high).plus(wrapped.times(*top));
                    let masked = open.times(*rho).minus(*product).plus(wrapped.times(*top_product));
                    ring.reduce(kept.times(plain).plus(turned.times(masked)))
                });
            rows.collect()
        };
        server.set(&self.out, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::compare::hash::HashKind;
    use crate::gates::mask::mask;
    use crate::gates::{compare_dpf, compare_table};
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    type Compare = fn(&mut Builder, Masked, u32) -> MaskedBit;
    const COMPARISONS: [Compare; 3] = [
        compare_table::bit,
        |b, z, position| compare_dpf::bit(b, z, position, HashKind::Aes),
        |b, z, position| compare_dpf::bit(b, z, position, HashKind::ChaCha),
    ];

    /// Every number, every mask in every sharing: its sign, itself where it is not negative, truncated and not.
    #[test]
    fn every_sign_and_every_relu_is_right() {
        for ((k, f), bit) in [(4u32, 1u32), (5, 2)].into_iter().flat_map(|kf| COMPARISONS.map(|bit| (kf, bit))) {
            let (rig, (z_wire, sign, kept, cut)) = Rig::new(k, f, |b| {
                let z = b.wire(1);
                let masked = mask(b, z);
                let bit = bit(b, masked, k - 2);
                (z, lift_bit(b, bit), select_masked(b, bit, masked, 0), select_masked(b, bit, masked, f))
            });
            let (ring, bound) = (Ring::<u32>::new(k).unwrap(), 1i64 << (k - 2));
            for z in -bound..bound {
                // Five bits have masks enough without every ρ.
                let chosen: crate::testing::Chosen = match k {
                    4 => |name| ["mask.mask", "open-bit.rho"].contains(&name),
                    _ => |name| name == "mask.mask",
                };
                for salt in 0..2 {
                    exhaust(Tape::new(chosen).salted(salt), |tape| {
                        let mut given = Given::default();
                        given.words(z_wire, vec![3], vec![ring.sub(ring.element(z as u64), 3)]);
                        let ran = rig.run(tape, given);
                        let sum = |wire| {
                            let shares = (ran.server0.words(wire).unwrap()[0], ran.server1.words(wire).unwrap()[0]);
                            ring.signed(ring.add(shares.0, shares.1))
                        };
                        assert_eq!((sum(&sign), sum(&kept)), (i64::from(z < 0), z.max(0)), "{k} bits: {z}");
                        let off = sum(&cut) - (z.max(0) >> f);
                        assert!(off == 0 || (off == 1 && z > 0), "{k} bits: {z} became {}", sum(&cut));
                    });
                }
            }
        }
    }

    /// Every bit of every number.
    #[test]
    fn every_bit_is_right() {
        for (position, bit) in (0..3).flat_map(|position| COMPARISONS.map(|bit| (position, bit))) {
            let (rig, (z_wire, out)) = Rig::new(4, 1, |b| {
                let z = b.wire(1);
                let masked = mask(b, z);
                let bit = bit(b, masked, position);
                (z, lift_bit(b, bit))
            });
            for z in 0..16u32 {
                exhaust(Tape::new(|name| name == "mask.mask"), |tape| {
                    let mut given = Given::default();
                    given.words(z_wire, vec![5], vec![(z + 16 - 5) % 16]);
                    let ran = rig.run(tape, given);
                    let sum = ran.server0.words(&out).unwrap()[0] + ran.server1.words(&out).unwrap()[0];
                    assert_eq!(sum % 16, z >> position & 1, "bit {position} of {z}");
                });
            }
        }
    }

    /// The masks, the opened bits and their dealt shares are enumerated; of the shares of what is dealt in the ring, each
    /// label by itself.
    fn seen(compare: Compare, chosen: crate::testing::Chosen, mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, z_wire) = Rig::new(3, 1, |b| {
            let z = b.wire(1);
            let masked = mask(b, z);
            let bit = compare(b, masked, 1);
            lift_bit(b, bit);
            select_masked(b, bit, masked, 0);
            select_masked(b, bit, masked, 1);
            z
        });
        let of = |z| {
            let tape = mutant.iter().fold(Tape::new(chosen), |tape, mutant| tape.with(*mutant));
            views(tape, &rig, |tape, given| {
                let [z0, z1] = split(tape, 8, z);
                given.words(z_wire, z0, z1);
            })
        };
        [6, 7, 0, 1].into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        // server0's view of tables has no corrections in it: masks and opened bits are all that it sees. Correction words are
        // fixed here; that they say nothing is the tree's property, and tested statistically there.
        let openings: crate::testing::Chosen =
            |name| ["mask.mask", "open-bit.rho", "open-bit.bit", "compare-table.masks"].contains(&name);
        let table = compare_table::bit;
        assert!(alike(&seen(table, openings, None), Role::Server0));
        for label in ["mask.mask", "open-bit.rho", "compare-table.masks"] {
            assert!(!alike(&seen(table, openings, Some(Mutant::Zero(label))), Role::Server0), "{label}");
        }
    }
}
