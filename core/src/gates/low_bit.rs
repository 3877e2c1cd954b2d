//! The lowest bit of a shared integer.
//!
//! Carries do not reach the lowest bit: x mod 2 = (x_0 mod 2) ⊕ (x_1 mod 2). Each server knows one of the two bits, and
//! shares it as itself and zero; b_0 ⊕ b_1 = b_0 + b_1 - 2·b_0·b_1 is one product.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::local::combine;
use crate::gates::product::multiply;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Builder, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// Each server's own lowest bit, shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LowBit {
    pub(crate) x: Wire<Additive>,
    /// server0's bit, and server1's.
    pub(crate) bits: [Wire<Additive>; 2],
}

/// x mod 2.
pub(crate) fn low_bit(b: &mut Builder, x: Wire<Additive>) -> Wire<Additive> {
    let n = b.elements(&x);
    let bits = [b.wire(n), b.wire(n)];
    b.push(LowBit { x, bits });
    let [zero, one] = bits;
    let both = multiply(b, zero, one);
    combine(b, &[(zero, 1), (one, 1), (both, -2)], 0)
}

impl Gate for LowBit {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        self.bits.iter().map(Wire::id).collect()
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let own: Vec<L> = server.words(&self.x)?.iter().map(|x| x.and(L::from_u64(1))).collect();
        let none = vec![L::default(); own.len()];
        let (mine, other) = if S::INDEX == 0 { (0, 1) } else { (1, 0) };
        for (index, words) in [(mine, own), (other, none)] {
            if let Some(wire) = self.bits.get(index) {
                server.set(wire, words);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;
    use crate::testing::{exhaust, split};

    #[test]
    fn every_lowest_bit_is_right() {
        let (rig, (x_wire, bit)) = Rig::new(2, 1, |b| {
            let x = b.wire(1);
            (x, low_bit(b, x))
        });
        for x in 0..4 {
            exhaust(Tape::new(|_| true), |tape| {
                let mut given = Given::default();
                let [x0, x1] = split(tape, 4, x);
                given.words(x_wire, x0, x1);
                let ran = rig.run(tape, given);
                let sum = ran.server0.words(&bit).unwrap()[0] + ran.server1.words(&bit).unwrap()[0];
                assert_eq!(u64::from(sum % 4), x & 1);
            });
        }
    }
}
