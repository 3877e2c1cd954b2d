//! Whether the time of dealing depends on r: `cargo bench -p selkie --features bench --bench dudect -- [MEASUREMENTS]`, a million by default.
//!
//! The method of "Dude, is my code constant time?" (Reparaz, Balasch, Verbauwhede, DATE 2017): measurements for one fixed r
//! and for random ones, in random order, all inputs prepared before; measurements beyond a percentile, which other work on
//! the machine made slow, are left out, for ten percentiles; Welch's t of each. |t| above 4.5 says that the times differ. A
//! dealer that branches on r's bits goes through the same test, and must be found out. Ends with an error if either fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::time::Instant;

use selkie::bench;
use selkie::compare::dcf::Dcf;
use selkie::compare::dpf::Dpf;
use selkie::compare::hash::{Hash, HashKind};
use selkie::compare::table::Table;

const THRESHOLD: f64 = 4.5;
/// Comparisons in one measurement.
const COUNT: usize = 8;
const BITS: u32 = 31;
/// Measurements whose inputs are prepared together.
const BATCH: usize = 1000;

/// splitmix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// Welch's t of the measurements up to `most` of both classes.
fn welch(times: &[(bool, u64)], most: u64) -> f64 {
    let [a, b] = [false, true].map(|class| {
        let chosen = times.iter().filter(|(of, time)| *of == class && *time <= most).map(|(_, time)| *time as f64);
        let (n, sum, squares) = chosen.fold((0.0, 0.0, 0.0), |(n, s, q), t| (n + 1.0, s + t, q + t * t));
        let mean: f64 = sum / n;
        (mean, (squares / n - mean * mean) / (n - 1.0))
    });
    let spread = (a.1 + b.1).sqrt();
    if spread > 0.0 { (a.0 - b.0) / spread } else { 0.0 }
}

/// The largest |t| over all percentiles.
fn test(measurements: usize, mut deal: impl FnMut(&[u64; COUNT], u64)) -> f64 {
    let (mut numbers, mut times) = (Numbers(1), Vec::with_capacity(measurements));
    while times.len() < measurements {
        let inputs: Vec<(bool, [u64; COUNT], u64)> = (0..BATCH)
            .map(|_| {
                let random = numbers.next() & 1 == 1;
                // Drawn for both classes, so that preparation is the same.
                let r: [u64; COUNT] = std::array::from_fn(|_| numbers.next() >> (64 - BITS));
                (random, if random { r } else { [0; COUNT] }, numbers.next())
            })
            .collect();
        for (random, r, salt) in &inputs {
            let start = Instant::now();
            deal(black_box(r), *salt);
            times.push((*random, start.elapsed().as_nanos() as u64));
        }
    }
    // What warms up caches and clocks.
    times.drain(..measurements / 10);
    let mut sorted: Vec<u64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_unstable();
    let percentiles = (1..=10).map(|i| 1.0 - 0.5f64.powf(i as f64));
    let crops = percentiles.map(|p| sorted[(p * (sorted.len() - 1) as f64) as usize]);
    crops.chain([u64::MAX]).map(|most| welch(&times, most).abs()).fold(0.0, f64::max)
}

/// What must not be: a dealer that branches on the bits of r.
fn branching(r: &[u64; COUNT], salt: u64) -> u64 {
    r.iter().fold(salt, |mut word, r| {
        for level in 0..BITS {
            if r >> level & 1 == 1 {
                word = black_box(word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7));
            }
        }
        word
    })
}

fn main() {
    let measurements = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1_000_000).max(10 * BATCH);
    let mut failed = false;
    let mut report = |name: &str, t: f64, constant: bool| {
        let right = (t < THRESHOLD) == constant;
        failed |= !right;
        let verdict = if t < THRESHOLD { "constant" } else { "depends on r" };
        println!("{name:24} max |t| = {t:8.2}   {verdict}{}", if right { "" } else { "   UNEXPECTED" });
    };
    for (name, kind) in [("dpf, AES", HashKind::Aes), ("dpf, ChaCha", HashKind::ChaCha)] {
        let (dpf, hash) = (Dpf::new(BITS).unwrap(), Hash::new(kind, [1; 16]));
        let t = test(measurements, |r, salt| {
            let roots0: [u128; COUNT] = std::array::from_fn(|i| u128::from(salt) << 32 ^ i as u128);
            let roots1 = roots0.map(|root| root.rotate_left(64));
            black_box(dpf.deal(&hash, r, &roots0, &roots1).unwrap());
        });
        report(name, t, true);
    }
    for (name, kind) in [("dcf, AES", HashKind::Aes), ("dcf, ChaCha", HashKind::ChaCha)] {
        let (dcf, hash) = (Dcf::new(BITS, [32, 32, 10]).unwrap(), Hash::new(kind, [1; 16]));
        let t = test(measurements, |r, salt| {
            let roots0: [u128; COUNT] = std::array::from_fn(|i| u128::from(salt) << 32 ^ i as u128);
            let roots1 = roots0.map(|root| root.rotate_left(64));
            // The payload is as secret as r is.
            let beta = r.map(|r| [r & 1, r, r >> 21]);
            black_box(dcf.deal(&hash, r, &beta, &roots0, &roots1).unwrap());
        });
        report(name, t, true);
    }
    let table = Table::new(BITS).unwrap();
    let share = vec![0x5a; COUNT * table.share_bytes()];
    let t = test(measurements, |r, salt| {
        let masks: [u32; COUNT] = std::array::from_fn(|i| (salt >> i) as u32);
        black_box(table.deal(r, &masks, &share).unwrap());
    });
    report("table", t, true);
    let values: Vec<u32> = (0..256).collect();
    let t = test(measurements, |r, _| {
        black_box(bench::turn(&values, r));
    });
    report("one-time table", t, true);
    let t = test(measurements, |r, salt| {
        black_box(branching(r, salt));
    });
    report("a branching dealer", t, false);
    std::process::exit(i32::from(failed));
}
