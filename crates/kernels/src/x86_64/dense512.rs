//! Products of f32 with AVX-512.

use std::arch::x86_64::*;

use super::vectors_of;
use crate::kernel::DenseTile;

/// Values of a vector.
const LANES: usize = 16;

/// Six tokens, whose rows stay in the first-level cache, against four rows of weights at a time: 24
/// sums, with ten loads for each vector of all of them.
#[target_feature(enable = "avx512f")]
pub(super) fn dense_tile(tile: DenseTile<'_>, acc: &mut [f32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            6.. => tokens::<6, 4>(tile, t, acc),
            3.. => tokens::<3, 4>(tile, t, acc),
            // One token has to wait for its weights: more rows at once ask for more of them.
            _ => tokens::<1, 8>(tile, t, acc),
        };
    }
}

/// All rows, `R` at a time, against `T` tokens from `t` on; returns `T`.
#[inline]
#[target_feature(enable = "avx512f")]
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

/// `R` rows against `T` tokens, one vector of sums for each pair whatever `R` and `T` are, so that
/// a result does not depend on its neighbours.
#[inline]
#[target_feature(enable = "avx512f")]
fn block<const R: usize, const T: usize>(tile: DenseTile<'_>, r: usize, t: usize, acc: &mut [f32]) {
    let (rows, tokens) = (tile.rows::<R>(r), tile.tokens::<T>(t));
    let whole = tile.cols / LANES;
    let tail = tile.cols % LANES;
    let mut sums = [[_mm512_setzero_ps(); T]; R];
    let w: [&[[f32; LANES]]; R] = vectors_of(&rows, whole);
    let x: [&[[f32; LANES]]; T] = vectors_of(&tokens, whole);
    for c in 0..whole {
        let mut at = [_mm512_setzero_ps(); R];
        for (at, w) in at.iter_mut().zip(&w) {
            *at = load(&w[c]);
        }
        for t in 0..T {
            let x = load(&x[t][c]);
            for r in 0..R {
                sums[r][t] = _mm512_fmadd_ps(at[r], x, sums[r][t]);
            }
        }
    }
    if tail > 0 {
        let mut at = [_mm512_setzero_ps(); R];
        for (at, row) in at.iter_mut().zip(&rows) {
            *at = load_tail(&row[whole * LANES..]);
        }
        for t in 0..T {
            let x = load_tail(&tokens[t][whole * LANES..]);
            for r in 0..R {
                sums[r][t] = _mm512_fmadd_ps(at[r], x, sums[r][t]);
            }
        }
    }
    // Out of the registers by loops that are unrolled: indexed by a variable, the sums would be in
    // memory all the time.
    let mut lanes = [[[0f32; LANES]; T]; R];
    for r in 0..R {
        for t in 0..T {
            store(&mut lanes[r][t], sums[r][t]);
        }
    }
    for (i, lanes) in lanes.iter().enumerate() {
        for (k, lanes) in lanes.iter().enumerate() {
            acc[(t + k) * tile.rows + r + i] = _mm512_reduce_add_ps(load(lanes));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(v: &[f32; LANES]) -> __m512 {
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; LANES], v: __m512) {
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
}

/// Fewer values than a vector has, and zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_tail(v: &[f32]) -> __m512 {
    let mask = !(u16::MAX << v.len().min(LANES - 1));
    // SAFETY: the mask leaves out what lies behind the slice.
    unsafe { _mm512_maskz_loadu_ps(mask, v.as_ptr()) }
}
