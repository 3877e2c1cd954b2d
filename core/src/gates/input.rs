//! An input: what a player sent to each server.
//!
//! A private input arrives as shares, a public one in clear. A masked one arrives as x̂ = x - a, where the player expanded
//! a = a_0 + a_1 from two sub-seeds, one from each server, which serve this input of this sample alone: what it sends is
//! at once the first opening of x. The crypto producer, who can expand a too, never sees x̂.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Additive, Common, Disclosure, Masked, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Pair, Randomness};

/// As what an input arrives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Shares.
    Shares(Wire<Additive>),
    /// The same in clear at both servers.
    Public(Wire<Common>),
    /// The same under a mask at both servers.
    Masked(Masked),
}

/// Puts the next input on wires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) entry: Entry,
}

impl Gate for Input {
    fn reads(&self) -> Vec<WireId> {
        vec![]
    }

    fn writes(&self) -> Vec<WireId> {
        match &self.entry {
            Entry::Shares(x) => vec![x.id()],
            Entry::Public(x) => vec![x.id()],
            Entry::Masked(x) => vec![x.hat.id(), x.mask.id()],
        }
    }

    fn is_essential(&self) -> bool {
        true
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        match &self.entry {
            Entry::Shares(_) => vec![],
            Entry::Public(_) => vec![Disclosure {
                to: "server0 and server1",
                what: "a public input",
                because: "the program says that both servers are given it in clear",
            }],
            Entry::Masked(_) => vec![Disclosure {
                to: "server0 and server1",
                what: "an input minus its mask, X - A",
                because: "A is uniform, belongs to this input of this sample alone, and is known to neither server",
            }],
        }
    }

    fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        if let Entry::Masked(x) = &self.entry {
            let elements = producer.at.elements(&x.mask);
            let mut mask = producer.at.draw_input(Pair::Producer0, elements)?;
            producer.at.ring.add_all(&mut mask, &producer.at.draw_input(Pair::Producer1, elements)?);
            producer.put(x.mask.id(), mask);
        }
        Ok(vec![])
    }

    fn prepare<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<(), Blame> {
        if let Entry::Masked(x) = &self.entry {
            let mask = server.at.draw_input(S::DEALT, server.at.elements(&x.mask))?;
            server.set(&x.mask, mask);
        }
        Ok(())
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let given = server.inputs.pop_front().ok_or_else(|| Blame::bug("an input was not given"))?;
        let first = self.writes().first().map_or(0, |wire| server.at.elements_of(*wire));
        if given.len() != first * server.at.batch() {
            return Err(Blame::bug("an input has another length than its wire"));
        }
        match &self.entry {
            Entry::Shares(x) => server.set(x, given),
            Entry::Public(x) => server.set(x, given),
            Entry::Masked(x) => {
                let mask = server.at.draw_input(S::DEALT, server.at.elements(&x.mask))?;
                server.set(&x.hat, given);
                server.set(&x.mask, mask);
            }
        }
        Ok(())
    }
}
