//! Protocols: how a program is lowered to steps.

pub(crate) mod approximate;
pub(crate) mod lowering;
mod masked;
mod pond;
mod securenn;
mod spline;

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::plan::Plan;
use crate::program::Program;
use lowering::Nonlinear;

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

    pub(crate) fn lower(self, program: &Program) -> Result<Plan, PlanError> {
        let (lowered, _) = lowering::lower(program, self, self.nonlinear())?;
        Ok(Plan::assemble(self, program, lowered))
    }

    /// The same with what tests want to know of it.
    #[cfg(test)]
    pub(crate) fn trace(self, program: &Program) -> Result<(Plan, lowering::Trace), PlanError> {
        let (lowered, trace) = lowering::lower(program, self, self.nonlinear())?;
        Ok((Plan::assemble(self, program, lowered), trace))
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
