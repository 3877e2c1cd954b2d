//! Fully connected layers.

use alloc::format;
use alloc::vec::Vec;

use ndarray::{ArrayView1, ArrayView2};

use super::{Initialiser, Layer, Owner, Pass, rows};
use crate::error::GraphError;
use crate::graph::Tensor;

/// x \[…, inputs\] times weights \[inputs, outputs\], plus a bias \[outputs\].
#[derive(Clone, Debug)]
pub struct Dense {
    weights: Tensor,
    bias: Option<Tensor>,
}

impl Dense {
    /// From `inputs` to `outputs` (`features`, in this order), weights drawn and the bias zero.
    ///
    /// # Errors
    /// A size is zero or too large.
    pub fn new(
        owner: &Owner<'_>,
        name: &str,
        features: [u32; 2],
        initialiser: Initialiser,
    ) -> Result<Self, GraphError> {
        let [_, outputs] = features;
        let weights = owner.drawn(name, "weights", &features, features, initialiser)?;
        let bias = owner.drawn(name, "bias", &[outputs], features, Initialiser::Zeros)?;
        Self::of(weights, Some(bias))
    }

    /// With weights \[inputs, outputs\] and a bias \[outputs\] given.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn given(
        owner: &Owner<'_>,
        name: &str,
        weights: ArrayView2<'_, f32>,
        bias: Option<ArrayView1<'_, f32>>,
    ) -> Result<Self, GraphError> {
        let weights = owner.given(name, "weights", weights.into_dyn())?;
        let bias = bias.map(|bias| owner.given(name, "bias", bias.into_dyn())).transpose()?;
        Self::of(weights, bias)
    }

    /// With tensors of any visibility, of shapes \[inputs, outputs\] and \[outputs\].
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn of(weights: Tensor, bias: Option<Tensor>) -> Result<Self, GraphError> {
        let shape = weights.shape();
        let bias_shape = bias.as_ref().map(Tensor::shape);
        match (shape.as_slice(), bias_shape.as_deref()) {
            ([_, _], None) => {}
            ([_, outputs], Some([entries])) if outputs == entries => {}
            _ => {
                let reason =
                    format!("weights [in, out] take a bias [out]; they have shapes {shape:?} and {bias_shape:?}");
                return Err(GraphError::new("Dense", reason));
            }
        }
        Ok(Self { weights, bias })
    }
}

impl Layer for Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        let y = x.matmul(&self.weights)?;
        self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.add(bias))
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Dense", gradient)?;
        gradient.matmul(&self.weights.transpose(&[1, 0])?)
    }

    fn parameter_gradients(&self, pass: &Pass, gradient: &Tensor) -> Result<Vec<Tensor>, GraphError> {
        pass.check("Dense", gradient)?;
        let (x, gradient) = (rows(&pass.x)?, rows(gradient)?);
        let mut gradients = alloc::vec![x.transpose(&[1, 0])?.matmul(&gradient)?];
        if self.bias.is_some() {
            gradients.push(gradient.reduce_sum(0)?);
        }
        Ok(gradients)
    }

    fn parameters(&self) -> Vec<Tensor> {
        [Some(&self.weights), self.bias.as_ref()].into_iter().flatten().cloned().collect()
    }
}
