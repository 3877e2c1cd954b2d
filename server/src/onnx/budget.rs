//! How much a file may cost, counted before it is decoded.
//!
//! Decoded protobuf can take hundreds of times the bytes it came from: two bytes make an empty node of half a kilobyte.
//! So all that is not weights is held to a size that no real network comes near, and weights to plain numbers.

use super::{Error, MAX_FILE};

/// Bytes of everything but the weights.
const MAX_STRUCTURE: usize = 1 << 20;
/// Nodes, constants, inputs and outputs together.
const MAX_GRAPH_FIELDS: usize = 1 << 12;

/// Fields of the protobuf messages that are looked at.
const MODEL_GRAPH: u64 = 7;
const GRAPH_INITIALIZER: u64 = 5;
const TENSOR_STRINGS: u64 = 6;
const TENSOR_EXTERNAL: u64 = 13;

/// Refuses files that would cost more than their weights and a little.
pub(super) fn check(file: &[u8]) -> Result<(), Error> {
    if file.len() > MAX_FILE {
        return Err(Error::TooLarge { bytes: file.len() });
    }
    let mut structure = 0usize;
    let mut graph_fields = 0usize;
    for model_field in Fields(file) {
        let (number, content) = model_field?;
        if number != MODEL_GRAPH {
            structure += content.len() + 1;
            continue;
        }
        for graph_field in Fields(content) {
            let (number, content) = graph_field?;
            structure += 1;
            graph_fields += 1;
            if number != GRAPH_INITIALIZER {
                structure += content.len();
                continue;
            }
            for tensor_field in Fields(content) {
                match tensor_field?.0 {
                    TENSOR_EXTERNAL => {
                        return Err(Error::corrupt("its weights are in another file; put them into this one"));
                    }
                    TENSOR_STRINGS => return Err(Error::corrupt("its weights are strings")),
                    _ => {}
                }
            }
        }
    }
    if structure > MAX_STRUCTURE {
        return Err(Error::corrupt(format!("{structure} bytes beside its weights, where {MAX_STRUCTURE} are plenty")));
    }
    if graph_fields > MAX_GRAPH_FIELDS {
        return Err(Error::corrupt(format!("{graph_fields} nodes and constants, where {MAX_GRAPH_FIELDS} are plenty")));
    }
    Ok(())
}

/// The fields of one protobuf message: number, and content as bytes (empty for numbers).
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, &'a [u8]), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| Error::corrupt("it is cut off, or no protobuf at all")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, &'a [u8])> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => self.varint().map(|_| &[][..])?,
            1 => self.take(8).map(|_| &[][..])?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)?
            }
            5 => self.take(4).map(|_| &[][..])?,
            _ => return None,
        };
        Some((tag >> 3, content))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
