//! Images changed as hands change digits, anew each time one is shown to the network.
//!
//! Slant, rotation, scale and shift are one affine map; the pen's width changes by growing or shrinking the ink and by
//! blurring it.

use chacha20::ChaCha8Rng;
use ndarray::{Array1, Array2, ArrayView2};

use super::random::{stream, uniform};

const SIDE: usize = 28;
const MIDDLE: f32 = 13.5;

/// How far images are changed: each change is drawn evenly from its range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Rotation to both sides, in radians.
    pub rotation: f32,
    /// Width and height, each for itself, are divided by a factor in this range.
    pub scale: [f32; 2],
    /// Slant to both sides: columns for each row.
    pub slant: f32,
    /// Shift in each direction, in pixels.
    pub shift: f32,
    /// The largest part of the way from the image to the darkest (or lightest) of each pixel's neighbours.
    pub width: f32,
    /// The largest part of the way from the image to the mean of each pixel and its neighbours.
    pub blur: f32,
}

impl Augmentation {
    /// For the best accuracy on the data set's own test images.
    pub const GENTLE: Self =
        Self { rotation: 0.18, scale: [0.9, 1.12], slant: 0.15, shift: 1.5, width: 0.0, blur: 0.0 };
    /// For hands and pens that the data set has not seen.
    pub const STRONG: Self =
        Self { rotation: 0.26, scale: [0.8, 1.35], slant: 0.35, shift: 2.0, width: 0.7, blur: 0.5 };

    /// The images, rows of 28x28 pixels in 0..=1, and after them `copies` changed ones of each, the same for the same seed.
    #[must_use]
    pub fn extend(&self, images: ArrayView2<'_, f32>, copies: usize, seed: u64) -> Array2<f32> {
        let mut rng = stream(seed, 0);
        let mut all = images.to_owned();
        for image in images.rows() {
            let image = image.to_vec();
            for _ in 0..copies {
                let mut out = Array1::zeros(image.len());
                if let Some(out) = out.as_slice_mut() {
                    self.apply(&image, out, &mut rng);
                }
                // A row is as long as a row.
                let _ = all.push_row(out.view());
            }
        }
        all
    }

    /// Writes a changed copy of `image` to `out`, both of 28x28 pixels in 0..=1.
    pub(super) fn apply(&self, image: &[f32], out: &mut [f32], rng: &mut ChaCha8Rng) {
        let angle = uniform(rng, -self.rotation, self.rotation);
        let [low, high] = self.scale;
        let (sx, sy) = (uniform(rng, low, high), uniform(rng, low, high));
        let slant = uniform(rng, -self.slant, self.slant);
        let (dx, dy) = (uniform(rng, -self.shift, self.shift), uniform(rng, -self.shift, self.shift));
        let (sin, cos) = angle.sin_cos();
        // Where in the image the pixels of the copy come from.
        for (row, line) in out.chunks_exact_mut(SIDE).enumerate() {
            let y = row as f32 - MIDDLE - dy;
            for (column, pixel) in line.iter_mut().enumerate() {
                let x = column as f32 - MIDDLE - dx + slant * y;
                let from_x = sx * (cos * x - sin * y) + MIDDLE;
                let from_y = sy * (sin * x + cos * y) + MIDDLE;
                *pixel = sample(image, from_x, from_y);
            }
        }
        if self.width > 0.0 {
            let amount = uniform(rng, -self.width, self.width);
            let pick = if amount > 0.0 { f32::max } else { f32::min };
            neighbours(out, |pixel, around| {
                let target = around.iter().copied().fold(pixel, pick);
                pixel + amount.abs() * (target - pixel)
            });
        }
        if self.blur > 0.0 {
            let amount = uniform(rng, 0.0, self.blur);
            neighbours(out, |pixel, around| {
                let mean = (pixel + around.iter().sum::<f32>()) / 5.0;
                pixel + amount * (mean - pixel)
            });
        }
    }
}

/// The image between its pixels; white outside.
fn sample(image: &[f32], x: f32, y: f32) -> f32 {
    let (column, row) = (x.floor(), y.floor());
    let (right, down) = (x - column, y - row);
    let at = |row: f32, column: f32| {
        let inside = 0.0..SIDE as f32;
        if inside.contains(&row) && inside.contains(&column) {
            image.get(row as usize * SIDE + column as usize).copied().unwrap_or_default()
        } else {
            0.0
        }
    };
    let above = at(row, column) * (1.0 - right) + at(row, column + 1.0) * right;
    let below = at(row + 1.0, column) * (1.0 - right) + at(row + 1.0, column + 1.0) * right;
    above * (1.0 - down) + below * down
}

/// Replaces every pixel by a function of it and its four neighbours.
fn neighbours(image: &mut [f32], change: impl Fn(f32, [f32; 4]) -> f32) {
    let before = image.to_vec();
    let at = |position: Option<usize>| position.and_then(|p| before.get(p)).copied().unwrap_or_default();
    for (position, pixel) in image.iter_mut().enumerate() {
        let column = position % SIDE;
        let around = [
            at(position.checked_sub(SIDE)),
            at(position.checked_add(SIDE)),
            at(position.checked_sub(1).filter(|_| column > 0)),
            at(position.checked_add(1).filter(|_| column < SIDE - 1)),
        ];
        *pixel = change(*pixel, around);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test may fail loudly")]

    use super::super::random::stream;
    use super::*;

    const STILL: Augmentation =
        Augmentation { rotation: 0.0, scale: [1.0, 1.0], slant: 0.0, shift: 0.0, width: 0.0, blur: 0.0 };

    /// A filled square away from the middle.
    fn square() -> Vec<f32> {
        (0..784).map(|i| f32::from(u8::from((8..14).contains(&(i / 28)) && (10..18).contains(&(i % 28))))).collect()
    }

    fn changed(augmentation: Augmentation, stream_number: u64) -> Vec<f32> {
        let mut out = vec![0.0; 784];
        augmentation.apply(&square(), &mut out, &mut stream(1, stream_number));
        out
    }

    #[test]
    fn nothing_asked_nothing_changed() {
        let out = changed(STILL, 0);
        assert!(out.iter().zip(square()).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn pixels_stay_in_range_and_every_draw_differs() {
        let mut seen = Vec::new();
        for draw in 0..50 {
            let out = changed(Augmentation::STRONG, draw);
            assert!(out.iter().all(|p| (0.0..=1.0).contains(p)));
            let mass: f32 = out.iter().sum();
            assert!((10.0..140.0).contains(&mass), "{mass}");
            assert!(!seen.contains(&out));
            seen.push(out);
        }
        assert_eq!(changed(Augmentation::STRONG, 3), seen[3]);
    }

    #[test]
    fn copies_follow_the_images() {
        let pixels = [square(), vec![0.25; 784]].concat();
        let images = ArrayView2::from_shape((2, 784), &pixels).unwrap_or(ArrayView2::from(&[[]]));
        let all = Augmentation::STRONG.extend(images, 3, 5);
        assert_eq!(all.dim(), (8, 784));
        assert_eq!(all.slice(ndarray::s![..2, ..]), images);
        let (copies, sizes) = (all.slice(ndarray::s![2.., ..]), |row: usize| all.row(row).sum());
        assert!(copies.rows().into_iter().all(|row| row != images.row(0) && row != images.row(1)));
        assert!((2..5).all(|row| sizes(row) < 100.0) && (5..8).all(|row| sizes(row) > 100.0), "each one's own");
        assert_eq!(all, Augmentation::STRONG.extend(images, 3, 5));
        assert_ne!(all, Augmentation::STRONG.extend(images, 3, 6));
    }

    #[test]
    fn the_pen_gets_wider_and_narrower() {
        let masses: Vec<f32> = (0..20).map(|i| changed(Augmentation { width: 1.0, ..STILL }, i).iter().sum()).collect();
        assert!(masses.iter().any(|&m| m > 55.0) && masses.iter().any(|&m| m < 40.0), "{masses:?}");
    }
}
