//! Protocols: how a program is lowered to steps.

pub(crate) mod approximate;
pub(crate) mod lowering;
mod masked;
mod pond;
mod pool_first;
mod securenn;
mod spline;
mod variant;

use alloc::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::plan::Plan;
use crate::program::Program;
use lowering::Nonlinear;
pub use variant::{Objective, Truncation, Variant};

/// The protocol by which a program is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Protocol {
    /// TF Encrypted's Pond: the crypto producer offline, activations by polynomials, no comparisons.
    Pond,
    /// SecureNN (Wagh, Gupta, Chandran 2018), corrected: exact comparisons, the crypto producer takes part online.
    SecureNn,
    /// Masked wires with function secret sharing: the crypto producer offline, exact comparisons, fewest bytes online.
    Fss,
    /// Masked wires with dealt look-up tables: the crypto producer offline, exact comparisons, fewest bytes in all.
    #[default]
    Table,
}

impl Protocol {
    /// All of them.
    pub const ALL: &'static [Protocol] = &[Protocol::Pond, Protocol::SecureNn, Protocol::Fss, Protocol::Table];
    /// The names of those that can compare.
    pub(crate) const WITH_COMPARISONS: &'static str = "securenn, fss, table";

    /// The name by which command line, configuration and clients call it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Pond => "pond",
            Protocol::SecureNn => "securenn",
            Protocol::Fss => "fss",
            Protocol::Table => "table",
        }
    }

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.iter().copied().find(|protocol| protocol.name() == name)
    }

    /// Whether it can compare, and so compute maxima; the others approximate activations by polynomials and refuse the rest.
    pub const fn compares(self) -> bool {
        !matches!(self, Protocol::Pond)
    }

    fn nonlinear(self) -> Nonlinear {
        match self {
            Protocol::Pond => pond::nonlinear,
            Protocol::SecureNn => securenn::nonlinear,
            Protocol::Fss => masked::fss,
            Protocol::Table => masked::table,
        }
    }

    /// The program as it is lowered: with the same wires and results, and the cheapest order of operations.
    pub(crate) fn arranged(self, program: &Program) -> Cow<'_, Program> {
        let changed = if self.compares() { pool_first::pool_first(program) } else { None };
        changed.map_or(Cow::Borrowed(program), Cow::Owned)
    }

    pub(crate) fn lower(self, program: &Program, variant: Variant) -> Result<Plan, PlanError> {
        let arranged = self.arranged(program);
        let (lowered, _) = lowering::lower(&arranged, self, variant, self.nonlinear())?;
        Ok(Plan::assemble(self, variant, program, &arranged, lowered))
    }

    /// The plan of a program that is arranged already, with what tests want to know of it.
    #[cfg(test)]
    pub(crate) fn trace(self, program: &Program, variant: Variant) -> Result<(Plan, lowering::Trace), PlanError> {
        let (lowered, trace) = lowering::lower(program, self, variant, self.nonlinear())?;
        Ok((Plan::assemble(self, variant, program, program, lowered), trace))
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
