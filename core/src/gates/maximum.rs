//! Maxima, with or without their index, as a tournament (SecureNN, Algorithm 9, as a tree instead of a chain).
//!
//! A match between neighbours x (left) and y (right) takes x if x - y >= 0, so ties go to the lower index, in every
//! round: max = SelectShare(DReLU(x - y), y, x), and the same bit selects the index. Exact for |x|, |y| < 2^(k-3).

use alloc::vec::Vec;

use crate::gates::local::{combine, concat, constant, gather};
use crate::gates::product::select_share;
use crate::gates::relu::drelu;
use crate::plan::{Additive, Builder, Wire};

/// The largest of `candidates` candidates for each of so many groups; x holds all groups' first candidates, then all
/// groups' second ones, and so on.
pub(crate) fn maximum(b: &mut Builder, x: Wire<Additive>, candidates: u32) -> Wire<Additive> {
    tournament(b, x, None, candidates).0
}

/// The index of the largest of each group, the lowest on ties; x as in [`maximum`].
pub(crate) fn argmax(b: &mut Builder, x: Wire<Additive>, candidates: u32) -> Wire<Additive> {
    let groups = (b.elements(&x) / candidates.max(1)).max(1);
    let indices = (0..candidates).flat_map(|i| core::iter::repeat_n(i64::from(i), groups as usize)).collect();
    let indices = constant(b, indices);
    let (_, index) = tournament(b, x, Some(indices), candidates);
    index.unwrap_or(x)
}

fn tournament(
    b: &mut Builder,
    mut x: Wire<Additive>,
    mut index: Option<Wire<Additive>>,
    mut candidates: u32,
) -> (Wire<Additive>, Option<Wire<Additive>>) {
    let groups = (b.elements(&x) / candidates.max(1)).max(1);
    let places = |of: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
        of.flat_map(|candidate| candidate * groups..(candidate + 1) * groups).collect()
    };
    while candidates > 1 {
        let paired = candidates & !1;
        let left = places(&mut (0..paired).step_by(2));
        let right = places(&mut (1..paired).step_by(2));
        let bye = places(&mut (paired..candidates));

        let (x_left, x_right) = (gather(b, x, left.clone()), gather(b, x, right.clone()));
        let difference = combine(b, &[(x_left, 1), (x_right, -1)], 0);
        let left_wins = drelu(b, difference);
        let advance = |b: &mut Builder, all, winners| {
            if bye.is_empty() {
                return winners;
            }
            let rest = gather(b, all, bye.clone());
            concat(b, &[winners, rest])
        };
        index = index.map(|all| {
            let (left, right) = (gather(b, all, left.clone()), gather(b, all, right.clone()));
            let winners = select_share(b, left_wins, right, left);
            advance(b, all, winners)
        });
        let winners = select_share(b, left_wins, x_right, x_left);
        x = advance(b, x, winners);
        candidates = candidates.div_ceil(2);
    }
    (x, index)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;

    /// Every row of so many candidates within the bound, against the definition; ties go to the lowest index.
    fn check(bits: u32, candidates: u32, values: &[i64], salts: u8) {
        let (rig, (x_wire, largest, index)) = Rig::new(bits, 1, |b| {
            let x = b.wire(candidates);
            (x, maximum(b, x, candidates), argmax(b, x, candidates))
        });
        let ring = Ring::<u32>::new(bits).unwrap();
        for number in 0..values.len().pow(candidates) {
            let row: Vec<i64> =
                (0..candidates).map(|place| values[number / values.len().pow(place) % values.len()]).collect();
            for salt in 0..salts {
                let first: Vec<u32> =
                    (0..candidates).map(|i| ring.element(u64::from(salt) * 5 + u64::from(i) * 3)).collect();
                let second =
                    row.iter().zip(&first).map(|(x, first)| ring.sub(ring.element(*x as u64), *first)).collect();
                let mut given = Given::default();
                given.words(x_wire, first, second);
                let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
                let sum = |wire| ring.add(ran.server0.words(wire).unwrap()[0], ran.server1.words(wire).unwrap()[0]);
                let most = *row.iter().max().unwrap();
                assert_eq!(ring.signed(sum(&largest)), most, "{row:?}");
                assert_eq!(sum(&index) as usize, row.iter().position(|x| *x == most).unwrap(), "{row:?}");
            }
        }
    }

    #[test]
    fn every_pair_is_right() {
        check(5, 2, &[-4, -3, -2, -1, 0, 1, 2, 3], 20);
    }

    #[test]
    fn trees_and_byes_and_ties_are_right() {
        check(5, 3, &[-4, -1, 0, 3], 2);
        check(5, 4, &[-1, 0, 1], 1);
        check(6, 5, &[-8, 0, 7], 1);
    }

    #[test]
    fn groups_are_apart() {
        let (rig, (x_wire, largest)) = Rig::new(8, 1, |b| {
            let x = b.wire(6);
            (x, maximum(b, x, 3))
        });
        let mut given = Given::default();
        given.words(x_wire, alloc::vec![1, 9, 5, 8, 3, 7], alloc::vec![0; 6]);
        let ran = rig.run(&Tape::new(|_| false), given);
        let pairs = ran.server0.words(&largest).unwrap().iter().zip(ran.server1.words(&largest).unwrap());
        assert_eq!(pairs.map(|(a, b)| (a + b) % 256).collect::<Vec<_>>(), [5, 9]);
    }

    /// The published cost (SecureNN, Table 2): 744 bytes and 9 rounds for each maximum; see ReLU's for where ours goes.
    /// Without an index a match costs what a ReLU costs.
    #[test]
    fn a_maximum_costs_no_more_than_published() {
        let (rig, ()) = Rig::new(64, 16, |b| {
            let x = b.wire(2);
            maximum(b, x, 2);
        });
        let cost = rig.plan().cost(1);
        assert_eq!(cost.online_bytes + cost.offline_bytes, 432);
        assert!(cost.rounds <= 9);
        let (rig, ()) = Rig::new(64, 16, |b| {
            let x = b.wire(4);
            maximum(b, x, 4);
        });
        let cost = rig.plan().cost(1);
        assert_eq!(cost.online_bytes + cost.offline_bytes, 3 * 432, "three matches among four");
        assert_eq!(cost.rounds, 2 * 8, "in two rounds of the tournament");
    }
}
