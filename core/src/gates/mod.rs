//! Gates: the steps of the protocols, one subject to a file.
//!
//! Each file names the paper and algorithm that it follows. A function that takes a [`Builder`](crate::plan::Builder) lays
//! out the algorithm's steps and reads like the paper; a struct is one step, with what it sends, what it wants dealt, how
//! that is dealt, how the servers and the crypto producer carry it out, what becomes visible thereby, and why it may.

pub(crate) mod agree;
pub(crate) mod assign;
pub(crate) mod compare_dpf;
pub(crate) mod compare_table;
pub(crate) mod compute_msb;
pub(crate) mod input;
pub(crate) mod local;
pub(crate) mod low_bit;
pub(crate) mod mask;
pub(crate) mod maximum;
pub(crate) mod one_time_table;
pub(crate) mod output;
pub(crate) mod positive;
pub(crate) mod private_compare;
pub(crate) mod product;
pub(crate) mod public;
pub(crate) mod rank;
pub(crate) mod relu;
pub(crate) mod reveal;
pub(crate) mod select_masked;
pub(crate) mod share_bits;
pub(crate) mod share_convert;
pub(crate) mod square;
pub(crate) mod truncate;
pub(crate) mod truncate_local;
pub(crate) mod weights;
pub(crate) mod winner;

use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Blame;
use crate::party::column::Column;
use crate::party::producer::Producer;
use crate::party::server::Server;
use crate::plan::{Block, Disclosure, Shapes, Traffic, WireId};
use crate::ring::Lane;
use crate::role::Side;
use crate::stream::Randomness;

/// One step of a plan. A step sends at most one message in each direction of one route.
pub(crate) trait Gate {
    /// The wires that it reads.
    fn reads(&self) -> Vec<WireId>;

    /// The wires that it writes, each written by no other step.
    fn writes(&self) -> Vec<WireId>;

    /// Whether it is done even if nobody reads what it writes.
    fn is_essential(&self) -> bool {
        false
    }

    /// Its message, if it sends one.
    fn traffic(&self, _shapes: &Shapes) -> Option<Traffic> {
        None
    }

    /// What both servers are dealt ahead, alike.
    fn words(&self, _shapes: &Shapes) -> Vec<Block> {
        vec![]
    }

    /// The corrections that server1 is dealt ahead; server0 expands its part of the same blocks.
    fn material(&self, _shapes: &Shapes) -> Vec<Block> {
        vec![]
    }

    /// What becomes visible, and why it may.
    fn disclosures(&self) -> Vec<Disclosure> {
        vec![]
    }

    /// The crypto producer, ahead of time: what [`Gate::words`] and then [`Gate::material`] say, in order.
    fn deal<L: Lane, R: Randomness>(&self, _producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        Ok(vec![])
    }

    /// A server: its message, on the routes on which servers send.
    fn send<S: Side, L: Lane, R: Randomness>(&self, _server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
        Ok(vec![])
    }

    /// A server: the rest of the step, with its own message and the one it received.
    fn finish<S: Side, L: Lane, R: Randomness>(
        &self,
        _server: &mut Server<S, L, R>,
        _mine: Vec<Column<L>>,
        _theirs: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        Ok(())
    }

    /// A server, when material arrives: the masks that follow from it alone, and what they are multiplied with.
    fn prepare<S: Side, L: Lane, R: Randomness>(&self, _server: &mut Server<S, L, R>) -> Result<(), Blame> {
        Ok(())
    }

    /// The crypto producer, online: its message to server1.
    fn produce<L: Lane, R: Randomness>(&self, _producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
        Ok(vec![])
    }

    /// The crypto producer, online: the rest of the step, with the two messages it received.
    fn absorb<L: Lane, R: Randomness>(
        &self,
        _producer: &mut Producer<L, R>,
        _from0: Vec<Column<L>>,
        _from1: Vec<Column<L>>,
    ) -> Result<(), Blame> {
        Ok(())
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $step:ident($gate:ty)),* $(,)?) => {
        /// Any step.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub(crate) enum Step {
            $($(#[$doc])* $step($gate)),*
        }

        impl Step {
            /// The gate's name, for timelines.
            pub(crate) const fn name(&self) -> &'static str {
                match self { $(Step::$step(_) => stringify!($step)),* }
            }
        }

        $(impl From<$gate> for Step {
            fn from(gate: $gate) -> Self {
                Step::$step(gate)
            }
        })*

        impl Gate for Step {
            fn reads(&self) -> Vec<WireId> {
                match self { $(Step::$step(gate) => gate.reads()),* }
            }
            fn writes(&self) -> Vec<WireId> {
                match self { $(Step::$step(gate) => gate.writes()),* }
            }
            fn is_essential(&self) -> bool {
                match self { $(Step::$step(gate) => gate.is_essential()),* }
            }
            fn traffic(&self, shapes: &Shapes) -> Option<Traffic> {
                match self { $(Step::$step(gate) => gate.traffic(shapes)),* }
            }
            fn words(&self, shapes: &Shapes) -> Vec<Block> {
                match self { $(Step::$step(gate) => gate.words(shapes)),* }
            }
            fn material(&self, shapes: &Shapes) -> Vec<Block> {
                match self { $(Step::$step(gate) => gate.material(shapes)),* }
            }
            fn disclosures(&self) -> Vec<Disclosure> {
                match self { $(Step::$step(gate) => gate.disclosures()),* }
            }
            fn deal<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
                match self { $(Step::$step(gate) => gate.deal(producer)),* }
            }
            fn send<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<Vec<Column<L>>, Blame> {
                match self { $(Step::$step(gate) => gate.send(server)),* }
            }
            fn finish<S: Side, L: Lane, R: Randomness>(
                &self,
                server: &mut Server<S, L, R>,
                mine: Vec<Column<L>>,
                theirs: Vec<Column<L>>,
            ) -> Result<(), Blame> {
                match self { $(Step::$step(gate) => gate.finish(server, mine, theirs)),* }
            }
            fn prepare<S: Side, L: Lane, R: Randomness>(&self, server: &mut Server<S, L, R>) -> Result<(), Blame> {
                match self { $(Step::$step(gate) => gate.prepare(server)),* }
            }
            fn produce<L: Lane, R: Randomness>(&self, producer: &mut Producer<L, R>) -> Result<Vec<Column<L>>, Blame> {
                match self { $(Step::$step(gate) => gate.produce(producer)),* }
            }
            fn absorb<L: Lane, R: Randomness>(
                &self,
                producer: &mut Producer<L, R>,
                from0: Vec<Column<L>>,
                from1: Vec<Column<L>>,
            ) -> Result<(), Blame> {
                match self { $(Step::$step(gate) => gate.absorb(producer, from0, from1)),* }
            }
        }
    };
}

steps! {
    Input(input::Input),
    Agree(agree::Agree),
    Output(output::Output),
    Assign(assign::Assign),
    Local(local::Local),
    Public(public::Public),
    Lift(public::Lift),
    OpenWeights(weights::OpenWeights),
    Load(weights::Load),
    OpenMasked(mask::OpenMasked),
    Unmask(mask::Unmask),
    Reveal(reveal::Reveal),
    Product(product::Product),
    LocalProduct(product::LocalProduct),
    Square(square::Square),
    Truncate(truncate::Truncate),
    TruncateLocal(truncate_local::TruncateLocal),
    PrivateCompare(private_compare::PrivateCompare),
    ShareHeldBits(share_bits::ShareHeldBits),
    ShareHeldBit(share_bits::ShareHeldBit),
    Conceal(share_convert::Conceal),
    Convert(share_convert::Convert),
    DealRho(compute_msb::DealRho),
    OpenDoubled(compute_msb::OpenDoubled),
    MergeBits(compute_msb::MergeBits),
    UnmaskSign(compute_msb::UnmaskSign),
    LowBit(low_bit::LowBit),
    CompareDpf(compare_dpf::CompareDpf),
    LookUp(compare_table::LookUp),
    OpenBit(compare_table::OpenBit),
    LiftBit(select_masked::LiftBit),
    SelectMasked(select_masked::SelectMasked),
    ReadTable(one_time_table::ReadTable),
    Positive(positive::Positive),
    SelectWinner(winner::SelectWinner),
    OpenRanks(rank::OpenRanks),
    IndexOfFirst(rank::IndexOfFirst),
}
