//! DReLU and ReLU (SecureNN, Algorithms 6 and 7): whether a >= 0, and a where it is.

use crate::gates::compute_msb::compute_msb;
use crate::gates::local::combine;
use crate::gates::product::multiply;
use crate::gates::share_convert::share_convert;
use crate::plan::{Additive, Builder, Wire};

/// 1 where a >= 0, else 0. Exact for |a| < 2^(k-2).
///
/// The sign is taken from 2a, not from a: being even, 2a never is the one number 2^k - 1 that ShareConvert cannot convert,
/// and its most significant bit is a's sign as long as a leaves two bits free.
pub(crate) fn drelu(b: &mut Builder, a: Wire<Additive>) -> Wire<Additive> {
    let doubled = combine(b, &[(a, 2)], 0);
    let odd = share_convert(b, doubled);
    let msb = compute_msb(b, odd);
    combine(b, &[(msb, -1)], 1)
}

/// Bit i of a, for 0 < i < k - 1. Exact for every a.
///
/// Shifted up so that it is the most significant, with nothing but zeros below, it is even, as ShareConvert wants it.
pub(crate) fn bit(b: &mut Builder, a: Wire<Additive>, i: u32) -> Wire<Additive> {
    let shift = b.numbers().ring_bits - 1 - i;
    let shifted = combine(b, &[(a, 1i64 << shift)], 0);
    let odd = share_convert(b, shifted);
    compute_msb(b, odd)
}

/// max(a, 0). Exact for |a| < 2^(k-2).
pub(crate) fn relu(b: &mut Builder, a: Wire<Additive>) -> Wire<Additive> {
    let alpha = drelu(b, a);
    multiply(b, alpha, a)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::ring::Ring;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;
    use alloc::vec;

    /// Every number within the bound in every sharing, -1 and 0 among them, under many choices of everything random.
    #[test]
    fn every_sign_and_every_relu_is_right() {
        for bits in [3u32, 4, 5] {
            let (rig, (a_wire, sign, positive)) = Rig::new(bits, 1, |b| {
                let a = b.wire(1);
                (a, drelu(b, a), relu(b, a))
            });
            let (ring, bound) = (Ring::<u32>::new(bits).unwrap(), 1i64 << (bits - 2));
            for (a, first) in (-bound..bound).flat_map(|a| (0..1 << bits).map(move |first| (a, first))) {
                for salt in 0..40 {
                    let mut given = Given::default();
                    given.words(a_wire, vec![first], vec![ring.sub(ring.element(a as u64), first)]);
                    let ran = rig.run(&Tape::new(|_| false).salted(salt), given);
                    let sum = |wire| ring.add(ran.server0.words(wire).unwrap()[0], ran.server1.words(wire).unwrap()[0]);
                    assert_eq!(sum(&sign), u32::from(a >= 0), "{bits} bits: {a} as {first}");
                    assert_eq!(ring.signed(sum(&positive)), a.max(0), "{bits} bits: {a} as {first}");
                }
            }
        }
    }

    /// The published cost (SecureNN, Table 2): 10 rounds for a layer, and 8 bytes for each field element, 704 in all for
    /// each ReLU: 128 for each of two comparisons, 176 for the rest of ShareConvert, 232 for the rest of ComputeMSB, 40
    /// for the product. Here field elements take 7 bits, one share of everything comes from a seed, the last exclusive or
    /// is local, and ρ is dealt ahead:
    ///
    /// | | online | ahead |
    /// |---|---|---|
    /// | ShareConvert: 2 masked shares, bits of x, δ, comparison, η′ | 16 + 56 + 8 + 112 + 8 | |
    /// | ComputeMSB: bits of ρ, opening, comparison, u | 16 + 112 + 8 | 56 |
    /// | product: two openings, c | 32 | 8 |
    #[test]
    fn a_relu_costs_no_more_than_published() {
        let (rig, ()) = Rig::new(64, 16, |b| {
            let a = b.wire(1);
            relu(b, a);
        });
        let cost = rig.plan().cost(1);
        assert_eq!((cost.online_bytes, cost.offline_bytes), (200 + 136 + 32, 56 + 8));
        assert!(cost.online_bytes + cost.offline_bytes <= 704);
        assert_eq!(cost.rounds, 8);
    }
}
