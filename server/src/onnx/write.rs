//! From a model to a file's bytes.

use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataType};

use super::proto::{batch, floats, int, ints};
use super::{Error, Layer, Model};

/// ONNX 1.8's format and operators: old enough for every runtime, new enough for all that is written here.
const IR_VERSION: i64 = 7;
const OPSET: i64 = 13;

/// The bytes of an ONNX file: one input `input` of shape `[N, …]`, one output `logits` (`class` after an `ArgMax`), N
/// any number.
///
/// # Errors
/// The model's layers do not fit together.
pub fn write(model: &Model) -> Result<Vec<u8>, Error> {
    let shapes = model.shapes()?;
    let Some((last, last_shape)) = model.layers.last().zip(shapes.last()) else {
        return Err(Error::Graph("it has no layers".to_owned()));
    };
    let mut writer = Writer { nodes: Vec::new(), weights: Vec::new(), current: "input".to_owned() };
    for (index, layer) in model.layers.iter().enumerate() {
        writer.layer(&format!("{}{}", layer.name(), index + 1), layer);
    }
    let output = match last {
        Layer::ArgMax => batch("class", DataType::Int64, &[]),
        _ => batch("logits", DataType::Float, last_shape),
    };
    if let Some(node) = writer.nodes.last_mut() {
        node.output = vec![output.name.clone()];
    }
    let graph = pb::GraphProto {
        name: "network".to_owned(),
        node: writer.nodes,
        initializer: writer.weights,
        input: vec![batch("input", DataType::Float, &model.input)],
        output: vec![output],
        ..Default::default()
    };
    let file = pb::ModelProto {
        ir_version: IR_VERSION,
        opset_import: vec![pb::OperatorSetIdProto { domain: String::new(), version: OPSET }],
        producer_name: "selkie".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        ..Default::default()
    };
    Ok(file.encode_to_vec())
}

struct Writer {
    nodes: Vec<pb::NodeProto>,
    weights: Vec<pb::TensorProto>,
    /// The value that the next node takes.
    current: String,
}

impl Writer {
    fn layer(&mut self, name: &str, layer: &Layer) {
        match layer {
            Layer::Dense { weights, bias } => {
                let (inputs, outputs) = weights.dim();
                let weights = self.weight(name, "weights", &[inputs, outputs], weights);
                let bias = self.weight(name, "bias", &[outputs], bias);
                self.node(name, "Gemm", vec![weights, bias], Vec::new());
            }
            Layer::Conv2D { filters, bias, strides, padding } => {
                let (count, channels, rows, columns) = filters.dim();
                let filters = self.weight(name, "filters", &[count, channels, rows, columns], filters);
                let bias = self.weight(name, "bias", &[count], bias);
                let [[top, bottom], [left, right]] = *padding;
                let attributes = vec![
                    ints("kernel_shape", [rows, columns]),
                    ints("strides", *strides),
                    ints("pads", [top, left, bottom, right]),
                ];
                self.node(name, "Conv", vec![filters, bias], attributes);
            }
            Layer::Relu => self.node(name, "Relu", Vec::new(), Vec::new()),
            Layer::MaxPool { window, strides } => {
                let attributes = vec![ints("kernel_shape", *window), ints("strides", *strides)];
                self.node(name, "MaxPool", Vec::new(), attributes);
            }
            Layer::AveragePool { window, strides, padding: [[top, bottom], [left, right]], padding_counts } => {
                let attributes = vec![
                    ints("kernel_shape", *window),
                    ints("strides", *strides),
                    ints("pads", [*top, *left, *bottom, *right]),
                    int("count_include_pad", i64::from(*padding_counts)),
                ];
                self.node(name, "AveragePool", Vec::new(), attributes);
            }
            Layer::Flatten => self.node(name, "Flatten", Vec::new(), vec![int("axis", 1)]),
            Layer::Affine { mean, std } => {
                let mean = self.weight(name, "mean", &[1], [mean]);
                let std = self.weight(name, "std", &[1], [std]);
                self.node(&format!("{name}.sub"), "Sub", vec![mean], Vec::new());
                self.node(name, "Div", vec![std], Vec::new());
            }
            Layer::ArgMax => self.node(name, "ArgMax", Vec::new(), vec![int("axis", 1), int("keepdims", 0)]),
        }
    }

    fn weight<'a>(
        &mut self,
        layer: &str,
        what: &str,
        shape: &[usize],
        values: impl IntoIterator<Item = &'a f32>,
    ) -> String {
        let name = format!("{layer}.{what}");
        self.weights.push(floats(&name, shape, values));
        name
    }

    fn node(&mut self, name: &str, op: &str, weights: Vec<String>, attribute: Vec<pb::AttributeProto>) {
        let before = std::mem::replace(&mut self.current, name.to_owned());
        self.nodes.push(pb::NodeProto {
            name: name.to_owned(),
            op_type: op.to_owned(),
            input: std::iter::once(before).chain(weights).collect(),
            output: vec![name.to_owned()],
            attribute,
            ..Default::default()
        });
    }
}
