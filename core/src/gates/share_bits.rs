//! The crypto producer shares what it holds: server0 expands its part, server1 is sent the difference.

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::gates::Gate;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{
    Additive, BitShares, Block, Builder, Disclosure, Domain, Held, Odd, Route, Shapes, Traffic, Wire, WireId,
};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::{Label, Randomness};

const SHARE: Label = Label::new(0, "share-bits.share");

/// The ℓ bits of each element, lowest first.
pub(crate) fn bits_of<L: Lane>(elements: &[L], bits: usize) -> Vec<u8> {
    elements.iter().flat_map(|x| (0..bits).map(move |i| (x.to_u64() >> i & 1) as u8)).collect()
}

/// Shares the bits of a number over Z_p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareHeldBits {
    pub(crate) value: Wire<Held>,
    pub(crate) bits: Wire<BitShares>,
}

/// The shared bits of `value`.
pub(crate) fn share_held_bits(b: &mut Builder, value: Wire<Held>) -> Wire<BitShares> {
    let bits = b.wire(b.elements(&value));
    b.push(ShareHeldBits { value, bits });
    bits
}

const TO_SERVER1: Disclosure = Disclosure {
    to: "server1",
    what: "its share of a value that the crypto producer shares",
    because: "it is the value minus server0's share, which is uniform and unknown to server1",
};

impl Gate for ShareHeldBits {
    fn reads(&self) -> Vec<WireId> {
        vec![self.value.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        vec![self.bits.id()]
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let elements = shapes.elements(&self.bits) as usize * shapes.numbers.ring_bits as usize;
        Some(Traffic { route: Route::FromProducer, blocks: vec![Block::new(Domain::Field, elements)] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![TO_SERVER1]
    }

    fn produce<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let bits = bits_of(producer.held(&self.value)?, producer.at.bits());
        let block = Block::new(Domain::Field, producer.at.elements(&self.bits) * producer.at.bits());
        Ok(vec![producer.at.correction(SHARE, block, Column::Field(bits))?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let bits = server.received(self.traffic(&server.at.plan.shapes), SHARE, theirs)?.field()?;
        server.set_bits(&self.bits, bits);
        Ok(())
    }
}

/// Shares a bit as a ring element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareHeldBit {
    pub(crate) value: Wire<Held>,
    pub(crate) share: Target,
}

/// The ring in which a bit is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// Z_2^k.
    Additive(Wire<Additive>),
    /// Z_{2^k - 1}.
    Odd(Wire<Odd>),
}

impl Target {
    fn domain(&self) -> Domain {
        match self {
            Target::Additive(_) => Domain::Ring,
            Target::Odd(_) => Domain::Odd,
        }
    }
}

/// `value`, shared in Z_2^k.
pub(crate) fn share_held(b: &mut Builder, value: Wire<Held>) -> Wire<Additive> {
    let share = b.wire(b.elements(&value));
    b.push(ShareHeldBit { value, share: Target::Additive(share) });
    share
}

/// `value`, shared in Z_{2^k - 1}.
pub(crate) fn share_held_odd(b: &mut Builder, value: Wire<Held>) -> Wire<Odd> {
    let share = b.wire(b.elements(&value));
    b.push(ShareHeldBit { value, share: Target::Odd(share) });
    share
}

impl Gate for ShareHeldBit {
    fn reads(&self) -> Vec<WireId> {
        vec![self.value.id()]
    }

    fn writes(&self) -> Vec<WireId> {
        match &self.share {
            Target::Additive(share) => vec![share.id()],
            Target::Odd(share) => vec![share.id()],
        }
    }

    fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
        let block = Block::new(self.share.domain(), shapes.elements(&self.value) as usize);
        Some(Traffic { route: Route::FromProducer, blocks: vec![block] })
    }

    fn disclosures(&self) -> Vec<Disclosure> {
        vec![TO_SERVER1]
    }

    fn produce<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        let secret = Column::Words(producer.held(&self.value)?.to_vec());
        let block = Block::new(self.share.domain(), producer.at.elements(&self.value));
        Ok(vec![producer.at.correction(SHARE, block, secret)?])
    }

    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        let share = server.received(self.traffic(&server.at.plan.shapes), SHARE, theirs)?.words()?;
        match &self.share {
            Target::Additive(wire) => server.set(wire, share),
            Target::Odd(wire) => server.set(wire, share),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::Role;
    use crate::testing::rig::{Given, Rig};
    use crate::testing::tape::{Mutant, Tape};
    use crate::testing::{Views, alike, views};

    #[test]
    fn shares_add_up_to_what_is_held() {
        let (rig, (value, bits, ring, odd)) = Rig::new(3, 1, |b| {
            let value = b.wire(1);
            (value, share_held_bits(b, value), share_held(b, value), share_held_odd(b, value))
        });
        for x in 0..7u32 {
            let mut given = Given::default();
            given.held(value, vec![x]);
            let ran = rig.run(&Tape::new(|_| false).salted(x as u8), given);
            let sum = |wire: &dyn Fn() -> (u32, u32), n: u32| (wire().0 + wire().1) % n;
            assert_eq!(sum(&|| (ran.server0.words(&ring).unwrap()[0], ran.server1.words(&ring).unwrap()[0]), 8), x);
            assert_eq!(sum(&|| (ran.server0.words(&odd).unwrap()[0], ran.server1.words(&odd).unwrap()[0]), 7), x);
            let pairs = ran.server0.bits(&bits).unwrap().iter().zip(ran.server1.bits(&bits).unwrap());
            let shared: Vec<u8> = pairs.map(|(a, b)| (a + b) % 5).collect();
            assert_eq!(shared, bits_of(&[x], 3));
        }
    }

    fn seen(mutant: Option<Mutant>, lay: fn(&mut Builder) -> Wire<Held>) -> Vec<[Views; 3]> {
        let (rig, value) = Rig::new(2, 1, lay);
        let tape = || mutant.iter().fold(Tape::new(|_| true), |tape, mutant| tape.with(*mutant));
        (0..2).map(|x| views(tape(), &rig, |_, given| given.held(value, vec![x]))).collect()
    }

    #[test]
    fn each_server_sees_the_same_whatever_is_shared() {
        let gates: [fn(&mut Builder) -> Wire<Held>; 3] = [
            |b| {
                let value = b.wire(1);
                share_held_bits(b, value);
                value
            },
            |b| {
                let value = b.wire(1);
                share_held(b, value);
                value
            },
            |b| {
                let value = b.wire(1);
                share_held_odd(b, value);
                value
            },
        ];
        for gate in gates {
            assert!(alike(&seen(None, gate), Role::Server0));
            assert!(alike(&seen(None, gate), Role::Server1));
            assert!(!alike(&seen(Some(Mutant::Zero(SHARE.name)), gate), Role::Server1));
        }
    }
}
