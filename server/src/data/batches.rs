//! Labelled images, a mini-batch at a time: a data set of any size in the memory of one batch.

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::idx::Stream;
use super::{Error, Fault, Labelled, find};

/// Mini-batches in the order of the files; rows that do not fill a batch are left out. One pass: open it again for the next.
pub struct Batches {
    images: (PathBuf, Stream),
    labels: (PathBuf, Stream),
    batch: usize,
    failed: bool,
}

impl Batches {
    /// Opens two IDX files that belong together, plain or gzipped.
    ///
    /// # Errors
    /// A file cannot be read, is damaged, holds something else, or the two have different numbers of rows.
    pub fn open(image_file: &Path, label_file: &Path, batch: usize) -> Result<Self, Error> {
        let open = |path: &Path, rank, what| {
            let file = File::open(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
            let stream = Stream::new(file, rank, what);
            Ok((path.to_owned(), stream.map_err(|fault| Error::Faulty { path: path.to_owned(), fault })?))
        };
        let (images, labels) = (open(image_file, 3, "images")?, open(label_file, 1, "labels")?);
        if images.1.rows() != labels.1.rows() {
            return Err(Error::Mismatch {
                image_file: image_file.to_owned(),
                images: images.1.rows(),
                label_file: label_file.to_owned(),
                labels: labels.1.rows(),
            });
        }
        Ok(Self { images, labels, batch, failed: false })
    }

    /// MNIST's images to train with.
    ///
    /// # Errors
    /// A file is missing; or as [`Batches::open`].
    pub fn of_mnist(directory: &Path, batch: usize) -> Result<Self, Error> {
        let image_file = find(directory, "train-images-idx3-ubyte")?;
        Self::open(&image_file, &find(directory, "train-labels-idx1-ubyte")?, batch)
    }

    /// Rows of the whole data set.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.images.1.rows()
    }

    fn read(&mut self) -> Result<Option<Labelled>, Error> {
        let read = |(path, stream): &mut (PathBuf, Stream), rows| {
            stream.next(rows).map_err(|fault| Error::Faulty { path: path.clone(), fault })
        };
        let (Some(pixels), Some(labels)) = (read(&mut self.images, self.batch)?, read(&mut self.labels, self.batch)?)
        else {
            return Ok(None);
        };
        let pixels = pixels.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let images = Array2::from_shape_vec((self.batch, self.images.1.columns()), pixels);
        let images = images.map_err(|error| Error::Faulty {
            path: self.images.0.clone(),
            fault: Fault::BadHeader(error.to_string()),
        })?;
        Ok(Some(Labelled { images, labels }))
    }
}

impl Iterator for Batches {
    type Item = Result<Labelled, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read();
        self.failed = next.is_err();
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn batches_come_in_order_and_damage_ends_them() {
        let directory = tempfile::tempdir().unwrap();
        let (i, l) = (directory.path().join("i"), directory.path().join("l"));
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2];
        images.extend([0, 51, 102, 153, 204, 255, 0, 51, 102, 153]);
        let labels = [0, 0, 8, 1, 0, 0, 0, 5, 7, 2, 1, 9, 3];
        std::fs::write(&l, labels).unwrap();
        for gzipped in [false, true] {
            let mut file = File::create(&i).unwrap();
            if gzipped {
                GzEncoder::new(file, Compression::best()).write_all(&images).unwrap();
            } else {
                file.write_all(&images).unwrap();
            }
            let batches = Batches::open(&i, &l, 2).unwrap();
            assert_eq!(batches.rows(), 5);
            let batches: Vec<Labelled> = batches.map(Result::unwrap).collect();
            assert_eq!(batches.len(), 2, "the fifth row fills no batch");
            assert_eq!((batches[0].labels.as_slice(), batches[1].labels.as_slice()), (&[7, 2][..], &[1, 9][..]));
            assert_eq!(batches[1].images, ndarray::arr2(&[[0.8, 1.0], [0.0, 0.2]]));
        }
        std::fs::write(&i, &images[..21]).unwrap();
        let mut batches = Batches::open(&i, &l, 2).unwrap();
        assert!(batches.next().unwrap().is_ok());
        assert!(matches!(batches.next(), Some(Err(Error::Faulty { fault: Fault::Length { .. }, .. }))));
        assert!(batches.next().is_none());
        std::fs::write(&l, [0, 0, 8, 1, 0, 0, 0, 1, 7]).unwrap();
        assert!(matches!(Batches::open(&i, &l, 2), Err(Error::Mismatch { images: 5, labels: 1, .. })));
    }
}
