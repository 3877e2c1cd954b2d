//! Erasure of short-lived copies of secrets, in whole vectors.
//!
//! `Zeroize` writes element by element, which on a buffer of bytes takes longer than what the buffer was for.

/// Overwrites the elements; the barrier keeps the compiler from leaving it out.
pub(crate) fn wipe<T: Copy + Default>(elements: &mut [T]) {
    elements.fill(T::default());
    zeroize::optimization_barrier(elements);
}
