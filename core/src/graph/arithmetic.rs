//! Sums and products.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::Tensor;
use crate::error::GraphError;
use crate::program::{Op, Visibility, same_padding};

/// What stands on the other side of an operator.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// A tensor of the same graph.
    Tensor(&'a Tensor),
    /// A number, which everybody knows.
    Number(f64),
}

impl<'a> From<&'a Tensor> for Operand<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Operand::Tensor(tensor)
    }
}

impl From<f64> for Operand<'_> {
    fn from(number: f64) -> Self {
        Operand::Number(number)
    }
}

/// How far a window moves beyond the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Not at all.
    #[default]
    Valid,
    /// So far that there are ⌈length / stride⌉ windows, as TensorFlow counts it.
    Same,
    /// Above, below, to the left, to the right.
    Explicit([u32; 4]),
}

impl Padding {
    /// Above, below, left, right, for an image of this size.
    pub(super) fn resolve(self, size: [u32; 2], window: [u32; 2], strides: [u32; 2]) -> [u32; 4] {
        match self {
            Padding::Valid => [0; 4],
            Padding::Explicit(padding) => padding,
            Padding::Same => {
                let ([top, bottom], [left, right]) =
                    (same_padding(size[0], window[0], strides[0]), same_padding(size[1], window[1], strides[1]));
                [top, bottom, left, right]
            }
        }
    }
}

/// Where an image's channels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// \[…, channels, height, width\].
    #[default]
    ChannelsFirst,
    /// \[…, height, width, channels\].
    ChannelsLast,
}

/// How images are convolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Steps down and to the right.
    pub strides: [u32; 2],
    /// The distance between neighbours under the filter, down and to the right.
    pub dilations: [u32; 2],
    /// What is added around the image.
    pub padding: Padding,
    /// Into how many groups channels and filters are split, each group for itself.
    pub groups: u32,
    /// Where the images' channels are.
    pub layout: Layout,
}

impl Default for Convolution {
    fn default() -> Self {
        Self { strides: [1, 1], dilations: [1, 1], padding: Padding::Valid, groups: 1, layout: Layout::ChannelsFirst }
    }
}

/// The shape to which two shapes broadcast.
fn broadcast(x: &[u32], y: &[u32]) -> Option<Vec<u32>> {
    let rank = x.len().max(y.len());
    let at =
        |shape: &[u32], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape.get(i).copied().unwrap_or(1));
    let one = |i| match (at(x, i), at(y, i)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(one).collect()
}

impl Tensor {
    /// This tensor and another operand, broadcast to one shape.
    pub(super) fn alike<'a>(
        &self,
        operation: &'static str,
        other: impl Into<Operand<'a>>,
    ) -> Result<(Tensor, Tensor), GraphError> {
        let other = match other.into() {
            Operand::Tensor(other) => {
                self.graph.own(other, operation)?;
                other.clone()
            }
            Operand::Number(number) => self.graph.number(number).map_err(|error| error.of(operation))?,
        };
        let (x, y) = (self.shape(), other.shape());
        let Some(shape) = broadcast(&x, &y) else {
            return Err(GraphError::new(operation, format!("operands of shapes {x:?} and {y:?} do not broadcast")));
        };
        Ok((self.broadcast_to(&shape)?, other.broadcast_to(&shape)?))
    }

    /// self + other. Also `&x + &y`, `&x + 1.0`, `1.0 + &x`.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn add<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("add", other)?;
        x.unary(Op::Add { x: x.id, y: y.id })
    }

    /// self - other. Also `&x - &y`, `&x - 1.0`, `1.0 - &x`.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn sub<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("sub", other)?;
        x.unary(Op::Sub { x: x.id, y: y.id })
    }

    /// self · other, element by element. Also `&x * &y`, `&x * 2.0`, `2.0 * &x`.
    ///
    /// # Errors
    /// The shapes do not broadcast.
    pub fn mul<'a>(&self, other: impl Into<Operand<'a>>) -> Result<Tensor, GraphError> {
        let (x, y) = self.alike("mul", other)?;
        if x.id == y.id { x.square() } else { x.unary(Op::Mul { x: x.id, y: y.id }) }
    }

    /// -self.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn neg(&self) -> Result<Tensor, GraphError> {
        self.graph.number(0.0)?.sub(self)
    }

    /// self · self, element by element.
    ///
    /// # Errors
    /// None that shapes can cause.
    pub fn square(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Square { x: self.id })
    }

    /// self / divisor for a number.
    ///
    /// # Errors
    /// The divisor is zero or not finite.
    pub fn div(&self, divisor: f64) -> Result<Tensor, GraphError> {
        if divisor == 0.0 || !divisor.is_finite() {
            return Err(GraphError::new("div", format!("{divisor} cannot be divided by")));
        }
        self.mul(1.0 / divisor)
    }

    /// self / divisor for a public tensor whose elements have the sign of `least` and at least its magnitude; what is
    /// nearer to zero counts as `least`.
    ///
    /// # Errors
    /// The divisor is not public, or `least` is zero.
    pub fn div_public(&self, divisor: &Tensor, least: f64) -> Result<Tensor, GraphError> {
        self.graph.own(divisor, "div_public")?;
        let reciprocal = divisor.unary(Op::Reciprocal { x: divisor.id, least });
        reciprocal.and_then(|reciprocal| self.mul(&reciprocal)).map_err(|error| error.of("div_public"))
    }

    /// Coefficients\[0\] + coefficients\[1\] · self + …, by Horner's rule.
    ///
    /// # Errors
    /// There are no coefficients, or one of them is not finite.
    pub fn polynomial(&self, coefficients: &[f64]) -> Result<Tensor, GraphError> {
        let Some((highest, rest)) = coefficients.split_last() else {
            return Err(GraphError::new("polynomial", "it has no coefficients"));
        };
        let Some((next, rest)) = rest.split_last() else {
            return self.mul(0.0)?.add(*highest);
        };
        let mut value = self.mul(*highest)?.add(*next)?;
        for coefficient in rest.iter().rev() {
            value = value.mul(self)?.add(*coefficient)?;
        }
        Ok(value)
    }

    /// self \[…, n, m\] times `other` \[m, p\], \[…, m, p\] or \[m\]; self may be a row \[m\].
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor, GraphError> {
        self.graph.own(other, "matmul")?;
        self.unary(Op::MatMul { x: self.id, y: other.id })
    }

    /// Images convolved with `filters` \[out, channels / groups, kernel height, kernel width\].
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn conv2d(&self, filters: &Tensor, how: Convolution) -> Result<Tensor, GraphError> {
        self.graph.own(filters, "conv2d")?;
        let Convolution { strides, dilations, padding, groups, layout } = how;
        if layout == Layout::ChannelsLast {
            let how = Convolution { layout: Layout::ChannelsFirst, ..how };
            return self.channels_first("conv2d")?.conv2d(filters, how)?.channels_last("conv2d");
        }
        let filters = if dilations == [1, 1] {
            filters.clone()
        } else {
            let [down, across] = dilations;
            filters.dilate(&[1, 1, down, across]).map_err(|error| error.of("conv2d"))?
        };
        let (x, f) = (self.shape(), filters.shape());
        let ([.., channels, height, width], [count, _, high, wide]) = (x.as_slice(), f.as_slice()) else {
            return Err(GraphError::new(
                "conv2d",
                format!("images [.., c, h, w] take filters [o, c, kh, kw]; operands have shapes {x:?} and {f:?}"),
            ));
        };
        let padding = padding.resolve([*height, *width], [*high, *wide], strides);
        if groups == 1 {
            return self.unary(Op::Conv2D { x: self.id, filters: filters.id, strides, padding });
        }
        if groups == 0 || channels % groups != 0 || count % groups != 0 {
            return Err(GraphError::new(
                "conv2d",
                format!("channels and filters have no {groups} equal groups; operands have shapes {x:?} and {f:?}"),
            ));
        }
        let axis = x.len() as u32 - 3;
        let pairs = self.split(groups, axis)?.into_iter().zip(filters.split(groups, 0)?);
        let parts = pairs.map(|(x, filters)| x.unary(Op::Conv2D { x: x.id, filters: filters.id, strides, padding }));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Tensor::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }

    /// Images with their channels first, from images with their channels last.
    pub(super) fn channels_first(&self, operation: &'static str) -> Result<Tensor, GraphError> {
        let rank = self.image_rank(operation)?;
        self.transpose(&(0..rank - 3).chain([rank - 1, rank - 3, rank - 2]).collect::<Vec<_>>())
    }

    /// Images with their channels last, from images with their channels first.
    pub(super) fn channels_last(&self, operation: &'static str) -> Result<Tensor, GraphError> {
        let rank = self.image_rank(operation)?;
        self.transpose(&(0..rank - 3).chain([rank - 2, rank - 1, rank - 3]).collect::<Vec<_>>())
    }

    fn image_rank(&self, operation: &'static str) -> Result<u32, GraphError> {
        match self.shape().len() {
            rank @ 3.. => Ok(rank as u32),
            _ => Err(GraphError::new(
                operation,
                format!("an image has three axes, the operand has shape {:?}", self.shape()),
            )),
        }
    }

    /// self plus `bias` \[n\] along the first axis.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn bias(&self, bias: &Tensor) -> Result<Tensor, GraphError> {
        let (shape, entries) = (self.shape(), bias.shape());
        let [entries] = entries.as_slice() else {
            return Err(GraphError::new(
                "bias",
                format!("a bias has one axis; operands have shapes {shape:?} and {entries:?}"),
            ));
        };
        let rest = vec![1; shape.len().saturating_sub(1)];
        self.add(&bias.reshape(&[&[*entries], rest.as_slice()].concat())?).map_err(|error| error.of("bias"))
    }

    /// (self - mean) / deviation, with both numbers public.
    ///
    /// # Errors
    /// One of them is not finite, or the deviation is zero.
    pub fn normalise(&self, mean: f64, deviation: f64) -> Result<Tensor, GraphError> {
        self.unary(Op::Normalise { x: self.id, mean, deviation })
    }

    /// The sum along an axis, which vanishes; a tensor of one element, where it was the only one.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn reduce_sum(&self, axis: u32) -> Result<Tensor, GraphError> {
        self.unary(Op::Sum { x: self.id, axis })
    }

    /// The mean along an axis, which vanishes.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn reduce_mean(&self, axis: u32) -> Result<Tensor, GraphError> {
        let length = self.shape().get(axis as usize).copied().unwrap_or(1);
        self.reduce_sum(axis).map_err(|error| error.of("reduce_mean"))?.div(f64::from(length))
    }

    /// The sums of all elements up to each one, along an axis.
    ///
    /// # Errors
    /// There is no such axis.
    pub fn cumsum(&self, axis: u32) -> Result<Tensor, GraphError> {
        self.unary(Op::CumSum { x: self.id, axis })
    }

    /// Whether both are public: what is computed of them stays so.
    pub fn is_public(&self) -> bool {
        self.visibility() == Visibility::Public
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident),*) => {$(
        impl core::ops::$operator for &Tensor {
            type Output = Result<Tensor, GraphError>;
            fn $method(self, other: &Tensor) -> Self::Output {
                Tensor::$method(self, other)
            }
        }

        impl core::ops::$operator<f64> for &Tensor {
            type Output = Result<Tensor, GraphError>;
            fn $method(self, other: f64) -> Self::Output {
                Tensor::$method(self, other)
            }
        }

        impl core::ops::$operator<&Tensor> for f64 {
            type Output = Result<Tensor, GraphError>;
            fn $method(self, other: &Tensor) -> Self::Output {
                Tensor::$method(&other.graph.number(self)?, other)
            }
        }
    )*};
}
operators!(Add add, Sub sub, Mul mul);

impl core::ops::Neg for &Tensor {
    type Output = Result<Tensor, GraphError>;
    fn neg(self) -> Self::Output {
        Tensor::neg(self)
    }
}
