//! Streams and packing: `cargo bench -p selkie --features bench --bench streams`. Bytes are those of the elements in their
//! lanes.
#![allow(missing_docs, reason = "a program")]

use divan::Bencher;
use divan::counter::BytesCount;
use selkie::{Seed, bench};

fn main() {
    divan::main();
}

const ELEMENTS: usize = 100_352;

macro_rules! rings {
    ($($name:ident: $lane:ty, $bits:literal;)*) => {
        $(#[divan::bench_group]
        mod $name {
            use super::*;

            fn elements() -> Vec<$lane> {
                let mut elements = vec![0; ELEMENTS];
                bench::fill::<$lane>(&Seed::new([1; 32]), $bits, &mut elements);
                elements
            }

            #[divan::bench(args = [16, ELEMENTS])]
            fn fill(bencher: Bencher<'_, '_>, count: usize) {
                let (seed, mut out) = (Seed::new([1; 32]), vec![0; count]);
                bencher
                    .counter(BytesCount::of_many::<$lane>(count))
                    .bench_local(|| bench::fill::<$lane>(&seed, $bits, divan::black_box(&mut out)));
            }

            #[divan::bench]
            fn pack(bencher: Bencher<'_, '_>) {
                let (elements, mut to) = (elements(), Vec::new());
                bencher.counter(BytesCount::of_many::<$lane>(ELEMENTS)).bench_local(|| {
                    to.clear();
                    bench::pack::<$lane>(divan::black_box(&elements), $bits, &mut to);
                    divan::black_box(&to);
                });
            }

            #[divan::bench]
            fn unpack(bencher: Bencher<'_, '_>) {
                let mut bytes = Vec::new();
                bench::pack::<$lane>(&elements(), $bits, &mut bytes);
                bencher
                    .counter(BytesCount::of_many::<$lane>(ELEMENTS))
                    .bench_local(|| bench::unpack::<$lane>(divan::black_box(&bytes), $bits, ELEMENTS));
            }
        })*
    };
}

rings! {
    ring_20: u32, 20;
    ring_32: u32, 32;
    ring_40: u64, 40;
    ring_64: u64, 64;
}

#[divan::bench]
fn pack_bits(bencher: Bencher<'_, '_>) {
    let (elements, mut to) = (vec![1; ELEMENTS], Vec::new());
    bencher.counter(BytesCount::of_many::<u8>(ELEMENTS)).bench_local(|| {
        to.clear();
        bench::pack_bits(divan::black_box(&elements), &mut to);
        divan::black_box(&to);
    });
}

#[divan::bench]
fn unpack_bits(bencher: Bencher<'_, '_>) {
    let bytes = vec![0xa5; ELEMENTS / 8];
    bencher
        .counter(BytesCount::of_many::<u8>(ELEMENTS))
        .bench_local(|| bench::unpack_bits(divan::black_box(&bytes), ELEMENTS));
}
