//! Sums of pairs of products in i16, as `vpmaddubsw` gives them.

use std::arch::x86_64::*;

use super::half_block::{load, store};
use super::prefetch::after_block;
use super::{planes_of, quads_of, tokens_from, word};
use crate::kernel::PackedTile;
use crate::layout::DEPTH_BLOCKS;

/// Deep blocks whose sums fit i16 for codes 0…2: 3 · 16 sums of at most 2 · 2 · 128.
pub(super) const FLUSH: usize = 3;

/// `P` planes of `H` halves from `half` on against `T` tokens: `numbers` of a half block are multiplied, codes 0…2 in the
/// first of `planes` and up to 8 in the second, and `separate` makes sums of codes from theirs.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn multiply<const P: usize, const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    (t, half): (usize, usize),
    planes: (
        impl IntoIterator<Item = usize> + Copy,
        impl IntoIterator<Item = usize> + Copy,
    ),
    numbers: impl Fn(__m256i) -> [__m256i; P],
    separate: impl Fn([__m256i; P]) -> [__m256i; P],
    acc: &mut [i32],
) {
    let x = tokens_from::<T>(tile, t);
    let mut sums = [[[_mm256_setzero_si256(); P]; T]; H];
    for (f, weights) in tile.deep_blocks().chunks(FLUSH).enumerate() {
        let mut pairs = [[[_mm256_setzero_si256(); P]; T]; H];
        for (d, weights) in weights.iter().enumerate() {
            let x = quads_of(&x, f * FLUSH + d);
            for q in 0..DEPTH_BLOCKS {
                // In the first pass; the others find the weights in a cache.
                if t == 0 && half == 0 {
                    after_block(&weights[q]);
                }
                for (h, pairs) in pairs.iter_mut().enumerate() {
                    let numbers = numbers(load(&weights[q], half + h));
                    for k in 0..T {
                        let x = _mm256_set1_epi32(word(x[k][q]));
                        for (pairs, numbers) in pairs[k].iter_mut().zip(numbers) {
                            *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(numbers, x));
                        }
                    }
                }
            }
            // 16 sums of at most 2 · 8 · 128 fit just so.
            flush(&mut sums, &mut pairs, planes.1);
        }
        flush(&mut sums, &mut pairs, planes.0);
    }
    for (h, sums) in sums.iter().enumerate() {
        for (k, &sums) in sums.iter().enumerate() {
            let planes = planes_of(acc, t + k, P).iter_mut();
            for (out, sum) in planes.zip(separate(sums)) {
                store(out, half + h, sum);
            }
        }
    }
}

/// Moves what some planes have in i16 to their sums.
#[inline]
#[target_feature(enable = "avx2")]
fn flush<const P: usize, const T: usize, const H: usize>(
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
