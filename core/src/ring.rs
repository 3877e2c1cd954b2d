//! The rings Z_2^k and Z_{2^k - 1}, in u32 or u64 lanes.
//!
//! Elements are canonical: a lane holds its element in the low k bits and zeros above. Every operation is free of
//! branches on its operands.

use core::fmt::Debug;

use zeroize::Zeroize;

/// A machine word that holds one ring element: `u32` for rings of up to 32 bits, `u64` above.
pub(crate) trait Lane:
    Copy + Default + Eq + Ord + Debug + Zeroize + Send + Sync + 'static + crate::kernel::Scalar
{
    /// The lane's width in bits.
    const BITS: u32;
    /// The low bits of `value`.
    fn from_u64(value: u64) -> Self;
    /// The value, zero-extended.
    fn to_u64(self) -> u64;
    /// Sum modulo 2^BITS.
    fn plus(self, other: Self) -> Self;
    /// Difference modulo 2^BITS.
    fn minus(self, other: Self) -> Self;
    /// Product modulo 2^BITS.
    fn times(self, other: Self) -> Self;
    /// Bitwise and.
    fn and(self, other: Self) -> Self;
    /// Fills `out` with the numbers in `bytes`, little-endian.
    fn read(bytes: &[u8], out: &mut [Self]);
    /// Writes the numbers to `out`, little-endian.
    fn write(numbers: &[Self], out: &mut [u8]);
}

macro_rules! lane {
    ($word:ty) => {
        impl Lane for $word {
            const BITS: u32 = <$word>::BITS;
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as $word
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn times(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            fn read(bytes: &[u8], out: &mut [Self]) {
                out.iter_mut().zip(bytes.as_chunks().0).for_each(|(lane, bytes)| *lane = Self::from_le_bytes(*bytes));
            }
            fn write(numbers: &[Self], out: &mut [u8]) {
                out.as_chunks_mut().0.iter_mut().zip(numbers).for_each(|(bytes, lane)| *bytes = lane.to_le_bytes());
            }
        }
    };
}
lane!(u32);
lane!(u64);

/// The ring Z_2^k.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring<L> {
    bits: u32,
    mask: L,
}

impl<L: Lane> Ring<L> {
    /// The ring of `bits` bits, or `None` if the lane does not hold it.
    pub(crate) fn new(bits: u32) -> Option<Self> {
        (bits >= 1 && bits <= L::BITS).then(|| Self { bits, mask: L::from_u64(u64::MAX >> (64 - bits)) })
    }

    /// k.
    pub(crate) fn bits(self) -> u32 {
        self.bits
    }

    /// `value` modulo 2^k.
    #[inline(always)]
    pub(crate) fn reduce(self, value: L) -> L {
        value.and(self.mask)
    }

    /// `value` modulo 2^k.
    #[inline(always)]
    pub(crate) fn element(self, value: u64) -> L {
        L::from_u64(value).and(self.mask)
    }

    /// a + b.
    #[inline(always)]
    pub(crate) fn add(self, a: L, b: L) -> L {
        self.reduce(a.plus(b))
    }

    /// a - b.
    #[inline(always)]
    pub(crate) fn sub(self, a: L, b: L) -> L {
        self.reduce(a.minus(b))
    }

    /// a · b.
    #[inline(always)]
    pub(crate) fn mul(self, a: L, b: L) -> L {
        self.reduce(a.times(b))
    }

    /// Whether a + b overflows 2^k: the `wrap` of SecureNN.
    #[inline(always)]
    pub(crate) fn wrap(self, a: L, b: L) -> u64 {
        u64::from(self.add(a, b) < a)
    }

    /// The element as a signed number in -2^(k-1) .. 2^(k-1).
    pub(crate) fn signed(self, a: L) -> i64 {
        let shift = 64 - self.bits;
        ((a.to_u64() << shift) as i64) >> shift
    }

    /// Adds `other` to `to`, element by element.
    pub(crate) fn add_all(self, to: &mut [L], other: &[L]) {
        to.iter_mut().zip(other).for_each(|(a, b)| *a = self.add(*a, *b));
    }

    /// Subtracts `other` from `from`, element by element.
    pub(crate) fn sub_all(self, from: &mut [L], other: &[L]) {
        from.iter_mut().zip(other).for_each(|(a, b)| *a = self.sub(*a, *b));
    }
}

/// The ring Z_N with N = 2^k - 1, in which the sign of a is the lowest bit of 2a (SecureNN, §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OddRing {
    modulus: u64,
}

impl OddRing {
    /// The odd ring beside Z_2^k, 2 <= k <= 64.
    pub(crate) fn beside(bits: u32) -> Self {
        Self { modulus: u64::MAX >> (64 - bits.clamp(2, 64)) }
    }

    /// N.
    pub(crate) fn modulus(self) -> u64 {
        self.modulus
    }

    /// An element of 0..=2^k - 1 modulo N: only the topmost one changes.
    #[inline(always)]
    pub(crate) fn reduce(self, value: u64) -> u64 {
        value.wrapping_sub(self.modulus & u64::from(value >= self.modulus).wrapping_neg())
    }

    /// a + b.
    #[inline(always)]
    pub(crate) fn add(self, a: u64, b: u64) -> u64 {
        let (sum, carry) = a.overflowing_add(b);
        let over = u64::from(carry | (sum >= self.modulus));
        sum.wrapping_sub(self.modulus & over.wrapping_neg())
    }

    /// a - b.
    #[inline(always)]
    pub(crate) fn sub(self, a: u64, b: u64) -> u64 {
        let (difference, borrow) = a.overflowing_sub(b);
        difference.wrapping_add(self.modulus & u64::from(borrow).wrapping_neg())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn odd_ring_agrees_with_arithmetic_at_toy_width() {
        for bits in 2..=6 {
            let ring = OddRing::beside(bits);
            let n = (1u64 << bits) - 1;
            assert_eq!(ring.modulus(), n);
            assert_eq!(ring.reduce(n), 0);
            for a in 0..n {
                for b in 0..n {
                    assert_eq!(ring.add(a, b), (a + b) % n);
                    assert_eq!(ring.sub(a, b), (a + n - b) % n);
                }
            }
        }
    }

    #[test]
    fn odd_ring_agrees_with_arithmetic_at_full_width() {
        let ring = OddRing::beside(64);
        let n = u128::from(u64::MAX);
        for a in [0, 1, 2, u64::MAX / 2, u64::MAX - 2, u64::MAX - 1] {
            for b in [0, 1, 3, u64::MAX / 2 + 1, u64::MAX - 1] {
                assert_eq!(u128::from(ring.add(a, b)), (u128::from(a) + u128::from(b)) % n);
                assert_eq!(u128::from(ring.sub(a, b)), (u128::from(a) + n - u128::from(b)) % n);
            }
        }
    }

    #[test]
    fn ring_is_canonical_and_signed() {
        let ring = Ring::<u32>::new(5).unwrap();
        assert_eq!(ring.add(31, 3), 2);
        assert_eq!(ring.signed(31), -1);
        assert_eq!(ring.signed(15), 15);
        assert_eq!(ring.wrap(31, 1), 1);
        assert_eq!(ring.wrap(30, 1), 0);
        assert!(Ring::<u32>::new(33).is_none());
        assert_eq!(Ring::<u64>::new(64).unwrap().signed(u64::MAX), -1);
    }
}
