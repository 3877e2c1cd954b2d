//! Element by element.

use super::{Layer, Pass};
use crate::error::GraphError;
use crate::graph::Tensor;

/// max(x, 0). Its derivative is 1 where x >= 0, else 0: the bit that the way forth compared, so the way back costs one
/// product and no comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relu;

impl Layer for Relu {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        x.relu()
    }

    fn pass(&self, x: &Tensor) -> Result<Pass, GraphError> {
        let bit = x.non_negative()?;
        let y = bit.mul(x)?;
        Ok(Pass { bits: alloc::vec![bit], ..Pass::new(x, y) })
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Relu", gradient)?;
        let [bit] = pass.bits.as_slice() else {
            return Err(GraphError::new("Relu", "the pass is another layer's"));
        };
        bit.mul(gradient)
    }
}

/// 1 / (1 + e^-x). Its derivative is y - y².
#[derive(Clone, Copy, Debug, Default)]
pub struct Sigmoid;

impl Layer for Sigmoid {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        x.sigmoid()
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Sigmoid", gradient)?;
        pass.y.sub(&pass.y.square()?)?.mul(gradient)
    }
}

/// The hyperbolic tangent. Its derivative is 1 - y².
#[derive(Clone, Copy, Debug, Default)]
pub struct Tanh;

impl Layer for Tanh {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        x.tanh()
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Tanh", gradient)?;
        (1.0 - &pass.y.square()?)?.mul(gradient)
    }
}
