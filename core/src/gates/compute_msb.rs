//! ComputeMSB: the most significant bit of a number shared in Z_{2^k - 1}, as a share in Z_2^k.
//!
//! SecureNN, Algorithm 5. In the odd ring N = 2^k - 1, the most significant bit of y is the lowest bit of 2y:
//!
//! 1. Ahead of time the producer deals ρ uniform in Z_N, and its bits over Z_p.
//! 2. The servers open c = 2y + ρ. The lowest bit of 2y is c\[0\] ⊕ ρ\[0\] ⊕ (ρ > c), for ρ > c says that the sum wrapped.
//! 3. PrivateCompare on ρ > c with the servers' bit β gives the producer β′ = β ⊕ (ρ > c).
//! 4. The paper shares β′ and ρ\[0\] and computes the remaining exclusive or by a product. But the producer knows both, so
//!    it shares u = β′ ⊕ ρ\[0\], the servers know v = β ⊕ c\[0\], and msb = u ⊕ v = v + (1 - 2v)·u needs no message.
//!
//! What the producer sees in step 3 is masked by β; what the servers see in step 2 by ρ; the shares of u are fresh.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::private_compare::{Relation, private_compare};
use crate::gates::share_bits::{bits_of, share_held};
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{
    Additive, BitShares, Block, Builder, Common, Disclosure, Domain, Held, Odd, Route, Shapes, Traffic, Wire, WireId,
};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const RHO: Label = Label::new(0, "compute-msb.rho");
const BITS: Label = Label::new(1, "compute-msb.bits");

/// A share in Z_2^k of the most significant bit of y.
pub(crate) fn compute_msb(b: &mut Builder, y: Wire<Odd>) -> Wire<Additive> {
    let n = b.elements(&y);
    // Step 1.
    let (rho, bits, lowest) = (b.wire(n), b.wire(n), b.wire(n));
    b.push(DealRho { y, rho, bits, lowest });
    // Step 2.
    let c = b.wire(n);
    b.push(OpenDoubled { y, rho, c });
    // Step 3.
    let masked = private_compare(b, bits, Relation::Above, c);
    // Step 4.
    let u = b.wire(n);
    b.push(MergeBits { left: masked.outcome, right: lowest, out: u });
    let u = share_held(b, u);
    let msb = b.wire(n);
    b.push(UnmaskSign { u, beta: masked.beta, c, msb });
    msb
}

/// Step 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DealRho {
    /// Not read: ρ is expanded when y is there, and not long before it is wanted.
    pub(crate) y: Wire<Odd>,
    pub(crate) rho: Wire<Odd>,
    pub(crate) bits: Wire<BitShares>,
    /// ρ\[0\].
    pub(crate) lowest: Wire<Held>,
}

impl DealRho {
    fn rho<L: Lane, R: Randomness>(&self, producer: &Producer<L, R>) -> Result<Vec<L>, Blame> {
        let (n, odd) = (producer.at.elements(&self.rho), producer.at.odd);
        let shares = producer.at.draw_odd(Pair::Producer0, RHO, n)?.into_iter();
        let shares = shares.zip(producer.at.draw_odd(Pair::Producer1, RHO, n)?);
        Ok(shares.map(|(a, b)| L::from_u64(odd.add(a.to_u64(), b.to_u64()))).collect())
    }
}

impl Gate for DealRho {
    fn reads(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.rho.id(), self.bits.id(), self.lowest.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Field, shapes.elements(&self.bits) as usize * shapes.numbers.ring_bits as usize)]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let bits = bits_of(&self.rho(producer)?, producer.at.bits());
        let block = Block::new(Domain::Field, producer.at.elements(&self.bits) * producer.at.bits());
        Ok(vec![producer.at.correction(BITS, block, Column::Field(bits))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let rho = server.at.draw_odd(S::DEALT, RHO, server.at.elements(&self.rho))?;
        let bits = server.dealt(self, 0, BITS)?.field()?;
        server.set(&self.rho, rho);
        server.set_bits(&self.bits, bits);
        Ok(())
    }

    fn absorb<L: Lane, R: Randomness>(
        &self,
        producer: &mut Producer<L, R>,
        _from0: Vec<Column<L>>,
        _from1: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let lowest = self.rho(producer)?.into_iter().map(|rho| rho.and(L::from_u64(1))).collect();
        producer.set(&self.lowest, lowest);
        Ok(())
    }
}

/// Step 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenDoubled {
    pub(crate) y: Wire<Odd>,
    pub(crate) rho: Wire<Odd>,
    pub(crate) c: Wire<Common>,
}

impl Gate for OpenDoubled {
    fn reads(&self) -> Vec<WireId> {
        vec![self.y.id(), self.rho.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.c.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Odd, shapes.elements(&self.y) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "twice a number plus its mask, modulo 2^k - 1",
            because: "the mask is uniform, belongs to this sign alone, and is known to neither server",
        }]
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let odd = server.at.odd;
        let pairs = server.words(&self.y)?.iter().zip(server.words(&self.rho)?);
        let sum = |(y, rho): (&L, &L)| odd.add(odd.add(y.to_u64(), y.to_u64()), rho.to_u64());
        Ok(vec![Column::Words(pairs.map(|pair| L::from_u64(sum(pair))).collect())])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let missing = || Blame::bug("an opening without its message");
        let (mine, theirs) =
            (mine.into_iter().next().ok_or_else(missing)?, theirs.into_iter().next().ok_or_else(missing)?);
        let odd = server.at.odd;
        let pairs = mine.words()?.into_iter().zip(theirs.words()?);
        let c = pairs.map(|(a, b)| L::from_u64(odd.add(a.to_u64(), b.to_u64()))).collect();
        server.set(&self.c, c);
        Ok(())
    }
}

/// Step 4, at the producer: u = β′ ⊕ ρ\[0\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MergeBits {
    pub(crate) left: Wire<Held>,
    pub(crate) right: Wire<Held>,
    pub(crate) out: Wire<Held>,
}

impl Gate for MergeBits {
    fn reads(&self) -> Vec<WireId> {
        vec![self.left.id(), self.right.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn absorb<L: Lane, R: Randomness>(
        &self,
        producer: &mut Producer<L, R>,
        _from0: Vec<Column<L>>,
        _from1: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let pairs = producer.held(&self.left)?.iter().zip(producer.held(&self.right)?);
        let out = pairs.map(|(a, b)| L::from_u64(a.to_u64() ^ b.to_u64())).collect();
        producer.set(&self.out, out);
        Ok(())
    }
}

/// Step 4, at the servers: msb = v + (1 - 2v)·u with v = β ⊕ c\[0\].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UnmaskSign {
    pub(crate) u: Wire<Additive>,
    pub(crate) beta: Wire<Common>,
    pub(crate) c: Wire<Common>,
    pub(crate) msb: Wire<Additive>,
}

impl Gate for UnmaskSign {
    fn reads(&self) -> Vec<WireId> {
        vec![self.u.id(), self.beta.id(), self.c.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.msb.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, first) = (server.at.ring, server.first());
        let known = server.words(&self.beta)?.iter().zip(server.words(&self.c)?);
        let msb = server.words(&self.u)?.iter().zip(known).map(|(u, (beta, c))| {
            let v = (beta.to_u64() ^ c.to_u64()) & 1;
            if v == 1 { ring.sub(first, *u) } else { *u }
        });
        let msb = msb.collect();
        server.set(&self.msb, msb);
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

    /// Every number, every sharing of it, every sharing of every ρ, and β.
    #[test]
    fn every_sign_is_right() {
        for bits in [3u32, 4] {
            let (rig, (y_wire, msb_wire)) = Rig::new(bits, 1, |b| {
                let y = b.wire(1);
                (y, compute_msb(b, y))
            });
            let (l, n) = (1u64 << bits, (1u64 << bits) - 1);
            for y in 0..n {
                let runs = exhaust(Tape::new(|name| [RHO.name, "private-compare.beta"].contains(&name)), |tape| {
                    let mut given = Given::default();
                    let [y0, y1] = split(tape, n, y);
                    given.words(y_wire, y0, y1);
                    let ran = rig.run(tape, given);
                    let (m0, m1) = (ran.server0.words(&msb_wire).unwrap()[0], ran.server1.words(&msb_wire).unwrap()[0]);
                    assert_eq!((u64::from(m0) + u64::from(m1)) % l, y >> (bits - 1), "{bits} bits: {y}");
                });
                assert_eq!(runs, n * n * n * 2);
            }
        }
    }

    fn opened(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, y_wire) = Rig::new(2, 1, |b| {
            let y = b.wire(1);
            let (rho, bits, lowest, c) = (b.wire(1), b.wire(1), b.wire(1), b.wire(1));
            b.push(DealRho { y, rho, bits, lowest });
            b.push(OpenDoubled { y, rho, c });
            y
        });
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let of = |y| {
            views(tape(), &rig, |tape, given| {
                let [y0, y1] = split(tape, 3, y);
                given.words(y_wire, y0, y1);
            })
        };
        (0..3).map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        for server in [Role::Server0, Role::Server1] {
            assert!(alike(&opened(None), server));
            assert!(!alike(&opened(Some(Mutant::Zero(RHO.name))), server));
        }
        assert!(!alike(&opened(Some(Mutant::Zero(BITS.name))), Role::Server1), "server1 is sent the bits of ρ");
    }
}
