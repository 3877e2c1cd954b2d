//! Products of two tensors, whatever their shape: everything that is linear in either factor.
//!
//! All sizes are one sample's. The right factor is either every sample's own or one for all of them.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::kernel::{Alone, Conv, Linear, Scalar, Threads};

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bilinear {
    /// Element by element.
    Elementwise { elements: u32 },
    /// `count` times \[rows, inner\] by \[inner, columns\].
    MatMul { count: u32, rows: u32, inner: u32, columns: u32 },
    /// Images convolved with the same filters.
    Conv { images: u32, conv: Conv },
}

impl Bilinear {
    /// Elements of the left factor.
    pub(crate) fn left(&self) -> usize {
        match self {
            Bilinear::Elementwise { elements } => *elements as usize,
            Bilinear::MatMul { count, rows, inner, .. } => *count as usize * *rows as usize * *inner as usize,
            Bilinear::Conv { images, conv } => *images as usize * conv.input_elements(),
        }
    }

    /// Elements of the right factor.
    pub(crate) fn right(&self) -> usize {
        match self {
            Bilinear::Elementwise { elements } => *elements as usize,
            Bilinear::MatMul { count, inner, columns, .. } => *count as usize * *inner as usize * *columns as usize,
            Bilinear::Conv { conv, .. } => Linear::Conv(*conv).weights(),
        }
    }

    /// Elements of the product.
    pub(crate) fn out(&self) -> usize {
        match self {
            Bilinear::Elementwise { elements } => *elements as usize,
            Bilinear::MatMul { count, rows, columns, .. } => *count as usize * *rows as usize * *columns as usize,
            Bilinear::Conv { images, conv } => *images as usize * conv.output_elements(),
        }
    }

    /// How many products of elements go into one element of the result: for error bounds.
    pub(crate) fn terms(&self) -> usize {
        match self {
            Bilinear::Elementwise { .. } => 1,
            Bilinear::MatMul { inner, .. } => *inner as usize,
            Bilinear::Conv { conv, .. } => conv.channels as usize * conv.kernel.iter().product::<u32>() as usize,
        }
    }

    /// The linear map that the right factor is, where it is one for all rows or images.
    fn linear(&self) -> Option<Linear> {
        match self {
            Bilinear::Elementwise { .. } => None,
            Bilinear::MatMul { inner, columns, .. } => Some(Linear::MatMul { inputs: *inner, outputs: *columns }),
            Bilinear::Conv { conv, .. } => Some(Linear::Conv(*conv)),
        }
    }

    /// Adds every sample's product to its place in `to`. `y` holds a right factor for each sample, or a single one.
    pub(crate) fn apply<T: Scalar>(&self, threads: &dyn Threads, x: &[T], y: &[T], to: &mut [T]) {
        let (left, right, out) = (self.left().max(1), self.right().max(1), self.out().max(1));
        let single = y.len() == right;
        match (self, self.linear()) {
            (Bilinear::MatMul { count: 1, .. } | Bilinear::Conv { .. }, Some(linear)) if single => {
                linear.apply_on(threads, x, y, to);
            }
            _ => {
                let samples = x.chunks_exact(left).zip(to.chunks_exact_mut(out));
                for ((x, to), y) in samples.zip(y.chunks_exact(right).cycle()) {
                    self.one(threads, x, y, to);
                }
            }
        }
    }

    fn one<T: Scalar>(&self, threads: &dyn Threads, x: &[T], y: &[T], to: &mut [T]) {
        match (self, self.linear()) {
            (Bilinear::MatMul { rows, inner, columns, .. }, Some(linear)) => {
                let [rows, inner, columns] = [*rows, *inner, *columns].map(|n| n as usize);
                let pairs = x.chunks_exact((rows * inner).max(1)).zip(y.chunks_exact((inner * columns).max(1)));
                for ((x, y), to) in pairs.zip(to.chunks_exact_mut((rows * columns).max(1))) {
                    linear.apply_on(threads, x, y, to);
                }
            }
            (_, Some(linear)) => linear.apply_on(threads, x, y, to),
            (_, None) => to.iter_mut().zip(x.iter().zip(y)).for_each(|(to, (x, y))| *to = to.add_product(*x, *y)),
        }
    }

    /// The products of all samples.
    pub(crate) fn product<T: Scalar>(&self, x: &[T], y: &[T], samples: usize) -> Vec<T> {
        let mut to = alloc::vec![T::default(); self.out() * samples];
        self.apply(&Alone, x, y, &mut to);
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn every_sample_has_its_own_right_factor_or_all_share_one() {
        let product = Bilinear::MatMul { count: 2, rows: 1, inner: 2, columns: 1 };
        assert_eq!((product.left(), product.right(), product.out()), (4, 4, 2));
        let x: Vec<u32> = vec![1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(product.product(&x, &[1, 1, 2, 2], 2), [3, 14, 11, 30]);
        assert_eq!(product.product(&x, &[1, 1, 2, 2, 0, 1, 1, 0], 2), [3, 14, 6, 7]);
        let product = Bilinear::Elementwise { elements: 2 };
        assert_eq!(product.product(&[1u32, 2, 3, 4], &[5, 6], 2), [5, 12, 15, 24]);
        assert_eq!(product.product(&[1u32, 2, 3, 4], &[5, 6, 7, 8], 2), [5, 12, 21, 32]);
        let conv = Conv { channels: 1, size: [1, 2], filters: 1, kernel: [1, 1], strides: [1, 1], padding: [0; 4] };
        let product = Bilinear::Conv { images: 2, conv };
        assert_eq!(product.product(&[1u32, 2, 3, 4, 5, 6, 7, 8], &[2, 3], 2), [2, 4, 6, 8, 15, 18, 21, 24]);
    }
}
