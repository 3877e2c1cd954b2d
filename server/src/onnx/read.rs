//! From a file's bytes to a model, or to an error that names what is in the way.
//!
//! A supported graph is a chain: one input, every node fed by the one before and by constants, one output.

use std::collections::HashMap;

use ndarray::{Array, Array1, Array2, Ix1, Ix2, Ix4, IxDyn};
use prost::Message;
use tract_onnx::pb::{self, tensor_proto::DataType, tensor_shape_proto::dimension, type_proto};

use super::tensor::{floats, integers, with_rank};
use super::{Error, Layer, Model, SUPPORTED, budget};

/// Operator sets whose meaning of the supported nodes is known.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=25;

/// The model in an ONNX file.
///
/// # Errors
/// The bytes are no ONNX or damaged, or a node is not supported (it is named), or layers do not fit together.
pub fn read(file: &[u8]) -> Result<Model, Error> {
    budget::check(file)?;
    let room = file.len();
    let file = pb::ModelProto::decode(file).map_err(|error| Error::corrupt(error.to_string()))?;
    let opset = file.opset_import.iter().find(|set| matches!(set.domain.as_str(), "" | "ai.onnx"));
    match opset {
        Some(set) if OPSETS.contains(&set.version) => {}
        Some(set) => {
            let (first, last) = (OPSETS.start(), OPSETS.end());
            return Err(Error::Graph(format!(
                "it uses operator set {}; export it for one of {first} to {last}",
                set.version
            )));
        }
        None => return Err(Error::corrupt("it names no operator set")),
    }
    let graph = file.graph.ok_or_else(|| Error::corrupt("it has no graph"))?;
    let constants: HashMap<&str, &pb::TensorProto> = graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect();

    let (input, sample) = declared_input(&graph)?;
    let model = Model { input: sample, layers: Vec::new() };
    let mut chain = Chain { model, constants, current: input, room };
    for node in &graph.node {
        let refused = |why| Error::Node { node: label(node), op: node.op_type.clone(), why };
        chain.node(node).map_err(refused)?;
        // Here, and not only at the end, so that the node is named.
        chain.model.shapes().map_err(|error| refused(error.to_string()))?;
    }
    match graph.output.as_slice() {
        [output] if output.name == chain.current => {}
        _ => {
            return Err(Error::Graph(format!("its one output must be the last node's, `{}`", chain.current)));
        }
    }
    if chain.model.layers.is_empty() {
        return Err(Error::Graph("it has no layers".to_owned()));
    }
    Ok(chain.model)
}

fn label(node: &pb::NodeProto) -> String {
    let output = node.output.first().map_or("?", String::as_str);
    if node.name.is_empty() { output.to_owned() } else { node.name.clone() }
}

/// The name of the graph's one input, and its shape without the batch dimension.
pub(super) fn declared_input(graph: &pb::GraphProto) -> Result<(&str, Vec<usize>), Error> {
    // Old files list the constants among the inputs.
    let constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let mut inputs = graph.input.iter().filter(|input| !constant(&input.name));
    let (Some(input), None) = (inputs.next(), inputs.next()) else {
        return Err(Error::Graph("it must have exactly one input that is not a constant".to_owned()));
    };
    let wrong = |why: &str| Error::Graph(format!("its input `{}` {why}", input.name));
    let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
        return Err(wrong("is not a tensor"));
    };
    if tensor.elem_type != DataType::Float as i32 {
        return Err(wrong("is not of float"));
    }
    let dimensions = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let Some((_batch, sample)) = dimensions.split_first() else {
        return Err(wrong("has no shape"));
    };
    sample
        .iter()
        .map(|dimension| match dimension.value {
            Some(dimension::Value::DimValue(length)) => usize::try_from(length).ok().filter(|&length| length > 0),
            _ => None,
        })
        .collect::<Option<_>>()
        .map(|sample| (input.name.as_str(), sample))
        .ok_or_else(|| wrong("must have fixed dimensions after the first, the batch"))
}

/// The graph as far as it has been followed.
struct Chain<'a> {
    model: Model,
    constants: HashMap<&'a str, &'a pb::TensorProto>,
    /// The value that the next node must take.
    current: &'a str,
    /// How many more elements of constants may be copied: every use copies, and a file may use one constant often.
    room: usize,
}

impl<'a> Chain<'a> {
    fn node(&mut self, node: &'a pb::NodeProto) -> Result<(), String> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(format!("the operator domain `{}` is not supported", node.domain));
        }
        let [output, ..] = node.output.as_slice() else {
            return Err("it has no output".to_owned());
        };
        if node.op_type == "Constant" {
            let value =
                attribute(node, "value").and_then(|a| a.t.as_ref()).ok_or("only constant tensors are supported")?;
            self.constants.insert(output, value);
            return Ok(());
        }
        let position = self.position(node)?;
        let data_first = || {
            if position == 0 { Ok(()) } else { Err("the data must be its first input".to_owned()) }
        };
        match node.op_type.as_str() {
            "Add" | "Mul" => self.arithmetic(node, 1 - position)?,
            op => {
                data_first()?;
                match op {
                    "Sub" | "Div" => self.arithmetic(node, 1)?,
                    "Gemm" => self.gemm(node)?,
                    "MatMul" => {
                        let weights: Array2<f32> = self.constant(node, 1).and_then(with_rank)?;
                        let bias = Array1::zeros(weights.ncols());
                        self.model.layers.push(Layer::Dense { weights, bias });
                    }
                    "Conv" => self.conv(node)?,
                    "MaxPool" => self.max_pool(node)?,
                    "AveragePool" => self.average_pool(node)?,
                    "Relu" => self.model.layers.push(Layer::Relu),
                    "Flatten" => {
                        expect(node, "axis", 1, &[1])?;
                        self.model.layers.push(Layer::Flatten);
                    }
                    "Reshape" => self.reshape(node)?,
                    "Identity" => {}
                    "ArgMax" => {
                        expect(node, "axis", 0, &[1, -1])?;
                        expect(node, "select_last_index", 0, &[0])?;
                        self.model.layers.push(Layer::ArgMax);
                    }
                    _ => return Err(format!("this operation is not supported; supported are {SUPPORTED}")),
                }
            }
        }
        self.current = output;
        Ok(())
    }

    /// Which of the node's inputs is the value before it; there must be one, and the others constant.
    fn position(&self, node: &pb::NodeProto) -> Result<usize, String> {
        let mut fed = node.input.iter().enumerate().filter(|(_, name)| name.as_str() == self.current);
        match (fed.next(), fed.next()) {
            (Some((position @ 0..=1, _)), None) => Ok(position),
            _ => Err(format!("it must take `{}` once, and constants: the graph must be one chain", self.current)),
        }
    }

    fn constant(&mut self, node: &pb::NodeProto, input: usize) -> Result<Array<f32, IxDyn>, String> {
        let constant = floats(self.tensor(node, input)?)?;
        self.room = self
            .room
            .checked_sub(constant.len())
            .ok_or("the graph uses its constants over and over, which is not supported")?;
        Ok(constant)
    }

    fn tensor(&self, node: &pb::NodeProto, input: usize) -> Result<&'a pb::TensorProto, String> {
        let name = node.input.get(input).ok_or_else(|| format!("its input {input} is missing"))?;
        self.constants.get(name.as_str()).copied().ok_or_else(|| format!("its input `{name}` is not a constant"))
    }

    /// An optional bias of `[outputs]`, zeros when there is none.
    fn bias(&mut self, node: &pb::NodeProto, outputs: usize) -> Result<Array1<f32>, String> {
        match node.input.get(2) {
            Some(name) if !name.is_empty() => row(self.constant(node, 2)?, outputs),
            _ => Ok(Array1::zeros(outputs)),
        }
    }

    fn gemm(&mut self, node: &pb::NodeProto) -> Result<(), String> {
        for factor in ["alpha", "beta"] {
            if attribute(node, factor).is_some_and(|a| a.f != 1.0) {
                return Err(format!("{factor} must be 1"));
            }
        }
        expect(node, "transA", 0, &[0])?;
        expect(node, "transB", 0, &[0, 1])?;
        let mut weights: Array2<f32> = with_rank::<Ix2>(self.constant(node, 1)?)?;
        if integer(node, "transB", 0) == 1 {
            weights = weights.t().as_standard_layout().into_owned();
        }
        let bias = self.bias(node, weights.ncols())?;
        self.model.layers.push(Layer::Dense { weights, bias });
        Ok(())
    }

    fn conv(&mut self, node: &pb::NodeProto) -> Result<(), String> {
        expect(node, "group", 1, &[1])?;
        ones(node, "dilations")?;
        let filters = with_rank::<Ix4>(self.constant(node, 1)?)?;
        let (count, _, rows, columns) = filters.dim();
        if pair(node, "kernel_shape", [rows, columns])? != [rows, columns] {
            return Err("kernel_shape differs from the filters".to_owned());
        }
        let strides = pair(node, "strides", [1, 1])?;
        let padding = self.padding(node, [rows, columns], strides)?;
        let bias = self.bias(node, count)?;
        self.model.layers.push(Layer::Conv2D { filters, bias, strides, padding });
        Ok(())
    }

    /// `[[top, bottom], [left, right]]`, given or to be worked out.
    fn padding(
        &self,
        node: &pb::NodeProto,
        window: [usize; 2],
        strides: [usize; 2],
    ) -> Result<[[usize; 2]; 2], String> {
        match attribute(node, "auto_pad").map(|a| a.s.as_slice()) {
            None | Some(b"NOTSET") => pads(node),
            Some(b"VALID") => Ok([[0; 2]; 2]),
            Some(kind @ (b"SAME_UPPER" | b"SAME_LOWER")) => {
                let [.., height, width] = *self.shape().as_slice() else {
                    return Err("its input is no image".to_owned());
                };
                let upper = kind == b"SAME_UPPER";
                Ok([same(height, window[0], strides[0], upper)?, same(width, window[1], strides[1], upper)?])
            }
            Some(other) => Err(format!("auto_pad {} is not supported", String::from_utf8_lossy(other))),
        }
    }

    fn average_pool(&mut self, node: &pb::NodeProto) -> Result<(), String> {
        ones(node, "dilations")?;
        expect(node, "ceil_mode", 0, &[0])?;
        expect(node, "count_include_pad", 0, &[0, 1])?;
        let window = pair(node, "kernel_shape", [0, 0])?;
        let strides = pair(node, "strides", [1, 1])?;
        let padding = self.padding(node, window, strides)?;
        let padding_counts = integer(node, "count_include_pad", 0) == 1;
        self.model.layers.push(Layer::AveragePool { window, strides, padding, padding_counts });
        Ok(())
    }

    fn max_pool(&mut self, node: &pb::NodeProto) -> Result<(), String> {
        ones(node, "dilations")?;
        expect(node, "ceil_mode", 0, &[0])?;
        if attribute(node, "auto_pad").is_some_and(|a| a.s != b"NOTSET" && a.s != b"VALID")
            || pads(node)? != [[0; 2]; 2]
        {
            return Err("padding is not supported here".to_owned());
        }
        if node.output.len() > 1 {
            return Err("its second output is not supported".to_owned());
        }
        let window = pair(node, "kernel_shape", [0, 0])?;
        let strides = pair(node, "strides", [1, 1])?;
        self.model.layers.push(Layer::MaxPool { window, strides });
        Ok(())
    }

    /// One sample's shape so far.
    fn shape(&self) -> Vec<usize> {
        self.model.shapes().ok().and_then(|mut shapes| shapes.pop()).unwrap_or_else(|| self.model.input.clone())
    }

    /// A reshape that flattens, changes nothing, or gives the input its true shape.
    fn reshape(&mut self, node: &pb::NodeProto) -> Result<(), String> {
        let wanted = integers(self.tensor(node, 1)?)?;
        let shape = self.shape();
        let Some((batch, rest)) = wanted.split_first() else {
            return Err("it has no shape".to_owned());
        };
        let elements: usize = shape.iter().product();
        let known = rest.iter().filter(|&&d| d > 0).try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        let missing = known.filter(|&n| n > 0).map_or(0, |n| elements / n);
        let resolved: Vec<usize> = rest
            .iter()
            .enumerate()
            .map(|(i, &d)| match d {
                0 if integer(node, "allowzero", 0) == 0 => shape.get(i).copied().unwrap_or(0),
                -1 => missing,
                d => usize::try_from(d).unwrap_or(0),
            })
            .collect();
        let unknown = wanted.iter().filter(|&&d| d == -1).count();
        let product = resolved.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if !matches!(batch, -1..=1) || unknown > 1 || product != Some(elements) {
            return Err(format!("a reshape to {wanted:?} does not keep samples apart: {shape:?} is one sample"));
        }
        if resolved == shape {
            return Ok(());
        }
        if resolved == [elements] {
            self.model.layers.push(Layer::Flatten);
        } else if self.model.layers.iter().all(|layer| matches!(layer, Layer::Affine { .. })) {
            self.model.input = resolved;
        } else {
            return Err(format!("a reshape from {shape:?} to {resolved:?} is not supported"));
        }
        Ok(())
    }

    /// Add, Sub, Mul, Div with a constant: a bias, or a part of a normalisation.
    fn arithmetic(&mut self, node: &pb::NodeProto, input: usize) -> Result<(), String> {
        let constant = self.constant(node, input)?;
        let op = node.op_type.as_str();
        if op == "Add"
            && let Some(Layer::Dense { bias, .. } | Layer::Conv2D { bias, .. }) = self.model.layers.last_mut()
            && (constant.len() == 1 || constant.len() == bias.len())
        {
            // A convolution's bias has its dimensions behind: [filters, 1, 1]; a dense layer's stands last.
            let added = row(constant, bias.len())?;
            *bias += &added;
            return Ok(());
        }
        let (Some(&value), 1) = (constant.first(), constant.len()) else {
            return Err(format!("a constant of shape {:?} is neither a bias nor a single number", constant.shape()));
        };
        let (mean, std) = match op {
            "Add" => (-value, 1.0),
            "Sub" => (value, 1.0),
            "Mul" => (0.0, 1.0 / value),
            _ => (0.0, value),
        };
        // ((x - a) / b - c) / d = (x - (a + b c)) / (b d)
        let merged = match self.model.layers.last() {
            Some(&Layer::Affine { mean: a, std: b }) => {
                self.model.layers.pop();
                Layer::Affine { mean: a + b * mean, std: b * std }
            }
            _ => Layer::Affine { mean, std },
        };
        self.model.layers.push(merged);
        Ok(())
    }
}

/// A constant with one dimension that counts, of the given length; a single number is repeated.
fn row(constant: Array<f32, IxDyn>, length: usize) -> Result<Array1<f32>, String> {
    let shape = constant.shape().to_vec();
    match constant.len() {
        1 => Ok(Array1::from_elem(length, constant.first().copied().unwrap_or_default())),
        n if n == length && shape.iter().filter(|&&d| d > 1).count() <= 1 => {
            with_rank::<Ix1>(constant.into_iter().collect::<Array1<f32>>().into_dyn())
        }
        _ => Err(format!("a bias of shape {shape:?} for {length} outputs")),
    }
}

fn attribute<'a>(node: &'a pb::NodeProto, name: &str) -> Option<&'a pb::AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn integer(node: &pb::NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |a| a.i)
}

/// Refuses an integer attribute with another value than these.
fn expect(node: &pb::NodeProto, name: &str, default: i64, allowed: &[i64]) -> Result<(), String> {
    let value = integer(node, name, default);
    if allowed.contains(&value) { Ok(()) } else { Err(format!("{name} is {value}, where {allowed:?} is supported")) }
}

fn ones(node: &pb::NodeProto, name: &str) -> Result<(), String> {
    if pair(node, name, [1, 1])? == [1, 1] { Ok(()) } else { Err(format!("{name} must be 1")) }
}

/// A pair of sizes.
fn pair(node: &pb::NodeProto, name: &str, default: [usize; 2]) -> Result<[usize; 2], String> {
    let Some(attribute) = attribute(node, name) else {
        return Ok(default);
    };
    let sizes: Vec<usize> = attribute.ints.iter().filter_map(|&v| usize::try_from(v).ok()).collect();
    <[usize; 2]>::try_from(sizes).map_err(|_| format!("{name} is {:?}, not two sizes", attribute.ints))
}

/// ONNX's [top, left, bottom, right] as [[top, bottom], [left, right]].
fn pads(node: &pb::NodeProto) -> Result<[[usize; 2]; 2], String> {
    let Some(attribute) = attribute(node, "pads") else {
        return Ok([[0; 2]; 2]);
    };
    let sizes: Vec<usize> = attribute.ints.iter().filter_map(|&v| usize::try_from(v).ok()).collect();
    match *sizes.as_slice() {
        [top, left, bottom, right] => Ok([[top, bottom], [left, right]]),
        _ => Err(format!("pads is {:?}, not four sizes", attribute.ints)),
    }
}

/// Padding that makes ceil(length / stride) windows; an odd one goes to the end (`upper`) or the start.
fn same(length: usize, window: usize, stride: usize, upper: bool) -> Result<[usize; 2], String> {
    let windows = length.checked_add(stride.saturating_sub(1)).and_then(|n| n.checked_div(stride));
    let reach = windows.and_then(|n| n.saturating_sub(1).checked_mul(stride)).and_then(|n| n.checked_add(window));
    let total = reach.ok_or("strides must be positive")?.saturating_sub(length);
    let (less, more) = (total / 2, total - total / 2);
    Ok(if upper { [less, more] } else { [more, less] })
}
