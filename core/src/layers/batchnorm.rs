//! Batch normalisation, with the statistics that training left behind.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use ndarray::{Array1, Array2, Array4, ArrayView1, ArrayView2, ArrayView4, Axis};

use super::image::{channel_sums, per_channel};
use super::{Layer, Owner, Pass, rows};
use crate::error::GraphError;
use crate::graph::{Layout, Tensor};

/// What batch normalisation knows of each channel: its owner's secret. (x - mean) / √(variance + epsilon) · scale + offset.
#[derive(Clone, PartialEq)]
pub struct Moments {
    /// The mean of each channel.
    pub mean: Array1<f32>,
    /// The variance of each channel.
    pub variance: Array1<f32>,
    /// γ; ones where there is none.
    pub scale: Option<Array1<f32>>,
    /// β; zeros where there is none.
    pub offset: Option<Array1<f32>>,
    /// What keeps the root away from zero; TF Encrypted's is 1e-8.
    pub epsilon: f32,
}

impl fmt::Debug for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moments({} channels, hidden)", self.mean.len())
    }
}

impl Moments {
    /// The same as x · scale + shift: scale and shift of each channel.
    ///
    /// # Errors
    /// The numbers of channels differ, or one of the values has no meaning.
    pub fn fold(&self) -> Result<(Array1<f32>, Array1<f32>), GraphError> {
        let channels = self.mean.len();
        let lengths = [Some(&self.variance), self.scale.as_ref(), self.offset.as_ref()];
        let lengths: Vec<usize> = lengths.into_iter().flatten().map(Array1::len).collect();
        if channels == 0 || lengths.iter().any(|length| *length != channels) {
            let reason = format!("{channels} means, but {lengths:?} other values; every channel has one of each");
            return Err(GraphError::new("Batchnorm", reason));
        }
        let of = |values: &Option<Array1<f32>>, channel: usize, otherwise: f64| {
            values.as_ref().and_then(|values| values.get(channel)).map_or(otherwise, |value| f64::from(*value))
        };
        let one = |(channel, (mean, variance)): (usize, (&f32, &f32))| {
            let factor = of(&self.scale, channel, 1.0) / libm::sqrt(f64::from(*variance) + f64::from(self.epsilon));
            let shift = of(&self.offset, channel, 0.0) - f64::from(*mean) * factor;
            ((factor as f32).is_finite() && (shift as f32).is_finite()).then_some((factor as f32, shift as f32))
        };
        let folded: Option<Vec<_>> = self.mean.iter().zip(&self.variance).enumerate().map(one).collect();
        let folded = folded.ok_or_else(|| {
            GraphError::new("Batchnorm", "a channel has no finite scale and shift: is variance + epsilon above zero?")
        })?;
        Ok(folded.into_iter().unzip::<f32, f32, Vec<_>, Vec<_>>()).map(|(scale, shift)| (scale.into(), shift.into()))
    }

    /// Weights \[in, out\] and bias \[out\] of a dense layer that does what the given one and this normalisation behind it do.
    /// At inference that costs nothing.
    ///
    /// # Errors
    /// As [`Moments::fold`], or there are not as many channels as outputs.
    pub fn fold_into_dense(
        &self,
        weights: ArrayView2<'_, f32>,
        bias: Option<ArrayView1<'_, f32>>,
    ) -> Result<(Array2<f32>, Array1<f32>), GraphError> {
        let (scale, shift) = self.fold()?;
        let bias = folded_bias(weights.shape(), weights.len_of(Axis(1)), bias, &scale, shift)?;
        Ok((&weights * &scale, bias))
    }

    /// Filters \[out, in, height, width\] and bias \[out\] of a convolution that does what the given one and this normalisation
    /// behind it do. At inference that costs nothing.
    ///
    /// # Errors
    /// As [`Moments::fold`], or there are not as many channels as filters.
    pub fn fold_into_conv2d(
        &self,
        filters: ArrayView4<'_, f32>,
        bias: Option<ArrayView1<'_, f32>>,
    ) -> Result<(Array4<f32>, Array1<f32>), GraphError> {
        let (scale, shift) = self.fold()?;
        let bias = folded_bias(filters.shape(), filters.len_of(Axis(0)), bias, &scale, shift)?;
        let mut filters = filters.to_owned();
        filters.outer_iter_mut().zip(&scale).for_each(|(mut filter, scale)| filter *= *scale);
        Ok((filters, bias))
    }
}

fn folded_bias(
    shape: &[usize],
    outputs: usize,
    bias: Option<ArrayView1<'_, f32>>,
    scale: &Array1<f32>,
    shift: Array1<f32>,
) -> Result<Array1<f32>, GraphError> {
    let entries = bias.map_or(outputs, |bias| bias.len());
    if scale.len() != outputs || entries != outputs {
        let reason =
            format!("weights of shape {shape:?} with {entries} biases have no {} channels to normalise", scale.len());
        return Err(GraphError::new("Batchnorm", reason));
    }
    Ok(bias.map_or(shift.clone(), |bias| &bias * scale + &shift))
}

/// x · scale + shift for each channel: batch normalisation, folded by its owner. Channels are an image's, or the last axis
/// of what has no three axes.
///
/// Training changes scale and shift; the statistics inside them stay what they are.
#[derive(Clone, Debug)]
pub struct Batchnorm {
    scale: Tensor,
    shift: Tensor,
    layout: Layout,
}

impl Batchnorm {
    /// Folded where it is, and shared: no server learns a parameter.
    ///
    /// # Errors
    /// As [`Moments::fold`].
    pub fn new(owner: &Owner<'_>, name: &str, moments: &Moments, layout: Layout) -> Result<Self, GraphError> {
        let (scale, shift) = moments.fold()?;
        let scale = owner.given(name, "scale", scale.view().into_dyn())?;
        let shift = owner.given(name, "shift", shift.view().into_dyn())?;
        Self::of(scale, shift, layout)
    }

    /// With tensors of any visibility, of shape \[channels\].
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn of(scale: Tensor, shift: Tensor, layout: Layout) -> Result<Self, GraphError> {
        let (scale_shape, shift_shape) = (scale.shape(), shift.shape());
        if scale_shape.len() != 1 || scale_shape != shift_shape {
            let reason = format!("scale and shift [channels] have shapes {scale_shape:?} and {shift_shape:?}");
            return Err(GraphError::new("Batchnorm", reason));
        }
        Ok(Self { scale, shift, layout })
    }

    /// Where x has its channels; it must have as many as there are parameters, and nothing is broadcast to them.
    fn layout(&self, x: &Tensor) -> Result<Layout, GraphError> {
        let (shape, scale) = (x.shape(), self.scale.shape());
        let layout = if shape.len() < 3 { Layout::ChannelsLast } else { self.layout };
        let channels = match (layout, shape.as_slice()) {
            (Layout::ChannelsFirst, [.., channels, _, _]) | (Layout::ChannelsLast, [.., channels]) => Some(channels),
            _ => None,
        };
        if channels != scale.first() {
            let reason = format!("operands have shapes {shape:?} and {scale:?}, {layout:?}");
            return Err(GraphError::new("Batchnorm", reason));
        }
        Ok(layout)
    }
}

impl Layer for Batchnorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        let layout = self.layout(x)?;
        x.mul(&per_channel(&self.scale, layout)?)?.add(&per_channel(&self.shift, layout)?)
    }

    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Batchnorm", gradient)?;
        gradient.mul(&per_channel(&self.scale, self.layout(&pass.x)?)?)
    }

    fn parameter_gradients(&self, pass: &Pass, gradient: &Tensor) -> Result<Vec<Tensor>, GraphError> {
        pass.check("Batchnorm", gradient)?;
        let layout = self.layout(&pass.x)?;
        let sums = |x: &Tensor| match layout {
            Layout::ChannelsFirst => channel_sums(x),
            Layout::ChannelsLast => rows(x)?.reduce_sum(0),
        };
        Ok(alloc::vec![sums(&gradient.mul(&pass.x)?)?, sums(gradient)?])
    }

    fn parameters(&self) -> Vec<Tensor> {
        alloc::vec![self.scale.clone(), self.shift.clone()]
    }
}
