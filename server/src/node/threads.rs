//! The threads that a party's process lends to large products: rayon's, one for each core.

use selkie::kernel::{Part, Threads};

/// rayon's global pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool;

impl Threads for Pool {
    fn count(&self) -> usize {
        rayon::current_num_threads()
    }

    fn par_for(&self, parts: Vec<Part<'_>>) {
        rayon::scope(|scope| parts.into_iter().for_each(|part| scope.spawn(|_| part())));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use selkie::kernel::Linear;

    #[test]
    fn borrowed_threads_change_nothing() {
        let (linear, batch) = (Linear::MatMul { inputs: 300, outputs: 70 }, 64);
        let all = |count: usize| (1..=count as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
        let (x, w, mut wanted) = (all(300 * batch), all(300 * 70), all(70 * batch));
        let mut to = wanted.clone();
        linear.apply(&x, &w, &mut wanted);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| linear.apply_on(&Pool, &x, &w, &mut to));
        assert_eq!(to, wanted);
    }
}
