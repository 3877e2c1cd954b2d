//! Images and labels from files: MNIST's IDX, plain or gzipped, and NumPy's .npy.
//!
//! What a file is, its first bytes say. What its header promises is compared with what it holds before memory is asked
//! for, so that a damaged or hostile file costs an error and no more.

mod batches;
pub mod idx;
pub mod npy;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use batches::Batches;
use ndarray::Array2;

use crate::exit::Failure;

/// Files larger than this are refused: 1 GiB, some twenty times MNIST unpacked.
const MAX_FILE: u64 = 1 << 30;

/// Why a file gave no data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system did not let us read it.
    #[error("{}: cannot be read ({source}); check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The operating system did not let us write it.
    #[error(
        "{}: cannot be written ({source}); check the path, its permissions and the space on the disk",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It was read, and is not what was asked for.
    #[error("{}: {fault}", path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Images and labels that do not belong together.
    #[error(
        "{} has {images} images but {} has {labels} labels; give the two files of one set",
        image_file.display(),
        label_file.display()
    )]
    Mismatch {
        /// The file of images.
        image_file: PathBuf,
        /// How many it holds.
        images: usize,
        /// The file of labels.
        label_file: PathBuf,
        /// How many it holds.
        labels: usize,
    },
    /// A directory without one of MNIST's four files.
    #[error(
        "{}: there is no {name} or {name}.gz here; put MNIST's four files in one directory and name it with --data \
         or SELKIE_MNIST_DIR",
        directory.display()
    )]
    Missing {
        /// The directory.
        directory: PathBuf,
        /// The file's name.
        name: &'static str,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unwritable { .. } => Self::other(error),
            Error::Unreadable { .. } | Error::Faulty { .. } | Error::Mismatch { .. } | Error::Missing { .. } => {
                Self::usage(error)
            }
        }
    }
}

/// What is wrong with a file's content.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Neither of the formats, by its first bytes.
    #[error("is neither IDX (plain or gzipped) nor .npy; give a file in one of these formats")]
    Unknown,
    /// The right format with the wrong content, such as labels where images were asked for.
    #[error("holds {found} where {wanted} were expected; give the other file of the set")]
    Content {
        /// What the header says it holds.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// It ends before its header is complete.
    #[error("ends within its header; it was cut off, fetch it again")]
    Header,
    /// The header cannot be used.
    #[error("has an unusable header: {0}; write the file again")]
    BadHeader(String),
    /// An element that is not what it should be.
    #[error("has an unusable element: {0}; correct it and write the file again")]
    BadElement(String),
    /// The header promises one length and the file has another.
    #[error("should hold {promised} bytes of data by its header but has {found}; it is damaged, fetch it again")]
    Length {
        /// Bytes by the header.
        promised: u64,
        /// Bytes there; for a gzipped file, as far as it was unpacked, or the most that it could hold.
        found: u64,
    },
    /// More than this program reads.
    #[error("is larger than the {0} bytes this program reads; split it")]
    TooLarge(u64),
    /// The compressed stream is damaged.
    #[error("is damaged ({0}); fetch it again")]
    Gzip(String),
}

/// Reads images: one row for each, its pixels in 0..=1 (IDX bytes and .npy `u8` are divided by 255; .npy floats are
/// taken as they are).
///
/// # Errors
/// The file cannot be read, is damaged, or holds no images.
pub fn images(path: &Path) -> Result<Array2<f32>, Error> {
    let bytes = read(path)?;
    let parsed = if npy::is_npy(&bytes) { npy::images(&bytes) } else { idx::images(&bytes) };
    parsed.map_err(|fault| Error::Faulty { path: path.to_owned(), fault })
}

/// Reads labels: an IDX file, or a one-dimensional .npy of `u8`, `i32` or `i64` in 0..=255.
///
/// # Errors
/// The file cannot be read, is damaged, or holds no labels.
pub fn labels(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read(path)?;
    let parsed = if npy::is_npy(&bytes) { npy::labels(&bytes) } else { idx::labels(&bytes) };
    parsed.map_err(|fault| Error::Faulty { path: path.to_owned(), fault })
}

/// Images and the digit on each.
pub struct Labelled {
    /// One row of pixels in 0..=1 for each image.
    pub images: Array2<f32>,
    /// As many labels as there are images.
    pub labels: Vec<u8>,
}

impl Labelled {
    /// Reads two files that belong together.
    ///
    /// # Errors
    /// As [`images`] and [`labels`]; and when their numbers differ.
    pub fn read(image_file: &Path, label_file: &Path) -> Result<Self, Error> {
        let (images, labels) = (images(image_file)?, labels(label_file)?);
        if images.nrows() != labels.len() {
            return Err(Error::Mismatch {
                image_file: image_file.to_owned(),
                images: images.nrows(),
                label_file: label_file.to_owned(),
                labels: labels.len(),
            });
        }
        Ok(Self { images, labels })
    }
}

/// MNIST: 60,000 images to train with and 10,000 to test with.
pub struct Mnist {
    /// What networks are trained with.
    pub train: Labelled,
    /// What they are measured with.
    pub test: Labelled,
}

impl Mnist {
    /// Reads MNIST's four files, by their original names, gzipped or not.
    ///
    /// # Errors
    /// A file is missing, damaged, or something else.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let find = |name| find(directory, name);
        Ok(Self {
            train: Labelled::read(&find("train-images-idx3-ubyte")?, &find("train-labels-idx1-ubyte")?)?,
            test: Labelled::read(&find("t10k-images-idx3-ubyte")?, &find("t10k-labels-idx1-ubyte")?)?,
        })
    }
}

/// One of MNIST's files, gzipped or not.
fn find(directory: &Path, name: &'static str) -> Result<PathBuf, Error> {
    [name.to_owned(), format!("{name}.gz")]
        .iter()
        .map(|name| directory.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Missing { directory: directory.to_owned(), name })
}

/// The whole of a regular file that is not too large.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unreadable(std::io::Error::other("it is not a file")));
    }
    let mut bytes = Vec::new();
    // The length is looked at while reading as well: a file may grow.
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::Faulty { path: path.to_owned(), fault: Fault::TooLarge(MAX_FILE) });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn errors_name_the_file_and_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("nothing");
        assert!(images(&missing).unwrap_err().to_string().contains("nothing: cannot be read"));
        assert!(images(directory.path()).is_err());
        let noise = directory.path().join("noise");
        std::fs::write(&noise, b"not images at all").unwrap();
        let message = images(&noise).unwrap_err().to_string();
        assert!(message.contains("noise") && message.contains("neither IDX"), "{message}");
    }

    #[test]
    fn images_and_labels_must_agree_in_number() {
        let directory = tempfile::tempdir().unwrap();
        let (i, l) = (directory.path().join("i"), directory.path().join("l"));
        std::fs::write(&i, [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255]).unwrap();
        std::fs::write(&l, [0, 0, 8, 1, 0, 0, 0, 2, 7, 1]).unwrap();
        assert!(matches!(Labelled::read(&i, &l), Err(Error::Mismatch { images: 1, labels: 2, .. })));
    }

    #[test]
    fn mnist_is_read_when_it_is_there() {
        let Some(directory) = std::env::var_os("SELKIE_MNIST_DIR") else {
            eprintln!("SELKIE_MNIST_DIR is not set: MNIST's own files are not tested");
            return;
        };
        let mnist = Mnist::read(Path::new(&directory)).unwrap();
        assert_eq!((mnist.train.images.dim(), mnist.train.labels.len()), ((60_000, 784), 60_000));
        assert_eq!((mnist.test.images.dim(), mnist.test.labels.len()), ((10_000, 784), 10_000));
        assert_eq!(mnist.train.labels.get(..4), Some(&[5, 0, 4, 1][..]));
        let mean = mnist.train.images.mean().unwrap();
        assert!((mean - 0.1307).abs() < 1e-3, "{mean}");
    }
}
