//! A protocol's variants: what its gates are chosen for, when a model is deployed.

use serde::{Deserialize, Serialize};

use crate::compare::hash::HashKind;

/// What a plan is to have least of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Objective {
    /// Rounds, and so time between far apart servers: maxima compare all pairs at once.
    Latency,
    /// Bytes, dealt ahead and online together: maxima are tournaments.
    #[default]
    Bytes,
}

impl Objective {
    /// All of them.
    pub const ALL: &'static [Objective] = &[Objective::Latency, Objective::Bytes];

    /// The name by which the command line calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Objective::Latency => "latency",
            Objective::Bytes => "bytes",
        }
    }

    /// The objective of that name.
    pub fn named(name: &str) -> Option<Objective> {
        Objective::ALL.iter().copied().find(|objective| objective.name() == name)
    }
}

impl core::fmt::Display for Objective {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// How shares are divided by powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Truncation {
    /// By what the crypto producer deals: it never fails.
    #[default]
    Dealt,
    /// By each server for itself, which costs nothing and fails for a value z with probability |z| / 2^k: a plan in which all of
    /// these together exceed 2^-40 for one sample is refused.
    Local,
}

/// Which variant of its protocol a plan is: a field of the plan, the same for all parties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Variant {
    /// What `fss` and `table` are to have least of; the other protocols have one form only.
    pub objective: Objective,
    /// How shares are divided by powers of two.
    pub truncation: Truncation,
    /// The hash of `fss`'s trees.
    pub hash: HashKind,
}

impl From<Objective> for Variant {
    fn from(objective: Objective) -> Self {
        Self { objective, ..Self::default() }
    }
}
