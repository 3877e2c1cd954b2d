//! Files of our own and of others, damaged and hostile ones.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use ndarray::{Array2, Array4, array};
use prost::Message;
use tract_onnx::pb;

use super::proto::{floats, int, ints};
use super::*;
use crate::train::Net;

/// A little of everything, small enough to be damaged in every place.
fn small() -> Model {
    Model {
        input: vec![1, 6, 6],
        layers: vec![
            Layer::Affine { mean: 0.25, std: 0.5 },
            Layer::Conv2D {
                filters: Array4::from_shape_fn((2, 1, 3, 3), |(f, _, y, x)| (f + 2 * y) as f32 - x as f32),
                bias: array![0.5, -0.5],
                strides: [1, 1],
                padding: [[1, 0], [1, 1]],
            },
            Layer::MaxPool { window: [2, 2], strides: [2, 2] },
            Layer::Relu,
            Layer::Flatten,
            Layer::Dense {
                weights: Array2::from_shape_fn((12, 3), |(i, o)| (i as f32 - 5.0) * (o as f32 - 1.0) / 8.0),
                bias: array![0.0, 1.0, 2.0],
            },
            Layer::ArgMax,
        ],
    }
}

fn decoded(model: &Model) -> pb::ModelProto {
    pb::ModelProto::decode(write(model).unwrap().as_slice()).unwrap()
}

/// What reading says of a changed file.
fn changed(model: &Model, change: impl FnOnce(&mut pb::GraphProto)) -> Result<Model, Error> {
    let mut file = decoded(model);
    change(file.graph.as_mut().unwrap());
    read(&file.encode_to_vec())
}

fn refusal(change: impl FnOnce(&mut pb::GraphProto)) -> String {
    changed(&small(), change).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    assert_eq!(read(&write(&small()).unwrap()).unwrap(), small());
    for net in Net::ALL {
        let model = net.untrained(3);
        assert_eq!(read(&write(&model).unwrap()).unwrap(), model, "{net}");
    }
}

#[test]
fn shapes_are_those_of_the_literature() {
    let elements = |net: Net| -> Vec<usize> {
        net.untrained(1).shapes().unwrap().iter().map(|shape| shape.iter().product()).collect()
    };
    assert_eq!(elements(Net::A), [128, 128, 128, 128, 10]);
    assert_eq!(elements(Net::B), [9216, 2304, 2304, 1024, 256, 256, 256, 100, 100, 10]);
    assert_eq!(elements(Net::C), [11520, 2880, 2880, 3200, 800, 800, 800, 500, 500, 10]);
    assert_eq!(elements(Net::D), [980, 980, 980, 100, 100, 10]);
    for (average, most) in [(Net::BAvg, Net::B), (Net::CAvg, Net::C)] {
        assert_eq!(elements(average), elements(most));
        assert_eq!(average.untrained(1).parameters(), most.untrained(1).parameters());
    }
    assert_eq!(elements(Net::Demo), [1568, 1568, 784, 784, 784, 64, 64, 10]);
}

/// By hand: one sample, every layer computed as its definition says.
#[test]
fn the_plaintext_runtime_computes_what_the_layers_mean() {
    let model = small();
    let image = Array2::from_shape_fn((1, 36), |(_, i)| ((i * 7) % 11) as f32 / 10.0);
    let pixel = |y: isize, x: isize| {
        if (0..6).contains(&y) && (0..6).contains(&x) { (image[[0, (y * 6 + x) as usize]] - 0.25) / 0.5 } else { 0.0 }
    };
    let Layer::Conv2D { filters, bias, .. } = &model.layers[1] else { unreachable!() };
    let conv = |f: usize, y: usize, x: usize| {
        let sum: f32 = (0..9)
            .map(|k| filters[[f, 0, k / 3, k % 3]] * pixel((y + k / 3) as isize - 1, (x + k % 3) as isize - 1))
            .sum();
        sum + bias[f]
    };
    // Padding [1, 0] down leaves 5 rows: 2 whole windows; across, 6 columns: 3.
    let features: Vec<f32> = (0..12)
        .map(|i| {
            let (f, y, x) = (i / 6, i / 3 % 2, i % 3);
            let window = (0..4).map(|k| conv(f, 2 * y + k / 2, 2 * x + k % 2));
            window.fold(0.0, f32::max)
        })
        .collect();
    let Layer::Dense { weights, bias } = &model.layers[5] else { unreachable!() };
    let expected = ndarray::Array1::from(features).dot(weights) + bias;
    let runtime = Plaintext::new(&write(&model).unwrap()).unwrap();
    let logits = runtime.logits(image.view()).unwrap();
    assert!(logits.row(0).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4), "{logits} {expected}");
}

/// One average-pooling of a 5x7 image of two channels.
fn averaging(padding: [[usize; 2]; 2], padding_counts: bool) -> Model {
    let (window, strides) = ([3, 2], [2, 1]);
    Model {
        input: vec![2, 5, 7],
        layers: vec![Layer::AveragePool { window, strides, padding, padding_counts }, Layer::Flatten],
    }
}

/// By hand: means with and without padding, counted both ways.
#[test]
fn averages_are_counted_as_onnx_says() {
    let images = Array2::from_shape_fn((3, 70), |(n, i)| ((n * 31 + i * 17) % 23) as f32 / 8.0 - 1.0);
    for padding in [[[0, 0], [0, 0]], [[1, 1], [1, 0]], [[2, 0], [0, 1]]] {
        for padding_counts in [false, true] {
            let model = averaging(padding, padding_counts);
            let file = write(&model).unwrap();
            assert_eq!(read(&file).unwrap(), model);
            let [[top, bottom], [left, right]] = padding;
            let (rows, columns) = ((5 + top + bottom - 3) / 2 + 1, 7 + left + right - 1);
            let mean = |n: usize, channel: usize, row: usize, column: usize| {
                let places = (0..6).map(|k| (2 * row + k / 2, column + k % 2));
                let inside = places.filter(|(y, x)| (top..5 + top).contains(y) && (left..7 + left).contains(x));
                let pixels: Vec<f32> =
                    inside.map(|(y, x)| images[[n, channel * 35 + (y - top) * 7 + x - left]]).collect();
                pixels.iter().sum::<f32>() / if padding_counts { 6.0 } else { pixels.len() as f32 }
            };
            let logits = Plaintext::new(&file).unwrap().logits(images.view()).unwrap();
            assert_eq!(logits.dim(), (3, 2 * rows * columns), "{padding:?}");
            for ((n, at), logit) in logits.indexed_iter() {
                let expected = mean(n, at / (rows * columns), at / columns % rows, at % columns);
                assert!((logit - expected).abs() < 1e-5, "{padding:?} {padding_counts}: {logit} {expected}");
            }
        }
    }
    // SAME is worked out; opset's defaults are strides of 1 and padding that does not count.
    let same = |kind: &[u8]| {
        changed(&averaging([[0; 2]; 2], false), |graph| {
            graph.node[0].attribute.retain(|a| a.name == "kernel_shape");
            graph.node[0].attribute.push(pb::AttributeProto {
                name: "auto_pad".to_owned(),
                r#type: pb::attribute_proto::AttributeType::String as i32,
                s: kind.to_vec(),
                ..Default::default()
            });
        })
    };
    for (kind, across) in [(b"SAME_UPPER", [0, 1]), (b"SAME_LOWER", [1, 0])] {
        let (window, padding) = ([3, 2], [[1, 1], across]);
        let expected = Layer::AveragePool { window, strides: [1, 1], padding, padding_counts: false };
        assert_eq!(same(kind).unwrap().layers[0], expected);
    }
    assert!(same(b"SOME").unwrap_err().to_string().contains("auto_pad SOME"));
    let strange = |attribute| {
        changed(&averaging([[0; 2]; 2], false), |graph| {
            graph.node[0].attribute.retain(|a| a.name != "count_include_pad");
            graph.node[0].attribute.push(attribute);
        })
        .unwrap_err()
        .to_string()
    };
    assert!(strange(int("ceil_mode", 1)).contains("ceil_mode is 1"));
    assert!(strange(int("count_include_pad", 2)).contains("count_include_pad is 2"));
    assert!(strange(ints("dilations", [2, 1])).contains("dilations"));
    assert!(write(&averaging([[3, 0], [0, 0]], true)).unwrap_err().to_string().contains("makes no sense"));
}

#[test]
fn batches_of_any_size_run() {
    let runtime = Plaintext::new(&write(&Net::D.untrained(1)).unwrap()).unwrap();
    let images = Array2::from_shape_fn((71, 784), |(n, i)| ((n * 31 + i * 17) % 101) as f32 / 100.0);
    let together = runtime.logits(images.view()).unwrap();
    for n in [0, 31, 32, 70] {
        let alone = runtime.logits(images.slice(ndarray::s![n..=n, ..])).unwrap();
        assert!(alone.row(0).iter().zip(together.row(n)).all(|(a, b)| (a - b).abs() < 1e-5), "{n}");
    }
    assert!(runtime.logits(Array2::zeros((1, 783)).view()).is_err());
}

#[test]
fn other_ways_to_say_the_same_are_read() {
    // Weights the other way round, as PyTorch writes them.
    let transposed = changed(&small(), |graph| {
        let dense = graph.initializer.iter_mut().find(|t| t.name == "dense6.weights").unwrap();
        let Layer::Dense { weights, .. } = &small().layers[5] else { unreachable!() };
        *dense = floats("dense6.weights", &[3, 12], weights.t().as_standard_layout().iter());
        graph.node.iter_mut().find(|n| n.op_type == "Gemm").unwrap().attribute.push(int("transB", 1));
    });
    assert_eq!(transposed.unwrap(), small());
    // A product and a sum instead of one node, as TensorFlow writes them.
    let split = changed(&small(), |graph| {
        let at = graph.node.iter().position(|n| n.op_type == "Gemm").unwrap();
        let mut add = graph.node[at].clone();
        add.op_type = "Add".to_owned();
        add.input = vec!["dense6.bias".to_owned(), "product".to_owned()];
        let product = &mut graph.node[at];
        product.op_type = "MatMul".to_owned();
        product.input.pop();
        product.output = vec!["product".to_owned()];
        graph.node.insert(at + 1, add);
    });
    assert_eq!(split.unwrap(), small());
    // A reshape instead of flatten, and a fixed batch of one.
    let reshaped = |batch: i64| {
        let mut file = decoded(&small());
        let graph = file.graph.as_mut().unwrap();
        let flatten = graph.node.iter_mut().find(|n| n.op_type == "Flatten").unwrap();
        flatten.op_type = "Reshape".to_owned();
        flatten.attribute.clear();
        flatten.input.push("shape".to_owned());
        graph.initializer.push(pb::TensorProto {
            name: "shape".to_owned(),
            dims: vec![2],
            data_type: pb::tensor_proto::DataType::Int64 as i32,
            int64_data: vec![batch, 12],
            ..Default::default()
        });
        file.encode_to_vec()
    };
    let images = Array2::from_shape_fn((3, 36), |(n, i)| ((n + i) % 5) as f32 / 4.0);
    let expected = Plaintext::new(&write(&small()).unwrap()).unwrap().logits(images.view()).unwrap();
    for batch in [-1, 0, 1] {
        assert_eq!(read(&reshaped(batch)).unwrap(), small(), "{batch}");
        let logits = Plaintext::new(&reshaped(batch)).unwrap().logits(images.view()).unwrap();
        assert!(logits.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{batch}");
    }
    assert!(read(&reshaped(2)).is_err());
}

#[test]
fn what_is_not_supported_is_named() {
    let unknown = refusal(|graph| graph.node[4].op_type = "Tanh".to_owned());
    assert!(unknown.contains("`relu4` (Tanh)") && unknown.contains("supported are Gemm"), "{unknown}");
    let branch = refusal(|graph| graph.node[4].input[0] = "input".to_owned());
    assert!(branch.contains("one chain"), "{branch}");
    let grouped = refusal(|graph| graph.node[2].attribute.push(int("group", 2)));
    assert!(grouped.contains("`conv2d2` (Conv)") && grouped.contains("group is 2"), "{grouped}");
    let dilated = refusal(|graph| graph.node[2].attribute.push(ints("dilations", [2, 2])));
    assert!(dilated.contains("dilations"), "{dilated}");
    let padded = refusal(|graph| graph.node[3].attribute.push(ints("pads", [1, 1, 1, 1])));
    assert!(padded.contains("padding"), "{padded}");
    let early = refusal(|graph| graph.node[5].op_type = "ArgMax".to_owned());
    assert!(early.contains("flatten it first"), "{early}");
    let misfit = refusal(|graph| graph.initializer[4].dims = vec![6, 6]);
    assert!(misfit.contains("dense6"), "{misfit}");
    let zero = refusal(|graph| graph.initializer[1] = floats("affine1.std", &[1], &[0.0]));
    assert!(zero.contains("no normalisation"), "{zero}");
    let output = refusal(|graph| graph.output[0].name = "relu4".to_owned());
    assert!(output.contains("`class`"), "{output}");
    let mut file = decoded(&small());
    file.opset_import[0].version = 99;
    assert!(read(&file.encode_to_vec()).unwrap_err().to_string().contains("operator set 99"));
}

#[test]
fn constants_must_agree_with_their_dimensions() {
    for dims in [vec![i64::MAX, 3], vec![-12, -3], vec![12, 4], vec![0, 3], vec![1 << 32, 1 << 32], vec![1; 9]] {
        assert!(refusal(|graph| graph.initializer[4].dims = dims).contains("dense6"));
    }
    let nan = refusal(|graph| graph.initializer[3] = floats("conv2d2.bias", &[2], &[1.0, f32::NAN]));
    assert!(nan.contains("not finite") && !nan.contains("supported"), "{nan}");
    let elsewhere = refusal(|graph| {
        let entry = pb::StringStringEntryProto { key: "location".to_owned(), value: "/etc/passwd".to_owned() };
        graph.initializer[3].external_data.push(entry);
    });
    assert!(elsewhere.contains("another file"), "{elsewhere}");
}

#[test]
fn large_promises_and_many_small_messages_cost_nothing() {
    let huge = refusal(|graph| {
        let conv = graph.node.iter_mut().find(|n| n.op_type == "Conv").unwrap();
        conv.attribute.retain(|a| a.name != "pads");
        conv.attribute.push(ints("pads", [1 << 40; 4]));
    });
    assert!(huge.contains("padding"), "{huge}");
    // A million empty nodes would be half a gigabyte.
    let crowd = refusal(|graph| graph.node = vec![pb::NodeProto::default(); 1 << 20]);
    assert!(crowd.contains("beside its weights"), "{crowd}");
    let long = refusal(|graph| graph.node = vec![graph.node[4].clone(); 5000]);
    assert!(long.contains("nodes and constants"), "{long}");
    // One large square matrix multiplied by itself again and again would fill the memory.
    let again = refusal(|graph| {
        let matrix = vec![0.5; 36 * 36];
        graph.initializer = vec![floats("matrix", &[36, 36], &matrix)];
        let mut flatten = graph.node[5].clone();
        flatten.input = vec!["input".to_owned()];
        flatten.output = vec!["0".to_owned()];
        let product = |i: usize| pb::NodeProto {
            op_type: "MatMul".to_owned(),
            input: vec![i.to_string(), "matrix".to_owned()],
            output: vec![(i + 1).to_string()],
            ..Default::default()
        };
        graph.node = std::iter::once(flatten).chain((0..1000).map(product)).collect();
        graph.output[0].name = "1000".to_owned();
    });
    assert!(again.contains("over and over"), "{again}");
}

#[test]
fn damaged_files_are_refused_or_read_but_never_panic() {
    let whole = write(&small()).unwrap();
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    for position in 0..whole.len() {
        for flip in [0x01, 0x08, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            // Weights may change unnoticed; what is still a model must also run, or be refused with words.
            if read(&damaged).is_ok()
                && let Ok(runtime) = Plaintext::new(&damaged)
            {
                let _ = runtime.logits(Array2::zeros((2, 36)).view());
            }
        }
    }
    assert!(read(b"").is_err());
    assert!(read(&[0; 100]).is_err());
}

#[test]
fn a_file_is_written_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.onnx");
    assert_eq!(save(&small(), &path).unwrap(), bytes(&path).unwrap().len());
    assert_eq!(read(&bytes(&path).unwrap()).unwrap(), small());
    let nowhere = directory.path().join("nowhere/model.onnx");
    assert!(check_writable(&path).is_ok() && check_writable(&nowhere).is_err());
    assert!(save(&small(), &nowhere).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn argmax_prefers_the_first() {
    assert_eq!(argmax(array![1.0, 3.0, 3.0].view()), 1);
    assert_eq!(argmax(array![0.0, 0.0].view()), 0);
}
