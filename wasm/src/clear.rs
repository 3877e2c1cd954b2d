//! A network whose weights are public, evaluated in clear: what the demo compares its private answers with.

use selkie::clear;
use selkie::program::{Program, Weights};
use wasm_bindgen::prelude::*;

use crate::failure::Failure;

/// A network with public weights.
#[wasm_bindgen]
pub struct Clear {
    program: Program,
    weights: Weights,
}

#[wasm_bindgen]
impl Clear {
    /// Reads a program followed by its weights, both in postcard.
    ///
    /// # Errors
    /// Anything else is refused.
    pub fn load(bytes: &[u8]) -> Result<Clear, Failure> {
        let damaged = || Failure::usage("The network's file is cut off, damaged or of another version.");
        match postcard::take_from_bytes(bytes) {
            Ok(((program, weights), [])) => Ok(Clear { program, weights }),
            _ => Err(damaged()),
        }
    }

    /// The network's first output for one sample.
    ///
    /// # Errors
    /// An input of another size is refused.
    pub fn logits(&self, input: &[f32]) -> Result<Vec<f32>, Failure> {
        let outputs = clear::evaluate(&self.program, &self.weights, &[input], 1, &mut |_, _| ())?;
        outputs.into_iter().next().ok_or_else(|| Failure::usage("The network has no output."))
    }
}
