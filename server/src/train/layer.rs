//! Layers: each a function of a batch, and its derivative. A batch is a matrix with one row for each image.

use ndarray::{Array2, Array4, ArrayView2, Axis, Zip};

use super::weights::Weights;
use super::window::{Shape, Window};
use crate::onnx;

/// One layer of a network in training. Images between layers are `[row][column][channel]`, flattened.
#[derive(Clone, Debug)]
pub(super) enum Layer {
    /// `x W + b`.
    Dense(Weights),
    /// The same for every window of the image.
    Conv(Window, Weights),
    Relu,
    /// The maximum of every 2x2 square, apart by 2.
    MaxPool(Shape),
    /// The mean of every 2x2 square, apart by 2.
    AveragePool(Shape),
    /// From `[row][column][channel]` to the model files' `[channel][row][column]`.
    Flatten(Shape),
}

impl Layer {
    pub(super) fn forward(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        match self {
            Self::Dense(w) => x.dot(&w.matrix) + &w.bias,
            Self::Conv(window, w) => {
                let y = window.unfold(x).dot(&w.matrix) + &w.bias;
                reshape(y, x.nrows())
            }
            Self::Relu => x.mapv(|v| v.max(0.0)),
            Self::MaxPool(shape) => pooled(*shape, x, |[a, b, c, d]| a.max(b).max(c.max(d))),
            Self::AveragePool(shape) => pooled(*shape, x, |[a, b, c, d]| ((a + b) + (c + d)) / 4.0),
            Self::Flatten(shape) => transpose(x, shape.rows * shape.columns, shape.channels),
        }
    }

    /// From the input and the derivative of the loss by the output: by the input (unless it is the network's own, which
    /// nobody asks for) and by the weights.
    pub(super) fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        dy: Array2<f32>,
        first: bool,
    ) -> (Array2<f32>, Option<Weights>) {
        let nothing = || Array2::zeros((0, 0));
        match self {
            Self::Dense(w) => {
                let gradient = Weights { matrix: x.t().dot(&dy), bias: dy.sum_axis(Axis(0)) };
                (if first { nothing() } else { dy.dot(&w.matrix.t()) }, Some(gradient))
            }
            Self::Conv(window, w) => {
                let dy = {
                    let places = dy.len() / w.bias.len();
                    reshape(dy, places)
                };
                let gradient = Weights { matrix: window.unfold(x).t().dot(&dy), bias: dy.sum_axis(Axis(0)) };
                (if first { nothing() } else { window.fold(&dy.dot(&w.matrix.t())) }, Some(gradient))
            }
            Self::Relu => {
                let mut dx = dy;
                dx.zip_mut_with(&x, |d, &x| {
                    if x <= 0.0 {
                        *d = 0.0
                    }
                });
                (dx, None)
            }
            Self::MaxPool(shape) => (unpooled(*shape, x, &dy, largest), None),
            Self::AveragePool(shape) => (unpooled(*shape, x, &dy, |_| [0.25; 4]), None),
            Self::Flatten(shape) => (transpose(dy.view(), shape.channels, shape.rows * shape.columns), None),
        }
    }

    pub(super) fn weights(&self) -> Option<&Weights> {
        match self {
            Self::Dense(weights) | Self::Conv(_, weights) => Some(weights),
            Self::Relu | Self::MaxPool(_) | Self::AveragePool(_) | Self::Flatten(_) => None,
        }
    }

    pub(super) fn weights_mut(&mut self) -> Option<&mut Weights> {
        match self {
            Self::Dense(weights) | Self::Conv(_, weights) => Some(weights),
            Self::Relu | Self::MaxPool(_) | Self::AveragePool(_) | Self::Flatten(_) => None,
        }
    }

    /// The layer as a model file has it: filters `[filter][channel][row][column]`.
    pub(super) fn export(&self) -> onnx::Layer {
        match self {
            Self::Dense(w) => onnx::Layer::Dense { weights: w.matrix.clone(), bias: w.bias.clone() },
            Self::Conv(window, w) => {
                let Window { side, stride, padding, image } = *window;
                let channels = image.channels;
                let matrix = &w.matrix;
                let filters = Array4::from_shape_fn((w.bias.len(), channels, side, side), |(filter, channel, y, x)| {
                    matrix.get([(y * side + x) * channels + channel, filter]).copied().unwrap_or_default()
                });
                onnx::Layer::Conv2D { filters, bias: w.bias.clone(), strides: [stride; 2], padding: [[padding; 2]; 2] }
            }
            Self::Relu => onnx::Layer::Relu,
            Self::MaxPool(_) => onnx::Layer::MaxPool { window: [2, 2], strides: [2, 2] },
            Self::AveragePool(_) => onnx::Layer::AveragePool {
                window: [2, 2],
                strides: [2, 2],
                padding: [[0; 2]; 2],
                padding_counts: false,
            },
            Self::Flatten(_) => onnx::Layer::Flatten,
        }
    }
}

/// The same elements in `rows` rows.
fn reshape(y: Array2<f32>, rows: usize) -> Array2<f32> {
    let columns = y.len().checked_div(rows).unwrap_or(0);
    // Products and sums are row-major and the number of elements agrees: nothing is moved, nothing can fail.
    y.into_shape_with_order((rows, columns)).unwrap_or_default()
}

/// Every row, a matrix of `a` by `b`, transposed.
fn transpose(x: ArrayView2<'_, f32>, a: usize, b: usize) -> Array2<f32> {
    let mut y = Array2::zeros(x.dim());
    Zip::from(x.rows()).and(y.rows_mut()).for_each(|x, mut y| {
        if let (Ok(x), Ok(mut y)) = (x.to_shape((a, b)), y.view_mut().into_shape_with_order((b, a))) {
            y.assign(&x.t());
        }
    });
    y
}

/// For every square of a 2x2 pooling, the positions of its four pixels' first channels, in reading order. The output's
/// pixels follow one another in the same order.
fn squares(shape: Shape) -> impl Iterator<Item = [usize; 4]> {
    let Shape { rows, columns, channels } = shape;
    let (down, right) = (columns * channels, channels);
    (0..rows / 2).flat_map(move |row| {
        (0..columns / 2).map(move |column| {
            let corner = 2 * row * down + 2 * column * right;
            [corner, corner + right, corner + down, corner + down + right]
        })
    })
}

/// Every square's value, which `of` makes of its four.
fn pooled(shape: Shape, x: ArrayView2<'_, f32>, of: impl Fn([f32; 4]) -> f32) -> Array2<f32> {
    let mut y = Array2::zeros((x.nrows(), shape.len() / 4));
    Zip::from(x.rows()).and(y.rows_mut()).for_each(|x, mut y| {
        if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
            pool(shape, x, y, &of);
        }
    });
    y
}

/// The derivative by the input, of which each pixel of a square takes the part that `parts` gives it.
fn unpooled(
    shape: Shape,
    x: ArrayView2<'_, f32>,
    dy: &Array2<f32>,
    parts: impl Fn([f32; 4]) -> [f32; 4],
) -> Array2<f32> {
    let mut dx = Array2::zeros(x.dim());
    Zip::from(x.rows()).and(dy.rows()).and(dx.rows_mut()).for_each(|x, dy, mut dx| {
        if let (Some(x), Some(dy), Some(dx)) = (x.as_slice(), dy.as_slice(), dx.as_slice_mut()) {
            unpool(shape, x, dy, dx, &parts);
        }
    });
    dx
}

/// All to the first of the largest.
fn largest([a, b, c, d]: [f32; 4]) -> [f32; 4] {
    let most = a.max(b).max(c.max(d));
    if a == most {
        [1.0, 0.0, 0.0, 0.0]
    } else if b == most {
        [0.0, 1.0, 0.0, 0.0]
    } else if c == most {
        [0.0, 0.0, 1.0, 0.0]
    } else {
        [0.0, 0.0, 0.0, 1.0]
    }
}

#[allow(clippy::indexing_slicing, reason = "the rows have the shape's lengths")]
fn pool(shape: Shape, x: &[f32], y: &mut [f32], of: impl Fn([f32; 4]) -> f32) {
    let n = shape.channels;
    for (square, y) in squares(shape).zip(y.chunks_exact_mut(n)) {
        let [a, b, c, d] = square.map(|at| &x[at..at + n]);
        for (i, y) in y.iter_mut().enumerate() {
            *y = of([a[i], b[i], c[i], d[i]]);
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "the rows have the shape's lengths")]
fn unpool(shape: Shape, x: &[f32], dy: &[f32], dx: &mut [f32], parts: impl Fn([f32; 4]) -> [f32; 4]) {
    let n = shape.channels;
    for (square, dy) in squares(shape).zip(dy.chunks_exact(n)) {
        for (i, &dy) in dy.iter().enumerate() {
            let places = square.map(|at| at + i);
            for (at, part) in places.into_iter().zip(parts(places.map(|at| x[at]))) {
                dx[at] += part * dy;
            }
        }
    }
}
