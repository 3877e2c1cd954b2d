//! What the benchmarks reach beyond the public interface.
#![allow(private_bounds, reason = "the benchmarks name u32 and u64 alone")]

use alloc::vec::Vec;

use crate::gates::one_time_table;
use crate::pack;
use crate::ring::{Lane, Ring};
use crate::stream::{Seed, Source};

/// Fills `out` with elements of Z_2^bits.
pub fn fill<L: Lane>(seed: &Seed, bits: u32, out: &mut [L]) {
    if let Some(ring) = Ring::new(bits) {
        seed.stream(0).ring(ring, out);
    }
}

/// Appends packed elements.
pub fn pack<L: Lane>(elements: &[L], bits: u32, to: &mut Vec<u8>) {
    pack::pack_lanes(elements, bits, to);
}

/// Reads packed elements.
pub fn unpack<L: Lane>(bytes: &[u8], bits: u32, count: usize) -> Vec<L> {
    pack::unpack_lanes(bytes, bits, count)
}

/// Appends packed bits.
pub fn pack_bits(elements: &[u8], to: &mut Vec<u8>) {
    pack::pack_bytes(elements, 1, to);
}

/// Reads packed bits.
pub fn unpack_bits(bytes: &[u8], count: usize) -> Vec<u8> {
    pack::unpack_bytes(bytes, 1, count)
}

/// Tables turned by secret numbers of places, one after the other.
pub fn turn(table: &[u32], by: &[u64]) -> Vec<u32> {
    let (mut turned, mut spare, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for by in by {
        turned.clear();
        turned.extend_from_slice(table);
        one_time_table::turn(&mut turned, *by as usize, &mut spare);
        all.extend_from_slice(&turned);
    }
    all
}
