//! A function of a masked tensor, read from a dealt table, without a word.
//!
//! One-time truth tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky, "On the power of correlated randomness
//! in secure computation", TCC 2013, §3) on the high bits of a number, for z that is open as ẑ = z + r (see
//! [`super::mask`]; r = -a). The function is given by its 2^w values f_j, for j = -2^(w-1) .. 2^(w-1) at place j mod 2^w.
//!
//! 1. The crypto producer turns them by the mask's bits: T\[h\] = f_{h - R}, where R = (r ≫ t) mod 2^w, and shares T.
//! 2. The servers read their shares of T at H = (ẑ ≫ t) mod 2^w.
//!
//! H - R is ⌊z / 2^t⌋, or one more where the bits below carry: with exactly the probability that is the fraction cut off. So
//! what is read lies, on average, on the straight line between two neighbours. Both neighbours must be in the table:
//! |z| <= (2^(w-1) - 1)·2^t.
//!
//! Nothing is opened beyond ẑ. All entries that a server holds are uniform, and each table serves one element of one unit.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::compare::spread_hidden;
use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Domain, Masked, Shapes, Wire, WireId};
use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::{Label, Randomness};

const TABLE: Label = Label::new(0, "one-time-table.table");

/// y = f(z).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReadTable {
    pub(crate) z: Masked,
    /// t: the bits that do not count.
    pub(crate) below: u32,
    /// The function's values, 2^w of them.
    pub(crate) values: Vec<i64>,
    pub(crate) y: Wire<Additive>,
}

/// What stands in the table at z.
pub(crate) fn read_table(b: &mut Builder, z: Masked, below: u32, values: Vec<i64>) -> Wire<Additive> {
    let y = b.wire(b.elements(&z.hat));
    b.push(ReadTable { z, below, values, y });
    y
}

impl ReadTable {
    /// The bits of a masked number, or of its mask, that count.
    fn place<L: Lane>(&self, x: L) -> usize {
        (x.to_u64() >> self.below) as usize & self.values.len().saturating_sub(1)
    }
}

/// Turns `table`, of 2^w entries, by so many places to the right: by a half of them or not, by a quarter or not, and so on, so
/// that no branch and no address depends on `by`.
pub(crate) fn turn<L: Lane>(table: &mut Vec<L>, by: usize, spare: &mut Vec<L>) {
    let mut step = table.len() / 2;
    while step > 0 {
        let turned = L::from_u64(spread_hidden(by as u64 >> step.ilog2()));
        let (last, first) = (table.len() - step, step);
        let choose = |kept: &L, other: &L| kept.plus(turned.and(other.minus(*kept)));
        spare.clear();
        spare.extend(table.iter().zip(table.iter().skip(last)).map(|(kept, other)| choose(kept, other)));
        spare.extend(table.iter().skip(first).zip(table.iter()).map(|(kept, other)| choose(kept, other)));
        core::mem::swap(table, spare);
        step /= 2;
    }
}

impl Gate for ReadTable {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.hat.id(), self.z.mask.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn material(&self, shapes: &Shapes) -> Vec<Block> {
        vec![Block::new(Domain::Ring, shapes.elements(&self.y) as usize * self.values.len())]
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let ring: Ring<L> = producer.at.ring;
        let values: Vec<L> = self.values.iter().map(|x| ring.element(*x as u64)).collect();
        let masks = producer.dealt(self.z.mask.id())?;
        let mut tables = Vec::with_capacity(masks.len() * values.len());
        let (mut table, mut spare) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
        for a in masks {
            table.clear();
            table.extend_from_slice(&values);
            turn(&mut table, self.place(ring.sub(L::default(), *a)), &mut spare);
            tables.extend_from_slice(&table);
        }
        table.zeroize();
        spare.zeroize();
        let block = self.material(&producer.at.plan.shapes);
        let block = block.first().copied().ok_or_else(|| Blame::bug("a table without its material"))?;
        Ok(vec![producer.at.correction(TABLE, block, Column::Words(tables))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let share = server.dealt(self, 0, TABLE)?.words()?;
        let tables = share.chunks(self.values.len().max(1));
        let rows = server.words(&self.z.hat)?.iter().zip(tables);
        let y: Option<Vec<L>> = rows.map(|(hat, table)| table.get(self.place(*hat)).copied()).collect();
        let y = y.ok_or_else(|| Blame::bug("a table without the place that is read"))?;
        server.set(&self.y, y);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::gates::mask::mask;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, exhaust, split, views};

    /// f_j for j from -2^(w-1), at its place.
    fn values(w: u32, f: impl Fn(i64) -> i64) -> Vec<i64> {
        let half = 1i64 << (w - 1);
        (0..2 * half).map(|place| f(if place < half { place } else { place - 2 * half })).collect()
    }

    #[test]
    fn a_table_turns_by_every_number_of_places() {
        for by in 0..16usize {
            let (mut table, mut spare) = ((0..16u32).collect::<Vec<_>>(), Vec::new());
            turn(&mut table, by, &mut spare);
            assert!(table.iter().enumerate().all(|(h, x)| *x as usize == (h + 16 - by) % 16), "{by}: {table:?}");
        }
    }

    /// Every number within the bound, under every mask: one of two neighbours' values, the upper one exactly as often as the
    /// fraction that is cut off says.
    #[test]
    fn what_is_read_is_a_neighbours_value() {
        for (k, w, t) in [(5u32, 3u32, 1u32), (5, 3, 2), (6, 2, 3), (4, 3, 0), (3, 3, 0)] {
            let f = |j: i64| 5 * j * j - 3 * j + 1;
            let (rig, (z_wire, y_wire)) = Rig::new(k, 0, |b| {
                let z = b.wire(1);
                let masked = mask(b, z);
                (z, read_table(b, masked, t, values(w, f)))
            });
            let (ring, bound) = (Ring::<u32>::new(k).unwrap(), ((1i64 << (w - 1)) - 1) << t);
            for z in -bound..=bound {
                let (mut up, floor) = (0, z >> t);
                let runs = exhaust(Tape::new(|name| name == "mask.mask"), |tape| {
                    let mut given = Given::default();
                    given.words(z_wire, vec![3], vec![ring.sub(ring.element(z as u64), 3)]);
                    let ran = rig.run(tape, given);
                    let y = ring.add(ran.server0.words(&y_wire).unwrap()[0], ran.server1.words(&y_wire).unwrap()[0]);
                    let [down, more] = [floor, floor + 1].map(|j| ring.element(f(j) as u64));
                    assert!(y == down || t > 0 && y == more, "k = {k}, w = {w}, t = {t}: f({z}) became {y}");
                    up += u64::from(y != down);
                });
                if ring.element(f(floor) as u64) != ring.element(f(floor + 1) as u64) {
                    assert_eq!(up << t, runs * (z & ((1 << t) - 1)) as u64, "k = {k}, w = {w}, t = {t}: {z}");
                }
            }
        }
    }

    /// Over all masks and all shares of the table.
    fn over_all_numbers(mutant: Option<Mutant>) -> Vec<[Views; 3]> {
        let (rig, z_wire) = Rig::new(2, 0, |b| {
            let z = b.wire(1);
            let masked = mask(b, z);
            read_table(b, masked, 0, vec![1, 3, 2, 0]);
            z
        });
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        let of = |z| {
            views(tape(), &rig, |tape, given| {
                let [z0, z1] = split(tape, 4, z);
                given.words(z_wire, z0, z1);
            })
        };
        (0..4).map(of).collect()
    }

    #[test]
    fn the_servers_see_the_same_whatever_the_number() {
        let shipped = over_all_numbers(None);
        assert!(alike(&shipped, Role::Server0) && alike(&shipped, Role::Server1));
        let broken = |label| over_all_numbers(Some(Mutant::Zero(label)));
        assert!(!alike(&broken("mask.mask"), Role::Server0), "a wire that is open without a mask");
        assert!(!alike(&broken(TABLE.name), Role::Server1), "server1 is sent the turned table");
    }
}
