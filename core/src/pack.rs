//! Bit packing: elements of `bits` bits each, lowest bit first, padded to whole bytes at the end.

use alloc::vec::Vec;

/// The bytes that `count` elements of `bits` bits take, or `None` if that overflows.
pub(crate) fn packed_len(count: usize, bits: u32) -> Option<usize> {
    count.checked_mul(bits as usize).map(|all| all.div_ceil(8))
}

/// Appends elements of `bits` bits each to `to`.
pub(crate) fn pack(elements: impl IntoIterator<Item = u64>, bits: u32, to: &mut Vec<u8>) {
    let (mut buffer, mut filled) = (0u128, 0u32);
    for element in elements {
        buffer |= u128::from(element) << filled;
        filled += bits;
        if filled >= 64 {
            to.extend_from_slice(&(buffer as u64).to_le_bytes());
            buffer >>= 64;
            filled -= 64;
        }
    }
    to.extend(buffer.to_le_bytes().iter().take(filled.div_ceil(8) as usize));
}

/// The first `count` elements packed in `bytes`, zeros where these are too short.
pub(crate) fn unpack(bytes: &[u8], bits: u32, count: usize) -> impl ExactSizeIterator<Item = u64> + '_ {
    let mask = u64::MAX >> (64 - bits);
    let (mut buffer, mut filled, mut rest) = (0u128, 0u32, bytes);
    (0..count).map(move |_| {
        if filled < bits {
            let (word, after) = next_word(rest);
            rest = after;
            buffer |= u128::from(word) << filled;
            filled += 64;
        }
        let element = buffer as u64 & mask;
        buffer >>= bits;
        filled -= bits;
        element
    })
}

/// The first eight bytes as a number, zeros where there are fewer, and what follows them.
fn next_word(bytes: &[u8]) -> (u64, &[u8]) {
    match bytes.split_first_chunk() {
        Some((word, rest)) => (u64::from_le_bytes(*word), rest),
        None => (bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), &[]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use alloc::vec;

    #[test]
    fn packing_is_exact_and_reversible_for_every_width() {
        for bits in 1..=64u32 {
            let mask = u64::MAX >> (64 - bits);
            let elements: Vec<u64> = (0..37u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask).collect();
            let mut bytes = vec![];
            pack(elements.iter().copied(), bits, &mut bytes);
            assert_eq!(bytes.len(), packed_len(37, bits).unwrap());
            assert_eq!(unpack(&bytes, bits, 37).collect::<Vec<_>>(), elements);
            let beyond = unpack(&bytes, bits, 200).skip((bytes.len() * 8).div_ceil(bits as usize));
            assert!(beyond.into_iter().all(|element| element == 0));
        }
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        assert_eq!(packed_len(usize::MAX, 64), None);
    }
}
