//! Large products, cut into parts for the threads that a host lends.
//!
//! This library starts no threads. A server that has some to spare implements [`Threads`]; a browser has none. Every part
//! computes some of the outputs with the same operations in the same order, so the results do not depend on their number.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::matmul::MatMul;
use super::simd::Level;
use super::{Conv, Linear, Scalar};

/// A piece of work that runs once, on any thread.
pub type Part<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Threads that the host lends.
pub trait Threads: Debug + Send + Sync {
    /// How many parts are worth making of a piece of work: as many as there are threads. One or none means not to cut.
    fn count(&self) -> usize;

    /// Runs every part, in any order, and returns when all have finished.
    fn par_for(&self, parts: Vec<Part<'_>>);
}

/// No threads but the caller's own: a browser's.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Threads for Alone {
    fn count(&self) -> usize {
        1
    }

    fn par_for(&self, parts: Vec<Part<'_>>) {
        parts.into_iter().for_each(|part| part());
    }
}

/// Multiply-adds below which a part does not pay for handing it to another thread (some ten microseconds).
pub(super) const WORTHWHILE: usize = 1 << 18;

/// Adds the images, in parts of at least `worthwhile` multiply-adds: some of the samples each, or of one sample's outputs.
pub(super) fn apply<T: Scalar>(
    linear: &Linear,
    threads: &dyn Threads,
    worthwhile: usize,
    x: &[T],
    weights: &[T],
    to: &mut [T],
) {
    let (level, products) = (Level::best(), linear.products());
    if products == 0 {
        return;
    }
    let samples = to.len() / linear.outputs();
    let parts = threads.count().min(samples.saturating_mul(products) / worthwhile.max(1));
    if parts < 2 {
        return linear.run(level, x, weights, to);
    }
    if samples > 1 {
        let share = samples.div_ceil(parts);
        let pieces = x.chunks(share * linear.inputs()).zip(to.chunks_mut(share * linear.outputs()));
        let parts = pieces.map(|(x, to)| -> Part<'_> { Box::new(move || linear.run(level, x, weights, to)) });
        return threads.par_for(parts.collect());
    }
    match linear {
        Linear::MatMul { inputs, outputs } => {
            let (inputs, stride) = (*inputs as usize, *outputs as usize);
            let share = stride.div_ceil(parts);
            let parts = to.chunks_mut(share).zip((0..).step_by(share)).map(|(to, start)| -> Part<'_> {
                let weights = weights.get(start..).unwrap_or_default();
                Box::new(move || level.run(MatMul { x, inputs, weights, stride, outputs: to.len(), to }))
            });
            threads.par_for(parts.collect());
        }
        Linear::Conv(conv) => {
            let share = (conv.filters as usize).div_ceil(parts);
            let pieces = weights.chunks(share * conv.patch()).zip(to.chunks_mut(share * conv.positions()));
            let parts = pieces.map(|(filters, to)| -> Part<'_> {
                let some = Linear::Conv(Conv { filters: (to.len() / conv.positions()) as u32, ..*conv });
                Box::new(move || some.run(level, x, filters, to))
            });
            threads.par_for(parts.collect());
        }
    }
}
