//! Stochastic gradient descent.

use alloc::format;

use crate::error::GraphError;
use crate::graph::{Operand, Tensor};

/// Steps along the mean gradient of a mini-batch.
#[derive(Clone, Copy, Debug)]
pub struct Sgd<'a> {
    /// The learning rate: a number, or a public tensor of shape \[1\] that follows a schedule.
    pub rate: Operand<'a>,
    /// How many samples the gradients are sums over. They are divided by it here and not in the loss, because small
    /// numbers have few bits in fixed point.
    pub samples: u32,
}

impl Sgd<'_> {
    /// w - rate · g / samples: the parameter's new value.
    ///
    /// # Errors
    /// The shapes differ, or there are no samples.
    pub fn step(&self, parameter: &Tensor, gradient: &Tensor) -> Result<Tensor, GraphError> {
        same_shape(parameter, gradient)?;
        let step = match self.rate {
            // One number and one rounding.
            Operand::Number(rate) if self.samples > 0 => gradient.mul(rate / f64::from(self.samples))?,
            rate => self.mean(gradient)?.mul(rate)?,
        };
        parameter.sub(&step)
    }

    /// v′ = momentum · v + g / samples and w - rate · v′ (Sutskever, Martens, Dahl and Hinton 2013, §2, with the rate
    /// outside): the parameter's and the velocity's new values. Velocities begin as zeros.
    ///
    /// # Errors
    /// The shapes differ, there are no samples, or the momentum is not finite.
    pub fn step_with_momentum(
        &self,
        parameter: &Tensor,
        velocity: &Tensor,
        gradient: &Tensor,
        momentum: f64,
    ) -> Result<(Tensor, Tensor), GraphError> {
        same_shape(parameter, gradient)?;
        same_shape(parameter, velocity)?;
        let velocity = velocity.mul(momentum)?.add(&self.mean(gradient)?)?;
        Ok((parameter.sub(&velocity.mul(self.rate)?)?, velocity))
    }

    fn mean(&self, gradient: &Tensor) -> Result<Tensor, GraphError> {
        if self.samples == 1 { Ok(gradient.clone()) } else { gradient.div(f64::from(self.samples)) }
    }
}

/// Nothing is broadcast here: what differs in shape is not of this parameter.
fn same_shape(parameter: &Tensor, other: &Tensor) -> Result<(), GraphError> {
    let (parameter, other) = (parameter.shape(), other.shape());
    if parameter == other {
        return Ok(());
    }
    Err(GraphError::new("Sgd", format!("a step of shape {other:?} for a parameter of shape {parameter:?}")))
}
