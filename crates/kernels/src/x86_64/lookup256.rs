//! Products by tables with AVX2: 32 rows at once, otherwise as `lookup512`.

use std::arch::x86_64::*;

use super::half_block::load;
use super::lookup_sums::{FLUSH, LookupSums, RUN};
use super::prefetch::after_block;
use crate::kernel::LookupTile;
use crate::layout::WeightBlock;
use crate::lookup::Table;

#[target_feature(enable = "avx2")]
pub(super) fn lookup_tile(tile: LookupTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let weights = tile.weights.chunks(FLUSH);
    for (weights, tables) in weights.zip(tile.tables.chunks(FLUSH)) {
        for (half, acc) in acc.chunks_exact_mut(32).enumerate() {
            half_tile(weights, tables, half, acc);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn half_tile(weights: &[WeightBlock], tables: &[Table], half: usize, acc: &mut [i32]) {
    let zero = _mm256_setzero_si256();
    let (mut low, mut odd, mut high, mut high_odd) = (zero, zero, zero, zero);
    let weights = weights.as_chunks::<RUN>().0;
    for (weights, tables) in weights.iter().zip(tables.as_chunks::<RUN>().0) {
        let mut bytes = zero;
        let weights = weights.as_chunks::<2>().0.iter();
        for ([w0, w1], [t0, t1]) in weights.zip(tables.as_chunks::<2>().0) {
            // The other half is then in the cache.
            if half == 0 {
                after_block(w0);
                after_block(w1);
            }
            let (low0, high0) = sums(load(w0, half), t0);
            let (low1, high1) = sums(load(w1, half), t1);
            let lows = _mm256_add_epi8(low0, low1);
            low = _mm256_add_epi16(low, lows);
            odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(lows));
            bytes = _mm256_add_epi8(bytes, _mm256_add_epi8(high0, high1));
        }
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
        high = _mm256_add_epi16(high, even);
        high_odd = _mm256_add_epi16(high_odd, _mm256_srai_epi16::<8>(bytes));
    }
    let mut sums = LookupSums::<16>::default();
    let low = _mm256_sub_epi16(low, _mm256_slli_epi16::<8>(odd));
    for (out, v) in sums.0.iter_mut().zip([low, odd, high, high_odd]) {
        // SAFETY: each array is 32 bytes.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
    }
    sums.add_to(acc);
}

/// What the two halves of each byte stand for: low and high parts of both sums added.
#[inline]
#[target_feature(enable = "avx2")]
fn sums(w: __m256i, table: &Table) -> (__m256i, __m256i) {
    let mask = _mm256_set1_epi8(15);
    let first = _mm256_and_si256(w, mask);
    let second = _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask);
    let low = _mm256_add_epi8(
        _mm256_shuffle_epi8(entries(&table.low[0]), first),
        _mm256_shuffle_epi8(entries(&table.low[1]), second),
    );
    let high = _mm256_add_epi8(
        _mm256_shuffle_epi8(entries(&table.high[0].map(i8::cast_unsigned)), first),
        _mm256_shuffle_epi8(entries(&table.high[1].map(i8::cast_unsigned)), second),
    );
    (low, high)
}

#[inline]
#[target_feature(enable = "avx2")]
fn entries(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the array is 16 bytes.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
