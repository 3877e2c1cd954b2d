//! Convolution as a matrix product: every window of the image becomes a row.
//!
//! Images are `[row][column][channel]` here, so that a window's row of pixels is one contiguous run.

use ndarray::{Array2, ArrayView2};

/// The sizes of one image in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) channels: usize,
}

impl Shape {
    pub(super) fn len(self) -> usize {
        self.rows * self.columns * self.channels
    }
}

/// A square window moving over an image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) image: Shape,
    pub(super) side: usize,
    pub(super) stride: usize,
    /// Zeros on each of the four sides.
    pub(super) padding: usize,
}

impl Window {
    /// How many windows there are, down and across.
    pub(super) fn places(&self) -> [usize; 2] {
        [self.image.rows, self.image.columns].map(|n| (n + 2 * self.padding - self.side) / self.stride + 1)
    }

    /// Elements in a window.
    pub(super) fn len(&self) -> usize {
        self.side * self.side * self.image.channels
    }

    /// `[n, image]` to `[n * places, window]` (im2col).
    pub(super) fn unfold(&self, images: ArrayView2<'_, f32>) -> Array2<f32> {
        let [down, across] = self.places();
        let mut rows = Array2::zeros((images.nrows() * down * across, self.len()));
        let images = images.as_standard_layout();
        if let (Some(images), Some(rows)) = (images.as_slice(), rows.as_slice_mut()) {
            self.runs(images.len() / self.image.len(), |image, window, length| {
                copy(rows, window, images, image, length);
            });
        }
        rows
    }

    /// The transpose of [`Self::unfold`]: adds every window's elements to where they came from.
    pub(super) fn fold(&self, windows: &Array2<f32>) -> Array2<f32> {
        let [down, across] = self.places();
        let count = windows.nrows() / (down * across);
        let mut images = Array2::zeros((count, self.image.len()));
        if let (Some(images), Some(windows)) = (images.as_slice_mut(), windows.as_slice()) {
            self.runs(count, |image, window, length| accumulate(images, image, windows, window, length));
        }
        images
    }

    /// Calls `run(position in images, position in windows, length)` for every contiguous run that the two have in
    /// common.
    fn runs(&self, count: usize, mut run: impl FnMut(usize, usize, usize)) {
        let Shape { rows, columns, channels } = self.image;
        let [down, across] = self.places();
        let mut window = 0;
        for n in 0..count {
            for top in (0..down).map(|i| i * self.stride) {
                for left in (0..across).map(|i| i * self.stride) {
                    // The window's columns that are inside the image.
                    let first = self.padding.saturating_sub(left);
                    let last = self.side.min(columns + self.padding - left);
                    for y in 0..self.side {
                        let row = top + y;
                        if (self.padding..rows + self.padding).contains(&row) {
                            let column = left + first - self.padding;
                            let image = ((n * rows + row - self.padding) * columns + column) * channels;
                            run(image, window + (y * self.side + first) * channels, (last - first) * channels);
                        }
                    }
                    window += self.len();
                }
            }
        }
    }
}

#[allow(clippy::indexing_slicing, reason = "Window::runs stays inside both, by the shapes")]
fn copy(to: &mut [f32], at: usize, from: &[f32], start: usize, length: usize) {
    to[at..at + length].copy_from_slice(&from[start..start + length]);
}

#[allow(clippy::indexing_slicing, reason = "Window::runs stays inside both, by the shapes")]
fn accumulate(to: &mut [f32], at: usize, from: &[f32], start: usize, length: usize) {
    to[at..at + length].iter_mut().zip(&from[start..start + length]).for_each(|(t, f)| *t += f);
}
