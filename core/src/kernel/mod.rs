//! Matrix product and convolution, over ring lanes and over f32.
//!
//! Lanes wrap modulo 2^32 or 2^64; whoever works in a narrower ring reduces the results. No branch and no address depends
//! on an element. `panel` is the inner kernel, `matmul` and `conv` bring their operands into its form, `simd`
//! chooses the instructions, and `threads` cuts large products into parts. Whatever is chosen, each sum is made in the
//! order of its definition, so the results are the same.

mod conv;
mod matmul;
mod panel;
mod simd;
#[cfg(test)]
mod tests;
mod threads;

use serde::{Deserialize, Serialize};

use conv::Convolution;
use matmul::MatMul;
use simd::Level;
pub use threads::{Alone, Part, Threads};

/// What the kernels compute with.
pub trait Scalar: simd::Vectors + Copy + Default + Send + Sync + 'static {
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
        self.run(Level::best(), x, weights, to);
    }

    /// [`Linear::apply`], on the host's threads where the product is large enough to pay for it.
    pub fn apply_on<T: Scalar>(&self, threads: &dyn Threads, x: &[T], weights: &[T], to: &mut [T]) {
        threads::apply(self, threads, threads::WORTHWHILE, x, weights, to);
    }

    /// Multiply-adds for one sample; zero exactly if there is nothing to add.
    fn products(&self) -> usize {
        match self {
            _ if self.inputs() == 0 => 0,
            Linear::MatMul { inputs, outputs } => (*inputs as usize).saturating_mul(*outputs as usize),
            Linear::Conv(conv) => conv.output_elements().saturating_mul(conv.patch()),
        }
    }

    fn run<T: Scalar>(&self, level: Level, x: &[T], weights: &[T], to: &mut [T]) {
        if self.products() == 0 {
            return;
        }
        match self {
            Linear::MatMul { inputs, outputs } => {
                let (inputs, outputs) = (*inputs as usize, *outputs as usize);
                level.run(MatMul { x, inputs, weights, stride: outputs, to, outputs });
            }
            Linear::Conv(conv) => level.run(Convolution { conv, x, filters: weights, to }),
        }
    }
}
