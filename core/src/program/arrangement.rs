//! Moving elements about: one meaning for every operation that computes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// The place of an element that is zero, in [`Arrangement::places`].
pub(crate) const NOWHERE: u32 = u32::MAX;

/// What stands in a window where it reaches beyond the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Beyond {
    /// Zero: for sums.
    Zero,
    /// The window's own first element inside the image, once more: for maxima.
    Repeat,
}

/// How a tensor's elements are arranged anew. Every element of the result is an element of the operand, or zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arrangement {
    /// The same elements in another shape.
    Reshape(Vec<u32>),
    /// Axis i of the result is axis `permutation[i]` of the operand.
    Transpose(Vec<u32>),
    /// From each axis: the elements at `begin`, `begin + step`, …, `count` of them.
    Slice {
        /// The first element of each axis.
        begin: Vec<u32>,
        /// How many of each axis.
        count: Vec<u32>,
        /// The step along each axis; negative ones go backwards.
        step: Vec<i32>,
    },
    /// Along `axis`, the elements at these public indices.
    Gather {
        /// The axis.
        axis: u32,
        /// Places along it, in any order, any number of times.
        indices: Vec<u32>,
    },
    /// NumPy's broadcasting to a shape: axes are added in front, axes of length 1 repeated.
    Broadcast(Vec<u32>),
    /// The whole tensor, repeated along each axis.
    Tile(Vec<u32>),
    /// Zeros before and after, along each axis.
    Pad(Vec<[u32; 2]>),
    /// `n - 1` zeros between neighbours along each axis, for a factor n.
    Dilate(Vec<u32>),
    /// The windows of images \[…, height, width\]: the result is \[window height · window width, …, rows, columns\], so that its
    /// first axis runs over a window's elements.
    Windows {
        /// Height and width.
        window: [u32; 2],
        /// Steps down and to the right.
        strides: [u32; 2],
        /// Above, below, to the left, to the right.
        padding: [u32; 4],
        /// What stands in the padding.
        beyond: Beyond,
    },
}

/// The number of elements, if it can be counted.
fn elements(shape: &[u32]) -> Option<u64> {
    shape.iter().try_fold(1u64, |all, n| all.checked_mul(u64::from(*n)))
}

/// Every index of `shape`, the last axis fastest.
fn indices(shape: &[u32]) -> impl Iterator<Item = Vec<u32>> {
    let shape = shape.to_vec();
    let count = elements(&shape).unwrap_or(0);
    (0..count).map(move |flat| {
        let mut rest = flat;
        let mut index: Vec<u32> = shape
            .iter()
            .rev()
            .map(|n| {
                let at = rest % u64::from((*n).max(1));
                rest /= u64::from((*n).max(1));
                at as u32
            })
            .collect();
        index.reverse();
        index
    })
}

/// The flat place of `index` in a tensor of `shape`.
fn flat(shape: &[u32], index: impl IntoIterator<Item = u32>) -> u32 {
    shape.iter().zip(index).fold(0, |place, (n, at)| place * n + at)
}

impl Arrangement {
    /// The operation's name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Arrangement::Reshape(_) => "reshape",
            Arrangement::Transpose(_) => "transpose",
            Arrangement::Slice { .. } => "slice",
            Arrangement::Gather { .. } => "gather",
            Arrangement::Broadcast(_) => "broadcast",
            Arrangement::Tile(_) => "tile",
            Arrangement::Pad(_) => "pad",
            Arrangement::Dilate(_) => "dilate",
            Arrangement::Windows { .. } => "windows",
        }
    }

    /// The shape of the result for an operand of shape `x`, or why there is none.
    pub(crate) fn shape(&self, x: &[u32]) -> Result<Vec<u32>, String> {
        let every_axis = |given: usize| {
            if given == x.len() { Ok(()) } else { Err(format!("{given} axes are spoken of, there are {}", x.len())) }
        };
        let too_large = || "the result is too large".into();
        match self {
            Arrangement::Reshape(shape) => match elements(shape) == elements(x) {
                true => Ok(shape.clone()),
                false => Err(format!("{shape:?} does not have as many elements")),
            },
            Arrangement::Transpose(permutation) => {
                let mut sorted = permutation.clone();
                sorted.sort_unstable();
                if !sorted.iter().copied().eq(0..x.len() as u32) {
                    return Err(format!("{permutation:?} is no permutation of the axes"));
                }
                Ok(permutation.iter().filter_map(|axis| x.get(*axis as usize).copied()).collect())
            }
            Arrangement::Slice { begin, count, step } => {
                every_axis(begin.len())?;
                every_axis(count.len())?;
                every_axis(step.len())?;
                for (n, (begin, (count, step))) in x.iter().zip(begin.iter().zip(count.iter().zip(step))) {
                    let last = i64::from(*begin) + i64::from(count.saturating_sub(1)) * i64::from(*step);
                    if *count == 0 || *step == 0 || begin >= n || !(0..i64::from(*n)).contains(&last) {
                        return Err(format!("{count} elements from {begin} on in steps of {step} are not there"));
                    }
                }
                Ok(count.clone())
            }
            Arrangement::Gather { axis, indices } => {
                let length = x.get(*axis as usize).ok_or_else(|| format!("there is no axis {axis}"))?;
                if indices.is_empty() || indices.iter().any(|index| index >= length) {
                    return Err(format!(
                        "an index lies outside the {length} elements of axis {axis}, or there is none"
                    ));
                }
                let mut shape = x.to_vec();
                shape.iter_mut().skip(*axis as usize).take(1).for_each(|n| *n = indices.len() as u32);
                Ok(shape)
            }
            Arrangement::Broadcast(shape) => {
                let fits = shape.len() >= x.len()
                    && x.iter().rev().zip(shape.iter().rev()).all(|(from, to)| from == to || *from == 1);
                if fits { Ok(shape.clone()) } else { Err(format!("it does not broadcast to {shape:?}")) }
            }
            Arrangement::Tile(times) => {
                every_axis(times.len())?;
                x.iter().zip(times).map(|(n, times)| n.checked_mul(*times).ok_or_else(too_large)).collect()
            }
            Arrangement::Pad(padding) => {
                every_axis(padding.len())?;
                let sum = |(n, [before, after]): (&u32, &[u32; 2])| n.checked_add(*before)?.checked_add(*after);
                x.iter().zip(padding).map(|pair| sum(pair).ok_or_else(too_large)).collect()
            }
            Arrangement::Dilate(factors) => {
                every_axis(factors.len())?;
                let grown = |(n, factor): (&u32, &u32)| {
                    (*factor > 0 && *n > 0).then(|| (n - 1).checked_mul(*factor)?.checked_add(1))?
                };
                x.iter().zip(factors).map(|pair| grown(pair).ok_or_else(too_large)).collect()
            }
            Arrangement::Windows { window, strides, padding, .. } => {
                let [rest @ .., height, width] = x else { return Err("windows are taken of images".into()) };
                let [high, wide] = window;
                let [rows, columns] = window_counts([*height, *width], *window, *strides, *padding)
                    .ok_or("the window does not fit into the padded image, or a stride is zero")?;
                let [top, bottom, left, right] = padding;
                // A window that lies in the padding alone would have nothing to repeat.
                if [top, bottom].into_iter().any(|n| n >= high) || [left, right].into_iter().any(|n| n >= wide) {
                    return Err("the padding is as large as the window".into());
                }
                Ok([&[high.checked_mul(*wide).ok_or_else(too_large)?], rest, &[rows, columns]].concat())
            }
        }
    }

    /// For every element of the result, its flat place in an operand of shape `x`, or [`NOWHERE`].
    pub(crate) fn places(&self, x: &[u32]) -> Vec<u32> {
        let shape = self.shape(x).unwrap_or_default();
        let count = elements(&shape).unwrap_or(0);
        let all = indices(&shape);
        match self {
            Arrangement::Reshape(_) => (0..count as u32).collect(),
            Arrangement::Transpose(permutation) => {
                let mut source = vec![0; x.len()];
                all.map(|index| {
                    for (axis, at) in permutation.iter().zip(index) {
                        source.iter_mut().skip(*axis as usize).take(1).for_each(|place| *place = at);
                    }
                    flat(x, source.iter().copied())
                })
                .collect()
            }
            Arrangement::Slice { begin, step, .. } => {
                let at = |((begin, step), at): ((&u32, &i32), u32)| {
                    (i64::from(*begin) + i64::from(at) * i64::from(*step)) as u32
                };
                all.map(|index| flat(x, begin.iter().zip(step).zip(index).map(at))).collect()
            }
            Arrangement::Gather { axis, indices } => {
                let at = |(i, at): (u32, u32)| match i == *axis {
                    true => indices.get(at as usize).copied().unwrap_or(0),
                    false => at,
                };
                all.map(|index| flat(x, (0..).zip(index).map(at))).collect()
            }
            Arrangement::Broadcast(_) => {
                let added = shape.len() - x.len();
                let at = |(n, at): (&u32, u32)| if *n == 1 { 0 } else { at };
                all.map(|index| flat(x, x.iter().zip(index.into_iter().skip(added)).map(at))).collect()
            }
            Arrangement::Tile(_) => {
                all.map(|index| flat(x, x.iter().zip(index).map(|(n, at)| at % (*n).max(1)))).collect()
            }
            Arrangement::Pad(padding) => all
                .map(|index| {
                    let inside = index
                        .iter()
                        .zip(padding.iter().zip(x))
                        .map(|(at, ([before, _], n))| at.checked_sub(*before).filter(|at| at < n));
                    inside.collect::<Option<Vec<u32>>>().map_or(NOWHERE, |index| flat(x, index))
                })
                .collect(),
            Arrangement::Dilate(factors) => all
                .map(|index| {
                    let inside = index.iter().zip(factors).map(|(at, n)| (at % n == 0).then(|| at / n));
                    inside.collect::<Option<Vec<u32>>>().map_or(NOWHERE, |index| flat(x, index))
                })
                .collect(),
            Arrangement::Windows { window, strides, padding, beyond } => {
                let [rest @ .., height, width] = x else { return Vec::new() };
                let images = elements(rest).unwrap_or(0) as u32;
                let [rows, columns] = window_counts([*height, *width], *window, *strides, *padding).unwrap_or_default();
                let [high, wide] = window;
                let [top, _, left, _] = padding;
                // Where a window's element lies along one axis: inside, or at the window's first element that is.
                let along = |step: u32, stride: u32, offset: u32, before: u32, length: u32| {
                    let start = i64::from(step) * i64::from(stride) - i64::from(before);
                    let at = start + i64::from(offset);
                    let inside = (0..i64::from(length)).contains(&at);
                    match (inside, beyond) {
                        (true, _) => Some(at as u32),
                        (false, Beyond::Repeat) => Some(start.max(0) as u32),
                        (false, Beyond::Zero) => None,
                    }
                };
                let mut places = Vec::with_capacity(count as usize);
                for (dy, dx) in (0..*high).flat_map(|y| (0..*wide).map(move |x| (y, x))) {
                    for image in 0..images {
                        for (row, column) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
                            let y = along(row, strides[0], dy, *top, *height);
                            let x = along(column, strides[1], dx, *left, *width);
                            places.push(y.zip(x).map_or(NOWHERE, |(y, x)| (image * height + y) * width + x));
                        }
                    }
                }
                places
            }
        }
    }
}

/// How many windows there are down and across, or `None` if one does not fit.
pub(crate) fn window_counts(
    size: [u32; 2],
    window: [u32; 2],
    strides: [u32; 2],
    padding: [u32; 4],
) -> Option<[u32; 2]> {
    let along = |size: u32, before: u32, after: u32, window: u32, stride: u32| {
        let room = size.checked_add(before)?.checked_add(after)?.checked_sub(window)?;
        (window > 0).then(|| room.checked_div(stride))?.map(|steps| steps + 1)
    };
    let [top, bottom, left, right] = padding;
    Some([along(size[0], top, bottom, window[0], strides[0])?, along(size[1], left, right, window[1], strides[1])?])
}

/// The padding before and after that TensorFlow's SAME means: ⌈length / stride⌉ windows, an odd zero at the end.
pub(crate) fn same_padding(length: u32, window: u32, stride: u32) -> [u32; 2] {
    let windows = length.div_ceil(stride.max(1));
    let total = (windows.saturating_sub(1) * stride + window).saturating_sub(length);
    [total / 2, total - total / 2]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use ndarray::{Array, Axis, IxDyn, Slice as Along};

    fn iota(shape: &[usize]) -> Array<u32, IxDyn> {
        let count = shape.iter().product::<usize>() as u32;
        Array::from_shape_vec(shape, (0..count).collect()).unwrap()
    }

    fn check(how: Arrangement, x: &[usize], expected: &Array<u32, IxDyn>) {
        let shape: Vec<u32> = x.iter().map(|n| *n as u32).collect();
        let result: Vec<usize> = how.shape(&shape).unwrap().iter().map(|n| *n as usize).collect();
        assert_eq!(result, expected.shape(), "{how:?}");
        assert_eq!(how.places(&shape), expected.iter().copied().collect::<Vec<_>>(), "{how:?}");
    }

    /// ndarray's own meaning of each, on numbered elements.
    #[test]
    fn elements_go_where_ndarray_says() {
        let x = iota(&[2, 3, 4]);
        check(Arrangement::Reshape(vec![6, 4]), &[2, 3, 4], &iota(&[6, 4]));
        for permutation in [[0, 1, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let expected = x.clone().permuted_axes(permutation.map(|axis| axis as usize).to_vec());
            check(Arrangement::Transpose(permutation.to_vec()), &[2, 3, 4], &expected.as_standard_layout().to_owned());
        }
        let sliced =
            x.slice_axis(Axis(2), Along::new(0, None, -2)).slice_axis(Axis(1), Along::new(1, Some(3), 1)).to_owned();
        let how = Arrangement::Slice { begin: vec![0, 1, 3], count: vec![2, 2, 2], step: vec![1, 1, -2] };
        check(how, &[2, 3, 4], &sliced);
        check(Arrangement::Gather { axis: 1, indices: vec![2, 0, 2] }, &[2, 3, 4], &x.select(Axis(1), &[2, 0, 2]));
        let row = iota(&[3, 1]);
        check(Arrangement::Broadcast(vec![2, 3, 4]), &[3, 1], &row.broadcast(IxDyn(&[2, 3, 4])).unwrap().to_owned());
        let twice = ndarray::concatenate(Axis(1), &[x.view(), x.view()]).unwrap();
        check(Arrangement::Tile(vec![1, 2, 1]), &[2, 3, 4], &twice);
        let n = NOWHERE;
        let padded = [[n; 5], [0, 1, 2, 3, n], [4, 5, 6, 7, n]].concat();
        let padded = Array::from_shape_vec(IxDyn(&[3, 5]), padded).unwrap();
        check(Arrangement::Pad(vec![[1, 0], [0, 1]]), &[2, 4], &padded);
        let dilated = [[0, n, n, 1], [n; 4], [2, n, n, 3]].concat();
        let dilated = Array::from_shape_vec(IxDyn(&[3, 4]), dilated).unwrap();
        check(Arrangement::Dilate(vec![2, 3]), &[2, 2], &dilated);
    }

    #[test]
    fn windows_are_those_of_an_image_with_its_padding() {
        let how = |beyond| Arrangement::Windows { window: [2, 2], strides: [2, 1], padding: [1, 0, 0, 1], beyond };
        let (n, shape) = (NOWHERE, [3, 2]);
        assert_eq!(how(Beyond::Zero).shape(&shape).unwrap(), [4, 2, 2]);
        let zero = [[n, n, 2, 3], [n, n, 3, n], [0, 1, 4, 5], [1, n, 5, n]].concat();
        assert_eq!(how(Beyond::Zero).places(&shape), zero);
        let repeated = [[0, 1, 2, 3], [1, 1, 3, 3], [0, 1, 4, 5], [1, 1, 5, 5]].concat();
        assert_eq!(how(Beyond::Repeat).places(&shape), repeated);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shape = [2, 3];
        for how in [
            Arrangement::Reshape(vec![5]),
            Arrangement::Transpose(vec![0, 0]),
            Arrangement::Transpose(vec![0]),
            Arrangement::Slice { begin: vec![0, 0], count: vec![2, 4], step: vec![1, 1] },
            Arrangement::Slice { begin: vec![0, 0], count: vec![2, 2], step: vec![1, -1] },
            Arrangement::Slice { begin: vec![0, 0], count: vec![2, 0], step: vec![1, 1] },
            Arrangement::Gather { axis: 1, indices: vec![3] },
            Arrangement::Gather { axis: 2, indices: vec![0] },
            Arrangement::Broadcast(vec![3, 3]),
            Arrangement::Broadcast(vec![3]),
            Arrangement::Tile(vec![1]),
            Arrangement::Pad(vec![[0, u32::MAX], [0, 0]]),
            Arrangement::Dilate(vec![0, 1]),
            Arrangement::Windows { window: [3, 1], strides: [1, 1], padding: [0; 4], beyond: Beyond::Zero },
            Arrangement::Windows { window: [1, 1], strides: [0, 1], padding: [0; 4], beyond: Beyond::Zero },
            Arrangement::Windows { window: [2, 2], strides: [1, 1], padding: [2, 0, 0, 0], beyond: Beyond::Repeat },
        ] {
            assert!(how.shape(&shape).is_err(), "{how:?}");
        }
    }

    #[test]
    fn same_is_counted_as_tensorflow_counts_it() {
        for (length, window, stride, padding) in
            [(28, 5, 1, [2, 2]), (28, 5, 2, [1, 2]), (7, 2, 2, [0, 1]), (5, 2, 3, [0, 0]), (4, 3, 2, [0, 1])]
        {
            assert_eq!(same_padding(length, window, stride), padding);
        }
    }
}
