//! The product of a batch of rows with a matrix of weights.

use alloc::vec;

use super::Scalar;
use super::panel::{self, DEPTH, LANES, Place};
use super::simd::{Vector, Work};
use crate::wipe::wipe;

/// Fewer rows than this do not pay for the copying of panels.
const FEW: usize = 4;

/// to\[n, outputs\] += x\[n, inputs\] · weights\[inputs, outputs\]. The rows of `weights` begin `stride` apart; the last may end early. `inputs`,
/// `outputs` and `stride` are not zero.
pub(super) struct MatMul<'a, T> {
    pub(super) x: &'a [T],
    pub(super) inputs: usize,
    pub(super) weights: &'a [T],
    pub(super) stride: usize,
    pub(super) to: &'a mut [T],
    pub(super) outputs: usize,
}

impl<T: Scalar> Work<T> for MatMul<'_, T> {
    #[inline(always)]
    fn run<V: Vector<T>, const ROWS: usize>(self) {
        if self.to.len() < FEW * self.outputs { self.by_rows() } else { self.by_panels::<V, ROWS>() }
    }
}

impl<T: Scalar> MatMul<'_, T> {
    /// Reads the weights once, in their order, for each row of x: what few rows cost is the reading. Four rows of weights
    /// at a time, so that the sums are fetched and stored once for the four.
    #[inline(always)]
    fn by_rows(self) {
        let Self { x, inputs, weights, stride, to, outputs } = self;
        for (x, to) in x.chunks_exact(inputs).zip(to.chunks_exact_mut(outputs)) {
            let mut rows = weights.chunks(stride).map(|row| row.get(..outputs).unwrap_or_default());
            let (fours, rest) = x.as_chunks::<4>();
            for [a, b, c, d] in fours {
                let mut row = || rows.next().unwrap_or_default();
                for ((((to, wa), wb), wc), wd) in to.iter_mut().zip(row()).zip(row()).zip(row()).zip(row()) {
                    *to = to.add_product(*a, *wa).add_product(*b, *wb).add_product(*c, *wc).add_product(*d, *wd);
                }
            }
            for (factor, row) in rest.iter().zip(rows) {
                to.iter_mut().zip(row).for_each(|(to, weight)| *to = to.add_product(*factor, *weight));
            }
        }
    }

    /// Panel by panel of the weights.
    #[inline(always)]
    fn by_panels<V: Vector<T>, const ROWS: usize>(self) {
        let Self { x, inputs, weights, stride, to, outputs } = self;
        let mut panel = vec![[T::default(); LANES]; inputs.min(DEPTH)];
        for column in (0..outputs).step_by(LANES) {
            let width = LANES.min(outputs - column);
            for (row, weights) in (0..).step_by(DEPTH).zip(weights.chunks(DEPTH * stride)) {
                let mut depth = 0;
                for (row, weights) in panel.iter_mut().zip(weights.chunks(stride)) {
                    *row = panel::lanes(weights.get(column..column + width).unwrap_or_default());
                    depth += 1;
                }
                let panel = panel.get(..depth).unwrap_or_default();
                panel::multiply::<T, V, ROWS>(x, inputs, panel, Place { row, column, width }, to, outputs);
            }
        }
        wipe(&mut panel);
    }
}
