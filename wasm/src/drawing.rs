//! From the strokes of a drawing to the pixels of a network's input.

use selkie::drawing::{self, Stroke};
use wasm_bindgen::prelude::*;

/// The 784 pixels, 0 to 1, that MNIST would have made of the drawing; nothing if it is blank.
///
/// `strokes` holds the points of all strokes one after another as x, y; `lengths` the number of points of each stroke.
/// Points that belong to no stroke, and strokes without points, are left out.
#[wasm_bindgen]
pub fn rasterise(strokes: &[f32], lengths: &[u32]) -> Option<Vec<f32>> {
    let mut points = strokes.chunks_exact(2).filter_map(|point| <[f32; 2]>::try_from(point).ok());
    let strokes: Vec<Stroke> = lengths.iter().map(|length| points.by_ref().take(*length as usize).collect()).collect();
    drawing::rasterise(&strokes).map(Vec::from)
}
