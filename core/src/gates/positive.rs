//! ReLU of a masked tensor without a word, truncated on the way: the `fss` payload variant.
//!
//! z is open as ẑ = z + r, and its sign is s = ẑ\[p\] ⊕ t with t = r\[p\] ⊕ b and the borrow b = 1{ẑ mod 2^p < r mod 2^p} (see
//! [`super::compare_table`]). As a number t = r\[p\] + b·(1 - 2r\[p\]). So for whatever v the crypto producer knows,
//!
//! t·v = r\[p\]·v + b·(1 - 2r\[p\])·v,
//!
//! of which it shares the first term, and the second is what a distributed comparison function with the payload
//! β = (1 - 2r\[p\])·v gives as shares (see [`crate::compare::dcf`]). With c = ẑ\[p\], (1 - s)·v = (1 - c)·v - (1 - 2c)·t·v, and
//!
//! - max(z, 0) = (1 - s)·(ẑ + a) from v = 1, a (r = -a);
//! - max(z, 0) ≫ f = (1 - s)·(P - R₁ + Q·R₂) from v = 1, R₁, R₂ (see [`super::truncate`]).
//!
//! The sign is never opened: the result is ready as soon as ẑ is, and its own opening is the next layer's. Orca (Jawalkar et
//! al., IEEE S&P 2024) and SIGMA (Gupta et al., ePrint 2023/1269) have their ReLU alike, with other trees.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::compare::dcf::{Dcf, NUMBERS};
use crate::compare::hash::{Hash, HashKind};
use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::compare_table::low;
use crate::gates::truncate::{known, parts};
use crate::party::column::Column;
use crate::party::context::Context;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Disclosure, Domain, Masked, Shapes, Wire, WireId};
use crate::program::Numbers;
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const ROOT: Label = Label::new(0, "positive.root");
/// r\[p\]·v for v = 1, and a or R₁, and R₂.
const TOP_BIT: [Label; NUMBERS] =
    [Label::new(1, "positive.bit"), Label::new(2, "positive.bit-product"), Label::new(3, "positive.bit-top")];
const HIGH: Label = Label::new(4, "positive.high");
const TOP: Label = Label::new(5, "positive.top");
/// Bytes of a root.
const ROOT_BYTES: usize = 16;

/// out = max(z, 0) / 2^by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Positive {
    pub(crate) z: Masked,
    /// z's sign bit, above 0 and below k - 1.
    pub(crate) position: u32,
    /// The bits that are cut off, or 0.
    pub(crate) by: u32,
    pub(crate) hash: HashKind,
    pub(crate) out: Wire<Additive>,
}

/// max(z, 0) / 2^by, where bit `position`, above 0, is z's sign.
pub(crate) fn positive(b: &mut Builder, z: Masked, position: u32, by: u32, hash: HashKind) -> Wire<Additive> {
    let out = b.wire(b.elements(&z.hat));
    b.push(Positive { z, position, by, hash, out });
    out
}

impl Positive {
    fn dcf(&self, numbers: Numbers) -> Result<Dcf, Blame> {
        let k = numbers.ring_bits;
        Dcf::new(self.position, [k, k, self.by]).ok_or_else(|| Blame::bug("a comparison of no bits"))
    }

    fn hash<L: Lane, R: Randomness>(&self, at: &Context<L, R>, unit: usize) -> Hash {
        Hash::new(self.hash, at.public_key(unit))
    }

    fn roots<L: Lane, R: Randomness>(&self, at: &Context<L, R>, pair: Pair) -> Result<Vec<u128>, Blame> {
        let block = Block::new(Domain::Byte, at.elements(&self.out) * ROOT_BYTES);
        let mut bytes = at.draw_block(pair, ROOT, block)?.field()?;
        let roots = bytes.as_chunks().0.iter().map(|root| u128::from_le_bytes(*root)).collect();
        bytes.zeroize();
        Ok(roots)
    }

    /// What the crypto producer shares, in order.
    fn labels(&self) -> Vec<(Label, Domain)> {
        let [bit, product, top] = TOP_BIT;
        let (ring, low) = (Domain::Ring, Domain::Low(self.by));
        match self.by {
            0 => vec![(bit, ring), (product, ring)],
            _ => vec![(bit, ring), (product, ring), (top, low), (HIGH, ring), (TOP, low)],
        }
    }
}

impl Gate for Positive {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn words(&self, shapes: &Shapes) -> Vec<Block> {
        let bytes = self.dcf(shapes.numbers).map_or(0, |dcf| dcf.key_bytes());
        vec![Block::new(Domain::Byte, shapes.elements(&self.out) as usize * bytes)]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let n = shapes.elements(&self.out) as usize;
        self.labels().into_iter().map(|(_, domain)| Block::new(domain, n)).collect()
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "correction words of a distributed comparison function",
            because: "beside its own root they are pseudorandom to each server, as long as the tree's hash is one",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (dcf, n, ring) = (self.dcf(producer.at.plan.numbers())?, producer.at.elements(&self.out), producer.at.ring);
        let a = producer.dealt(self.z.mask.id())?;
        let r = || a.iter().map(|a| ring.sub(L::default(), *a));
        let mut below: Vec<u64> = r().map(|r| low(r, self.position)).collect();
        let bits: Vec<L> = r().map(|r| L::from_u64(r.to_u64() >> self.position & 1)).collect();
        let one = vec![L::from_u64(1); a.len()];
        let [high, top] =
            if self.by == 0 { [a.to_vec(), vec![L::default(); a.len()]] } else { parts(ring, a, self.by) };
        let mut beta = vec![[0; NUMBERS]; a.len()];
        let mut times = Vec::new();
        for (number, v) in [&one, &high, &top].into_iter().enumerate() {
            let width = if number < 2 { u64::MAX } else { (1 << self.by) - 1 };
            for ((beta, bit), v) in beta.iter_mut().zip(&bits).zip(v) {
                let turned = L::from_u64(1).minus(bit.plus(*bit));
                let value = ring.mul(turned, *v).to_u64() & width;
                beta.iter_mut().skip(number).take(1).for_each(|to| *to = value);
            }
            times.push(bits.iter().zip(v).map(|(bit, v)| ring.mul(*bit, *v)).collect::<Vec<_>>());
        }
        let mut roots = [self.roots(&producer.at, Pair::Producer0)?, self.roots(&producer.at, Pair::Producer1)?];
        let [roots0, roots1] = &roots;
        let mut words = Vec::with_capacity(a.len() * dcf.key_bytes());
        let n = n.max(1);
        let units = below.chunks(n).zip(beta.chunks(n)).zip(roots0.chunks(n).zip(roots1.chunks(n)));
        for (unit, ((below, beta), (roots0, roots1))) in units.enumerate() {
            words.extend(dcf.deal(&self.hash(&producer.at, unit), below, beta, roots0, roots1)?);
        }
        below.zeroize();
        beta.iter_mut().for_each(Zeroize::zeroize);
        roots.iter_mut().for_each(Zeroize::zeroize);
        let secrets = times.into_iter().take(if self.by == 0 { 2 } else { 3 }).chain([high, top]);
        let blocks = self.labels().into_iter().zip(self.material(&producer.at.plan.shapes));
        let shared = blocks.zip(secrets);
        let shared =
            shared.map(|(((label, _), block), secret)| producer.at.correction(label, block, Column::Words(secret)));
        core::iter::once(Ok(Column::Field(words))).chain(shared).collect()
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (dcf, n, ring) =
            (self.dcf(server.at.plan.numbers())?, server.at.elements(&self.out).max(1), server.at.ring);
        let hat = server.words(&self.z.hat)?;
        let words = server.dealt_words(self, 0)?;
        let mut roots = self.roots(&server.at, S::DEALT)?;
        let x: Vec<u64> = hat.iter().map(|x| low(*x, self.position)).collect();
        let mut borrow = Vec::with_capacity(x.len());
        let units = x.chunks(n).zip(roots.chunks(n).zip(words.chunks((n * dcf.key_bytes()).max(1))));
        for (unit, (x, (roots, words))) in units.enumerate() {
            borrow.extend(dcf.eval(&self.hash(&server.at, unit), S::INDEX, roots, x, words)?);
        }
        roots.zeroize();
        let dealt = self.labels().into_iter().enumerate();
        let mut dealt = dealt.map(|(index, (label, _))| server.dealt(self, index, label)?.words());
        let mut next = || dealt.next().unwrap_or_else(|| Err(Blame::bug("a step asks for more than it is dealt")));
        let (bit, product) = (next()?, next()?);
        let (first, one) = (server.first(), L::from_u64(1));
        // (1 - c)·plain - (1 - 2c)·turned, for shares of v and of t·v.
        let choose = |hat: &L, plain: L, turned: L| {
            let c = L::from_u64(hat.to_u64() >> self.position & 1);
            ring.reduce(one.minus(c).times(plain).minus(one.minus(c.plus(c)).times(turned)))
        };
        let of = L::from_u64;
        let rows = hat.iter().zip(&borrow).zip(bit.iter().zip(&product));
        let out: Vec<L> = if self.by == 0 {
            let mask = server.words(&self.z.mask)?;
            let rows = rows.zip(mask).map(|(((hat, [b, b_product, _]), (bit, product)), a)| {
                let (t, t_product) = (bit.plus(of(*b)), product.plus(of(*b_product)));
                choose(hat, hat.times(first).plus(*a), hat.times(t).plus(t_product))
            });
            rows.collect()
        } else {
            let (bit_top, high, top) = (next()?, next()?, next()?);
            let rows = rows.zip(bit_top.iter().zip(high.iter().zip(&top)));
            let rows = rows.map(|(((hat, [b, b_high, b_top]), (bit, product)), (bit_top, (high, top)))| {
                let (open, wrapped) = known(ring, *hat, self.by);
                let (t, t_high, t_top) = (bit.plus(of(*b)), product.plus(of(*b_high)), bit_top.plus(of(*b_top)));
                let plain = open.times(first).minus(*high).plus(wrapped.times(*top));
                choose(hat, plain, open.times(t).minus(t_high).plus(wrapped.times(t_top)))
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
    use crate::gates::mask::mask;
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    /// Every number, every mask in every sharing.
    #[test]
    fn every_relu_is_right() {
        for ((k, f), hash) in
            [(4u32, 1u32), (5, 2)].into_iter().flat_map(|kf| [HashKind::Aes, HashKind::ChaCha].map(|h| (kf, h)))
        {
            let (rig, (z_wire, kept, cut)) = Rig::new(k, f, |b| {
                let z = b.wire(1);
                let masked = mask(b, z);
                (z, positive(b, masked, k - 2, 0, hash), positive(b, masked, k - 2, f, hash))
            });
            let (ring, bound) = (Ring::<u32>::new(k).unwrap(), 1i64 << (k - 2));
            for z in -bound..bound {
                let mut up = 0;
                let runs = exhaust(Tape::new(|name| name == "mask.mask"), |tape| {
                    let mut given = Given::default();
                    given.words(z_wire, vec![3], vec![ring.sub(ring.element(z as u64), 3)]);
                    let ran = rig.run(tape, given);
                    let sum = |wire| {
                        let shares = (ran.server0.words(wire).unwrap()[0], ran.server1.words(wire).unwrap()[0]);
                        ring.signed(ring.add(shares.0, shares.1))
                    };
                    assert_eq!(sum(&kept), z.max(0), "{k} bits: {z}");
                    let off = sum(&cut) - (z.max(0) >> f);
                    assert!(off == 0 || off == 1, "{k} bits: {z} became {}", sum(&cut));
                    up += off as u64;
                });
                assert_eq!(
                    up << f,
                    runs * (z.max(0) & ((1 << f) - 1)) as u64,
                    "{k} bits: {z} is rounded up too often or too rarely"
                );
            }
        }
    }

    /// Narrower than the ring, several samples, wide lanes.
    #[test]
    fn narrow_numbers_are_right() {
        let (rig, (z_wire, out)) = Rig::new(32, 10, |b| {
            let z = b.wire(40);
            let masked = mask(b, z);
            (z, positive(b, masked, 21, 10, HashKind::Aes))
        });
        let rig = rig.batch(3);
        let z: Vec<i64> = (0..120).map(|i| (i * 0x2_3456_7891 % (1 << 22)) - (1 << 21)).collect();
        for salt in 0..8 {
            let mut given = Given::default();
            given.words(z_wire, vec![77; 120], z.iter().map(|z| (*z as u32).wrapping_sub(77)).collect());
            let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
            let shares = ran.server0.words(&out).unwrap().iter().zip(ran.server1.words(&out).unwrap());
            for ((a, b), z) in shares.zip(&z) {
                let off = i64::from(a.wrapping_add(*b) as i32) - (z.max(&0) >> 10);
                assert!(off == 0 || (off == 1 && *z > 0), "{z}");
            }
        }
    }

    /// Masks and inputs' shares, and the shares of what is dealt under one label (their part of server1's view alone). The
    /// correction words are fixed here: that they say nothing is the tree's property, and tested statistically there.
    fn seen(mutant: Option<&'static str>) -> Vec<[Views; 3]> {
        let (rig, z_wire) = Rig::new(3, 1, |b| {
            let z = b.wire(1);
            let masked = mask(b, z);
            positive(b, masked, 1, 1, HashKind::Aes);
            z
        });
        let of = |z| {
            let tape =
                mutant.iter().fold(Tape::new(|name| name == "mask.mask"), |t, label| t.with(Mutant::Zero(label)));
            views(tape, &rig, |tape, given| {
                let [z0, z1] = split(tape, 8, z);
                given.words(z_wire, z0, z1);
            })
        };
        [6, 7, 0, 1].into_iter().map(of).collect()
    }

    #[test]
    fn nothing_but_masked_numbers_is_opened() {
        for server in [Role::Server0, Role::Server1] {
            assert!(!alike(&seen(Some("mask.mask")), server));
        }
        // What server1 is dealt is hidden by each of its labels.
        let (rig, z_wire) = Rig::new(6, 2, |b| {
            let z = b.wire(3);
            let masked = mask(b, z);
            positive(b, masked, 4, 2, HashKind::Aes);
            z
        });
        let dealt = |mutant: Option<&'static str>| {
            let tape = mutant.iter().fold(Tape::new(|_| false), |tape, label| tape.with(Mutant::Zero(label)));
            let mut given = Given::default();
            given.words(z_wire, vec![1, 2, 3], vec![3, 4, 5]);
            rig.run(&tape, given).views[1].clone()
        };
        for label in TOP_BIT.into_iter().chain([HIGH, TOP, ROOT]) {
            assert_ne!(dealt(None), dealt(Some(label.name)), "{}", label.name);
        }
    }
}
