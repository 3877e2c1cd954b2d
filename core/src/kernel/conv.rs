//! Convolution, as the product of the filters with the patches that they see.
//!
//! The matrix of patches (im2col) is never made: a panel of it is, for [`LANES`] output positions and [`DEPTH`] elements
//! of a patch. Each sample is first laid out so that what one element of a patch meets at neighbouring positions lies
//! side by side: with its padding, and with every row's columns sorted by their remainder modulo the stride. A panel is
//! then filled by copies of whole vectors.

use alloc::vec;
use alloc::vec::Vec;

use super::panel::{self, DEPTH, LANES, Place};
use super::simd::{Vector, Work};
use super::{Conv, Scalar};
use crate::wipe::wipe;

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
        let (offsets, places) = (layout.offsets(conv), layout.places(conv));
        let mut sample = vec![T::default(); layout.len(conv)];
        let mut panel = vec![[T::default(); LANES]; patch.min(DEPTH)];
        for (x, to) in x.chunks_exact(conv.input_elements()).zip(to.chunks_exact_mut(conv.output_elements())) {
            layout.fill(conv, x, &mut sample);
            for (column, places) in (0..).step_by(LANES).zip(places.chunks(LANES)) {
                for (row, offsets) in (0..).step_by(DEPTH).zip(offsets.chunks(DEPTH)) {
                    let panel = panel.get_mut(..offsets.len()).unwrap_or_default();
                    match layout.together {
                        8 => gather::<T, 8>(&sample, offsets, places, panel),
                        4 => gather::<T, 4>(&sample, offsets, places, panel),
                        2 => gather::<T, 2>(&sample, offsets, places, panel),
                        _ => gather::<T, 1>(&sample, offsets, places, panel),
                    }
                    let place = Place { row, column, width: places.len() };
                    panel::multiply::<T, V, ROWS>(filters, patch, panel, place, to, positions);
                }
            }
        }
        wipe(&mut sample);
        wipe(&mut panel);
    }
}

/// Fills a panel: row by row an element of the patches, column by column an output position. Of the positions, `TOGETHER`
/// at a time are neighbours.
#[inline(always)]
fn gather<T: Scalar, const TOGETHER: usize>(
    sample: &[T],
    offsets: &[usize],
    places: &[usize],
    panel: &mut [[T; LANES]],
) {
    let mut starts = [0; LANES];
    starts.iter_mut().zip(places.iter().step_by(TOGETHER)).for_each(|(start, place)| *start = *place);
    for (row, offset) in panel.iter_mut().zip(offsets) {
        for (to, start) in row.as_chunks_mut::<TOGETHER>().0.iter_mut().zip(starts) {
            if let Some(from) = sample.get(start + offset..).and_then(|from| from.first_chunk()) {
                *to = *from;
            }
        }
    }
}

/// How a sample is laid out: \[channels, padded height, stride across, `width`\].
struct Layout {
    /// Padded height.
    height: usize,
    /// Columns of each remainder modulo the stride across.
    width: usize,
    /// The stride across.
    across: usize,
    /// So many output positions at a time, 1 to 8, are neighbours in every panel.
    together: usize,
}

impl Layout {
    fn new(conv: &Conv) -> Self {
        let [top, bottom, left, right] = conv.padding.map(|n| n as usize);
        let [height, width] = conv.size.map(|n| n as usize);
        let (height, width) = (top + height + bottom, left + width + right);
        // A stride beyond the row's end is never made.
        let across = (conv.strides[1] as usize).min(width);
        let [_, outputs] = conv.output().unwrap_or_default();
        let together = 1 << outputs.trailing_zeros().min(3);
        Self { height, width: width.div_ceil(across), across, together }
    }

    fn len(&self, conv: &Conv) -> usize {
        conv.channels as usize * self.height * self.across * self.width
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
                if self.across == 1 {
                    let start = self.place(channel, top + y, left);
                    let to = sample.get_mut(start..).unwrap_or_default();
                    to.iter_mut().zip(row).for_each(|(to, x)| *to = *x);
                    continue;
                }
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

    /// Where each output position's patch is.
    fn places(&self, conv: &Conv) -> Vec<usize> {
        let [height, width] = conv.output().unwrap_or_default().map(|n| n as usize);
        let down = conv.strides[0] as usize;
        (0..height).flat_map(|y| (0..width).map(move |x| self.place(0, y * down, 0) + x)).collect()
    }
}
