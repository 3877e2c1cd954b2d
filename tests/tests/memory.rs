//! Training holds memory flat: at the parties however long it lasts, at the owner of the data however much there is of it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed test may panic")]

#[path = "processes/trial.rs"]
#[allow(dead_code, reason = "the process tests use all of it")]
mod trial;

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use flate2::{Compression, write::GzEncoder};
use ndarray::Array2;
use selkie::graph::{Bounds, Graph};
use selkie::layers::{Dense, Initialiser, Layer, Owner, Sgd, sigmoid_cross_entropy};
use selkie::program::Numbers;
use selkie::{Protocol, Role, Seed};
use selkie_server::Session;
use selkie_server::client::Keys;
use selkie_server::data::Batches;
use selkie_server::identity::Identity;
use trial::Trial;

const MIB: u64 = 1 << 20;

/// One at a time: what the other allocates would be measured, too.
static TURN: Mutex<()> = Mutex::new(());

/// A line of a process's status in bytes: `VmRSS` is what it holds in memory, `VmHWM` the most that it ever did.
fn status(process: &str, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).unwrap();
    found.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// By how much `work` raises this process's peak above what it holds at first.
fn peak(work: impl FnOnce()) -> u64 {
    // The peak begins anew (proc(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("self", "VmHWM");
    work();
    status("self", "VmHWM") - before
}

#[test]
fn ten_epochs_of_training_hold_the_parties_memory_flat() {
    const BATCH: usize = 100;
    const FEATURES: usize = 10;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let graph = Graph::new();
    let owner = Owner::new(&graph, "model-owner", Seed::new([1; 32])).keeping([-1.0, 1.0]);
    let model = Dense::new(&owner, "dense", [FEATURES as u32, 1], Initialiser::Zeros).unwrap();
    let input = |name, columns| graph.private_input("data-owner", name, &[BATCH as u32, columns], [-0.5, 1.0]).unwrap();
    let (rows, labels) = (input("rows", FEATURES as u32), input("labels", 1));
    let pass = model.pass(&rows).unwrap();
    let gradient = sigmoid_cross_entropy(&pass.y, &labels).unwrap();
    let train = graph.entry("train");
    let sgd = Sgd { rate: 0.01.into(), samples: BATCH as u32 };
    for (parameter, gradient) in model.parameters().iter().zip(&model.parameter_gradients(&pass, &gradient).unwrap()) {
        train.assign(parameter, &sgd.step(parameter, gradient).unwrap()).unwrap();
    }
    train.output("data-owner", &pass.y).unwrap();
    let weights = graph.weights();
    let programs = graph.compile_entries(Numbers::default(), Bounds::Proved(&weights)).unwrap();

    let draw = |salt, columns| {
        let values = Initialiser::Uniform { limit: 0.5 }.draw(BATCH * columns, [1, 1], &Seed::new([salt; 32]));
        Array2::from_shape_vec((BATCH, columns), values).unwrap().into_dyn()
    };
    let (x, y) = (draw(1, FEATURES), draw(2, 1));
    let mut trial = Trial::new();
    trial.parties();
    trial.epoch(0);
    let resident = |trial: &Trial| Role::ALL.map(|role| status(&trial.id(role).to_string(), "VmRSS"));
    let deployer = Identity::load(&trial.path("deployer.key")).unwrap();
    let (cluster, protocol) = (trial.cluster(), Protocol::Table);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = async {
        let session = Session::remote(&cluster, deployer, Keys::new(), &programs, &weights, protocol);
        let mut session = session.await.unwrap();
        let mut early = [0; 3];
        for epoch in 1..=10 {
            for _ in 0..20 {
                session.call("train", &[("rows", x.view()), ("labels", y.view())]).await.unwrap();
            }
            if epoch == 2 {
                early = resident(&trial);
            }
        }
        let late = resident(&trial);
        session.close().await.unwrap();
        (early, late)
    };
    let (early, late) = runtime.block_on(async { tokio::time::timeout(trial::LONG, run).await.unwrap() });
    for (role, (early, late)) in Role::ALL.iter().zip(early.iter().zip(late)) {
        println!("{role}: {} KiB after 2 epochs, {} KiB after 10", early / 1024, late / 1024);
        assert!(late < early + 8 * MIB, "{role}: {early} bytes after 2 epochs, {late} after 10");
    }
}

#[test]
fn a_data_set_of_any_size_is_read_in_the_memory_of_a_batch() {
    const IMAGES: u32 = 1 << 18;
    const BATCH: usize = 128;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // 206 million pixels: a file with a hole, and the same gzipped.
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let mut header = vec![0, 0, 8, 3];
    [IMAGES, 28, 28].iter().for_each(|dimension| header.extend(dimension.to_be_bytes()));
    let pixels = u64::from(IMAGES) * 784;
    let mut plain = File::create(path("plain")).unwrap();
    plain.write_all(&header).unwrap();
    plain.set_len(header.len() as u64 + pixels).unwrap();
    let mut gzipped = GzEncoder::new(File::create(path("gzipped")).unwrap(), Compression::fast());
    gzipped.write_all(&header).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), pixels), &mut gzipped).unwrap();
    gzipped.finish().unwrap();
    let mut labels = vec![0, 0, 8, 1];
    labels.extend(IMAGES.to_be_bytes());
    labels.resize(labels.len() + IMAGES as usize, 0);
    fs::write(path("labels"), labels).unwrap();

    for name in ["plain", "gzipped"] {
        let grown = peak(|| {
            let batches = Batches::open(&path(name), &path("labels"), BATCH).unwrap();
            let read: usize = batches.map(|batch| batch.unwrap().images.len()).sum();
            assert_eq!(read as u64, pixels);
        });
        println!("{name}: {pixels} pixels in {} KiB", grown / 1024);
        assert!(grown < 16 * MIB, "{name}: {grown} bytes");
    }
    // What is held is seen.
    assert!(peak(|| drop(black_box(vec![1u8; 32 * MIB as usize]))) >= 16 * MIB);
}
