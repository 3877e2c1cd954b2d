//! Comparisons, and what is made of them.

use alloc::format;
use alloc::vec::Vec;

use super::Tensor;
use super::arithmetic::{Layout, Operand, Padding};
use crate::error::GraphError;
use crate::program::{Arrangement, Beyond, Op, Samples, window_counts};

/// How images are pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pooling {
    /// Height and width of a window.
    pub window: [u32; 2],
    /// Steps down and to the right.
    pub strides: [u32; 2],
    /// How far windows reach beyond the image; what lies there does not count.
    pub padding: Padding,
    /// Where the images' channels are.
    pub layout: Layout,
}

impl Pooling {
    /// Windows of this size, side by side.
    pub fn of(window: [u32; 2]) -> Self {
        Self { window, strides: window, padding: Padding::Valid, layout: Layout::ChannelsFirst }
    }
}

impl Tensor {
    /// max(self, 0), element by element.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn relu(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Relu { x: self.id })
    }

    /// 1 / (1 + e^-self), element by element, as exactly as the plan says.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn sigmoid(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Sigmoid { x: self.id })
    }

    /// The hyperbolic tangent, element by element, as exactly as the plan says.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn tanh(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Tanh { x: self.id })
    }

    /// Any function, element by element, by its values at 1025 evenly spaced points of a range: straight between them, and
    /// straight on beyond the range. The protocols compute it as exactly as the plan says, with tables, splines or
    /// polynomials.
    ///
    /// # Errors
    /// The range is no range, or the function has no finite value below 2^40 somewhere in it.
    pub fn function(&self, range: [f64; 2], function: impl Fn(f64) -> f64) -> Result<Tensor, GraphError> {
        let samples = Samples::of(range, function).map_err(|why| GraphError::new("function", why))?;
        self.unary(Op::Function { x: self.id, samples })
    }

    /// 1 where self < 0, else 0: the most significant bit.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn negative(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Negative { x: self.id })
    }

    /// 1 where self >= 0, else 0.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn non_negative(&self) -> Result<Tensor, GraphError> {
        self.negative()?.not()
    }

    /// The most significant bit in two's complement.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn msb(&self) -> Result<Tensor, GraphError> {
        self.negative()
    }

    /// The least significant bit of an integer.
    ///
    /// # Errors
    /// self is not whole.
    pub fn lsb(&self) -> Result<Tensor, GraphError> {
        let shape = self.shape();
        self.bits(1).map_err(|error| error.of("lsb"))?.reshape(&shape)
    }

    /// The lowest `count` bits of an integer in two's complement, the lowest first, along a new first axis.
    ///
    /// # Errors
    /// self is not whole, or `count` is not in 1..=64.
    pub fn bits(&self, count: u32) -> Result<Tensor, GraphError> {
        self.unary(Op::Bits { x: self.id, count })
    }

    /// 1 where self < other, else 0.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn less<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        self.sub(other).map_err(|error| error.of("less"))?.negative()
    }

    /// 1 where self <= other, else 0.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn less_equal<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        self.greater(other).map_err(|error| error.of("less_equal"))?.not()
    }

    /// 1 where self > other, else 0.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn greater<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("greater", other)?;
        y.less(&x)
    }

    /// 1 where self >= other, else 0.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn greater_equal<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        self.less(other).map_err(|error| error.of("greater_equal"))?.not()
    }

    /// 1 where self = other in fixed point, else 0.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn equal<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        self.sub(other).map_err(|error| error.of("equal"))?.equal_zero()
    }

    /// 1 where self = 0 in fixed point, else 0.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn equal_zero(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::EqualZero { x: self.id })
    }

    /// 1 - self, for bits.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn not(&self) -> Result<Tensor, GraphError> {
        1.0 - self
    }

    /// 1 where both bits are.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn and(&self, other: &Tensor) -> Result<Tensor, GraphError> {
        self.mul(other).map_err(|error| error.of("and"))
    }

    /// 1 where one of the bits is, or both.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn or(&self, other: &Tensor) -> Result<Tensor, GraphError> {
        self.add(other).map_err(|error| error.of("or"))?.sub(&self.mul(other)?)
    }

    /// 1 where exactly one of the bits is.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn xor(&self, other: &Tensor) -> Result<Tensor, GraphError> {
        let both = self.mul(other).map_err(|error| error.of("xor"))?;
        self.add(other)?.sub(&(2.0 * &both)?)
    }

    /// `x` where this bit is 0, `y` where it is 1.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn select(&self, x: &Tensor, y: &Tensor) -> Result<Tensor, GraphError> {
        let chosen = y.sub(x).and_then(|step| x.add(&self.mul(&step)?));
        chosen.map_err(|error| error.of("select"))
    }

    /// The larger of both, element by element.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn maximum<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("maximum", other)?;
        let shape = x.shape();
        Tensor::stack(&[&x, &y], 0)?.reduce_max(0)?.reshape(&shape)
    }

    /// The smaller of both, element by element.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn minimum<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("minimum", other)?;
        x.neg()?.maximum(&y.neg()?)?.neg()
    }

    /// |self|, element by element.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn abs(&self) -> Result<Tensor, GraphError> {
        (2.0 * &self.relu()?)?.sub(self)
    }

    /// The largest element along an axis, which vanishes.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn reduce_max(&self, axis: u32) -> Result<Tensor, GraphError> {
        let x = self.to_front("reduce_max", axis)?;
        x.unary(Op::Max { x: x.id })
    }

    /// The index of the largest element along an axis, the lowest on ties; the axis vanishes.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn argmax(&self, axis: u32) -> Result<Tensor, GraphError> {
        let x = self.to_front("argmax", axis)?;
        x.unary(Op::ArgMax { x: x.id })
    }

    fn to_front(&self, operation: &'static str, axis: u32) -> Result<Tensor, GraphError> {
        let rank = self.shape().len() as u32;
        match axis {
            0 => Ok(self.clone()),
            _ if axis < rank => {
                self.transpose(&[axis].into_iter().chain((0..rank).filter(|i| *i != axis)).collect::<Vec<_>>())
            }
            _ => Err(GraphError::new(operation, format!("there is no axis {axis} in shape {:?}", self.shape()))),
        }
    }

    /// The largest element of each window of images.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool2d(&self, how: Pooling) -> Result<Tensor, GraphError> {
        self.pooled("max_pool2d", how, Beyond::Repeat, |windows, _| windows.reduce_max(0))
    }

    /// The mean of each window of images; what lies beyond the image does not count, as in TensorFlow.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn avg_pool2d(&self, how: Pooling) -> Result<Tensor, GraphError> {
        self.pooled("avg_pool2d", how, Beyond::Zero, |windows, counts| {
            let sums = windows.reduce_sum(0)?;
            let first = counts.first().copied().unwrap_or(1);
            if counts.iter().all(|count| *count == first) {
                return sums.div(f64::from(first));
            }
            let shape = sums.shape();
            let place = shape.get(shape.len().saturating_sub(2)..).unwrap_or_default();
            let parts: Vec<f64> = counts.iter().map(|count| 1.0 / f64::from(*count)).collect();
            let parts = ndarray::ArrayD::from_shape_vec(place.iter().map(|n| *n as usize).collect::<Vec<_>>(), parts);
            let parts = parts.map_err(|_| GraphError::new("avg_pool2d", "windows without their counts"))?;
            sums.mul(&sums.graph.constant(parts.view())?)
        })
    }

    /// `pool` sees the windows along the first axis, and how many elements of the image each place's window has.
    fn pooled(
        &self,
        operation: &'static str,
        how: Pooling,
        beyond: Beyond,
        pool: impl Fn(&Tensor, &[u32]) -> Result<Tensor, GraphError>,
    ) -> Result<Tensor, GraphError> {
        let Pooling { window, strides, padding, layout } = how;
        if layout == Layout::ChannelsLast {
            let how = Pooling { layout: Layout::ChannelsFirst, ..how };
            return self.channels_first(operation)?.pooled(operation, how, beyond, pool)?.channels_last(operation);
        }
        let shape = self.shape();
        let [_, .., height, width] = shape.as_slice() else {
            return Err(GraphError::new(
                operation,
                format!("an image has three axes, the operand has shape {shape:?}"),
            ));
        };
        let size = [*height, *width];
        let padding = padding.resolve(size, window, strides);
        let windows = self.arrange_windows(operation, Arrangement::Windows { window, strides, padding, beyond })?;
        let [rows, columns] = window_counts(size, window, strides, padding).unwrap_or_default();
        let inside = |step: u32, stride: u32, before: u32, window: u32, length: u32| {
            let start = i64::from(step) * i64::from(stride) - i64::from(before);
            ((start + i64::from(window)).min(i64::from(length)) - start.max(0)).max(1) as u32
        };
        let counts: Vec<u32> = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(row, column)| {
                inside(row, strides[0], padding[0], window[0], size[0])
                    * inside(column, strides[1], padding[2], window[1], size[1])
            })
            .collect();
        pool(&windows, &counts)
    }

    fn arrange_windows(&self, operation: &'static str, how: Arrangement) -> Result<Tensor, GraphError> {
        self.unary(Op::Arrange { x: self.id, how }).map_err(|error| GraphError::new(operation, error.reason))
    }
}
