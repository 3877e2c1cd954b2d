//! Operators that move elements about.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Range, RangeFrom, RangeFull, RangeTo};

use super::Tensor;
use crate::error::GraphError;
use crate::program::{Arrangement, Op};

/// A part of an axis, with Python's meaning of begin, end and step: negative places count from the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Along {
    begin: Option<i64>,
    end: Option<i64>,
    step: Option<i32>,
}

impl Along {
    /// The same in steps of `step`; negative steps go backwards.
    #[must_use]
    pub fn step(self, step: i32) -> Self {
        Self { step: Some(step), ..self }
    }

    /// First element, number of elements and step along an axis of `length`; `None` if nothing is left.
    fn resolve(self, length: u32) -> Option<(u32, u32, i32)> {
        let (length, step) = (i64::from(length), i64::from(self.step.unwrap_or(1)));
        let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
        let place = |at: i64| (if at < 0 { at + length } else { at }).clamp(low, high);
        let begin = self.begin.map_or(if step > 0 { low } else { high }, place);
        let end = self.end.map_or(if step > 0 { high } else { low }, place);
        let count = match step {
            0 => 0,
            1.. => (end - begin + step - 1) / step,
            _ => (begin - end - step - 1) / -step,
        };
        (count > 0).then_some((begin as u32, count as u32, step as i32))
    }
}

impl From<Range<i64>> for Along {
    fn from(range: Range<i64>) -> Self {
        Self { begin: Some(range.start), end: Some(range.end), step: None }
    }
}

impl From<RangeFrom<i64>> for Along {
    fn from(range: RangeFrom<i64>) -> Self {
        Self { begin: Some(range.start), ..Self::default() }
    }
}

impl From<RangeTo<i64>> for Along {
    fn from(range: RangeTo<i64>) -> Self {
        Self { end: Some(range.end), ..Self::default() }
    }
}

impl From<RangeFull> for Along {
    fn from(_: RangeFull) -> Self {
        Self::default()
    }
}

impl Tensor {
    fn arrange(&self, how: Arrangement) -> Result<Tensor, GraphError> {
        self.unary(Op::Arrange { x: self.id, how })
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// The numbers of elements differ.
    pub fn reshape(&self, shape: &[u32]) -> Result<Tensor, GraphError> {
        if self.shape() == shape { Ok(self.clone()) } else { self.arrange(Arrangement::Reshape(shape.to_vec())) }
    }

    /// All elements in a row.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn flatten(&self) -> Result<Tensor, GraphError> {
        let elements = self.shape().iter().product();
        self.reshape(&[elements])
    }

    /// NumPy's broadcasting to `shape`.
    ///
    /// # Errors
    /// It does not broadcast to that.
    pub fn broadcast_to(&self, shape: &[u32]) -> Result<Tensor, GraphError> {
        if self.shape() == shape { Ok(self.clone()) } else { self.arrange(Arrangement::Broadcast(shape.to_vec())) }
    }

    /// Axis i of the result is axis `permutation[i]`.
    ///
    /// # Errors
    /// `permutation` is none of the axes.
    pub fn transpose(&self, permutation: &[u32]) -> Result<Tensor, GraphError> {
        self.arrange(Arrangement::Transpose(permutation.to_vec()))
    }

    /// A new axis of length 1 before axis `axis`; behind the last one, if it is their number.
    ///
    /// # Errors
    /// There is no such place.
    pub fn expand_dims(&self, axis: u32) -> Result<Tensor, GraphError> {
        let mut shape = self.shape();
        if axis as usize > shape.len() {
            return Err(GraphError::new("expand_dims", format!("there is no place {axis} in shape {shape:?}")));
        }
        shape.insert(axis as usize, 1);
        self.reshape(&shape)
    }

    /// Without these axes, all of length 1; without all axes of length 1, if none are named.
    ///
    /// # Errors
    /// One of them is longer, or not there.
    pub fn squeeze(&self, axes: &[u32]) -> Result<Tensor, GraphError> {
        let shape = self.shape();
        if let Some(axis) = axes.iter().find(|axis| shape.get(**axis as usize) != Some(&1)) {
            return Err(GraphError::new("squeeze", format!("axis {axis} of shape {shape:?} does not have length 1")));
        }
        let dropped = |axis: u32, n: u32| if axes.is_empty() { n == 1 } else { axes.contains(&axis) };
        let kept: Vec<u32> = (0..).zip(&shape).filter(|(axis, n)| !dropped(*axis, **n)).map(|(_, n)| *n).collect();
        self.reshape(if kept.is_empty() { &[1] } else { &kept })
    }

    /// A part of each axis, from the first on; axes not spoken of are kept whole.
    ///
    /// # Errors
    /// There are fewer axes, or nothing is left of one.
    pub fn slice(&self, parts: &[Along]) -> Result<Tensor, GraphError> {
        let shape = self.shape();
        let refuse = |why| Err(GraphError::new("slice", format!("{why}; the operand has shape {shape:?}")));
        if parts.len() > shape.len() {
            return refuse(format!("parts of {} axes are asked for", parts.len()));
        }
        let (mut begin, mut count, mut step) = (vec![], vec![], vec![]);
        for (axis, length) in shape.iter().enumerate() {
            let part = parts.get(axis).copied().unwrap_or_default();
            let Some(resolved) = part.resolve(*length) else {
                return refuse(format!("nothing is left of axis {axis}"));
            };
            begin.push(resolved.0);
            count.push(resolved.1);
            step.push(resolved.2);
        }
        self.arrange(Arrangement::Slice { begin, count, step })
    }

    /// `parts` equal parts along an axis.
    ///
    /// # Errors
    /// The axis is not there, or is not divisible by their number.
    pub fn split(&self, parts: u32, axis: u32) -> Result<Vec<Tensor>, GraphError> {
        let shape = self.shape();
        let length = shape.get(axis as usize).copied().unwrap_or(0);
        if parts == 0 || length == 0 || length % parts != 0 {
            return Err(GraphError::new("split", format!("axis {axis} of shape {shape:?} has no {parts} equal parts")));
        }
        let size = i64::from(length / parts);
        let one = |part: i64| {
            let mut along = vec![Along::default(); axis as usize];
            along.push((part * size..(part + 1) * size).into());
            self.slice(&along)
        };
        (0..i64::from(parts)).map(one).collect()
    }

    /// Tensors one after the other along an axis.
    ///
    /// # Errors
    /// There are none, or they differ in another axis.
    pub fn concat(parts: &[&Tensor], axis: u32) -> Result<Tensor, GraphError> {
        let Some(first) = parts.first() else {
            return Err(GraphError::new("concat", "there is nothing to put together"));
        };
        for part in parts {
            first.graph.own(part, "concat")?;
        }
        first.unary(Op::Concat { parts: parts.iter().map(|part| part.id).collect(), axis })
    }

    /// Tensors of one shape along a new axis.
    ///
    /// # Errors
    /// There are none, or their shapes differ.
    pub fn stack(parts: &[&Tensor], axis: u32) -> Result<Tensor, GraphError> {
        let expanded = parts.iter().map(|part| part.expand_dims(axis)).collect::<Result<Vec<_>, _>>();
        let stacked = expanded.and_then(|parts| {
            if parts.windows(2).any(|pair| matches!(pair, [x, y] if x.shape() != y.shape())) {
                let shapes: Vec<_> = parts.iter().map(Tensor::shape).collect();
                return Err(GraphError::new(
                    "stack",
                    format!("the shapes must be the same; with the new axis: {shapes:?}"),
                ));
            }
            Self::concat(&parts.iter().collect::<Vec<_>>(), axis)
        });
        stacked.map_err(|error| error.of("stack"))
    }

    /// Zeros before and after each axis.
    ///
    /// # Errors
    /// Another number of axes is spoken of than there are.
    pub fn pad(&self, padding: &[[u32; 2]]) -> Result<Tensor, GraphError> {
        self.arrange(Arrangement::Pad(padding.to_vec()))
    }

    /// The whole tensor, repeated along each axis.
    ///
    /// # Errors
    /// Another number of axes is spoken of than there are.
    pub fn tile(&self, times: &[u32]) -> Result<Tensor, GraphError> {
        self.arrange(Arrangement::Tile(times.to_vec()))
    }

    /// The elements at public `indices` along an axis.
    ///
    /// # Errors
    /// An index lies outside.
    pub fn gather(&self, indices: &[u32], axis: u32) -> Result<Tensor, GraphError> {
        self.arrange(Arrangement::Gather { axis, indices: indices.to_vec() })
    }

    /// Zeros between neighbours: `factors[i] - 1` along axis i.
    ///
    /// # Errors
    /// A factor is zero, or another number of axes is spoken of than there are.
    pub fn dilate(&self, factors: &[u32]) -> Result<Tensor, GraphError> {
        self.arrange(Arrangement::Dilate(factors.to_vec()))
    }

    /// The elements in reverse along these axes.
    ///
    /// # Errors
    /// One of the axes is not there.
    pub fn flip(&self, axes: &[u32]) -> Result<Tensor, GraphError> {
        let backwards = |axis| if axes.contains(&axis) { Along::default().step(-1) } else { Along::default() };
        let last = axes.iter().max().map_or(0, |axis| axis + 1);
        self.slice(&(0..last).map(backwards).collect::<Vec<_>>()).map_err(|error| error.of("flip"))
    }

    /// TensorFlow's `space_to_batch_nd` on \[batch, space…, rest…\]: blocks of the padded space become batches.
    ///
    /// # Errors
    /// The padded space is not divisible by the blocks, or axes are missing.
    pub fn space_to_batch(&self, blocks: &[u32], padding: &[[u32; 2]]) -> Result<Tensor, GraphError> {
        let rank = self.shape().len();
        if blocks.len() != padding.len() || rank < blocks.len() + 1 || blocks.contains(&0) {
            return Err(self.no_blocks("space_to_batch", blocks));
        }
        let mut all = vec![[0, 0]; rank];
        all.iter_mut().skip(1).zip(padding).for_each(|(place, padding)| *place = *padding);
        let padded = self.pad(&all)?;
        let shape = padded.shape();
        let [batch, rest @ ..] = shape.as_slice() else { return Err(self.no_blocks("space_to_batch", blocks)) };
        let (space, rest) = rest.split_at(blocks.len());
        if space.iter().zip(blocks).any(|(n, block)| n % block != 0) {
            return Err(padded.no_blocks("space_to_batch", blocks));
        }
        // [batch, n0 / b0, b0, n1 / b1, b1, …, rest] → [b0, b1, …, batch, n0 / b0, n1 / b1, …, rest]
        let pairs: Vec<u32> = space.iter().zip(blocks).flat_map(|(n, block)| [n / block, *block]).collect();
        let cut = padded.reshape(&[&[*batch], pairs.as_slice(), rest].concat())?;
        let count = blocks.len() as u32;
        let inner = (0..count).map(|i| 2 * i + 2);
        let outer = (0..count).map(|i| 2 * i + 1);
        let last = 2 * count + 1..2 * count + 1 + rest.len() as u32;
        let moved = cut.transpose(&inner.chain([0]).chain(outer).chain(last).collect::<Vec<_>>())?;
        let batches = batch * blocks.iter().product::<u32>();
        let space: Vec<u32> = space.iter().zip(blocks).map(|(n, block)| n / block).collect();
        moved.reshape(&[&[batches], space.as_slice(), rest].concat())
    }

    /// TensorFlow's `batch_to_space_nd` on \[batch, space…, rest…\], the inverse of [`Tensor::space_to_batch`]; `crops` are
    /// taken away from the beginning and end of each spatial axis.
    ///
    /// # Errors
    /// The batch is not divisible by the blocks, or axes are missing.
    pub fn batch_to_space(&self, blocks: &[u32], crops: &[[u32; 2]]) -> Result<Tensor, GraphError> {
        let shape = self.shape();
        let refuse = || self.no_blocks("batch_to_space", blocks);
        let all: u32 = blocks.iter().product();
        let [batch, rest @ ..] = shape.as_slice() else { return Err(refuse()) };
        if blocks.len() != crops.len() || rest.len() < blocks.len() || all == 0 || batch % all != 0 {
            return Err(refuse());
        }
        let (space, rest) = rest.split_at(blocks.len());
        // [b0, b1, …, batch, n0, n1, …, rest] → [batch, n0, b0, n1, b1, …, rest]
        let cut = self.reshape(&[blocks, &[batch / all], space, rest].concat())?;
        let count = blocks.len() as u32;
        let pairs = (0..count).flat_map(|i| [count + 1 + i, i]);
        let last = 2 * count + 1..2 * count + 1 + rest.len() as u32;
        let moved = cut.transpose(&[count].into_iter().chain(pairs).chain(last).collect::<Vec<_>>())?;
        let grown: Vec<u32> = space.iter().zip(blocks).map(|(n, block)| n * block).collect();
        let grown = moved.reshape(&[&[batch / all], grown.as_slice(), rest].concat())?;
        let kept = grown.shape();
        let along = |(n, [before, after]): (&u32, &[u32; 2])| {
            Along::from(i64::from(*before)..i64::from(n.saturating_sub(*after)))
        };
        let parts = [Along::default()].into_iter().chain(kept.iter().skip(1).zip(crops).map(along));
        grown.slice(&parts.collect::<Vec<_>>()).map_err(|error| error.of("batch_to_space"))
    }

    fn no_blocks(&self, operation: &'static str, blocks: &[u32]) -> GraphError {
        GraphError::new(operation, format!("blocks {blocks:?} do not fit shape {:?}", self.shape()))
    }
}
