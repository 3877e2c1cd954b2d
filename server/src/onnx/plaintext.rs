//! A model file run in clear, by tract: the reference for `evaluate` and `--reference`.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2, Axis, s};
use prost::Message;
use rayon::prelude::*;
use tract_onnx::pb;
use tract_onnx::prelude::*;

use super::read::{declared_input, read};
use super::{Error, Layer, Model};

/// Samples that one thread runs at a time.
const BATCH: usize = 32;

/// A model, ready to run in clear.
pub struct Plaintext {
    plan: Arc<TypedRunnableModel>,
    batch: usize,
    /// One sample's shape as the file declares it.
    input: Vec<usize>,
    model: Model,
    outputs: usize,
}

impl Plaintext {
    /// Prepares the model in an ONNX file. What [`read`](fn@super::read) refuses is refused here, so that tract meets
    /// no hostile file. A final `ArgMax` is left away: the answers are logits.
    ///
    /// # Errors
    /// As [`read`](fn@super::read); and what tract has to say.
    pub fn new(file: &[u8]) -> Result<Self, Error> {
        let mut model = read(file)?;
        let mut proto = pb::ModelProto::decode(file).map_err(|error| Error::corrupt(error.to_string()))?;
        if matches!(model.layers.last(), Some(Layer::ArgMax)) {
            model.layers.pop();
            drop_argmax(&mut proto);
        }
        let outputs = model.shapes()?.last().map_or(0, |shape| shape.iter().product());
        let input = proto.graph.as_ref().map(declared_input).transpose()?.map(|(_, shape)| shape).unwrap_or_default();
        // A file with a batch of one written into its shapes runs one sample at a time.
        let (batch, plan) = match plan(&proto, BATCH, &input) {
            Ok(plan) => (BATCH, plan),
            Err(_) => (1, plan(&proto, 1, &input).map_err(failed)?),
        };
        Ok(Self { plan, batch, input, model, outputs })
    }

    /// The model that runs, without a final `ArgMax`.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The network's outputs: a row for each row of `images`, each of which has as many elements as the model's input.
    ///
    /// # Errors
    /// The images are of another size.
    pub fn logits(&self, images: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        let wanted: usize = self.input.iter().product();
        if images.ncols() != wanted {
            return Err(Error::Plaintext(format!(
                "the images have {} elements, the model takes {wanted}",
                images.ncols()
            )));
        }
        let mut logits = Array2::zeros((images.nrows(), self.outputs));
        logits
            .axis_chunks_iter_mut(Axis(0), self.batch)
            .into_par_iter()
            .zip(images.axis_chunks_iter(Axis(0), self.batch))
            .try_for_each(|(mut out, images)| {
                let count = images.nrows();
                // The last batch is filled up with zeros.
                let mut padded = Array2::<f32>::zeros((self.batch, wanted));
                padded.slice_mut(s![..count, ..]).assign(&images);
                let shape: Vec<usize> = std::iter::once(self.batch).chain(self.input.iter().copied()).collect();
                let flat: Vec<f32> = padded.into_iter().collect();
                let input = Tensor::from_shape(&shape, &flat).map_err(failed)?;
                let outputs = self.plan.run(tvec!(input.into_tvalue())).map_err(failed)?;
                let output = outputs.first().ok_or_else(|| Error::Plaintext("it gave nothing".to_owned()))?;
                let values = output.to_plain_array_view::<f32>().map_err(failed)?;
                let rows = values.to_shape((self.batch, self.outputs)).map_err(failed)?;
                out.assign(&rows.slice(s![..count, ..]));
                Ok::<(), Error>(())
            })?;
        Ok(logits)
    }
}

/// A model and one batch for it, on the thread that asks: what computing on shares is compared with.
pub(crate) struct OneThread {
    plan: Arc<TypedRunnableModel>,
    input: TValue,
}

impl OneThread {
    /// `images` has a row for each sample of the batch.
    pub(crate) fn new(file: &[u8], images: ArrayView2<'_, f32>) -> Result<Self, Error> {
        let proto = pb::ModelProto::decode(file).map_err(|error| Error::corrupt(error.to_string()))?;
        let input = proto.graph.as_ref().map(declared_input).transpose()?.map(|(_, shape)| shape).unwrap_or_default();
        let plan = plan(&proto, images.nrows(), &input).map_err(failed)?;
        let shape: Vec<usize> = std::iter::once(images.nrows()).chain(input).collect();
        let flat: Vec<f32> = images.iter().copied().collect();
        let input = Tensor::from_shape(&shape, &flat).map_err(failed)?.into_tvalue();
        Ok(Self { plan, input })
    }

    /// Runs it once; the outputs of all samples.
    pub(crate) fn run(&self) -> Result<Vec<f32>, Error> {
        let outputs = self.plan.run(tvec!(self.input.clone())).map_err(failed)?;
        let output = outputs.first().ok_or_else(|| Error::Plaintext("it gave nothing".to_owned()))?;
        Ok(output.to_plain_array_view::<f32>().map_err(failed)?.iter().copied().collect())
    }
}

fn plan(proto: &pb::ModelProto, batch: usize, input: &[usize]) -> TractResult<Arc<TypedRunnableModel>> {
    let shape: TVec<usize> = std::iter::once(batch).chain(input.iter().copied()).collect();
    tract_onnx::onnx()
        .with_ignore_output_shapes(true)
        .with_ignore_value_info(true)
        .model_for_proto_model(proto)?
        .with_input_fact(0, f32::fact(shape).into())?
        .into_optimized()?
        .into_runnable()
}

/// Makes the input of the final `ArgMax` the output.
fn drop_argmax(proto: &mut pb::ModelProto) {
    let Some(graph) = proto.graph.as_mut() else {
        return;
    };
    let Some(at) = graph.node.iter().rposition(|node| node.op_type == "ArgMax") else {
        return;
    };
    let node = graph.node.remove(at);
    graph.node.truncate(at);
    if let Some(input) = node.input.into_iter().next() {
        graph.output = vec![pb::ValueInfoProto { name: input, ..Default::default() }];
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Plaintext(error.to_string())
}
