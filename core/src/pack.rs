//! Bit packing: elements of `bits` bits each, lowest bit first, padded to whole bytes at the end.

use alloc::vec::Vec;

use crate::ring::Lane;

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

/// [`pack`] for ring elements; those that fill their lanes are copied.
pub(crate) fn pack_lanes<L: Lane>(elements: &[L], bits: u32, to: &mut Vec<u8>) {
    if bits != L::BITS {
        return pack(elements.iter().map(|element| element.to_u64()), bits, to);
    }
    let start = to.len();
    to.resize(start + size_of_val(elements), 0);
    L::write(elements, to.get_mut(start..).unwrap_or_default());
}

/// [`unpack`] for ring elements.
pub(crate) fn unpack_lanes<L: Lane>(bytes: &[u8], bits: u32, count: usize) -> Vec<L> {
    if bits != L::BITS {
        return unpack(bytes, bits, count).map(L::from_u64).collect();
    }
    let mut elements = alloc::vec![L::default(); count];
    L::read(bytes, &mut elements);
    elements
}

/// [`pack`] for elements of at most a byte; single bits go eight at a time.
pub(crate) fn pack_bytes(elements: &[u8], bits: u32, to: &mut Vec<u8>) {
    let (eights, rest) = if bits == 1 { elements.as_chunks::<8>() } else { (&[][..], elements) };
    // Bit 0 of byte i times 2^(56 - 7i) is bit 56 + i, and no two products meet.
    to.extend(eights.iter().map(|eight| (u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8));
    pack(rest.iter().map(|element| u64::from(*element)), bits, to);
}

/// [`unpack`] for elements of at most a byte.
pub(crate) fn unpack_bytes(bytes: &[u8], bits: u32, count: usize) -> Vec<u8> {
    if bits != 1 {
        return unpack(bytes, bits, count).map(|element| element as u8).collect();
    }
    let mut elements = alloc::vec![0; count];
    for (eight, byte) in elements.chunks_mut(8).zip(bytes) {
        eight.iter_mut().zip(0..8).for_each(|(element, i)| *element = byte >> i & 1);
    }
    elements
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
    fn the_short_cuts_make_the_same_bytes() {
        fn lanes<L: Lane>(count: usize, bits: u32) {
            let mask = u64::MAX >> (64 - bits);
            let all = (0..count as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) & mask);
            let elements: Vec<L> = all.clone().map(L::from_u64).collect();
            let (mut long, mut short) = (vec![1, 2, 3], vec![1, 2, 3]);
            pack(all, bits, &mut long);
            pack_lanes(&elements, bits, &mut short);
            assert_eq!(short, long, "{count} elements of {bits} bits");
            for count in [count, count + 9] {
                let (_, packed) = long.split_at(3);
                let slow: Vec<L> = unpack(packed, bits, count).map(L::from_u64).collect();
                assert_eq!(unpack_lanes::<L>(packed, bits, count), slow, "{count} elements of {bits} bits");
            }
        }
        for count in 0..40 {
            (1..=64).for_each(|bits| lanes::<u64>(count, bits));
            (1..=32).for_each(|bits| lanes::<u32>(count, bits));
            for bits in 1..=8 {
                let mask = u8::MAX >> (8 - bits);
                let elements: Vec<u8> = (0..count as u8).map(|i| i.wrapping_mul(0x9d) >> 3 & mask).collect();
                let (mut long, mut short) = (vec![1], vec![1]);
                pack(elements.iter().map(|e| u64::from(*e)), bits, &mut long);
                pack_bytes(&elements, bits, &mut short);
                assert_eq!(short, long, "{count} bytes of {bits} bits");
                for count in [count, count + 9] {
                    let (_, packed) = long.split_at(1);
                    let slow: Vec<u8> = unpack(packed, bits, count).map(|e| e as u8).collect();
                    assert_eq!(unpack_bytes(packed, bits, count), slow, "{count} bytes of {bits} bits");
                }
            }
        }
    }

    #[test]
    fn lengths_that_overflow_are_refused() {
        assert_eq!(packed_len(usize::MAX, 64), None);
    }
}
