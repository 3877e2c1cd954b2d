//! What every role has at hand while it carries out a plan: the arithmetic, and its streams.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use sha2::{Digest, Sha256};

use crate::error::Blame;
use crate::field::Prime;
use crate::kernel::{Alone, Threads};
use crate::party::column::Column;
use crate::plan::{Block, Domain, Plan, Wire, WireId};
use crate::ring::{Lane, OddRing, Ring};
use crate::stream::{Label, Pair, Randomness, Scope, Source};
use crate::wipe::wipe;

/// Arithmetic and streams, for a batch of units.
pub(crate) struct Context<L, R> {
    pub(crate) plan: Arc<Plan>,
    pub(crate) ring: Ring<L>,
    pub(crate) odd: OddRing,
    pub(crate) prime: Prime,
    pub(crate) randomness: R,
    /// The unit of each sample.
    pub(crate) units: Range<u64>,
    /// The step that is being carried out.
    pub(crate) step: u32,
    /// The version of the variables.
    pub(crate) version: u64,
    /// What the host lends.
    pub(crate) threads: Arc<dyn Threads>,
    /// A public value that belongs to this plan, version and epoch, and that nobody could choose.
    public: [u8; 32],
}

impl<L: Lane, R: Randomness> Context<L, R> {
    pub(crate) fn new(plan: Arc<Plan>, randomness: R, units: Range<u64>, version: u64) -> Result<Self, Blame> {
        let bits = plan.numbers().ring_bits;
        let ring = Ring::new(bits).ok_or_else(|| Blame::bug("the plan's ring does not fit its lanes"))?;
        let (odd, prime) = (OddRing::beside(bits), Prime::for_bits(bits));
        Ok(Self {
            plan,
            ring,
            odd,
            prime,
            randomness,
            units,
            step: 0,
            version,
            threads: Arc::new(Alone),
            public: [0; 32],
        })
    }

    /// The same, with threads that the host lends.
    pub(crate) fn with_threads(self, threads: Arc<dyn Threads>) -> Self {
        Self { threads, ..self }
    }

    /// The same, with the public value of an epoch.
    pub(crate) fn with_public(self, public: [u8; 32]) -> Self {
        Self { public, ..self }
    }

    /// A public key of its own for the step at hand and one of the units.
    pub(crate) fn public_key(&self, unit: usize) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(b"selkie public key 1");
        hash.update(self.public);
        hash.update(self.step.to_le_bytes());
        hash.update((self.units.start + unit as u64).to_le_bytes());
        let mut key = [0; 16];
        key.iter_mut().zip(hash.finalize()).for_each(|(key, byte)| *key = byte);
        key
    }

    /// Samples.
    pub(crate) fn batch(&self) -> usize {
        (self.units.end - self.units.start) as usize
    }

    /// Bits of a ring element, ℓ of SecureNN.
    pub(crate) fn bits(&self) -> usize {
        self.ring.bits() as usize
    }

    /// Elements of one sample on `wire`.
    pub(crate) fn elements<K>(&self, wire: &Wire<K>) -> usize {
        self.plan.shapes.elements(wire) as usize
    }

    /// The same by the wire's number.
    pub(crate) fn elements_of(&self, wire: WireId) -> usize {
        self.plan.shapes.wires.get(wire as usize).map_or(0, |(elements, _)| *elements as usize)
    }

    /// Draws `per_unit` values for each unit from the stream of `pair` for this step and `label`.
    pub(crate) fn draw<T: Copy + Default>(
        &self,
        pair: Pair,
        label: Label,
        per_unit: usize,
        fill: impl Fn(&mut R::Source, &mut [T]),
    ) -> Result<Vec<T>, Blame> {
        let mut out = alloc::vec![T::default(); per_unit * self.batch()];
        for (unit, chunk) in self.units.clone().zip(out.chunks_mut(per_unit.max(1))) {
            fill(&mut self.randomness.open(pair, Scope::Unit(unit), self.step, label)?, chunk);
        }
        Ok(out)
    }

    /// Draws the masks of an input, whose player can expand them too.
    pub(crate) fn draw_input(&self, pair: Pair, per_unit: usize) -> Result<Vec<L>, Blame> {
        const LABEL: Label = Label::new(0, "input.mask");
        let mut out = alloc::vec![L::default(); per_unit * self.batch()];
        for (unit, chunk) in self.units.clone().zip(out.chunks_mut(per_unit.max(1))) {
            self.randomness
                .open(pair, Scope::Input { unit, step: self.step }, self.step, LABEL)?
                .ring(self.ring, chunk);
        }
        Ok(out)
    }

    /// Draws uniform elements of Z_2^k.
    pub(crate) fn draw_ring(&self, pair: Pair, label: Label, per_unit: usize) -> Result<Vec<L>, Blame> {
        self.draw(pair, label, per_unit, |source, out| source.ring(self.ring, out))
    }

    /// Draws uniform elements of Z_{2^k - 1}.
    pub(crate) fn draw_odd(&self, pair: Pair, label: Label, per_unit: usize) -> Result<Vec<L>, Blame> {
        self.draw(pair, label, per_unit, |source, out| source.odd(self.odd, out))
    }

    /// Draws a block.
    pub(crate) fn draw_block(&self, pair: Pair, label: Label, block: Block) -> Result<Column<L>, Blame> {
        Ok(match block.domain {
            Domain::Ring => Column::Words(self.draw_ring(pair, label, block.elements)?),
            Domain::Odd => Column::Words(self.draw_odd(pair, label, block.elements)?),
            Domain::Low(bits) | Domain::Bits(bits) => {
                let ring = Self::low_ring(bits)?;
                Column::Words(self.draw(pair, label, block.elements, |source, out| source.ring(ring, out))?)
            }
            Domain::Byte => Column::Field(self.draw(pair, label, block.elements, |source, out| source.bytes(out))?),
            Domain::Field => {
                let p = self.prime.p();
                Column::Field(self.draw(pair, label, block.elements, |source, out| source.below(|_| p, out))?)
            }
        })
    }

    /// Z_2^bits.
    fn low_ring(bits: u32) -> Result<Ring<L>, Blame> {
        Ring::new(bits).ok_or_else(|| Blame::bug("low bits that do not fit their lanes"))
    }

    /// a - b in the domain, in a's place, so that nothing of a is left without its mask; b, which makes a secret of it again, is erased.
    fn minus(&self, domain: Domain, a: Column<L>, b: Column<L>) -> Result<Column<L>, Blame> {
        let alike = |a: usize, b: usize| {
            if a == b { Ok(()) } else { Err(Blame::bug(alloc::format!("{a} secrets under {b} shares"))) }
        };
        if let Domain::Field | Domain::Byte = domain {
            let (mut a, mut b) = (a.field()?, b.field()?);
            alike(a.len(), b.len())?;
            let minus =
                |(a, b): (&mut u8, &u8)| *a = if domain == Domain::Field { self.prime.sub(*a, *b) } else { *a ^ *b };
            a.iter_mut().zip(&b).for_each(minus);
            wipe(&mut b);
            return Ok(Column::Field(a));
        }
        let ring = match domain {
            Domain::Low(bits) => Self::low_ring(bits)?,
            _ => self.ring,
        };
        let (mut a, mut b) = (a.words()?, b.words()?);
        alike(a.len(), b.len())?;
        let minus = |(a, b): (&mut L, &L)| {
            *a = match domain {
                Domain::Odd => L::from_u64(self.odd.sub(a.to_u64(), b.to_u64())),
                Domain::Bits(_) => L::from_u64(a.to_u64() ^ b.to_u64()),
                _ => ring.sub(*a, *b),
            };
        };
        a.iter_mut().zip(&b).for_each(minus);
        wipe(&mut b);
        Ok(Column::Words(a))
    }

    /// Shares `secret`: what server1 must be sent, so that it and what server0 draws for `label` add up to it.
    pub(crate) fn correction(&self, label: Label, block: Block, secret: Column<L>) -> Result<Column<L>, Blame> {
        let expanded = self.draw_block(Pair::Producer0, label, block)?;
        self.minus(block.domain, secret, expanded)
    }
}
