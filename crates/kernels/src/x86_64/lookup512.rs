//! Products by tables with AVX-512 BW: 64 rows at once.

use std::arch::x86_64::*;

use super::avx512vnni::load;
use super::lookup_sums::{FLUSH, LookupSums, RUN};
use super::prefetch::after_block;
use crate::kernel::LookupTile;
use crate::layout::WeightBlock;
use crate::lookup::Table;

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn lookup_tile(tile: LookupTile<'_>, acc: &mut [i32]) {
    acc.fill(0);
    let weights = tile.weights.chunks(FLUSH);
    for (weights, tables) in weights.zip(tile.tables.chunks(FLUSH)) {
        let zero = _mm512_setzero_si512();
        let (mut low, mut odd, mut high, mut high_odd) = (zero, zero, zero, zero);
        let weights = weights.as_chunks::<RUN>().0;
        for (weights, tables) in weights.iter().zip(tables.as_chunks::<RUN>().0) {
            let mut bytes = zero;
            let weights = weights.as_chunks::<2>().0.iter();
            for ([w0, w1], [t0, t1]) in weights.zip(tables.as_chunks::<2>().0) {
                after_block(w0);
                after_block(w1);
                let (low0, high0) = sums(w0, t0);
                let (low1, high1) = sums(w1, t1);
                let lows = _mm512_add_epi8(low0, low1);
                low = _mm512_add_epi16(low, lows);
                odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(lows));
                bytes = _mm512_add_epi8(bytes, _mm512_add_epi8(high0, high1));
            }
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(bytes));
            high = _mm512_add_epi16(high, even);
            high_odd = _mm512_add_epi16(high_odd, _mm512_srai_epi16::<8>(bytes));
        }
        let mut sums = LookupSums::<32>::default();
        let low = _mm512_sub_epi16(low, _mm512_slli_epi16::<8>(odd));
        for (out, v) in sums.0.iter_mut().zip([low, odd, high, high_odd]) {
            // SAFETY: each array is 64 bytes.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) };
        }
        sums.add_to(acc);
    }
}

/// What the two halves of each byte stand for: low and high parts of both sums added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn sums(block: &WeightBlock, table: &Table) -> (__m512i, __m512i) {
    let w = load(block);
    let mask = _mm512_set1_epi8(15);
    let first = _mm512_and_si512(w, mask);
    let second = _mm512_and_si512(_mm512_srli_epi16::<4>(w), mask);
    let low = _mm512_add_epi8(
        _mm512_shuffle_epi8(entries(&table.low[0]), first),
        _mm512_shuffle_epi8(entries(&table.low[1]), second),
    );
    let high = _mm512_add_epi8(
        _mm512_shuffle_epi8(entries(&table.high[0].map(i8::cast_unsigned)), first),
        _mm512_shuffle_epi8(entries(&table.high[1].map(i8::cast_unsigned)), second),
    );
    (low, high)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn entries(bytes: &[u8; 16]) -> __m512i {
    // SAFETY: the array is 16 bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
