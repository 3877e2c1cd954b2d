//! The largest of up to four masked candidates, its positive part, and either truncated, from all comparisons at once.
//!
//! Candidate i wins if s_ij = 1{x_i < x_j} is 0 for all j > i and s_ji is 1 for all j < i, so ties go to the lowest index;
//! with a ReLU behind, also if its own sign bit is 0. Each bit is open as s ⊕ ρ (see [`super::compare_table`]), so "i wins" is
//! a public function of the m bits that i takes part in, shifted by their ρ: a one-time truth table (Ishai, Kushilevitz,
//! Meldgaard, Orlandi, Paskin-Cherniavsky, TCC 2013) over their 2^m values, with a single 1 in it.
//!
//! 1. The crypto producer shares T_i, whose entry at the winning pattern ⊕ ρ is 1, all others 0, and T_i·a_i for x_i's mask
//!    a_i; or, to truncate (see [`super::truncate`]), T_i·R₁ and T_i·R₂.
//! 2. Both servers know at which entry they look, and what they hold there is linear in what they want:
//!    out = Σ_i x̂_i·\[T_i\] + \[T_i·a_i\], or Σ_i P_i·\[T_i\] - \[T_i·R₁\] + Q_i·\[T_i·R₂\].
//!
//! Nothing is said: each server sees fresh shares of its tables only. At most one candidate wins; behind a ReLU none may, and
//! the result is 0.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

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

const WINS: Label = Label::new(0, "winner.wins");
const PRODUCT: Label = Label::new(1, "winner.product");
const TOP_PRODUCT: Label = Label::new(2, "winner.top-product");

/// The most candidates: tables double with each.
pub(crate) const MOST: u32 = 4;

/// All pairs i < j of so many candidates, in the order in which their bits lie.
pub(crate) fn pairs(candidates: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..candidates).flat_map(move |i| (i + 1..candidates).map(move |j| (i, j)))
}

/// out = the largest candidate / 2^by, or its positive part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SelectWinner {
    pub(crate) comparisons: Comparisons,
    /// All groups' first candidates, then all second ones, and so on.
    pub(crate) z: Masked,
    /// The bits that are cut off, or 0.
    pub(crate) by: u32,
    pub(crate) out: Wire<Additive>,
}

/// The bits by which a winner is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Comparisons {
    /// 2 to [`MOST`].
    pub(crate) candidates: u32,
    /// s_ij, for [`pairs`]: all groups' first pairs, then all second ones, and so on.
    pub(crate) pairs: MaskedBit,
    /// The candidates' signs, if a ReLU follows.
    pub(crate) signs: Option<MaskedBit>,
}

/// The winner of each group, divided by 2^by; `z` may be other tensors than those compared.
pub(crate) fn select_winner(b: &mut Builder, comparisons: Comparisons, z: Masked, by: u32) -> Wire<Additive> {
    let out = b.wire(b.elements(&z.hat) / comparisons.candidates.max(1));
    b.push(SelectWinner { comparisons, z, by, out });
    out
}

impl Comparisons {
    /// m: the bits that each candidate takes part in.
    fn bits(&self) -> u32 {
        self.candidates.saturating_sub(1) + u32::from(self.signs.is_some())
    }

    /// For candidate i of each group of each sample: the value of its bits, the first the lowest. `pairs` and `signs` hold
    /// bits, `groups` a sample's groups.
    fn index<L: Lane>(&self, pairs: &[L], signs: Option<&[L]>, groups: usize) -> Vec<u8> {
        let (n, count) = (self.candidates as usize, pairs_of(self.candidates));
        let mut index = vec![0u8; pairs.len() / count.max(1) * n];
        let samples = index.chunks_exact_mut((n * groups).max(1)).zip(pairs.chunks_exact((count * groups).max(1)));
        for (index, bits) in samples {
            let mut seen = [0u32; MOST as usize];
            for ((i, j), bits) in self::pairs(self.candidates).zip(bits.chunks_exact(groups.max(1))) {
                for of in [i, j] {
                    let Some(shift) = seen.get_mut(of as usize) else { continue };
                    let own = index.iter_mut().skip(of as usize * groups);
                    own.zip(bits).for_each(|(index, bit)| *index |= (bit.to_u64() as u8) << *shift);
                    *shift += 1;
                }
            }
        }
        if let Some(signs) = signs {
            let last = self.candidates.saturating_sub(1);
            index.iter_mut().zip(signs).for_each(|(index, bit)| *index |= (bit.to_u64() as u8) << last);
        }
        index
    }

    /// The bits with which candidate i wins: it comes second in the first i pairs that it takes part in.
    fn winning(i: usize) -> u8 {
        ((1u32 << i) - 1) as u8
    }
}

fn pairs_of(candidates: u32) -> usize {
    pairs(candidates).count()
}

impl Gate for SelectWinner {
    fn reads(&self) -> Vec<WireId> {
        let Comparisons { pairs, signs, .. } = self.comparisons;
        let bits = [Some(pairs), signs].into_iter().flatten().flat_map(|bit| [bit.e.id(), bit.rho.id()]);
        bits.chain([self.z.hat.id(), self.z.mask.id()]).collect()
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let n = (shapes.elements(&self.z.hat) as usize) << self.comparisons.bits();
        let (ring, low) = (Block::new(Domain::Ring, n), Block::new(Domain::Low(self.by), n));
        if self.by == 0 { vec![ring, ring] } else { vec![ring, ring, low] }
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (ring, groups) = (producer.at.ring, producer.at.elements(&self.out));
        let signs = self.comparisons.signs.map(|signs| producer.held(&signs.rho)).transpose()?;
        let mut masked = self.comparisons.index(producer.held(&self.comparisons.pairs.rho)?, signs, groups);
        let candidates = (0..self.comparisons.candidates as usize).cycle();
        for (i, masked) in candidates.zip(masked.chunks_mut(groups.max(1))) {
            masked.iter_mut().for_each(|masked| *masked ^= Comparisons::winning(i));
        }
        let a = producer.dealt(self.z.mask.id())?;
        let size = 1u8 << self.comparisons.bits();
        // All zeros but for what `secret` is, at the winning entry; no address depends on where that is.
        let table = |secret: &mut dyn Iterator<Item = L>| -> Vec<L> {
            let mut table = Vec::with_capacity(masked.len() * usize::from(size));
            for (masked, secret) in masked.iter().zip(secret) {
                table.extend((0..size).map(|entry| {
                    let apart = u64::from(entry ^ masked);
                    let here = L::from_u64(apart.wrapping_sub(1) >> 63);
                    ring.mul(here, secret)
                }));
            }
            table
        };
        let wins = table(&mut core::iter::repeat(L::from_u64(1)));
        let secrets = if self.by == 0 {
            vec![(WINS, wins), (PRODUCT, table(&mut a.iter().copied()))]
        } else {
            let [mut high, mut top] = parts(ring, a, self.by);
            let products = (table(&mut high.iter().copied()), table(&mut top.iter().copied()));
            high.zeroize();
            top.zeroize();
            vec![(WINS, wins), (PRODUCT, products.0), (TOP_PRODUCT, products.1)]
        };
        let blocks = self.material(&producer.at.plan.shapes);
        let secrets = secrets.into_iter().zip(blocks);
        let columns = secrets
            .map(|((label, secret), block)| producer.at.correction(label, block, Column::Words(secret)))
            .collect();
        masked.zeroize();
        columns
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, groups) = (server.at.ring, server.at.elements(&self.out));
        let size = 1usize << self.comparisons.bits();
        let signs = self.comparisons.signs.map(|signs| server.words(&signs.e)).transpose()?;
        let index = self.comparisons.index(server.words(&self.comparisons.pairs.e)?, signs, groups);
        let look_up = |number, label| -> Result<Vec<L>, Blame> {
            let table = server.dealt(self, number, label)?.words()?;
            let entries = table.chunks_exact(size).zip(&index);
            Ok(entries.map(|(table, index)| table.get(usize::from(*index)).copied().unwrap_or_default()).collect())
        };
        let (wins, product) = (look_up(0, WINS)?, look_up(1, PRODUCT)?);
        let hat = server.words(&self.z.hat)?;
        let rows = hat.iter().zip(wins.iter().zip(&product));
        let parts: Vec<L> = if self.by == 0 {
            rows.map(|(hat, (wins, product))| hat.times(*wins).plus(*product)).collect()
        } else {
            let tops = look_up(2, TOP_PRODUCT)?;
            let rows = rows.zip(&tops).map(|((hat, (wins, product)), top)| {
                let (open, wrapped) = known(ring, *hat, self.by);
                open.times(*wins).minus(*product).plus(wrapped.times(*top))
            });
            rows.collect()
        };
        let mut out = Vec::with_capacity(groups * server.at.batch());
        for sample in parts.chunks_exact((groups * self.comparisons.candidates as usize).max(1)) {
            let sum = |group| {
                sample.iter().skip(group).step_by(groups.max(1)).fold(L::default(), |sum, part| sum.plus(*part))
            };
            out.extend((0..groups).map(|group| ring.reduce(sum(group))));
        }
        server.set(&self.out, out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::gates::compare_table;
    use crate::gates::local::constant;
    use crate::gates::mask::mask;
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Chosen, Views, alike, split, views};

    /// Candidates and, in place of comparisons, their bits.
    struct Lay {
        z: Wire<Additive>,
        pairs: Wire<Additive>,
        signs: Option<Wire<Additive>>,
        out: Wire<Additive>,
    }

    fn lay(b: &mut Builder, candidates: u32, groups: u32, relu: bool, by: u32) -> Lay {
        let z = b.wire(candidates * groups);
        let bit = |b: &mut Builder, elements| {
            let wire = b.wire(elements);
            let masked = mask(b, wire);
            (wire, compare_table::bit(b, masked, 0))
        };
        let (pairs, pair_bits) = bit(b, pairs_of(candidates) as u32 * groups);
        let (signs, sign_bits) = if relu { Some(bit(b, candidates * groups)) } else { None }.unzip();
        let masked = mask(b, z);
        let comparisons = Comparisons { candidates, pairs: pair_bits, signs: sign_bits };
        Lay { z, pairs, signs, out: select_winner(b, comparisons, masked, by) }
    }

    /// Both servers' shares of integers: server0's are all 5.
    fn give(given: &mut Given, ring: Ring<u32>, wire: Wire<Additive>, values: &[i64]) {
        let server1 = values.iter().map(|x| ring.sub(ring.element(*x as u64), ring.element(5))).collect();
        given.words(wire, vec![ring.element(5); values.len()], server1);
    }

    fn check(k: u32, candidates: u32, (relu, by): (bool, u32), all: &[[i64; 4]], salts: u8) {
        let (ring, n) = (Ring::<u32>::new(k).unwrap(), candidates as usize);
        let groups = all.len();
        let (rig, wires) = Rig::new(k, 1, |b| lay(b, candidates, groups as u32, relu, by));
        let rig = rig.batch(2);
        let column = |of: &dyn Fn(&[i64]) -> i64| all.iter().map(|x| of(&x[..n])).collect::<Vec<_>>();
        let z: Vec<i64> = (0..n).flat_map(|i| column(&|x| x[i])).collect();
        let bits: Vec<i64> =
            pairs(candidates).flat_map(|(i, j)| column(&|x| i64::from(x[i as usize] < x[j as usize]))).collect();
        for salt in 0..salts {
            let mut given = Given::default();
            give(&mut given, ring, wires.z, &z.repeat(2));
            give(&mut given, ring, wires.pairs, &bits.repeat(2));
            if let Some(signs) = wires.signs {
                let signs_of: Vec<i64> = z.iter().map(|z| i64::from(*z < 0)).collect();
                give(&mut given, ring, signs, &signs_of.repeat(2));
            }
            let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
            let shares = ran.server0.words(&wires.out).unwrap().iter().zip(ran.server1.words(&wires.out).unwrap());
            let got: Vec<i64> = shares.map(|(a, b)| ring.signed(ring.add(*a, *b))).collect();
            assert_eq!(got.len(), 2 * groups);
            for (got, x) in got.iter().zip(all.iter().cycle()) {
                let most = x[..n].iter().max().unwrap();
                let ideal = if relu { *most.max(&0) } else { *most };
                let off = got - (ideal >> by);
                let up = by > 0 && ideal & ((1 << by) - 1) != 0;
                assert!(off == 0 || (off == 1 && up), "{k} bits, relu {relu}, by {by}: {x:?} became {got}");
            }
        }
    }

    /// All values of up to four candidates, ties among them.
    #[test]
    fn the_largest_wins() {
        let one = |n: i64| [n & 3, n >> 2 & 3, n >> 4 & 3, n >> 6 & 3].map(|x| x - 2);
        let all: Vec<[i64; 4]> = (0..256).map(one).collect();
        for candidates in 2..=MOST {
            for how in [(false, 0), (true, 0), (false, 1), (true, 1), (true, 2)] {
                check(5, candidates, how, &all, 8);
                check(32, candidates, how, &all, 1);
            }
        }
    }

    /// Two candidates in Z_2 and a bit that says which is larger: all sharings, masks, ρ and shares of what is dealt.
    fn seen(mutant: Option<&'static str>) -> Vec<[Views; 3]> {
        let of = |[x, y, bit]: [u64; 3]| {
            let (rig, z) = Rig::new(1, 1, |b| {
                let z = b.wire(2);
                let known = Masked { hat: constant(b, vec![bit as i64]), mask: constant(b, vec![0]) };
                let pairs = compare_table::bit(b, known, 0);
                let masked = mask(b, z);
                select_winner(b, Comparisons { candidates: 2, pairs, signs: None }, masked, 0);
                z
            });
            let tape = Tape::new(|name| name != "open-bit.bit");
            let tape = mutant.iter().fold(tape, |tape, label| tape.with(Mutant::Zero(label)));
            views(tape, &rig, |tape, given| {
                let [[x0, x1], [y0, y1]] = [x, y].map(|x| split(tape, 2, x));
                given.words(z, [x0, y0].concat(), [x1, y1].concat());
            })
        };
        [[0, 0, 0], [0, 1, 1], [1, 0, 0]].into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whoever_wins() {
        let shipped = seen(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        for label in [WINS.name, PRODUCT.name, "open-bit.rho"] {
            assert!(!alike(&seen(Some(label)), Role::Server1), "{label}");
        }
        let broken = seen(Some("mask.mask"));
        assert!(!alike(&broken, Role::Server0) && !alike(&broken, Role::Server1));
    }

    /// What is dealt to truncate is hidden by each of its three labels.
    #[test]
    fn every_table_is_hidden() {
        let (rig, wires) = Rig::new(6, 2, |b| lay(b, 2, 1, true, 2));
        let dealt = |mutant: Option<&'static str>| {
            let tape = mutant.iter().fold(Tape::new(|_| false), |tape, label| tape.with(Mutant::Zero(label)));
            let mut given = Given::default();
            given.words(wires.z, vec![1, 2], vec![3, 4]);
            given.words(wires.pairs, vec![0], vec![1]);
            given.words(wires.signs.unwrap(), vec![0, 0], vec![0, 0]);
            rig.run(&tape, given).views[1].clone()
        };
        for label in [WINS, PRODUCT, TOP_PRODUCT] {
            assert_ne!(dealt(None), dealt(Some(label.name)), "{}", label.name);
        }
    }

    /// Two pairs of candidates, whose first tables alone are looked at. If both are looked into at places under one ρ,
    /// or are dealt under one share, server1 sees whether both have the same winner. (server0 knows the constant bits.)
    #[test]
    fn a_table_that_serves_two_pairs_is_noticed() {
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |bits: [i64; 2]| {
                let (rig, ()) = Rig::new(1, 1, |b| {
                    for bit in bits {
                        let known = Masked { hat: constant(b, vec![bit]), mask: constant(b, vec![0]) };
                        let pairs = compare_table::bit(b, known, 0);
                        // A mask of 0, so that the second table is one of zeros.
                        let z = Masked { hat: constant(b, vec![0, 0]), mask: constant(b, vec![0, 0]) };
                        select_winner(b, Comparisons { candidates: 2, pairs, signs: None }, z, 0);
                    }
                });
                let tables: Chosen = |name| ["open-bit.rho", WINS.name].contains(&name);
                let tape = mutant.iter().fold(Tape::new(tables), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |_, _| ())
            };
            [[0, 0], [0, 1], [1, 0], [1, 1]].into_iter().map(of).collect()
        };
        let shipped = seen(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        for label in ["open-bit.rho", WINS.name] {
            assert!(!alike(&seen(Some(Mutant::SameStep(label))), Role::Server1), "{label}");
        }
    }
}
