//! Products of f32.

use core::arch::aarch64::*;

use super::vectors_of;
use crate::kernel::DenseTile;

/// Values of a register.
const LANES: usize = 4;

/// Six tokens, whose rows stay in the first-level cache, against four rows of weights at a time: 24
/// sums in 32 registers. See `dense512` for x86-64.
#[target_feature(enable = "neon")]
pub(super) fn dense_tile(tile: DenseTile<'_>, acc: &mut [f32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            6.. => tokens::<6, 4>(tile, t, acc),
            3.. => tokens::<3, 4>(tile, t, acc),
            // As many sums as cover what an addition takes.
            _ => tokens::<1, 8>(tile, t, acc),
        };
    }
}

/// All rows, `R` at a time, against `T` tokens from `t` on; returns `T`.
#[inline]
#[target_feature(enable = "neon")]
fn tokens<const T: usize, const R: usize>(tile: DenseTile<'_>, t: usize, acc: &mut [f32]) -> usize {
    let mut r = 0;
    while tile.rows - r >= R {
        block::<R, T>(tile, r, t, acc);
        r += R;
    }
    while r < tile.rows {
        block::<1, T>(tile, r, t, acc);
        r += 1;
    }
    T
}

/// `R` rows against `T` tokens, one register of sums for each pair whatever `R` and `T` are, so that
/// a result does not depend on its neighbours.
#[inline]
#[target_feature(enable = "neon")]
fn block<const R: usize, const T: usize>(tile: DenseTile<'_>, r: usize, t: usize, acc: &mut [f32]) {
    let (rows, tokens) = (tile.rows::<R>(r), tile.tokens::<T>(t));
    let whole = tile.cols / LANES;
    let w: [&[[f32; LANES]]; R] = vectors_of(&rows, whole);
    let x: [&[[f32; LANES]]; T] = vectors_of(&tokens, whole);
    let mut sums = [[vdupq_n_f32(0.0); T]; R];
    for c in 0..whole {
        let mut values = [vdupq_n_f32(0.0); R];
        for r in 0..R {
            values[r] = load(&w[r][c]);
        }
        for t in 0..T {
            let x = load(&x[t][c]);
            for r in 0..R {
                sums[r][t] = vfmaq_f32(sums[r][t], values[r], x);
            }
        }
    }
    if whole * LANES < tile.cols {
        let mut values = [vdupq_n_f32(0.0); R];
        for r in 0..R {
            values[r] = load_tail(&rows[r][whole * LANES..]);
        }
        for t in 0..T {
            let x = load_tail(&tokens[t][whole * LANES..]);
            for r in 0..R {
                sums[r][t] = vfmaq_f32(sums[r][t], values[r], x);
            }
        }
    }
    // Out of the registers by loops that are unrolled: indexed by a variable, the sums would be in
    // memory all the time.
    let mut totals = [[0.0; T]; R];
    for r in 0..R {
        for t in 0..T {
            totals[r][t] = vaddvq_f32(sums[r][t]);
        }
    }
    for (i, totals) in totals.iter().enumerate() {
        for (k, total) in totals.iter().enumerate() {
            acc[(t + k) * tile.rows + r + i] = *total;
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn load(v: &[f32; LANES]) -> float32x4_t {
    // SAFETY: the array is 16 bytes.
    unsafe { vld1q_f32(v.as_ptr()) }
}

/// Fewer values than a register has, and zeros.
#[inline]
#[target_feature(enable = "neon")]
fn load_tail(v: &[f32]) -> float32x4_t {
    let mut values = [0.0; LANES];
    values.iter_mut().zip(v).for_each(|(value, v)| *value = *v);
    load(&values)
}
