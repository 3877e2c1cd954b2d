//! The hash of the half tree: 128 bits to 128 bits, circular correlation robust.
//!
//! A half tree ("Half-Tree", Guo, Yang, Wang, Zhang, Xie, Liu, Zhao, ePrint 2022/1431) keeps one secret offset Δ between
//! the two servers' seeds on the path, on all levels, so its hash must look random at x ⊕ Δ even when masked with Δ:
//! *circular correlation robustness*. [`HashKind::Aes`] is that paper's H(x) = π(σ(x)) ⊕ σ(x), with σ(a ‖ b) = (a ⊕ b) ‖ a,
//! a linear orthomorphism (Guo, Katz, Wang, Yu, ePrint 2019/074, §7), and π AES-128 under a known random key.
//!
//! *Many comparisons.* Who has one server's seeds knows, for every correction word, H(s ⊕ Δ) up to a bit, and finds Δ by
//! guessing s ⊕ Δ. Under one permutation each guess is held against all words at once: p guesses find one of N offsets with
//! probability pN/2¹²⁷. A tweak XORed to the input does not help, since an answer of π is then still a candidate for every
//! tweak. A key of its own for every instance does (Guo, Katz, Wang, Weng, Yu, ePrint 2019/1168, §4). Here every
//! [`GROUP`] of comparisons has one, so that N is at most 64 · 58 < 2¹² however long a session lasts, and the key schedule
//! costs next to nothing. Within the group, comparison and level are a tweak, which keeps apart seeds that happen to be equal.
//! A guess is then right with probability below 2^-115.
//!
//! [`HashKind::ChaCha`] is for machines without AES instructions: the ChaCha permutation with feed-forward (Bernstein 2008),
//! on the constants, x, the key and the tweak, truncated to its first 128 bits of 512. For a random permutation this is
//! indifferentiable from a random function of (x, key, tweak), hence robust, and each guess serves one word only. It has 12
//! rounds: published attacks reach a little over 7 of ChaCha's, at costs far beyond 2¹²⁸, and against a secret key, whereas
//! here an attacker sees everything but x; 8 would leave hardly a margin, 20 would cost half as much again.
//!
//! Both give the same result on every machine. What is hashed is secret: `aes` runs in constant time with and without
//! AES instructions, and ChaCha has no table.

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use serde::{Deserialize, Serialize};
use wide::u32x4;

use super::erase;

/// Comparisons under one permutation, and the most that are hashed at once.
pub const GROUP: usize = 64;

/// ChaCha's rounds, in pairs.
const DOUBLE_ROUNDS: usize = 6;

/// Blocks that ChaCha computes side by side, in the vectors that every machine of today has.
const LANES: usize = 4;

/// "expand 32-byte k".
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// Which function hashes: a field of the plan, the same for all parties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKind {
    /// AES-128: fastest where the processor has instructions for it.
    #[default]
    Aes,
    /// ChaCha of 12 rounds: fastest in a browser.
    ChaCha,
}

impl HashKind {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            HashKind::Aes => "AES",
            HashKind::ChaCha => "ChaCha",
        }
    }
}

impl core::fmt::Display for HashKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The hash under a key that is random, known to all three parties, and used for one batch of comparisons.
///
/// It must not be chosen after the seeds: derive it from the session, the unit and the step.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    kind: HashKind,
    key: [u8; 16],
}

impl Hash {
    /// The hash of this kind under this key, which no other batch has.
    pub fn new(kind: HashKind, key: [u8; 16]) -> Self {
        Self { kind, key }
    }

    /// The permutation of comparisons `GROUP * number ..`.
    pub(super) fn group(&self, number: usize) -> Group {
        match self.kind {
            HashKind::Aes => {
                let mut key = Array::from((number as u128).to_le_bytes());
                Aes128Enc::new(&self.key.into()).encrypt_block(&mut key);
                Group::Aes(Aes128Enc::new(&key))
            }
            HashKind::ChaCha => Group::ChaCha(words(u128::from_le_bytes(self.key)), number as u64),
        }
    }
}

/// The hash of one group's comparisons.
pub(super) enum Group {
    Aes(Aes128Enc),
    ChaCha([u32; 4], u64),
}

/// Blocks side by side, as their low and high halves, which compilers turn into vector instructions. Zeroised when dropped.
#[derive(Clone)]
pub(super) struct Blocks {
    pub(super) low: [u64; GROUP],
    pub(super) high: [u64; GROUP],
}

impl Blocks {
    pub(super) const fn zero() -> Self {
        Self { low: [0; GROUP], high: [0; GROUP] }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        erase(&mut self.low);
        erase(&mut self.high);
    }
}

impl Group {
    /// Hashes the first `len` blocks of `x` to `to`. `index` gives each block's comparison within the group.
    pub(super) fn hash(&self, level: u32, index: &[u8; GROUP], len: usize, x: &Blocks, to: &mut Blocks) {
        match self {
            Group::Aes(permutation) => {
                let mut inputs = [[0; 16]; GROUP];
                let tweak = u64::from(level) << 8;
                let tweaked = |(low, (high, index)): (&u64, (&u64, &u8))| sigma(*low, *high, tweak | u64::from(*index));
                let sigmas = || x.low.iter().zip(x.high.iter().zip(index)).map(tweaked).take(len);
                for (input, [low, high]) in inputs.iter_mut().zip(sigmas()) {
                    *input = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
                }
                let (blocks, _) = inputs.split_at_mut(len.min(GROUP));
                permutation.encrypt_blocks(Array::cast_slice_from_core_mut(blocks));
                let to = to.low.iter_mut().zip(&mut to.high);
                for (((to_low, to_high), [low, high]), output) in to.zip(sigmas()).zip(&inputs) {
                    let output = u128::from_le_bytes(*output);
                    (*to_low, *to_high) = (output as u64 ^ low, (output >> 64) as u64 ^ high);
                }
                erase(&mut inputs);
            }
            Group::ChaCha(key, number) => {
                let x = x.low.chunks(LANES).zip(x.high.chunks(LANES)).zip(index.chunks(LANES));
                let to = to.low.chunks_mut(LANES).zip(to.high.chunks_mut(LANES));
                for (((low, high), index), to) in x.zip(to).take(len.div_ceil(LANES)) {
                    chacha(key, *number, level, index, [low, high], to);
                }
            }
        }
    }
}

/// The orthomorphism σ(a ‖ b) = (a ⊕ b) ‖ a, and the tweak; low half first.
#[inline(always)]
fn sigma(low: u64, high: u64, tweak: u64) -> [u64; 2] {
    [high ^ tweak, high ^ low]
}

/// [`LANES`] blocks through ChaCha, each in a lane: rows of the state are constants, x, key, tweak.
fn chacha(
    key: &[u32; 4],
    number: u64,
    level: u32,
    index: &[u8],
    [low, high]: [&[u64]; 2],
    to: (&mut [u64], &mut [u64]),
) {
    let mut x = [[0; LANES]; 4];
    let [x0, x1, x2, x3] = &mut x;
    for (x0, x1, half) in [(x0, x1, low), (x2, x3, high)] {
        for ((x0, x1), half) in x0.iter_mut().zip(x1).zip(half) {
            (*x0, *x1) = (*half as u32, (*half >> 32) as u32);
        }
    }
    let mut comparison = [0; LANES];
    comparison.iter_mut().zip(index).for_each(|(place, index)| *place = u32::from(*index));
    let [c0, c1, c2, c3] = CONSTANTS.map(u32x4::splat);
    let [x0, x1, x2, x3] = x.map(u32x4::new);
    let [k0, k1, k2, k3] = key.map(u32x4::splat);
    let [t1, t2, t3] = [level, number as u32, (number >> 32) as u32].map(u32x4::splat);
    let mut state = [c0, c1, c2, c3, x0, x1, x2, x3, k0, k1, k2, k3, u32x4::new(comparison), t1, t2, t3];
    for _ in 0..DOUBLE_ROUNDS {
        double_round(&mut state);
    }
    // The first row is the output; what is fed forward to it are the constants.
    let [s0, s1, s2, s3, ..] = state;
    let halves = [(to.0, s0 + c0, s1 + c1), (to.1, s2 + c2, s3 + c3)];
    for (to, s0, s1) in halves {
        for ((to, s0), s1) in to.iter_mut().zip(s0.to_array()).zip(s1.to_array()) {
            *to = u64::from(s1) << 32 | u64::from(s0);
        }
    }
    erase(&mut state);
    erase(&mut x);
}

/// Four little-endian words.
fn words(x: u128) -> [u32; 4] {
    [x as u32, (x >> 32) as u32, (x >> 64) as u32, (x >> 96) as u32]
}

#[inline(always)]
fn double_round(state: &mut [u32x4; 16]) {
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf] = state;
    quarter_round(s0, s4, s8, sc);
    quarter_round(s1, s5, s9, sd);
    quarter_round(s2, s6, sa, se);
    quarter_round(s3, s7, sb, sf);
    quarter_round(s0, s5, sa, sf);
    quarter_round(s1, s6, sb, sc);
    quarter_round(s2, s7, s8, sd);
    quarter_round(s3, s4, s9, se);
}

#[inline(always)]
fn quarter_round(a: &mut u32x4, b: &mut u32x4, c: &mut u32x4, d: &mut u32x4) {
    step::<16>(a, *b, d);
    step::<12>(c, *d, b);
    step::<8>(a, *b, d);
    step::<7>(c, *d, b);
}

/// a += b; d = (d ⊕ a) <<< R.
#[inline(always)]
fn step<const R: u32>(a: &mut u32x4, b: u32x4, d: &mut u32x4) {
    *a += b;
    let mixed = *d ^ *a;
    *d = mixed << R | mixed >> (32 - R);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use chacha20::ChaCha12Rng;
    use chacha20::rand_core::{Rng, SeedableRng};
    use sha2::{Digest, Sha256};

    const KINDS: [HashKind; 2] = [HashKind::Aes, HashKind::ChaCha];

    fn hash(group: &Group, level: u32, index: &[u8; GROUP], x: &[u128]) -> Vec<u128> {
        let (mut blocks, mut to) = (Blocks::zero(), Blocks::zero());
        for (i, x) in x.iter().enumerate() {
            (blocks.low[i], blocks.high[i]) = (*x as u64, (x >> 64) as u64);
        }
        group.hash(level, index, x.len(), &blocks, &mut to);
        (0..x.len()).map(|i| u128::from(to.high[i]) << 64 | u128::from(to.low[i])).collect()
    }

    fn indices() -> [u8; GROUP] {
        core::array::from_fn(|i| i as u8)
    }

    /// FIPS 197, appendix C.1, seen through the feed-forward and σ's inverse.
    #[test]
    fn the_permutation_is_aes() {
        let key: [u8; 16] = core::array::from_fn(|i| i as u8);
        let plain = u128::from_le_bytes(core::array::from_fn(|i| 0x11 * i as u8));
        let cipher = 0x69c4e0d8_6a7b0430_d8cdb780_70b4c55a_u128.swap_bytes();
        let low = plain & u128::from(u64::MAX);
        let block = low << 64 | ((plain >> 64) ^ low);
        let group = Group::Aes(Aes128Enc::new(&key.into()));
        assert_eq!(hash(&group, 0, &[0; GROUP], &[block]), [cipher ^ plain]);
    }

    /// The rows x, key and tweak are ChaCha's key, counter and nonce to a library that knows them by these names.
    #[test]
    fn chacha_agrees_with_the_library() {
        let (x, key) = (0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128, 77u128 << 90 | 5);
        let (index, level, number) = (9u8, 3u32, 0x55_0000_0001u64);
        let seed: Vec<u8> = [x.to_le_bytes(), key.to_le_bytes()].concat();
        let mut library = ChaCha12Rng::from_seed(seed.try_into().unwrap());
        library.set_stream(number);
        library.set_word_pos(16 * u128::from(u64::from(level) << 32 | u64::from(index)));
        let mut expected = [0; 16];
        library.fill_bytes(&mut expected);
        let group = Group::ChaCha(words(key), number);
        assert_eq!(hash(&group, level, &[index; GROUP], &[x; 3]), [u128::from_le_bytes(expected); 3]);
    }

    /// Ties the hashes to one digest for all machines, computed by a separate program (OpenSSL's AES, RFC 8439's rounds), and
    /// shows that results do not depend on how many go together.
    #[test]
    fn known_answers() {
        let expected = [
            "41cc0d7aacabf9afe6ce86957d7e29279ebaca5340d66392538bb2f0de1da9f9",
            "66c3ec38fc4ba5e0d9e60649c559e2838b99264564078adabae6c9d65ae9372d",
        ];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            let mut digest = Sha256::new();
            for (number, level) in [(0, 0), (0, 1), (1, 0), (usize::from(u16::MAX), 57)] {
                let blocks: [u128; GROUP] = core::array::from_fn(|i| (u128::MAX / 7).wrapping_mul(i as u128));
                let group = Hash::new(kind, [3; 16]).group(number);
                let hashes = hash(&group, level, &indices(), &blocks);
                for (i, block) in blocks.into_iter().enumerate() {
                    assert_eq!(hash(&group, level, &[i as u8; GROUP], &[block]), hashes[i..=i], "{kind:?} {i}");
                }
                hashes.iter().for_each(|block| digest.update(block.to_le_bytes()));
            }
            let hex: alloc::string::String = digest.finalize().iter().map(|b| alloc::format!("{b:02x}")).collect();
            assert_eq!(hex, expected, "{kind:?}");
        }
    }

    /// Equal blocks hash differently in another group, level or comparison, and under another key or kind.
    #[test]
    fn instances_are_kept_apart() {
        let mut seen = BTreeSet::new();
        for (kind, key) in KINDS.into_iter().flat_map(|kind| [1, 2].map(|key| (kind, [key; 16]))) {
            for (number, level) in (0..3).flat_map(|number| (0..3).map(move |level| (number, level))) {
                seen.extend(hash(&Hash::new(kind, key).group(number), level, &indices(), &[5; GROUP]));
            }
        }
        assert_eq!(seen.len(), 2 * 2 * 9 * GROUP);
    }

    /// σ and x ↦ σ(x) ⊕ x are both permutations, on which the proof rests: linear, so it is enough that no bit pattern of
    /// the two halves' corresponding bits is sent to 0.
    #[test]
    fn sigma_is_an_orthomorphism() {
        let bits = [[0, 0], [1, 0], [0, 1], [1, 1]];
        let images = bits.map(|[low, high]| sigma(low, high, 0));
        for (x, image) in bits.iter().zip(&images).skip(1) {
            assert!(image != x && *image != [0, 0] && bits.contains(image));
        }
    }
}
