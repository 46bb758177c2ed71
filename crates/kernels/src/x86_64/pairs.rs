//! Sums of pairs of products in i16, as `vpmaddubsw` gives them.

use std::arch::x86_64::*;

/// Deep blocks whose sums fit i16 for codes 0…2: 3 · 16 sums of at most 2 · 2 · 128.
pub(super) const FLUSH: usize = 3;

/// Moves what some planes have in i16 to their sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn flush<const P: usize, const T: usize, const H: usize>(
    sums: &mut [[[__m256i; P]; T]; H],
    pairs: &mut [[[__m256i; P]; T]; H],
    planes: impl IntoIterator<Item = usize> + Copy,
) {
    let ones = _mm256_set1_epi16(1);
    let all = pairs.as_flattened_mut().iter_mut();
    for (sums, pairs) in sums.as_flattened_mut().iter_mut().zip(all) {
        for p in planes {
            sums[p] = _mm256_add_epi32(sums[p], _mm256_madd_epi16(pairs[p], ones));
            pairs[p] = _mm256_setzero_si256();
        }
    }
}
