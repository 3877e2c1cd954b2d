//! Truncation by f bits of shares, each server for itself: nothing is opened, nothing dealt, and now and then it fails.
//!
//! SecureML (Mohassel and Zhang 2017), §4.1: server0 takes z_0 ≫ f, server1 -((-z_1) ≫ f). The result is ⌊z / 2^f⌋ or one more,
//! except with probability |z| / 2^k exactly, when the shares wrap the other way and it is off by 2^(k-f). Plans use it on
//! request only, and only where all its failures together are less likely than 2^-40 ([`crate::Truncation`]).

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Additive, Builder, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// y = z / 2^by, rounded down or up, unless it fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TruncateLocal {
    pub(crate) z: Wire<Additive>,
    /// f: the bits that are cut off.
    pub(crate) by: u32,
    pub(crate) y: Wire<Additive>,
}

/// z / 2^by.
pub(crate) fn truncate_local(b: &mut Builder, z: Wire<Additive>, by: u32) -> Wire<Additive> {
    let y = b.wire(b.elements(&z));
    b.push(TruncateLocal { z, by, y });
    y
}

impl Gate for TruncateLocal {
    fn reads(&self) -> Vec<WireId> {
        vec![self.z.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.y.id()]
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let ring = server.at.ring;
        let cut = |x: L| L::from_u64(x.to_u64() >> self.by);
        let zero = L::default();
        let one = |z: &L| if S::INDEX == 0 { cut(*z) } else { ring.sub(zero, cut(ring.sub(zero, *z))) };
        let y = server.words(&self.z)?.iter().map(one).collect();
        server.set(&self.y, y);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::Tape;

    /// For every number and every sharing of it: the floor or one more, but for as many sharings as the number is large.
    #[test]
    fn it_fails_exactly_as_often_as_it_is_said_to() {
        const K: u32 = 7;
        for by in 1..4 {
            let (rig, (z, y)) = Rig::new(K, 1, |b| {
                let z = b.wire(1);
                (z, truncate_local(b, z, by))
            });
            for number in -(1i64 << (K - 1))..1 << (K - 1) {
                let mut failed = 0;
                for share in 0..1i64 << K {
                    let mut given = Given::default();
                    given.words(z, vec![share as u32], vec![((number - share) & 127) as u32]);
                    let ran = rig.run(&Tape::new(|_| false), given);
                    let sum = ran.server0.words(&y).unwrap()[0] + ran.server1.words(&y).unwrap()[0];
                    let got = i64::from(sum << (32 - K)) << 32 >> (64 - K);
                    let floor = number >> by;
                    failed += i64::from(got != floor && got != floor + 1);
                }
                assert_eq!(failed, number.abs(), "{number} by {by}");
            }
        }
    }
}
