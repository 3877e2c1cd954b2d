//! The operations: what each computes, and what its result looks like.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::arrangement::Arrangement;
use super::samples::Samples;
use super::{Id, Node};
use crate::bilinear::Bilinear;
use crate::error::GraphError;
use crate::kernel::Conv;

/// Who knows a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Visibility {
    /// Both servers.
    Public,
    /// Nobody: the servers hold shares of it.
    Private,
    /// Nobody: both servers hold x - a, and shares of the mask a, which the crypto producer knows.
    Masked,
}

impl Visibility {
    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Visibility::Public => "public",
            Visibility::Private => "private",
            Visibility::Masked => "masked",
        }
    }
}

/// What a node computes. Shapes are those of one sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// A tensor that a player feeds, every element within `range`. Private: the player shares it; masked: the player masks
    /// it, with a mask that both servers had a hand in; public: the player sends it to both servers.
    Input {
        /// Who feeds it.
        player: String,
        /// What it is called.
        name: String,
        /// The smallest and the largest value accepted.
        range: [f64; 2],
        /// Who will know it.
        visibility: Visibility,
        /// Whether its elements are integers, without bits after the point.
        whole: bool,
    },
    /// A tensor that lives on the servers, given by its owner at deployment: as shares, or public.
    Variable {
        /// Who owns it.
        player: String,
        /// What it is called, unlike all others.
        name: String,
        /// Public or private.
        visibility: Visibility,
        /// Whether its elements are integers, without bits after the point.
        whole: bool,
        /// The range in which its elements stay, if runs may change it: then the servers keep it from run to run, shared by all
        /// entry points.
        kept: Option<[f64; 2]>,
    },
    /// Numbers that stand in the program itself, and so are known to everybody.
    Constant {
        /// As many as the shape has elements.
        values: Vec<f64>,
    },
    /// The operand's elements, arranged anew.
    Arrange {
        /// The operand.
        x: Id,
        /// How.
        how: Arrangement,
    },
    /// The operands one after the other, along an axis in which alone they may differ.
    Concat {
        /// At least one.
        parts: Vec<Id>,
        /// The axis.
        axis: u32,
    },
    /// x + y, element by element.
    Add {
        /// The one.
        x: Id,
        /// The other, of the same shape.
        y: Id,
    },
    /// x - y, element by element.
    Sub {
        /// From what.
        x: Id,
        /// What is taken away, of the same shape.
        y: Id,
    },
    /// The sum along an axis, which vanishes.
    Sum {
        /// The operand.
        x: Id,
        /// The axis.
        axis: u32,
    },
    /// The sums of all elements up to each one, along an axis.
    CumSum {
        /// The operand.
        x: Id,
        /// The axis.
        axis: u32,
    },
    /// (x - mean) / deviation, both public.
    Normalise {
        /// What is normalised.
        x: Id,
        /// Taken away first.
        mean: f64,
        /// Divided by then; not zero.
        deviation: f64,
    },
    /// x · y, element by element.
    Mul {
        /// The one factor.
        x: Id,
        /// The other, of the same shape.
        y: Id,
    },
    /// x · x, element by element.
    Square {
        /// The operand.
        x: Id,
    },
    /// x \[…, n, m\] times y \[m, p\], or y \[…, m, p\] with the same axes in front, or y \[m\]. x may be a row \[m\].
    MatMul {
        /// The left factor.
        x: Id,
        /// The right factor.
        y: Id,
    },
    /// Images x \[…, channels, height, width\] convolved with filters \[out, channels, kernel height, kernel width\].
    Conv2D {
        /// The images.
        x: Id,
        /// The filters.
        filters: Id,
        /// Steps down and to the right.
        strides: [u32; 2],
        /// Zeros above, below, to the left, to the right.
        padding: [u32; 4],
    },
    /// 1 / x of a public tensor whose elements all have the sign and the least magnitude that `least` says.
    Reciprocal {
        /// The operand.
        x: Id,
        /// No element is nearer to zero; elements below it count as it.
        least: f64,
    },
    /// 1 where x < 0, else 0.
    Negative {
        /// The operand.
        x: Id,
    },
    /// 1 where x = 0, else 0.
    EqualZero {
        /// The operand.
        x: Id,
    },
    /// The lowest `count` bits of an integer, the lowest first, along a new first axis.
    Bits {
        /// A whole tensor.
        x: Id,
        /// How many.
        count: u32,
    },
    /// max(x, 0).
    Relu {
        /// The operand.
        x: Id,
    },
    /// 1 / (1 + e^-x).
    Sigmoid {
        /// The operand.
        x: Id,
    },
    /// The hyperbolic tangent.
    Tanh {
        /// The operand.
        x: Id,
    },
    /// The largest element along the first axis, which vanishes.
    Max {
        /// The operand.
        x: Id,
    },
    /// The index of the largest element along the first axis, the lowest on ties; the axis vanishes.
    ArgMax {
        /// The operand.
        x: Id,
    },
    /// x, known to both servers: revealed.
    Reveal {
        /// The operand.
        x: Id,
    },
    /// x, opened under a mask, once for everything that is computed with it.
    Mask {
        /// The operand.
        x: Id,
    },
    /// The value that a kept variable has from the next run on. A program that assigns runs on one sample at a time.
    Assign {
        /// The new value.
        x: Id,
        /// The variable.
        variable: Id,
    },
    /// A tensor that a player receives in clear, and nobody else.
    Output {
        /// What is received.
        x: Id,
        /// Who receives it.
        player: String,
    },
    /// Any function of one variable, element by element.
    Function {
        /// The operand.
        x: Id,
        /// The function.
        samples: Samples,
    },
}

/// What is known of a node's result from its operands.
pub(crate) struct Inferred {
    pub(crate) shape: Vec<u32>,
    pub(crate) visibility: Visibility,
    pub(crate) whole: bool,
}

impl Op {
    /// The operation's name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Variable { .. } => "variable",
            Op::Constant { .. } => "constant",
            Op::Arrange { how, .. } => how.name(),
            Op::Concat { .. } => "concat",
            Op::Add { .. } => "add",
            Op::Sub { .. } => "sub",
            Op::Sum { .. } => "reduce_sum",
            Op::CumSum { .. } => "cumsum",
            Op::Normalise { .. } => "normalise",
            Op::Mul { .. } => "mul",
            Op::Square { .. } => "square",
            Op::MatMul { .. } => "matmul",
            Op::Conv2D { .. } => "conv2d",
            Op::Reciprocal { .. } => "reciprocal",
            Op::Negative { .. } => "negative",
            Op::EqualZero { .. } => "equal_zero",
            Op::Bits { .. } => "bits",
            Op::Relu { .. } => "relu",
            Op::Sigmoid { .. } => "sigmoid",
            Op::Tanh { .. } => "tanh",
            Op::Max { .. } => "reduce_max",
            Op::ArgMax { .. } => "argmax",
            Op::Reveal { .. } => "reveal",
            Op::Mask { .. } => "mask",
            Op::Assign { .. } => "assign",
            Op::Output { .. } => "output",
            Op::Function { .. } => "function",
        }
    }

    /// What it reads.
    pub fn operands(&self) -> Vec<Id> {
        match self {
            // They may be large.
            Op::Constant { .. } => vec![],
            Op::Function { x, .. } => vec![*x],
            _ => self.clone().operands_mut().into_iter().map(|id| *id).collect(),
        }
    }

    /// The same operation on operands that have other numbers.
    pub(crate) fn renumbered(&self, number: &dyn Fn(Id) -> Id) -> Op {
        let mut op = self.clone();
        op.operands_mut().into_iter().for_each(|id| *id = number(*id));
        op
    }

    fn operands_mut(&mut self) -> Vec<&mut Id> {
        match self {
            Op::Input { .. } | Op::Variable { .. } | Op::Constant { .. } => vec![],
            Op::Concat { parts, .. } => parts.iter_mut().collect(),
            Op::Add { x, y } | Op::Sub { x, y } | Op::Mul { x, y } | Op::MatMul { x, y } => vec![x, y],
            Op::Assign { x, variable } => vec![x, variable],
            Op::Conv2D { x, filters, .. } => vec![x, filters],
            Op::Arrange { x, .. }
            | Op::Sum { x, .. }
            | Op::CumSum { x, .. }
            | Op::Normalise { x, .. }
            | Op::Square { x }
            | Op::Reciprocal { x, .. }
            | Op::Negative { x }
            | Op::EqualZero { x }
            | Op::Bits { x, .. }
            | Op::Relu { x }
            | Op::Sigmoid { x }
            | Op::Tanh { x }
            | Op::Max { x }
            | Op::ArgMax { x }
            | Op::Reveal { x }
            | Op::Mask { x }
            | Op::Output { x, .. }
            | Op::Function { x, .. } => vec![x],
        }
    }

    /// What the result looks like. Inputs, variables and constants have the shape they are declared with.
    pub(crate) fn infer(&self, declared: &[u32], operands: &[&Node]) -> Result<Inferred, GraphError> {
        let shape = self.shape(declared, operands)?;
        let refuse = |why: String| Err(GraphError::new(self.name(), why));
        let all = |wanted| operands.iter().all(|node| node.visibility == wanted);
        let whole = operands.iter().all(|node| node.whole);
        let (visibility, whole) = match self {
            Op::Input { visibility, whole, .. } => (*visibility, *whole),
            Op::Variable { visibility: Visibility::Masked, .. } => {
                return refuse("a variable is public or private".into());
            }
            Op::Variable { visibility, whole, .. } => (*visibility, *whole),
            Op::Constant { values } => (Visibility::Public, values.iter().all(|x| *x == libm::trunc(*x))),
            Op::Assign { .. } => match operands {
                [x, variable] => {
                    let Op::Variable { kept: Some(_), .. } = &variable.op else {
                        return refuse("only kept variables are assigned: declare it with `kept_variable`".into());
                    };
                    if variable.visibility == Visibility::Public && x.visibility != Visibility::Public {
                        return refuse(
                            "a public variable takes a public value; reveal it first if it may be known".into(),
                        );
                    }
                    if variable.whole && !x.whole {
                        return refuse("a whole variable takes a whole value".into());
                    }
                    (variable.visibility, variable.whole)
                }
                _ => return refuse("a value and a variable".into()),
            },
            Op::Reveal { .. } => (Visibility::Public, whole),
            Op::Mask { .. } if all(Visibility::Public) => return refuse("the operand is public already".into()),
            Op::Mask { .. } => (Visibility::Masked, whole),
            Op::Reciprocal { .. } if !all(Visibility::Public) => {
                return refuse("the divisor must be public; reveal it first if it may be known".into());
            }
            Op::Bits { .. } if !whole => return refuse("bits are taken of whole tensors".into()),
            // What only moves elements about, or combines them linearly, leaves masks what they are.
            Op::Arrange { .. }
            | Op::Concat { .. }
            | Op::Add { .. }
            | Op::Sub { .. }
            | Op::Sum { .. }
            | Op::CumSum { .. }
                if all(Visibility::Masked) =>
            {
                (Visibility::Masked, whole)
            }
            _ => {
                let visibility = if all(Visibility::Public) { Visibility::Public } else { Visibility::Private };
                let whole = match self {
                    Op::Negative { .. } | Op::EqualZero { .. } | Op::Bits { .. } | Op::ArgMax { .. } => true,
                    Op::Normalise { .. }
                    | Op::Sigmoid { .. }
                    | Op::Tanh { .. }
                    | Op::Function { .. }
                    | Op::Reciprocal { .. } => false,
                    _ => whole,
                };
                (visibility, whole)
            }
        };
        Ok(Inferred { shape, visibility, whole })
    }

    fn shape(&self, declared: &[u32], operands: &[&Node]) -> Result<Vec<u32>, GraphError> {
        let shapes: Vec<&[u32]> = operands.iter().map(|node| node.shape.as_slice()).collect();
        let refuse = |why: &str| {
            Err(GraphError::new(
                self.name(),
                match shapes.as_slice() {
                    [] => why.into(),
                    [x] => format!("{why}; the operand has shape {x:?}"),
                    _ => format!("{why}; operands have shapes {shapes:?}"),
                },
            ))
        };
        let without = |axis: usize, x: &[u32]| {
            let kept: Vec<u32> = x.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, n)| *n).collect();
            if kept.is_empty() { vec![1] } else { kept }
        };
        match self {
            Op::Input { range: [low, high], .. } => {
                if !(low.is_finite() && high.is_finite() && low <= high) {
                    return refuse("the declared range must be two finite numbers, the smaller first");
                }
                Ok(declared.to_vec())
            }
            Op::Variable { kept, .. } => {
                if kept.is_some_and(|[low, high]| !(low.is_finite() && high.is_finite() && low <= high)) {
                    return refuse(
                        "the range in which a kept variable stays must be two finite numbers, the smaller first",
                    );
                }
                Ok(declared.to_vec())
            }
            Op::Assign { .. } => match shapes.as_slice() {
                [x, variable] if x == variable => Ok(x.to_vec()),
                _ => refuse("a variable takes a value of its own shape"),
            },
            Op::Constant { values } => {
                let elements = declared.iter().map(|n| *n as usize).product::<usize>();
                if values.len() != elements || values.iter().any(|x| !x.is_finite()) {
                    return refuse(&format!("{} values for shape {declared:?}, all must be finite", values.len()));
                }
                Ok(declared.to_vec())
            }
            Op::Arrange { how, .. } => {
                let x = shapes.first().copied().unwrap_or_default();
                how.shape(x).or_else(|why| refuse(&why))
            }
            Op::Concat { axis, .. } => {
                let axis = *axis as usize;
                let [first, rest @ ..] = shapes.as_slice() else { return refuse("there is nothing to put together") };
                let alike = |x: &&[u32]| x.len() == first.len() && without(axis, x) == without(axis, first);
                if axis >= first.len() || !rest.iter().all(alike) {
                    return refuse(&format!("they may differ in axis {axis} alone"));
                }
                let sum = shapes.iter().filter_map(|x| x.get(axis)).try_fold(0u32, |all, n| all.checked_add(*n));
                let Some(sum) = sum else { return refuse("the result is too large") };
                let mut shape = first.to_vec();
                shape.iter_mut().skip(axis).take(1).for_each(|n| *n = sum);
                Ok(shape)
            }
            Op::Add { .. } | Op::Sub { .. } | Op::Mul { .. } => match shapes.as_slice() {
                [x, y] if x == y => Ok(x.to_vec()),
                _ => refuse("the shapes must be the same, or broadcast to the same"),
            },
            Op::Sum { axis, .. } | Op::CumSum { axis, .. } => match shapes.as_slice() {
                [x] if (*axis as usize) < x.len() => Ok(match self {
                    Op::Sum { .. } => without(*axis as usize, x),
                    _ => x.to_vec(),
                }),
                _ => refuse(&format!("there is no axis {axis}")),
            },
            Op::MatMul { .. } => match shapes.as_slice() {
                [x, y] => match product_shape(x, y) {
                    Some((_, shape)) => Ok(shape),
                    None => refuse("the last axis of the left must be as long as the next to last of the right"),
                },
                _ => refuse("a product has two factors"),
            },
            Op::Conv2D { strides, padding, .. } => match shapes.as_slice() {
                [x, filters] => match convolution_shape(x, filters, *strides, *padding) {
                    Some((_, shape)) => Ok(shape),
                    None => {
                        refuse("images [.., c, h, w] take filters [o, c, kh, kw] that fit into them, padding included")
                    }
                },
                _ => refuse("a convolution has images and filters"),
            },
            Op::Normalise { mean, deviation, .. } => {
                if !(mean.is_finite() && deviation.is_finite() && *deviation != 0.0) {
                    return refuse("mean and deviation must be finite, and the deviation not zero");
                }
                Ok(shapes.concat())
            }
            Op::Reciprocal { least, .. } => {
                if !(least.is_finite() && *least != 0.0) {
                    return refuse("the least divisor must be finite and not zero");
                }
                Ok(shapes.concat())
            }
            Op::Bits { count, .. } => {
                if !(1..=64).contains(count) {
                    return refuse("1 to 64 bits can be taken");
                }
                Ok([&[*count], shapes.concat().as_slice()].concat())
            }
            Op::Max { .. } | Op::ArgMax { .. } => Ok(without(0, &shapes.concat())),
            Op::Function { samples, .. } => samples.check().map_or_else(|why| refuse(&why), |()| Ok(shapes.concat())),
            Op::Square { .. }
            | Op::Negative { .. }
            | Op::EqualZero { .. }
            | Op::Relu { .. }
            | Op::Sigmoid { .. }
            | Op::Tanh { .. }
            | Op::Reveal { .. }
            | Op::Mask { .. }
            | Op::Output { .. } => Ok(shapes.concat()),
        }
    }

    /// The product that it computes of one sample, if it is one of two factors.
    pub(crate) fn bilinear(&self, x: &[u32], y: &[u32]) -> Option<Bilinear> {
        match self {
            Op::Mul { .. } => Some(Bilinear::Elementwise { elements: x.iter().product() }),
            Op::MatMul { .. } => product_shape(x, y).map(|(product, _)| product),
            Op::Conv2D { strides, padding, .. } => {
                convolution_shape(x, y, *strides, *padding).map(|(product, _)| product)
            }
            _ => None,
        }
    }
}

fn product_shape(x: &[u32], y: &[u32]) -> Option<(Bilinear, Vec<u32>)> {
    let (inner, front) = x.split_last()?;
    let count = |shape: &[u32]| shape.iter().try_fold(1u32, |all, n| all.checked_mul(*n));
    let matmul = |count, rows, columns| Bilinear::MatMul { count, rows, inner: *inner, columns };
    match y {
        [m] if m == inner => {
            Some((matmul(1, count(front)?, 1), if front.is_empty() { vec![1] } else { front.to_vec() }))
        }
        [m, p] if m == inner => Some((matmul(1, count(front)?, *p), [front, &[*p]].concat())),
        [many @ .., m, p] if m == inner && !many.is_empty() => {
            let (rows, front) = front.split_last()?;
            (front == many).then(|| Some((matmul(count(many)?, *rows, *p), [front, &[*rows, *p]].concat())))?
        }
        _ => None,
    }
}

fn convolution_shape(x: &[u32], filters: &[u32], strides: [u32; 2], padding: [u32; 4]) -> Option<(Bilinear, Vec<u32>)> {
    let ([front @ .., channels, height, width], [filters, inner, high, wide]) = (x, filters) else { return None };
    if channels != inner {
        return None;
    }
    let conv = Conv {
        channels: *channels,
        size: [*height, *width],
        filters: *filters,
        kernel: [*high, *wide],
        strides,
        padding,
    };
    let [rows, columns] = conv.output()?;
    let images = front.iter().try_fold(1u32, |all, n| all.checked_mul(*n))?;
    Some((Bilinear::Conv { images, conv }, [front, &[*filters, rows, columns]].concat()))
}
