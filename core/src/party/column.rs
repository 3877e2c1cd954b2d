//! What messages and material are made of, between bytes and gates.

use alloc::format;
use alloc::vec::Vec;

use crate::Role;
use crate::error::Blame;
use crate::field::Prime;
use crate::pack;
use crate::plan::{Block, Domain};
use crate::program::Numbers;
use crate::ring::{Lane, OddRing};

/// The elements of one [`Block`], for a whole batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column<L> {
    /// Of a ring.
    Words(Vec<L>),
    /// Of Z_p, or bytes.
    Field(Vec<u8>),
}

impl<L: Lane> Column<L> {
    /// The ring elements.
    pub(crate) fn words(self) -> Result<Vec<L>, Blame> {
        match self {
            Column::Words(words) => Ok(words),
            Column::Field(_) => Err(Blame::bug("field elements where ring elements were expected")),
        }
    }

    /// The field elements.
    pub(crate) fn field(self) -> Result<Vec<u8>, Blame> {
        match self {
            Column::Field(bytes) => Ok(bytes),
            Column::Words(_) => Err(Blame::bug("ring elements where field elements were expected")),
        }
    }

    /// Appends the packed elements `range` (in elements) to `to`.
    pub(crate) fn pack(&self, bits: u32, skip: usize, take: usize, to: &mut Vec<u8>) {
        match self {
            Column::Words(words) => pack::pack_lanes(range(words, skip, take), bits, to),
            Column::Field(bytes) => pack::pack_bytes(range(bytes, skip, take), bits, to),
        }
    }

    /// Reads `count` elements that `from` sent; their bytes are exactly as long as they must be.
    pub(crate) fn unpack(
        from: Role,
        numbers: Numbers,
        domain: Domain,
        count: usize,
        bytes: &[u8],
    ) -> Result<Self, Blame> {
        let bits = domain.bits(numbers);
        let outside = |modulus: u64| Blame::party(from, format!("a number that is not below {modulus}"));
        match domain {
            Domain::Ring | Domain::Low(_) | Domain::Bits(_) => {
                Ok(Column::Words(pack::unpack_lanes(bytes, bits, count)))
            }
            Domain::Odd => {
                let modulus = OddRing::beside(numbers.ring_bits).modulus();
                let elements: Vec<L> = pack::unpack_lanes(bytes, bits, count);
                let inside = elements.iter().all(|e| e.to_u64() < modulus);
                if inside { Ok(Column::Words(elements)) } else { Err(outside(modulus)) }
            }
            Domain::Byte => Ok(Column::Field(bytes.to_vec())),
            Domain::Field => {
                let p = u64::from(Prime::for_bits(numbers.ring_bits).p());
                let elements = pack::unpack_bytes(bytes, bits, count);
                let inside = elements.iter().all(|e| u64::from(*e) < p);
                if inside { Ok(Column::Field(elements)) } else { Err(outside(p)) }
            }
        }
    }
}

/// At most `take` elements after the first `skip`.
fn range<T>(elements: &[T], skip: usize, take: usize) -> &[T] {
    let rest = elements.get(skip..).unwrap_or_default();
    rest.get(..take).unwrap_or(rest)
}

/// Packs the columns of a message, block after block, each padded to whole bytes.
pub(crate) fn pack_blocks<L: Lane>(
    numbers: Numbers,
    blocks: &[Block],
    columns: &[Column<L>],
    batch: usize,
    to: &mut Vec<u8>,
) -> Result<(), Blame> {
    if blocks.len() != columns.len() {
        return Err(Blame::bug("a step made another number of columns than its plan says"));
    }
    for (block, column) in blocks.iter().zip(columns) {
        let before = to.len();
        column.pack(block.domain.bits(numbers), 0, usize::MAX, to);
        if to.len() - before != block.bytes(numbers, batch) {
            return Err(Blame::bug("a step made a column of another length than its plan says"));
        }
    }
    Ok(())
}

/// Takes the blocks of one step off the front of a message.
pub(crate) fn unpack_blocks<L: Lane>(
    from: Role,
    numbers: Numbers,
    blocks: &[Block],
    batch: usize,
    message: &mut &[u8],
) -> Result<Vec<Column<L>>, Blame> {
    let mut columns = Vec::with_capacity(blocks.len());
    for block in blocks {
        let short = || Blame::party(from, "a message that is shorter than the plan says");
        let (bytes, rest) = message.split_at_checked(block.bytes(numbers, batch)).ok_or_else(short)?;
        columns.push(Column::unpack(from, numbers, block.domain, block.elements * batch, bytes)?);
        *message = rest;
    }
    Ok(columns)
}
