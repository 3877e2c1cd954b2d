//! Small conveniences over the protobuf types.

use tract_onnx::pb::{self, attribute_proto::AttributeType, tensor_proto::DataType};

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> pb::AttributeProto {
    pb::AttributeProto { name: name.to_owned(), r#type: AttributeType::Int as i32, i: value, ..Default::default() }
}

/// A list of integers as an attribute.
pub(super) fn ints(name: &str, values: impl IntoIterator<Item = usize>) -> pb::AttributeProto {
    let ints = values.into_iter().map(|v| v as i64).collect();
    pb::AttributeProto { name: name.to_owned(), r#type: AttributeType::Ints as i32, ints, ..Default::default() }
}

/// A tensor of floats.
pub(super) fn floats<'a>(name: &str, shape: &[usize], values: impl IntoIterator<Item = &'a f32>) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_owned(),
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type: DataType::Float as i32,
        raw_data: values.into_iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

/// A named value of a graph: a batch of `N` samples of `shape`.
pub(super) fn batch(name: &str, kind: DataType, shape: &[usize]) -> pb::ValueInfoProto {
    use pb::tensor_shape_proto::{Dimension, dimension::Value};
    let dimension = |value| Dimension { denotation: String::new(), value: Some(value) };
    let dim = std::iter::once(dimension(Value::DimParam("N".to_owned())))
        .chain(shape.iter().map(|&d| dimension(Value::DimValue(d as i64))))
        .collect();
    let tensor = pb::type_proto::Tensor { elem_type: kind as i32, shape: Some(pb::TensorShapeProto { dim }) };
    pb::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(pb::TypeProto {
            denotation: String::new(),
            value: Some(pb::type_proto::Value::TensorType(tensor)),
        }),
        doc_string: String::new(),
    }
}
