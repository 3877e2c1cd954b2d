//! The IDX format of MNIST's files: two zero bytes, the element type, the number of dimensions, the dimensions as
//! big-endian `u32`s, then the elements. Only unsigned bytes are read: images have three dimensions, labels one.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, ErrorKind, Read};

use flate2::read::MultiGzDecoder;
use ndarray::Array2;

use super::Fault;

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The element type of unsigned bytes.
const BYTES: u8 = 8;
/// More data than this is refused: 340,000 images of 28x28.
const MAX_DATA: u64 = 1 << 28;
/// DEFLATE makes no file more than this many times smaller.
const MAX_RATIO: u64 = 1032;

/// The images in an IDX file: one row for each, pixels divided by 255.
///
/// # Errors
/// The bytes are damaged, or hold something else.
pub fn images(file: &[u8]) -> Result<Array2<f32>, Fault> {
    let (dimensions, data) = elements(file, 3, "images")?;
    let bad = || Fault::BadHeader(format!("images of {dimensions:?}"));
    let [count, rows, columns] = *dimensions.as_slice() else {
        return Err(bad());
    };
    let pixels = data.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    Array2::from_shape_vec((count, rows * columns), pixels).map_err(|_| bad())
}

/// The labels in an IDX file.
///
/// # Errors
/// The bytes are damaged, or hold something else.
pub fn labels(file: &[u8]) -> Result<Vec<u8>, Fault> {
    elements(file, 1, "labels").map(|(_, data)| data.into_owned())
}

/// The elements of an IDX file, plain or gzipped, read a piece at a time: however large it is, it takes no more memory than
/// what is asked for.
pub struct Stream {
    source: Box<dyn Read + Send>,
    rows: usize,
    columns: usize,
    read: usize,
}

impl Stream {
    /// Opens an image file (`wanted` 3) or a label file (1).
    ///
    /// # Errors
    /// The header is damaged, or is that of something else.
    pub fn new(file: impl Read + Send + 'static, wanted: usize, what: &'static str) -> Result<Self, Fault> {
        let mut file = BufReader::new(file);
        let gzipped = file.fill_buf().map_err(gzip)?.starts_with(&GZIP);
        let mut source: Box<dyn Read + Send> =
            if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let (dimensions, _) = dimensions(&mut source, wanted, what)?;
        let (rows, columns) = dimensions.split_first().map_or((0, 1), |(rows, rest)| (*rows, rest.iter().product()));
        Ok(Self { source, rows, columns, read: 0 })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes in a row: an image's pixels, or 1.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The next rows, `None` if there are fewer left.
    ///
    /// # Errors
    /// The file ends before it should, or is damaged.
    pub fn next(&mut self, rows: usize) -> Result<Option<Vec<u8>>, Fault> {
        if rows == 0 || self.rows - self.read < rows {
            return Ok(None);
        }
        let mut bytes = vec![0; rows * self.columns];
        self.source.read_exact(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                Fault::Length { promised: (self.rows * self.columns) as u64, found: (self.read * self.columns) as u64 }
            }
            _ => gzip(error),
        })?;
        self.read += rows;
        Ok(Some(bytes))
    }
}

/// The dimensions and the elements, whose number is their product.
fn elements<'a>(file: &'a [u8], wanted: usize, what: &'static str) -> Result<(Vec<usize>, Cow<'a, [u8]>), Fault> {
    if !file.starts_with(&GZIP) {
        let mut rest = file;
        let (dimensions, length) = header(&mut rest, wanted, what)?;
        return match rest.len() as u64 {
            found if found == length => Ok((dimensions, Cow::Borrowed(rest))),
            found => Err(Fault::Length { promised: length, found }),
        };
    }
    let mut unpacked = MultiGzDecoder::new(file);
    let (dimensions, promised) = header(&mut unpacked, wanted, what)?;
    let possible = MAX_RATIO * file.len() as u64;
    if promised > possible {
        return Err(Fault::Length { promised, found: possible });
    }
    let mut data = Vec::with_capacity(promised as usize);
    // One more than promised, to notice data that goes on.
    let found = unpacked.take(promised + 1).read_to_end(&mut data).map_err(gzip)? as u64;
    if found != promised {
        return Err(Fault::Length { promised, found });
    }
    Ok((dimensions, Cow::Owned(data)))
}

/// [`dimensions`] of a file that is to be held in memory.
fn header(source: &mut impl Read, wanted: usize, what: &'static str) -> Result<(Vec<usize>, u64), Fault> {
    let (dimensions, length) = dimensions(source, wanted, what)?;
    if length > MAX_DATA { Err(Fault::TooLarge(MAX_DATA)) } else { Ok((dimensions, length)) }
}

/// Reads the header: the dimensions, and the length of the data that they promise.
fn dimensions(source: &mut impl Read, wanted: usize, what: &'static str) -> Result<(Vec<usize>, u64), Fault> {
    let [zero0, zero1, kind, rank] = word(source)?;
    if [zero0, zero1] != [0, 0] || !(8..=14).contains(&kind) {
        return Err(Fault::Unknown);
    }
    if kind != BYTES || usize::from(rank) != wanted {
        let found = match (kind, rank) {
            (BYTES, 1) => "labels".to_owned(),
            (BYTES, 3) => "images".to_owned(),
            _ => format!("IDX elements of type {kind} in {rank} dimensions"),
        };
        return Err(Fault::Content { found, wanted: what });
    }
    let mut dimensions = Vec::with_capacity(wanted);
    let mut length = 1u64;
    for _ in 0..rank {
        let dimension = u32::from_be_bytes(word(source)?);
        if dimension == 0 {
            return Err(Fault::BadHeader("a dimension is zero".to_owned()));
        }
        length = length.saturating_mul(u64::from(dimension));
        dimensions.push(dimension as usize);
    }
    Ok((dimensions, length))
}

fn word(source: &mut impl Read) -> Result<[u8; 4], Fault> {
    let mut word = [0; 4];
    source.read_exact(&mut word).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Fault::Header,
        _ => gzip(error),
    })?;
    Ok(word)
}

fn gzip(error: std::io::Error) -> Fault {
    Fault::Gzip(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    const IMAGES: [u8; 24] = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 51, 102, 153, 204, 255, 0, 255];
    const LABELS: [u8; 11] = [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1];

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn with_dimensions(a: u32, b: u32, c: u32) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, 3];
        [a, b, c].iter().for_each(|d| bytes.extend(d.to_be_bytes()));
        bytes
    }

    #[test]
    fn plain_and_gzipped_files_read_alike() {
        let plain = images(&IMAGES).unwrap();
        assert_eq!(plain.dim(), (2, 4));
        assert_eq!(plain[[0, 1]], 0.2);
        assert_eq!(plain[[1, 1]], 1.0);
        assert_eq!(images(&gzipped(&IMAGES)).unwrap(), plain);
        assert_eq!(labels(&LABELS).unwrap(), [7, 2, 1]);
        assert_eq!(labels(&gzipped(&LABELS)).unwrap(), [7, 2, 1]);
    }

    #[test]
    fn files_that_are_cut_off_or_go_on_are_refused() {
        for length in 0..IMAGES.len() {
            assert!(images(&IMAGES[..length]).is_err(), "plain, {length}");
            assert!(images(&gzipped(&IMAGES[..length])).is_err(), "gzipped, {length}");
        }
        let whole = gzipped(&IMAGES);
        for length in 0..whole.len() {
            assert!(images(&whole[..length]).is_err(), "{length} bytes of a gzipped file");
        }
        let mut longer = IMAGES.to_vec();
        longer.push(0);
        assert_eq!(images(&longer), Err(Fault::Length { promised: 8, found: 9 }));
        assert_eq!(images(&gzipped(&longer)), Err(Fault::Length { promised: 8, found: 9 }));
    }

    #[test]
    fn other_formats_and_the_other_file_are_told_apart() {
        assert_eq!(images(b"\x89PNG\r\n\x1a\n........"), Err(Fault::Unknown));
        assert!(matches!(images(&LABELS), Err(Fault::Content { found, .. }) if found == "labels"));
        assert!(matches!(labels(&IMAGES), Err(Fault::Content { found, .. }) if found == "images"));
        let mut floats = IMAGES;
        floats[2] = 13;
        assert!(matches!(images(&floats), Err(Fault::Content { .. })));
    }

    #[test]
    fn promises_are_not_believed() {
        assert_eq!(images(&with_dimensions(u32::MAX, u32::MAX, u32::MAX)), Err(Fault::TooLarge(MAX_DATA)));
        assert_eq!(images(&with_dimensions(1 << 16, 28, 28)), Err(Fault::Length { promised: 51_380_224, found: 0 }));
        assert!(matches!(images(&with_dimensions(0, 28, 28)), Err(Fault::BadHeader(_))));
        // A small gzipped file that promises more than it can hold is refused before it is unpacked.
        let liar = gzipped(&with_dimensions(1 << 16, 28, 28));
        assert!(matches!(images(&liar), Err(Fault::Length { promised: 51_380_224, found }) if found < 1 << 20));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut bomb = IMAGES.to_vec();
        bomb.resize(1 << 24, 0);
        assert_eq!(images(&gzipped(&bomb)), Err(Fault::Length { promised: 8, found: 9 }));
    }
}
