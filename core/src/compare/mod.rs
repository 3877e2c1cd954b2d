//! Comparison of a number that both servers know with one that only the crypto producer knows: 1{x < r}, XOR-shared.
//!
//! In the masked-wire protocols every hidden wire z is opened once as ẑ = z + r. Its sign, and each comparison of two
//! wires, is then a comparison of the public low bits of ẑ with the low bits of the mask r, which the producer prepared
//! ahead. Three constructions, pure functions all, which gates put to use:
//!
//! | | dealt for 31 bits | rounds | relies on |
//! |---|---|---|---|
//! | [`dpf`]: a distributed point function with prefix parity | 400 bytes to both servers | 0 | [`hash`] |
//! | [`dcf`]: a distributed comparison function, whose answer comes multiplied by numbers of the producer's | 790 bytes to both servers | 0 | [`hash`] |
//! | [`table`]: tables of masked answers | 60 bytes to server1 | 1 | nothing |
//!
//! Dealing is the only place where r is known in clear, so it is written without a branch, or an address, that depends on
//! r or on anything secret. The benchmark `dudect` measures that it stays so.

pub mod dcf;
pub mod dpf;
pub mod hash;
pub mod table;

/// All ones where the lowest bit is 1, else all zeros.
fn spread(bit: u64) -> u64 {
    (bit & 1).wrapping_neg()
}

/// The same, where it is used over and over: the compiler, did it know that there are two values, might branch on which it is.
pub(crate) fn spread_hidden(bit: u64) -> u64 {
    core::hint::black_box(spread(bit))
}

/// Uniform blocks, as roots of trees.
#[cfg(test)]
fn blocks(stream: &mut crate::stream::Stream, count: usize) -> alloc::vec::Vec<u128> {
    let mut bytes = alloc::vec![0; 16 * count];
    crate::stream::Source::bytes(stream, &mut bytes);
    bytes.as_chunks().0.iter().map(|block| u128::from_le_bytes(*block)).collect()
}

/// Erases an array of secrets, faster than element by element.
fn erase<T: Copy + Default, const N: usize>(secrets: &mut [T; N]) {
    secrets.fill(T::default());
    zeroize::optimization_barrier(secrets);
}
