//! Products of f32 with AVX2 and FMA.

use std::arch::x86_64::*;

use super::vectors_of;
use crate::kernel::DenseTile;

#[target_feature(enable = "avx2,fma")]
pub(super) fn dense_tile(tile: DenseTile<'_>, acc: &mut [f32]) {
    let mut r = 0;
    while r < tile.rows {
        let rows = tile.rows - r;
        if tile.tokens == 1 && rows >= 8 {
            dense_block::<8, 1>(tile, r, 0, acc);
            r += 8;
            continue;
        }
        let four = rows >= 4;
        let mut t = 0;
        while t < tile.tokens {
            t += match (four, tile.tokens - t) {
                (true, 3..) => dense_block::<4, 3>(tile, r, t, acc),
                (true, _) => dense_block::<4, 1>(tile, r, t, acc),
                (false, 3..) => dense_block::<1, 3>(tile, r, t, acc),
                (false, _) => dense_block::<1, 1>(tile, r, t, acc),
            };
        }
        r += if four { 4 } else { 1 };
    }
}

/// `R` rows against `T` tokens, one vector of sums for each pair whatever `R` and `T` are, so that
/// a result does not depend on its neighbours; returns `T`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn dense_block<const R: usize, const T: usize>(
    tile: DenseTile<'_>,
    r: usize,
    t: usize,
    acc: &mut [f32],
) -> usize {
    let rows = tile.rows::<R>(r);
    let tokens = tile.tokens::<T>(t);
    let mut sums = [[_mm256_setzero_ps(); T]; R];
    let whole = tile.cols / 8;
    let w: [&[[f32; 8]]; R] = vectors_of(&rows, whole);
    let x: [&[[f32; 8]]; T] = vectors_of(&tokens, whole);
    for c in 0..whole {
        let mut at = [_mm256_setzero_ps(); T];
        for (at, x) in at.iter_mut().zip(&x) {
            *at = load_f32(&x[c]);
        }
        for r in 0..R {
            let w = load_f32(&w[r][c]);
            for t in 0..T {
                sums[r][t] = _mm256_fmadd_ps(w, at[t], sums[r][t]);
            }
        }
    }
    // Out of the registers by loops that are unrolled: indexed by a variable, the sums would be in
    // memory all the time.
    let mut lanes = [[[0f32; 8]; T]; R];
    for r in 0..R {
        for t in 0..T {
            store_f32(&mut lanes[r][t], sums[r][t]);
        }
    }
    for (i, lanes) in lanes.iter().enumerate() {
        for (k, lanes) in lanes.iter().enumerate() {
            let mut total = sum_f32(load_f32(lanes));
            for c in whole * 8..tile.cols {
                total = rows[i][c].mul_add(tokens[k][c], total);
            }
            acc[(t + k) * tile.rows + r + i] = total;
        }
    }
    T
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_f32(v: &[f32; 8]) -> __m256 {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_ps(v.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_f32(out: &mut [f32; 8], v: __m256) {
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) }
}

/// Sum of the eight f32.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_f32(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    let v = _mm_add_ss(v, _mm_shuffle_ps::<1>(v, v));
    _mm_cvtss_f32(v)
}
