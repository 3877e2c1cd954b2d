//! Protocols: how a program is lowered to steps.

mod securenn;

use serde::{Deserialize, Serialize};

use crate::error::PlanError;
use crate::plan::Plan;
use crate::program::Program;

/// The protocol by which a program is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Protocol {
    /// SecureNN (Wagh, Gupta, Chandran 2018), corrected: exact comparisons, the crypto producer takes part online.
    #[default]
    SecureNn,
}

impl Protocol {
    /// All of them.
    pub const ALL: &'static [Protocol] = &[Protocol::SecureNn];

    /// The name by which command line, configuration and clients call it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::SecureNn => "securenn",
        }
    }

    /// The protocol of that name.
    pub fn named(name: &str) -> Option<Protocol> {
        Protocol::ALL.iter().copied().find(|protocol| protocol.name() == name)
    }

    pub(crate) fn lower(self, program: &Program) -> Result<Plan, PlanError> {
        match self {
            Protocol::SecureNn => securenn::lower(program),
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
