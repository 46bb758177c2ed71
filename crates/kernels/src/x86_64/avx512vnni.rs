//! AVX-512 VNNI: `vpdpbusd` on 512 bits. A block of weights stands in both halves of a register,
//! and a shift that differs between the halves gives 64 neighbouring codes.

use std::arch::x86_64::*;

use tritburn_quant::act::absmax_int8;

use super::{avx2, load_weights};
use crate::kernel::{self, DenseTile, Kernel, TernaryTile};

/// A processor with AVX-512 F, BW and VNNI.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && avx2::Avx2::detect().is_some();
        found.then_some(Self(()))
    }
}

impl Kernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "avx512vnni"
    }

    fn ternary_tile(&self, tile: TernaryTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe { ternary_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found AVX2 and FMA.
        unsafe { avx2::dense_tile(tile, acc) }
    }

    fn add_weighted_rows(&self, weights: &[f32], rows: &[f32], out: &mut [f32]) {
        // SAFETY: `detect` has found AVX-512 F.
        unsafe { add_weighted_rows(weights, rows, out) }
    }

    fn quantize(&self, x: &[f32], codes: &mut [i8]) -> f32 {
        // SAFETY: `detect` has found AVX-512 F and BW.
        unsafe { quantize(x, codes) }
    }
}

#[target_feature(enable = "avx512f")]
fn add_weighted_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    kernel::add_weighted_rows(weights, rows, out);
}

#[target_feature(enable = "avx512f,avx512bw")]
fn quantize(x: &[f32], codes: &mut [i8]) -> f32 {
    absmax_int8(x, codes)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn ternary_tile(tile: TernaryTile<'_>, acc: &mut [i32]) {
    let mut r = 0;
    while r < tile.rows {
        let four = tile.rows - r >= 4;
        let mut t = 0;
        while t < tile.tokens {
            t += match (four, tile.tokens - t) {
                (true, 4..) => ternary_block::<4, 4>(tile, r, t, acc),
                (true, _) => ternary_block::<4, 1>(tile, r, t, acc),
                (false, 4..) => ternary_block::<1, 4>(tile, r, t, acc),
                (false, _) => ternary_block::<1, 1>(tile, r, t, acc),
            };
        }
        r += if four { 4 } else { 1 };
    }
}

/// `R` rows against `T` tokens; returns `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn ternary_block<const R: usize, const T: usize>(
    tile: TernaryTile<'_>,
    r: usize,
    t: usize,
    acc: &mut [i32],
) -> usize {
    let rows = tile.rows::<R>(r);
    let tokens = tile.tokens::<T>(t);
    let mask = _mm512_set1_epi8(3);
    // Bits 0–1 below and 2–3 above, then 4–5 below and 6–7 above.
    let shifts = [
        _mm512_set_epi64(2, 2, 2, 2, 0, 0, 0, 0),
        _mm512_set_epi64(6, 6, 6, 6, 4, 4, 4, 4),
    ];
    let mut sums = [[[_mm512_setzero_si512(); 2]; T]; R];
    for b in 0..tile.blocks {
        let w: [__m512i; R] =
            std::array::from_fn(|r| _mm512_broadcast_i64x4(load_weights(&rows[r][b])));
        for (half, &shift) in shifts.iter().enumerate() {
            let codes = w.map(|w| _mm512_and_si512(_mm512_srlv_epi64(w, shift), mask));
            let chain = if R * T >= 8 { 0 } else { half };
            for t in 0..T {
                let x = load_codes(&tokens[t][b].0.as_chunks().0[half]);
                for r in 0..R {
                    let sum = &mut sums[r][t][chain];
                    *sum = _mm512_dpbusd_epi32(*sum, codes[r], x);
                }
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (k, &[low, high]) in sums.iter().enumerate() {
            acc[(t + k) * tile.rows + r + i] = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
        }
    }
    T
}

/// 64 activation codes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_codes(codes: &[i8; 64]) -> __m512i {
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}
