//! Convolutions.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use ndarray::{Array4, ArrayView1, ArrayView4};

use super::image::{channel_sums, channels_back, channels_first, in_a_row, per_channel, resolve};
use super::{Initialiser, Layer, Owner, Pass};
use crate::error::GraphError;
use crate::graph::{Along, Convolution, Padding, Tensor};

/// Images convolved with filters \[out, in / groups, height, width\], plus a bias \[out\], one entry for each channel.
#[derive(Clone, Debug)]
pub struct Conv2D {
    filters: Tensor,
    bias: Option<Tensor>,
    how: Convolution,
}

/// How filters lie on images of one size.
struct Geometry {
    /// \[out, in / groups, height, width\].
    shape: [u32; 4],
    /// Height and width with dilations.
    reach: [u32; 2],
    /// Above, below, left, right.
    padding: [u32; 4],
}

/// Filters \[out, in, height, width\] from TensorFlow's \[height, width, in, out\].
pub fn hwio_to_oihw(filters: ArrayView4<'_, f32>) -> Array4<f32> {
    filters.permuted_axes([3, 2, 0, 1]).as_standard_layout().into_owned()
}

impl Conv2D {
    /// Filters of shape \[out, in / groups, height, width\] drawn, the bias zero.
    ///
    /// # Errors
    /// A size is zero or too large.
    pub fn new(
        owner: &Owner<'_>,
        name: &str,
        shape: [u32; 4],
        how: Convolution,
        initialiser: Initialiser,
    ) -> Result<Self, GraphError> {
        let [outputs, inputs, height, width] = shape;
        let area = height.saturating_mul(width);
        let fans = [inputs.saturating_mul(area), (outputs / how.groups.max(1)).saturating_mul(area)];
        let filters = owner.drawn(name, "filters", &shape, fans, initialiser)?;
        let bias = owner.drawn(name, "bias", &[outputs], fans, Initialiser::Zeros)?;
        Self::of(filters, Some(bias), how)
    }

    /// With filters \[out, in / groups, height, width\] and a bias \[out\] given; see [`hwio_to_oihw`] for TensorFlow's filters.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn given(
        owner: &Owner<'_>,
        name: &str,
        filters: ArrayView4<'_, f32>,
        bias: Option<ArrayView1<'_, f32>>,
        how: Convolution,
    ) -> Result<Self, GraphError> {
        let filters = owner.given(name, "filters", filters.into_dyn())?;
        let bias = bias.map(|bias| owner.given(name, "bias", bias.into_dyn())).transpose()?;
        Self::of(filters, bias, how)
    }

    /// With tensors of any visibility, of shapes \[out, in / groups, height, width\] and \[out\].
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn of(filters: Tensor, bias: Option<Tensor>, how: Convolution) -> Result<Self, GraphError> {
        let shape = filters.shape();
        let bias_shape = bias.as_ref().map(Tensor::shape);
        match (shape.as_slice(), bias_shape.as_deref()) {
            ([_, _, _, _], None) => {}
            ([outputs, _, _, _], Some([entries])) if outputs == entries => {}
            _ => {
                let reason =
                    format!("filters [o, c, kh, kw] take a bias [o]; they have shapes {shape:?} and {bias_shape:?}");
                return Err(GraphError::new("Conv2D", reason));
            }
        }
        Ok(Self { filters, bias, how })
    }

    fn geometry(&self, size: [u32; 2]) -> Result<Geometry, GraphError> {
        let shape = <[u32; 4]>::try_from(self.filters.shape());
        let shape = shape.map_err(|shape| GraphError::new("Conv2D", format!("filters of shape {shape:?}")))?;
        let ([_, _, high, wide], [down, across]) = (shape, self.how.dilations);
        let reach = [(high - 1).saturating_mul(down) + 1, (wide - 1).saturating_mul(across) + 1];
        Ok(Geometry { shape, reach, padding: resolve(self.how.padding, size, reach, self.how.strides) })
    }
}

impl Layer for Conv2D {
    fn forward(&self, x: &Tensor) -> Result<Tensor, GraphError> {
        let y = x.conv2d(&self.filters, self.how)?;
        match &self.bias {
            Some(bias) => y.add(&per_channel(bias, self.how.layout)?),
            None => Ok(y),
        }
    }

    /// The convolution of the gradient, with its elements as far apart as the filters' steps, with the same filters turned
    /// by 180° and their channels in the others' place (Dumoulin and Visin 2016, §4.6).
    fn input_gradient(&self, pass: &Pass, gradient: &Tensor) -> Result<Tensor, GraphError> {
        pass.check("Conv2D", gradient)?;
        let Convolution { strides: [down, across], dilations, groups, layout, .. } = self.how;
        let x = channels_first(&pass.x, layout)?;
        let (gradient, [_, _, rows, columns]) = in_a_row(&channels_first(gradient, layout)?)?;
        let shape = x.shape();
        let [.., height, width] = shape.as_slice() else {
            return Err(GraphError::new("Conv2D", format!("images of shape {shape:?}")));
        };
        let Geometry { shape: [outputs, inner, high, wide], reach, padding } = self.geometry([*height, *width])?;
        // The first element of the result is seen by all of the filter that reaches beyond the padding; at the end, so many
        // zeros are needed that the result is as large as x.
        let around = |reach: u32, length: u32, before: u32, windows: u32, stride: u32| {
            let (before_gradient, spread) = ((reach - 1).checked_sub(before)?, (windows - 1) * stride + 1);
            Some([before_gradient, (length + before).checked_sub(spread)?])
        };
        let [top, _, left, _] = padding;
        let [reach_down, reach_across] = reach;
        let refuse = || {
            GraphError::new(
                "Conv2D",
                format!("the padding {padding:?} is as large as the filter, {reach:?} with dilation"),
            )
        };
        let [above, below] = around(reach_down, *height, top, rows, down).ok_or_else(refuse)?;
        let [before, after] = around(reach_across, *width, left, columns, across).ok_or_else(refuse)?;

        let filters = self.filters.flip(&[2, 3])?.reshape(&[groups, outputs / groups, inner, high, wide])?;
        let filters = filters.transpose(&[0, 2, 1, 3, 4])?.reshape(&[groups * inner, outputs / groups, high, wide])?;
        let gradient = if [down, across] == [1, 1] { gradient } else { gradient.dilate(&[1, 1, down, across])? };
        let padding = Padding::Explicit([above, below, before, after]);
        let how = Convolution { padding, dilations, groups, ..Convolution::default() };
        channels_back(&gradient.conv2d(&filters, how)?.reshape(&shape)?, layout)
    }

    /// A filter's element is multiplied with what it sees at each of its places: x convolved with the gradient, where the
    /// filter's steps have become distances and its distances steps.
    fn parameter_gradients(&self, pass: &Pass, gradient: &Tensor) -> Result<Vec<Tensor>, GraphError> {
        pass.check("Conv2D", gradient)?;
        let Convolution { strides, dilations, groups, layout, .. } = self.how;
        let (x, [_, _, height, width]) = in_a_row(&channels_first(&pass.x, layout)?)?;
        let (gradient, _) = in_a_row(&channels_first(gradient, layout)?)?;
        let Geometry { shape: [_, _, high, wide], padding, .. } = self.geometry([height, width])?;
        let padding = Padding::Explicit(padding);
        let how = Convolution { strides: dilations, dilations: strides, padding, ..Convolution::default() };
        // Samples are what is summed over: they take the channels' place.
        let swap = [1, 0, 2, 3];
        let one = |x: &Tensor, gradient: &Tensor| {
            let product = x.transpose(&swap)?.conv2d(&gradient.transpose(&swap)?, how)?;
            // Places at the image's end that no window reached would be further elements of the filter.
            let all = Along::default();
            let kept = [all, all, (..i64::from(high)).into(), (..i64::from(wide)).into()];
            let fits = matches!(product.shape().as_slice(), [_, _, h, w] if [*h, *w] == [high, wide]);
            if fits { product } else { product.slice(&kept)? }.transpose(&swap)
        };
        let filters = if groups == 1 {
            one(&x, &gradient)?
        } else {
            let pairs = x.split(groups, 1)?.into_iter().zip(gradient.split(groups, 1)?);
            let parts = pairs.map(|(x, gradient)| one(&x, &gradient)).collect::<Result<Vec<_>, _>>()?;
            Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?
        };
        let mut gradients = vec![filters];
        if self.bias.is_some() {
            gradients.push(channel_sums(&gradient)?);
        }
        Ok(gradients)
    }

    fn parameters(&self) -> Vec<Tensor> {
        [Some(&self.filters), self.bias.as_ref()].into_iter().flatten().cloned().collect()
    }
}
