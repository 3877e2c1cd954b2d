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
//! let logits = x.matmul(&w)?.bias(&b)?;
//! graph.output("prediction-client", &logits)?;
//! let program = graph.compile(Numbers::default(), Bounds::Declared(20))?;
//! # assert_eq!(program.nodes().len(), 6);
//! # Ok(())
//! # }
//! ```
//! A shape that does not fit is an error at the line that makes it.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use crate::bounds;
pub use crate::bounds::Bounds;
use crate::error::{GraphError, PlanError};
use crate::program::{Id, Node, Numbers, Op, Program};

/// A graph under construction.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Rc<RefCell<Vec<Node>>>,
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
        let mut nodes = self.nodes.borrow_mut();
        let node = Node::infer(op, declared, &nodes)?;
        let id = Id::try_from(nodes.len()).map_err(|_| GraphError::new("graph", "too many operations"))?;
        nodes.push(node);
        Ok(Tensor { graph: self.clone(), id })
    }

    /// A tensor that `player` feeds, encoded and shared where it is; `shape` is one sample's, every element lies in
    /// `range`.
    ///
    /// # Errors
    /// The shape is empty or too large, or the range is not one.
    pub fn private_input(
        &self,
        player: &str,
        name: &str,
        shape: &[u32],
        range: [f64; 2],
    ) -> Result<Tensor, GraphError> {
        self.push(Op::Input { player: player.into(), name: name.into(), range }, shape)
    }

    /// A tensor that lives on the servers as shares, given by `player` at deployment.
    ///
    /// # Errors
    /// The shape is empty or too large.
    pub fn private_variable(&self, player: &str, name: &str, shape: &[u32]) -> Result<Tensor, GraphError> {
        self.push(Op::Variable { player: player.into(), name: name.into() }, shape)
    }

    /// Grants `x` to `player`, in clear, and to nobody else.
    ///
    /// # Errors
    /// `x` is of another graph.
    pub fn output(&self, player: &str, x: &Tensor) -> Result<(), GraphError> {
        self.own(x, "output")?;
        self.push(Op::Output { x: x.id, player: player.into() }, &[]).map(|_| ())
    }

    /// The program, every value's bound found as `bounds` says.
    ///
    /// # Errors
    /// The numbers are out of range, names collide, or the bounds cannot be found.
    pub fn compile(&self, numbers: Numbers, bounds: Bounds<'_>) -> Result<Program, PlanError> {
        let mut nodes = self.nodes.borrow().clone();
        bounds::annotate(&mut nodes, numbers, bounds)?;
        Program::new(numbers, nodes)
    }

    fn own(&self, x: &Tensor, operation: &'static str) -> Result<(), GraphError> {
        if Rc::ptr_eq(&self.nodes, &x.graph.nodes) {
            Ok(())
        } else {
            Err(GraphError::new(operation, "the operands belong to different graphs"))
        }
    }
}

impl Tensor {
    /// One sample's shape.
    pub fn shape(&self) -> Vec<u32> {
        self.graph.nodes.borrow().get(self.id as usize).map(|node| node.shape.clone()).unwrap_or_default()
    }

    fn unary(&self, op: Op) -> Result<Tensor, GraphError> {
        self.graph.push(op, &[])
    }

    /// self \[n\] times `weights` \[n, m\].
    ///
    /// # Errors
    /// The shapes do not fit, or `weights` is no variable.
    pub fn matmul(&self, weights: &Tensor) -> Result<Tensor, GraphError> {
        self.graph.own(weights, "matmul")?;
        self.unary(Op::MatMul { x: self.id, weights: weights.id })
    }

    /// self \[c, h, w\] convolved with `filters` \[o, c, kh, kw\]; padding above, below, left, right.
    ///
    /// # Errors
    /// The shapes do not fit, or `filters` is no variable.
    pub fn conv2d(&self, filters: &Tensor, strides: [u32; 2], padding: [u32; 4]) -> Result<Tensor, GraphError> {
        self.graph.own(filters, "conv2d")?;
        self.unary(Op::Conv2D { x: self.id, filters: filters.id, strides, padding })
    }

    /// self plus `bias` \[n\] along the first axis.
    ///
    /// # Errors
    /// The shapes do not fit, or `bias` is no variable.
    pub fn bias(&self, bias: &Tensor) -> Result<Tensor, GraphError> {
        self.graph.own(bias, "bias")?;
        self.unary(Op::Bias { x: self.id, bias: bias.id })
    }

    /// (self - mean) / deviation, with both numbers public.
    ///
    /// # Errors
    /// One of them is not finite, or the deviation is zero.
    pub fn normalise(&self, mean: f64, deviation: f64) -> Result<Tensor, GraphError> {
        self.unary(Op::Normalise { x: self.id, mean, deviation })
    }

    /// max(self, 0), element by element.
    ///
    /// # Errors
    /// self is a variable.
    pub fn relu(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::Relu { x: self.id })
    }

    /// The largest element of each window.
    ///
    /// # Errors
    /// The window does not fit.
    pub fn max_pool2d(&self, window: [u32; 2], strides: [u32; 2]) -> Result<Tensor, GraphError> {
        self.unary(Op::MaxPool { x: self.id, window, strides })
    }

    /// The index of the largest element, the lowest on ties.
    ///
    /// # Errors
    /// self is not a row.
    pub fn argmax(&self) -> Result<Tensor, GraphError> {
        self.unary(Op::ArgMax { x: self.id })
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    /// The numbers of elements differ.
    pub fn reshape(&self, shape: &[u32]) -> Result<Tensor, GraphError> {
        self.unary(Op::Reshape { x: self.id, shape: shape.to_vec() })
    }

    /// All elements in a row.
    ///
    /// # Errors
    /// self is a variable.
    pub fn flatten(&self) -> Result<Tensor, GraphError> {
        let elements = self.shape().iter().product();
        self.reshape(&[elements])
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
        assert!(x.max_pool2d([1, 1], [1, 1]).is_err());
        assert!(w.relu().is_err());
        assert!(graph.private_input("c", "y", &[0], [0.0, 1.0]).is_err());
        assert!(graph.private_input("c", "y", &[1], [0.0, f64::NAN]).is_err());
        assert!(Graph::new().output("c", &x).is_err());
    }

    #[test]
    fn programs_survive_their_bytes_and_damage_is_refused() {
        let graph = Graph::new();
        let x = graph.private_input("c", "x", &[1, 4, 4], [0.0, 1.0]).unwrap();
        let w = graph.private_variable("o", "w", &[2, 1, 3, 3]).unwrap();
        let y = x.conv2d(&w, [1, 1], [0; 4]).unwrap().relu().unwrap().flatten().unwrap();
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
