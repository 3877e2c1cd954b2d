//! NumPy's .npy files: images as `u8` (divided by 255), `f32` or `f64`, and labels.

use ndarray::{Array2, ArrayD, Axis};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{ReadNpyError, ReadNpyExt, ReadableElement};

use super::Fault;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy's own headers take 118 bytes. The library parses the header as nested Python, so length and nesting are
/// bounded first.
const MAX_HEADER: usize = 1024;
const MAX_BRACKETS: usize = 4;

/// Whether a file is .npy, by its first bytes.
#[must_use]
pub fn is_npy(file: &[u8]) -> bool {
    file.starts_with(MAGIC)
}

/// The images in an .npy file: the first dimension counts them, the others are flattened, and a single dimension is one
/// image.
///
/// # Errors
/// The bytes are damaged, have another element type, or a value is not a finite number.
pub fn images(file: &[u8]) -> Result<Array2<f32>, Fault> {
    let array = first_of([
        &|| read::<u8>(file).map(|a| a.mapv(|pixel| f32::from(pixel) / 255.0)),
        &|| read::<f32>(file),
        // Rounded to single precision: the networks compute in it.
        &|| read::<f64>(file).map(|a| a.mapv(|pixel| pixel as f32)),
    ])
    .unwrap_or_else(|| Err(wrong_type(file, "images of u8, f32 or f64")))?;
    let array = if array.ndim() < 2 { array.insert_axis(Axis(0)) } else { array };
    let count = array.len_of(Axis(0));
    let pixels = array.len().checked_div(count).unwrap_or(0);
    if pixels == 0 {
        return Err(Fault::BadHeader("it has no elements".to_owned()));
    }
    if let Some((position, pixel)) = array.iter().enumerate().find(|(_, pixel)| !pixel.is_finite()) {
        let (image, at) = (position / pixels, position % pixels);
        return Err(Fault::BadElement(format!("pixel {at} of image {image}, counted from 0, is {pixel}")));
    }
    let flat: Vec<f32> = array.iter().copied().collect();
    Array2::from_shape_vec((count, pixels), flat).map_err(|error| Fault::BadHeader(error.to_string()))
}

/// The labels in an .npy file of one dimension.
///
/// # Errors
/// The bytes are damaged, have another element type or shape, or a label is outside 0..=255.
pub fn labels(file: &[u8]) -> Result<Vec<u8>, Fault> {
    let array = first_of([
        &|| read::<u8>(file).map(|a| a.mapv(i64::from)),
        &|| read::<i32>(file).map(|a| a.mapv(i64::from)),
        &|| read::<i64>(file),
    ])
    .unwrap_or_else(|| Err(wrong_type(file, "labels of u8, i32 or i64")))?;
    if array.ndim() != 1 {
        return Err(Fault::Content { found: format!("an array of {} dimensions", array.ndim()), wanted: "labels" });
    }
    array
        .iter()
        .map(|&label| u8::try_from(label).map_err(|_| Fault::BadElement(format!("{label} is not a label in 0..=255"))))
        .collect()
}

/// A reading under one element type: `None` when the file has another one.
type Attempt<'a, T> = &'a dyn Fn() -> Result<ArrayD<T>, Refusal>;

/// Another element type, which may still be tried, or a fault that no other type mends.
enum Refusal {
    OtherType,
    Fault(Fault),
}

/// The outcome under the first element type that the file has; `None` when it has none of them.
fn first_of<T>(attempts: [Attempt<'_, T>; 3]) -> Option<Result<ArrayD<T>, Fault>> {
    attempts.iter().find_map(|attempt| match attempt() {
        Ok(array) => Some(Ok(array)),
        Err(Refusal::Fault(fault)) => Some(Err(fault)),
        Err(Refusal::OtherType) => None,
    })
}

fn read<T: ReadableElement>(file: &[u8]) -> Result<ArrayD<T>, Refusal> {
    let (header, data) = header(file).map_err(Refusal::Fault)?;
    // Every element takes a byte at least: no more elements than bytes are made room for.
    let elements = header.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    if elements > data.len() {
        return Err(Refusal::Fault(Fault::Length { promised: elements as u64, found: data.len() as u64 }));
    }
    ArrayD::<T>::read_npy(file).map_err(|error| match error {
        ReadNpyError::WrongDescriptor(_) => Refusal::OtherType,
        ReadNpyError::MissingData | ReadNpyError::ExtraBytes(_) => {
            Refusal::Fault(Fault::Length { promised: (elements * size_of::<T>()) as u64, found: data.len() as u64 })
        }
        other => Refusal::Fault(Fault::BadHeader(other.to_string())),
    })
}

/// The parsed header and the data after it.
fn header(file: &[u8]) -> Result<(Header, &[u8]), Fault> {
    // After the magic: major and minor version, then the header's length, in two bytes for version 1 and four after.
    let version = file.get(MAGIC.len()..MAGIC.len() + 2).ok_or(Fault::Header)?;
    let after = file.get(MAGIC.len() + 2..).ok_or(Fault::Header)?;
    let (length, rest) = if version.starts_with(&[1]) {
        let (length, rest) = after.split_first_chunk::<2>().ok_or(Fault::Header)?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = after.split_first_chunk::<4>().ok_or(Fault::Header)?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    if length > MAX_HEADER {
        return Err(Fault::BadHeader(format!("{length} bytes, where {MAX_HEADER} are plenty")));
    }
    let text = rest.get(..length).ok_or(Fault::Header)?;
    if text.iter().filter(|byte| matches!(byte, b'(' | b'[' | b'{')).count() > MAX_BRACKETS {
        return Err(Fault::BadHeader("nested brackets".to_owned()));
    }
    let header = Header::from_reader(&mut &*file).map_err(|error| Fault::BadHeader(error.to_string()))?;
    Ok((header, rest.get(length..).unwrap_or_default()))
}

fn wrong_type(file: &[u8], wanted: &'static str) -> Fault {
    let found = match header(file) {
        Ok((header, _)) => format!("elements of type {}", header.type_descriptor),
        Err(fault) => return fault,
    };
    Fault::Content { found, wanted }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::*;
    use ndarray::{Array1, Array3, array};
    use ndarray_npy::WriteNpyExt;

    fn written(array: &impl WriteNpyExt) -> Vec<u8> {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_three_element_types_are_read() {
        let pixels = array![[[0u8, 51], [102, 255]], [[255, 0], [0, 204]]];
        let expected = array![[0.0f32, 0.2, 0.4, 1.0], [1.0, 0.0, 0.0, 0.8]];
        assert_eq!(images(&written(&pixels)).unwrap(), expected);
        assert_eq!(images(&written(&pixels.mapv(|p| f32::from(p) / 255.0))).unwrap(), expected);
        assert_eq!(images(&written(&pixels.mapv(|p| f64::from(p) / 255.0))).unwrap(), expected);
        assert_eq!(images(&written(&Array1::<f32>::ones(4))).unwrap().dim(), (1, 4));
    }

    #[test]
    fn column_major_files_are_read_in_order() {
        let columns = array![[1.0f32, 2.0], [3.0, 4.0]].reversed_axes();
        assert_eq!(images(&written(&columns)).unwrap(), array![[1.0, 3.0], [2.0, 4.0]]);
    }

    #[test]
    fn labels_are_read_and_bounded() {
        assert_eq!(labels(&written(&array![7i64, 0, 9])).unwrap(), [7, 0, 9]);
        assert_eq!(labels(&written(&array![7u8, 0, 9])).unwrap(), [7, 0, 9]);
        assert!(labels(&written(&array![7i64, -1])).is_err());
        assert!(labels(&written(&array![[7u8]])).is_err());
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = written(&Array3::<f32>::ones((2, 3, 3)));
        for length in MAGIC.len()..whole.len() {
            assert!(images(&whole[..length]).is_err(), "{length}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert_eq!(images(&longer), Err(Fault::Length { promised: 72, found: 73 }));
        assert!(matches!(images(&written(&array![[1i16]])), Err(Fault::Content { .. })));
        let nan = images(&written(&array![[1.0f32, 0.5], [1.0, f32::NAN]])).unwrap_err().to_string();
        assert!(nan.contains("pixel 1 of image 1") && nan.contains("NaN"), "{nan}");
        assert!(images(&written(&array![f64::INFINITY])).is_err());
        assert!(images(&written(&Array3::<f32>::ones((0, 3, 3)))).is_err());
    }

    #[test]
    fn hostile_headers_cost_nothing() {
        let file = |version: u8, header: &[u8]| {
            let mut bytes = [MAGIC, &[version, 0]].concat();
            match version {
                1 => bytes.extend((header.len() as u16).to_le_bytes()),
                _ => bytes.extend((header.len() as u32).to_le_bytes()),
            }
            bytes.extend(header);
            bytes
        };
        let dict = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
        let huge = dict("(1000000000000, 28, 28)");
        assert!(matches!(images(&file(1, huge.as_bytes())), Err(Fault::Length { found: 0, .. })));
        let overflow = dict("(18446744073709551615, 18446744073709551615)");
        assert!(images(&file(1, overflow.as_bytes())).is_err());
        assert!(matches!(images(&file(1, &[b'('; 60_000])), Err(Fault::BadHeader(_))));
        assert!(matches!(images(&file(1, &[b'('; 500])), Err(Fault::BadHeader(_))));
        let mut long = file(2, b"");
        long.truncate(MAGIC.len() + 2);
        long.extend(u32::MAX.to_le_bytes());
        assert!(matches!(images(&long), Err(Fault::BadHeader(_))));
    }
}
