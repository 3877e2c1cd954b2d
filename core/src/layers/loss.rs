//! Losses. All are sums over samples, the first axis where there are several, so that gradients keep the bits that
//! dividing would cost them; [`Sgd`](super::Sgd) divides.

use alloc::format;

use crate::error::GraphError;
use crate::graph::Tensor;

/// A loss and its gradient.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The loss, of shape \[1\].
    pub value: Tensor,
    /// Its gradient by the network's result.
    pub gradient: Tensor,
}

/// For each sample the mean of (y - target)² over its elements: a vector is one sample, whatever has more axes has as
/// many samples as its first.
///
/// # Errors
/// The shapes differ.
pub fn mean_squared_error(y: &Tensor, target: &Tensor) -> Result<Loss, GraphError> {
    same_shape("mean_squared_error", y, target)?;
    let elements: u32 = match y.shape().as_slice() {
        [_, rest @ ..] if !rest.is_empty() => rest.iter().product(),
        shape => shape.iter().product(),
    };
    let elements = f64::from(elements);
    let difference = y.sub(target)?;
    let value = difference.square()?.flatten()?.reduce_sum(0)?.div(elements)?;
    Ok(Loss { value, gradient: difference.mul(2.0 / elements)? })
}

/// The gradient σ(z) - y of the cross-entropy of every class by itself, -y·ln σ(z) - (1 - y)·ln(1 - σ(z)), by the logits z.
/// The loss itself is a matter for whoever is granted the logits: [`sigmoid_cross_entropy_in_clear`].
///
/// # Errors
/// The shapes differ.
pub fn sigmoid_cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, GraphError> {
    same_shape("sigmoid_cross_entropy", logits, labels)?;
    logits.sigmoid()?.sub(labels)
}

/// The cross-entropy that [`sigmoid_cross_entropy`] is the gradient of, summed over all pairs of a logit and a label in 0..=1.
pub fn sigmoid_cross_entropy_in_clear(logits: &[f32], labels: &[f32]) -> f64 {
    let one = |(z, y): (&f32, &f32)| {
        let (z, y) = (f64::from(*z), f64::from(*y));
        // ln(1 + e^z) - z·y, without overflow.
        z.max(0.0) - z * y + libm::log1p(libm::exp(-z.abs()))
    };
    logits.iter().zip(labels).map(one).sum()
}

fn same_shape(operation: &'static str, x: &Tensor, y: &Tensor) -> Result<(), GraphError> {
    let (x, y) = (x.shape(), y.shape());
    if x == y {
        return Ok(());
    }
    Err(GraphError::new(operation, format!("operands of shapes {x:?} and {y:?}, which must be the same")))
}
