//! Layers, as TF Encrypted names them, with their backward passes; losses and steps of training. All are graph operations:
//! what is private stays private in both directions.
//!
//! Shapes are those of one sample, or have axes in front: inference usually has none, training states its mini-batch as
//! the first axis. `[.., features]` for [`Dense`], `[.., channels, height, width]` for images.
//!
//! ```
//! use selkie::Seed;
//! use selkie::graph::Graph;
//! use selkie::layers::{Dense, Initialiser, Layer, Owner, Relu, Sequential, Sgd, sigmoid_cross_entropy};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let graph = Graph::new();
//! let owner = Owner::new(&graph, "model-trainer", Seed::new([7; 32]));
//! let network = Sequential::new()
//!     .then(Dense::new(&owner, "first", [784, 128], Initialiser::HeNormal)?)
//!     .then(Relu)
//!     .then(Dense::new(&owner, "second", [128, 10], Initialiser::GlorotUniform)?);
//!
//! // A step of training on 32 samples.
//! let x = graph.private_input("data-owner", "images", &[32, 784], [0.0, 1.0])?;
//! let labels = graph.private_input("data-owner", "labels", &[32, 10], [0.0, 1.0])?;
//! let pass = network.pass(&x)?;
//! let gradient = sigmoid_cross_entropy(&pass.y, &labels)?;
//! let sgd = Sgd { rate: 0.1.into(), samples: 32 };
//! for (parameter, gradient) in network.parameters().iter().zip(network.parameter_gradients(&pass, &gradient)?) {
//!     let better = sgd.step(parameter, &gradient)?;
//! #   assert_eq!(better.shape(), parameter.shape());
//! }
//! # Ok(())
//! # }
//! ```
//! *Protocols.* [`Relu`] and [`MaxPooling2D`] compare on their way back, and max-pooling on its way forth: protocols
//! without comparisons (`pond`) refuse that when planning. All other layers can be trained under every protocol.

mod activation;
mod batchnorm;
mod conv2d;
mod dense;
mod image;
mod initialise;
mod loss;
mod pooling;
mod sequential;
mod sgd;
mod shape;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

pub use activation::{Relu, Sigmoid, Tanh};
pub use batchnorm::{Batchnorm, Moments};
pub use conv2d::{Conv2D, hwio_to_oihw};
pub use dense::Dense;
pub use initialise::{Initialiser, Owner};
pub use loss::{Loss, mean_squared_error, sigmoid_cross_entropy, sigmoid_cross_entropy_in_clear};
pub use pooling::{AveragePooling2D, MaxPooling2D};
pub use sequential::Sequential;
pub use sgd::Sgd;
pub use shape::{Flatten, Reshape};

use crate::error::GraphError;
use crate::graph::Tensor;

/// What a layer was given and what it made of it, kept for the way back.
#[derive(Clone, Debug)]
pub struct Pass {
    /// What it was given.
    pub x: Tensor,
    /// What it made of it.
    pub y: Tensor,
    /// What it compared on its way.
    bits: Vec<Tensor>,
    /// The passes of the layers inside.
    inner: Vec<Pass>,
}

impl Pass {
    fn new(x: &Tensor, y: Tensor) -> Self {
        Self { x: x.clone(), y, bits: vec![], inner: vec![] }
    }

    /// A gradient has the shape of the result that it is of.
    fn check(&self, operation: &'static str, gradient: &Tensor) -> Result<(), GraphError> {
        let (gradient, y) = (gradient.shape(), self.y.shape());
        if gradient == y {
            return Ok(());
        }
        Err(GraphError::new(operation, format!("a gradient of shape {gradient:?} for a result of shape {y:?}")))
    }
}

/// The gradients of a loss.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// By the layer's operand, and of its shape.
    pub input: Tensor,
    /// By its parameters, in their order and shapes.
    pub parameters: Vec<Tensor>,
}

/// A layer of a network. On the way back, `gradient` is that of a loss by `pass.y`, and has its shape; whatever the loss
/// is, gradients by parameters are sums over all axes in front.
pub trait Layer: Debug {
    /// What the layer makes of x.
    ///
    /// # Errors
    /// The shape does not fit.
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError>;

    /// The same, with all that the way back needs.
    ///
    /// # Errors
    /// The shape does not fit.
    fn pass(&self, x: &Tensor) -> Result<Pass, GraphError> {
        Ok(Pass::new(x, self.forward(x)?))
    }

    /// The gradient by `pass.x`.
    ///
    /// # Errors
    /// The gradient does not have the shape of `pass.y`, or the pass is not this layer's.
    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError>;

    /// The gradients by all parameters, in the order of [`Layer::parameters`].
    ///
    /// # Errors
    /// The gradient does not have the shape of `pass.y`, or the pass is not this layer's.
    fn parameter_gradients(&self, _pass: &Pass, _gradient: &Tensor) -> Result<Vec<Tensor>, GraphError> {
        Ok(vec![])
    }

    /// Both. A network's first layer rarely needs the gradient by its input, which is not computed for nothing:
    /// [`Layer::parameter_gradients`] leaves it out.
    ///
    /// # Errors
    /// The gradient does not have the shape of `pass.y`, or the pass is not this layer's.
    fn backward(&self, pass: &Pass, gradient: &Tensor) -> Result<Gradients, GraphError> {
        Ok(Gradients {
            input: self.input_gradient(pass, gradient)?,
            parameters: self.parameter_gradients(pass, gradient)?,
        })
    }

    /// What training changes.
    fn parameters(&self) -> Vec<Tensor> {
        vec![]
    }
}

/// A tensor of shape \[…, n\] as rows \[rows, n\].
fn rows(x: &Tensor) -> Result<Tensor, GraphError> {
    let shape = x.shape();
    let (n, front) = shape.split_last().ok_or_else(|| GraphError::new("rows", "the operand has no axes"))?;
    x.reshape(&[front.iter().product(), *n])
}
