//! Seeded streams: every random value of a protocol, addressed by what it is for.
//!
//! Two parties that share a seed draw the same values without a word between them. A stream is addressed by the pair that
//! shares it, its [`Scope`] (one unit of material, or one version of a variable), the step of the plan and a [`Label`], so
//! no two draws ever meet the same key and nonce. The scope's key is a hash of the pair's seed; step and label are the
//! nonce of a ChaCha20 stream under it (RFC 8439's core, in the 64-bit nonce form).
//!
//! The protocols see only the traits [`Randomness`] and [`Source`], so that tests run the shipping gates with sources
//! that enumerate every value, or that are broken on purpose.

use alloc::vec::Vec;

use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::Blame;
use crate::ring::{Lane, OddRing, Ring};
use crate::stock::Epoch;
use crate::wipe::wipe;

/// The two parties that share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Pair {
    /// server0 and server1: unknown to the crypto producer.
    Servers,
    /// server0 and the crypto producer.
    Producer0,
    /// server1 and the crypto producer.
    Producer1,
}

/// What a draw within one step is for. Labels of one step differ in `id`; `name` is for people and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// "gate.purpose".
    pub(crate) name: &'static str,
    /// Unlike every other label of the same gate.
    pub(crate) id: u8,
}

impl Label {
    /// A label.
    pub(crate) const fn new(id: u8, name: &'static str) -> Self {
        Self { name, id }
    }
}

/// What a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// One unit of correlated randomness, used for one sample, once.
    Unit(u64),
    /// The mask of one input of one sample, which the player who feeds it can expand too.
    Input {
        /// The unit.
        unit: u64,
        /// The step that takes the input.
        step: u32,
    },
    /// The mask of a variable, for one version of it.
    Variable {
        /// The variable's number in the program.
        index: u32,
        /// The version that it masks.
        version: u64,
    },
}

/// Uniform values, in order.
pub(crate) trait Source {
    /// Fills `out` with uniform elements of Z_2^k.
    fn ring<L: Lane>(&mut self, ring: Ring<L>, out: &mut [L]);
    /// Fills `out` with uniform elements of Z_{2^k - 1}.
    fn odd<L: Lane>(&mut self, ring: OddRing, out: &mut [L]);
    /// Fills `out` with uniform bytes.
    fn bytes(&mut self, out: &mut [u8]);
    /// Fills `out` with uniform values, the one at place i below bound(i), which is at least 1.
    fn below(&mut self, bound: impl Fn(usize) -> u8, out: &mut [u8]);

    /// Fills `out` with a uniform permutation of 0..out.len(), at most 255 (Fisher and Yates).
    fn permutation(&mut self, out: &mut [u8]) {
        out.iter_mut().zip(0..=u8::MAX).for_each(|(place, index)| *place = index);
        let (size, mut picks) = (out.len(), [0; u8::MAX as usize]);
        let (picks, _) = picks.split_at_mut(size.saturating_sub(1));
        self.below(|i| (size - i) as u8, picks);
        for (last, pick) in (1..size).rev().zip(picks) {
            out.swap(last, usize::from(*pick));
        }
    }
}

/// All streams that one party can open.
pub(crate) trait Randomness {
    /// An opened stream.
    type Source: Source;

    /// Opens a stream from its beginning.
    ///
    /// # Errors
    /// A bug: a party asked for a stream of a pair that it is not part of.
    fn open(&self, pair: Pair, scope: Scope, step: u32, label: Label) -> Result<Self::Source, Blame>;
}

/// A seed shared by two parties, for one epoch. Zeroised when dropped; its Debug shows nothing.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A seed from 32 uniform bytes: fresh ones from both parties, hashed, in production; fixed ones in tests only.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever must send them to the one party entitled to them.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A seed of its own for `purpose`.
    pub fn derive(&self, purpose: &str, context: &[&[u8]]) -> Seed {
        let mut hash = Sha256::new();
        hash.update(b"selkie seed v1");
        hash.update(self.0);
        hash.update((purpose.len() as u64).to_le_bytes());
        hash.update(purpose.as_bytes());
        for part in context {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Seed(hash.finalize().into())
    }

    /// The stream of this seed with this nonce.
    pub(crate) fn stream(&self, nonce: u64) -> Stream {
        let cipher = ChaCha20Legacy::new(&self.0.into(), &nonce.to_le_bytes().into());
        Stream { cipher, ahead: [0; AHEAD], used: AHEAD }
    }
}

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

/// The seeds that one party holds: a server two, the crypto producer two.
#[derive(Clone, Debug)]
pub struct Seeds {
    servers: Option<Seed>,
    producer0: Option<Seed>,
    producer1: Option<Seed>,
}

impl Seeds {
    /// server0's: with server1, and with the crypto producer. The seeds must be bound to the epoch.
    pub fn server0(servers: Seed, producer: Seed) -> Self {
        Self { servers: Some(servers), producer0: Some(producer), producer1: None }
    }

    /// server1's: with server0, and with the crypto producer.
    pub fn server1(servers: Seed, producer: Seed) -> Self {
        Self { servers: Some(servers), producer0: None, producer1: Some(producer) }
    }

    /// The crypto producer's: with server0, and with server1.
    pub fn crypto_producer(server0: Seed, server1: Seed) -> Self {
        Self { servers: None, producer0: Some(server0), producer1: Some(server1) }
    }

    /// The same seeds bound to one plan, version of its weights, and epoch, so that no two of them share a stream.
    #[must_use]
    pub(crate) fn bound_to(&self, plan: &[u8; 32], version: u64, epoch: &Epoch) -> Self {
        let context: [&[u8]; 3] = [plan, &version.to_le_bytes(), epoch.as_bytes()];
        let bind = |seed: &Option<Seed>| seed.as_ref().map(|seed| seed.derive("plan", &context));
        Self { servers: bind(&self.servers), producer0: bind(&self.producer0), producer1: bind(&self.producer1) }
    }
}

/// The seed of this server's part of the mask of one input of one sample.
fn input_key(seed: &Seed, unit: u64, step: u32) -> Seed {
    seed.derive("input", &[&unit.to_le_bytes(), &step.to_le_bytes()])
}

impl Seeds {
    /// What a server hands to the player who feeds an input, once: the seed of its part of the mask.
    pub(crate) fn input_seed(&self, unit: u64, step: u32) -> Option<Seed> {
        let own = match (&self.servers, &self.producer0, &self.producer1) {
            (Some(_), Some(own), None) | (Some(_), None, Some(own)) => own,
            _ => return None,
        };
        Some(input_key(own, unit, step))
    }
}

impl Randomness for Seeds {
    type Source = Stream;

    fn open(&self, pair: Pair, scope: Scope, step: u32, label: Label) -> Result<Stream, Blame> {
        let seed = match pair {
            Pair::Servers => &self.servers,
            Pair::Producer0 => &self.producer0,
            Pair::Producer1 => &self.producer1,
        };
        let seed = seed.as_ref().ok_or_else(|| Blame::bug(alloc::format!("no seed for {pair:?} here")))?;
        let key = match scope {
            // The whole key is the player's: no other stream may hang on it.
            Scope::Input { unit, step } => return Ok(input_key(seed, unit, step).stream(0)),
            Scope::Unit(unit) => seed.derive("unit", &[&unit.to_le_bytes()]),
            Scope::Variable { index, version } => {
                seed.derive("variable", &[&index.to_le_bytes(), &version.to_le_bytes()])
            }
        };
        Ok(key.stream(u64::from(step) << 8 | u64::from(label.id)))
    }
}

/// What a stream computes at once: four blocks, the fewest that cost no more than one where there are vectors.
const AHEAD: usize = 256;

/// One ChaCha20 stream. Zeroised when dropped.
pub(crate) struct Stream {
    cipher: ChaCha20Legacy,
    /// Computed and, beyond `used`, not given out.
    ahead: [u8; AHEAD],
    used: usize,
}

impl Drop for Stream {
    fn drop(&mut self) {
        wipe(&mut self.ahead);
    }
}

impl Stream {
    fn fill(&mut self, out: &mut [u8]) {
        let (first, out) = out.split_at_mut(out.len().min(AHEAD - self.used));
        self.take(first);
        let (whole, last) = out.split_at_mut(out.len() - out.len() % AHEAD);
        self.cipher.write_keystream(whole);
        if !last.is_empty() {
            self.cipher.write_keystream(&mut self.ahead);
            self.used = 0;
            self.take(last);
        }
    }

    /// From what is there.
    fn take(&mut self, out: &mut [u8]) {
        out.iter_mut().zip(self.ahead.iter().skip(self.used)).for_each(|(out, byte)| *out = *byte);
        self.used += out.len();
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

impl Source for Stream {
    fn bytes(&mut self, out: &mut [u8]) {
        self.fill(out);
    }

    fn ring<L: Lane>(&mut self, ring: Ring<L>, out: &mut [L]) {
        let width = L::BITS as usize / 8;
        let mut bytes = [0u8; 1024];
        for chunk in out.chunks_mut(bytes.len() / width) {
            let (bytes, _) = bytes.split_at_mut(chunk.len() * width);
            self.fill(bytes);
            L::read(bytes, chunk);
            chunk.iter_mut().for_each(|element| *element = ring.reduce(*element));
        }
        wipe(&mut bytes);
    }

    fn odd<L: Lane>(&mut self, ring: OddRing, out: &mut [L]) {
        // Whether a value is drawn again depends on the value thrown away, never on the one kept.
        out.iter_mut().for_each(|element| {
            *element = loop {
                let value = u64::from_le_bytes(self.array()) & ring.modulus();
                if value != ring.modulus() {
                    break L::from_u64(value);
                }
            }
        });
    }

    fn below(&mut self, bound: impl Fn(usize) -> u8, out: &mut [u8]) {
        // Lemire, "Fast random integer generation in an interval", on words of 16 bits: exactly uniform. A word is thrown
        // away less often than once in 256 times, and whether it is depends on nothing that is kept.
        let mut words = [0u8; 128];
        for (at, chunk) in (0..).step_by(words.len() / 2).zip(out.chunks_mut(words.len() / 2)) {
            let (words, _) = words.split_at_mut(2 * chunk.len());
            self.fill(words);
            for ((i, place), word) in (at..).zip(chunk).zip(words.as_chunks().0) {
                let bound = bound(i).max(1);
                let mut product = u32::from(u16::from_le_bytes(*word)) * u32::from(bound);
                while product & 0xffff < rest(bound) {
                    product = (u32::from_le_bytes(self.array()) & 0xffff) * u32::from(bound);
                }
                *place = (product >> 16) as u8;
            }
        }
        wipe(&mut words);
    }
}

/// 2^16 modulo bound, without a division.
#[allow(clippy::indexing_slicing, reason = "a byte is a place in 256 entries")]
fn rest(bound: u8) -> u32 {
    const RESTS: [u8; 256] = {
        let (mut rests, mut bound) = ([0; 256], 1);
        while bound < 256 {
            rests[bound] = (0x1_0000 % bound) as u8;
            bound += 1;
        }
        rests
    };
    u32::from(RESTS[usize::from(bound)])
}

/// `count` uniform elements of Z_2^k.
pub(crate) fn ring_elements<L: Lane>(source: &mut impl Source, ring: Ring<L>, count: usize) -> Vec<L> {
    let mut out = alloc::vec![L::default(); count];
    source.ring(ring, &mut out);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use alloc::vec;

    const LABEL: Label = Label::new(0, "test");

    /// RFC 8439, appendix A.1, test vector 1: key and nonce zero, block 0.
    #[test]
    fn the_stream_is_chacha20() {
        let mut bytes = [0; 16];
        Seed::new([0; 32]).stream(0).bytes(&mut bytes);
        assert_eq!(
            bytes,
            [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28]
        );
    }

    #[test]
    fn pieces_of_a_stream_are_the_stream() {
        let mut whole = [0; 4000];
        Seed::new([5; 32]).stream(7).bytes(&mut whole);
        let (mut stream, mut pieces, mut length) = (Seed::new([5; 32]).stream(7), Vec::new(), 0);
        while pieces.len() + length <= whole.len() {
            let mut piece = vec![0; length];
            stream.bytes(&mut piece);
            pieces.extend(piece);
            length = (length * 7 + 3) % 601;
        }
        assert!(pieces.len() > 3000 && whole.starts_with(&pieces));
    }

    #[test]
    fn every_part_of_the_address_changes_the_stream() {
        let seeds = Seeds::server0(Seed::new([1; 32]), Seed::new([2; 32]));
        let draw = |pair, scope, step, id| {
            let mut source = seeds.open(pair, scope, step, Label::new(id, "test")).unwrap();
            ring_elements(&mut source, Ring::<u64>::new(64).unwrap(), 2)
        };
        let draws = [
            draw(Pair::Servers, Scope::Unit(0), 0, 0),
            draw(Pair::Producer0, Scope::Unit(0), 0, 0),
            draw(Pair::Servers, Scope::Unit(1), 0, 0),
            draw(Pair::Servers, Scope::Unit(0), 1, 0),
            draw(Pair::Servers, Scope::Unit(0), 0, 1),
            draw(Pair::Servers, Scope::Variable { index: 0, version: 0 }, 0, 0),
            draw(Pair::Servers, Scope::Variable { index: 0, version: 1 }, 0, 0),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(draws[0], draw(Pair::Servers, Scope::Unit(0), 0, 0));
        assert!(seeds.open(Pair::Producer1, Scope::Unit(0), 0, LABEL).is_err());
    }

    #[test]
    fn small_bounds_are_uniform() {
        for bound in [1u8, 2, 3, 66, 67, 200] {
            let mut counts = vec![0u32; usize::from(bound)];
            let mut out = vec![0; 20_000 * usize::from(bound)];
            Seed::new([3; 32]).stream(u64::from(bound)).below(|_| bound, &mut out);
            out.iter().for_each(|v| counts[usize::from(*v)] += 1);
            let chi: f64 = counts.iter().map(|c| (f64::from(*c) - 20_000.0).powi(2) / 20_000.0).sum();
            assert!(chi < f64::from(bound) + 6.0 * (2.0 * f64::from(bound)).sqrt() + 1.0, "{bound}: {chi}");
        }
    }

    #[test]
    fn permutations_are_uniform() {
        let mut source = Seed::new([4; 32]).stream(0);
        let mut counts = alloc::collections::BTreeMap::new();
        for _ in 0..24_000 {
            let mut p = [0; 4];
            source.permutation(&mut p);
            *counts.entry(p).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        assert!(counts.values().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}
