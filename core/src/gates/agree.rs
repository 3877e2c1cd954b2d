//! Both servers were sent the same.
//!
//! A player that sends the two servers different values of a public or masked input does not learn more than it should,
//! but shifts what is computed: by the difference times the other factor's share. So the servers compare digests, before
//! anything that depends on the input leaves them: hashes keyed with a value of their common stream, which the player does
//! not know, so that it cannot look for two inputs with one digest.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::server::Server;
use crate::plan::{Block, Common, Disclosure, Domain, Route, Shapes, Traffic, Wire, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Pair, Randomness};

const KEY: Label = Label::new(0, "agree.key");
/// Bytes of a digest: a forger has one try in 2^128.
const DIGEST: usize = 16;

/// Compares what both servers hold on these wires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agree {
    pub(crate) wires: Vec<Wire<Common>>,
}

impl Gate for Agree {
    fn reads(&self) -> Vec<WireId> {
        self.wires.iter().map(Wire::id).collect()
    }

    fn writes(&self) -> Vec<WireId> {
        vec![]
    }

    fn is_essential(&self) -> bool {
        true
    }

    fn traffic(&self, _shapes: &Shapes) -> Option<Traffic> {
        Some(Traffic { route: Route::Servers, blocks: vec![Block::new(Domain::Byte, DIGEST)] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![Disclosure {
            to: "server0 and server1",
            what: "a keyed digest of what the other server was sent for a public or masked input",
            because: "it was sent the same itself",
        }]
    }

    fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        let key = server.at.draw_ring(Pair::Servers, KEY, 256usize.div_ceil(server.at.ring.bits() as usize))?;
        let batch = server.at.batch();
        let mut digests = Vec::with_capacity(batch * DIGEST);
        let per_sample = key.len() / batch.max(1);
        for (sample, key) in key.chunks(per_sample.max(1)).enumerate() {
            let mut hash = Sha256::new();
            hash.update(b"selkie agree 1");
            key.iter().for_each(|word| hash.update(word.to_u64().to_le_bytes()));
            for wire in &self.wires {
                let elements = server.at.elements(wire);
                let row = server.words(wire)?.iter().skip(sample * elements).take(elements);
                row.for_each(|word| hash.update(word.to_u64().to_le_bytes()));
            }
            digests.extend(hash.finalize().iter().take(DIGEST));
        }
        Ok(vec![Column::Field(digests)])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        _server: &mut Server<S, L, R>,
        mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        if mine == theirs { Ok(()) } else { Err(Blame::client("the two servers different values of one input")) }
    }
}
