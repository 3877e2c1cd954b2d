//! ShareConvert: from shares in Z_2^k to shares in Z_{2^k - 1} of the same number.
//!
//! SecureNN, Algorithm 4, with the last steps as in its proof (steps 10 and 11 are misprinted). L = 2^k:
//!
//! 1. The servers draw r = r_0 + r_1 from their common stream, with α = wrap(r_0, r_1). Server j takes ã_j = a_j + r_j and
//!    β_j = wrap(a_j, r_j), and sends ã_j to the producer.
//! 2. The producer has x = ã_0 + ã_1 and δ = wrap(ã_0, ã_1). It shares the bits of x over Z_p, and δ in Z_{L-1}.
//! 3. PrivateCompare on x > r - 1 with the servers' bit η″ gives the producer η′ = η″ ⊕ (x >= r), which it shares in
//!    Z_{L-1}. η = η′ ⊕ η″ is linear in η′, as the servers know η″.
//! 4. θ = β_0 + β_1 - α + δ + η - 1 is the wrap of a_0 and a_1, so y_j = a_j - θ_j modulo L - 1 are shares of a.
//!
//! The producer sees a_0 + r_0 and a_1 + r_1, each uniform. The one number that has no place in Z_{L-1}, a = L - 1, becomes
//! 0; callers convert even numbers only.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::private_compare::{Relation, private_compare};
use crate::gates::share_bits::{share_held_bits, share_held_odd};
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{
    Additive, Block, Builder, Common, Disclosure, Domain, Held, Odd, Own, Route, Shapes, Traffic, Wire, WireId,
};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const R: [Label; 2] = [Label::new(0, "share-convert.r0"), Label::new(1, "share-convert.r1")];

/// Shares of the same number in Z_{2^k - 1}.
pub(crate) fn share_convert(b: &mut Builder, a: Wire<Additive>) -> Wire<Odd> {
    let n = b.elements(&a);
    // Step 1.
    let conceal = Conceal { a, r: b.wire(n), alpha: b.wire(n), beta: b.wire(n), x: b.wire(n), delta: b.wire(n) };
    let Conceal { r, alpha, beta, x, delta, .. } = conceal;
    b.push(conceal);
    // Step 2.
    let bits = share_held_bits(b, x);
    let delta = share_held_odd(b, delta);
    // Step 3.
    let masked = private_compare(b, bits, Relation::AtLeast, r);
    let eta = share_held_odd(b, masked.outcome);
    // Step 4.
    let y = b.wire(n);
    b.push(Convert { a, alpha, beta, delta, eta, eta_mask: masked.beta, y });
    y
}

/// Step 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Conceal {
    pub(crate) a: Wire<Additive>,
    pub(crate) r: Wire<Common>,
    pub(crate) alpha: Wire<Common>,
    pub(crate) beta: Wire<Own>,
    pub(crate) x: Wire<Held>,
    pub(crate) delta: Wire<Held>,
}

impl Gate for Conceal {
    fn reads(&self) -> Vec<WireId> {
        vec![self.a.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.r.id(), self.alpha.id(), self.beta.id(), self.x.id(), self.delta.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Ring, shapes.elements(&self.a) as usize);
        Some(Traffic { route: Route::ToProducer, blocks: vec![block] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "crypto-producer",
            what: "both shares of a number, each plus a mask of its own",
            because: "the two masks are uniform and independent, and known to the servers alone",
        }]
    }

    fn send<S: Side, L: Lane, Q: Randomness>(&self, server: &mut Server<S, L, Q>) -> Result<Vec<Column<L>>, Blame> {
        let (n, ring) = (server.at.elements(&self.a), server.at.ring);
        let [r0, r1] = R.map(|label| server.at.draw_ring(Pair::Servers, label, n));
        let (mut r, r1) = (r0?, r1?);
        let own = if S::INDEX == 0 { r.clone() } else { r1.clone() };
        let alpha = r.iter().zip(&r1).map(|(r0, r1)| L::from_u64(ring.wrap(*r0, *r1))).collect();
        ring.add_all(&mut r, &r1);
        let mut hidden = server.words(&self.a)?.to_vec();
        let beta = hidden.iter().zip(&own).map(|(a, r)| L::from_u64(ring.wrap(*a, *r))).collect();
        ring.add_all(&mut hidden, &own);
        server.set(&self.r, r);
        server.set(&self.alpha, alpha);
        server.set(&self.beta, beta);
        Ok(vec![Column::Words(hidden)])
    }

    fn absorb<L: Lane, Q: Randomness>(
        &self,
        producer: &mut Producer<L, Q>,
        from0: Vec<Column<L>>,
        from1: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let missing = || Blame::bug("a conversion without its messages");
        let ring = producer.at.ring;
        let mut x = from0.into_iter().next().ok_or_else(missing)?.words()?;
        let other = from1.into_iter().next().ok_or_else(missing)?.words()?;
        let delta = x.iter().zip(&other).map(|(a0, a1)| L::from_u64(ring.wrap(*a0, *a1))).collect();
        ring.add_all(&mut x, &other);
        producer.set(&self.x, x);
        producer.set(&self.delta, delta);
        Ok(())
    }
}

/// Step 4.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Convert {
    pub(crate) a: Wire<Additive>,
    pub(crate) alpha: Wire<Common>,
    pub(crate) beta: Wire<Own>,
    pub(crate) delta: Wire<Odd>,
    /// η′.
    pub(crate) eta: Wire<Odd>,
    /// η″.
    pub(crate) eta_mask: Wire<Common>,
    pub(crate) y: Wire<Odd>,
}

impl Gate for Convert {
    fn reads(&self) -> Vec<WireId> {
        vec![self.a.id(), self.alpha.id(), self.beta.id(), self.delta.id(), self.eta.id(), self.eta_mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn finish<S: Side, L: Lane, Q: Randomness>(
        &self,
        server: &mut Server<S, L, Q>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (odd, one) = (server.at.odd, server.first().to_u64());
        let local = server.words(&self.a)?.iter().zip(server.words(&self.alpha)?).zip(server.words(&self.beta)?);
        let received =
            server.words(&self.delta)?.iter().zip(server.words(&self.eta)?).zip(server.words(&self.eta_mask)?);
        let y = local.zip(received).map(|(((a, alpha), beta), ((delta, eta), eta_mask))| {
            // η = η′ if η″ = 0, else 1 - η′.
            let eta = if eta_mask.to_u64() == 1 { odd.sub(one, eta.to_u64()) } else { eta.to_u64() };
            let public = odd.add(alpha.to_u64() * one, one);
            let theta = odd.sub(odd.add(odd.add(beta.to_u64(), delta.to_u64()), eta), public);
            L::from_u64(odd.sub(odd.reduce(a.to_u64()), theta))
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
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    /// Every number, every sharing of it, every r_0, r_1 and η″: the same number in the odd ring.
    #[test]
    fn every_number_is_converted() {
        for bits in [3, 4] {
            let (rig, (a_wire, y_wire)) = Rig::new(bits, 1, |b| {
                let a = b.wire(1);
                (a, share_convert(b, a))
            });
            let (l, n) = (1u64 << bits, (1u64 << bits) - 1);
            for a in 0..l {
                let runs = exhaust(
                    Tape::new(|name| ["share-convert.r0", "share-convert.r1", "private-compare.beta"].contains(&name)),
                    |tape| {
                        let mut given = Given::default();
                        let [a0, a1] = split(tape, l, a);
                        given.words(a_wire, a0, a1);
                        let ran = rig.run(tape, given);
                        let (y0, y1) = (ran.server0.words(&y_wire).unwrap()[0], ran.server1.words(&y_wire).unwrap()[0]);
                        // L - 1 has no place in Z_{L-1}, and becomes 0.
                        assert_eq!((u64::from(y0) + u64::from(y1)) % n, a % n, "{bits} bits: {a}");
                    },
                );
                assert_eq!(runs, l * l * l * 2);
            }
        }
    }

    /// What the parties see of the concealed shares, for every pair of shares, over r_0 and r_1.
    fn concealed(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, a_wire) = Rig::new(3, 1, |b| {
            let a = b.wire(1);
            let conceal =
                Conceal { a, r: b.wire(1), alpha: b.wire(1), beta: b.wire(1), x: b.wire(1), delta: b.wire(1) };
            b.push(conceal);
            a
        });
        let pairs = (0..8).flat_map(|a0| (0..8).map(move |a1| (a0, a1)));
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        pairs.map(|(a0, a1)| views(tape(), &rig, |_, given| given.words(a_wire, vec![a0], vec![a1]))).collect()
    }

    #[test]
    fn the_producer_sees_the_same_whatever_the_shares() {
        assert!(alike(&concealed(None), Role::CryptoProducer));
        for label in R {
            assert!(!alike(&concealed(Some(Mutant::Zero(label.name))), Role::CryptoProducer), "{}", label.name);
        }
    }
}
