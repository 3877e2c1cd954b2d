//! The prime field Z_p over which SecureNN compares bits.

/// Z_p with p the smallest prime above ℓ + 1, so that the sums of PrivateCompare never wrap to zero (p = 67 for ℓ = 64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prime {
    p: u8,
    /// ⌊2^32 / p⌋ + 1: one multiplication instead of a division.
    inverse: u64,
}

impl Prime {
    /// The field for comparing numbers of `bits` bits, `bits` <= 64.
    pub(crate) fn for_bits(bits: u32) -> Self {
        let is_prime = |n: u32| (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
        let p = (bits.min(64) + 2..=67).find(|n| is_prime(*n)).unwrap_or(67);
        Self { p: p as u8, inverse: (1 << 32) / u64::from(p) + 1 }
    }

    /// p.
    pub(crate) fn p(self) -> u8 {
        self.p
    }

    /// The bits that one element takes on the wire.
    pub(crate) fn bits(self) -> u32 {
        8 - (self.p - 1).leading_zeros()
    }

    /// a + b.
    #[inline(always)]
    pub(crate) fn add(self, a: u8, b: u8) -> u8 {
        let sum = a + b;
        sum - self.p * u8::from(sum >= self.p)
    }

    /// a - b.
    #[inline(always)]
    pub(crate) fn sub(self, a: u8, b: u8) -> u8 {
        self.add(a, self.p - b)
    }

    /// x modulo p, for x below 2^24.
    #[inline(always)]
    pub(crate) fn reduce(self, x: u32) -> u8 {
        let quotient = (u64::from(x) * self.inverse) >> 32;
        (x - quotient as u32 * u32::from(self.p)) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_primes_and_their_arithmetic() {
        for (bits, p) in [(2, 5), (3, 5), (4, 7), (5, 7), (8, 11), (32, 37), (64, 67)] {
            let field = Prime::for_bits(bits);
            assert_eq!(field.p(), p);
            for a in 0..p {
                for b in 0..p {
                    assert_eq!(u32::from(field.add(a, b)), (u32::from(a) + u32::from(b)) % u32::from(p));
                    assert_eq!(u32::from(field.sub(a, b)), (u32::from(a) + u32::from(p) - u32::from(b)) % u32::from(p));
                }
            }
        }
        for p in [5, 37, 67] {
            let field = Prime::for_bits(p - 3);
            assert_eq!(u32::from(field.p()), p);
            for x in (0..1 << 24).step_by(977).chain((1 << 24) - 300..1 << 24) {
                assert_eq!(u32::from(field.reduce(x)), x % p);
            }
        }
        assert_eq!(Prime::for_bits(64).bits(), 7);
        assert_eq!(Prime::for_bits(3).bits(), 3);
    }
}
