//! Revealing: a private tensor becomes known to both servers, because the program says so.
//!
//! Server j sends its share. What the other server learns is the sum: the share that it receives is the sum minus its own.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::gates::mask::opened;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Block, Builder, Common, Disclosure, Domain, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// out = x, known to both servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reveal {
    pub(crate) x: Wire<Additive>,
    pub(crate) out: Wire<Common>,
}

/// x, known to both servers.
pub(crate) fn reveal(b: &mut Builder, x: Wire<Additive>) -> Wire<Common> {
    let out = b.wire(b.elements(&x));
    b.push(Reveal { x, out });
    out
}

impl Gate for Reveal {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.out.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(Domain::Ring, shapes.elements(&self.x) as usize);
        Some(Traffic { route: Route::Servers, blocks: vec![block] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a tensor that the program reveals",
            because: "the program says so: whoever deployed it granted the tensor to both servers",
        }]
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        Ok(vec![Column::Words(server.words(&self.x)?.to_vec())])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let sum = opened(server, mine, theirs)?;
        server.set(&self.out, sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;
    use crate::testing::views;

    /// What each server sees of 5 is the same for every sharing that gives it the same share: it learns the sum alone.
    #[test]
    fn the_servers_learn_the_sum_and_nothing_else() {
        let (rig, (x, out)) = Rig::new(3, 1, |b| {
            let x = b.wire(1);
            (x, reveal(b, x))
        });
        for first in 0..8u32 {
            let mut given = Given::default();
            given.words(x, vec![first], vec![(5 + 8 - first) % 8]);
            let ran = rig.run(&Tape::new(|_| true), given);
            assert_eq!((ran.server0.words(&out).unwrap(), ran.server1.words(&out).unwrap()), (&[5][..], &[5][..]));
            let seen = views(Tape::new(|_| true), &rig, |_, given| {
                given.words(x, vec![first], vec![(5 + 8 - first) % 8]);
            });
            assert!(seen.iter().all(|views| views.len() == 1), "nothing random is seen, so nothing else can leak");
        }
    }
}
