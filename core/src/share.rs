//! Additive sharing: x = x0 + x1, either share alone uniform.
//!
//! One of the two is compressed to the seed of a stream: the sender gives server0 32 bytes and server1 the difference.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use zeroize::Zeroize;

use crate::ring::{Lane, Ring};
use crate::role::Side;
use crate::stream::{Seed, ring_elements};

/// One side's share of a tensor, flat. Zeroised when dropped; its Debug shows only the length.
#[derive(Clone)]
pub(crate) struct Share<S, T: Zeroize> {
    elements: Vec<T>,
    side: PhantomData<S>,
}

impl<S: Side, T: Zeroize> Share<S, T> {
    /// The share that consists of these elements.
    pub(crate) fn new(elements: Vec<T>) -> Self {
        Self { elements, side: PhantomData }
    }

    /// The elements.
    pub(crate) fn elements(&self) -> &[T] {
        &self.elements
    }
}

impl<S, T: Zeroize> Drop for Share<S, T> {
    fn drop(&mut self) {
        self.elements.zeroize();
    }
}

impl<S: Side, T: Zeroize> fmt::Debug for Share<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share<{:?}>({} hidden)", S::ROLE, self.elements.len())
    }
}

/// server0's share, from the seed it was given.
pub(crate) fn expand<L: Lane>(ring: Ring<L>, seed: &Seed, count: usize) -> Vec<L> {
    ring_elements(&mut seed.stream(0), ring, count)
}

/// server1's share: what is left of `secret` after the share that `seed` expands to.
pub(crate) fn complement<L: Lane>(ring: Ring<L>, seed: &Seed, secret: &[L]) -> Vec<L> {
    let mut rest = secret.to_vec();
    let mut other = expand(ring, seed, secret.len());
    ring.sub_all(&mut rest, &other);
    other.zeroize();
    rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use crate::role::S0;
    use alloc::{format, vec};

    #[test]
    fn shares_add_up_and_show_nothing() {
        let ring = Ring::<u32>::new(20).unwrap();
        let (seed, secret) = (Seed::new([7; 32]), vec![1u32, 2, 0xf_ffff]);
        let (mut sum, rest) = (expand(ring, &seed, 3), complement(ring, &seed, &secret));
        ring.add_all(&mut sum, &rest);
        assert_eq!(sum, secret);
        assert_eq!(format!("{:?}", Share::<S0, u32>::new(secret)), "Share<Server0>(3 hidden)");
    }
}
