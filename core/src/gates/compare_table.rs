//! One bit of a masked tensor, by comparison with dealt tables (see [`crate::compare::table`]).
//!
//! z is open as ẑ = z + r (see [`super::mask`]; r = -a). Bit p of z is bit p of ẑ - r: that of ẑ, that of r, and the borrow
//! from below, together: z\[p\] = ẑ\[p\] ⊕ r\[p\] ⊕ 1{ẑ mod 2^p < r mod 2^p}. For |z| < 2^p it is z's sign.
//!
//! 1. The servers open what stands in the tables at ẑ mod 2^p, and put together XOR-shares of the borrow.
//! 2. They open e = z\[p\] ⊕ ρ, where ρ = ρ_0 ⊕ ρ_1 is a bit that each server shares half of with the crypto producer, who
//!    deals XOR-shares of r\[p\]. What is opened is uniform; what follows from z\[p\] is computed with e and shares of what
//!    follows from ρ (see [`super::select_masked`]).

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::compare::table::Table;
use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{
    Block, Builder, Common, Disclosure, Domain, Held, Masked, OwnBytes, Route, Shapes, Traffic, Wire, WireId,
};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const MASKS: Label = Label::new(0, "compare-table.masks");
const SHARE: Label = Label::new(1, "compare-table.share");
/// ρ, of which each server knows half.
pub(crate) const RHO: Label = Label::new(0, "open-bit.rho");
const BIT: Label = Label::new(1, "open-bit.bit");

/// A bit z\[p\] that is open as e = z\[p\] ⊕ ρ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MaskedBit {
    pub(crate) e: Wire<Common>,
    /// ρ, at the crypto producer while it deals.
    pub(crate) rho: Wire<Held>,
}

/// Bit `position` of z, which lies below k - 1.
pub(crate) fn bit(b: &mut Builder, z: Masked, position: u32) -> MaskedBit {
    let n = b.elements(&z.hat);
    let below = Table::new(position).map(|table| {
        let (share, opened) = (b.wire(n * table.share_bytes() as u32), b.wire(n));
        b.push(LookUp { z, position, share, opened });
        Below { share, opened }
    });
    let bit = MaskedBit { e: b.wire(n), rho: b.wire(n) };
    b.push(OpenBit { z, position, below, bit });
    bit
}

/// Step 1: opens what stands in the tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LookUp {
    pub(crate) z: Masked,
    pub(crate) position: u32,
    /// This server's share of the tables, for step 2.
    pub(crate) share: Wire<OwnBytes>,
    pub(crate) opened: Wire<Common>,
}

impl LookUp {
    fn table(&self) -> Result<Table, Blame> {
        Table::new(self.position).ok_or_else(|| Blame::bug("a comparison of no bits"))
    }
}

/// The lowest `position` bits.
pub(crate) fn low<L: Lane>(x: L, position: u32) -> u64 {
    x.to_u64() & ((1 << position) - 1)
}

impl Gate for LookUp {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.share.id(), self.opened.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let bits = Table::new(self.position)?.opened_bits();
        let block = Block::new(Domain::Bits(bits), shapes.elements(&self.opened) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Byte, shapes.elements(&self.share) as usize)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "what stands in a dealt table at the low bits of a masked tensor",
            because: "every entry is masked by bits that serve this table alone, and each table is opened at one place",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let table = self.table()?;
        let (n, ring) = (producer.at.elements(&self.opened), producer.at.ring);
        let block = Block::new(Domain::Bits(table.opened_bits()), n);
        // Known to neither server: each can expand one of the two.
        let draw = |pair| producer.at.draw_block(pair, MASKS, block)?.words();
        let pairs = draw(Pair::Producer0)?.into_iter().zip(draw(Pair::Producer1)?);
        let mut masks: Vec<u32> = pairs.map(|(a, b)| (a.to_u64() ^ b.to_u64()) as u32).collect();
        let r = producer.dealt(self.z.mask.id())?.iter();
        let mut r: Vec<u64> = r.map(|a| low(ring.sub(L::default(), *a), self.position)).collect();
        let blocks = self.material(&producer.at.plan.shapes);
        let block = blocks.first().copied().ok_or_else(|| Blame::bug("a table without its material"))?;
        let share0 = producer.at.draw_block(Pair::Producer0, SHARE, block)?.field()?;
        let share1 = table.deal(&r, &masks, &share0)?;
        r.zeroize();
        masks.zeroize();
        Ok(vec![Column::Field(share1)])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let share = server.dealt(self, 0, SHARE)?.field()?;
        let x: Vec<u64> = server.words(&self.z.hat)?.iter().map(|x| low(*x, self.position)).collect();
        let opened = self.table()?.look_up(&x, &share)?;
        server.set_bytes(&self.share, share);
        Ok(vec![Column::Words(opened.into_iter().map(|bits| L::from_u64(u64::from(bits))).collect())])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let opened = opened_bits(mine, theirs)?;
        server.set(&self.opened, opened);
        Ok(())
    }
}

/// The exclusive or of both servers' messages of one column.
pub(crate) fn opened_bits<L: Lane>(mine: Vec<Column<L>>, theirs: Vec<Column<L>>) -> Result<Vec<L>, Blame> {
    let missing = || Blame::bug("an opening without its message");
    let pairs = mine.into_iter().next().ok_or_else(missing)?.words()?.into_iter();
    let pairs = pairs.zip(theirs.into_iter().next().ok_or_else(missing)?.words()?);
    Ok(pairs.map(|(a, b)| L::from_u64(a.to_u64() ^ b.to_u64())).collect())
}

/// The crypto producer draws ρ and shares r\[p\]: the correction. Several bits may be compared under each mask.
pub(crate) fn deal_bit<L: Lane, R: Randomness>(
    producer: &mut Producer<L, R>,
    z: Masked,
    position: u32,
    bit: MaskedBit,
) -> Result<Column<L>, Blame> {
    let ring = producer.at.ring;
    let bits = |elements| Block::new(Domain::Bits(1), elements);
    let (block, opened) = (bits(producer.at.elements(&z.mask)), bits(producer.at.elements(&bit.e)));
    let draw = |pair| producer.at.draw_block(pair, RHO, opened)?.words();
    let pairs = draw(Pair::Producer0)?.into_iter().zip(draw(Pair::Producer1)?);
    let rho = pairs.map(|(a, b)| L::from_u64(a.to_u64() ^ b.to_u64())).collect();
    let r = producer.dealt(z.mask.id())?.iter();
    let bits = r.map(|a| L::from_u64(ring.sub(L::default(), *a).to_u64() >> position & 1)).collect();
    let correction = producer.at.correction(BIT, block, Column::Words(bits))?;
    producer.put(bit.rho.id(), rho);
    Ok(correction)
}

/// A server's share of e, from its share of the borrow.
pub(crate) fn share_bit<S: Side, L: Lane, R: Randomness>(
    server: &mut Server<S, L, R>,
    gate: &impl Gate,
    z: Masked,
    position: u32,
    bit: MaskedBit,
    borrow: Vec<u8>,
) -> Result<Vec<Column<L>>, Blame> {
    let block = Block::new(Domain::Bits(1), server.at.elements(&bit.e));
    let rho = server.at.draw_block(S::DEALT, RHO, block)?.words()?;
    let (n, points) = (server.at.elements(&z.mask), server.at.elements(&bit.e));
    let dealt = server.dealt(gate, 0, BIT)?.words()?;
    let dealt = dealt.chunks(n.max(1)).flat_map(|sample| sample.iter().copied().cycle().take(points));
    let known = server.words(&z.hat)?.iter().map(|x| x.to_u64() >> position & (1 - S::INDEX as u64));
    let shares = rho.into_iter().zip(dealt).zip(borrow).zip(known);
    let share = shares.map(|(((rho, dealt), borrow), known)| {
        L::from_u64((rho.to_u64() ^ dealt.to_u64() ^ u64::from(borrow) ^ known) & 1)
    });
    Ok(vec![Column::Words(share.collect())])
}

/// What step 1 left to step 2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Below {
    pub(crate) share: Wire<OwnBytes>,
    pub(crate) opened: Wire<Common>,
}

/// Step 2: opens e.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct OpenBit {
    pub(crate) z: Masked,
    pub(crate) position: u32,
    /// Nothing lies below bit 0.
    pub(crate) below: Option<Below>,
    pub(crate) bit: MaskedBit,
}

impl Gate for OpenBit {
    fn reads(&self) -> Vec<WireId> {
        let below = self.below.iter().flat_map(|below| [below.share.id(), below.opened.id()]);
        [self.z.hat.id(), self.z.mask.id()].into_iter().chain(below).collect()
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.bit.e.id(), self.bit.rho.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Bits(1), shapes.elements(&self.bit.e) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Bits(1), shapes.elements(&self.bit.e) as usize)]
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a bit of a masked tensor, XOR a dealt bit",
            because: "the dealt bit is uniform, belongs to this comparison alone, and is known to neither server",
        }]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        Ok(vec![deal_bit(producer, self.z, self.position, self.bit)?])
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let borrow = match &self.below {
            Some(below) => {
                let opened: Vec<u32> = server.words(&below.opened)?.iter().map(|x| x.to_u64() as u32).collect();
                let table = Table::new(self.position).ok_or_else(|| Blame::bug("a comparison of no bits"))?;
                table.combine(&opened, server.bytes(&below.share)?)?
            }
            None => vec![0; server.words(&self.z.hat)?.len()],
        };
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
    use super::*;
    use crate::Role;
    use crate::gates::local::combine;
    use crate::gates::mask::mask;
    use crate::plan::Additive;
    use crate::testing::rig::Rig;
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Chosen, Views, alike, split, views};

    /// The views of numbers on `wires`, each in every sharing.
    fn seen<const N: usize>(
        (rig, wires): &(Rig, [Wire<Additive>; N]),
        chosen: Chosen,
        mutant: Option<Mutant>,
        all: &[[u64; N]],
    ) -> Vec<[Views; 3]> {
        let of = |values: &[u64; N]| {
            let tape = mutant.iter().fold(Tape::new(chosen), |tape, mutant| tape.with(*mutant));
            views(tape, rig, |tape, given| {
                for (wire, value) in wires.iter().zip(values) {
                    let [x0, x1] = split(tape, 1 << rig.plan().numbers().ring_bits, *value);
                    given.words(*wire, x0, x1);
                }
            })
        };
        all.iter().map(of).collect()
    }

    /// One number is looked up in two tables, as it is and moved by one. If the two are one, both its entries are
    /// opened. Shares are fixed here, and server1's with them: `compare::table` has both servers' views.
    #[test]
    fn two_openings_of_one_table_are_noticed() {
        let rig = Rig::new(2, 1, |b| {
            let z = b.wire(1);
            let masked = mask(b, z);
            let moved = Masked { hat: combine(b, &[(masked.hat, 1)], 1), mask: masked.mask };
            for z in [masked, moved] {
                let (share, opened) = (b.wire(Table::new(1).map_or(0, |table| table.share_bytes() as u32)), b.wire(1));
                b.push(LookUp { z, position: 1, share, opened });
            }
            [z]
        });
        let seen = |mutant| {
            let openings: Chosen = |name| ["mask.mask", "compare-table.masks"].contains(&name);
            seen(&rig, openings, mutant, &[[0], [1], [2], [3]])
        };
        assert!(alike(&seen(None), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameStep("compare-table"))), Role::Server0));
        assert!(!alike(&seen(Some(Mutant::SameStep(MASKS.name))), Role::Server0));
    }

    /// Two bits under one ρ show whether they are the same.
    #[test]
    fn two_bits_under_one_dealt_bit_are_noticed() {
        let rig = Rig::new(1, 1, |b| {
            [b.wire(1), b.wire(1)].map(|z| {
                let masked = mask(b, z);
                bit(b, masked, 0);
                z
            })
        });
        let seen = |mutant| seen(&rig, |_| true, mutant, &[[0, 0], [0, 1], [1, 0], [1, 1]]);
        for server in [Role::Server0, Role::Server1] {
            assert!(alike(&seen(None), server));
            assert!(!alike(&seen(Some(Mutant::SameStep(RHO.name))), server));
        }
        // server0 expands its shares of r\[p\], server1 is sent the difference.
        assert!(!alike(&seen(Some(Mutant::SameStep(BIT.name))), Role::Server1));
    }

    #[test]
    fn a_dealt_bit_that_is_dropped_is_noticed() {
        let rig = Rig::new(1, 1, |b| {
            let z = b.wire(1);
            let masked = mask(b, z);
            bit(b, masked, 0);
            [z]
        });
        let seen = |mutant| seen(&rig, |_| true, mutant, &[[0], [1]]);
        for server in [Role::Server0, Role::Server1] {
            assert!(alike(&seen(None), server));
            assert!(!alike(&seen(Some(Mutant::Zero(RHO.name))), server));
        }
        assert!(!alike(&seen(Some(Mutant::Zero(BIT.name))), Role::Server1));
    }
}
