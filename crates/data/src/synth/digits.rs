//! Digits drawn by rule: a few strokes each, bent, leant and thickened at random.
//!
//! Points go through sums, products, quotients and square roots alone, which every machine rounds
//! alike, so a seed gives the same bytes everywhere.

use std::path::{Path, PathBuf};

use crate::dice::Dice;
use crate::error::Result;
use crate::idx::{LabelledImages, write_labelled};

/// Height and width of an image, as in MNIST.
const SIDE: usize = 28;
/// Pixels between the middles of the outermost strokes: with their width about the 20 of MNIST.
const BOX: f64 = 17.0;
/// Stream of the dice.
const STREAM: u64 = 41;
/// Rounds of corner cutting.
const ROUNDS: usize = 2;

/// A point in the unit square, from the left and from the top.
type Point = (f64, f64);

/// A line through points, and whether its end meets its start.
struct Stroke(&'static [Point], bool);

const ZERO: &[Stroke] = &[Stroke(
    &[
        (0.5, 0.0),
        (0.85, 0.12),
        (0.97, 0.5),
        (0.85, 0.88),
        (0.5, 1.0),
        (0.15, 0.88),
        (0.03, 0.5),
        (0.15, 0.12),
    ],
    true,
)];
const ONE: &[Stroke] = &[Stroke(&[(0.3, 0.22), (0.55, 0.0), (0.52, 1.0)], false)];
const TWO: &[Stroke] = &[
    Stroke(
        &[
            (0.1, 0.26),
            (0.25, 0.03),
            (0.62, 0.0),
            (0.9, 0.2),
            (0.8, 0.46),
            (0.45, 0.7),
            (0.08, 1.0),
        ],
        false,
    ),
    Stroke(&[(0.08, 1.0), (0.93, 0.97)], false),
];
const THREE: &[Stroke] = &[
    Stroke(
        &[
            (0.12, 0.1),
            (0.5, 0.0),
            (0.87, 0.14),
            (0.76, 0.4),
            (0.4, 0.48),
        ],
        false,
    ),
    Stroke(
        &[
            (0.4, 0.48),
            (0.86, 0.57),
            (0.92, 0.84),
            (0.5, 1.0),
            (0.08, 0.88),
        ],
        false,
    ),
];
const FOUR: &[Stroke] = &[
    Stroke(&[(0.55, 0.0), (0.06, 0.64), (0.95, 0.62)], false),
    Stroke(&[(0.72, 0.3), (0.68, 1.0)], false),
];
const FIVE: &[Stroke] = &[
    Stroke(&[(0.9, 0.02), (0.22, 0.03), (0.18, 0.46)], false),
    Stroke(
        &[
            (0.18, 0.46),
            (0.56, 0.36),
            (0.92, 0.6),
            (0.82, 0.9),
            (0.45, 1.0),
            (0.08, 0.9),
        ],
        false,
    ),
];
const SIX: &[Stroke] = &[Stroke(
    &[
        (0.76, 0.02),
        (0.36, 0.24),
        (0.1, 0.65),
        (0.28, 0.98),
        (0.7, 0.98),
        (0.9, 0.72),
        (0.6, 0.5),
        (0.18, 0.64),
    ],
    false,
)];
const SEVEN: &[Stroke] = &[Stroke(&[(0.08, 0.04), (0.93, 0.02), (0.38, 1.0)], false)];
const EIGHT: &[Stroke] = &[
    Stroke(
        &[
            (0.5, 0.0),
            (0.84, 0.1),
            (0.8, 0.38),
            (0.5, 0.48),
            (0.2, 0.38),
            (0.16, 0.1),
        ],
        true,
    ),
    Stroke(
        &[
            (0.5, 0.48),
            (0.87, 0.6),
            (0.92, 0.88),
            (0.5, 1.0),
            (0.08, 0.88),
            (0.13, 0.6),
        ],
        true,
    ),
];
const NINE: &[Stroke] = &[
    Stroke(
        &[
            (0.55, 0.0),
            (0.86, 0.1),
            (0.88, 0.38),
            (0.5, 0.52),
            (0.14, 0.38),
            (0.2, 0.1),
        ],
        true,
    ),
    Stroke(&[(0.88, 0.26), (0.84, 0.68), (0.6, 1.0)], false),
];

const DIGITS: [&[Stroke]; 10] = [ZERO, ONE, TWO, THREE, FOUR, FIVE, SIX, SEVEN, EIGHT, NINE];

/// `count` digits of 28×28 pixels, every class as often as the others; the same seed gives the
/// same images.
#[must_use]
pub fn generate(seed: u64, count: usize) -> LabelledImages {
    let mut dice = Dice::new(seed, STREAM);
    let mut labels: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
    dice.shuffle(&mut labels);
    let pixels = labels.iter().flat_map(|&label| draw(label, &mut dice));
    LabelledImages {
        rows: SIDE,
        cols: SIDE,
        pixels: pixels.collect(),
        labels,
    }
}

/// Writes the drawn digits as IDX files, `train-…` in the folder `digits` below `dir`.
///
/// # Errors
/// If the folder or a file cannot be written.
pub fn write(dir: &Path, seed: u64) -> Result<[PathBuf; 2]> {
    let digits = generate(seed, super::DIGITS);
    write_labelled(&dir.join("digits"), "train", &digits)
}

/// A number from -`most` to `most`.
fn spread(dice: &mut Dice, most: f64) -> f64 {
    (dice.below(2001) as f64 / 1000.0 - 1.0) * most
}

fn draw(label: u8, dice: &mut Dice) -> Vec<u8> {
    let (wide, high) = (0.85 + spread(dice, 0.15), 0.95 + spread(dice, 0.07));
    let (lean, turn) = (spread(dice, 0.22), spread(dice, 0.1));
    let (right, down) = (spread(dice, 1.0), spread(dice, 1.0));
    let thick = 1.3 + spread(dice, 0.45);
    let middle = SIDE as f64 / 2.0;
    let mut lines = Vec::new();
    for Stroke(points, closed) in DIGITS[usize::from(label) % 10] {
        let bent = points
            .iter()
            .map(|(x, y)| (x + spread(dice, 0.04), y + spread(dice, 0.04)))
            .collect();
        let mut points = smooth(bent, *closed);
        for point in &mut points {
            let (x, y) = ((point.0 - 0.5) * wide, (point.1 - 0.5) * high);
            let x = x - lean * y;
            *point = (
                middle + right + (x - turn * y) * BOX,
                middle + down + (y + turn * x) * BOX,
            );
        }
        lines.push(points);
    }
    let mut pixels = Vec::with_capacity(SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let at = (column as f64 + 0.5, row as f64 + 0.5);
            let nearest = lines
                .iter()
                .flat_map(|line| line.windows(2))
                .map(|ends| distance(at, ends[0], ends[1]))
                .fold(f64::INFINITY, f64::min);
            let ink = (thick + 0.5 - nearest).clamp(0.0, 1.0);
            pixels.push((ink * 255.0 + 0.5) as u8);
        }
    }
    pixels
}

/// Cuts corners (Chaikin 1974): what was a corner becomes a curve, ends stay.
fn smooth(mut points: Vec<Point>, closed: bool) -> Vec<Point> {
    if closed {
        points.extend(points.first().copied());
    }
    for _ in 0..ROUNDS {
        let mut next = Vec::with_capacity(2 * points.len());
        if !closed {
            next.extend(points.first().copied());
        }
        for ends in points.windows(2) {
            let part = |t: f64| {
                (
                    ends[0].0 + (ends[1].0 - ends[0].0) * t,
                    ends[0].1 + (ends[1].1 - ends[0].1) * t,
                )
            };
            next.extend([part(0.25), part(0.75)]);
        }
        if closed {
            next.extend(next.first().copied());
        } else {
            next.extend(points.last().copied());
        }
        points = next;
    }
    points
}

/// From a point to the straight line between two others.
fn distance(at: Point, a: Point, b: Point) -> f64 {
    let (along, off) = ((b.0 - a.0, b.1 - a.1), (at.0 - a.0, at.1 - a.1));
    let length = along.0 * along.0 + along.1 * along.1;
    let share = if length > 0.0 {
        ((off.0 * along.0 + off.1 * along.1) / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let (x, y) = (off.0 - along.0 * share, off.1 - along.1 * share);
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::idx::read_labelled;
    use crate::synth::SEED;

    #[test]
    fn digits_are_drawn_and_differ() {
        let digits = generate(5, 40);
        assert_eq!((digits.len(), digits.rows, digits.cols), (40, 28, 28));
        for label in 0..10u8 {
            let of: Vec<usize> = (0..40).filter(|&i| digits.labels[i] == label).collect();
            assert_eq!(of.len(), 4);
            assert_ne!(digits.image(of[0]), digits.image(of[1]), "{label}");
        }
        for i in 0..digits.len() {
            let image = digits.image(i);
            let ink = image.iter().filter(|p| **p > 127).count();
            assert!((30..260).contains(&ink), "image {i} has {ink} dark pixels");
            let edge = image[..28].iter().chain(&image[27 * 28..]);
            assert!(edge.clone().all(|p| *p == 0), "image {i} touches the edge");
        }
        assert_eq!(generate(5, 40), digits);
        assert_ne!(generate(6, 40), digits);
    }

    #[test]
    fn checked_in_digits_are_what_the_generator_draws() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/digits");
        let read = read_labelled(&kept, "train").unwrap();
        let drawn = generate(SEED, super::super::DIGITS);
        assert!(read == drawn, "run tritburn data synth");
        let bytes: u64 = std::fs::read_dir(&kept)
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes < 200_000, "{bytes} bytes");
    }
}
