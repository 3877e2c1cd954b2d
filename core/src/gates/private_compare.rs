//! PrivateCompare: the crypto producer learns β ⊕ (x > r), and nothing else.
//!
//! SecureNN (Wagh, Gupta, Chandran 2018), Algorithm 3, corrected. The servers share the bits of x over Z_p, know r and a
//! common bit β. For each element of ℓ bits, with i from the lowest bit 0 to ℓ - 1:
//!
//! 1. t = r if β = 0, else r + 1.
//! 2. w_i = x_i ⊕ t_i, which is linear in x_i since t_i is known.
//! 3. c_i = (-1)^β (t_i - x_i) + 1 + Σ_{m > i} w_m. Some c_i is zero if and only if x > r (β = 0), or x <= r (β = 1).
//!    The paper's step 4 has the sign reversed.
//! 4. d_i = s_i·c_i with s_i uniform in 1..p, and *re-shared*: server0 adds a uniform u_i, server1 takes it away.
//! 5. Both permute d by the same uniform π and send their shares to the producer, which looks for a zero.
//!
//! Corner cases, where t does not fit into ℓ bits: the servers put together a vector with one zero, or with none, whose
//! outcome is what the comparison must give, and go on with step 4.
//!
//! Why the producer learns nothing more: it receives two vectors that are, each alone, uniform (u_i), whose sum is zero at
//! a uniform place or nowhere (π) and uniform among the non-zero elsewhere (s_i); and whether there is a zero is masked by
//! β. Without u_i, as printed, the ratio of the two shares of d_i would be that of the shares of c_i, which the producer
//! dealt itself. s, u, π and β are fresh for every comparison and drawn from the servers' common stream.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::field::Prime;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{BitShares, Block, Builder, Common, Disclosure, Domain, Held, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness, Source};

const BETA: Label = Label::new(0, "private-compare.beta");
const S: Label = Label::new(1, "private-compare.s");
const U: Label = Label::new(2, "private-compare.u");
const PI: Label = Label::new(3, "private-compare.permutation");

/// The relation that is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Relation {
    /// x > r.
    Above,
    /// x >= r, which is x > r - 1.
    AtLeast,
}

/// One comparison for each element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PrivateCompare {
    /// x.
    pub(crate) bits: Wire<BitShares>,
    /// r.
    pub(crate) against: Wire<Common>,
    pub(crate) relation: Relation,
    /// β.
    pub(crate) beta: Wire<Common>,
    /// β ⊕ (x > r).
    pub(crate) outcome: Wire<Held>,
}

/// What comes out of a comparison: β, known to the servers, and β ⊕ (x > r), known to the producer.
pub(crate) struct Masked {
    pub(crate) beta: Wire<Common>,
    pub(crate) outcome: Wire<Held>,
}

/// Compares shared bits with what both servers know.
pub(crate) fn private_compare(
    b: &mut Builder,
    bits: Wire<BitShares>,
    relation: Relation,
    against: Wire<Common>,
) -> Masked {
    let n = b.elements(&bits);
    let (beta, outcome) = (b.wire(n), b.wire(n));
    b.push(PrivateCompare { bits, against, relation, beta, outcome });
    Masked { beta, outcome }
}

/// What steps 1 to 3 work with.
enum Comparand {
    /// t.
    Bits(u64),
    /// The outcome is settled: whether there is to be a zero.
    Settled(bool),
}

/// Step 1, with the corner cases: t for x > r and x > r - 1.
fn comparand(relation: Relation, r: u64, beta: bool, largest: u64) -> Comparand {
    match (relation, beta) {
        (Relation::Above, false) => Comparand::Bits(r),
        // x > 2^ℓ - 1 never holds, so β ⊕ 0 = 1: a zero.
        (Relation::Above, true) if r == largest => Comparand::Settled(true),
        (Relation::Above, true) => Comparand::Bits(r + 1),
        // x >= 0 always holds: β ⊕ 1.
        (Relation::AtLeast, _) if r == 0 => Comparand::Settled(!beta),
        (Relation::AtLeast, false) => Comparand::Bits(r - 1),
        (Relation::AtLeast, true) => Comparand::Bits(r),
    }
}

/// Steps 2 and 3: server j's shares of c, not yet modulo p: each is below 2^16, the bits being at most 64 and p at most 67.
fn compare(prime: Prime, index: usize, x: &[u8], comparand: &Comparand, beta: bool, c: &mut [u32]) {
    let (p, one) = (u32::from(prime.p()), u32::from(index == 0));
    match comparand {
        Comparand::Settled(zero) => {
            c.iter_mut().for_each(|c| *c = one);
            c.iter_mut().take(usize::from(*zero)).for_each(|c| *c = 0);
        }
        Comparand::Bits(t) => {
            let mut above = one;
            for (i, (x, c)) in x.iter().zip(c).enumerate().rev() {
                let (t, x) = ((t >> i & 1) as u32, u32::from(*x));
                let signed = if beta { p + x - t * one } else { p + t * one - x };
                *c = signed + above;
                // w is x, or 1 - x.
                above += x + t * (one + 2 * (p - x));
            }
        }
    }
}

impl Gate for PrivateCompare {
    fn reads(&self) -> Vec<WireId> {
        vec![self.bits.id(), self.against.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.beta.id(), self.outcome.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let elements = shapes.elements(&self.bits) as usize * shapes.numbers.ring_bits as usize;
        Some(Traffic { route: Route::ToProducer, blocks: vec![Block::new(Domain::Field, elements)] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "crypto-producer",
            what: "a blinded, permuted and re-shared comparison",
            because: "each share is uniform; their sum is random but for one zero at a random place, or none, and which of \
                      the two is masked by a bit that the producer does not know",
        }]
    }

    fn send<J: Side, L: Lane, R: Randomness>(&self, server: &mut Server<J, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let (at, bits, prime) = (&server.at, server.at.bits(), server.at.prime);
        let n = at.elements(&self.bits);
        let beta: Vec<u8> = at.draw(Pair::Servers, BETA, n, |source, out| source.below(|_| 2, out))?;
        let s: Vec<u8> = at.draw(Pair::Servers, S, n * bits, |source, out| source.below(|_| prime.p() - 1, out))?;
        let u: Vec<u8> = at.draw(Pair::Servers, U, n * bits, |source, out| source.below(|_| prime.p(), out))?;
        let permutations: Vec<u8> = at.draw(Pair::Servers, PI, n * bits, |source, out| {
            out.chunks_mut(bits).for_each(|one| source.permutation(one));
        })?;
        let mut message = vec![0; server.bits(&self.bits)?.len()];
        let (mut c, largest) = (vec![0; bits], u64::MAX >> (64 - bits));
        let elements = server.bits(&self.bits)?.chunks(bits).zip(server.words(&self.against)?).zip(&beta);
        let blinds = s.chunks(bits).zip(u.chunks(bits)).zip(permutations.chunks(bits));
        for ((((x, r), beta), ((s, u), permutation)), out) in elements.zip(blinds).zip(message.chunks_mut(bits)) {
            let beta = *beta == 1;
            let comparand = comparand(self.relation, r.to_u64(), beta, largest);
            compare(prime, J::INDEX, x, &comparand, beta, &mut c);
            for (((c, s), u), place) in c.iter().zip(s).zip(u).zip(permutation) {
                // Step 4: s is drawn from 0..p-1, and stands for s + 1.
                let u = if J::INDEX == 0 { *u } else { prime.p() - u };
                let d = prime.reduce((u32::from(*s) + 1) * c + u32::from(u));
                // Step 5.
                if let Some(out) = out.get_mut(usize::from(*place)) {
                    *out = d;
                }
            }
        }
        let beta = beta.into_iter().map(|bit| L::from_u64(u64::from(bit))).collect();
        server.set(&self.beta, beta);
        Ok(vec![Column::Field(message)])
    }

    fn absorb<L: Lane, R: Randomness>(
        &self,
        producer: &mut Producer<L, R>,
        from0: Vec<Column<L>>,
        from1: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let missing = || Blame::bug("a comparison without its messages");
        let d0 = from0.into_iter().next().ok_or_else(missing)?.field()?;
        let d1 = from1.into_iter().next().ok_or_else(missing)?.field()?;
        let (bits, prime) = (producer.at.bits(), producer.at.prime);
        let zero_in = |(d0, d1): (&[u8], &[u8])| {
            let zeros = d0.iter().zip(d1).filter(|(d0, d1)| prime.add(**d0, **d1) == 0).count();
            L::from_u64(u64::from(zeros > 0))
        };
        let outcome = d0.chunks(bits).zip(d1.chunks(bits)).map(zero_in).collect();
        producer.set(&self.outcome, outcome);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::gates::share_bits::bits_of;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, views};

    fn rig(bits: u32, relation: Relation) -> (Rig, (Wire<BitShares>, Wire<Common>, Masked)) {
        Rig::new(bits, 1, |b| {
            let (x, r) = (b.wire(1), b.wire(1));
            (x, r, private_compare(b, x, relation, r))
        })
    }

    fn ideal(relation: Relation, x: u64, r: u64) -> bool {
        match relation {
            Relation::Above => x > r,
            Relation::AtLeast => x >= r,
        }
    }

    /// Shares of the bits of x, the first ones given by `share`.
    fn give(given: &mut Given, wire: Wire<BitShares>, bits: u32, x: u64, mut share: impl FnMut(u64) -> u64) {
        let p = u64::from(Prime::for_bits(bits).p());
        let first: Vec<u64> = (0..bits).map(|_| share(p)).collect();
        let second = bits_of(&[x as u32], bits as usize)
            .into_iter()
            .zip(&first)
            .map(|(bit, s)| ((u64::from(bit) + p - s) % p) as u8);
        let second: Vec<u8> = second.collect();
        given.known_to_producer = first.iter().copied().chain(second.iter().map(|s| u64::from(*s))).collect();
        given.bits(wire, first.into_iter().map(|s| s as u8).collect(), second);
    }

    /// Every x, r and β, at 2 to 5 bits, the corner cases r = 0 and r = 2^l - 1 among them.
    #[test]
    fn every_comparison_is_right() {
        for (bits, relation) in (2..=5).flat_map(|bits| [(bits, Relation::Above), (bits, Relation::AtLeast)]) {
            let (rig, (x_wire, r_wire, masked)) = rig(bits, relation);
            for (x, r, salt) in (0..1 << bits).flat_map(|x| (0..1 << bits).map(move |r| (x, r, (x * 31 + r) as u8))) {
                let runs = exhaust(Tape::new(|name| name == BETA.name).salted(salt), |tape| {
                    let mut given = Given::default();
                    give(&mut given, x_wire, bits, x, |p| (x * 7 + r * 3 + 1) % p);
                    given.words(r_wire, vec![r as u32], vec![r as u32]);
                    let ran = rig.run(tape, given);
                    let beta = ran.server0.words(&masked.beta).unwrap()[0];
                    assert_eq!(beta, ran.server1.words(&masked.beta).unwrap()[0]);
                    let outcome = ran.producer.held(&masked.outcome).unwrap()[0];
                    assert_eq!(outcome ^ beta == 1, ideal(relation, x, r), "{relation:?} {bits} bits: {x} {r} {beta}");
                });
                assert_eq!(runs, 2);
            }
        }
    }

    /// What the parties see while x is compared with each r, at 2 bits, over all randomness.
    fn over_all_r(relation: Relation, x: u64, mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, (x_wire, r_wire, _)) = rig(2, relation);
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        (0..4)
            .map(|r| {
                views(tape(), &rig, |tape, given| {
                    give(given, x_wire, 2, x, |p| tape.free(p));
                    given.words(r_wire, vec![r], vec![r]);
                })
            })
            .collect()
    }

    #[test]
    fn the_producer_sees_the_same_whatever_it_is_compared_with() {
        for (relation, x) in
            [(Relation::Above, 0), (Relation::Above, 2), (Relation::AtLeast, 1), (Relation::AtLeast, 3)]
        {
            assert!(alike(&over_all_r(relation, x, None), Role::CryptoProducer), "{relation:?} {x}");
        }
    }

    #[test]
    fn leaving_out_any_blind_is_noticed() {
        for label in [BETA, S, U, PI] {
            let all = over_all_r(Relation::Above, 1, Some(Mutant::Zero(label.name)));
            assert!(!alike(&all, Role::CryptoProducer), "{}", label.name);
        }
    }
}
