//! Convolution, as the product of the filters with the patches that they see.
//!
//! The matrix of patches (im2col) is never made: a panel of it is, for [`LANES`] output positions and [`DEPTH`] elements
//! of a patch. Each sample is first laid out so that what one element of a patch meets at neighbouring positions lies
//! side by side: with its padding, and with every row's columns sorted by their remainder modulo the stride. A panel is
//! then filled by copies of whole vectors.

use alloc::vec;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::panel::{self, DEPTH, LANES, Place};
use super::simd::{Vector, Work};
use super::{Conv, Scalar};

/// Adds the convolution of every sample of `x` with `filters` to `to`. There is at least one filter, position and element
/// of a patch.
pub(super) struct Convolution<'a, T> {
    pub(super) conv: &'a Conv,
    pub(super) x: &'a [T],
    pub(super) filters: &'a [T],
    pub(super) to: &'a mut [T],
}

impl<T: Scalar> Work<T> for Convolution<'_, T> {
    #[inline(always)]
    fn run<V: Vector<T>, const ROWS: usize>(self) {
        let Self { conv, x, filters, to } = self;
        let (patch, positions) = (conv.patch(), conv.positions());
        let layout = Layout::new(conv);
        let (offsets, columns) = (layout.offsets(conv), layout.columns(conv));
        let mut sample = Zeroizing::new(vec![T::default(); layout.len(conv)]);
        // A copied vector may reach beyond its row, and the last one beyond the panel.
        let mut lanes = Zeroizing::new(vec![T::default(); (patch.min(DEPTH) + 1) * LANES]);
        for (x, to) in x.chunks_exact(conv.input_elements()).zip(to.chunks_exact_mut(conv.output_elements())) {
            layout.fill(conv, x, &mut sample);
            for (column, runs) in (0..).step_by(LANES).zip(&columns) {
                let width = LANES.min(positions - column);
                for (row, offsets) in (0..).step_by(DEPTH).zip(offsets.chunks(DEPTH)) {
                    for (at, offset) in (0..).step_by(LANES).zip(offsets) {
                        for run in runs {
                            copy_vector(&sample, offset + run.base, &mut lanes, at + run.lane);
                        }
                    }
                    let panel = lanes.as_chunks().0.get(..offsets.len()).unwrap_or_default();
                    panel::multiply::<T, V, ROWS>(filters, patch, panel, Place { row, column, width }, to, positions);
                }
            }
        }
    }
}

/// Copies [`LANES`] elements.
#[inline(always)]
fn copy_vector<T: Scalar>(from: &[T], start: usize, to: &mut [T], place: usize) {
    let from = from.get(start..).and_then(|from| from.first_chunk::<LANES>());
    let to = to.get_mut(place..).and_then(|to| to.first_chunk_mut::<LANES>());
    if let (Some(from), Some(to)) = (from, to) {
        *to = *from;
    }
}

/// Neighbouring output positions of one row, within one panel.
struct Run {
    /// The first one's lane.
    lane: usize,
    /// Where the laid out sample has what the first element of a patch meets there.
    base: usize,
}

/// How a sample is laid out: \[channels, padded height, stride across, `width`\].
struct Layout {
    /// Padded height.
    height: usize,
    /// Columns of each remainder modulo the stride across.
    width: usize,
    /// The stride across.
    across: usize,
}

impl Layout {
    fn new(conv: &Conv) -> Self {
        let [top, bottom, left, right] = conv.padding.map(|n| n as usize);
        let [height, width] = conv.size.map(|n| n as usize);
        let (height, width) = (top + height + bottom, left + width + right);
        // A stride beyond the row's end is never made.
        let across = (conv.strides[1] as usize).min(width);
        Self { height, width: width.div_ceil(across), across }
    }

    /// With the elements that a copied vector may reach beyond the end.
    fn len(&self, conv: &Conv) -> usize {
        conv.channels as usize * self.height * self.across * self.width + LANES
    }

    fn place(&self, channel: usize, y: usize, x: usize) -> usize {
        ((channel * self.height + y) * self.across + x % self.across) * self.width + x / self.across
    }

    /// Lays out one sample. The padding is never written to, and stays zero.
    #[inline(always)]
    fn fill<T: Scalar>(&self, conv: &Conv, x: &[T], sample: &mut [T]) {
        let [height, width] = conv.size.map(|n| n as usize);
        let [top, _, left, _] = conv.padding.map(|n| n as usize);
        for (channel, x) in x.chunks_exact(height * width).enumerate() {
            for (y, row) in x.chunks_exact(width).enumerate() {
                for phase in 0..self.across.min(width) {
                    let start = self.place(channel, top + y, left + phase);
                    let to = sample.get_mut(start..).unwrap_or_default();
                    to.iter_mut().zip(row.iter().skip(phase).step_by(self.across)).for_each(|(to, x)| *to = *x);
                }
            }
        }
    }

    /// Where each element of a patch is, from the patch's place.
    fn offsets(&self, conv: &Conv) -> Vec<usize> {
        let [height, width] = conv.kernel.map(|n| n as usize);
        let elements = (0..conv.channels as usize)
            .flat_map(|channel| (0..height).flat_map(move |y| (0..width).map(move |x| (channel, y, x))));
        elements.map(|(channel, y, x)| self.place(channel, y, x)).collect()
    }

    /// For each panel's columns, the runs of which they are made.
    fn columns(&self, conv: &Conv) -> Vec<Vec<Run>> {
        let [_, width] = conv.output().unwrap_or_default().map(|n| n as usize);
        let (positions, down) = (conv.positions(), conv.strides[0] as usize);
        let starts_run = |position: &usize| position % LANES == 0 || position % width == 0;
        let mut columns: Vec<Vec<Run>> = Vec::with_capacity(positions.div_ceil(LANES));
        for position in (0..positions).filter(starts_run) {
            let (y, x) = (position / width, position % width);
            let run = Run { lane: position % LANES, base: self.place(0, y * down, 0) + x };
            match columns.last_mut() {
                Some(runs) if run.lane > 0 => runs.push(run),
                _ => columns.push(vec![run]),
            }
        }
        columns
    }
}
