//! Matrix products and convolutions: `cargo bench -p selkie --bench kernels`.
//!
//! Items are multiply-adds; f32 beside the rings is the unit.
#![allow(missing_docs, reason = "a program")]

use divan::Bencher;
use divan::counter::ItemsCount;
use selkie::kernel::{Conv, Linear, Scalar};

fn main() {
    divan::main();
}

trait Element: Scalar {
    fn element(seed: usize) -> Self;
}

macro_rules! element {
    ($($scalar:ty),*) => {
        $(impl Element for $scalar {
            fn element(seed: usize) -> Self {
                (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) as $scalar
            }
        })*
    };
}
element!(u32, u64, f32);

fn run<T: Element>(bencher: Bencher<'_, '_>, linear: Linear, batch: usize, products: usize) {
    let all = |count| (0..count).map(T::element).collect::<Vec<T>>();
    let (x, w, mut to) = (all(linear.inputs() * batch), all(linear.weights()), all(linear.outputs() * batch));
    bencher.counter(ItemsCount::new(products * batch)).bench_local(|| {
        linear.apply(divan::black_box(&x), divan::black_box(&w), divan::black_box(&mut to));
    });
}

#[divan::bench(types = [u32, u64, f32], args = [(1, 784, 128), (128, 784, 128), (1, 128, 10), (128, 128, 10)])]
fn matmul<T: Element>(bencher: Bencher<'_, '_>, (batch, inputs, outputs): (usize, u32, u32)) {
    run::<T>(bencher, Linear::MatMul { inputs, outputs }, batch, (inputs * outputs) as usize);
}

/// The first convolution of network B: 1x28x28, 16 filters of 5x5.
#[divan::bench(types = [u32, u64, f32], args = [1, 128])]
fn conv_b1<T: Element>(bencher: Bencher<'_, '_>, batch: usize) {
    conv::<T>(bencher, 1, 28, 24, [1; 2], [0; 4], 16, batch);
}

/// The second: 16x12x12, 16 filters of 5x5.
#[divan::bench(types = [u32, u64, f32], args = [1, 128])]
fn conv_b2<T: Element>(bencher: Bencher<'_, '_>, batch: usize) {
    conv::<T>(bencher, 16, 12, 8, [1; 2], [0; 4], 16, batch);
}

/// Network D: 1x28x28, 5 filters of 5x5, stride 2, padding 2.
#[divan::bench(types = [u32, u64, f32], args = [1, 128])]
fn conv_d<T: Element>(bencher: Bencher<'_, '_>, batch: usize) {
    conv::<T>(bencher, 1, 28, 14, [2; 2], [2; 4], 5, batch);
}

#[allow(clippy::too_many_arguments, reason = "a shape")]
fn conv<T: Element>(
    bencher: Bencher<'_, '_>,
    channels: u32,
    size: u32,
    output: u32,
    strides: [u32; 2],
    padding: [u32; 4],
    filters: u32,
    batch: usize,
) {
    let conv = Conv { channels, size: [size; 2], filters, kernel: [5; 2], strides, padding };
    assert_eq!(conv.output(), Some([output; 2]));
    let products = (channels * 25 * output * output * filters) as usize;
    run::<T>(bencher, Linear::Conv(conv), batch, products);
}
