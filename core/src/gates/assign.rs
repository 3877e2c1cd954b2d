//! A variable's new value: from the next run on it is what this one computed.
//!
//! Each server keeps its own share, and says nothing. In a program that assigns, variables that may change are loaded as
//! shares and masked as any other value, so that their openings have masks of this run alone: a mask that outlived the
//! assignment would show the difference between two values ([`super::weights`]).

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Common, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// What is assigned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Value {
    /// To a private variable.
    Shares(Wire<Additive>),
    /// To a public one.
    Public(Wire<Common>),
}

/// Makes a wire's value a variable's, once the run is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Assign {
    pub(crate) variable: u32,
    pub(crate) value: Value,
}

impl Gate for Assign {
    fn reads(&self) -> Vec<WireId> {
        match &self.value {
            Value::Shares(x) => vec![x.id()],
            Value::Public(x) => vec![x.id()],
        }
    }

    fn writes(&self) -> Vec<WireId> {
        vec![]
    }

    fn is_essential(&self) -> bool {
        true
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let value = match &self.value {
            Value::Shares(x) => server.words(x)?.to_vec(),
            Value::Public(x) => server.words(x)?.to_vec(),
        };
        server.assigned.push((self.variable, value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;

    #[test]
    fn each_server_keeps_its_own_share() {
        let (rig, (x, y)) = Rig::new(4, 1, |b| {
            let (x, y) = (b.wire(2), b.wire(1));
            b.push(Assign { variable: 3, value: Value::Shares(x) });
            b.push(Assign { variable: 1, value: Value::Public(y) });
            (x, y)
        });
        let mut given = Given::default();
        given.words(x, vec![1, 2], vec![3, 4]);
        given.words(y, vec![7], vec![7]);
        let ran = rig.run(&Tape::new(|_| true), given);
        assert_eq!(ran.server0.assigned, [(3, vec![1, 2]), (1, vec![7])]);
        assert_eq!(ran.server1.assigned, [(3, vec![3, 4]), (1, vec![7])]);
    }
}
