//! Rows of five trits in a byte with AVX2: otherwise as `two_bit_256`.

use std::arch::x86_64::*;

use super::half_block::{add_to, halves, load, pair_and_left};
use super::pairs::{FLUSH, multiply};
use super::{planes_of, quads_of, tokens_from, word};
use crate::base3::{FIRST, NINTH, SECOND};
use crate::kernel::PackedTile;
use crate::layout::DEPTH_BLOCKS;

/// Fewest tokens for which codes are taken apart in front of the products.
const MANY_TOKENS: usize = 8;

/// The codes of half a deep block.
type Codes = [[__m256i; 5]; DEPTH_BLOCKS];

/// All tokens of a row tile.
#[target_feature(enable = "avx2")]
pub(super) fn tokens(tile: PackedTile<'_>, acc: &mut [i32]) {
    if tile.depth() > 0 && tile.tokens >= MANY_TOKENS {
        return many_tokens(tile, acc);
    }
    let mut t = 0;
    while t < tile.tokens {
        t += if tile.tokens - t >= 2 {
            for half in 0..2 {
                five_planes::<2, 1>(tile, t, half, acc);
            }
            2
        } else {
            // Both halves of a block while it is at hand, as in `two_bit_256`.
            five_planes::<1, 2>(tile, t, 0, acc);
            1
        };
    }
}

/// Five planes of `H` halves from `half` on against `T` tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn five_planes<const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    t: usize,
    half: usize,
    acc: &mut [i32],
) {
    let three = _mm256_set1_epi32(3);
    let less = |both, one| _mm256_sub_epi32(both, _mm256_mullo_epi32(one, three));
    let numbers = |w| numbers(w);
    let separate = |[a, ab, c, d, de]: [__m256i; 5]| [a, less(ab, a), c, d, less(de, d)];
    let planes = ([0, 2, 3], [1, 4]);
    multiply::<5, T, H>(tile, (t, half), planes, numbers, separate, acc);
}

/// Takes codes apart once for all tokens, of as many deep blocks as stay in the nearest cache with their
/// activations.
#[target_feature(enable = "avx2")]
fn many_tokens(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut spread: [Codes; FLUSH] = [[[_mm256_setzero_si256(); 5]; DEPTH_BLOCKS]; FLUSH];
    for half in 0..2 {
        for (i, weights) in tile.deep_blocks().chunks(FLUSH).enumerate() {
            for (out, blocks) in spread.iter_mut().zip(weights) {
                for (out, block) in out.iter_mut().zip(blocks) {
                    *out = codes(load(block, half));
                }
            }
            let (first, spread) = (i * FLUSH, &spread[..weights.len()]);
            let mut t = 0;
            while t < tile.tokens {
                t += if tile.tokens - t >= 2 {
                    add_part::<2>(tile, t, (first, half), spread, acc);
                    2
                } else {
                    add_part::<1>(tile, t, (first, half), spread, acc);
                    1
                };
            }
        }
    }
}

/// The products of half of the deep blocks `first..` with `T` tokens, added to what `acc` holds of those in
/// front of them.
#[inline]
#[target_feature(enable = "avx2")]
fn add_part<const T: usize>(
    tile: PackedTile<'_>,
    t: usize,
    (first, half): (usize, usize),
    spread: &[Codes],
    acc: &mut [i32],
) {
    let x = tokens_from::<T>(tile, t);
    let ones = _mm256_set1_epi16(1);
    let mut pairs = [[_mm256_setzero_si256(); 5]; T];
    for (d, codes) in spread.iter().enumerate() {
        let x = quads_of(&x, first + d);
        for q in 0..DEPTH_BLOCKS {
            for k in 0..T {
                let x = _mm256_set1_epi32(word(x[k][q]));
                for (pairs, &codes) in pairs[k].iter_mut().zip(&codes[q]) {
                    *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(codes, x));
                }
            }
        }
    }
    for (k, pairs) in pairs.iter().enumerate() {
        for (acc, &pairs) in planes_of(acc, t + k, 5).iter_mut().zip(pairs) {
            add_to(acc, half, _mm256_madd_epi16(pairs, ones), first > 0);
        }
    }
}

/// The codes of each plane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn codes(w: __m256i) -> [__m256i; 5] {
    let [a, ab, c, d, de] = numbers(w);
    let second = |both| _mm256_shuffle_epi8(halves(&SECOND), both);
    [a, second(ab), c, d, second(de)]
}

/// `d₀`, `3 d₀ + d₁`, `d₂`, `d₃` and `3 d₃ + d₄` for the codes of each plane.
#[inline]
#[target_feature(enable = "avx2")]
fn numbers(w: __m256i) -> [__m256i; 5] {
    let [ab, _, left] = pair_and_left(w);
    // Without a borrow the difference is the smaller number.
    let nine = _mm256_set1_epi8(9);
    let less = |v| _mm256_min_epu8(v, _mm256_sub_epi8(v, nine));
    let de = less(less(left));
    let first = |both| _mm256_shuffle_epi8(halves(&FIRST), both);
    let c = _mm256_shuffle_epi8(halves(&NINTH), _mm256_sub_epi8(left, de));
    [first(ab), ab, c, first(de), de]
}
