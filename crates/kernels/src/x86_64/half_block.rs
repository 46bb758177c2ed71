//! Blocks of weights in the two halves that 256-bit registers hold.

use std::arch::x86_64::*;

use crate::layout::{LANES, WeightBlock};

/// Rows of half a block.
pub(super) const HALF: usize = LANES / 2;

/// Half `half`, 0 or 1, of a block: its rows `8 · half..`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(block: &WeightBlock, half: usize) -> __m256i {
    let bytes = &block.0.as_chunks::<32>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Writes the sums of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(out: &mut [i32; LANES], half: usize, sums: __m256i) {
    let out = &mut out.as_chunks_mut::<HALF>().0[half];
    // SAFETY: the array is 32 bytes.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), sums) }
}

/// The numbers that the first 1, 2, … `P` planes of each byte form; a byte itself where `P` is 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefixes<const P: usize>(w: __m256i) -> [__m256i; P] {
    let mut out = [w; P];
    if P == 4 {
        for (out, mask) in out.iter_mut().zip([0x03, 0x0F, 0x3F]) {
            *out = _mm256_and_si256(w, _mm256_set1_epi8(mask));
        }
    } else if P == 5 {
        for (out, factor) in out.iter_mut().zip([810, 2428, 7282, 21846]) {
            *out = high_products(w, factor);
        }
    }
    out
}

/// `⌊byte · factor / 2¹⁶⌋` of each byte: as in `avx512vnni`, the quotient by 3, 9, 27 or 81 for 21846, 7282,
/// 2428 or 810.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn high_products(w: __m256i, factor: i16) -> __m256i {
    let (low, factor) = (_mm256_set1_epi16(0x00FF), _mm256_set1_epi16(factor));
    let even = _mm256_mulhi_epu16(_mm256_and_si256(w, low), factor);
    let odd = _mm256_mulhi_epu16(_mm256_andnot_si256(low, w), factor);
    _mm256_or_si256(even, _mm256_andnot_si256(low, odd))
}
