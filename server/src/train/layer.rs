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
    Pool(Shape),
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
            Self::Pool(shape) => {
                let mut y = Array2::zeros((x.nrows(), shape.len() / 4));
                Zip::from(x.rows()).and(y.rows_mut()).for_each(|x, mut y| {
                    if let (Some(x), Some(y)) = (x.as_slice(), y.as_slice_mut()) {
                        pool(*shape, x, y);
                    }
                });
                y
            }
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
            Self::Pool(shape) => {
                let mut dx = Array2::zeros(x.dim());
                Zip::from(x.rows()).and(dy.rows()).and(dx.rows_mut()).for_each(|x, dy, mut dx| {
                    if let (Some(x), Some(dy), Some(dx)) = (x.as_slice(), dy.as_slice(), dx.as_slice_mut()) {
                        unpool(*shape, x, dy, dx);
                    }
                });
                (dx, None)
            }
            Self::Flatten(shape) => (transpose(dy.view(), shape.channels, shape.rows * shape.columns), None),
        }
    }

    pub(super) fn weights(&self) -> Option<&Weights> {
        match self {
            Self::Dense(weights) | Self::Conv(_, weights) => Some(weights),
            Self::Relu | Self::Pool(_) | Self::Flatten(_) => None,
        }
    }

    pub(super) fn weights_mut(&mut self) -> Option<&mut Weights> {
        match self {
            Self::Dense(weights) | Self::Conv(_, weights) => Some(weights),
            Self::Relu | Self::Pool(_) | Self::Flatten(_) => None,
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
            Self::Pool(_) => onnx::Layer::MaxPool { window: [2, 2], strides: [2, 2] },
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

#[allow(clippy::indexing_slicing, reason = "the rows have the shape's lengths")]
fn pool(shape: Shape, x: &[f32], y: &mut [f32]) {
    let n = shape.channels;
    for (square, y) in squares(shape).zip(y.chunks_exact_mut(n)) {
        let [a, b, c, d] = square.map(|at| &x[at..at + n]);
        for (i, y) in y.iter_mut().enumerate() {
            *y = a[i].max(b[i]).max(c[i].max(d[i]));
        }
    }
}

/// The derivative goes to the first of the largest.
#[allow(clippy::indexing_slicing, reason = "the rows have the shape's lengths")]
fn unpool(shape: Shape, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n = shape.channels;
    for (square, dy) in squares(shape).zip(dy.chunks_exact(n)) {
        for (i, &dy) in dy.iter().enumerate() {
            let [first, rest @ ..] = square.map(|at| at + i);
            let largest = rest.into_iter().fold(first, |best, at| if x[at] > x[best] { at } else { best });
            dx[largest] += dy;
        }
    }
}
