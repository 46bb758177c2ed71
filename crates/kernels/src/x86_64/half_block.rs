//! Blocks of weights in the two halves that 256-bit registers hold.

use std::arch::x86_64::*;

use crate::base3::{FIRST, PAIR, QUOTIENT, REST};
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

/// The numbers whose sums [`crate::planes::Planes::separate`] takes for `P` planes; a byte itself where `P` is 1.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn numbers<const P: usize>(w: __m256i) -> [__m256i; P] {
    let mut out = [w; P];
    if P == 4 {
        for (out, mask) in out.iter_mut().zip([0x03, 0x0F, 0x3F]) {
            *out = _mm256_and_si256(w, _mm256_set1_epi8(mask));
        }
    } else if P == 5 {
        let [pair, counted, rest] = pair_and_rest(w);
        let low = |mask| _mm256_and_si256(rest, _mm256_set1_epi8(mask));
        let first = _mm256_shuffle_epi8(halves(&FIRST), pair);
        out.copy_from_slice(&[first, counted, low(0x03), low(0x0F), rest][..P]);
    }
    out
}

/// Of bytes of five trits ([`crate::base3`]) the first two digits as a number, what they count, and the other
/// three digits side by side.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn pair_and_rest(w: __m256i) -> [__m256i; 3] {
    // Products of words: see `base3_512`.
    let (low, factor) = (_mm256_set1_epi16(0x00FF), _mm256_set1_epi16(QUOTIENT));
    let even = _mm256_mulhi_epu16(_mm256_and_si256(w, low), factor);
    let odd = _mm256_mulhi_epu16(_mm256_andnot_si256(low, w), factor);
    let pair = _mm256_or_si256(even, _mm256_andnot_si256(low, odd));
    let counted = _mm256_shuffle_epi8(halves(&PAIR), pair);
    let rest = _mm256_sub_epi8(w, counted);
    // The fifth bit of what is left says which half of its table is meant.
    let lower = _mm256_shuffle_epi8(halves(&REST[0]), rest);
    let upper = _mm256_shuffle_epi8(halves(&REST[1]), rest);
    let rest = _mm256_blendv_epi8(lower, upper, _mm256_slli_epi16::<3>(rest));
    [pair, counted, rest]
}

/// The table in both halves of a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn halves(table: &[u8; 16]) -> __m256i {
    // SAFETY: the array is 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}
