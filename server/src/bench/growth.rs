//! `--growth`: how the cost of a query grows with its batch and with its network's width and depth, as exponents beside those
//! to expect.
//!
//! A sweep doubles one size and keeps the rest. To each quantity a power with a fixed part is fitted ([`power`]), so that what
//! every query pays however small it is does not flatten the exponent. Masked wires open one element for each activation,
//! whatever the products behind it: bytes follow the width where the arithmetic follows its square. Of bytes and rounds this is
//! exact. A time over width lies between its comparisons and its products. A time's floor is its rounds' hops: where that is
//! most of it, it grows as the rounds do.

use ndarray::{Array1, Array2};
use selkie::Protocol;
use serde::Serialize;

use super::measure::Order;
use super::report::{Report, Row};
use super::statistics::{Power, power};
use super::workload::{Workload, weights};
use super::{forms, or};
use crate::exit::Failure;
use crate::onnx::{Layer, Model};
use crate::tools::table::{Align, Table};
use crate::train::Net;

/// The rings and the protocols of a sweep, unless others are asked for.
const RINGS: [u32; 1] = [32];
const PROTOCOLS: [Protocol; 2] = [Protocol::Fss, Protocol::Table];
/// Hidden layers of the networks whose width grows.
const HIDDEN: usize = 2;
/// Width of the networks whose depth grows.
const WIDTH: usize = 128;
/// A power with a fixed part goes through any two points.
const FEWEST: usize = 3;

/// The size that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sweep {
    /// Samples asked at once, of network A.
    Batch,
    /// Elements of the input, of both hidden layers and of the output.
    Width,
    /// Hidden layers, of 128 elements each.
    Depth,
}

impl Sweep {
    const ALL: [Self; 3] = [Self::Batch, Self::Width, Self::Depth];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Width => "width",
            Self::Depth => "depth",
        }
    }

    const fn sizes(self) -> &'static [usize] {
        match self {
            Self::Batch => &[1, 2, 4, 8, 16, 32, 64, 128],
            Self::Width => &[64, 128, 256, 512, 1024, 2048],
            Self::Depth => &[2, 4, 8, 16, 32],
        }
    }

    /// The samples in a query of this size.
    const fn batch(self, size: usize) -> usize {
        match self {
            Self::Batch => size,
            Self::Width | Self::Depth => 1,
        }
    }

    /// The network of this size.
    pub(super) fn model(self, size: usize) -> Result<Model, Failure> {
        match self {
            Self::Batch => Ok(Net::A.untrained(7)),
            Self::Width => dense(size, HIDDEN),
            Self::Depth => dense(WIDTH, size),
        }
    }

    const fn expected(self) -> Expected {
        let [flat, linear] = [[0.0; 2], [1.0; 2]];
        match self {
            Self::Batch => Expected { time: linear, bytes: linear, rounds: flat },
            Self::Width => Expected { time: [1.0, 2.0], bytes: linear, rounds: flat },
            Self::Depth => Expected { time: linear, bytes: linear, rounds: linear },
        }
    }
}

/// The least and the largest exponent to expect.
struct Expected {
    time: [f64; 2],
    bytes: [f64; 2],
    rounds: [f64; 2],
}

/// Hidden layers with ReLU, and the output layer, all as wide as the input.
fn dense(width: usize, hidden: usize) -> Result<Model, Failure> {
    // As He et al. 2015, so that values neither fade nor explode.
    let limit = (6.0 / width as f64).sqrt();
    let mut layers = Vec::new();
    for layer in 0..=hidden {
        if layer > 0 {
            layers.push(Layer::Relu);
        }
        let weights = weights(layer as u64, width * width, limit);
        let weights = Array2::from_shape_vec((width, width), weights).map_err(Failure::other)?;
        layers.push(Layer::Dense { weights, bias: Array1::zeros(width) });
    }
    Ok(Model { input: vec![width], layers })
}

/// The points of these sweeps, or of all; a curve's follow one another.
pub(super) fn orders(sweeps: &[Sweep], protocols: &[Protocol], rings: &[u32], runs: usize) -> Vec<Order> {
    let mut orders = Vec::new();
    for sweep in or(sweeps, &Sweep::ALL) {
        for ring_bits in or(rings, &RINGS) {
            for protocol in or(protocols, &PROTOCOLS) {
                let point = |size: usize| Workload::Grown(*sweep, size);
                let (objectives, several) = forms(*protocol, point(1));
                for (objective, size) in objectives.iter().flat_map(|o| sweep.sizes().iter().map(move |s| (*o, *s))) {
                    let (workload, protocol, batch) = (point(size), *protocol, sweep.batch(size));
                    orders.push(Order { workload, protocol, objective, several, ring_bits: *ring_bits, batch, runs });
                }
            }
        }
    }
    orders
}

/// How one form of a protocol grows over a sweep, whose points are the report's rows.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    sweep: &'static str,
    protocol: &'static str,
    variant: String,
    ring_bits: u32,
    sizes: Vec<usize>,
    /// Times are the least of all runs: what disturbs a run only adds to it, and bends a curve where it does.
    online_ms: Growth,
    offline_ms: Growth,
    online_bytes: Growth,
    offline_bytes: Growth,
    rounds: Growth,
    /// Rounds times one hop at the largest size, as a part of its online time; medians both.
    floor_part: f64,
}

/// How one quantity grows.
#[derive(Debug, Serialize)]
struct Growth {
    #[serde(flatten)]
    fitted: Power,
    /// The least and the largest exponent to expect.
    expected: [f64; 2],
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, largest] = self.expected;
        write!(f, "{:.2} / {least}", self.fitted.exponent)?;
        if least < largest { write!(f, "–{largest}") } else { Ok(()) }
    }
}

/// The curves through what was measured; those that lack too many of their points are left out.
pub(super) fn curves(rows: &[Row], hop_ms: f64) -> Vec<Curve> {
    let same = |a: &Row, b: &Row| {
        (a.name, a.protocol, &a.variant, a.ring_bits) == (b.name, b.protocol, &b.variant, b.ring_bits)
    };
    let curve = |rows: &[Row]| {
        let (first, last) = (rows.first()?, rows.last()?);
        let sweep = Sweep::ALL.into_iter().find(|sweep| sweep.name() == first.name)?;
        let Expected { time, bytes, rounds } = sweep.expected();
        let growth = |expected, of: fn(&Row) -> f64| {
            let points: Vec<_> = rows.iter().filter_map(|row| Some((row.size? as f64, of(row)))).collect();
            Growth { fitted: power(&points), expected }
        };
        (rows.len() >= FEWEST).then(|| Curve {
            sweep: sweep.name(),
            protocol: first.protocol,
            variant: first.variant.clone(),
            ring_bits: first.ring_bits,
            sizes: rows.iter().filter_map(|row| row.size).collect(),
            online_ms: growth(time, |row| row.online_ms_min),
            offline_ms: growth(time, |row| row.offline_ms_min),
            online_bytes: growth(bytes, |row| row.online_bytes as f64),
            offline_bytes: growth(bytes, |row| row.offline_bytes as f64),
            rounds: growth(rounds, |row| f64::from(row.rounds)),
            floor_part: f64::from(last.rounds) * hop_ms / last.online_ms_p50,
        })
    };
    rows.chunk_by(same).filter_map(curve).collect()
}

/// The table for people.
pub(super) fn describe(report: &Report, curves: &[Curve]) -> String {
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new(&[left, left, left, right, right, right, right, right, right, right, right]);
    table.header([
        "sweep",
        "protocol",
        "variant",
        "k",
        "sizes",
        "online ms",
        "ahead ms",
        "online bytes",
        "dealt bytes",
        "rounds",
        "floor",
    ]);
    for curve in curves {
        let ends = curve.sizes.first().zip(curve.sizes.last());
        table.row([
            curve.sweep.to_owned(),
            curve.protocol.to_owned(),
            curve.variant.clone(),
            curve.ring_bits.to_string(),
            ends.map_or_else(String::new, |(least, largest)| format!("{least}–{largest}")),
            curve.online_ms.to_string(),
            curve.offline_ms.to_string(),
            curve.online_bytes.to_string(),
            curve.offline_bytes.to_string(),
            curve.rounds.to_string(),
            format!("{:.0}%", curve.floor_part * 100.0),
        ]);
    }
    format!(
        "exponents p of fixed + grown · sizeᵖ, fitted / expected, of the least times; sizes double from one point to the next\n\
         floor: rounds times one hop of {} ms, as a part of the median online time at the largest size; as far as that is the time, \
         it grows as the rounds do\n\n{table}",
        super::report::ms(report.hop_ms_p50)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]

    use selkie::Objective;
    use selkie::plan::{Cost, Plan};

    use super::super::workload::Prepared;
    use super::*;

    #[test]
    fn bytes_and_rounds_grow_exactly_as_expected() {
        for sweep in Sweep::ALL {
            let Expected { bytes, rounds, .. } = sweep.expected();
            let programs = sweep.sizes().iter().map(|size| {
                let prepared = Prepared::new(Workload::Grown(sweep, *size), sweep.batch(*size), 32);
                (*size, prepared.unwrap().program)
            });
            let programs: Vec<_> = programs.collect();
            for protocol in Protocol::ALL {
                for objective in Objective::ALL {
                    let costs = programs.iter().map(|(size, program)| {
                        let plan = Plan::of_variant(program, *protocol, (*objective).into()).unwrap();
                        (*size as f64, plan.cost(sweep.batch(*size)))
                    });
                    let costs: Vec<_> = costs.collect();
                    let check = |[least, largest]: [f64; 2], of: fn(&Cost) -> f64| {
                        let points: Vec<_> = costs.iter().map(|(size, cost)| (*size, of(cost))).collect();
                        let fitted = power(&points);
                        let expected = least - 0.005..largest + 0.005;
                        assert!(expected.contains(&fitted.exponent), "{sweep:?}, {protocol}, {points:?}: {fitted:?}");
                    };
                    check(bytes, |cost| cost.online_bytes as f64);
                    check(bytes, |cost| cost.offline_bytes as f64);
                    check(rounds, |cost| f64::from(cost.rounds));
                }
            }
        }
    }

    #[test]
    fn sizes_double_and_every_curve_has_its_points_in_a_row() {
        for sweep in Sweep::ALL {
            assert!(sweep.sizes().len() >= FEWEST && sweep.sizes().windows(2).all(|pair| pair[1] == 2 * pair[0]));
        }
        let orders = orders(&[Sweep::Depth], &[Protocol::Table], &[], 1);
        let points: Vec<_> = orders.iter().map(|order| (order.objective, order.workload)).collect();
        let of = |objective| [2, 4, 8, 16, 32].map(|size| (objective, Workload::Grown(Sweep::Depth, size)));
        assert_eq!(points, [of(Objective::Latency), of(Objective::Bytes)].concat());
    }
}
