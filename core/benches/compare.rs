//! Time of one comparison, dealt and evaluated: `cargo bench -p selkie --bench compare`.
//!
//! Divan prints items for each second: comparisons.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark may panic")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use selkie::compare::dpf::Dpf;
use selkie::compare::hash::{Hash, HashKind};
use selkie::compare::table::Table;

const COUNT: usize = 1 << 12;
const WIDTHS: [u32; 2] = [31, 63];

fn main() {
    divan::main();
}

/// Numbers of `bits` bits that differ enough (splitmix64).
fn numbers(bits: u32, salt: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |i: u64| {
        let z = (i ^ salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) >> (64 - bits)
    })
}

fn roots(salt: u64) -> Vec<u128> {
    numbers(64, salt).zip(numbers(64, salt + 1)).map(|(a, b)| u128::from(a) << 64 | u128::from(b)).take(COUNT).collect()
}

fn deal_dpf(bencher: Bencher<'_, '_>, kind: HashKind, bits: u32) {
    let (dpf, hash) = (Dpf::new(bits).unwrap(), Hash::new(kind, [1; 16]));
    let (r, roots0, roots1): (Vec<u64>, _, _) = (numbers(bits, 9).take(COUNT).collect(), roots(1), roots(3));
    bencher.counter(ItemsCount::new(COUNT)).bench(|| dpf.deal(&hash, black_box(&r), &roots0, &roots1).unwrap());
}

fn eval_dpf(bencher: Bencher<'_, '_>, kind: HashKind, bits: u32) {
    let (dpf, hash) = (Dpf::new(bits).unwrap(), Hash::new(kind, [1; 16]));
    let (r, roots0, roots1): (Vec<u64>, _, _) = (numbers(bits, 9).take(COUNT).collect(), roots(1), roots(3));
    let words = dpf.deal(&hash, &r, &roots0, &roots1).unwrap();
    let x: Vec<u64> = numbers(bits, 10).take(COUNT).collect();
    bencher.counter(ItemsCount::new(COUNT)).bench(|| dpf.eval(&hash, 1, &roots1, black_box(&x), &words).unwrap());
}

#[divan::bench(args = WIDTHS)]
fn aes_deal(bencher: Bencher<'_, '_>, bits: u32) {
    deal_dpf(bencher, HashKind::Aes, bits);
}

#[divan::bench(args = WIDTHS)]
fn aes_eval(bencher: Bencher<'_, '_>, bits: u32) {
    eval_dpf(bencher, HashKind::Aes, bits);
}

#[divan::bench(args = WIDTHS)]
fn chacha_deal(bencher: Bencher<'_, '_>, bits: u32) {
    deal_dpf(bencher, HashKind::ChaCha, bits);
}

#[divan::bench(args = WIDTHS)]
fn chacha_eval(bencher: Bencher<'_, '_>, bits: u32) {
    eval_dpf(bencher, HashKind::ChaCha, bits);
}

fn share(table: &Table) -> Vec<u8> {
    numbers(64, 5).flat_map(u64::to_le_bytes).take(COUNT * table.share_bytes()).collect()
}

#[divan::bench(args = WIDTHS)]
fn table_deal(bencher: Bencher<'_, '_>, bits: u32) {
    let table = Table::new(bits).unwrap();
    let (r, masks): (Vec<u64>, Vec<u32>) = numbers(bits, 9).zip(numbers(32, 8).map(|m| m as u32)).take(COUNT).unzip();
    let share = share(&table);
    bencher.counter(ItemsCount::new(COUNT)).bench(|| table.deal(black_box(&r), &masks, &share).unwrap());
}

#[divan::bench(args = WIDTHS)]
fn table_look_up(bencher: Bencher<'_, '_>, bits: u32) {
    let table = Table::new(bits).unwrap();
    let (x, share): (Vec<u64>, _) = (numbers(bits, 9).take(COUNT).collect(), share(&table));
    bencher.counter(ItemsCount::new(COUNT)).bench(|| table.look_up(black_box(&x), &share).unwrap());
}

#[divan::bench(args = WIDTHS)]
fn table_combine(bencher: Bencher<'_, '_>, bits: u32) {
    let table = Table::new(bits).unwrap();
    let (opened, share): (Vec<u32>, _) = (numbers(32, 9).map(|o| o as u32).take(COUNT).collect(), share(&table));
    bencher.counter(ItemsCount::new(COUNT)).bench(|| table.combine(black_box(&opened), &share).unwrap());
}
