//! Pooling.

use alloc::vec::Vec;

use ndarray::Array;

use super::image::{Windows, channels_back, channels_first, in_a_row, scatter};
use super::{Layer, Pass};
use crate::error::GraphError;
use crate::graph::{Graph, Pooling, Tensor};

/// The mean of each window; what lies beyond the image does not count.
#[derive(Clone, Debug)]
pub struct AveragePooling2D {
    graph: Graph,
    how: Pooling,
}

impl AveragePooling2D {
    /// A layer of this graph.
    pub fn new(graph: &Graph, how: Pooling) -> Self {
        Self { graph: graph.clone(), how }
    }
}

impl Layer for AveragePooling2D {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        x.avg_pool2d(self.how)
    }

    /// Every element of a window has the same part in its mean.
    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        const OPERATION: &str = "AveragePooling2D";
        pass.check(OPERATION, gradient)?;
        let Pooling { window, strides, padding, layout } = self.how;
        let x = channels_first(&pass.x, layout)?;
        let (_, [_, _, height, width]) = in_a_row(&x)?;
        let [down, across] = Windows::new(OPERATION, [height, width], window, strides, padding)?;
        let (gradient, _) = in_a_row(&channels_first(gradient, layout)?)?;
        let (rows, columns) = (down.sizes(), across.sizes());
        let parts: Vec<f64> = rows.iter().flat_map(|h| columns.iter().map(move |w| 1.0 / f64::from(h * w))).collect();
        let first = parts.first().copied().unwrap_or(1.0);
        let part = if parts.iter().all(|part| *part == first) {
            gradient.mul(first)?
        } else {
            let parts = Array::from_shape_vec((rows.len(), columns.len()), parts);
            let parts = parts.map_err(|_| GraphError::new(OPERATION, "windows without their sizes"))?;
            gradient.mul(&self.graph.constant(parts.view().into_dyn())?)?
        };
        let part = scatter(&scatter(&part, 2, &down.covers(), height)?, 3, &across.covers(), width)?;
        channels_back(&part.reshape(&x.shape())?, layout)
    }
}

/// The largest element of each window.
///
/// The way forth with a way back is a tournament that remembers who won: as many comparisons as max-pooling has anyway, and
/// none on the way back, which hands each gradient down to the winner. Ties are won by the first.
#[derive(Clone, Copy, Debug)]
pub struct MaxPooling2D {
    how: Pooling,
}

impl MaxPooling2D {
    /// Windows as `how` says.
    pub fn new(how: Pooling) -> Self {
        Self { how }
    }

    fn windows(&self, x: &Tensor) -> Result<[Windows; 2], GraphError> {
        let (_, [_, _, height, width]) = in_a_row(x)?;
        Windows::new("MaxPooling2D", [height, width], self.how.window, self.how.strides, self.how.padding)
    }

    /// The places in a window, row by row.
    fn offsets(&self) -> impl DoubleEndedIterator<Item = (u32, u32)> {
        let [high, wide] = self.how.window;
        (0..high).flat_map(move |dy| (0..wide).map(move |dx| (dy, dx)))
    }
}

/// The largest of the candidates; for each match, whether the later one won.
fn tournament(candidates: &[Tensor], bits: &mut Vec<Tensor>) -> Result<Tensor, GraphError> {
    match candidates {
        [] => Err(GraphError::new("MaxPooling2D", "a window has no elements")),
        [only] => Ok(only.clone()),
        _ => {
            let (first, second) = candidates.split_at(candidates.len().div_ceil(2));
            let (first, second) = (tournament(first, bits)?, tournament(second, bits)?);
            let bit = first.less(&second)?;
            bits.push(bit.clone());
            bit.select(&first, &second)
        }
    }
}

/// The same backwards: what each of `count` candidates has of the gradient, the last candidate first.
fn hand_down(
    gradient: &Tensor,
    count: usize,
    bits: &mut dyn Iterator<Item = &Tensor>,
    parts: &mut Vec<Tensor>,
) -> Result<(), GraphError> {
    if count <= 1 {
        parts.push(gradient.clone());
        return Ok(());
    }
    let bit = bits.next().ok_or_else(|| GraphError::new("MaxPooling2D", "the pass is another layer's"))?;
    let second = bit.mul(gradient)?;
    hand_down(&second, count / 2, bits, parts)?;
    hand_down(&gradient.sub(&second)?, count.div_ceil(2), bits, parts)
}

impl Layer for MaxPooling2D {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        x.max_pool2d(self.how)
    }

    fn pass(&self, x: &Tensor) -> Result<Pass, GraphError> {
        let images = channels_first(x, self.how.layout)?;
        let [down, across] = self.windows(&images)?;
        let rank = images.shape().len() as u32;
        let candidate = |(dy, dx)| images.gather(&down.repeated(dy), rank - 2)?.gather(&across.repeated(dx), rank - 1);
        let candidates = self.offsets().map(candidate).collect::<Result<Vec<_>, _>>()?;
        let mut bits = Vec::new();
        let y = channels_back(&tournament(&candidates, &mut bits)?, self.how.layout)?;
        Ok(Pass { bits, ..Pass::new(x, y) })
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("MaxPooling2D", gradient)?;
        let images = channels_first(&pass.x, self.how.layout)?;
        let (_, [_, _, height, width]) = in_a_row(&images)?;
        let [down, across] = self.windows(&images)?;
        let gradient = channels_first(gradient, self.how.layout)?;
        let mut parts = Vec::new();
        hand_down(&gradient, self.offsets().count(), &mut pass.bits.iter().rev(), &mut parts)?;
        let rank = images.shape().len() as u32;
        let pairs = |places: Vec<u32>| (0..).zip(places).collect::<Vec<_>>();
        // What lies beyond the image is one of its elements once more, which has the gradient of both.
        let place = |((dy, dx), part): ((u32, u32), &Tensor)| {
            let part = scatter(part, rank - 2, &pairs(down.repeated(dy)), height)?;
            scatter(&part, rank - 1, &pairs(across.repeated(dx)), width)
        };
        let mut placed = self.offsets().rev().zip(&parts).map(place);
        let first = placed.next().ok_or_else(|| GraphError::new("MaxPooling2D", "a window has no elements"))??;
        let sum = placed.try_fold(first, |sum, part| sum.add(&part?))?;
        channels_back(&sum, self.how.layout)
    }
}
