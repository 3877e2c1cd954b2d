//! The inner kernel of all products: some rows times one panel.
//!
//! A panel is a block of the right operand, at most [`DEPTH`] rows of [`LANES`] columns, copied together so that it stays
//! in the first cache while every row of the left operand passes by it (Goto and van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008). Sums start from what they are added to and grow in the order of the
//! definition, so that f32 results are the same on every machine too.

use super::Scalar;
pub(super) use super::simd::LANES;
use super::simd::Vector;

/// Rows of a panel at most: 32 KiB of u64.
pub(super) const DEPTH: usize = 256;

/// Where a panel belongs: its first row and column in the right operand, and how many of its columns count.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) width: usize,
}

/// to\[n, columns\] += a\[n, inputs\] · the panel, in the panel's columns.
#[inline(always)]
pub(super) fn multiply<T: Scalar, V: Vector<T>, const ROWS: usize>(
    a: &[T],
    inputs: usize,
    panel: &[[T; LANES]],
    place: Place,
    to: &mut [T],
    columns: usize,
) {
    for (a, to) in a.chunks(ROWS * inputs).zip(to.chunks_mut(ROWS * columns)) {
        if to.len() == ROWS * columns {
            tile::<T, V, ROWS>(a, inputs, panel, place, to, columns);
            continue;
        }
        for (a, to) in a.chunks(2 * inputs).zip(to.chunks_mut(2 * columns)) {
            if to.len() == 2 * columns {
                tile::<T, V, 2>(a, inputs, panel, place, to, columns);
            } else {
                tile::<T, V, 1>(a, inputs, panel, place, to, columns);
            }
        }
    }
}

/// [`multiply`] for exactly `ROWS` rows, whose sums stay in registers.
#[inline(always)]
fn tile<T: Scalar, V: Vector<T>, const ROWS: usize>(
    a: &[T],
    inputs: usize,
    panel: &[[T; LANES]],
    place: Place,
    to: &mut [T],
    columns: usize,
) {
    let mut factors: [&[T]; ROWS] = [&[]; ROWS];
    let mut sums = [V::load(&[T::default(); LANES]); ROWS];
    let depth = panel.len();
    let own = place.column..place.column + place.width;
    for (((factors, sum), a), to) in factors.iter_mut().zip(&mut sums).zip(a.chunks(inputs)).zip(to.chunks(columns)) {
        // Returning here tells the compiler that every slice is as long as the panel: no index below needs a check.
        let Some(row) = a.get(place.row..).and_then(|row| row.get(..depth)) else { return };
        *factors = row;
        *sum = V::load(&lanes(to.get(own.clone()).unwrap_or_default()));
    }
    for k in 0..depth {
        let Some(lanes) = panel.get(k) else { return };
        let lanes = V::load(lanes);
        for (sum, factors) in sums.iter_mut().zip(&factors) {
            let Some(factor) = factors.get(k) else { return };
            *sum = sum.add_product(*factor, lanes);
        }
    }
    for (sum, to) in sums.into_iter().zip(to.chunks_mut(columns)) {
        let to = to.get_mut(own.clone()).unwrap_or_default();
        match to.first_chunk_mut() {
            Some(whole) => sum.store(whole),
            None => {
                let mut some = [T::default(); LANES];
                sum.store(&mut some);
                to.iter_mut().zip(some).for_each(|(to, lane)| *to = lane);
            }
        }
    }
}

/// Up to [`LANES`] elements, and zeros; a whole vector in one piece.
#[inline(always)]
pub(super) fn lanes<T: Scalar>(from: &[T]) -> [T; LANES] {
    from.first_chunk().copied().unwrap_or_else(|| {
        let mut lanes = [T::default(); LANES];
        lanes.iter_mut().zip(from).for_each(|(lane, from)| *lane = *from);
        lanes
    })
}
