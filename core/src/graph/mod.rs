//! What people write: tensors, operators, players.
//!
//! ```
//! use selkie::graph::{Bounds, Graph};
//! use selkie::program::Numbers;
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let graph = Graph::new();
//! let x = graph.private_input("prediction-client", "image", &[784], [0.0, 1.0])?;
//! let w = graph.private_variable("model-trainer", "weights", &[784, 10])?;
//! let b = graph.private_variable("model-trainer", "bias", &[10])?;
//! let logits = (&x.matmul(&w)? + &b)?;
//! graph.output("prediction-client", &logits)?;
//! let program = graph.compile(Numbers::default(), Bounds::Declared(20))?;
//! # assert_eq!(program.outputs().count(), 1);
//! # Ok(())
//! # }
//! ```
//! Shapes are those of one sample; a program runs on batches of any size, every sample for itself. A shape that does not fit
//! is an error at the line that makes it. Operands of different shapes are broadcast as NumPy does it, and numbers may
//! stand on either side: `(1.0 - &x)?`.

mod arithmetic;
mod arrange;
mod entry;
mod nonlinear;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

pub use arithmetic::{Convolution, Layout, Operand, Padding};
pub use arrange::Along;
pub use entry::Entry;
use ndarray::ArrayViewD;
pub use nonlinear::Pooling;

use crate::bounds;
pub use crate::bounds::Bounds;
use crate::error::{GraphError, PlanError};
use crate::program::{Id, Node, Numbers, Op, Program, RUN, Visibility, Weights};

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: Vec<Node>,
    weights: Weights,
    /// Outputs and assignments, and the entry points to which they belong.
    sinks: Vec<(String, Id)>,
}

/// A value in a graph.
#[derive(Clone, Debug)]
pub struct Tensor {
    graph: Graph,
    id: Id,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&self, op: Op, declared: &[u32]) -> Result<Tensor, GraphError> {
        let mut inner = self.inner.borrow_mut();
        let node = Node::infer(op, declared, &inner.nodes)?;
        let id = Id::try_from(inner.nodes.len()).map_err(|_| GraphError::new("graph", "too many operations"))?;
        inner.nodes.push(node);
        Ok(Tensor { graph: self.clone(), id })
    }

    /// A tensor that `player` feeds; `shape` is one sample's, every element lies in `range`. Whole tensors hold integers and
    /// have no bits after the point.
    ///
    /// # Errors
    /// The shape is empty or too large, or the range is not one.
    pub fn input(
        &self,
        player: &str,
        name: &str,
        shape: &[u32],
        range: [f64; 2],
        visibility: Visibility,
        whole: bool,
    ) -> Result<Tensor, GraphError> {
        self.push(Op::Input { player: player.into(), name: name.into(), range, visibility, whole }, shape)
    }

    /// A tensor that `player` feeds, encoded and shared where it is.
    ///
    /// # Errors
    /// As [`Graph::input`].
    pub fn private_input(
        &self,
        player: &str,
        name: &str,
        shape: &[u32],
        range: [f64; 2],
    ) -> Result<Tensor, GraphError> {
        self.input(player, name, shape, range, Visibility::Private, false)
    }

    /// A tensor that `player` masks where it is: what both servers receive is at once its first opening.
    ///
    /// # Errors
    /// As [`Graph::input`].
    pub fn masked_input(&self, player: &str, name: &str, shape: &[u32], range: [f64; 2]) -> Result<Tensor, GraphError> {
        self.input(player, name, shape, range, Visibility::Masked, false)
    }

    /// A tensor that `player` sends to both servers in clear; they make sure that it is the same.
    ///
    /// # Errors
    /// As [`Graph::input`].
    pub fn public_input(&self, player: &str, name: &str, shape: &[u32], range: [f64; 2]) -> Result<Tensor, GraphError> {
        self.input(player, name, shape, range, Visibility::Public, false)
    }

    /// A tensor that lives on the servers, given by `player` at deployment.
    ///
    /// # Errors
    /// The shape is empty or too large, or the visibility is masked.
    pub fn variable(
        &self,
        player: &str,
        name: &str,
        shape: &[u32],
        visibility: Visibility,
        whole: bool,
    ) -> Result<Tensor, GraphError> {
        self.push(Op::Variable { player: player.into(), name: name.into(), visibility, whole, kept: None }, shape)
    }

    /// A tensor that lives on the servers as shares, given by `player` at deployment.
    ///
    /// # Errors
    /// The shape is empty or too large.
    pub fn private_variable(&self, player: &str, name: &str, shape: &[u32]) -> Result<Tensor, GraphError> {
        self.variable(player, name, shape, Visibility::Private, false)
    }

    /// A tensor that lives on both servers in clear, given by `player` at deployment.
    ///
    /// # Errors
    /// The shape is empty or too large.
    pub fn public_variable(&self, player: &str, name: &str, shape: &[u32]) -> Result<Tensor, GraphError> {
        self.variable(player, name, shape, Visibility::Public, false)
    }

    /// Gives a variable its values; see [`Graph::weights`].
    ///
    /// # Errors
    /// `variable` is none of this graph, or has another shape.
    pub fn initialise(&self, variable: &Tensor, values: ArrayViewD<'_, f32>) -> Result<(), GraphError> {
        self.own(variable, "initialise")?;
        let mut inner = self.inner.borrow_mut();
        let node = inner.nodes.get(variable.id as usize).cloned();
        let values = crate::program::Tensor::from(values);
        match node {
            Some(Node { op: Op::Variable { name, .. }, shape, .. }) if shape == values.shape => {
                inner.weights.0.insert(name, values);
                Ok(())
            }
            Some(Node { op: Op::Variable { .. }, shape, .. }) => Err(GraphError::new(
                "initialise",
                format!("values of shape {:?} for a variable of shape {shape:?}", values.shape),
            )),
            _ => Err(GraphError::new("initialise", "only variables have values of their own")),
        }
    }

    /// The values that variables were given, for their owner's deployment.
    pub fn weights(&self) -> Weights {
        self.inner.borrow().weights.clone()
    }

    /// Numbers that stand in the program itself: everybody knows them.
    ///
    /// # Errors
    /// One of them is not finite, or there are none or too many.
    pub fn constant(&self, values: ArrayViewD<'_, f64>) -> Result<Tensor, GraphError> {
        let shape: Vec<u32> = values.shape().iter().map(|n| u32::try_from(*n).unwrap_or(u32::MAX)).collect();
        let shape = if shape.is_empty() { alloc::vec![1] } else { shape };
        self.push(Op::Constant { values: values.iter().copied().collect() }, &shape)
    }

    /// A single number that stands in the program itself.
    ///
    /// # Errors
    /// It is not finite.
    pub fn number(&self, value: f64) -> Result<Tensor, GraphError> {
        self.push(Op::Constant { values: alloc::vec![value] }, &[1])
    }

    /// The program of a graph without named entry points, every value's bound found as `bounds` says.
    ///
    /// # Errors
    /// The numbers are out of range, names collide, the bounds cannot be found, or there are named entry points.
    pub fn compile(&self, numbers: Numbers, bounds: Bounds<'_>) -> Result<Program, PlanError> {
        let mut nodes = self.inner.borrow().nodes.clone();
        if let Some((entry, _)) = self.inner.borrow().sinks.iter().find(|(entry, _)| entry != RUN) {
            return Err(PlanError::Program(format!("it has entry points ({entry}): use `compile_entries`")));
        }
        bounds::annotate(&mut nodes, numbers, bounds)?;
        Program::new(numbers, nodes)
    }

    /// How large `x` may become, proved: for tests that write graphs at random.
    #[cfg(test)]
    pub(crate) fn magnitude_bits(&self, x: &Tensor, numbers: Numbers) -> i32 {
        let inner = self.inner.borrow();
        let mut nodes = inner.nodes.clone();
        bounds::annotate(&mut nodes, numbers, Bounds::Proved(&inner.weights))
            .map_or(64, |()| nodes.get(x.id as usize).map_or(64, |node| node.bound.bits))
    }

    fn own(&self, x: &Tensor, operation: &'static str) -> Result<(), GraphError> {
        if Rc::ptr_eq(&self.inner, &x.graph.inner) {
            Ok(())
        } else {
            Err(GraphError::new(operation, "the operands belong to different graphs"))
        }
    }
}

impl Tensor {
    /// One sample's shape.
    pub fn shape(&self) -> Vec<u32> {
        self.look(|node| node.shape.clone()).unwrap_or_default()
    }

    /// Who will know it.
    pub fn visibility(&self) -> Visibility {
        self.look(|node| node.visibility).unwrap_or(Visibility::Private)
    }

    /// Whether it holds integers, without bits after the point.
    pub fn is_whole(&self) -> bool {
        self.look(|node| node.whole).unwrap_or(false)
    }

    fn look<T>(&self, at: impl FnOnce(&Node) -> T) -> Option<T> {
        self.graph.inner.borrow().nodes.get(self.id as usize).map(at)
    }

    fn unary(&self, op: Op) -> Result<Tensor, GraphError> {
        self.graph.push(op, &[])
    }

    /// Makes it known to both servers.
    ///
    /// # Errors
    /// None: a public tensor is returned as it is.
    pub fn reveal(&self) -> Result<Tensor, GraphError> {
        match self.visibility() {
            Visibility::Public => Ok(self.clone()),
            _ => self.unary(Op::Reveal { x: self.id }),
        }
    }

    /// Opens it under a mask, once for everything that is computed with it.
    ///
    /// # Errors
    /// It is public.
    pub fn mask(&self) -> Result<Tensor, GraphError> {
        match self.visibility() {
            Visibility::Masked => Ok(self.clone()),
            _ => self.unary(Op::Mask { x: self.id }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test may panic")]
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn shape_errors_name_the_operation_and_both_shapes() {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[3], [0.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[4, 2]).unwrap();
        let error = x.matmul(&w).unwrap_err().to_string();
        assert!(error.contains("matmul") && error.contains("[3]") && error.contains("[4, 2]"), "{error}");
        assert!(x.reshape(&[4]).is_err());
        assert!(x.max_pool2d(Pooling::of([1, 1])).is_err());
        let error = (&x + &w).unwrap_err().to_string();
        assert!(error.contains("add") && error.contains("[3]") && error.contains("[4, 2]"), "{error}");
        assert!(graph.private_input("c", "y", &[0], [0.0, 1.0]).is_err());
        assert!(graph.private_input("c", "y", &[1], [0.0, f64::NAN]).is_err());
        assert!(Graph::new().output("c", &x).is_err());
    }

    #[test]
    fn programs_survive_their_bytes_and_damage_is_refused() {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[1, 4, 4], [0.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[2, 1, 3, 3]).unwrap();
        let y = x.conv2d(&w, Convolution::default()).unwrap().relu().unwrap().flatten().unwrap();
        graph.output("c", &y).unwrap();
        let program = graph.compile(Numbers::default(), Bounds::Declared(10)).unwrap();
        let bytes = program.to_bytes();
        assert_eq!(Program::from_bytes(&bytes).unwrap(), program);
        for cut in 0..bytes.len() {
            assert!(Program::from_bytes(bytes.get(..cut).unwrap()).is_err());
        }
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            for value in [0, 1, 0x7f, 0xff] {
                *damaged.get_mut(index).unwrap() = value;
                if let Ok(read) = Program::from_bytes(&damaged) {
                    // Whatever is accepted is a program that means something else, not an invalid one.
                    assert!(Program::new(read.numbers(), read.nodes().to_vec()).is_ok());
                }
            }
        }
    }
}
