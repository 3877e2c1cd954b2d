//! Constants out of a file: dimensions that agree with the data, values that are numbers.

use ndarray::{Array, Dimension, IxDyn};
use tract_onnx::pb::{TensorProto, tensor_proto::DataType};

/// A constant of floats; doubles are rounded.
pub(super) fn floats(tensor: &TensorProto) -> Result<Array<f32, IxDyn>, String> {
    let name = &tensor.name;
    let values: Vec<f32> = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) if tensor.raw_data.is_empty() => tensor.float_data.clone(),
        Ok(DataType::Float) => raw(tensor, f32::from_le_bytes)?,
        Ok(DataType::Double) if tensor.raw_data.is_empty() => tensor.double_data.iter().map(|&v| v as f32).collect(),
        Ok(DataType::Double) => raw(tensor, f64::from_le_bytes)?.into_iter().map(|v| v as f32).collect(),
        _ => return Err(format!("its constant `{name}` is not of float or double")),
    };
    if !values.iter().all(|v| v.is_finite()) {
        return Err(format!("its constant `{name}` has a value that is not finite"));
    }
    Array::from_shape_vec(IxDyn(&shape(tensor, values.len())?), values)
        .map_err(|e| format!("its constant `{name}`: {e}"))
}

/// A constant list of integers, such as a shape.
pub(super) fn integers(tensor: &TensorProto) -> Result<Vec<i64>, String> {
    let values = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if tensor.raw_data.is_empty() => tensor.int64_data.clone(),
        Ok(DataType::Int64) => raw(tensor, i64::from_le_bytes)?,
        _ => return Err(format!("its constant `{}` is not of int64", tensor.name)),
    };
    shape(tensor, values.len()).map(|_| values)
}

/// The constant in the number of dimensions that its use asks for.
pub(super) fn with_rank<D: Dimension>(array: Array<f32, IxDyn>) -> Result<Array<f32, D>, String> {
    let found = array.shape().to_vec();
    array.into_dimensionality().map_err(|_| {
        format!("its constant has the shape {found:?}, where {} dimensions are wanted", D::NDIM.unwrap_or_default())
    })
}

/// The dimensions, whose product is the number of values there are.
fn shape(tensor: &TensorProto, values: usize) -> Result<Vec<usize>, String> {
    let wrong = || format!("its constant `{}` has {values} values for dimensions {:?}", tensor.name, tensor.dims);
    if tensor.dims.len() > 8 {
        return Err(format!("its constant `{}` has {} dimensions", tensor.name, tensor.dims.len()));
    }
    let dims: Vec<usize> =
        tensor.dims.iter().map(|&d| usize::try_from(d).map_err(|_| wrong())).collect::<Result<_, _>>()?;
    // Zeros would hide an overflow of the others.
    match dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) {
        Some(product) if product == values && product > 0 => Ok(dims),
        _ => Err(wrong()),
    }
}

fn raw<T, const N: usize>(tensor: &TensorProto, value: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (values, rest) = tensor.raw_data.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(format!("its constant `{}` ends within a value", tensor.name));
    }
    Ok(values.iter().map(|&bytes| value(bytes)).collect())
}
