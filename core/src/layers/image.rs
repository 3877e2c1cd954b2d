//! What layers on images have in common.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use crate::error::GraphError;
use crate::graph::{Layout, Padding, Tensor};
use crate::program::{same_padding, window_counts};

/// Images with their channels first.
pub(super) fn channels_first(x: &Tensor, layout: Layout) -> Result<Tensor, GraphError> {
    move_channels(x, layout, |rank| [rank - 1, rank - 3, rank - 2])
}

/// Images with their channels where `layout` wants them, from images with their channels first.
pub(super) fn channels_back(x: &Tensor, layout: Layout) -> Result<Tensor, GraphError> {
    move_channels(x, layout, |rank| [rank - 2, rank - 1, rank - 3])
}

fn move_channels(x: &Tensor, layout: Layout, last: fn(u32) -> [u32; 3]) -> Result<Tensor, GraphError> {
    match (layout, x.shape().len() as u32) {
        (Layout::ChannelsFirst, _) => Ok(x.clone()),
        (Layout::ChannelsLast, rank @ 3..) => x.transpose(&(0..rank - 3).chain(last(rank)).collect::<Vec<_>>()),
        (Layout::ChannelsLast, _) => Err(no_image(x)),
    }
}

fn no_image(x: &Tensor) -> GraphError {
    GraphError::new("images", format!("an image has three axes, the operand has shape {:?}", x.shape()))
}

/// Images \[…, c, h, w\] as \[n, c, h, w\], and that shape.
pub(super) fn in_a_row(x: &Tensor) -> Result<(Tensor, [u32; 4]), GraphError> {
    let shape = x.shape();
    let [front @ .., c, h, w] = shape.as_slice() else { return Err(no_image(x)) };
    let shape = [front.iter().product(), *c, *h, *w];
    Ok((x.reshape(&shape)?, shape))
}

/// One entry for each channel, so that it broadcasts over images.
pub(super) fn per_channel(entries: &Tensor, layout: Layout) -> Result<Tensor, GraphError> {
    match (layout, entries.shape().as_slice()) {
        (Layout::ChannelsFirst, [channels]) => entries.reshape(&[*channels, 1, 1]),
        _ => Ok(entries.clone()),
    }
}

/// The sums over everything but the channels, of images with their channels first.
pub(super) fn channel_sums(x: &Tensor) -> Result<Tensor, GraphError> {
    let (x, [n, c, h, w]) = in_a_row(x)?;
    x.reshape(&[n, c, h * w])?.reduce_sum(2)?.reshape(&[n, c])?.reduce_sum(0)
}

/// Above, below, left, right.
pub(super) fn resolve(padding: Padding, size: [u32; 2], window: [u32; 2], strides: [u32; 2]) -> [u32; 4] {
    match padding {
        Padding::Valid => [0; 4],
        Padding::Explicit(padding) => padding,
        Padding::Same => {
            let [height, width] = size;
            let ([high, wide], [down, across]) = (window, strides);
            let ([top, bottom], [left, right]) = (same_padding(height, high, down), same_padding(width, wide, across));
            [top, bottom, left, right]
        }
    }
}

/// The windows of an image along one of its axes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub(super) count: u32,
    length: u32,
    window: u32,
    stride: u32,
    before: u32,
}

impl Windows {
    /// Down and across.
    pub(super) fn new(
        operation: &'static str,
        size: [u32; 2],
        window: [u32; 2],
        strides: [u32; 2],
        padding: Padding,
    ) -> Result<[Self; 2], GraphError> {
        let padding = resolve(padding, size, window, strides);
        let ([height, width], [high, wide], [down, across]) = (size, window, strides);
        let [top, bottom, left, right] = padding;
        let counts = window_counts(size, window, strides, padding);
        // A window in the padding alone would have no element.
        let counts = counts.filter(|_| top.max(bottom) < high && left.max(right) < wide);
        let [rows, columns] = counts.ok_or_else(|| {
            let reason = format!("windows of {window:?} with strides {strides:?} and padding {padding:?} in {size:?}");
            GraphError::new(operation, reason)
        })?;
        Ok([
            Self { count: rows, length: height, window: high, stride: down, before: top },
            Self { count: columns, length: width, window: wide, stride: across, before: left },
        ])
    }

    /// For each window, the place of its `offset`-th element: in the image, or beyond it.
    fn places(self, offset: u32) -> impl Iterator<Item = Result<u32, u32>> {
        (0..self.count).map(move |step| {
            let start = i64::from(step) * i64::from(self.stride) - i64::from(self.before);
            match u32::try_from(start + i64::from(offset)) {
                Ok(place) if place < self.length => Ok(place),
                // The window's first element inside, once more: as max-pooling pads.
                _ => Err(start.max(0) as u32),
            }
        })
    }

    /// The same, with the window's first element inside for what lies beyond.
    pub(super) fn repeated(self, offset: u32) -> Vec<u32> {
        self.places(offset).map(|place| place.unwrap_or_else(|first| first)).collect()
    }

    /// How many elements of the image each window has.
    pub(super) fn sizes(self) -> Vec<u32> {
        let mut sizes = vec![0; self.count as usize];
        for offset in 0..self.window {
            sizes.iter_mut().zip(self.places(offset)).for_each(|(size, place)| *size += u32::from(place.is_ok()));
        }
        sizes
    }

    /// All pairs of a window and a place in the image that it covers.
    pub(super) fn covers(self) -> Vec<(u32, u32)> {
        let pairs = |offset| (0..).zip(self.places(offset)).filter_map(|(window, place)| Some((window, place.ok()?)));
        (0..self.window).flat_map(pairs).collect()
    }
}

/// Along `axis`, the element at `to` of the result is the sum of x's elements at all `from`, for the pairs (from, to): the
/// transpose of gathering.
pub(super) fn scatter(x: &Tensor, axis: u32, pairs: &[(u32, u32)], length: u32) -> Result<Tensor, GraphError> {
    let mut sources = vec![vec![]; length as usize];
    for (from, to) in pairs {
        sources.iter_mut().skip(*to as usize).take(1).for_each(|list| list.push(*from));
    }
    // A zero behind the others, for whatever has no source left.
    let shape = x.shape();
    let nothing = shape.get(axis as usize).copied().unwrap_or(0);
    let most = sources.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let x = match sources.iter().all(|list| list.len() == most) {
        true => x.clone(),
        false => x.pad(&(0..).zip(&shape).map(|(i, _)| [0, u32::from(i == axis)]).collect::<Vec<_>>())?,
    };
    let layer = |k: usize| {
        let indices: Vec<u32> = sources.iter().map(|list| list.get(k).copied().unwrap_or(nothing)).collect();
        x.gather(&indices, axis)
    };
    (1..most).try_fold(layer(0)?, |sum, k| sum.add(&layer(k)?))
}
