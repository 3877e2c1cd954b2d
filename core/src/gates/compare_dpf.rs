//! One bit of a masked tensor, by comparison with a distributed point function (see [`crate::compare::dpf`]).
//!
//! As in [`super::compare_table`] bit p of z is that of ẑ, that of r, and the borrow 1{ẑ mod 2^p < r mod 2^p} together. Here
//! each server finds its share of the borrow without a word, from correction words that both were dealt alike and a root
//! that it expands from its seed; then e = z\[p\] ⊕ ρ is opened.
//!
//! A key may be evaluated at any number of points, so what has been moved by public numbers, as a spline's argument is to its
//! knots, is compared with one key for all: x̂ - c is x - c under x's own mask.
//!
//! The hash of the tree is keyed with a public value of its own for each step and unit, which nobody can choose: a hash of
//! the epoch, the plan and the weights' version.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::compare::dpf::Dpf;
use crate::compare::hash::{Hash, HashKind};
use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::compare_table::{MaskedBit, deal_bit, low, opened_bits, share_bit};
use crate::party::column::Column;
use crate::party::context::Context;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Block, Builder, Disclosure, Domain, Masked, Route, Shapes, Traffic, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const ROOT: Label = Label::new(2, "compare-dpf.root");
/// Bytes of a root.
const ROOT_BYTES: usize = 16;

/// Opens a bit of z.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CompareDpf {
    /// A multiple of the mask's elements is open: all of them once, then all of them once more, and so on.
    pub(crate) z: Masked,
    /// Above 0: bit 0 wants no comparison.
    pub(crate) position: u32,
    pub(crate) hash: HashKind,
    pub(crate) bit: MaskedBit,
}

/// Bit `position` of z, which lies below k - 1. If z's open half has more elements than its mask, they are under the same
/// masks, over and over.
pub(crate) fn bit(b: &mut Builder, z: Masked, position: u32, hash: HashKind) -> MaskedBit {
    if position == 0 {
        return crate::gates::compare_table::bit(b, z, 0);
    }
    let n = b.elements(&z.hat);
    let bit = MaskedBit { e: b.wire(n), rho: b.wire(n) };
    b.push(CompareDpf { z, position, hash, bit });
    bit
}

impl CompareDpf {
    fn dpf(&self) -> Result<Dpf, Blame> {
        Dpf::new(self.position).ok_or_else(|| Blame::bug("a comparison of no bits"))
    }

    /// The hash of one unit.
    fn hash<L: Lane, R: Randomness>(&self, at: &Context<L, R>, unit: usize) -> Hash {
        Hash::new(self.hash, at.public_key(unit))
    }

    fn roots<L: Lane, R: Randomness>(&self, at: &Context<L, R>, pair: Pair) -> Result<Vec<u128>, Blame> {
        let block = Block::new(Domain::Byte, at.elements(&self.z.mask) * ROOT_BYTES);
        let mut bytes = at.draw_block(pair, ROOT, block)?.field()?;
        let roots = bytes.as_chunks().0.iter().map(|root| u128::from_le_bytes(*root)).collect();
        bytes.zeroize();
        Ok(roots)
    }
}

impl Gate for CompareDpf {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.bit.e.id(), self.bit.rho.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Bits(1), shapes.elements(&self.bit.e) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn words(&self, shapes: &Shapes) -> Vec<Block> {
        let bytes = Dpf::new(self.position).map_or(0, |dpf| dpf.key_bytes());
        vec![Block::new(Domain::Byte, shapes.elements(&self.z.mask) as usize * bytes)]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Bits(1), shapes.elements(&self.z.mask) as usize)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![
            Disclosure {
                to: "server0 and server1",
                what: "a bit of a masked tensor, XOR a dealt bit",
                because: "the dealt bit is uniform, belongs to this comparison alone, and is known to neither server",
            },
            Disclosure {
                to: "server0 and server1",
                what: "correction words of a distributed point function",
                because: "beside its own root they are pseudorandom to each server, as long as the tree's hash is one",
            },
        ]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (dpf, n, ring) = (self.dpf()?, producer.at.elements(&self.z.mask), producer.at.ring);
        let r = producer.dealt(self.z.mask.id())?.iter();
        let mut r: Vec<u64> = r.map(|a| low(ring.sub(L::default(), *a), self.position)).collect();
        let mut roots = [self.roots(&producer.at, Pair::Producer0)?, self.roots(&producer.at, Pair::Producer1)?];
        let [roots0, roots1] = &roots;
        let mut words = Vec::with_capacity(r.len() * dpf.key_bytes());
        let units = r.chunks(n.max(1)).zip(roots0.chunks(n.max(1)).zip(roots1.chunks(n.max(1))));
        for (unit, (r, (roots0, roots1))) in units.enumerate() {
            words.extend(dpf.deal(&self.hash(&producer.at, unit), r, roots0, roots1)?);
        }
        r.zeroize();
        roots.iter_mut().for_each(Zeroize::zeroize);
        Ok(vec![Column::Field(words), deal_bit(producer, self.z, self.position, self.bit)?])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (dpf, n) = (self.dpf()?, server.at.elements(&self.z.mask));
        let all = server.at.elements(&self.bit.e);
        let points = all / n.max(1);
        let words = server.dealt_words(self, 0)?;
        let mut roots = self.roots(&server.at, S::DEALT)?;
        let x: Vec<u64> = server.words(&self.z.hat)?.iter().map(|x| low(*x, self.position)).collect();
        let mut borrow = Vec::with_capacity(x.len());
        let units = x.chunks(all.max(1)).zip(roots.chunks(n.max(1)).zip(words.chunks((n * dpf.key_bytes()).max(1))));
        for (unit, (x, (roots, words))) in units.enumerate() {
            let hash = self.hash(&server.at, unit);
            if points == 1 {
                borrow.extend(dpf.eval(&hash, S::INDEX, roots, x, words)?);
            } else {
                // The tree takes one key's points together.
                let together: Vec<u64> = (0..n).flat_map(|i| x.iter().skip(i).step_by(n.max(1)).copied()).collect();
                let bits = dpf.eval(&hash, S::INDEX, roots, &together, words)?;
                borrow.extend((0..points).flat_map(|i| bits.iter().skip(i).step_by(points.max(1)).copied()));
            }
        }
        roots.zeroize();
        share_bit(server, self, self.z, self.position, self.bit, borrow)
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let e = opened_bits(mine, theirs)?;
        server.set(&self.bit.e, e);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::gates::local::{combine, concat};
    use crate::gates::mask::mask;
    use crate::gates::select_masked::lift_bit;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;

    /// Two numbers and three knots, one key for each number: every number, many masks.
    #[test]
    fn one_key_serves_all_knots() {
        const KNOTS: [i64; 3] = [-1, 0, 2];
        for hash in [HashKind::Aes, HashKind::ChaCha] {
            let (rig, (z_wire, out)) = Rig::new(4, 1, |b| {
                let z = b.wire(2);
                let masked = mask(b, z);
                let hats = KNOTS.map(|knot| combine(b, &[(masked.hat, 1)], -knot));
                let moved = Masked { hat: concat(b, &hats), mask: masked.mask };
                let bit = bit(b, moved, 2, hash);
                (z, lift_bit(b, bit))
            });
            let rig = rig.batch(2);
            let plan = rig.plan();
            let keys: usize =
                plan.steps.iter().flat_map(|placed| placed.step.words(&plan.shapes)).map(|b| b.elements).sum();
            assert_eq!(keys, 2 * Dpf::new(2).unwrap().key_bytes());
            for (x, y) in (-1..=1i64).flat_map(|x| (-1..=1i64).map(move |y| (x, y))) {
                for salt in 0..64 {
                    let mut given = Given::default();
                    let shares = |of: [i64; 2]| of.map(|x| (x + 9) as u32 % 16).repeat(2);
                    given.words(z_wire, vec![7; 4], shares([x, y]));
                    let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
                    let shares = ran.server0.words(&out).unwrap().iter().zip(ran.server1.words(&out).unwrap());
                    let got: Vec<u32> = shares.map(|(a, b)| (a + b) % 16).collect();
                    let ideal = KNOTS.iter().flat_map(|knot| [x, y].map(|x| u32::from(x < *knot)));
                    assert_eq!(got, ideal.collect::<Vec<_>>().repeat(2), "{x} {y}");
                }
            }
        }
    }
}
