//! What all parties agree to compute: operations in static single assignment, as data.
//!
//! A [`Program`] says who feeds what, what is computed, who receives what, in which ring, and how large every value may
//! become. It is written by [`crate::graph`] and read from outside: decoding validates everything, so a `Program` in hand
//! is one that could have been written. Its SHA-256 is its identity. The batch is symbolic: shapes are those of one sample.

mod arrangement;
mod entry_points;
mod op;
mod samples;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use arrangement::{Arrangement, Beyond};
pub(crate) use arrangement::{NOWHERE, same_padding, window_counts};
pub use entry_points::{EntryPoints, RUN, no_entry};
pub use op::{Op, Visibility};
pub use samples::Samples;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bilinear::Bilinear;
use crate::error::{Blame, GraphError, PlanError};

/// The version of the serialised form.
const FORMAT: u16 = 3;
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

/// |x| < eighths / 8 · 2^bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The exponent, possibly negative.
    pub bits: i32,
    /// 5 to 8. What is proved from weights, or declared, is rounded to a power of two (8) and says nothing more of them;
    /// what is calibrated is finer, since polynomials are fitted to it.
    pub eighths: u8,
    /// How it is known.
    pub origin: Origin,
}

impl Default for Bound {
    fn default() -> Self {
        Self { bits: 0, eighths: 8, origin: Origin::Declared }
    }
}

impl Bound {
    fn is_one(self) -> bool {
        (-64..=64).contains(&self.bits) && (5..=8).contains(&self.eighths)
    }

    /// The bound as a number.
    pub fn limit(self) -> f64 {
        f64::from(self.eighths) / 8.0 * crate::fixed::power_of_two(self.bits)
    }
}

/// One operation of a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// The shape of one sample's result; of the whole, for a variable.
    pub shape: Vec<u32>,
    /// Who knows the result.
    pub visibility: Visibility,
    /// Whether its elements are integers, without bits after the point.
    pub whole: bool,
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
        let op::Inferred { shape, visibility, whole } = op.infer(declared, &operands)?;
        let elements = shape.iter().try_fold(1u64, |all, n| all.checked_mul(u64::from(*n)));
        if shape.is_empty() || shape.len() > 8 || elements.is_none_or(|n| n == 0 || n > MAX_ELEMENTS) {
            return Err(GraphError::new(
                op.name(),
                format!("shape {shape:?} must have 1 to 8 axes and 1 to {MAX_ELEMENTS} elements"),
            ));
        }
        Ok(Node { op, shape, visibility, whole, bound: Bound::default() })
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
            if (&inferred.shape, inferred.visibility, inferred.whole) != (&node.shape, node.visibility, node.whole) {
                return Err(PlanError::Program(format!(
                    "wire {index} is not what its operation makes of its operands"
                )));
            }
            if let Op::Input { player, name, .. } | Op::Variable { player, name, .. } = &node.op {
                let fits = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
                if !fits(name) || !fits(player) || names.insert(name.clone(), index).is_some() {
                    return Err(PlanError::Program(format!("the name {name:?} is empty, too long or used twice")));
                }
            }
            if !node.bound.is_one() {
                return Err(PlanError::Program(format!("wire {index} has a bound that cannot be: {:?}", node.bound)));
            }
        }
        let program = Self { format: FORMAT, numbers, nodes };
        let mut assigned: Vec<Id> = program.assigned().collect();
        if program.outputs().next().is_none() && assigned.is_empty() {
            return Err(PlanError::Program("it needs an output or an assignment".into()));
        }
        assigned.sort_unstable();
        if assigned.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(PlanError::Program("a variable is assigned twice in one run".into()));
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

    /// The mean and the deviation of an input's normalisation, if that is all that the input is for. Its player's client does
    /// it then, before it encodes, and the parties have nothing to do.
    pub(crate) fn normalisation(&self, input: Id) -> Option<[f64; 2]> {
        let Op::Input { whole: false, .. } = self.node(input)?.op else { return None };
        let mut readers = self.nodes.iter().map(|node| &node.op).filter(|op| op.operands().contains(&input));
        match (readers.next()?, readers.next()) {
            (Op::Normalise { mean, deviation, .. }, None) => Some([*mean, *deviation]),
            _ => None,
        }
    }

    /// The variables, in order.
    pub fn variables(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.select(|op| matches!(op, Op::Variable { .. }))
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = (Id, &Node)> {
        self.select(|op| matches!(op, Op::Output { .. }))
    }

    /// The variables that are assigned, in the order of the assignments.
    pub fn assigned(&self) -> impl Iterator<Item = Id> {
        self.nodes.iter().filter_map(|node| match node.op {
            Op::Assign { variable, .. } => Some(variable),
            _ => None,
        })
    }

    /// The product that node `id` is, if it is one of two factors.
    pub(crate) fn bilinear(&self, id: Id) -> Option<Bilinear> {
        let op = &self.node(id)?.op;
        match op.operands().as_slice() {
            [x, y] => op.bilinear(&self.node(*x)?.shape, &self.node(*y)?.shape),
            _ => None,
        }
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
