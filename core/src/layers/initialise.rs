//! Where parameters come from.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use ndarray::{Array, ArrayViewD, IxDyn};

use crate::error::GraphError;
use crate::graph::{Graph, Tensor};
use crate::stream::Seed;

/// What parameters are before training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initialiser {
    /// All zero.
    Zeros,
    /// Normal with mean zero.
    Normal {
        /// The standard deviation.
        deviation: f64,
    },
    /// Uniform in ±`limit`.
    Uniform {
        /// The limit.
        limit: f64,
    },
    /// Uniform in ±√(6 / (inputs + outputs)): Glorot and Bengio 2010, equation 16.
    GlorotUniform,
    /// Normal with variance 2 / inputs, for layers before a ReLU: He, Zhang, Ren and Sun 2015, equation 10.
    HeNormal,
}

impl Default for Initialiser {
    /// TF Encrypted's: normal, with deviation 0.1.
    fn default() -> Self {
        Initialiser::Normal { deviation: 0.1 }
    }
}

impl Initialiser {
    /// `count` values for weights from `inputs` to `outputs`, the same for the same seed.
    pub fn draw(self, count: usize, [inputs, outputs]: [u32; 2], seed: &Seed) -> Vec<f32> {
        let mut generator = ChaCha20Rng::from_seed(*seed.bytes());
        // In 0..1, never 1.
        let mut uniform = || f64::from(generator.next_u32() >> 8) / f64::from(1u32 << 24);
        // Box and Muller.
        let mut normal = |deviation: f64| {
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform()));
            (deviation * radius * libm::cos(2.0 * core::f64::consts::PI * uniform())) as f32
        };
        match self {
            Initialiser::Zeros => vec![0.0; count],
            Initialiser::Normal { deviation } => (0..count).map(|_| normal(deviation)).collect(),
            Initialiser::HeNormal => {
                let deviation = libm::sqrt(2.0 / f64::from(inputs.max(1)));
                (0..count).map(|_| normal(deviation)).collect()
            }
            Initialiser::GlorotUniform => {
                let limit = libm::sqrt(6.0 / (f64::from(inputs) + f64::from(outputs)).max(1.0));
                (0..count).map(|_| (limit * (2.0 * uniform() - 1.0)) as f32).collect()
            }
            Initialiser::Uniform { limit } => (0..count).map(|_| (limit * (2.0 * uniform() - 1.0)) as f32).collect(),
        }
    }
}

/// Whose a network's parameters are. They are private variables of the graph, named `layer/parameter`, and have their
/// values from the owner alone ([`Graph::weights`]).
#[derive(Clone, Debug)]
pub struct Owner<'a> {
    graph: &'a Graph,
    player: &'a str,
    seed: Seed,
    kept: Option<[f64; 2]>,
}

impl<'a> Owner<'a> {
    /// All that initialisers draw comes from `seed`, from a stream of its own for each parameter's name.
    pub fn new(graph: &'a Graph, player: &'a str, seed: Seed) -> Self {
        Self { graph, player, seed, kept: None }
    }

    /// The parameters are to be trained: the servers keep them from run to run, and they stay in this range.
    #[must_use]
    pub fn keeping(self, range: [f64; 2]) -> Self {
        Self { kept: Some(range), ..self }
    }

    fn variable(&self, layer: &str, part: &str, shape: &[u32]) -> Result<Tensor, GraphError> {
        let name = format!("{layer}/{part}");
        match self.kept {
            Some(range) => self.graph.kept_variable(self.player, &name, shape, range),
            None => self.graph.private_variable(self.player, &name, shape),
        }
    }

    /// A parameter with these values.
    pub(super) fn given(&self, layer: &str, part: &str, values: ArrayViewD<'_, f32>) -> Result<Tensor, GraphError> {
        let shape: Vec<u32> = values.shape().iter().map(|n| u32::try_from(*n).unwrap_or(u32::MAX)).collect();
        let variable = self.variable(layer, part, &shape)?;
        self.graph.initialise(&variable, values)?;
        Ok(variable)
    }

    /// A parameter with drawn values.
    pub(super) fn drawn(
        &self,
        layer: &str,
        part: &str,
        shape: &[u32],
        fans: [u32; 2],
        initialiser: Initialiser,
    ) -> Result<Tensor, GraphError> {
        let variable = self.variable(layer, part, shape)?;
        let count = shape.iter().map(|n| *n as usize).product();
        let seed = self.seed.derive("initialiser", &[layer.as_bytes(), part.as_bytes()]);
        let shape: Vec<usize> = shape.iter().map(|n| *n as usize).collect();
        let values = Array::from_shape_vec(IxDyn(&shape), initialiser.draw(count, fans, &seed));
        let values = values.map_err(|_| GraphError::new("initialise", "another number of values than drawn"))?;
        self.graph.initialise(&variable, values.view())?;
        Ok(variable)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;

    #[test]
    fn values_have_the_moments_that_their_papers_say() {
        let seed = Seed::new([3; 32]);
        let count = 20_000;
        for (initialiser, variance) in [
            (Initialiser::default(), 0.01),
            (Initialiser::GlorotUniform, 2.0 / 80.0),
            (Initialiser::Uniform { limit: 0.3 }, 0.03),
            (Initialiser::HeNormal, 2.0 / 50.0),
        ] {
            let values = initialiser.draw(count, [50, 30], &seed);
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
            let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / count as f64;
            let fourth = values.iter().map(|x| f64::from(*x).powi(4)).sum::<f64>() / count as f64;
            // Six deviations of each estimate, and the kurtosis tells normal from uniform.
            assert!(mean.abs() < 6.0 * (variance / count as f64).sqrt(), "{initialiser:?}: {mean}");
            assert!((square / variance - 1.0).abs() < 6.0 * (2.0 / count as f64).sqrt(), "{initialiser:?}: {square}");
            let uniform = matches!(initialiser, Initialiser::GlorotUniform | Initialiser::Uniform { .. });
            let kurtosis = if uniform { 1.8 } else { 3.0 };
            assert!((fourth / (square * square) - kurtosis).abs() < 0.3, "{initialiser:?}");
        }
        assert_eq!(Initialiser::Zeros.draw(3, [1, 1], &seed), [0.0; 3]);
    }

    #[test]
    fn every_parameter_has_a_stream_of_its_own() {
        let graph = Graph::new();
        let draw = |seed: u8, layer: &str| {
            let graph = Graph::new();
            let owner = Owner::new(&graph, "owner", Seed::new([seed; 32]));
            owner.drawn(layer, "w", &[8], [8, 8], Initialiser::HeNormal).unwrap();
            graph.weights().0.into_values().next().unwrap().values
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        let owner = Owner::new(&graph, "owner", Seed::new([0; 32]));
        let given = ndarray::arr1(&[1.0f32, 2.0]);
        let variable = owner.given("c", "w", given.view().into_dyn()).unwrap();
        assert_eq!(variable.visibility(), crate::program::Visibility::Private);
        assert_eq!(graph.weights().0["c/w"].values, [1.0, 2.0]);
    }
}
