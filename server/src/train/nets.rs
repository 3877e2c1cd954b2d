//! The networks that are used by name.

use std::fmt;

/// A network by name. `A` to `D` are those of the literature on private inference; `demo` is the one that the demo
/// serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Net {
    /// 784-128-128-10, ReLU between (SecureML's).
    #[value(name = "A", alias = "a")]
    A,
    /// Two convolutions of 16 filters with max-pooling, 256-100-10 (MiniONN's).
    #[value(name = "B", alias = "b")]
    B,
    /// Convolutions of 20 and 50 filters with max-pooling, 800-500-10 (LeNet).
    #[value(name = "C", alias = "c")]
    C,
    /// One convolution of 5 filters with stride 2, 980-100-10 (Chameleon's).
    #[value(name = "D", alias = "d")]
    D,
    /// B with average-pooling instead of max-pooling: what a protocol without comparisons can run.
    #[value(name = "B-avg", alias = "b-avg")]
    BAvg,
    /// C with average-pooling instead of max-pooling.
    #[value(name = "C-avg", alias = "c-avg")]
    CAvg,
    /// Two convolutions with stride 2, of 8 and 16 filters, 784-64-10: 2,416 ReLUs and no pooling, so that every
    /// protocol can run it.
    #[value(name = "demo")]
    Demo,
}

/// A layer without its weights. Convolutions are 5x5, pooling is 2x2.
#[derive(Clone, Copy)]
pub(super) enum Spec {
    Dense(usize),
    Conv { filters: usize, stride: usize, padding: usize },
    MaxPool,
    AveragePool,
    Relu,
    Flatten,
}

impl Net {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::A, Self::B, Self::C, Self::D, Self::BAvg, Self::CAvg, Self::Demo];

    /// One image's shape: flat for `A`, `[channels, rows, columns]` for the others.
    #[must_use]
    pub const fn input(self) -> &'static [usize] {
        match self {
            Self::A => &[784],
            _ => &[1, 28, 28],
        }
    }

    /// Whether windows are averaged.
    pub(crate) const fn averages(self) -> bool {
        matches!(self, Self::BAvg | Self::CAvg)
    }

    pub(super) fn layers(self) -> Vec<Spec> {
        use Spec::{AveragePool, Conv, Dense, Flatten, MaxPool, Relu};
        match self {
            Self::A => vec![Dense(128), Relu, Dense(128), Relu, Dense(10)],
            Self::B => pooled([16, 16], MaxPool, 100),
            Self::C => pooled([20, 50], MaxPool, 500),
            Self::D => vec![Conv { filters: 5, stride: 2, padding: 2 }, Relu, Flatten, Dense(100), Relu, Dense(10)],
            Self::BAvg => pooled([16, 16], AveragePool, 100),
            Self::CAvg => pooled([20, 50], AveragePool, 500),
            Self::Demo => vec![
                Conv { filters: 8, stride: 2, padding: 2 },
                Relu,
                Conv { filters: 16, stride: 2, padding: 2 },
                Relu,
                Flatten,
                Dense(64),
                Relu,
                Dense(10),
            ],
        }
    }

    /// The network with fresh weights drawn from the seed: for shapes, plans and costs, not for answers.
    #[must_use]
    pub fn untrained(self, seed: u64) -> crate::onnx::Model {
        super::network::Network::new(self, seed).model(self)
    }
}

/// Two convolutions, each pooled, and two dense layers.
fn pooled(filters: [usize; 2], pool: Spec, hidden: usize) -> Vec<Spec> {
    use Spec::{Conv, Dense, Flatten, Relu};
    let [first, second] = filters.map(|filters| Conv { filters, stride: 1, padding: 0 });
    vec![first, pool, Relu, second, pool, Relu, Flatten, Dense(hidden), Relu, Dense(10)]
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::BAvg => "B-avg",
            Self::CAvg => "C-avg",
            Self::Demo => "demo",
        })
    }
}
