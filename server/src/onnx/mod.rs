//! Model files: ONNX, for the feed-forward networks that Selkie runs.
//!
//! [`fn@read`] makes a [`Model`] of a file's bytes and refuses what it does not know, by name; [`fn@write`] is its
//! inverse; [`Plaintext`] runs a file in clear through tract, which shares none of our code: the reference that answers
//! are compared with.

mod budget;
mod plaintext;
mod proto;
mod read;
mod shape;
mod tensor;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, Array4, ArrayView1};

use crate::exit::Failure;
pub(crate) use plaintext::OneThread;
pub use plaintext::Plaintext;
pub use read::read;
pub use write::write;

/// Model files larger than this are refused.
pub const MAX_FILE: usize = 64 << 20;

/// What nodes a file may have: part of the error about any other.
pub(crate) const SUPPORTED: &str = "Gemm, MatMul, Add, Sub, Mul, Div, Conv, Relu, MaxPool, AveragePool, Flatten, Reshape, Identity, Constant and a final ArgMax";

/// A network as a list of layers, each fed by the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// One sample's shape, without the batch dimension: `[features]` or `[channels, rows, columns]`.
    pub input: Vec<usize>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

/// One layer of a network.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// `x W + b`.
    Dense {
        /// `[inputs, outputs]`.
        weights: Array2<f32>,
        /// `[outputs]`.
        bias: Array1<f32>,
    },
    /// Cross-correlation, as ONNX and everybody call convolution.
    Conv2D {
        /// `[filters, channels, rows, columns]`.
        filters: Array4<f32>,
        /// `[filters]`.
        bias: Array1<f32>,
        /// Down, across.
        strides: [usize; 2],
        /// `[[top, bottom], [left, right]]`.
        padding: [[usize; 2]; 2],
    },
    /// `max(x, 0)`.
    Relu,
    /// The maximum of every window; no padding, incomplete windows are dropped.
    MaxPool {
        /// Rows, columns.
        window: [usize; 2],
        /// Down, across.
        strides: [usize; 2],
    },
    /// The mean of every window; incomplete windows are dropped.
    AveragePool {
        /// Rows, columns.
        window: [usize; 2],
        /// Down, across.
        strides: [usize; 2],
        /// `[[top, bottom], [left, right]]`.
        padding: [[usize; 2]; 2],
        /// Whether padding counts as zeros (ONNX's `count_include_pad`), or a window's mean is that of the image's
        /// elements in it alone.
        padding_counts: bool,
    },
    /// One sample's elements in a row, the last dimension fastest.
    Flatten,
    /// `(x - mean) / std`.
    Affine {
        /// What is subtracted.
        mean: f32,
        /// What is divided by: finite and not zero.
        std: f32,
    },
    /// The index of the largest element; of equal ones the lowest. Only as the last layer.
    ArgMax,
}

impl Model {
    /// How many numbers were learnt.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.layers.iter().map(Layer::parameters).sum()
    }
}

impl Layer {
    fn parameters(&self) -> usize {
        match self {
            Self::Dense { weights, bias } => weights.len() + bias.len(),
            Self::Conv2D { filters, bias, .. } => filters.len() + bias.len(),
            _ => 0,
        }
    }

    /// What the layer is called in files and reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Conv2D { .. } => "conv2d",
            Self::Relu => "relu",
            Self::MaxPool { .. } => "maxpool",
            Self::AveragePool { .. } => "averagepool",
            Self::Flatten => "flatten",
            Self::Affine { .. } => "affine",
            Self::ArgMax => "argmax",
        }
    }
}

/// Why a model file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file itself.
    #[error(transparent)]
    File(#[from] crate::data::Error),
    /// Too large to look at.
    #[error("the model takes {bytes} bytes; this program reads models up to {MAX_FILE}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The bytes are not ONNX, or damaged.
    #[error("not a usable ONNX model: {0}; export it again")]
    Corrupt(String),
    /// A node that is not supported, or not in this way.
    #[error("node `{node}` ({op}): {why}")]
    Node {
        /// The node's name, or its output's.
        node: String,
        /// Its operation.
        op: String,
        /// What is the matter.
        why: String,
    },
    /// The graph as a whole.
    #[error("the model's graph cannot be used: {0}")]
    Graph(String),
    /// Layers that do not fit together.
    #[error("layer {index} ({layer}) does not fit: {why}")]
    Shape {
        /// Which layer, from 0.
        index: usize,
        /// Its name.
        layer: &'static str,
        /// What is the matter.
        why: String,
    },
    /// The reference runtime refused the model or the images.
    #[error("the plaintext runtime cannot run this: {0}")]
    Plaintext(String),
}

impl Error {
    pub(crate) fn corrupt(why: impl Into<String>) -> Self {
        Self::Corrupt(why.into())
    }

    /// The failure of a command that was given this file.
    #[must_use]
    pub fn of(self, path: &Path) -> Failure {
        match self {
            // It names the file by itself.
            Self::File(file) => file.into(),
            _ => Failure::usage(format_args!("{}: {self}", path.display())),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::File(file) => file.into(),
            // The model, or the images for it, were given.
            _ => Self::usage(error),
        }
    }
}

/// The bytes of a model file, not too many.
///
/// # Errors
/// The file cannot be read or is too large.
pub fn bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = crate::data::read(path)?;
    if bytes.len() > MAX_FILE { Err(Error::TooLarge { bytes: bytes.len() }) } else { Ok(bytes) }
}

/// Writes a model file, whole or not at all: through a temporary file beside it. Returns its size in bytes.
///
/// # Errors
/// The model's layers do not fit together, or the file cannot be written.
pub fn save(model: &Model, path: &Path) -> Result<usize, Error> {
    let bytes = write(model)?;
    let beside = beside(path);
    std::fs::write(&beside, &bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|source| unwritable(path, source))?;
    Ok(bytes.len())
}

/// Whether [`save`] could write there: to be asked before minutes of work.
///
/// # Errors
/// It could not.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    let beside = beside(path);
    std::fs::write(&beside, b"").and_then(|()| std::fs::remove_file(&beside)).map_err(|source| unwritable(path, source))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    crate::data::Error::Unwritable { path: path.to_owned(), source }.into()
}

/// The index of the largest element; of equal ones the lowest. Zero for nothing.
#[must_use]
pub fn argmax(row: ArrayView1<'_, f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in row.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}
