//! One layer after the other.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use super::{Gradients, Layer, Pass};
use crate::error::GraphError;
use crate::graph::Tensor;

/// Layers, each of which takes what the one before it made. Itself a layer.
#[derive(Debug, Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Layer>>,
}

impl Sequential {
    /// No layer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more layer at the end.
    #[must_use]
    pub fn then(mut self, layer: impl Layer + 'static) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// The way back through all layers. The first one's input gradient is computed where it is asked for; `parameters`
    /// says whether theirs are.
    fn back(
        &self,
        pass: &Pass,
        gradient: &Tensor,
        input: bool,
        parameters: bool,
    ) -> Result<(Tensor, Vec<Tensor>), GraphError> {
        if self.layers.len() != pass.inner.len() {
            let (layers, passes) = (self.layers.len(), pass.inner.len());
            return Err(GraphError::new("Sequential", format!("{passes} passes for {layers} layers")));
        }
        pass.check("Sequential", gradient)?;
        let (mut gradient, mut all) = (gradient.clone(), vec![]);
        for (index, (layer, pass)) in self.layers.iter().zip(&pass.inner).enumerate().rev() {
            if parameters {
                all.push(layer.parameter_gradients(pass, &gradient)?);
            }
            if input || index > 0 {
                gradient = layer.input_gradient(pass, &gradient)?;
            }
        }
        Ok((gradient, all.into_iter().rev().flatten().collect()))
    }
}

impl Layer for Sequential {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }

    fn pass(&self, x: &Tensor) -> Result<Pass, GraphError> {
        let (mut y, mut inner) = (x.clone(), Vec::with_capacity(self.layers.len()));
        for layer in &self.layers {
            let pass = layer.pass(&y)?;
            y = pass.y.clone();
            inner.push(pass);
        }
        Ok(Pass { inner, ..Pass::new(x, y) })
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        Ok(self.back(pass, gradient, true, false)?.0)
    }

    fn parameter_gradients(&self, pass: &Pass, gradient: &Tensor) -> Result<Vec<Tensor>, GraphError> {
        Ok(self.back(pass, gradient, false, true)?.1)
    }

    fn backward(&self, pass: &Pass, gradient: &Tensor) -> Result<Gradients, GraphError> {
        let (input, parameters) = self.back(pass, gradient, true, true)?;
        Ok(Gradients { input, parameters })
    }

    fn parameters(&self) -> Vec<Tensor> {
        self.layers.iter().flat_map(|layer| layer.parameters()).collect()
    }
}
