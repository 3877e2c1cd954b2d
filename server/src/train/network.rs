//! A network in training: forward, backward, and the step between.

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use super::layer::Layer;
use super::nets::{Net, Spec};
use super::random::stream;
use super::weights::{Adam, Weights};
use super::window::{Shape, Window};
use crate::onnx;

/// Images that one thread works on at a time. Fixed, so that sums, and with them the result, do not depend on the
/// number of threads; small enough for a convolution's windows to stay in the cache.
const CHUNK: usize = 32;

pub(super) struct Network {
    layers: Vec<Layer>,
    /// For each layer that learns, in order.
    adam: Vec<Adam>,
    steps: i32,
}

impl Network {
    /// Fresh weights, drawn from the seed.
    pub(super) fn new(net: Net, seed: u64) -> Self {
        let mut rng = stream(seed, 0);
        let mut shape = Shape { rows: 28, columns: 28, channels: 1 };
        let mut layers = Vec::new();
        for spec in net.layers() {
            layers.push(match spec {
                Spec::Dense(outputs) => {
                    let weights = Weights::random(shape.len(), outputs, &mut rng);
                    shape = Shape { rows: 1, columns: 1, channels: outputs };
                    Layer::Dense(weights)
                }
                Spec::Conv { filters, stride, padding } => {
                    let window = Window { image: shape, side: 5, stride, padding };
                    let [rows, columns] = window.places();
                    shape = Shape { rows, columns, channels: filters };
                    Layer::Conv(window, Weights::random(window.len(), filters, &mut rng))
                }
                Spec::MaxPool | Spec::AveragePool => {
                    let average = matches!(spec, Spec::AveragePool);
                    let pool = if average { Layer::AveragePool(shape) } else { Layer::MaxPool(shape) };
                    shape = Shape { rows: shape.rows / 2, columns: shape.columns / 2, ..shape };
                    pool
                }
                Spec::Relu => Layer::Relu,
                Spec::Flatten => Layer::Flatten(shape),
            });
        }
        let adam = layers.iter().filter_map(|layer| layer.weights().map(Adam::new)).collect();
        Self { layers, adam, steps: 0 }
    }

    /// One step of Adam on a mini-batch; returns its mean loss before the step.
    pub(super) fn learn(&mut self, images: ArrayView2<'_, f32>, labels: &[u8], rate: f32) -> f32 {
        let scale = 1.0 / labels.len() as f32;
        let parts: Vec<_> = chunks(images)
            .zip(labels.par_chunks(CHUNK))
            .map(|(images, labels)| self.gradient(images, labels, scale))
            .collect();
        let mut loss = 0.0;
        let mut total: Vec<Weights> = Vec::new();
        for (part_loss, part) in parts {
            loss += part_loss;
            if total.is_empty() {
                total = part;
            } else {
                total.iter_mut().zip(&part).for_each(|(sum, part)| sum.add(part));
            }
        }
        self.steps += 1;
        let learning = self.layers.iter_mut().filter_map(Layer::weights_mut);
        for ((weights, adam), gradient) in learning.zip(&mut self.adam).zip(&total) {
            adam.update(weights, gradient, rate, self.steps);
        }
        loss
    }

    /// The loss of a chunk and its derivative by each layer's weights, both times `scale`.
    fn gradient(&self, images: ArrayView2<'_, f32>, labels: &[u8], scale: f32) -> (f32, Vec<Weights>) {
        // What goes into each layer, and what comes out of the last.
        let mut values: Vec<Array2<f32>> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let value = layer.forward(values.last().map_or(images, |value| value.view()));
            values.push(value);
        }
        let Some(logits) = values.pop() else {
            return (0.0, Vec::new());
        };
        let (loss, mut derivative) = cross_entropy(logits, labels, scale);
        let mut gradients = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().rev() {
            let input = index.checked_sub(1).and_then(|before| values.get(before));
            let input = input.map_or(images, |value| value.view());
            let (before, gradient) = layer.backward(input, derivative, index == 0);
            derivative = before;
            gradients.extend(gradient);
        }
        gradients.reverse();
        (loss, gradients)
    }

    /// The fraction of images whose largest logit is their label's; of equal ones the first counts.
    pub(super) fn accuracy(&self, images: ArrayView2<'_, f32>, labels: &[u8]) -> f64 {
        let right: usize = chunks(images)
            .zip(labels.par_chunks(CHUNK))
            .map(|(images, labels)| {
                let logits = self.layers.iter().fold(images.to_owned(), |x, layer| layer.forward(x.view()));
                logits
                    .rows()
                    .into_iter()
                    .zip(labels)
                    .filter(|(row, label)| onnx::argmax(*row) == usize::from(**label))
                    .count()
            })
            .sum();
        right as f64 / labels.len() as f64
    }

    /// The network as a model file has it.
    pub(super) fn model(&self, net: Net) -> onnx::Model {
        let layers = self.layers.iter().map(Layer::export).collect();
        onnx::Model { input: net.input().to_vec(), layers }
    }
}

fn chunks(images: ArrayView2<'_, f32>) -> impl IndexedParallelIterator<Item = ArrayView2<'_, f32>> {
    let count = images.nrows();
    (0..count.div_ceil(CHUNK))
        .into_par_iter()
        .map(move |i| images.slice_move(s![i * CHUNK..count.min((i + 1) * CHUNK), ..]))
}

/// The cross-entropy of softmax(logits) against the labels, summed, and its derivative by the logits; both times
/// `scale`.
fn cross_entropy(mut logits: Array2<f32>, labels: &[u8], scale: f32) -> (f32, Array2<f32>) {
    let mut loss = 0.0;
    for (mut row, &label) in logits.rows_mut().into_iter().zip(labels) {
        // Less the largest, so that nothing overflows.
        let largest = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        row.mapv_inplace(|logit| (logit - largest).exp());
        let sum = row.sum();
        row.mapv_inplace(|power| power / sum);
        if let Some(probability) = row.get_mut(usize::from(label)) {
            loss -= probability.max(f32::MIN_POSITIVE).ln();
            *probability -= 1.0;
        }
    }
    logits *= scale;
    (loss * scale, logits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::super::random::uniform;
    use super::*;

    fn batch(count: usize) -> (Array2<f32>, Vec<u8>) {
        let mut rng = stream(9, 9);
        let images = Array2::from_shape_simple_fn((count, 784), || uniform(&mut rng, 0.0, 1.0));
        (images, (0..count).map(|i| (i * 7 % 10) as u8).collect())
    }

    /// The derivative of every layer against differences of the loss, in directions that touch all weights.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let (images, labels) = batch(6);
        for net in Net::ALL {
            let network = Network::new(net, 5);
            let (_, gradients) = network.gradient(images.view(), &labels, 1.0);
            for (layer, gradient) in gradients.iter().enumerate() {
                let slope = gradient.matrix.iter().chain(&gradient.bias).map(|g| g * g).sum::<f32>();
                // Along the gradient itself, by a step that changes the loss by about a hundredth.
                let step = 0.01 / slope;
                let loss_at = |step: f32| {
                    let mut moved = Network { layers: network.layers.clone(), adam: Vec::new(), steps: 0 };
                    let weights = moved.layers.iter_mut().filter_map(Layer::weights_mut).nth(layer).unwrap();
                    weights.matrix.scaled_add(step, &gradient.matrix);
                    weights.bias.scaled_add(step, &gradient.bias);
                    moved.gradient(images.view(), &labels, 1.0).0
                };
                let measured = (loss_at(step) - loss_at(-step)) / (2.0 * step);
                assert!((measured / slope - 1.0).abs() < 0.02, "{net:?}, layer {layer}: {measured} for {slope}");
            }
        }
    }

    #[test]
    fn a_batch_is_the_sum_of_its_chunks_whatever_the_threads() {
        let (images, labels) = batch(3 * CHUNK + 5);
        let learn = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut network = Network::new(Net::D, 1);
                (0..3).map(|_| network.learn(images.view(), &labels, 1e-3)).collect::<Vec<_>>()
            })
        };
        let losses = learn(1);
        assert_eq!(losses, learn(3));
        assert!(losses[2] < losses[0], "{losses:?}");
    }

    /// The file says what was trained: filters, and the order in which images are flattened.
    #[test]
    fn the_model_file_computes_what_the_network_computes() {
        let (images, _) = batch(5);
        for net in Net::ALL {
            let network = Network::new(net, 5);
            let file = onnx::write(&network.model(net)).unwrap();
            let expected = onnx::Plaintext::new(&file).unwrap().logits(images.view()).unwrap();
            let logits = network.layers.iter().fold(images.clone(), |x, layer| layer.forward(x.view()));
            let error = (&logits - &expected).mapv(f32::abs).fold(0.0f32, |a, &b| a.max(b));
            assert!(error < 1e-4, "{net}: {error}");
        }
    }

    #[test]
    fn cross_entropy_of_certainty_and_of_doubt() {
        let logits = Array2::from_shape_vec((2, 2), vec![100.0, -100.0, 3.0, 3.0]).unwrap();
        let (loss, derivative) = cross_entropy(logits, &[0, 1], 0.5);
        assert!((loss - 0.5 * 2.0f32.ln()).abs() < 1e-6);
        assert_eq!(derivative.row(1).to_vec(), [0.25, -0.25]);
        assert_eq!(derivative.row(0).to_vec(), [0.0, 0.0]);
    }
}
