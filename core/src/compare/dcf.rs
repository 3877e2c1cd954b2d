//! 1{x < r}·β, shared additively, from a distributed comparison function on the half tree.
//!
//! The tree is that of [`super::dpf`]. As in Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee, "Function secret sharing for
//! mixed-mode and fixed-point secure computation" (EUROCRYPT 2021), §3, every level carries a second correction word, of
//! values: where x goes left, server j adds (-1)^j·(v_j + t_j·V) for the values v_j that it expands of its seed, and its
//! control bit t_j. Beside r's path seeds and bits are equal, and nothing is added. On it V makes the sum β if r goes right
//! here, so that x is smaller, and 0 if r goes left too.
//!
//! β is up to three numbers, each modulo a power of two of its own. They come from another hash of the same seeds than their
//! children do, so values and children are unrelated.
//!
//! Correction words are pseudorandom and the same for both servers; a key may be evaluated at any number of points. Dealing
//! and evaluation are without a branch and without an address that depends on r, β, roots or seeds.

use alloc::format;
use alloc::vec::Vec;

use super::dpf::{Path, root};
use super::hash::{Blocks, GROUP, Group, Hash};
use super::{erase, spread, spread_hidden};
use crate::error::Blame;

/// The numbers that β has at most.
pub const NUMBERS: usize = 3;
/// Tweaks of values: levels are below 64.
const VALUES: [u32; 2] = [1 << 6, 1 << 7];

/// Comparisons of numbers of one width, and what they give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dcf {
    bits: u32,
    /// β's numbers have so many bits; 0 for those that are not there.
    widths: [u32; NUMBERS],
}

impl Dcf {
    /// Comparisons of numbers of `bits` bits, 1 to 64, that give numbers of `widths` bits, 0 to 64 each.
    pub fn new(bits: u32, widths: [u32; NUMBERS]) -> Option<Self> {
        let fits = (1..=64).contains(&bits) && widths.iter().all(|width| *width <= 64);
        fits.then_some(Self { bits, widths })
    }

    /// Bytes of one level's correction word of values.
    fn value_bytes(&self) -> usize {
        self.widths.iter().map(|width| width.div_ceil(8) as usize).sum()
    }

    /// Bytes of correction words for one comparison: one of values for each bit, one of seeds for each but the last.
    pub fn key_bytes(&self) -> usize {
        self.bits as usize * (16 + self.value_bytes()) - 16
    }

    /// The levels' correction words: values of all comparisons, then seeds.
    fn level_bytes(&self, count: usize) -> usize {
        (count * (16 + self.value_bytes())).max(1)
    }

    /// Whether one hash holds all values.
    fn one_hash(&self) -> bool {
        let [_, second, third] = self.widths;
        second + third <= 64
    }

    /// The values of seeds, each number in its lanes.
    fn values(&self, group: &Group, level: u32, index: &[u8; GROUP], len: usize, seeds: &Blocks) -> Values {
        let mut hash = Blocks::zero();
        let [tweak, second_tweak] = VALUES;
        group.hash(level | tweak, index, len, seeds, &mut hash);
        let mut values = Values::zero();
        let [first, second, third] = &mut values.0;
        let [w1, w2, w3] = self.widths.map(mask);
        let [_, bits, _] = self.widths;
        for ((first, second), (low, high)) in first.iter_mut().zip(second).zip(hash.low.iter().zip(&hash.high)) {
            (*first, *second) = (low & w1, high & w2);
        }
        if self.one_hash() {
            third
                .iter_mut()
                .zip(&hash.high)
                .for_each(|(third, high)| *third = high.checked_shr(bits).unwrap_or(0) & w3);
        } else {
            group.hash(level | second_tweak, index, len, seeds, &mut hash);
            third.iter_mut().zip(&hash.low).for_each(|(third, low)| *third = low & w3);
        }
        values
    }

    fn pack(&self, values: [u64; NUMBERS], to: &mut [u8]) {
        let bytes = values.iter().zip(self.widths).flat_map(|(value, width)| {
            value.to_le_bytes().into_iter().take(width.div_ceil(8) as usize) //
        });
        to.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    }

    /// The numbers at the beginning of `bytes`, whatever comes behind them.
    #[inline(always)]
    fn unpack(&self, bytes: &[u8]) -> [u64; NUMBERS] {
        let mut rest = bytes;
        self.widths.map(|width| {
            let word = match rest.first_chunk() {
                Some(word) => u64::from_le_bytes(*word),
                None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
            rest = rest.get(width.div_ceil(8) as usize..).unwrap_or_default();
            word & mask(width)
        })
    }

    /// The correction words of as many comparisons as there are `r`, in clear, each below 2^bits, and β.
    ///
    /// `roots0` and `roots1` are uniform 128 bits for each comparison, of which server0, server1 respectively expands the same.
    /// Both servers receive the same words: level by level, those of all comparisons.
    ///
    /// # Errors
    /// A bug: there are not as many roots or β as comparisons.
    pub fn deal(
        &self,
        hash: &Hash,
        r: &[u64],
        beta: &[[u64; NUMBERS]],
        roots0: &[u128],
        roots1: &[u128],
    ) -> Result<Vec<u8>, Blame> {
        let count = r.len();
        if roots0.len() != count || roots1.len() != count || beta.len() != count {
            return Err(Blame::bug(format!("{count} comparisons, {} β, {} roots", beta.len(), roots0.len())));
        }
        let mut words = alloc::vec![0; count * self.key_bytes()];
        let size = self.value_bytes();
        let roots = roots0.chunks(GROUP).zip(roots1.chunks(GROUP));
        for (number, ((r, beta), (roots0, roots1))) in r.chunks(GROUP).zip(beta.chunks(GROUP)).zip(roots).enumerate() {
            let (group, first) = (hash.group(number), number * GROUP);
            let mut path = Path::new(roots0, roots1);
            let index = core::array::from_fn(|lane| lane as u8);
            for (level, words) in (0..self.bits).zip(words.chunks_mut(self.level_bytes(count))) {
                let (values, seeds) = words.split_at_mut(count * size);
                let turns = || r.iter().map(|r| r >> (self.bits - 1 - level));
                let [v0, v1] = path.seeds().map(|seeds| self.values(&group, level, &index, r.len(), seeds));
                let [_, seeds1] = path.seeds();
                let rows = turns().zip(beta).zip(&seeds1.low).enumerate();
                for ((lane, ((turn, beta), control1)), to) in rows.zip(values.chunks_mut(size.max(1)).skip(first)) {
                    // t_0 - t_1 is 1 or -1.
                    let (right, negative) = (spread_hidden(turn), spread_hidden(*control1));
                    let mut value = [0; NUMBERS];
                    let numbers = value.iter_mut().zip(beta.iter().zip(self.widths));
                    for ((value, (beta, width)), (v0, v1)) in numbers.zip(v0.0.iter().zip(&v1.0)) {
                        let of = |v: &[u64; GROUP]| v.get(lane).copied().unwrap_or_default();
                        let sum = (beta & right).wrapping_sub(of(v0)).wrapping_add(of(v1));
                        *value = (sum ^ negative).wrapping_sub(negative) & mask(width);
                    }
                    self.pack(value, to);
                }
                if level + 1 < self.bits {
                    path.descend(&group, level, turns(), seeds.as_chunks_mut().0.iter_mut().skip(first));
                }
            }
        }
        Ok(words)
    }

    /// Server `side`'s (0 or 1) shares of 1{x < r}·β: for each comparison, x.len() / roots.len() points, one after the other.
    ///
    /// # Errors
    /// A bug: points, roots and words do not belong to the same number of comparisons.
    pub fn eval(
        &self,
        hash: &Hash,
        side: usize,
        roots: &[u128],
        x: &[u64],
        words: &[u8],
    ) -> Result<Vec<[u64; NUMBERS]>, Blame> {
        let count = roots.len();
        let points = x.len().checked_div(count).unwrap_or(0);
        if x.len() != points * count || words.len() != count * self.key_bytes() {
            return Err(Blame::bug(format!("{count} roots, {} points, {} bytes of words", x.len(), words.len())));
        }
        let mut out = alloc::vec![[0; NUMBERS]; x.len()];
        if points == 0 {
            return Ok(out);
        }
        let work = x.chunks(GROUP * points).zip(out.chunks_mut(GROUP * points)).enumerate();
        for ((number, (x, out)), roots) in work.zip(roots.chunks(GROUP)) {
            let key = Key { dcf: self, group: hash.group(number), first: number * GROUP, count, roots, words };
            for (at, (x, out)) in (0..).step_by(GROUP).zip(x.chunks(GROUP).zip(out.chunks_mut(GROUP))) {
                let index = core::array::from_fn(|lane| ((at + lane) / points).min(GROUP - 1) as u8);
                key.walk(&index, side as u64, x, out);
            }
        }
        Ok(out)
    }
}

/// The lowest `width` bits.
fn mask(width: u32) -> u64 {
    u64::MAX.checked_shr(64 - width.min(64)).unwrap_or(0)
}

/// β's numbers in lanes. Zeroised when dropped.
struct Values([[u64; GROUP]; NUMBERS]);

impl Values {
    fn zero() -> Self {
        Self([[0; GROUP]; NUMBERS])
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(erase);
    }
}

/// One group's comparisons, as one server has them.
struct Key<'a> {
    dcf: &'a Dcf,
    group: Group,
    /// The group's first comparison, of `count`.
    first: usize,
    count: usize,
    /// The group's.
    roots: &'a [u128],
    /// All comparisons'.
    words: &'a [u8],
}

impl Key<'_> {
    /// From the root to x, for up to [`GROUP`] points; `index` gives each point's comparison within the group.
    fn walk(&self, index: &[u8; GROUP], side: u64, x: &[u64], out: &mut [[u64; NUMBERS]]) {
        let (dcf, len, size) = (self.dcf, x.len().min(GROUP), self.dcf.value_bytes());
        let mut seeds = root(index.iter().filter_map(|i| self.roots.get(usize::from(*i))), side);
        let (mut hashes, minus) = (Blocks::zero(), spread(side));
        for (level, words) in (0..dcf.bits).zip(self.words.chunks(dcf.level_bytes(self.count))) {
            let (_, corrections) = words.split_at(self.count * size);
            let own = dcf.values(&self.group, level, index, len, &seeds);
            let at = |lane: usize| index.get(lane).map_or(0, |i| self.first + usize::from(*i));
            for (lane, ((x, out), control)) in x.iter().zip(out.iter_mut()).zip(&seeds.low).enumerate() {
                let word = dcf.unpack(words.get(at(lane) * size..).unwrap_or_default());
                let left = !spread(x >> (dcf.bits - 1 - level));
                for ((out, word), (own, width)) in out.iter_mut().zip(word).zip(own.0.iter().zip(dcf.widths)) {
                    let own = own.get(lane).copied().unwrap_or_default();
                    let value = own.wrapping_add(word & spread(*control)) & left;
                    *out = out.wrapping_add((value ^ minus).wrapping_sub(minus)) & mask(width);
                }
            }
            if level + 1 == dcf.bits {
                break;
            }
            self.group.hash(level, index, len, &seeds, &mut hashes);
            let corrections = corrections.as_chunks::<16>().0;
            let lanes = seeds.low.iter_mut().zip(&mut seeds.high).zip(hashes.low.iter().zip(&hashes.high));
            for (lane, ((seed, hash), x)) in lanes.zip(x).enumerate() {
                let word = corrections.get(at(lane)).map_or(0, |word| u128::from_le_bytes(*word));
                let (control, right) = (spread(*seed.0), spread(x >> (dcf.bits - 1 - level)));
                *seed.0 = hash.0 ^ (word as u64 & control) ^ (*seed.0 & right);
                *seed.1 = hash.1 ^ ((word >> 64) as u64 & control) ^ (*seed.1 & right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::compare::blocks;
    use crate::compare::hash::HashKind;
    use crate::stream::Seed;

    const KINDS: [HashKind; 2] = [HashKind::Aes, HashKind::ChaCha];

    fn check(dcf: Dcf, kind: HashKind, salt: u64, r: &[u64], x: &[u64]) {
        let hash = Hash::new(kind, [salt as u8; 16]);
        let mut stream = Seed::new([23; 32]).stream(salt);
        let [roots0, roots1, more] = [0; 3].map(|_| blocks(&mut stream, r.len()));
        let of = |block: u128| [block as u64, (block >> 64) as u64, (block >> 32) as u64];
        let beta: Vec<[u64; 3]> = more
            .iter()
            .map(|block| {
                let [a, b, c] = of(*block);
                [a & mask(dcf.widths[0]), b & mask(dcf.widths[1]), c & mask(dcf.widths[2])]
            })
            .collect();
        let words = dcf.deal(&hash, r, &beta, &roots0, &roots1).unwrap();
        assert_eq!(words.len(), r.len() * dcf.key_bytes());
        let shares0 = dcf.eval(&hash, 0, &roots0, x, &words).unwrap();
        let shares1 = dcf.eval(&hash, 1, &roots1, x, &words).unwrap();
        let points = x.len() / r.len();
        for (i, x) in x.iter().enumerate() {
            let (r, beta) = (r[i / points], beta[i / points]);
            for number in 0..NUMBERS {
                let sum = shares0[i][number].wrapping_add(shares1[i][number]) & mask(dcf.widths[number]);
                assert_eq!(
                    sum,
                    if *x < r { beta[number] } else { 0 },
                    "{dcf:?} {kind:?}: {x} and {r}, number {number}"
                );
            }
        }
    }

    /// All r at all x, one key for all points and one for each.
    #[test]
    fn it_compares_for_every_input() {
        for (bits, kind) in (1..=6).flat_map(|bits| KINDS.map(|kind| (bits, kind))) {
            for widths in [[1, 0, 0], [5, 5, 0], [32, 32, 10], [64, 64, 16], [40, 64, 1]] {
                let dcf = Dcf::new(bits, widths).unwrap();
                let all: Vec<u64> = (0..1 << bits).collect();
                let (each, x): (Vec<u64>, Vec<u64>) =
                    all.iter().flat_map(|r| all.iter().map(move |x| (*r, *x))).unzip();
                check(dcf, kind, 1, &all, &x);
                check(dcf, kind, 2, &each, &x);
            }
        }
    }

    /// Wide numbers: random ones, and those next to r or equal to it in a prefix.
    #[test]
    fn it_compares_wide_numbers() {
        for (bits, kind) in [26, 31, 39, 63, 64].into_iter().flat_map(|bits| KINDS.map(|kind| (bits, kind))) {
            let all = mask(bits);
            let mut stream = Seed::new([3; 32]).stream(bits.into());
            let random = blocks(&mut stream, 100).into_iter().map(|block| block as u64 & all);
            let r: Vec<u64> = random.chain([0, 1, all, all - 1]).collect();
            let near = |(i, r): (usize, &u64)| {
                [
                    r.wrapping_add(1) & all,
                    r.wrapping_sub(1) & all,
                    *r,
                    r ^ 1 << (i as u32 % bits),
                    r.rotate_left(9) & all,
                ]
            };
            let x: Vec<u64> = r.iter().enumerate().flat_map(near).collect();
            check(Dcf::new(bits, [32, 32, 10]).unwrap(), kind, 3, &r, &x);
            check(Dcf::new(bits, [64, 64, 16]).unwrap(), kind, 4, &r, &x);
        }
    }

    #[test]
    fn key_sizes() {
        let size = |bits, widths| Dcf::new(bits, widths).unwrap().key_bytes();
        assert_eq!([size(31, [32, 32, 10]), size(1, [32, 32, 0]), size(63, [64, 64, 16])], [790, 8, 2126]);
        assert_eq!((Dcf::new(0, [1; 3]), Dcf::new(65, [1; 3]), Dcf::new(8, [65, 0, 0])), (None, None, None));
    }

    /// Words look the same whatever r and β are: every byte of them uniform, and its exclusive or with either root's. The
    /// statistic is Pearson's, 255 degrees of freedom: beyond 375 once in a million.
    #[test]
    fn words_tell_nothing_of_r_or_beta() {
        let (dcf, count) = (Dcf::new(3, [32, 32, 8]).unwrap(), 1 << 12);
        for kind in KINDS {
            for (salt, (r, beta)) in
                [(0u64, [0u64; 3]), (7, [1, 0, 0]), (5, [1, 0xffff, 3]), (2, [0; 3])].iter().enumerate()
            {
                let (mut stream, hash) = (Seed::new([31; 32]).stream(salt as u64), Hash::new(kind, [9; 16]));
                let roots = [blocks(&mut stream, count), blocks(&mut stream, count)];
                let words =
                    dcf.deal(&hash, &alloc::vec![*r; count], &alloc::vec![*beta; count], &roots[0], &roots[1]).unwrap();
                for level in words.chunks(dcf.level_bytes(count)) {
                    let (values, seeds) = level.split_at(count * dcf.value_bytes());
                    let mut series: Vec<Vec<u8>> = [values, seeds].map(<[u8]>::to_vec).to_vec();
                    for roots in &roots {
                        let with = |part: &[u8], size: usize| -> Vec<u8> {
                            let rows = part.chunks(size).zip(roots);
                            rows.flat_map(|(a, b)| {
                                a.iter().zip(b.to_le_bytes()).map(|(a, b)| a ^ b).collect::<Vec<_>>()
                            })
                            .collect()
                        };
                        series.extend([with(values, dcf.value_bytes()), with(seeds, 16)]);
                    }
                    for series in series.iter().filter(|series| !series.is_empty()) {
                        let mut counts = [0f64; 256];
                        series.iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
                        let expected = series.len() as f64 / 256.0;
                        let chi: f64 = counts.iter().map(|n| (n - expected) * (n - expected) / expected).sum();
                        assert!((155.0..375.0).contains(&chi), "{kind:?}, r = {r}, β = {beta:?}: {chi}");
                    }
                }
            }
        }
    }

    #[test]
    fn lengths_are_checked_and_empty_batches_work() {
        let (dcf, hash) = (Dcf::new(31, [32, 32, 10]).unwrap(), Hash::new(HashKind::Aes, [0; 16]));
        assert!(dcf.deal(&hash, &[], &[], &[], &[]).unwrap().is_empty());
        assert!(dcf.eval(&hash, 0, &[], &[], &[]).unwrap().is_empty());
        assert!(
            dcf.deal(&hash, &[1], &[], &[2], &[3]).is_err() && dcf.deal(&hash, &[1], &[[1; 3]], &[2], &[]).is_err()
        );
        assert!(dcf.eval(&hash, 0, &[1], &[1], &[0; 789]).is_err());
    }
}
