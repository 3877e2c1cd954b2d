//! An output: each server sends the receiving player its share, re-randomised.
//!
//! The receiver sees both shares. A share that is a function of shares which the receiver knows, or which stay the same
//! from query to query, would tell more than the sum; so the servers first add a fresh sharing of zero, drawn from their
//! common stream (SecureNN, §2: "fresh shares"). What the receiver sees is then uniform but for its sum, the output.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Disclosure, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const ZERO: Label = Label::new(0, "output.zero-share");

/// Makes a wire's share the next output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) x: Wire<Additive>,
}

impl Gate for Output {
    fn reads(&self) -> Vec<WireId> {
        vec![self.x.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![]
    }

    fn is_essential(&self) -> bool {
        true
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "the receiving player",
            what: "both shares of an output",
            because: "the servers add a fresh sharing of zero, so the shares are uniform but for their sum, which is granted",
        }]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let zero = server.at.draw_ring(Pair::Servers, ZERO, server.at.elements(&self.x))?;
        let mut share = server.words(&self.x)?.to_vec();
        if S::INDEX == 0 {
            server.at.ring.add_all(&mut share, &zero);
        } else {
            server.at.ring.sub_all(&mut share, &zero);
        }
        server.outputs.push(share);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::testing::exhaust;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use alloc::collections::BTreeMap;

    /// What the receiver sees of the number 5, for each way in which the servers may have shared it.
    fn seen(mutant: Option<Mutant>) -> Vec<BTreeMap<(u32, u32), u64>> {
        let (rig, x) = Rig::new(3, 1, |b| {
            let x = b.wire(1);
            b.push(Output { x });
            x
        });
        let of = |first: u32| {
            let mut seen = BTreeMap::new();
            exhaust(mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant)), |tape| {
                let mut given = Given::default();
                given.words(x, vec![first], vec![(5 + 8 - first) % 8]);
                let ran = rig.run(tape, given);
                let shares = (ran.server0.outputs[0][0], ran.server1.outputs[0][0]);
                assert_eq!((shares.0 + shares.1) % 8, 5);
                *seen.entry(shares).or_insert(0) += 1;
            });
            seen
        };
        (0..8).map(of).collect()
    }

    #[test]
    fn the_receiver_sees_only_the_sum() {
        let shipped = seen(None);
        assert!(shipped.iter().all(|views| *views == shipped[0]));
        let broken = seen(Some(Mutant::Zero(ZERO.name)));
        assert!(broken.iter().any(|views| *views != broken[0]), "a zero-share left out is noticed");
    }
}
