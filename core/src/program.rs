//! What all parties agree to compute: operations in static single assignment, as data.
//!
//! A [`Program`] says who feeds what, what is computed, who receives what, in which ring, and how large every value may
//! become. It is written by [`crate::graph`] and read from outside: decoding validates everything, so a `Program` in hand
//! is one that could have been written. Its SHA-256 is its identity. The batch is symbolic: shapes are those of one sample.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Blame, GraphError, PlanError};
use crate::kernel::{Conv, Linear};

/// The version of the serialised form.
const FORMAT: u16 = 1;
/// More operations than any model that fits in memory has.
const MAX_NODES: usize = 4096;
/// The largest tensor, in elements of one sample.
const MAX_ELEMENTS: u64 = 1 << 28;
const MAX_NAME: usize = 128;

/// An operation's number in its program.
pub type Id = u32;

/// Ring and encoding, one for a whole program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// k: values are shared modulo 2^k.
    pub ring_bits: u32,
    /// f: bits after the point.
    pub fraction_bits: u32,
}

impl Default for Numbers {
    /// k = 64, f = 16.
    fn default() -> Self {
        Self { ring_bits: 64, fraction_bits: 16 }
    }
}

/// Where a wire's bound comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The owner computed it from the weights in clear.
    Proved,
    /// Somebody said so.
    Declared,
    /// The largest magnitude observed on given data, plus a margin. Beyond it answers may be wrong; nothing leaks.
    Calibrated,
}

/// |x| < 2^bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The exponent, possibly negative.
    pub bits: i32,
    /// How it is known.
    pub origin: Origin,
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// A tensor that a player feeds, a row for each sample, every element within `range`.
    Input {
        /// Who feeds it.
        player: String,
        /// What it is called.
        name: String,
        /// The smallest and the largest value accepted.
        range: [f64; 2],
    },
    /// A tensor that lives on the servers as shares, given by its owner at deployment.
    Variable {
        /// Who owns it.
        player: String,
        /// What it is called, unlike all others.
        name: String,
    },
    /// x \[inputs\] times weights \[inputs, outputs\].
    MatMul {
        /// A sample's row.
        x: Id,
        /// A variable.
        weights: Id,
    },
    /// x \[channels, height, width\] convolved with filters \[out, channels, kernel height, kernel width\].
    Conv2D {
        /// A sample's image.
        x: Id,
        /// A variable.
        filters: Id,
        /// Steps down and to the right.
        strides: [u32; 2],
        /// Zeros above, below, to the left, to the right.
        padding: [u32; 4],
    },
    /// x plus a bias for each of the entries of its first axis.
    Bias {
        /// What it is added to.
        x: Id,
        /// A variable of one axis.
        bias: Id,
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
    /// max(x, 0).
    Relu {
        /// The operand.
        x: Id,
    },
    /// The largest element of each window of an image \[channels, height, width\]; windows that do not fit are dropped.
    MaxPool {
        /// The image.
        x: Id,
        /// Height and width.
        window: [u32; 2],
        /// Steps down and to the right.
        strides: [u32; 2],
    },
    /// The index of the largest element of a row; the lowest such index on ties.
    ArgMax {
        /// The row.
        x: Id,
    },
    /// The same elements in another shape.
    Reshape {
        /// The operand.
        x: Id,
        /// The new shape.
        shape: Vec<u32>,
    },
    /// A tensor that a player receives in clear, and nobody else.
    Output {
        /// What is received.
        x: Id,
        /// Who receives it.
        player: String,
    },
}

impl Op {
    /// The operation's name for people.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Variable { .. } => "variable",
            Op::MatMul { .. } => "matmul",
            Op::Conv2D { .. } => "conv2d",
            Op::Bias { .. } => "bias",
            Op::Normalise { .. } => "normalise",
            Op::Relu { .. } => "relu",
            Op::MaxPool { .. } => "maxpool2d",
            Op::ArgMax { .. } => "argmax",
            Op::Reshape { .. } => "reshape",
            Op::Output { .. } => "output",
        }
    }

    /// What it reads.
    pub fn operands(&self) -> Vec<Id> {
        match self {
            Op::Input { .. } | Op::Variable { .. } => vec![],
            Op::MatMul { x, weights } => vec![*x, *weights],
            Op::Conv2D { x, filters, .. } => vec![*x, *filters],
            Op::Bias { x, bias } => vec![*x, *bias],
            Op::Normalise { x, .. }
            | Op::Relu { x }
            | Op::MaxPool { x, .. }
            | Op::ArgMax { x }
            | Op::Reshape { x, .. }
            | Op::Output { x, .. } => vec![*x],
        }
    }

    /// The shape of the result, from the operands'. Inputs and variables have the shape they are declared with.
    fn shape(&self, declared: &[u32], operands: &[&Node]) -> Result<Vec<u32>, GraphError> {
        let shapes: Vec<&[u32]> = operands.iter().map(|node| node.shape.as_slice()).collect();
        let refuse = |why: &str| Err(GraphError::new(self.name(), format!("{why}; operands have shapes {shapes:?}")));
        let is_variable = |index: usize| operands.get(index).is_some_and(|n| matches!(n.op, Op::Variable { .. }));
        if let (false, true) = (matches!(self, Op::Input { .. } | Op::Variable { .. }), is_variable(0)) {
            return refuse("the first operand must depend on an input, not be a variable");
        }
        match self {
            Op::Input { range: [low, high], .. } => {
                if !(low.is_finite() && high.is_finite() && low <= high) {
                    return refuse("the declared range must be two finite numbers, the smaller first");
                }
                Ok(declared.to_vec())
            }
            Op::Variable { .. } => Ok(declared.to_vec()),
            Op::MatMul { .. } => match shapes.as_slice() {
                [[inputs], [rows, outputs]] if inputs == rows && is_variable(1) => Ok(vec![*outputs]),
                _ => refuse("a row [n] is multiplied with a variable [n, m]"),
            },
            Op::Conv2D { strides, padding, .. } => match shapes.as_slice() {
                [[channels, height, width], [filters, inner, kernel_height, kernel_width]]
                    if channels == inner && is_variable(1) =>
                {
                    let conv = Conv {
                        channels: *channels,
                        size: [*height, *width],
                        filters: *filters,
                        kernel: [*kernel_height, *kernel_width],
                        strides: *strides,
                        padding: *padding,
                    };
                    match conv.output() {
                        Some([height, width]) => Ok(vec![*filters, height, width]),
                        None => refuse("the filter does not fit into the padded image"),
                    }
                }
                _ => refuse("an image [c, h, w] is convolved with variable filters [o, c, kh, kw]"),
            },
            Op::Bias { .. } => match shapes.as_slice() {
                [x, [entries]] if x.first() == Some(entries) && is_variable(1) => Ok(x.to_vec()),
                _ => refuse("a variable [n] is added along the first axis of a tensor [n, …]"),
            },
            Op::Normalise { mean, deviation, .. } => {
                if !(mean.is_finite() && deviation.is_finite() && *deviation != 0.0) {
                    return refuse("mean and deviation must be finite, and the deviation not zero");
                }
                Ok(shapes.concat())
            }
            Op::Relu { .. } | Op::Output { .. } => Ok(shapes.concat()),
            Op::MaxPool { window: [high, wide], strides: [down, across], .. } => match shapes.as_slice() {
                [[channels, height, width]]
                    if *high > 0 && *wide > 0 && *down > 0 && *across > 0 && height >= high && width >= wide =>
                {
                    Ok(vec![*channels, (height - high) / down + 1, (width - wide) / across + 1])
                }
                _ => refuse("the window must fit into an image [c, h, w], with strides above zero"),
            },
            Op::ArgMax { .. } => match shapes.as_slice() {
                [[entries]] if *entries > 0 => Ok(vec![1]),
                _ => refuse("argmax takes a row [n]"),
            },
            Op::Reshape { shape, .. } => {
                let count = |shape: &[u32]| shape.iter().map(|n| u64::from(*n)).product::<u64>();
                if shapes.iter().all(|x| x.len() <= 8 && shape.len() <= 8 && count(x) == count(shape)) {
                    Ok(shape.clone())
                } else {
                    refuse(&format!("{shape:?} does not have as many elements"))
                }
            }
        }
    }
}

/// One operation of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The shape of one sample's result; of the whole, for a variable.
    pub shape: Vec<u32>,
    /// How large the result's elements may be.
    pub bound: Bound,
}

impl Node {
    /// A node whose shape follows from its operands.
    pub(crate) fn infer(op: Op, declared: &[u32], before: &[Node]) -> Result<Node, GraphError> {
        let operands: Option<Vec<&Node>> = op.operands().iter().map(|id| before.get(*id as usize)).collect();
        let operands = operands.ok_or_else(|| GraphError::new(op.name(), "an operand comes after its use"))?;
        if operands.iter().any(|node| matches!(node.op, Op::Output { .. })) {
            return Err(GraphError::new(op.name(), "an output cannot be computed with"));
        }
        let shape = op.shape(declared, &operands)?;
        let elements = shape.iter().try_fold(1u64, |all, n| all.checked_mul(u64::from(*n)));
        if shape.is_empty() || shape.len() > 8 || elements.is_none_or(|n| n == 0 || n > MAX_ELEMENTS) {
            return Err(GraphError::new(
                op.name(),
                format!("shape {shape:?} must have 1 to 8 axes and 1 to {MAX_ELEMENTS} elements"),
            ));
        }
        Ok(Node { op, shape, bound: Bound { bits: 0, origin: Origin::Declared } })
    }

    /// Elements of one sample's result.
    pub fn elements(&self) -> usize {
        self.shape.iter().map(|n| *n as usize).product()
    }
}

/// The operations, in order. See the module's documentation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Program {
    format: u16,
    numbers: Numbers,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Unchecked {
    format: u16,
    numbers: Numbers,
    nodes: Vec<Node>,
}

impl TryFrom<Unchecked> for Program {
    type Error = PlanError;

    fn try_from(unchecked: Unchecked) -> Result<Self, PlanError> {
        if unchecked.format != FORMAT {
            return Err(PlanError::Program(format!(
                "it has format {}, this version reads format {FORMAT}; deploy it again",
                unchecked.format
            )));
        }
        Program::new(unchecked.numbers, unchecked.nodes)
    }
}

impl Program {
    /// Checks every operation, shape, name and number.
    pub(crate) fn new(numbers: Numbers, nodes: Vec<Node>) -> Result<Self, PlanError> {
        let Numbers { ring_bits, fraction_bits } = numbers;
        if !(8..=64).contains(&ring_bits) || fraction_bits < 1 || 2 * fraction_bits + 4 > ring_bits {
            return Err(PlanError::Numbers(format!(
                "a ring of {ring_bits} bits with {fraction_bits} fraction bits cannot be: the ring has 8 to 64 bits, \
                 and twice the fraction must leave 4 of them"
            )));
        }
        if nodes.is_empty() || nodes.len() > MAX_NODES {
            return Err(PlanError::Program(format!("{} operations, 1 to {MAX_NODES} are allowed", nodes.len())));
        }
        let mut names = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate() {
            let before = nodes.get(..index).unwrap_or_default();
            let inferred = Node::infer(node.op.clone(), &node.shape, before)
                .map_err(|error| PlanError::Program(format!("wire {index}: {error}")))?;
            if inferred.shape != node.shape {
                return Err(PlanError::Program(format!(
                    "wire {index} has shape {:?}, not {:?}",
                    inferred.shape, node.shape
                )));
            }
            if let Op::Input { player, name, .. } | Op::Variable { player, name } = &node.op {
                let fits = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
                if !fits(name) || !fits(player) || names.insert(name.clone(), index).is_some() {
                    return Err(PlanError::Program(format!("the name {name:?} is empty, too long or used twice")));
                }
            }
            if !(-64..=64).contains(&node.bound.bits) {
                return Err(PlanError::Program(format!("wire {index} has a bound of 2^{}", node.bound.bits)));
            }
        }
        let program = Self { format: FORMAT, numbers, nodes };
        if program.outputs().next().is_none() || program.inputs().next().is_none() {
            return Err(PlanError::Program("it needs an input and an output".into()));
        }
        Ok(program)
    }

    /// Ring and encoding.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// The operations, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The operation `id`.
    pub fn node(&self, id: Id) -> Option<&Node> {
        self.nodes.get(id as usize)
    }

    fn select(&self, wanted: fn(&Op) -> bool) -> impl Iterator<Item = (Id, &Node)> {
        (0..).zip(&self.nodes).filter(move |(_, node)| wanted(&node.op))
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.select(|op| matches!(op, Op::Input { .. }))
    }

    /// The variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.select(|op| matches!(op, Op::Variable { .. }))
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.select(|op| matches!(op, Op::Output { .. }))
    }

    /// The linear map that node `id` applies, if it is a matrix product or a convolution.
    pub fn linear(&self, id: Id) -> Option<Linear> {
        let shape = |id: &Id| self.node(*id).map(|node| node.shape.as_slice());
        match &self.node(id)?.op {
            Op::MatMul { weights, .. } => match shape(weights)? {
                [inputs, outputs] => Some(Linear::MatMul { inputs: *inputs, outputs: *outputs }),
                _ => None,
            },
            Op::Conv2D { x, filters, strides, padding } => match (shape(x)?, shape(filters)?) {
                ([channels, height, width], [filters, _, kernel_height, kernel_width]) => Some(Linear::Conv(Conv {
                    channels: *channels,
                    size: [*height, *width],
                    filters: *filters,
                    kernel: [*kernel_height, *kernel_width],
                    strides: *strides,
                    padding: *padding,
                })),
                _ => None,
            },
            _ => None,
        }
    }

    /// For a max-pooling, the places in one sample's image that compete for each result: one list for each offset in the
    /// window, each as long as the result.
    pub fn windows(&self, id: Id) -> Option<Vec<Vec<u32>>> {
        let node = self.node(id)?;
        let Op::MaxPool { x, window: [high, wide], strides: [down, across] } = &node.op else { return None };
        let ([_, height, width], [channels, rows, columns]) = (self.node(*x)?.shape.as_slice(), node.shape.as_slice())
        else {
            return None;
        };
        let offsets = (0..*high).flat_map(|y| (0..*wide).map(move |x| (y, x)));
        let place = |y: u32, x: u32| {
            (0..*channels).flat_map(move |channel| {
                (0..*rows).flat_map(move |row| {
                    (0..*columns).map(move |column| (channel * height + row * down + y) * width + column * across + x)
                })
            })
        };
        Some(offsets.map(|(y, x)| place(y, x).collect()).collect())
    }

    /// The serialised form.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// Reads and validates a serialised program.
    ///
    /// # Errors
    /// Whoever gave it is to blame: it is cut off, of another format, or not a program.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Blame> {
        match postcard::take_from_bytes::<Unchecked>(bytes) {
            Ok((unchecked, [])) => Program::try_from(unchecked).map_err(|error| Blame::you(format!("{error}"))),
            Ok(_) => Err(Blame::you("a program with bytes after its end")),
            Err(_) => Err(Blame::you("a program that is cut off or damaged")),
        }
    }

    /// The program's identity: the SHA-256 of its serialised form.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }
}

/// A tensor in clear: its shape and its elements, the last axis fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    /// Its shape.
    pub shape: Vec<u32>,
    /// Its elements.
    pub values: Vec<f32>,
}

impl From<ndarray::ArrayViewD<'_, f32>> for Tensor {
    fn from(array: ndarray::ArrayViewD<'_, f32>) -> Self {
        Self { shape: array.shape().iter().map(|n| *n as u32).collect(), values: array.iter().copied().collect() }
    }
}

/// The values of a program's variables, by name, in clear: the model owner's secret.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights(pub BTreeMap<String, Tensor>);

impl core::fmt::Debug for Weights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, tensor)| (name, &tensor.shape))).finish()
    }
}

impl Weights {
    /// The values of the variable that `node` declares.
    ///
    /// # Errors
    /// It is missing, or of another shape than declared.
    pub fn of<'a>(&'a self, node: &Node) -> Result<&'a Tensor, Blame> {
        let Op::Variable { name, .. } = &node.op else {
            return Err(Blame::bug("the weights of something that is no variable were asked for"));
        };
        let tensor = self.0.get(name).ok_or_else(|| Blame::you(format!("no values for the variable {name}")))?;
        if tensor.shape != node.shape || tensor.values.len() != node.elements() {
            return Err(Blame::you(format!(
                "values of shape {:?} for {name}, which has {:?}",
                tensor.shape, node.shape
            )));
        }
        Ok(tensor)
    }
}
