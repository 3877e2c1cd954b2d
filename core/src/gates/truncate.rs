//! Truncation by f bits, assisted by the crypto producer: stochastic, and it never fails.
//!
//! Escudero et al., "Improved primitives for MPC over mixed arithmetic-binary circuits" (ePrint 2020/338), §5.1, for a
//! private z with |z| < 2^(k-2):
//!
//! 1. The producer deals r = r_0 + r_1 uniform, shares of r ≫ f, and shares modulo 2^f of its top bit.
//! 2. The servers open ẑ = z + r, and take c = ẑ + 2^(k-2), so that z + 2^(k-2) lies in 0..2^(k-1).
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
use crate::gates::mask::opened;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Disclosure, Domain, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const R: Label = Label::new(0, "truncate.mask");
const HIGH: Label = Label::new(1, "truncate.high");
const TOP: Label = Label::new(2, "truncate.top");

/// y = z / 2^by, rounded down or up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Truncate {
    pub(crate) z: Wire<Additive>,
    /// f: the bits that are cut off.
    pub(crate) by: u32,
    pub(crate) y: Wire<Additive>,
}

/// z / 2^by.
pub(crate) fn truncate(b: &mut Builder, z: Wire<Additive>, by: u32) -> Wire<Additive> {
    let y = b.wire(b.elements(&z));
    b.push(Truncate { z, by, y });
    y
}

impl Gate for Truncate {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Ring, shapes.elements(&self.z) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        let n = shapes.elements(&self.z) as usize;
        vec![Block::new(Domain::Ring, n), Block::new(Domain::Low(self.by), n)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a product plus its mask, z + r, before it is rounded",
            because: "r is uniform, belongs to this rounding alone, and is known to neither server",
        }]
    }

    fn deal<L: Lane, Q: Randomness>(&self, producer: &mut Producer<L, Q>) -> Result<Vec<Column<L>>, Blame> {
        let (f, k) = (self.by, producer.at.ring.bits());
        let r = producer.mask(R, producer.at.elements(&self.z))?;
        let high = r.iter().map(|r| L::from_u64(r.to_u64() >> f)).collect();
        let top = r.iter().map(|r| L::from_u64(r.to_u64() >> (k - 1))).collect();
        let blocks = self.material(&producer.at.plan.shapes);
        let secrets = [(HIGH, high), (TOP, top)].into_iter().zip(blocks);
        secrets.map(|((label, secret), block)| producer.at.correction(label, block, Column::Words(secret))).collect()
    }

    fn send<S: Side, L: Lane, Q: Randomness>(&self, server: &mut Server<S, L, Q>) -> Result<Vec<Column<L>>, Blame> {
        let mut hat = server.words(&self.z)?.to_vec();
        server.at.ring.add_all(&mut hat, &server.mask(R, server.at.elements(&self.z))?);
        Ok(vec![Column::Words(hat)])
    }

    fn finish<S: Side, L: Lane, Q: Randomness>(
        &self,
        server: &mut Server<S, L, Q>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let (ring, f) = (server.at.ring, self.by);
        let (k, first) = (ring.bits(), server.first());
        let hat = opened(server, mine, theirs)?;
        let (high, top) = (server.dealt(self, 0, HIGH)?.words()?, server.dealt(self, 1, TOP)?.words()?);
        let shift = ring.element(1 << (k - 2 - f));
        let rows = hat.into_iter().zip(high.into_iter().zip(top));
        let y = rows.map(|(hat, (high, top))| {
            let c = ring.add(hat, ring.element(1 << (k - 2))).to_u64();
            let public = ring.mul(first, ring.sub(ring.element(c >> f), shift));
            let wrapped = (1 - (c >> (k - 1))).wrapping_mul(top.to_u64()) << (k - f);
            ring.add(ring.sub(public, high), ring.element(wrapped))
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
                let runs = exhaust(Tape::new(|name| name == R.name), |tape| {
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
        assert!(!alike(&over_all_numbers(Some(Mutant::Zero(R.name))), Role::Server0));
        for label in [HIGH, TOP] {
            assert!(!alike(&over_all_numbers(Some(Mutant::Zero(label.name))), Role::Server1), "{}", label.name);
        }
    }
}
