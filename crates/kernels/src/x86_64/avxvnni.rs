//! AVX-VNNI: `vpdpbusd` on 256 bits, from codes 0…2 and signed activations straight to i32.

use std::arch::x86_64::*;

use super::{avx2, load_codes, load_weights};
use crate::kernel::{DenseTile, Kernel, TernaryTile};

/// A processor with AVX-VNNI, AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(());

impl AvxVnni {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avxvnni") && avx2::Avx2::detect().is_some();
        found.then_some(Self(()))
    }
}

impl Kernel for AvxVnni {
    fn name(&self) -> &'static str {
        "avxvnni"
    }

    fn ternary_tile(&self, tile: TernaryTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-VNNI.
        unsafe { ternary_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found AVX2 and FMA.
        unsafe { avx2::dense_tile(tile, acc) }
    }

    fn add_weighted_rows(&self, weights: &[f32], rows: &[f32], out: &mut [f32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { avx2::add_weighted_rows(weights, rows, out) }
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        // SAFETY: `detect` has found AVX2.
        unsafe { avx2::quantize(x, codes) }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
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
#[target_feature(enable = "avx2,avxvnni")]
fn ternary_block<const R: usize, const T: usize>(
    tile: TernaryTile<'_>,
    r: usize,
    t: usize,
    acc: &mut [i32],
) -> usize {
    let rows = tile.rows::<R>(r);
    let tokens = tile.tokens::<T>(t);
    let mask = _mm256_set1_epi8(3);
    // Even and odd lanes apart: two chains of additions where few rows and tokens are in flight.
    let mut sums = [[[_mm256_setzero_si256(); 2]; T]; R];
    for b in 0..tile.blocks {
        let mut w: [__m256i; R] = std::array::from_fn(|r| load_weights(&rows[r][b]));
        for lane in 0..4 {
            let codes = w.map(|w| _mm256_and_si256(w, mask));
            let chain = if R * T >= 4 { 0 } else { lane % 2 };
            for t in 0..T {
                let x = load_codes(&tokens[t][b].0.as_chunks().0[lane]);
                for r in 0..R {
                    let sum = &mut sums[r][t][chain];
                    *sum = _mm256_dpbusd_avx_epi32(*sum, codes[r], x);
                }
            }
            w = w.map(|w| _mm256_srli_epi16::<2>(w));
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (k, &[even, odd]) in sums.iter().enumerate() {
            acc[(t + k) * tile.rows + r + i] = avx2::sum_i32(_mm256_add_epi32(even, odd));
        }
    }
    T
}
