//! 1{x < r} from a distributed point function with prefix parity on the half tree.
//!
//! The tree is that of "Half-Tree" (Guo et al., ePrint 2022/1431, §5): on r's path the two servers' seeds differ by one
//! secret Δ, whose lowest bit is 1, everywhere else they are equal; a node's children are H(s) and H(s) ⊕ s, corrected by
//! one word for each level, so that *one* hash gives both children and their control bits, the seeds' lowest. Grotto
//! (Storrier, Vadapalli, Lyons, Henry, ePrint 2023/108) and SIGMA (Gupta et al., ePrint 2023/1269) compare with such a tree
//! by *prefix parity*: the parity of control bits over all leaves left of x is shared by the XOR of the control bits of the
//! left siblings along x's path, and is 1 exactly if r lies there. The last 7 levels are one block of 128 answers
//! (early termination: Boyle, Gilboa, Ishai, CCS 2016, §3.2.3).
//!
//! Correction words are pseudorandom and the same for both servers. A key may be evaluated at any number of points: it
//! has nothing that is used up.
//!
//! Dealing and evaluation are without a branch and without an address that depends on r, roots or seeds: masks throughout.

use alloc::format;
use alloc::vec::Vec;

use super::hash::{Blocks, GROUP, Group, Hash};
use super::{erase, spread};
use crate::error::Blame;

/// Levels that the last block stands for.
const TERMINATED: u32 = 7;

/// Comparisons of numbers of one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dpf {
    bits: u32,
}

impl Dpf {
    /// Comparisons of numbers of `bits` bits, 1 to 64.
    pub fn new(bits: u32) -> Option<Self> {
        (1..=64).contains(&bits).then_some(Self { bits })
    }

    /// Levels of the tree, each with one hash and one correction word of 16 bytes.
    pub fn levels(&self) -> usize {
        self.bits.saturating_sub(TERMINATED) as usize
    }

    /// Bytes of the last correction word: the answers below the last level.
    fn leaf_bytes(&self) -> usize {
        (1usize << self.bits.min(TERMINATED)).div_ceil(8)
    }

    /// Bytes of correction words for one comparison: (bits - 7) * 16 + 16 from 7 bits on.
    pub fn key_bytes(&self) -> usize {
        self.levels() * 16 + self.leaf_bytes()
    }

    /// The correction words of as many comparisons as there are `r`, in clear, each below 2^bits.
    ///
    /// `roots0` and `roots1` are uniform 128 bits for each comparison, of which server0, server1 respectively expands the same.
    /// Both servers receive the same words: level by level, those of all comparisons, and at last their leaves.
    ///
    /// # Errors
    /// A bug: there are not as many roots as comparisons.
    pub fn deal(&self, hash: &Hash, r: &[u64], roots0: &[u128], roots1: &[u128]) -> Result<Vec<u8>, Blame> {
        let count = r.len();
        if roots0.len() != count || roots1.len() != count {
            return Err(Blame::bug(format!("{count} comparisons, {} and {} roots", roots0.len(), roots1.len())));
        }
        let (leaf, mut words) = (self.leaf_bytes(), alloc::vec![0; count * self.key_bytes()]);
        let (levels, leaves) = words.split_at_mut(count * self.levels() * 16);
        let roots = roots0.chunks(GROUP).zip(roots1.chunks(GROUP));
        for (number, (r, (roots0, roots1))) in r.chunks(GROUP).zip(roots).enumerate() {
            let group = hash.group(number);
            let first = number * GROUP;
            let mut path = Path::new(roots0, roots1);
            for (level, words) in (0..).zip(levels.chunks_exact_mut(count * 16)) {
                let words = words.as_chunks_mut().0.iter_mut().skip(first);
                path.descend(&group, level, r.iter().map(|r| r >> (self.bits - 1 - level)), words);
            }
            path.end(&group, self.levels() as u32, self.mask(), r, leaves.chunks_exact_mut(leaf).skip(first));
        }
        Ok(words)
    }

    /// Server `side`'s (0 or 1) XOR-shares of 1{x < r}: for each comparison, x.len() / roots.len() points, one after the other.
    ///
    /// # Errors
    /// A bug: points, roots and words do not belong to the same number of comparisons.
    pub fn eval(&self, hash: &Hash, side: usize, roots: &[u128], x: &[u64], words: &[u8]) -> Result<Vec<u8>, Blame> {
        let count = roots.len();
        let points = x.len().checked_div(count).unwrap_or(0);
        if x.len() != points * count || words.len() != count * self.key_bytes() {
            return Err(Blame::bug(format!("{count} roots, {} points, {} bytes of words", x.len(), words.len())));
        }
        let mut out = alloc::vec![0; x.len()];
        if points == 0 {
            return Ok(out);
        }
        let (levels, leaves) = words.split_at(count * self.levels() * 16);
        let work = x.chunks(GROUP * points).zip(out.chunks_mut(GROUP * points)).enumerate();
        for ((number, (x, out)), roots) in work.zip(roots.chunks(GROUP)) {
            let group = hash.group(number);
            let key = Key { dpf: self, group, first: number * GROUP, count, roots, levels, leaves, side: side as u64 };
            for (at, (x, out)) in (0..).step_by(GROUP).zip(x.chunks(GROUP).zip(out.chunks_mut(GROUP))) {
                if points == 1 {
                    key.walk(&core::array::from_fn(|lane| lane as u8), x, out, |words| words.iter());
                } else {
                    let index = core::array::from_fn(|lane| ((at + lane) / points) as u8);
                    key.walk(&index, x, out, |words| index.iter().filter_map(move |i| words.get(usize::from(*i))));
                }
            }
        }
        Ok(out)
    }

    /// The places of one leaf block.
    fn mask(&self) -> u64 {
        (1 << self.bits.min(TERMINATED)) - 1
    }
}

/// Both servers' seeds on r's path, for one group of comparisons. Zeroised when dropped.
pub(super) struct Path {
    /// As many as there are comparisons.
    len: usize,
    index: [u8; GROUP],
    seeds: [Blocks; 2],
    hashes: [Blocks; 2],
    /// The first seeds ⊕ the second, on every level.
    delta: Blocks,
}

impl Path {
    pub(super) fn new(roots0: &[u128], roots1: &[u128]) -> Self {
        let (seeds, mut delta) = ([root(roots0.iter(), 0), root(roots1.iter(), 1)], Blocks::zero());
        let [seeds0, seeds1] = &seeds;
        for (to, (a, b)) in delta.low.iter_mut().zip(seeds0.low.iter().zip(&seeds1.low)) {
            *to = a ^ b;
        }
        for (to, (a, b)) in delta.high.iter_mut().zip(seeds0.high.iter().zip(&seeds1.high)) {
            *to = a ^ b;
        }
        let index = core::array::from_fn(|i| i as u8);
        Self { len: roots0.len().min(GROUP), index, seeds, hashes: [Blocks::zero(), Blocks::zero()], delta }
    }

    /// Both servers' seeds where the path is.
    pub(super) fn seeds(&self) -> [&Blocks; 2] {
        let [seeds0, seeds1] = &self.seeds;
        [seeds0, seeds1]
    }

    fn hash(&mut self, group: &Group, level: u32) {
        for (seeds, hashes) in self.seeds.iter().zip(&mut self.hashes) {
            group.hash(level, &self.index, self.len, seeds, hashes);
        }
    }

    /// One level: the correction word makes the children beside the path equal and those on it differ by Δ. `turns` are
    /// 1 in the lowest bit where a comparison's path goes right.
    pub(super) fn descend<'w>(
        &mut self,
        group: &Group,
        level: u32,
        turns: impl Iterator<Item = u64>,
        words: impl Iterator<Item = &'w mut [u8; 16]>,
    ) {
        self.hash(group, level);
        let [hashes0, hashes1] = &self.hashes;
        let [seeds0, seeds1] = &mut self.seeds;
        let seeds0 = seeds0.low.iter_mut().zip(&mut seeds0.high).zip(hashes0.low.iter().zip(&hashes0.high));
        let seeds1 = seeds1.low.iter_mut().zip(&mut seeds1.high).zip(hashes1.low.iter().zip(&hashes1.high));
        let delta = self.delta.low.iter().zip(&self.delta.high);
        for (((seed0, seed1), delta), (turn, to)) in seeds0.zip(seeds1).zip(delta).zip(turns.zip(words)) {
            let (((low0, high0), hash0), ((low1, high1), hash1)) = (seed0, seed1);
            let right = spread(turn);
            let word = [hash0.0 ^ hash1.0 ^ (delta.0 & !right), hash0.1 ^ hash1.1 ^ (delta.1 & !right)];
            *to = bytes(word);
            let [low, high] = word;
            let (control0, control1) = (spread(*low0), spread(*low1));
            *low0 = hash0.0 ^ (*low0 & right) ^ (low & control0);
            *high0 = hash0.1 ^ (*high0 & right) ^ (high & control0);
            *low1 = hash1.0 ^ (*low1 & right) ^ (low & control1);
            *high1 = hash1.1 ^ (*high1 & right) ^ (high & control1);
        }
    }

    /// The leaves: the answers 1{r <= x} for all x below the path's end.
    fn end<'w>(&mut self, group: &Group, level: u32, mask: u64, r: &[u64], leaves: impl Iterator<Item = &'w mut [u8]>) {
        self.hash(group, level);
        let [hashes0, hashes1] = &self.hashes;
        let hashes0 = hashes0.low.iter().zip(&hashes0.high);
        let hashes1 = hashes1.low.iter().zip(&hashes1.high);
        for (((hash0, hash1), r), leaf) in hashes0.zip(hashes1).zip(r).zip(leaves) {
            let [low, high] = from(r & mask);
            let word = bytes([hash0.0 ^ hash1.0 ^ low, hash0.1 ^ hash1.1 ^ high]);
            leaf.iter_mut().zip(word).for_each(|(to, byte)| *to = byte);
        }
    }
}

/// One group's comparisons, as one server has them.
struct Key<'a> {
    dpf: &'a Dpf,
    group: Group,
    /// The group's first comparison, of `count`.
    first: usize,
    count: usize,
    /// The group's.
    roots: &'a [u128],
    /// All comparisons'.
    levels: &'a [u8],
    leaves: &'a [u8],
    side: u64,
}

impl<'a> Key<'a> {
    /// From the root to x, for up to [`GROUP`] points; `index` gives each point's comparison within the group, and `gather`
    /// the words of these comparisons out of the group's.
    fn walk<I>(&self, index: &[u8; GROUP], x: &[u64], out: &mut [u8], gather: impl Fn(&'a [[u8; 16]]) -> I)
    where
        I: Iterator<Item = &'a [u8; 16]>,
    {
        let len = x.len().min(GROUP);
        let mut seeds = root(index.iter().filter_map(|i| self.roots.get(usize::from(*i))), self.side);
        let (mut hashes, mut parity) = (Blocks::zero(), [0; GROUP]);
        for (level, words) in (0..).zip(self.levels.chunks_exact(self.count * 16)) {
            self.group.hash(level, index, len, &seeds, &mut hashes);
            let words = gather(words.as_chunks().0.get(self.first..).unwrap_or_default());
            let seeds = seeds.low.iter_mut().zip(&mut seeds.high);
            let lanes = seeds.zip(hashes.low.iter().zip(&hashes.high)).zip(&mut parity);
            for ((((seed, hash), parity), x), word) in lanes.zip(x).zip(words) {
                let (control, word) = (spread(*seed.0), u128::from_le_bytes(*word));
                let low = hash.0 ^ (word as u64 & control);
                let high = hash.1 ^ ((word >> 64) as u64 & control);
                // Where x goes right, the whole left subtree is before it.
                let right = spread(x >> (self.dpf.bits - 1 - level));
                *parity ^= low & right;
                *seed.0 = low ^ (*seed.0 & right);
                *seed.1 = high ^ (*seed.1 & right);
            }
        }
        self.group.hash(self.dpf.levels() as u32, index, len, &seeds, &mut hashes);
        let leaf = self.dpf.leaf_bytes();
        let lanes = seeds.low.iter().zip(hashes.low.iter().zip(&hashes.high)).zip(&parity);
        for ((((control, hash), parity), (index, x)), out) in lanes.zip(index.iter().zip(x)).zip(out) {
            let leaf = self.leaves.chunks_exact(leaf).nth(self.first + usize::from(*index)).unwrap_or_default();
            let (place, control) = (x & self.dpf.mask(), spread(*control));
            let word = leaf.get(place as usize / 8).map_or(0, |byte| u64::from(*byte)) >> (place % 8);
            let hash = if place < 64 { hash.0 >> place } else { hash.1 >> (place - 64) };
            // So far a share of 1{r <= x}; server0 turns it round.
            let share = parity ^ hash ^ (word & control) ^ self.side ^ 1;
            *out = (share & 1) as u8;
        }
        erase(&mut parity);
    }
}

/// Seeds from uniform bits: their control bit is the server's side, so that Δ's lowest bit is 1.
pub(super) fn root<'r>(uniform: impl Iterator<Item = &'r u128>, side: u64) -> Blocks {
    let mut roots = Blocks::zero();
    for ((low, high), uniform) in roots.low.iter_mut().zip(&mut roots.high).zip(uniform) {
        (*low, *high) = (*uniform as u64 & !1 | side, (*uniform >> 64) as u64);
    }
    roots
}

/// 128 places, ones from place `low` (below 128) on. A shift takes the same time by any number of places below 64.
fn from(low: u64) -> [u64; 2] {
    let (ones, beyond) = (u64::MAX << (low & 63), spread(low >> 6));
    [ones & !beyond, ones | !beyond]
}

fn bytes([low, high]: [u64; 2]) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::compare::blocks;
    use crate::compare::hash::HashKind;
    use crate::stream::{Seed, Stream};

    const KINDS: [HashKind; 2] = [HashKind::Aes, HashKind::ChaCha];

    fn stream(salt: u64) -> Stream {
        Seed::new([17; 32]).stream(salt)
    }

    /// Deals and evaluates; every comparison at as many points as there are x for each r. The answers, joined.
    fn run(bits: u32, kind: HashKind, salt: u64, r: &[u64], x: &[u64]) -> Vec<u8> {
        let (dpf, hash) = (Dpf::new(bits).unwrap(), Hash::new(kind, [salt as u8; 16]));
        let mut stream = stream(salt);
        let roots = [blocks(&mut stream, r.len()), blocks(&mut stream, r.len())];
        let words = dpf.deal(&hash, r, &roots[0], &roots[1]).unwrap();
        assert_eq!(words.len(), r.len() * dpf.key_bytes());
        let [y0, y1] = [0, 1].map(|side| dpf.eval(&hash, side, &roots[side], x, &words).unwrap());
        y0.iter().zip(&y1).map(|(a, b)| a ^ b).collect()
    }

    /// All r at all x, one key for each pair and one key for all x; n = 8 and 9 have levels above the leaf.
    #[test]
    fn it_compares_for_every_input() {
        for (bits, kind) in (1..=9).flat_map(|bits| KINDS.map(|kind| (bits, kind))) {
            let all = 0..1u64 << bits;
            let pairs: Vec<[u64; 2]> = all.clone().flat_map(|r| all.clone().map(move |x| [r, x])).collect();
            let ideal: Vec<u8> = pairs.iter().map(|[r, x]| u8::from(x < r)).collect();
            let (each, x): (Vec<u64>, Vec<u64>) = pairs.iter().map(|[r, x]| (*r, *x)).unzip();
            let r: Vec<u64> = all.collect();
            for salt in 0..if bits <= 8 { 2 } else { 1 } {
                assert_eq!(run(bits, kind, salt, &r, &x), ideal, "{bits} bits, {kind:?}, one key for all x");
                if bits <= 8 {
                    assert_eq!(run(bits, kind, salt, &each, &x), ideal, "{bits} bits, {kind:?}");
                }
            }
        }
    }

    /// The same tree down to single answers, without early termination, gives the same answers. The tree below is written
    /// out in the plainest way, one comparison at a time.
    #[test]
    fn early_termination_changes_nothing() {
        let bits = 9;
        for kind in KINDS {
            let mut stream = stream(5);
            let hash = |level: u32, x: u128| {
                let (mut block, mut to) = (Blocks::zero(), Blocks::zero());
                (block.low[0], block.high[0]) = (x as u64, (x >> 64) as u64);
                Hash::new(kind, [5; 16]).group(0).hash(level, &[0; GROUP], 1, &block, &mut to);
                u128::from(to.high[0]) << 64 | u128::from(to.low[0])
            };
            for r in [0u64, 1, 127, 128, 129, 300, 511] {
                let roots = blocks(&mut stream, 2);
                let mut path = [roots[0] & !1, roots[1] | 1];
                let (delta, mut words) = (path[0] ^ path[1], Vec::new());
                for level in 0..bits {
                    let right = r >> (bits - 1 - level) & 1 == 1;
                    let hashes = path.map(|seed| hash(level, seed));
                    let word = hashes[0] ^ hashes[1] ^ if right { 0 } else { delta };
                    for (seed, hash) in path.iter_mut().zip(hashes) {
                        *seed = hash ^ if right { *seed } else { 0 } ^ if *seed & 1 == 1 { word } else { 0 };
                    }
                    words.push(word);
                }
                let full = |mut seed: u128, x: u64| {
                    let mut parity = 0;
                    for (level, word) in (0..bits).zip(&words) {
                        let left = hash(level, seed) ^ if seed & 1 == 1 { *word } else { 0 };
                        if x >> (bits - 1 - level) & 1 == 1 {
                            (parity, seed) = (parity ^ left & 1, left ^ seed);
                        } else {
                            seed = left;
                        }
                    }
                    // The leaf itself: r <= x holds at x = r too.
                    (parity ^ seed & 1) as u8
                };
                let x: Vec<u64> = (0..1 << bits).collect();
                let ends = |x: &u64| 1 ^ full(roots[0] & !1, *x) ^ full(roots[1] | 1, *x);
                let plain: Vec<u8> = x.iter().map(ends).collect();
                assert_eq!(run(bits, kind, 5, &[r], &x), plain, "{kind:?} {r}");
            }
        }
    }

    /// Prefix parity at the widths in use: random points, and those next to r or to it in a prefix.
    #[test]
    fn it_compares_wide_numbers() {
        for (bits, kind) in [31, 39, 63, 64].into_iter().flat_map(|bits| KINDS.map(|kind| (bits, kind))) {
            let mask = u64::MAX >> (64 - bits);
            let random: Vec<u64> = blocks(&mut stream(77), 1500).iter().map(|block| *block as u64 & mask).collect();
            let r: Vec<u64> = random.iter().copied().chain([0, 1, mask, mask - 1, 127, 128]).collect();
            let near = |(i, r): (usize, &u64)| {
                [r.wrapping_add(1) & mask, r.wrapping_sub(1) & mask, *r, r ^ 1 << (i as u32 % bits), random[i % 1500]]
            };
            let x: Vec<u64> = r.iter().enumerate().flat_map(near).collect();
            let ideal: Vec<u8> = x.iter().zip(r.iter().flat_map(|r| [r; 5])).map(|(x, r)| u8::from(x < r)).collect();
            assert_eq!(run(bits, kind, 1, &r, &x), ideal, "{bits} bits, {kind:?}");
            let random = r.iter().map(|r| r.rotate_left(11) & mask).collect::<Vec<_>>();
            let ideal: Vec<u8> = random.iter().zip(&r).map(|(x, r)| u8::from(x < r)).collect();
            assert_eq!(run(bits, kind, 2, &r, &random), ideal, "{bits} bits, {kind:?}, one point");
        }
    }

    /// Key sizes of the literature's table, by the formula.
    #[test]
    fn key_sizes() {
        let sizes = [1, 3, 4, 6, 7, 8, 31, 39, 63].map(|bits| Dpf::new(bits).unwrap().key_bytes());
        assert_eq!(sizes, [1, 1, 2, 8, 16, 32, 400, 528, 912]);
        assert_eq!((Dpf::new(0), Dpf::new(65)), (None, None));
    }

    /// Pearson's statistic of `counts` against a uniform distribution, in standard deviations of its own (Wilson-Hilferty).
    fn deviation(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let chi: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        let (df, rest) = ((counts.len() - 1) as f64, 2.0 / (9.0 * (counts.len() - 1) as f64));
        ((chi / df).cbrt() - (1.0 - rest)) / rest.sqrt()
    }

    /// Correction words, and each server's seeds with them, look uniform, and the same for whatever r: every byte of every
    /// word, its XOR with the root's (which would show a missing hash), and equal bytes between levels. 4.9 deviations are
    /// p = 10⁻⁶, on either side.
    #[test]
    fn words_tell_nothing_of_r() {
        let (bits, count) = (9, 1 << 13);
        let dpf = Dpf::new(bits).unwrap();
        for kind in KINDS {
            for (salt, r) in [0u64, 1, 0x55, 0xff, 0x100, 0x1ff].into_iter().enumerate() {
                let (mut stream, hash) = (stream(90 + salt as u64), Hash::new(kind, [salt as u8; 16]));
                let roots = [blocks(&mut stream, count), blocks(&mut stream, count)];
                let words = dpf.deal(&hash, &alloc::vec![r; count], &roots[0], &roots[1]).unwrap();
                let words = words.as_chunks().0.iter().map(|word| u128::from_le_bytes(*word)).collect::<Vec<_>>();
                let levels: Vec<&[u128]> = words.chunks(count).collect();
                let (first, second, leaf) = (levels[0], levels[1], levels[2]);
                let series: [(&[u128], &[u128]); 9] = [
                    (first, &[0]),
                    (second, &[0]),
                    (leaf, &[0]),
                    (first, &roots[0]),
                    (first, &roots[1]),
                    (first, second),
                    (second, leaf),
                    (leaf, &roots[0]),
                    (leaf, &roots[1]),
                ];
                for (number, (a, b)) in series.into_iter().enumerate() {
                    let mut counts = [0u64; 256];
                    let joined = a.iter().zip(b.iter().cycle()).flat_map(|(a, b)| (a ^ b).to_le_bytes());
                    joined.for_each(|byte| counts[usize::from(byte)] += 1);
                    let far = deviation(&counts);
                    assert!(far.abs() < 4.9, "{kind:?}, r = {r}, series {number}: {far} deviations");
                    let bits = (0..128)
                        .map(|bit| a.iter().zip(b.iter().cycle()).filter(|(a, b)| (*a ^ *b) >> bit & 1 == 1).count());
                    for ones in bits {
                        let far = (ones as f64 - count as f64 / 2.0) / (count as f64 / 4.0).sqrt();
                        // Of 128 bits: 5.9 deviations are p = 10⁻⁶ for all of them together.
                        assert!(far.abs() < 5.9, "{kind:?}, r = {r}, series {number}: a bit is {far} deviations off");
                    }
                }
            }
        }
    }

    /// The statistic sees one frequent byte, a slope, and what is too even to be random.
    #[test]
    fn the_test_sees_what_is_not_uniform() {
        let mut counts = [1000u64; 256];
        assert!(deviation(&counts) < -4.9);
        counts[7] += 1000;
        assert!(deviation(&counts) > 4.9);
        let skewed: Vec<u64> = (0..256).map(|i| 900 + i).collect();
        assert!(deviation(&skewed) > 4.9);
    }

    #[test]
    fn lengths_are_checked_and_empty_batches_work() {
        let (dpf, hash) = (Dpf::new(31).unwrap(), Hash::new(HashKind::Aes, [0; 16]));
        assert!(dpf.deal(&hash, &[], &[], &[]).unwrap().is_empty());
        assert!(dpf.eval(&hash, 0, &[], &[], &[]).unwrap().is_empty());
        assert!(dpf.deal(&hash, &[1], &[2], &[]).is_err());
        assert!(dpf.eval(&hash, 0, &[1, 2], &[1, 2, 3], &[0; 800]).is_err());
        assert!(dpf.eval(&hash, 0, &[1, 2], &[1, 2], &[0; 799]).is_err());
    }
}
