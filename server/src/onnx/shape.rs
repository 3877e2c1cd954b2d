//! Whether a model's layers fit together.

use super::{Error, Layer, Model};

/// No tensor of one sample may have more elements.
const MAX_ELEMENTS: usize = 1 << 22;

impl Model {
    /// One sample's shape after each layer.
    ///
    /// # Errors
    /// A layer does not fit the one before it, or a tensor is unreasonably large.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, Error> {
        if !matches!(self.input.len(), 1 | 3) || product(&self.input).is_none_or(|n| n == 0) {
            return Err(Error::Graph(format!(
                "one sample's input is {:?}; it must be [features] or [channels, rows, columns]",
                self.input
            )));
        }
        let mut shape = self.input.clone();
        let mut shapes = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let wrong = |why| Error::Shape { index, layer: layer.name(), why };
            shape = layer.output(&shape).map_err(wrong)?;
            if product(&shape).is_none_or(|n| n == 0) {
                return Err(wrong(format!("its output would be {shape:?}")));
            }
            if matches!(layer, Layer::ArgMax) && index + 1 != self.layers.len() {
                return Err(wrong("only the last layer may be one".to_owned()));
            }
            shapes.push(shape.clone());
        }
        Ok(shapes)
    }
}

impl Layer {
    /// The shape that comes out when `input` goes in.
    fn output(&self, input: &[usize]) -> Result<Vec<usize>, String> {
        match (self, input) {
            (Self::Dense { weights, bias }, &[features]) => {
                let (inputs, outputs) = weights.dim();
                if inputs != features || bias.len() != outputs {
                    return Err(format!(
                        "{features} features meet weights of {inputs}x{outputs} and a bias of {}",
                        bias.len()
                    ));
                }
                Ok(vec![outputs])
            }
            (Self::Conv2D { filters, bias, strides, padding }, &[channels, rows, columns]) => {
                let (count, wanted, height, width) = filters.dim();
                if wanted != channels || bias.len() != count {
                    return Err(format!(
                        "{channels} channels meet filters for {wanted} and a bias of {} for {count} filters",
                        bias.len()
                    ));
                }
                let [vertical, horizontal] = *padding;
                Ok(vec![
                    count,
                    places(rows, height, strides[0], vertical)?,
                    places(columns, width, strides[1], horizontal)?,
                ])
            }
            (Self::MaxPool { window, strides }, &[channels, rows, columns]) => Ok(vec![
                channels,
                places(rows, window[0], strides[0], [0; 2])?,
                places(columns, window[1], strides[1], [0; 2])?,
            ]),
            (
                Self::AveragePool { window, strides, padding: [vertical, horizontal], .. },
                &[channels, rows, columns],
            ) => Ok(vec![
                channels,
                places(rows, window[0], strides[0], *vertical)?,
                places(columns, window[1], strides[1], *horizontal)?,
            ]),
            (Self::Relu, shape) => Ok(shape.to_vec()),
            (Self::Affine { mean, std }, shape) => {
                if !mean.is_finite() || !std.is_normal() {
                    return Err(format!("a mean of {mean} and a standard deviation of {std} are no normalisation"));
                }
                Ok(shape.to_vec())
            }
            (Self::Flatten, shape) => product(shape).map(|n| vec![n]).ok_or_else(|| format!("{shape:?} is too large")),
            (Self::ArgMax, &[_]) => Ok(vec![1]),
            (Self::Dense { .. } | Self::ArgMax, shape) => Err(format!("its input is {shape:?}; flatten it first")),
            (Self::Conv2D { .. } | Self::MaxPool { .. } | Self::AveragePool { .. }, shape) => {
                Err(format!("its input is {shape:?}, not [channels, rows, columns]"))
            }
        }
    }
}

/// How often a window fits along one axis.
fn places(length: usize, window: usize, stride: usize, padding: [usize; 2]) -> Result<usize, String> {
    let padded = padding.iter().try_fold(length, |sum, &p| sum.checked_add(p));
    // Windows that see nothing but padding have no use, and would make zeros of nothing cost memory.
    if window == 0 || stride == 0 || padding.iter().any(|&p| p >= window) {
        return Err(format!("a window of {window} with stride {stride} and padding {padding:?} makes no sense"));
    }
    padded
        .and_then(|padded| padded.checked_sub(window))
        .map(|room| room / stride + 1)
        .ok_or_else(|| format!("a window of {window} does not fit into {length} with padding {padding:?}"))
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS)
}
