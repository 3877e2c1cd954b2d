//! The shipped model against the stroke digits, in clear: 100 drawings that were committed before it was trained.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use ndarray::Array2;
use selkie::drawing::{PIXELS, Stroke, rasterise};

use crate::{data, onnx};

#[derive(serde::Deserialize)]
struct Drawing {
    digit: u8,
    strokes: Vec<Stroke>,
}

fn drawings(name: &str) -> (Array2<f32>, Vec<u8>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/digits").join(name);
    let drawings: Vec<Drawing> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let pixels = drawings.iter().flat_map(|drawing| rasterise(&drawing.strokes).unwrap()).collect();
    let images = Array2::from_shape_vec((drawings.len(), PIXELS), pixels).unwrap();
    (images, drawings.iter().map(|drawing| drawing.digit).collect())
}

fn shipped() -> Vec<u8> {
    onnx::bytes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo.onnx")).unwrap()
}

/// Positions of the images that are not recognised.
fn mistakes(images: &Array2<f32>, labels: &[u8]) -> Vec<usize> {
    let logits = onnx::Plaintext::new(&shipped()).unwrap().logits(images.view()).unwrap();
    let classes = logits.rows().into_iter().map(onnx::argmax);
    classes
        .zip(labels)
        .enumerate()
        .filter(|(_, (class, label))| *class != usize::from(**label))
        .map(|(i, _)| i)
        .collect()
}

#[test]
fn there_are_ten_different_drawings_of_each_digit() {
    let (images, labels) = drawings("strokes.json");
    assert!((0..10).all(|digit| labels.iter().filter(|&&label| label == digit).count() == 10));
    for i in 0..100 {
        for j in 0..i {
            let difference: f32 = images.row(i).iter().zip(images.row(j)).map(|(a, b)| (a - b).abs()).sum();
            assert!(difference > 5.0, "drawings {j} and {i} are the same");
        }
    }
}

#[test]
fn the_shipped_model_recognises_drawn_digits() {
    let (images, labels) = drawings("strokes.json");
    let wrong = mistakes(&images, &labels);
    println!("{} of 100 stroke digits recognised, not those at {wrong:?}", 100 - wrong.len());
    assert!(wrong.len() <= 5, "not recognised: {wrong:?}");
}

#[test]
fn the_pages_examples_are_all_recognised() {
    let (images, labels) = drawings("examples.json");
    assert_eq!(labels, (0..10).collect::<Vec<u8>>());
    assert!(mistakes(&images, &labels).is_empty());
}

#[test]
fn the_shipped_model_is_small_strided_and_accurate() {
    let model = onnx::read(&shipped()).unwrap();
    assert!(shipped().len() < 1_000_000);
    assert!(!model.layers.iter().any(|layer| matches!(layer, onnx::Layer::MaxPool { .. })));
    let shapes = model.shapes().unwrap();
    let relus = model.layers.iter().zip(&shapes).filter(|(layer, _)| matches!(layer, onnx::Layer::Relu));
    assert_eq!(relus.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 2416);
    let Some(directory) = std::env::var_os("SELKIE_MNIST_DIR") else {
        eprintln!("SELKIE_MNIST_DIR is not set: the shipped model's accuracy on MNIST is not tested");
        return;
    };
    let test = data::Mnist::read(Path::new(&directory)).unwrap().test;
    let wrong = mistakes(&test.images, &test.labels).len();
    assert!(wrong <= 150, "{wrong} of 10,000 are not recognised");
}
