//! 1{x < r} from dealt tables: no hash, no tree, one opening of a few bits.
//!
//! x and r are cut into q blocks. For block j the crypto producer shares two tables over all values v of x's block,
//! 1{v < r_j} ⊕ μ_j and 1{v = r_j} ⊕ ν_j: one-time truth tables (Ishai, Kushilevitz, Meldgaard, Orlandi, Paskin-Cherniavsky,
//! TCC 2013; TinyTable, Damgård, Nielsen, Nielsen, Ranellucci, CRYPTO 2017), masked at the output instead of the input, for
//! x's masking was done when its wire was. The servers open what stands at x's blocks, o_j and e_j, and so know
//!
//! ```text
//! 1{x < r} = ⊕_j (o_j ⊕ μ_j) Π_{i>j} (e_i ⊕ ν_i) = ⊕_j ⊕_{S ⊆ {i > j}} (Π_{i>j, i∉S} e_i) (o_j ν_S ⊕ μ_j ν_S),    ν_S = Π_{i∈S} ν_i
//! ```
//!
//! up to the monomials ν_S and μ_j ν_S, of which they were dealt XOR-shares. The lowest block needs no table of
//! equality, and every ν_S serves all j: 2^q − 1 and 2^(q−1) monomials (with ν_∅ = 1, shared like the others).
//!
//! Each server sees shares and masked bits: uniform, whatever r is, as long as **every table is opened at one place only**.
//! Two openings of one table tell whether r's block lies between them. server0's share comes from a seed, server1 is sent
//! the difference.

use alloc::format;
use alloc::vec::Vec;

use zeroize::Zeroize;

use super::spread;
use crate::error::Blame;

/// The most blocks: 2^(q-1) monomials fit [`Subsets`].
const MOST: u32 = 10;

/// The widest block.
const WIDEST: u32 = 10;

/// One bit for each subset of the blocks above some block j; the highest block is the lowest bit of a subset's place.
type Subsets = [u64; 8];

/// Comparisons of numbers of one width, cut into blocks, of which block 0 is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    bits: u32,
    blocks: u32,
    /// The width of block 0; the others share the rest as evenly as they can.
    lowest: u32,
}

impl Table {
    /// The cut of `bits` bits, 1 to 64, for which the fewest bytes are dealt, and of those the one that opens the fewest bits.
    pub fn new(bits: u32) -> Option<Self> {
        let cuts = (1..=MOST).flat_map(|blocks| (1..=WIDEST).map(move |lowest| (blocks, lowest)));
        let tables = cuts.filter_map(|(blocks, lowest)| Self::cut(bits, blocks, lowest));
        tables.min_by_key(|table| (table.share_bytes(), table.blocks, table.share_bits()))
    }

    /// `bits` bits in `blocks` blocks, the lowest of `lowest` bits; `None` where there are no such blocks of 1 to 10 bits.
    pub fn cut(bits: u32, blocks: u32, lowest: u32) -> Option<Self> {
        let others = blocks.checked_sub(1)?;
        let rest = bits.checked_sub(lowest)?;
        let even = if others == 0 { rest == 0 } else { (others..=others * WIDEST).contains(&rest) };
        let fits = blocks <= MOST && (1..=WIDEST).contains(&lowest) && bits <= 64 && even;
        fits.then_some(Self { bits, blocks, lowest })
    }

    /// The blocks, from the lowest.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The blocks' widths, from the lowest.
    fn widths(&self) -> impl Iterator<Item = u32> + use<> {
        let (others, rest) = ((self.blocks - 1).max(1), self.bits - self.lowest);
        let (narrow, wider) = (rest / others, rest % others);
        core::iter::once(self.lowest).chain((0..self.blocks - 1).map(move |i| narrow + u32::from(i < wider)))
    }

    /// Bits that the crypto producer shares for one comparison.
    pub fn share_bits(&self) -> usize {
        let tables = self.widths().enumerate().map(|(j, width)| (1 + usize::from(j > 0)) << width);
        (3 << (self.blocks - 1)) + tables.sum::<usize>()
    }

    /// The same in whole bytes: what server1 is sent for one comparison.
    pub fn share_bytes(&self) -> usize {
        self.share_bits().div_ceil(8)
    }

    /// Bits that each server opens for one comparison, and mask bits that its dealing takes.
    pub fn opened_bits(&self) -> u32 {
        2 * self.blocks - 1
    }

    /// server1's share, from r in clear (each below 2^bits), the producer's own uniform mask bits ([`Table::opened_bits`]
    /// of each element are used) and server0's share, which is uniform.
    ///
    /// No branch and no address depends on r or the masks.
    ///
    /// # Errors
    /// A bug: masks or share are not those of as many comparisons.
    pub fn deal(&self, r: &[u64], masks: &[u32], share0: &[u8]) -> Result<Vec<u8>, Blame> {
        if masks.len() != r.len() || share0.len() != r.len() * self.share_bytes() {
            return Err(Blame::bug(format!("{} comparisons, {} masks, {} bytes", r.len(), masks.len(), share0.len())));
        }
        let mut share1 = share0.to_vec();
        let mut secret = alloc::vec![0; self.share_bits().div_ceil(64)];
        for ((r, mask), share) in r.iter().zip(masks).zip(share1.chunks_exact_mut(self.share_bytes())) {
            secret.fill(0);
            self.write(*r, *mask, &mut secret);
            for (bytes, word) in share.chunks_mut(8).zip(&secret) {
                bytes.iter_mut().zip(word.to_le_bytes()).for_each(|(byte, secret)| *byte ^= secret);
            }
        }
        secret.zeroize();
        Ok(share1)
    }

    /// What one comparison's shares add up to, over zeros: 2^q bits for μ_j ν_S, in the order of their number of subsets,
    /// 2^(q-1) for ν_S, the tables.
    fn write(&self, r: u64, mask: u32, to: &mut [u64]) {
        let (mu, nu) = (u64::from(mask), u64::from(mask) >> self.blocks << 1);
        let (mut at, mut shift) = (3 << (self.blocks - 1), 0);
        for (j, width) in (0..).zip(self.widths()) {
            let (r, size) = (r >> shift & ((1 << width) - 1), 1 << width);
            let (mu, nu) = (spread(mu >> j), spread(nu >> j));
            for (base, len) in (0..size).step_by(64).map(|base| (base, (size - base).min(64))) {
                // Whether r lies beyond this word, or in it.
                let (word, here) = (base as u64 >> 6, r >> 6);
                let (beyond, inside) = (spread(word.wrapping_sub(here) >> 63), !nonzero(word ^ here));
                let bit = 1u64 << (r & 63);
                put(to, at + base, (beyond | inside & (bit - 1)) ^ mu, len);
                if j > 0 {
                    put(to, at + size + base, (inside & bit) ^ nu, len);
                }
            }
            (at, shift) = (at + (size << usize::from(j > 0)), shift + width);
        }
        let mut subsets: Subsets = [1, 0, 0, 0, 0, 0, 0, 0];
        for above in 0..self.blocks {
            let (j, len) = (self.blocks - 1 - above, 1usize << above);
            for (i, word) in subsets.iter().enumerate().take(len.div_ceil(64)) {
                put(to, len + 64 * i, word & spread(mu >> j), len.min(64));
                if j == 0 {
                    put(to, (1 << self.blocks) + 64 * i, *word, len.min(64));
                }
            }
            double(&mut subsets, above, u64::MAX, spread(nu >> j));
        }
        subsets.zeroize();
    }

    /// The first step: this server's share of the bits to open for each comparison, [`Table::opened_bits`] in each element.
    /// Both servers' XOR is what [`Table::combine`] takes. Never twice from one share.
    ///
    /// # Errors
    /// A bug: the share is not that of as many comparisons.
    pub fn look_up(&self, x: &[u64], share: &[u8]) -> Result<Vec<u32>, Blame> {
        self.check(x.len(), share)?;
        let bit = |share: &[u8], at: usize| share.get(at / 8).map_or(0, |byte| u32::from(byte >> (at % 8) & 1));
        let one = |(x, share): (&u64, &[u8])| {
            let (mut at, mut shift, mut opened) = (3 << (self.blocks - 1), 0, 0);
            for (j, width) in (0..).zip(self.widths()) {
                let place = (x >> shift) as usize & ((1 << width) - 1);
                opened |= bit(share, at + place) << j;
                at += 1 << width;
                if j > 0 {
                    opened |= bit(share, at + place) << (self.blocks + j - 1);
                    at += 1 << width;
                }
                shift += width;
            }
            opened
        };
        Ok(x.iter().zip(share.chunks_exact(self.share_bytes())).map(one).collect())
    }

    /// The second step: this server's XOR-shares of 1{x < r}.
    ///
    /// # Errors
    /// A bug: the share is not that of as many comparisons.
    pub fn combine(&self, opened: &[u32], share: &[u8]) -> Result<Vec<u8>, Blame> {
        self.check(opened.len(), share)?;
        let shares = share.chunks_exact(self.share_bytes());
        Ok(opened.iter().zip(shares).map(|(opened, share)| self.combine_one(*opened, share)).collect())
    }

    fn combine_one(&self, opened: u32, share: &[u8]) -> u8 {
        let (o, e) = (u64::from(opened), u64::from(opened) >> self.blocks << 1);
        // Π e_i over the blocks above j that are not in S, for all S.
        let mut products: Subsets = [1, 0, 0, 0, 0, 0, 0, 0];
        let mut sum = 0;
        for above in 0..self.blocks {
            let (j, len) = (self.blocks - 1 - above, 1usize << above);
            for (i, product) in products.iter().enumerate().take(len.div_ceil(64)) {
                let (mu_nu, nu) = (get(share, len + 64 * i), get(share, (1 << self.blocks) + 64 * i));
                sum ^= product & (spread(o >> j) & nu ^ mu_nu);
            }
            double(&mut products, above, spread(e >> j), u64::MAX);
        }
        (sum.count_ones() & 1) as u8
    }

    fn check(&self, count: usize, share: &[u8]) -> Result<(), Blame> {
        let right = share.len() == count * self.share_bytes();
        right.then_some(()).ok_or_else(|| Blame::bug(format!("{count} comparisons, a share of {} bytes", share.len())))
    }
}

/// All ones where x is not 0.
fn nonzero(x: u64) -> u64 {
    spread((x | x.wrapping_neg()) >> 63)
}

/// From 2^above subsets to twice as many: those without the next block times `without`, those with it times `with`.
#[inline]
fn double(subsets: &mut Subsets, above: u32, without: u64, with: u64) {
    if above < 6 {
        let [first, ..] = subsets;
        *first = *first & without | (*first & with) << (1 << above);
    } else if let Some((low, high)) = subsets.split_at_mut_checked(1 << (above - 6)) {
        for (low, high) in low.iter_mut().zip(high) {
            (*low, *high) = (*low & without, *low & with);
        }
    }
}

/// Writes the lowest `len` bits (1 to 64) of `value` over zeros from place `at` on.
#[inline]
fn put(to: &mut [u64], at: usize, value: u64, len: usize) {
    let value = u128::from(value & u64::MAX >> (64 - len)) << (at % 64);
    let halves = [value as u64, (value >> 64) as u64];
    to.iter_mut().skip(at / 64).zip(halves).for_each(|(word, half)| *word |= half);
}

/// 64 bits from place `at` on, zeros beyond the end.
#[inline]
fn get(from: &[u8], at: usize) -> u64 {
    let rest = from.get(at / 8..).unwrap_or_default();
    let word = match rest.first_chunk() {
        Some(word) => u128::from_le_bytes(*word),
        None => rest.iter().rev().fold(0, |word, byte| word << 8 | u128::from(*byte)),
    };
    (word >> (at % 8)) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test may panic")]
    use super::*;
    use crate::stream::{Seed, Source, Stream};
    use alloc::collections::BTreeMap;

    fn stream(salt: u64) -> Stream {
        Seed::new([19; 32]).stream(salt)
    }

    fn bytes(stream: &mut Stream, count: usize) -> Vec<u8> {
        let mut bytes = alloc::vec![0; count];
        stream.bytes(&mut bytes);
        bytes
    }

    fn masks(stream: &mut Stream, count: usize) -> Vec<u32> {
        bytes(stream, 4 * count).as_chunks().0.iter().map(|mask| u32::from_le_bytes(*mask)).collect()
    }

    fn join<T: Copy + core::ops::BitXor<Output = T>>(shares: [Vec<T>; 2]) -> Vec<T> {
        shares[0].iter().zip(&shares[1]).map(|(a, b)| *a ^ *b).collect()
    }

    fn run(table: &Table, salt: u64, r: &[u64], x: &[u64]) -> Vec<u8> {
        let mut stream = stream(salt);
        let masks = masks(&mut stream, r.len());
        let share0 = bytes(&mut stream, r.len() * table.share_bytes());
        let share1 = table.deal(r, &masks, &share0).unwrap();
        let shares = [share0, share1];
        let opened = join([0, 1].map(|side| table.look_up(x, &shares[side]).unwrap()));
        assert!(opened.iter().all(|opened| opened >> table.opened_bits() == 0));
        join([0, 1].map(|side| table.combine(&opened, &shares[side]).unwrap()))
    }

    fn cuts(bits: u32) -> impl Iterator<Item = Table> {
        let cuts = (0..=MOST + 1).flat_map(|blocks| (0..=WIDEST + 1).map(move |lowest| (blocks, lowest)));
        cuts.filter_map(move |(blocks, lowest)| Table::cut(bits, blocks, lowest))
    }

    /// Every cut of up to 8 bits, all r, all x.
    #[test]
    fn it_compares_for_every_input() {
        for (bits, table) in (1..=8).flat_map(|bits| cuts(bits).map(move |table| (bits, table))) {
            assert_eq!(table.widths().sum::<u32>(), bits, "{table:?}");
            let all = 0..1u64 << bits;
            let (r, x): (Vec<u64>, Vec<u64>) = all.clone().flat_map(|r| all.clone().map(move |x| (r, x))).unzip();
            let ideal: Vec<u8> = r.iter().zip(&x).map(|(r, x)| u8::from(x < r)).collect();
            for salt in 0..2 {
                assert_eq!(run(&table, salt, &r, &x), ideal, "{table:?}");
            }
        }
    }

    /// Wide numbers, every cut: random ones, and those that agree with r in all but one block or bit.
    #[test]
    fn it_compares_wide_numbers() {
        for bits in [9, 10, 20, 31, 39, 63, 64] {
            let mask = u64::MAX >> (64 - bits);
            let random = bytes(&mut stream(3), 8 * 40)
                .as_chunks()
                .0
                .iter()
                .map(|r| u64::from_le_bytes(*r) & mask)
                .collect::<Vec<_>>();
            let random: Vec<u64> = random.into_iter().chain([0, 1, mask, mask - 1]).collect();
            let near = |(i, r): (usize, &u64)| {
                [*r, r.wrapping_add(1) & mask, r.wrapping_sub(1) & mask, r ^ 1 << (i as u32 % bits), random[i / 2]]
            };
            let x: Vec<u64> = random.iter().enumerate().flat_map(near).collect();
            let r: Vec<u64> = random.iter().flat_map(|r| [*r; 5]).collect();
            let ideal: Vec<u8> = r.iter().zip(&x).map(|(r, x)| u8::from(x < r)).collect();
            for table in cuts(bits) {
                assert_eq!(run(&table, 7, &r, &x), ideal, "{table:?}");
            }
            assert!(cuts(bits).all(|table| table.share_bytes() >= Table::new(bits).unwrap().share_bytes()));
        }
    }

    /// Bytes and opened bits at the widths in use. Only widths from 1 to 64 have a cut.
    #[test]
    fn sizes() {
        let size = |bits| Table::new(bits).map(|table| (table.share_bits(), table.share_bytes(), table.opened_bits()));
        assert_eq!([31, 39, 63].map(|bits| size(bits).unwrap()), [(480, 60, 11), (832, 104, 13), (2944, 368, 17)]);
        assert!((1..=64).all(|bits| size(bits).is_some()));
        assert_eq!((size(0), size(65)), (None, None));
    }

    type View = (Vec<u8>, Vec<u32>);

    /// Everything that server `side` sees, its share and what is opened at each of `places`, over all randomness.
    fn views(
        table: &Table,
        side: usize,
        r: u64,
        places: &[u64],
        masks: impl Iterator<Item = u32>,
    ) -> BTreeMap<View, u32> {
        let mut views = BTreeMap::new();
        for mask in masks {
            for share in 0..1u32 << table.share_bits() {
                let share0 = &share.to_le_bytes()[..table.share_bytes()];
                let share1 = table.deal(&[r], &[mask], share0).unwrap();
                let open = |x: &u64| {
                    let [a, b] = [share0, &share1].map(|share| table.look_up(&[*x], share).unwrap()[0]);
                    a ^ b
                };
                let own = if side == 0 { share0.to_vec() } else { share1.clone() };
                *views.entry((own, places.iter().map(open).collect())).or_default() += 1;
            }
        }
        views
    }

    /// What either server sees is uniform, the same for all r; and the two mutants, masks left out and a table opened at
    /// two places, are not.
    #[test]
    fn views_are_equal_for_all_r() {
        let table = Table::cut(2, 2, 1).unwrap();
        let all = || 0..1u32 << table.opened_bits();
        for side in [0, 1] {
            let alike = |places: &[u64], masks: &dyn Fn() -> core::ops::Range<u32>| {
                let [first, rest @ ..] = [0, 1, 2, 3].map(|r| views(&table, side, r, places, masks()));
                rest.iter().all(|views| *views == first)
            };
            for x in 0..4 {
                assert!(alike(&[x], &all), "server{side} at {x}");
                let seen = views(&table, side, 2, &[x], all());
                assert_eq!(seen.len(), 1 << (table.share_bits() + table.opened_bits() as usize), "every view occurs");
                assert!(seen.values().all(|count| *count == 1), "equally often");
            }
            assert!(!alike(&[1], &|| 0..1), "masks left out, server{side}");
            assert!(!alike(&[1, 2], &all), "two openings, server{side}");
        }
    }

    #[test]
    fn lengths_are_checked_and_empty_batches_work() {
        let table = Table::new(31).unwrap();
        assert!(table.deal(&[], &[], &[]).unwrap().is_empty());
        assert!(table.look_up(&[], &[]).unwrap().is_empty() && table.combine(&[], &[]).unwrap().is_empty());
        let share = alloc::vec![0; table.share_bytes()];
        assert!(table.deal(&[1], &[], &share).is_err() && table.deal(&[1], &[1], &share[1..]).is_err());
        assert!(table.look_up(&[1, 2], &share).is_err() && table.combine(&[], &share).is_err());
    }
}
