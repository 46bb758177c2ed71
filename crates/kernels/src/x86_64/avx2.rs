//! AVX2 and FMA: `vpmaddubsw` multiplies codes 0…2 with signed activations to sums of pairs in i16.

use std::arch::x86_64::*;

use tritburn_quant::act::absmax_int8;

use super::{load_codes, load_weights};
use crate::kernel::{self, DenseTile, Kernel, TernaryTile};

/// Blocks whose sums of pairs fit i16: 4 · 8 sums of at most 2 · 2 · 128.
const FLUSH: usize = 8;

/// A processor with AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn ternary_tile(&self, tile: TernaryTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { ternary_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found AVX2 and FMA.
        unsafe { dense_tile(tile, acc) }
    }

    fn add_weighted_rows(&self, weights: &[f32], rows: &[f32], out: &mut [f32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { add_weighted_rows(weights, rows, out) }
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        // SAFETY: `detect` has found AVX2.
        unsafe { quantize(x, codes) }
    }
}

#[target_feature(enable = "avx2")]
pub(super) fn add_weighted_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    kernel::add_weighted_rows(weights, rows, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn quantize(x: &[f32], codes: &mut [i8]) -> f32 {
    absmax_int8(x, codes)
}

#[target_feature(enable = "avx2")]
fn ternary_tile(tile: TernaryTile<'_>, acc: &mut [i32]) {
    let mut r = 0;
    while r < tile.rows {
        let pair = tile.rows - r >= 2;
        let mut t = 0;
        while t < tile.tokens {
            t += match (pair, tile.tokens - t) {
                (true, 4..) => ternary_block::<2, 4>(tile, r, t, acc),
                (true, _) => ternary_block::<2, 1>(tile, r, t, acc),
                (false, 4..) => ternary_block::<1, 4>(tile, r, t, acc),
                (false, _) => ternary_block::<1, 1>(tile, r, t, acc),
            };
        }
        r += if pair { 2 } else { 1 };
    }
}

/// `R` rows against `T` tokens; returns `T`.
#[inline]
#[target_feature(enable = "avx2")]
fn ternary_block<const R: usize, const T: usize>(
    tile: TernaryTile<'_>,
    r: usize,
    t: usize,
    acc: &mut [i32],
) -> usize {
    let rows = tile.rows::<R>(r);
    let tokens = tile.tokens::<T>(t);
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); T]; R];
    for start in (0..tile.blocks).step_by(FLUSH) {
        let mut pairs = [[_mm256_setzero_si256(); T]; R];
        for b in start..tile.blocks.min(start + FLUSH) {
            let mut w: [__m256i; R] = std::array::from_fn(|r| load_weights(&rows[r][b]));
            for lane in 0..4 {
                let codes = w.map(|w| _mm256_and_si256(w, mask));
                for t in 0..T {
                    let x = load_codes(&tokens[t][b].0.as_chunks().0[lane]);
                    for r in 0..R {
                        let products = _mm256_maddubs_epi16(codes[r], x);
                        pairs[r][t] = _mm256_add_epi16(pairs[r][t], products);
                    }
                }
                w = w.map(|w| _mm256_srli_epi16::<2>(w));
            }
        }
        for r in 0..R {
            for t in 0..T {
                let wide = _mm256_madd_epi16(pairs[r][t], ones);
                sums[r][t] = _mm256_add_epi32(sums[r][t], wide);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (k, &sum) in sums.iter().enumerate() {
            acc[(t + k) * tile.rows + r + i] = sum_i32(sum);
        }
    }
    T
}

/// Sum of the eight i32.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_i32(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b00_00_11_10>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b00_00_00_01>(v));
    _mm_cvtsi128_si32(v)
}

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
    let w: [&[[f32; 8]]; R] = rows.map(|row| &row.as_chunks().0[..whole]);
    let x: [&[[f32; 8]]; T] = tokens.map(|row| &row.as_chunks().0[..whole]);
    for c in 0..whole {
        let x: [__m256; T] = std::array::from_fn(|t| load_f32(&x[t][c]));
        for r in 0..R {
            let w = load_f32(&w[r][c]);
            for t in 0..T {
                sums[r][t] = _mm256_fmadd_ps(w, x[t], sums[r][t]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (k, &sum) in sums.iter().enumerate() {
            let mut total = sum_f32(sum);
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

/// Sum of the eight f32.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_f32(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    let v = _mm_add_ss(v, _mm_shuffle_ps::<1>(v, v));
    _mm_cvtss_f32(v)
}
