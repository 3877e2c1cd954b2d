//! Wires: what steps read and write, typed by who knows what of it.

use alloc::vec::Vec;
use core::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::field::Prime;
use crate::program::Numbers;

/// A wire's number in its plan.
pub(crate) type WireId = u32;

/// What a wire carries, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Class {
    /// A lane for each element, on the servers.
    Words,
    /// k bytes for each element, on the servers.
    Bits,
    /// A byte for each element, on the servers.
    Bytes,
    /// A lane for each element, on the servers and at the crypto producer while it deals.
    Dealt,
    /// A lane for each element, at the crypto producer.
    Held,
}

/// A kind of wire, as a type.
pub(crate) trait Kind {
    const CLASS: Class;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $class:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $kind {}

        impl Kind for $kind {
            const CLASS: Class = Class::$class;
        }
    )*};
}
kinds! {
    /// Shared additively in Z_2^k between the servers.
    Additive: Words,
    /// Shared additively in Z_{2^k - 1} between the servers.
    Odd: Words,
    /// The k bits of each element, each shared additively in Z_p between the servers.
    BitShares: Bits,
    /// Known to both servers and not to the crypto producer.
    Common: Words,
    /// Shared additively in Z_2^k between the servers, the sum known to the crypto producer, who dealt it.
    Mask: Dealt,
    /// Known to each server for itself: the two values are unrelated.
    Own: Words,
    /// Bytes known to each server for itself.
    OwnBytes: Bytes,
    /// Known to the crypto producer alone.
    Held: Held
}

/// A wire of kind `K`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Wire<K> {
    id: WireId,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Wire<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Wire<K> {}

impl<K> Wire<K> {
    pub(crate) fn new(id: WireId) -> Self {
        Self { id, kind: PhantomData }
    }

    pub(crate) fn id(&self) -> WireId {
        self.id
    }
}

/// What a linear computation works on; see [`crate::gates::local`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Form {
    /// Shares.
    Shared,
    /// What both servers know.
    Public,
    /// Shares of a mask.
    Mask,
}

/// A kind of wire on which linear computations are local.
pub(crate) trait Linear: Kind {
    const FORM: Form;
}

impl Linear for Additive {
    const FORM: Form = Form::Shared;
}

impl Linear for Common {
    const FORM: Form = Form::Public;
}

impl Linear for Mask {
    const FORM: Form = Form::Mask;
}

/// A masked tensor x: x - a, and a.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Masked {
    pub(crate) hat: Wire<Common>,
    pub(crate) mask: Wire<Mask>,
}

/// What an element of a message or of material is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Z_2^k.
    Ring,
    /// Z_2^n, n at most k: what is multiplied with 2^(k - n) afterwards.
    Low(u32),
    /// A byte, of a digest or of bits; shared by exclusive or.
    Byte,
    /// So many bits, shared by exclusive or.
    Bits(u32),
    /// Z_{2^k - 1}.
    Odd,
    /// Z_p.
    Field,
}

impl Domain {
    /// Bits on the wire.
    pub(crate) fn bits(self, numbers: Numbers) -> u32 {
        match self {
            Domain::Ring | Domain::Odd => numbers.ring_bits,
            Domain::Low(bits) | Domain::Bits(bits) => bits,
            Domain::Byte => 8,
            Domain::Field => Prime::for_bits(numbers.ring_bits).bits(),
        }
    }
}

/// A run of elements, for one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) domain: Domain,
    pub(crate) elements: usize,
}

impl Block {
    pub(crate) fn new(domain: Domain, elements: usize) -> Self {
        Self { domain, elements }
    }

    /// Whole bytes for `batch` samples; saturates beyond what memory can hold.
    pub(crate) fn bytes(&self, numbers: Numbers, batch: usize) -> usize {
        let count = self.elements.saturating_mul(batch);
        crate::pack::packed_len(count, self.domain.bits(numbers)).unwrap_or(usize::MAX)
    }
}

/// Which way a step's message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// server0 and server1 send each other the same amount.
    Servers,
    /// Both servers send to the crypto producer.
    ToProducer,
    /// The crypto producer sends to server1; server0 expands its part from their common seed.
    FromProducer,
}

/// A step's message, in one direction, for one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) route: Route,
    pub(crate) blocks: Vec<Block>,
}
