#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use super::simd::Level;
use super::*;

/// Elements that fill their lanes.
trait Sample: Scalar + Debug + PartialEq {
    fn sample(seed: usize) -> Self;
}

fn mix(seed: usize) -> u64 {
    let x = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Sample for u32 {
    fn sample(seed: usize) -> Self {
        (mix(seed) >> 32) as u32
    }
}

impl Sample for u64 {
    fn sample(seed: usize) -> Self {
        mix(seed)
    }
}

impl Sample for f32 {
    fn sample(seed: usize) -> Self {
        (mix(seed) >> 40) as f32 / 8e6 - 1.0
    }
}

fn samples<T: Sample>(salt: usize, count: usize) -> Vec<T> {
    (0..count).map(|i| T::sample(salt << 20 | i)).collect()
}

/// The definition, element by element.
fn by_definition<T: Scalar>(linear: &Linear, x: &[T], w: &[T], to: &mut [T]) {
    match linear {
        Linear::MatMul { inputs, outputs } => {
            let (inputs, outputs) = (*inputs as usize, *outputs as usize);
            for (at, to) in to.iter_mut().enumerate() {
                let (row, column) = (at / outputs, at % outputs);
                for i in 0..inputs {
                    *to = to.add_product(x[row * inputs + i], w[i * outputs + column]);
                }
            }
        }
        Linear::Conv(conv) => {
            let [oh, ow] = conv.output().unwrap().map(|n| n as usize);
            let (c, [h, wd], [kh, kw]) =
                (conv.channels as usize, conv.size.map(|n| n as usize), conv.kernel.map(|n| n as usize));
            for (at, to) in to.iter_mut().enumerate() {
                let (sample, o) = (at / linear.outputs(), at / (oh * ow) % conv.filters as usize);
                let (oy, ox) = (at / ow % oh, at % ow);
                for (i, ky, kx) in (0..c * kh * kw).map(|k| (k / (kh * kw), k / kw % kh, k % kw)) {
                    let y = (oy * conv.strides[0] as usize + ky).wrapping_sub(conv.padding[0] as usize);
                    let xx = (ox * conv.strides[1] as usize + kx).wrapping_sub(conv.padding[2] as usize);
                    // The padding counts as zeros: 0 · w, which for f32 may be -0.
                    let element = if y < h && xx < wd { x[((sample * c + i) * h + y) * wd + xx] } else { T::default() };
                    *to = to.add_product(element, w[((o * c + i) * kh + ky) * kw + kx]);
                }
            }
        }
    }
}

/// Threads that do not exist: the parts run one after the other, the last first.
#[derive(Debug)]
struct Pretended(usize);

impl Threads for Pretended {
    fn count(&self) -> usize {
        self.0
    }

    fn par_for(&self, parts: Vec<Part<'_>>) {
        assert!(parts.len() <= self.0);
        parts.into_iter().rev().for_each(|part| part());
    }
}

/// Every level and number of threads against the definition, bit by bit.
fn check<T: Sample>(linear: &Linear, batch: usize) {
    let (x, w) = (samples::<T>(1, linear.inputs() * batch), samples::<T>(2, linear.weights()));
    let before = samples::<T>(3, linear.outputs() * batch);
    let mut wanted = before.clone();
    by_definition(linear, &x, &w, &mut wanted);
    for level in Level::all() {
        let mut to = before.clone();
        linear.run(level, &x, &w, &mut to);
        assert_eq!(to, wanted, "{linear:?}, {batch} samples, {level:?}");
    }
    for count in [0, 1, 2, 3, 8] {
        let mut to = before.clone();
        threads::apply(linear, &Pretended(count), 1, &x, &w, &mut to);
        assert_eq!(to, wanted, "{linear:?}, {batch} samples, {count} threads");
    }
    let mut to = before;
    linear.apply_on(&Pretended(4), &x, &w, &mut to);
    assert_eq!(to, wanted, "{linear:?}, {batch} samples");
}

fn check_all(linear: &Linear, batch: usize) {
    check::<u32>(linear, batch);
    check::<u64>(linear, batch);
    check::<f32>(linear, batch);
}

#[test]
fn matrix_products_are_what_they_say() {
    for inputs in [1, 2, 3, 4, 5, 7, 255, 256, 257, 513] {
        for outputs in [1, 2, 3, 10, 15, 16, 17, 31, 32, 50] {
            for batch in [0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 19] {
                check_all(&Linear::MatMul { inputs, outputs }, batch);
            }
        }
    }
}

#[test]
fn convolutions_are_what_they_say() {
    for (channels, filters, batch) in [(1, 1, 1), (1, 16, 1), (2, 3, 2), (3, 5, 1), (2, 8, 3), (1, 19, 2)] {
        for size in [[1, 1], [3, 5], [7, 6], [12, 12], [5, 23]] {
            for kernel in [[1, 1], [3, 2], [5, 5], [2, 7]] {
                for strides in [[1, 1], [2, 1], [1, 2], [2, 3], [9, u32::MAX]] {
                    for padding in [[0; 4], [2, 2, 2, 2], [0, 1, 2, 3], [3, 0, 1, 0]] {
                        let conv = Conv { channels, size, filters, kernel, strides, padding };
                        if conv.output().is_some() {
                            check_all(&Linear::Conv(conv), batch);
                        }
                    }
                }
            }
        }
    }
}

/// More elements of a patch than a panel has rows.
#[test]
fn deep_convolutions_are_what_they_say() {
    for (channels, kernel, padding) in [(16, [5, 5], [0; 4]), (11, [5, 5], [1, 2, 0, 3]), (256, [1, 1], [0; 4])] {
        for (filters, batch) in [(16, 1), (5, 2), (23, 1)] {
            let conv = Conv { channels, size: [12, 12], filters, kernel, strides: [1, 1], padding };
            check_all(&Linear::Conv(conv), batch);
        }
    }
}

#[test]
fn what_does_not_fit_or_is_empty_adds_nothing() {
    let conv = Conv { channels: 1, size: [2, 2], filters: 1, kernel: [3, 3], strides: [1, 1], padding: [0; 4] };
    assert_eq!(conv.output(), None);
    assert_eq!(Conv { strides: [0, 1], kernel: [1, 1], ..conv }.output(), None);
    let padding = Conv { size: [0, 3], padding: [2, 2, 0, 0], ..conv };
    assert_eq!(padding.output(), Some([2, 1]));
    for linear in [
        Linear::Conv(conv),
        Linear::Conv(padding),
        Linear::MatMul { inputs: 0, outputs: 3 },
        Linear::MatMul { inputs: 3, outputs: 0 },
    ] {
        let mut to = [7u32, 8, 9];
        linear.apply(&[1, 2, 3, 4], &[1; 9], &mut to);
        linear.apply_on(&Pretended(2), &[1, 2, 3, 4], &[1; 9], &mut to);
        assert_eq!(to, [7, 8, 9]);
    }
}

#[test]
fn a_product_known_by_heart() {
    let linear = Linear::MatMul { inputs: 3, outputs: 2 };
    let mut out = vec![100u32, 0, 0, 0];
    linear.apply(&[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6], &mut out);
    assert_eq!(out, [122, 28, 49, 64]);
}
