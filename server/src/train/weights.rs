//! What is learnt: a matrix and a bias, and Adam, the rule that changes them.

use chacha20::ChaCha8Rng;
use ndarray::{Array, Array1, Array2, Dimension, Zip};

use super::random::uniform;

/// The parameters of a dense or convolutional layer; also the shape of their gradients and of Adam's moments.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// `[inputs, outputs]`; of a convolution `[rows * columns * channels, filters]`.
    pub(super) matrix: Array2<f32>,
    /// `[outputs]`.
    pub(super) bias: Array1<f32>,
}

impl Weights {
    /// He et al. 2015: variance 2 / inputs, so that ReLU layers neither fade nor explode; here uniform. Biases are
    /// zero.
    pub(super) fn random(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let limit = (6.0 / inputs as f32).sqrt();
        Self {
            matrix: Array2::from_shape_simple_fn((inputs, outputs), || uniform(rng, -limit, limit)),
            bias: Array1::zeros(outputs),
        }
    }

    fn zeros_like(&self) -> Self {
        Self { matrix: Array2::zeros(self.matrix.dim()), bias: Array1::zeros(self.bias.dim()) }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.matrix += &other.matrix;
        self.bias += &other.bias;
    }
}

/// Adam (Kingma and Ba 2015, Algorithm 1), with the paper's constants.
pub(super) struct Adam {
    first: Weights,
    second: Weights,
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl Adam {
    pub(super) fn new(weights: &Weights) -> Self {
        Self { first: weights.zeros_like(), second: weights.zeros_like() }
    }

    /// Step `t`, counted from 1.
    pub(super) fn update(&mut self, weights: &mut Weights, gradient: &Weights, rate: f32, t: i32) {
        let rate = rate * (1.0 - BETA_2.powi(t)).sqrt() / (1.0 - BETA_1.powi(t));
        step(&mut weights.matrix, &gradient.matrix, &mut self.first.matrix, &mut self.second.matrix, rate);
        step(&mut weights.bias, &gradient.bias, &mut self.first.bias, &mut self.second.bias, rate);
    }
}

fn step<D: Dimension>(
    weights: &mut Array<f32, D>,
    gradient: &Array<f32, D>,
    first: &mut Array<f32, D>,
    second: &mut Array<f32, D>,
    rate: f32,
) {
    Zip::from(weights).and(gradient).and(first).and(second).for_each(|w, &g, m, v| {
        *m = BETA_1 * *m + (1.0 - BETA_1) * g;
        *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
        *w -= rate * *m / (v.sqrt() + EPSILON);
    });
}
