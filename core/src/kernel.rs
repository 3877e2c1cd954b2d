//! Matrix product and convolution, over ring lanes and over f32.
//!
//! Lanes wrap modulo 2^32 or 2^64; whoever works in a narrower ring reduces the results. The inner loops run over
//! contiguous memory, so that the compiler turns them into vector code on every target.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// What the kernels compute with.
pub trait Scalar: Copy + Default {
    /// self + a · b.
    #[must_use]
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Scalar for u32 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Scalar for u64 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Scalar for f32 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}

/// The shapes of a two-dimensional convolution of one sample: NCHW, filters OIHW.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conv {
    /// Input channels.
    pub channels: u32,
    /// Input height and width.
    pub size: [u32; 2],
    /// Output channels.
    pub filters: u32,
    /// Filter height and width.
    pub kernel: [u32; 2],
    /// Steps down and to the right.
    pub strides: [u32; 2],
    /// Zeros above, below, to the left, to the right.
    pub padding: [u32; 4],
}

impl Conv {
    /// Output height and width, or `None` if the filter does not fit.
    pub fn output(&self) -> Option<[u32; 2]> {
        let [top, bottom, left, right] = self.padding;
        let along = |size: u32, before: u32, after: u32, kernel: u32, stride: u32| {
            let room = size.checked_add(before)?.checked_add(after)?.checked_sub(kernel)?;
            (kernel > 0).then(|| room.checked_div(stride))?.map(|steps| steps + 1)
        };
        let [height, width] = self.size;
        let [down, across] = self.strides;
        let [kernel_height, kernel_width] = self.kernel;
        Some([along(height, top, bottom, kernel_height, down)?, along(width, left, right, kernel_width, across)?])
    }

    /// The input's elements that one output position of one filter sees.
    fn patch(&self) -> usize {
        self.channels as usize * self.kernel.iter().map(|n| *n as usize).product::<usize>()
    }

    /// Elements of one input sample.
    pub fn input_elements(&self) -> usize {
        self.channels as usize * self.size.iter().map(|n| *n as usize).product::<usize>()
    }

    /// Elements of one output sample.
    pub fn output_elements(&self) -> usize {
        self.filters as usize * self.positions()
    }

    fn positions(&self) -> usize {
        self.output().map_or(0, |[height, width]| height as usize * width as usize)
    }

    /// For each element of a patch and each output position, where the element is in the input; `None` in the padding.
    /// A function of the shapes alone.
    fn sources(&self) -> Vec<Option<usize>> {
        let [height, width] = self.size.map(i64::from);
        let [out_height, out_width] = self.output().unwrap_or_default().map(i64::from);
        let [kernel_height, kernel_width] = self.kernel.map(i64::from);
        let [down, across] = self.strides.map(i64::from);
        let [top, _, left, _] = self.padding.map(i64::from);
        let mut sources = Vec::with_capacity(self.patch() * self.positions());
        for channel in 0..i64::from(self.channels) {
            for (ky, kx) in (0..kernel_height).flat_map(|y| (0..kernel_width).map(move |x| (y, x))) {
                for (oy, ox) in (0..out_height).flat_map(|y| (0..out_width).map(move |x| (y, x))) {
                    let (y, x) = (oy * down + ky - top, ox * across + kx - left);
                    let inside = (0..height).contains(&y) && (0..width).contains(&x);
                    sources.push(inside.then(|| ((channel * height + y) * width + x) as usize));
                }
            }
        }
        sources
    }
}

/// One public linear map with the weights as the right operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Linear {
    /// x \[n, inputs\] times w \[inputs, outputs\].
    MatMul {
        /// Columns of x.
        inputs: u32,
        /// Columns of w.
        outputs: u32,
    },
    /// The convolution of x \[n, channels, height, width\] with w \[filters, channels, kernel height, kernel width\].
    Conv(Conv),
}

impl Linear {
    /// Elements of one input sample.
    pub fn inputs(&self) -> usize {
        match self {
            Linear::MatMul { inputs, .. } => *inputs as usize,
            Linear::Conv(conv) => conv.input_elements(),
        }
    }

    /// Elements of one output sample.
    pub fn outputs(&self) -> usize {
        match self {
            Linear::MatMul { outputs, .. } => *outputs as usize,
            Linear::Conv(conv) => conv.output_elements(),
        }
    }

    /// Elements of the weights.
    pub fn weights(&self) -> usize {
        match self {
            Linear::MatMul { inputs, outputs } => *inputs as usize * *outputs as usize,
            Linear::Conv(conv) => conv.filters as usize * conv.patch(),
        }
    }

    /// Adds the image of every sample in `x` to its place in `to`.
    pub fn apply<T: Scalar>(&self, x: &[T], weights: &[T], to: &mut [T]) {
        match self {
            Linear::MatMul { inputs, outputs } => matmul(x, weights, *inputs as usize, *outputs as usize, to),
            Linear::Conv(conv) => convolve(conv, x, weights, to),
        }
    }
}

/// to\[n, outputs\] += x\[n, inputs\] · weights\[inputs, outputs\].
fn matmul<T: Scalar>(x: &[T], weights: &[T], inputs: usize, outputs: usize, to: &mut [T]) {
    for (row, to) in x.chunks_exact(inputs.max(1)).zip(to.chunks_exact_mut(outputs.max(1))) {
        for (factor, weights) in row.iter().zip(weights.chunks_exact(outputs.max(1))) {
            scaled_add(to, *factor, weights);
        }
    }
}

fn convolve<T: Scalar>(conv: &Conv, x: &[T], filters: &[T], to: &mut [T]) {
    let (positions, patch) = (conv.positions().max(1), conv.patch().max(1));
    let sources = conv.sources();
    let mut columns = vec![T::default(); sources.len()];
    for (sample, to) in
        x.chunks_exact(conv.input_elements().max(1)).zip(to.chunks_exact_mut(conv.output_elements().max(1)))
    {
        for (place, source) in columns.iter_mut().zip(&sources) {
            *place = source.and_then(|index| sample.get(index).copied()).unwrap_or_default();
        }
        for (filter, to) in filters.chunks_exact(patch).zip(to.chunks_exact_mut(positions)) {
            for (factor, column) in filter.iter().zip(columns.chunks_exact(positions)) {
                scaled_add(to, *factor, column);
            }
        }
    }
}

#[inline]
fn scaled_add<T: Scalar>(to: &mut [T], factor: T, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = to.add_product(factor, *from));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;

    /// The definition, element by element.
    fn reference(conv: &Conv, x: &[u64], w: &[u64]) -> Vec<u64> {
        let [oh, ow] = conv.output().unwrap().map(|n| n as usize);
        let (c, [h, wd], [kh, kw]) =
            (conv.channels as usize, conv.size.map(|n| n as usize), conv.kernel.map(|n| n as usize));
        let mut out = vec![];
        for o in 0..conv.filters as usize {
            for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                let mut sum = 0u64;
                for i in 0..c {
                    for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                        let y = (oy * conv.strides[0] as usize + ky).wrapping_sub(conv.padding[0] as usize);
                        let xx = (ox * conv.strides[1] as usize + kx).wrapping_sub(conv.padding[2] as usize);
                        if y < h && xx < wd {
                            sum = sum.wrapping_add(
                                x[(i * h + y) * wd + xx].wrapping_mul(w[((o * c + i) * kh + ky) * kw + kx]),
                            );
                        }
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn convolution_is_what_it_says() {
        let pseudo = |n: usize| (0..n as u64).map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect::<Vec<_>>();
        for (strides, padding) in [([1, 1], [0; 4]), ([2, 1], [2, 2, 1, 0]), ([2, 3], [0, 1, 2, 3])] {
            let conv = Conv { channels: 2, size: [7, 6], filters: 3, kernel: [3, 2], strides, padding };
            let linear = Linear::Conv(conv);
            let (x, w) = (pseudo(linear.inputs() * 2), pseudo(linear.weights()));
            let mut out = vec![0; linear.outputs() * 2];
            linear.apply(&x, &w, &mut out);
            for (sample, out) in x.chunks(linear.inputs()).zip(out.chunks(linear.outputs())) {
                assert_eq!(out, reference(&conv, sample, &w));
            }
        }
        let conv = Conv { channels: 1, size: [2, 2], filters: 1, kernel: [3, 3], strides: [1, 1], padding: [0; 4] };
        assert_eq!(conv.output(), None);
    }

    #[test]
    fn matrix_product_is_what_it_says() {
        let linear = Linear::MatMul { inputs: 3, outputs: 2 };
        let mut out = vec![100u32, 0, 0, 0];
        linear.apply(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6], &mut out);
        assert_eq!(out, [122, 28, 49, 64]);
    }
}
