//! The index of the largest of up to sixteen masked candidates, from all comparisons at once.
//!
//! Candidate i's rank is the number of those that it loses to, Σ_{j>i} s_ij + Σ_{j<i} (1 - s_ji) with s_ij = 1{x_i < x_j}; ties
//! go to the lower index, so exactly one candidate has rank 0. With s open as e = s ⊕ ρ (see [`super::compare_table`]),
//! s = e + (1 - 2e)·ρ, and ranks are sums of shares, in Z_2^b with 2^b candidates at least.
//!
//! 1. The crypto producer shares ρ in Z_2^b; both servers draw halves of a number t_i with it, and open rank_i + t_i.
//! 2. It shares, for each candidate but the first, a table over Z_2^b that holds i at t_i and 0 elsewhere (a one-time truth
//!    table, as in [`super::winner`]). The index is the sum of what stands at the opened places.
//!
//! What is opened is uniform, each table is looked into once, and nothing is opened of it.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::compare_table::MaskedBit;
use crate::gates::mask::opened;
use crate::gates::winner::pairs;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Common, Disclosure, Domain, Held, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const TURN: Label = Label::new(0, "open-ranks.turn");
const RHO: Label = Label::new(1, "open-ranks.rho");
const TABLE: Label = Label::new(0, "index-of-first.table");

/// The most candidates: there are half as many pairs as candidates squared.
pub(crate) const MOST: u32 = 16;

/// The index of the largest candidate of each group, from s_ij for all pairs of so many.
pub(crate) fn index_of_largest(b: &mut Builder, candidates: u32, pairs: MaskedBit) -> Wire<Additive> {
    let groups = b.elements(&pairs.e) / (self::pairs(candidates).count() as u32).max(1);
    let (ranks, turn) = (b.wire(candidates * groups), b.wire(candidates * groups));
    b.push(OpenRanks { candidates, pairs, ranks, turn });
    let out = b.wire(groups);
    b.push(IndexOfFirst { candidates, ranks, turn, out });
    out
}

/// b: the bits of a rank.
fn rank_bits(candidates: u32) -> u32 {
    candidates.saturating_sub(1).checked_ilog2().map_or(1, |bits| bits + 1)
}

/// Step 1: opens all ranks, each plus a number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenRanks {
    /// 2 to [`MOST`].
    pub(crate) candidates: u32,
    pub(crate) pairs: MaskedBit,
    /// All groups' first candidates, then all second ones, and so on.
    pub(crate) ranks: Wire<Common>,
    /// t, at the crypto producer while it deals.
    pub(crate) turn: Wire<Held>,
}

impl OpenRanks {
    fn domain(&self) -> Domain {
        Domain::Low(rank_bits(self.candidates))
    }

    fn turns(&self, shapes: &Shapes) -> Block {
        Block::new(self.domain(), shapes.elements(&self.ranks) as usize)
    }

    fn ring<L: Lane>(&self) -> Result<Ring<L>, Blame> {
        Ring::new(rank_bits(self.candidates)).ok_or_else(|| Blame::bug("ranks of no bits"))
    }
}

impl Gate for OpenRanks {
    fn reads(&self) -> Vec<WireId> {
        vec![self.pairs.e.id(), self.pairs.rho.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.ranks.id(), self.turn.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        Some(Traffic { route: Route::Servers, blocks: vec![self.turns(shapes)] })
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(self.domain(), shapes.elements(&self.pairs.e) as usize)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a candidate's rank, plus a dealt number",
            because: "the number is uniform over all ranks, belongs to this candidate alone, and is known to neither server",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let shapes = &producer.at.plan.shapes;
        let (turns, rho) = (self.turns(shapes), Block::new(self.domain(), shapes.elements(&self.pairs.e) as usize));
        let draw = |pair| producer.at.draw_block(pair, TURN, turns)?.words();
        let mut turn = draw(Pair::Producer0)?;
        self.ring::<L>()?.add_all(&mut turn, &draw(Pair::Producer1)?);
        let secret = producer.held(&self.pairs.rho)?.to_vec();
        let column = producer.at.correction(RHO, rho, Column::Words(secret))?;
        producer.put(self.turn.id(), turn);
        Ok(vec![column])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (ring, first, one) = (self.ring::<L>()?, server.first(), L::from_u64(1));
        let mut rho = server.dealt(self, 0, RHO)?.words()?;
        let n = self.candidates as usize;
        let groups = server.at.elements(&self.ranks) / n.max(1);
        let mut ranks = server.at.draw_block(S::DEALT, TURN, self.turns(&server.at.plan.shapes))?.words()?;
        // Shares of s, from those of ρ.
        for (rho, e) in rho.iter_mut().zip(server.words(&self.pairs.e)?) {
            *rho = e.times(first).plus(rho.minus(e.plus(*e).times(*rho)));
        }
        let samples = ranks.chunks_exact_mut((n * groups).max(1));
        for (ranks, bits) in samples.zip(rho.chunks_exact((pairs(self.candidates).count() * groups).max(1))) {
            for ((i, j), bits) in pairs(self.candidates).zip(bits.chunks_exact(groups.max(1))) {
                let of = |candidate: u32| candidate as usize * groups;
                ranks.iter_mut().skip(of(i)).zip(bits).for_each(|(rank, s)| *rank = rank.plus(*s));
                let not = |s: L| one.times(first).minus(s);
                ranks.iter_mut().skip(of(j)).zip(bits).for_each(|(rank, s)| *rank = rank.plus(not(*s)));
            }
        }
        rho.zeroize();
        ranks.iter_mut().for_each(|rank| *rank = ring.reduce(*rank));
        Ok(vec![Column::Words(ranks)])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let ring = self.ring::<L>()?;
        let ranks = opened(server, mine, theirs)?.into_iter().map(|rank| ring.reduce(rank)).collect();
        server.set(&self.ranks, ranks);
        Ok(())
    }
}

/// Step 2: out = the index of the candidate whose rank is 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct IndexOfFirst {
    pub(crate) candidates: u32,
    pub(crate) ranks: Wire<Common>,
    pub(crate) turn: Wire<Held>,
    pub(crate) out: Wire<Additive>,
}

impl Gate for IndexOfFirst {
    fn reads(&self) -> Vec<WireId> {
        vec![self.ranks.id(), self.turn.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let tables = self.candidates.saturating_sub(1) as usize * shapes.elements(&self.out) as usize;
        vec![Block::new(Domain::Ring, tables << rank_bits(self.candidates))]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (ring, groups) = (producer.at.ring, producer.at.elements(&self.out));
        let size = 1u64 << rank_bits(self.candidates);
        let mut tables = Vec::new();
        let samples = producer.held(&self.turn)?.chunks_exact((self.candidates as usize * groups).max(1));
        for sample in samples {
            for (i, turns) in (0..).zip(sample.chunks_exact(groups.max(1))).skip(1) {
                for turn in turns {
                    let here = |entry: u64| L::from_u64((entry ^ turn.to_u64()).wrapping_sub(1) >> 63);
                    tables.extend((0..size).map(|entry| ring.mul(here(entry), ring.element(i))));
                }
            }
        }
        let blocks = self.material(&producer.at.plan.shapes);
        let block = *blocks.first().ok_or_else(|| Blame::bug("a table without its material"))?;
        Ok(vec![producer.at.correction(TABLE, block, Column::Words(tables))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, groups) = (server.at.ring, server.at.elements(&self.out));
        let (size, n) = (1usize << rank_bits(self.candidates), self.candidates as usize);
        let tables = server.dealt(self, 0, TABLE)?.words()?;
        let ranks = server.words(&self.ranks)?.chunks_exact((n * groups).max(1));
        let tables = tables.chunks_exact(((n - 1) * groups * size).max(1));
        let mut out = vec![L::default(); groups * server.at.batch()];
        for ((out, ranks), tables) in out.chunks_mut(groups.max(1)).zip(ranks).zip(tables) {
            let rows = ranks.chunks_exact(groups.max(1)).skip(1).zip(tables.chunks_exact((groups * size).max(1)));
            for (ranks, tables) in rows {
                for ((out, rank), table) in out.iter_mut().zip(ranks).zip(tables.chunks_exact(size)) {
                    *out = out.plus(table.get(rank.to_u64() as usize).copied().unwrap_or_default());
                }
            }
            out.iter_mut().for_each(|out| *out = ring.reduce(*out));
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
    use crate::plan::Masked;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Chosen, Views, alike, exhaust, split, views};

    /// In place of comparisons, their bits.
    fn lay(b: &mut Builder, candidates: u32, groups: u32) -> (Wire<Additive>, Wire<Additive>) {
        let bits = b.wire(pairs(candidates).count() as u32 * groups);
        let masked = mask(b, bits);
        let bit = compare_table::bit(b, masked, 0);
        (bits, index_of_largest(b, candidates, bit))
    }

    fn bits_of(x: &[u32]) -> Vec<u32> {
        pairs(x.len() as u32).map(|(i, j)| u32::from(x[i as usize] < x[j as usize])).collect()
    }

    #[test]
    fn ranks_have_as_few_bits_as_can_be() {
        assert_eq!([2, 3, 4, 5, 8, 9, 10, 16].map(rank_bits), [1, 2, 2, 3, 3, 4, 4, 4]);
    }

    /// Up to four candidates with all values, and up to sixteen with random ones: the index of the largest, the first of
    /// several.
    #[test]
    fn the_index_is_that_of_the_first_largest() {
        for candidates in 2..=MOST {
            let n = candidates as usize;
            let random = |seed: u32| {
                (0..candidates).map(|i| (seed * 31 + i * 7 + 5).wrapping_mul(2_654_435_769) >> 29).collect()
            };
            let all: Vec<Vec<u32>> = match candidates {
                2..=4 => (0..1 << (2 * n)).map(|v: u32| (0..n).map(|i| v >> (2 * i) & 3).collect()).collect(),
                _ => (0..60).map(random).collect(),
            };
            let (rig, (bits, out)) = Rig::new(9, 1, |b| lay(b, candidates, all.len() as u32));
            let rig = rig.batch(2);
            let each: Vec<Vec<u32>> = all.iter().map(|x| bits_of(x)).collect();
            let row: Vec<u32> = (0..each[0].len()).flat_map(|pair| each.iter().map(move |bits| bits[pair])).collect();
            for salt in 0..3 {
                let mut given = Given::default();
                let share = vec![300; 2 * row.len()];
                given.words(bits, share, row.repeat(2).iter().map(|bit| (bit + 512 - 300) % 512).collect());
                let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
                let shares = ran.server0.words(&out).unwrap().iter().zip(ran.server1.words(&out).unwrap());
                let got: Vec<u32> = shares.map(|(a, b)| (a + b) % 512).collect();
                let first = |x: &Vec<u32>| x.iter().position(|y| y == x.iter().max().unwrap()).unwrap() as u32;
                let ideal: Vec<u32> = all.iter().map(first).collect();
                assert_eq!(got, ideal.repeat(2), "{candidates} candidates");
            }
        }
    }

    /// Three candidates, all turns.
    #[test]
    fn every_turn_is_right() {
        let (rig, (bits, out)) = Rig::new(4, 1, |b| lay(b, 3, 1));
        for (x, ideal) in [([0, 0, 0], 0), ([1, 2, 2], 1), ([2, 1, 3], 2), ([5, 7, 6], 1)] {
            exhaust(Tape::new(|name| name == "open-ranks.turn"), |tape| {
                let mut given = Given::default();
                given.words(bits, vec![3; 3], bits_of(&x).iter().map(|bit| (bit + 13) % 16).collect());
                let ran = rig.run(tape, given);
                let sum = ran.server0.words(&out).unwrap()[0] + ran.server1.words(&out).unwrap()[0];
                assert_eq!(sum % 16, ideal, "{x:?}");
            });
        }
    }

    fn seen(mutant: Option<&'static str>) -> Vec<[Views; 3]> {
        let (rig, (bits, _)) = Rig::new(1, 1, |b| lay(b, 2, 1));
        let all: Chosen = |_| true;
        let of = |bit| {
            let tape = mutant.iter().fold(Tape::new(all), |tape, label| tape.with(Mutant::Zero(label)));
            views(tape, &rig, |tape, given| {
                let [bit0, bit1] = split(tape, 2, bit);
                given.words(bits, bit0, bit1);
            })
        };
        [0, 1].into_iter().map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whoever_is_first() {
        let shipped = seen(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        let broken = seen(Some(TURN.name));
        assert!(!alike(&broken, Role::Server0) && !alike(&broken, Role::Server1));
        for label in [RHO, TABLE] {
            assert!(!alike(&seen(Some(label.name)), Role::Server1), "{}", label.name);
        }
    }

    /// Two pairs of candidates. What is opened under one turn shows server1 whether both have the same winner. (server0
    /// knows the constant bits.)
    #[test]
    fn two_openings_under_one_turn_are_noticed() {
        let seen = |mutant: Option<Mutant>| -> Vec<[Views; 3]> {
            let of = |bits: [i64; 2]| {
                let (rig, ()) = Rig::new(1, 1, |b| {
                    for bit in bits {
                        let known = Masked { hat: constant(b, vec![bit]), mask: constant(b, vec![0]) };
                        let pairs = compare_table::bit(b, known, 0);
                        let (ranks, turn) = (b.wire(2), b.wire(2));
                        b.push(OpenRanks { candidates: 2, pairs, ranks, turn });
                    }
                });
                let openings: Chosen = |name| ["open-bit.rho", RHO.name, TURN.name].contains(&name);
                let tape = mutant.iter().fold(Tape::new(openings), |tape, mutant| tape.with(*mutant));
                views(tape, &rig, |_, _| ())
            };
            [[0, 0], [0, 1]].into_iter().map(of).collect()
        };
        assert!(alike(&seen(None), Role::Server1));
        for label in [RHO, TURN] {
            assert!(!alike(&seen(Some(Mutant::SameStep(label.name))), Role::Server1), "{}", label.name);
        }
    }
}
