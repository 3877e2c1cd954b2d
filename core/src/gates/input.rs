//! An input: each server already holds its share, from the client.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// Puts the next input's share on a wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) x: Wire<Additive>,
}

impl Gate for Input {
    fn reads(&self) -> Vec<WireId> {
        vec![]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let share = server.inputs.pop_front().ok_or_else(|| Blame::bug("an input was not given"))?;
        if share.len() != server.at.elements(&self.x) * server.at.batch() {
            return Err(Blame::bug("an input's share has another length than its wire"));
        }
        server.set(&self.x, share);
        Ok(())
    }
}
