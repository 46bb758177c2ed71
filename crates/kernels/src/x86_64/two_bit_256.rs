//! Rows of two bits with AVX2: `vpmaddubsw` multiplies codes 0…2 with signed activations to sums of pairs in i16, which
//! those of whole bytes would not fit, half a block of weights at a time.

use std::arch::x86_64::*;

use super::half_block::{add_to, load};
use super::pairs::{FLUSH, multiply};
use super::prefetch::after_block;
use super::{planes_of, quads_of, tokens_from, word};
use crate::kernel::PackedTile;
use crate::layout::DEPTH_BLOCKS;

/// All tokens of a row tile.
#[target_feature(enable = "avx2")]
pub(super) fn tokens(tile: PackedTile<'_>, acc: &mut [i32]) {
    let any = tile.depth() > 0;
    let mut t = 0;
    while t < tile.tokens {
        let left = tile.tokens - t;
        t += if any && left >= 6 {
            two_planes_each::<6>(tile, t, acc);
            6
        } else if any && left >= 4 {
            two_planes_each::<4>(tile, t, acc);
            4
        } else if left >= 2 {
            for half in 0..2 {
                four_planes::<2, 1>(tile, t, half, acc);
            }
            2
        } else {
            // Both halves of a block while it is at hand: memory would rest while the second of a
            // whole row tile is read from the cache.
            four_planes::<1, 2>(tile, t, 0, acc);
            1
        };
    }
}

/// Four planes of `H` halves from `half` on against `T` tokens. Codes that are not at the lower end of a nibble are
/// multiplied where they are, which saves shifts: they count four.
#[inline]
#[target_feature(enable = "avx2")]
fn four_planes<const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    t: usize,
    half: usize,
    acc: &mut [i32],
) {
    let (lower, upper) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0C));
    let numbers = |low| {
        let high = _mm256_srli_epi16::<4>(low);
        [
            _mm256_and_si256(low, lower),
            _mm256_and_si256(low, upper),
            _mm256_and_si256(high, lower),
            _mm256_and_si256(high, upper),
        ]
    };
    let fourth = |v| _mm256_srai_epi32::<2>(v);
    let separate = |[a, b, c, d]: [__m256i; 4]| [a, fourth(b), c, fourth(d)];
    let planes = ([0, 2], [1, 3]);
    multiply::<4, T, H>(tile, (t, half), planes, numbers, separate, acc);
}

/// Four planes against `T` tokens, half a block and two planes at a time: so much of what takes codes apart is
/// shared by more tokens than have room in the registers with all four.
#[inline]
#[target_feature(enable = "avx2")]
fn two_planes_each<const T: usize>(tile: PackedTile<'_>, t: usize, acc: &mut [i32]) {
    for half in 0..2 {
        two_planes::<T, 0>(tile, t, half, acc);
        two_planes::<T, 2>(tile, t, half, acc);
    }
}

/// Planes `FIRST` and `FIRST + 1` of a half against `T` tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn two_planes<const T: usize, const FIRST: usize>(
    tile: PackedTile<'_>,
    t: usize,
    half: usize,
    acc: &mut [i32],
) {
    let x = tokens_from::<T>(tile, t);
    let (ones, low) = (_mm256_set1_epi16(1), _mm256_set1_epi8(3));
    for (f, weights) in tile.deep_blocks().chunks(FLUSH).enumerate() {
        let mut pairs = [[_mm256_setzero_si256(); 2]; T];
        for (d, weights) in weights.iter().enumerate() {
            let x = quads_of(&x, f * FLUSH + d);
            for q in 0..DEPTH_BLOCKS {
                if t == 0 && half == 0 && FIRST == 0 {
                    after_block(&weights[q]);
                }
                let mut w = load(&weights[q], half);
                if FIRST == 2 {
                    w = _mm256_srli_epi16::<4>(w);
                }
                let codes = [
                    _mm256_and_si256(w, low),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(w), low),
                ];
                for k in 0..T {
                    let x = _mm256_set1_epi32(word(x[k][q]));
                    for (pairs, codes) in pairs[k].iter_mut().zip(codes) {
                        *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(codes, x));
                    }
                }
            }
        }
        for (k, pairs) in pairs.iter().enumerate() {
            let planes = &mut planes_of(acc, t + k, 4)[FIRST..FIRST + 2];
            for (acc, &pairs) in planes.iter_mut().zip(pairs) {
                add_to(acc, half, _mm256_madd_epi16(pairs, ones), f > 0);
            }
        }
    }
}

/// The codes of each plane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn codes(w: __m256i) -> [__m256i; 4] {
    let mask = _mm256_set1_epi8(3);
    [
        _mm256_and_si256(w, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(w), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(w), mask),
    ]
}
