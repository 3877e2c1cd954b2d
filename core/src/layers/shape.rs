//! Layers that only change shapes.

use alloc::format;
use alloc::vec::Vec;

use super::{Layer, Pass};
use crate::error::GraphError;
use crate::graph::Tensor;

/// The same elements in another shape; one length may be -1, and becomes what is left. By default \[-1\].
#[derive(Clone, Debug)]
pub struct Reshape(pub Vec<i64>);

impl Default for Reshape {
    fn default() -> Self {
        Self(alloc::vec![-1])
    }
}

impl Layer for Reshape {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        let Self(wanted) = self;
        let shape = x.shape();
        let refuse =
            || GraphError::new("Reshape", format!("a tensor of shape {shape:?} cannot be given shape {wanted:?}"));
        let elements: i64 = shape.iter().map(|n| i64::from(*n)).product();
        let open = wanted.iter().filter(|n| **n == -1).count();
        let known = wanted.iter().filter(|n| **n != -1).try_fold(1i64, |all, n| all.checked_mul(*n));
        let known = known.filter(|n| *n > 0 && elements % n == 0 && open <= 1).ok_or_else(refuse)?;
        let length = |n: &i64| u32::try_from(if *n == -1 { elements / known } else { *n }).map_err(|_| refuse());
        let wanted = wanted.iter().map(length).collect::<Result<Vec<_>, _>>()?;
        x.reshape(&wanted).map_err(|_| refuse())
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Reshape", gradient)?;
        gradient.reshape(&pass.x.shape())
    }
}

/// An image, the last three axes, in a row; the axes in front stay. What has no three axes is flat already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;

impl Layer for Flatten {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        match x.shape().as_slice() {
            [front @ .., c, h, w] => x.reshape(&[front, &[c * h * w]].concat()),
            _ => Ok(x.clone()),
        }
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Flatten", gradient)?;
        gradient.reshape(&pass.x.shape())
    }
}
