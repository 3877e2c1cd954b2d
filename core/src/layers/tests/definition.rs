//! What layers compute, written down as loops.

use alloc::vec;
use alloc::vec::Vec;

/// What TensorFlow adds before and after.
pub(super) fn same(length: usize, window: usize, stride: usize) -> [usize; 2] {
    let total = ((length.div_ceil(stride) - 1) * stride + window).saturating_sub(length);
    [total / 2, total - total / 2]
}

/// x \[n, a\] times w \[a, b\] plus bias.
pub(super) fn dense(x: &[f64], [n, a, b]: [usize; 3], w: &[f64], bias: &[f64]) -> Vec<f64> {
    let one = |i: usize, j: usize| (0..a).map(|k| x[i * a + k] * w[k * b + j]).sum::<f64>() + bias[j];
    (0..n).flat_map(|i| (0..b).map(move |j| (i, j))).map(|(i, j)| one(i, j)).collect()
}

/// A window over images.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Samples, channels, height, width.
    pub(super) x: [usize; 4],
    pub(super) window: [usize; 2],
    pub(super) strides: [usize; 2],
    pub(super) dilations: [usize; 2],
    /// Above, below, left, right.
    pub(super) padding: [usize; 4],
}

impl Shape {
    fn rows_and_columns(self) -> [usize; 2] {
        let [_, _, h, w] = self.x;
        let [top, bottom, left, right] = self.padding;
        let along =
            |n: usize, window: usize, dilation: usize, stride: usize| (n - ((window - 1) * dilation + 1)) / stride + 1;
        [
            along(h + top + bottom, self.window[0], self.dilations[0], self.strides[0]),
            along(w + left + right, self.window[1], self.dilations[1], self.strides[1]),
        ]
    }

    /// What a window sees of channel c, and where in the window.
    fn seen(self, x: &[f64], [n, c, row, column]: [usize; 4]) -> Vec<(usize, f64)> {
        let [_, channels, h, w] = self.x;
        let mut seen = vec![];
        for (i, j) in (0..self.window[0]).flat_map(|i| (0..self.window[1]).map(move |j| (i, j))) {
            let y = (row * self.strides[0] + i * self.dilations[0]).checked_sub(self.padding[0]);
            let z = (column * self.strides[1] + j * self.dilations[1]).checked_sub(self.padding[2]);
            if let (Some(y), Some(z)) = (y.filter(|y| *y < h), z.filter(|z| *z < w)) {
                seen.push((i * self.window[1] + j, x[((n * channels + c) * h + y) * w + z]));
            }
        }
        seen
    }

    /// One number for each sample, each of `count` channels and each window.
    pub(super) fn each(self, count: usize, mut f: impl FnMut([usize; 4]) -> f64) -> Vec<f64> {
        let [rows, columns] = self.rows_and_columns();
        let mut all = vec![];
        for n in 0..self.x[0] {
            for c in 0..count {
                for row in 0..rows {
                    for column in 0..columns {
                        all.push(f([n, c, row, column]));
                    }
                }
            }
        }
        all
    }

    pub(super) fn conv(self, x: &[f64], filters: &[f64], outputs: usize, groups: usize, bias: &[f64]) -> Vec<f64> {
        let (inner, area) = (self.x[1] / groups, self.window[0] * self.window[1]);
        self.each(outputs, |[n, o, row, column]| {
            let first = o / (outputs / groups) * inner;
            let sum = (0..inner).flat_map(|c| {
                let seen = self.seen(x, [n, first + c, row, column]);
                seen.into_iter().map(move |(at, x)| filters[(o * inner + c) * area + at] * x)
            });
            sum.sum::<f64>() + bias.get(o).copied().unwrap_or(0.0)
        })
    }

    pub(super) fn mean(self, x: &[f64]) -> Vec<f64> {
        self.each(self.x[1], |at| {
            let seen = self.seen(x, at);
            seen.iter().map(|(_, x)| x).sum::<f64>() / seen.len() as f64
        })
    }

    pub(super) fn max(self, x: &[f64]) -> Vec<f64> {
        self.each(self.x[1], |at| self.seen(x, at).iter().map(|(_, x)| *x).fold(f64::NEG_INFINITY, f64::max))
    }
}

/// \[n, h, w, c\] to \[n, c, h, w\].
pub(super) fn first(x: &[f64], [n, h, w, c]: [usize; 4]) -> Vec<f64> {
    let at = |i: usize| {
        let (sample, channel, place) = (i / (c * h * w), i / (h * w) % c, i % (h * w));
        x[sample * c * h * w + place * c + channel]
    };
    (0..n * h * w * c).map(at).collect()
}

/// \[n, c, h, w\] to \[n, h, w, c\].
pub(super) fn last(x: &[f64], [n, c, h, w]: [usize; 4]) -> Vec<f64> {
    let at = |i: usize| {
        let (sample, place, channel) = (i / (c * h * w), i / c % (h * w), i % c);
        x[sample * c * h * w + channel * h * w + place]
    };
    (0..n * h * w * c).map(at).collect()
}
