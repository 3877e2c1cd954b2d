//! From a drawing's strokes to the pixels that an MNIST network expects.
//!
//! The page draws with it (through wasm) and the tests measure with it: it is the one way from strokes to pixels. It
//! repeats what was done to the digits of MNIST: the ink is scaled, its aspect kept, into a box of 20x20, and its
//! centre of mass is put on the middle of a field of 28x28. The pen is as wide as MNIST's after the scaling, whatever
//! the drawing's size was.

use alloc::vec::Vec;

/// A line drawn without lifting the pen: points `[x, y]`, x to the right and y down, in any unit.
pub type Stroke = Vec<[f32; 2]>;

/// Pixels on a side of the field.
pub const SIDE: usize = 28;
/// Pixels of the field: what [`rasterise`] returns, row by row.
pub const PIXELS: usize = SIDE * SIDE;

/// The side of the box, in pixels, that the ink is scaled into.
const INK: f32 = 20.0;
/// The middle of the field: MNIST's centres of mass lie, on average, in the middle of pixel 14.
const MIDDLE: f32 = 14.5;
/// Up to this squared distance from its centre the pen is black; from [`PEN_OUTER`] on it leaves nothing; in between it
/// fades. Together they give lines the weight of MNIST's: 3.1 pixels' worth of ink for each pixel of length, half of it
/// in black.
const PEN_INNER: f32 = 1.1;
const PEN_OUTER: f32 = 4.2;
/// Half the pen's visible width, for fitting ink into the box; its reach, for finding the pixels near a line.
const PEN_RADIUS: f32 = 1.5;
const PEN_REACH: f32 = 2.1;

/// Points beyond this many are not drawn, so that time is bounded: hours of scribbling fit.
const MAX_POINTS: usize = 1 << 14;
/// Points further out than this are not on any canvas, and are left out as those that are not finite are.
const MAX_COORDINATE: f32 = 1e6;

/// The 28x28 pixels, each in 0..=1 and row by row, of a drawing; `None` when there is no ink.
///
/// Points that are not finite or absurdly far away are left out; a stroke of one point is a dot.
#[must_use]
pub fn rasterise(strokes: &[Stroke]) -> Option<[f32; PIXELS]> {
    let ink = Extent::of(strokes)?;
    let first = draw(strokes, ink.to_field([MIDDLE, MIDDLE]));
    // Where the box must go for the mass to be in the middle, but never so far that ink would leave the field.
    let mass = centre_of_mass(&first);
    let second = draw(strokes, ink.to_field([2.0 * MIDDLE - mass[0], 2.0 * MIDDLE - mass[1]]));
    Some(second)
}

/// A map from the drawing's coordinates to the field's: first `origin` goes to `centre`, then the rest to scale.
#[derive(Clone, Copy)]
struct Placement {
    origin: [f32; 2],
    scale: f32,
    centre: [f32; 2],
}

impl Placement {
    fn apply(&self, point: [f32; 2]) -> [f32; 2] {
        [
            (point[0] - self.origin[0]) * self.scale + self.centre[0],
            (point[1] - self.origin[1]) * self.scale + self.centre[1],
        ]
    }
}

/// The smallest box around all points.
struct Extent {
    low: [f32; 2],
    high: [f32; 2],
}

impl Extent {
    fn of(strokes: &[Stroke]) -> Option<Self> {
        let mut all = strokes.iter().flatten().copied().take(MAX_POINTS).filter(is_sane);
        let first = all.next()?;
        Some(all.fold(Self { low: first, high: first }, |e, p| Self {
            low: [e.low[0].min(p[0]), e.low[1].min(p[1])],
            high: [e.high[0].max(p[0]), e.high[1].max(p[1])],
        }))
    }

    /// The placement that scales the ink into its box and puts the box's middle on `centre`, or as near as keeps it in
    /// the field.
    fn to_field(&self, centre: [f32; 2]) -> Placement {
        let size = [self.high[0] - self.low[0], self.high[1] - self.low[1]];
        let longest = size[0].max(size[1]);
        let scale = if longest > 0.0 { (INK - 2.0 * PEN_RADIUS) / longest } else { 1.0 };
        let keep = |axis: usize, wanted: f32| {
            let half = size.get(axis).copied().unwrap_or_default() * scale / 2.0 + PEN_RADIUS;
            wanted.clamp(half, SIDE as f32 - half)
        };
        Placement {
            origin: [self.low[0] + size[0] / 2.0, self.low[1] + size[1] / 2.0],
            // Denormal extents would scale to infinity; such a drawing is a dot.
            scale: if scale.is_finite() { scale } else { 1.0 },
            centre: if scale.is_finite() { [keep(0, centre[0]), keep(1, centre[1])] } else { [MIDDLE, MIDDLE] },
        }
    }
}

fn is_sane(point: &[f32; 2]) -> bool {
    point.iter().all(|c| c.abs() <= MAX_COORDINATE)
}

fn draw(strokes: &[Stroke], placement: Placement) -> [f32; PIXELS] {
    let mut field = [0.0; PIXELS];
    let mut left = MAX_POINTS;
    for stroke in strokes {
        let mut before = None;
        let points = stroke.iter().copied().take(left);
        left -= points.len();
        for point in points.filter(is_sane).map(|p| placement.apply(p)) {
            line(&mut field, before.unwrap_or(point), point);
            before = Some(point);
        }
    }
    field
}

/// Draws the pen moving from `a` to `b`. Where lines overlap, the darker wins, as with a pen.
fn line(field: &mut [f32; PIXELS], a: [f32; 2], b: [f32; 2]) {
    let direction = [b[0] - a[0], b[1] - a[1]];
    let length2 = direction[0] * direction[0] + direction[1] * direction[1];
    let (top, bottom) = reach(a[1], b[1]);
    let (left, right) = reach(a[0], b[0]);
    for (y, row) in field.chunks_exact_mut(SIDE).enumerate().take(bottom).skip(top) {
        for (x, pixel) in row.iter_mut().enumerate().take(right).skip(left) {
            let from_a = [x as f32 + 0.5 - a[0], y as f32 + 0.5 - a[1]];
            // The nearest point of the line: a fraction of the way from a to b.
            let along = from_a[0] * direction[0] + from_a[1] * direction[1];
            let t = if length2 > 0.0 { (along / length2).clamp(0.0, 1.0) } else { 0.0 };
            let off = [from_a[0] - t * direction[0], from_a[1] - t * direction[1]];
            let distance2 = off[0] * off[0] + off[1] * off[1];
            let ink = ((PEN_OUTER - distance2) / (PEN_OUTER - PEN_INNER)).clamp(0.0, 1.0);
            *pixel = pixel.max(ink);
        }
    }
}

/// The half-open range of pixels that a pen going from `a` to `b` can touch, along one axis.
fn reach(a: f32, b: f32) -> (usize, usize) {
    // `as` saturates: below zero is zero, beyond the field is cut by the caller's `take`.
    ((a.min(b) - PEN_REACH) as usize, (a.max(b) + PEN_REACH) as usize + 1)
}

fn centre_of_mass(field: &[f32; PIXELS]) -> [f32; 2] {
    let (mut mass, mut x_moment, mut y_moment) = (0.0, 0.0, 0.0);
    for (y, row) in field.chunks_exact(SIDE).enumerate() {
        for (x, ink) in row.iter().enumerate() {
            mass += ink;
            x_moment += ink * (x as f32 + 0.5);
            y_moment += ink * (y as f32 + 0.5);
        }
    }
    if mass > 0.0 { [x_moment / mass, y_moment / mass] } else { [MIDDLE, MIDDLE] }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::*;
    use alloc::{vec, vec::Vec};

    fn seven(scale: f32, shift: f32) -> Vec<Stroke> {
        let points = [[0.0, 0.0], [10.0, 0.0], [4.0, 17.0]];
        vec![points.map(|[x, y]| [x * scale + shift, y * scale - shift]).to_vec()]
    }

    fn distance(a: &[f32; PIXELS], b: &[f32; PIXELS]) -> f32 {
        a.iter().zip(b).fold(0.0, |d, (a, b)| d.max((a - b).abs()))
    }

    #[test]
    fn a_blank_canvas_has_no_pixels() {
        assert!(rasterise(&[]).is_none());
        assert!(rasterise(&[vec![], vec![]]).is_none());
        assert!(rasterise(&[vec![[f32::NAN, 1.0], [1.0, f32::INFINITY], [1e30, 0.0]]]).is_none());
    }

    #[test]
    fn size_and_place_on_the_canvas_do_not_matter() {
        let reference = rasterise(&seven(1.0, 0.0)).unwrap();
        for (scale, shift) in [(0.5, 3.0), (10.0, 40.0), (1000.0, -500.0)] {
            assert!(distance(&reference, &rasterise(&seven(scale, shift)).unwrap()) < 1e-3);
        }
    }

    #[test]
    fn ink_fills_a_box_of_twenty_and_its_mass_is_in_the_middle() {
        let field = rasterise(&seven(10.0, 0.0)).unwrap();
        let rows = field.chunks_exact(SIDE).filter(|row| row.iter().any(|&p| p > 0.25)).count();
        assert!((19..=21).contains(&rows), "{rows} rows of ink");
        let [x, y] = centre_of_mass(&field);
        assert!((x - MIDDLE).abs() < 0.1 && (y - MIDDLE).abs() < 0.1, "{x} {y}");
    }

    #[test]
    fn the_pen_is_as_heavy_as_the_data_sets() {
        // A vertical line: MNIST's ones weigh 59.6 on average.
        let field = rasterise(&[vec![[5.0, 0.0], [5.0, 90.0]]]).unwrap();
        let mass: f32 = field.iter().sum();
        assert!((55.0..64.0).contains(&mass), "{mass}");
        assert!(field.iter().all(|p| (0.0..=1.0).contains(p)));
        assert!(field.contains(&1.0));
    }

    #[test]
    fn a_lopsided_drawing_stays_in_the_field() {
        // A T with a heavy bar: its centre of mass would push its foot out.
        let bar = (0..60).map(|i| [(i % 2) as f32 * 200.0, i as f32 * 0.5]).collect();
        let field = rasterise(&[bar, vec![[100.0, 0.0], [100.0, 200.0]]]).unwrap();
        let rows = field.chunks_exact(SIDE).filter(|row| row.iter().any(|&p| p > 0.25)).count();
        assert!((19..=21).contains(&rows), "{rows} rows of ink");
    }

    #[test]
    fn points_that_cannot_be_are_left_out() {
        let clean = vec![vec![[0.0, 0.0], [10.0, 10.0], [10.0, 20.0]]];
        let dirty = vec![vec![[0.0, 0.0], [f32::NAN, 3.0], [10.0, 10.0], [f32::NEG_INFINITY, f32::MAX], [10.0, 20.0]]];
        assert_eq!(rasterise(&clean), rasterise(&dirty));
    }

    #[test]
    fn extremes_are_drawn_without_harm() {
        for strokes in [
            vec![vec![[3.0, 3.0]]],
            vec![vec![[3.0, 3.0]; 5]],
            vec![vec![[-1e6, -1e6], [1e6, 1e6]]],
            vec![vec![[0.0, 0.0], [1e-45, 0.0]]],
            vec![vec![[1e-40, 0.0], [0.0, 1e-39]]],
        ] {
            let field = rasterise(&strokes).unwrap();
            assert!(field.iter().all(|p| (0.0..=1.0).contains(p)));
            assert!(field.iter().any(|&p| p > 0.5), "{strokes:?} left no ink");
        }
    }

    #[test]
    fn endless_scribbling_takes_bounded_time() {
        let zigzag = |n: usize| -> Stroke { (0..n).map(|i| [(i % 2) as f32, (i % 3) as f32]).collect() };
        assert_eq!(rasterise(&[zigzag(MAX_POINTS)]), rasterise(&[zigzag(MAX_POINTS), zigzag(1 << 20)]));
    }
}
