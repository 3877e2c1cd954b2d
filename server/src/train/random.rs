//! Reproducible randomness: everything that is drawn while training follows from the seed, whatever the number of
//! threads.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// The generator for one purpose: streams of one seed are independent.
pub(super) fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// A number in `low..high`.
pub(super) fn uniform(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * ((rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32)
}

/// Puts `items` in random order (Fisher and Yates).
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for end in (1..items.len()).rev() {
        // The modulus prefers some orders by one part in 2^32: nothing here depends on it.
        items.swap(end, (rng.next_u64() % (end as u64 + 1)) as usize);
    }
}
