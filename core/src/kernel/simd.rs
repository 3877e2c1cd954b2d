//! Which vector instructions a kernel is compiled for, found at run time.
//!
//! A kernel is written once, over a vector type. It is compiled for every [`Level`], inlined into a function that enables
//! the level's instructions, with the level's vectors: plain arrays at the lowest level, which is the reference, and
//! intrinsics where the compiler does not keep an array of sums in registers. The results do not depend on the level.
#![allow(unsafe_code, reason = "vector instructions; a Level exists only for those that were found on this machine")]

use super::Scalar;

/// Lanes of a vector: one register of AVX-512 for u32, two for u64.
pub(super) const LANES: usize = 16;

/// [`LANES`] elements at once. The types of a level are named by [`Level::run`] alone, where its instructions are known to
/// exist.
#[cfg_attr(not(target_arch = "x86_64"), allow(unreachable_pub, reason = "only x86-64 has levels to choose from"))]
pub trait Vector<T>: Copy {
    /// The elements of an array.
    fn load(from: &[T; LANES]) -> Self;
    /// Writes the elements.
    fn store(self, to: &mut [T; LANES]);
    /// Every lane plus factor · the same lane of `other`.
    #[must_use]
    fn add_product(self, factor: T, other: Self) -> Self;
}

/// The vectors of an element type, by level.
pub trait Vectors: Sized {
    /// With AVX2.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Self>;
    /// With AVX-512.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Self>;
}

impl<T: Scalar> Vector<T> for [T; LANES] {
    #[inline(always)]
    fn load(from: &[T; LANES]) -> Self {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut [T; LANES]) {
        *to = self;
    }

    #[inline(always)]
    fn add_product(mut self, factor: T, other: Self) -> Self {
        for (sum, lane) in self.iter_mut().zip(other) {
            *sum = sum.add_product(factor, lane);
        }
        self
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl<T> Vectors for T {}

/// A kernel: what is to be computed, and on what.
pub(super) trait Work<T: Scalar> {
    /// Computes it, keeping `ROWS` vectors of sums in registers where it multiplies with panels.
    fn run<V: Vector<T>, const ROWS: usize>(self);
}

/// Vector instructions that this machine has: there is no value of this type for any others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// What every machine of the target has: SSE2 on x86-64, simd128 in WebAssembly where the build enables it.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this machine has.
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if has_avx512::get() {
                return Level(Instructions::Avx512);
            }
            if has_avx2::get() {
                return Level(Instructions::Avx2);
            }
        }
        Level(Instructions::Baseline)
    }

    /// All that this machine has, the reference first.
    #[cfg(test)]
    pub(super) fn all() -> alloc::vec::Vec<Self> {
        let mut all = alloc::vec![Level(Instructions::Baseline)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(has_avx2::get().then_some(Level(Instructions::Avx2)));
            all.extend(has_avx512::get().then_some(Level(Instructions::Avx512)));
        }
        all
    }

    /// Computes `work` with these instructions.
    pub(super) fn run<T: Scalar>(self, work: impl Work<T>) {
        match self.0 {
            Instructions::Baseline => work.run::<[T; LANES], 4>(),
            // SAFETY: the value exists, so the machine has the instructions.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { x86::avx2(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => unsafe { x86::avx512(work) },
        }
    }
}

#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_avx2, "avx2");
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_avx512, "avx2", "avx512f", "avx512dq");

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    use super::{LANES, Scalar, Vector, Vectors, Work};

    #[target_feature(enable = "avx2")]
    pub(super) fn avx2<T: Scalar>(work: impl Work<T>) {
        work.run::<T::Avx2, 4>();
    }

    #[target_feature(enable = "avx2,avx512f,avx512dq")]
    pub(super) fn avx512<T: Scalar>(work: impl Work<T>) {
        work.run::<T::Avx512, 8>();
    }

    /// Registers that together hold the lanes of `T`.
    #[derive(Clone, Copy)]
    pub struct Avx2<R, const REGISTERS: usize>([R; REGISTERS]);

    /// Registers that together hold the lanes of `T`.
    #[derive(Clone, Copy)]
    pub struct Avx512<R, const REGISTERS: usize>([R; REGISTERS]);

    // SAFETY, of every block below: `Level::run` alone names the type, where the machine was found to have its
    // instructions; and the registers together are as large as the array that they are read from or written to.
    macro_rules! vector {
        ($level:ident, $scalar:ty, $register:ty, $registers:literal,
         |$at:ident| $load:expr, |$to:ident, $register_:ident| $store:expr, |$factor:ident| $splat:expr,
         |$sum:ident, $a:ident, $b:ident| $add_product:expr) => {
            impl Vector<$scalar> for $level<$register, $registers> {
                #[inline(always)]
                fn load(from: &[$scalar; LANES]) -> Self {
                    let mut $at = from.as_ptr().cast::<$register>();
                    let mut registers = [unsafe { $load }; $registers];
                    for register in registers.iter_mut().skip(1) {
                        $at = unsafe { $at.add(1) };
                        *register = unsafe { $load };
                    }
                    Self(registers)
                }

                #[inline(always)]
                fn store(self, to: &mut [$scalar; LANES]) {
                    let start = to.as_mut_ptr().cast::<$register>();
                    for (i, $register_) in self.0.into_iter().enumerate() {
                        let $to = unsafe { start.add(i) };
                        unsafe { $store };
                    }
                }

                #[inline(always)]
                fn add_product(mut self, $factor: $scalar, other: Self) -> Self {
                    let $a = unsafe { $splat };
                    for (sum, $b) in self.0.iter_mut().zip(other.0) {
                        let $sum = *sum;
                        *sum = unsafe { $add_product };
                    }
                    self
                }
            }
            const _: () = assert!(size_of::<[$register; $registers]>() == size_of::<[$scalar; LANES]>());
        };
    }

    macro_rules! vectors {
        ($($scalar:ty: $narrow:ty, $wide:ty;)*) => {
            $(impl Vectors for $scalar {
                type Avx2 = $narrow;
                type Avx512 = $wide;
            })*
        };
    }

    vectors! {
        u32: Avx2<__m256i, 2>, Avx512<__m512i, 1>;
        u64: Avx2<__m256i, 4>, Avx512<__m512i, 2>;
        f32: Avx2<__m256, 2>, Avx512<__m512, 1>;
    }

    vector!(
        Avx2,
        u32,
        __m256i,
        2,
        |at| _mm256_loadu_si256(at),
        |at, register| _mm256_storeu_si256(at, register),
        |factor| _mm256_set1_epi32(factor as i32),
        |sum, a, b| _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b))
    );
    // a·b = a0·b0 + 2^32 (a1·b0 + a0·b1), the halves' products of 64 bits each: AVX2 has no wider ones.
    vector!(
        Avx2,
        u64,
        __m256i,
        4,
        |at| _mm256_loadu_si256(at),
        |at, register| _mm256_storeu_si256(at, register),
        |factor| _mm256_set1_epi64x(factor as i64),
        |sum, a, b| {
            let crossed = _mm256_add_epi64(
                _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), b),
                _mm256_mul_epu32(a, _mm256_srli_epi64::<32>(b)),
            );
            _mm256_add_epi64(_mm256_add_epi64(sum, _mm256_mul_epu32(a, b)), _mm256_slli_epi64::<32>(crossed))
        }
    );
    vector!(
        Avx2,
        f32,
        __m256,
        2,
        |at| _mm256_loadu_ps(at.cast()),
        |at, register| _mm256_storeu_ps(at.cast(), register),
        |factor| _mm256_set1_ps(factor),
        |sum, a, b| _mm256_add_ps(sum, _mm256_mul_ps(a, b))
    );
    vector!(
        Avx512,
        u32,
        __m512i,
        1,
        |at| _mm512_loadu_si512(at),
        |at, register| _mm512_storeu_si512(at, register),
        |factor| _mm512_set1_epi32(factor as i32),
        |sum, a, b| _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b))
    );
    vector!(
        Avx512,
        u64,
        __m512i,
        2,
        |at| _mm512_loadu_si512(at),
        |at, register| _mm512_storeu_si512(at, register),
        |factor| _mm512_set1_epi64(factor as i64),
        |sum, a, b| _mm512_add_epi64(sum, _mm512_mullo_epi64(a, b))
    );
    vector!(
        Avx512,
        f32,
        __m512,
        1,
        |at| _mm512_loadu_ps(at.cast()),
        |at, register| _mm512_storeu_ps(at.cast(), register),
        |factor| _mm512_set1_ps(factor),
        |sum, a, b| _mm512_add_ps(sum, _mm512_mul_ps(a, b))
    );
}
