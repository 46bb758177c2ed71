//! AVX2 and FMA: `vpmaddubsw` multiplies codes 0…2 with signed activations to sums of pairs in i16,
//! half a block of weights at a time.

use std::arch::x86_64::*;

use super::half_block::{halves, load, load_sums, pair_and_rest, store};
use super::prefetch::{self, after_block};
use super::{dense256, int6_256, lookup256, sparse256};
use super::{planes_of, quads_of, tokens_from, word};
use crate::base3::{FIRST, SECOND};
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::{DEPTH_BLOCKS, LANES, QUAD};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// Deep blocks whose sums of pairs fit i16: 3 · 16 sums of at most 2 · 2 · 128.
const FLUSH: usize = 3;
/// Fewest tokens for which the codes of five planes are taken apart in front of the products.
const MANY_TOKENS: usize = 8;

/// The codes of half a deep block of five planes.
type Codes = [[__m256i; 5]; DEPTH_BLOCKS];

/// A processor with AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then(|| {
            prefetch::detect();
            Self(())
        })
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe {
            match planes {
                Planes::TwoBit => tokens::<4>(tile, acc),
                Planes::Base3 => tokens::<5>(tile, acc),
            }
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { bytes(tile, acc) }
    }

    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { int6_256::avx2_tile(tile, acc) }
    }

    fn column_tile(&self, tile: ColumnTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { sparse256::column_tile(tile, acc) }
    }

    fn row_sums(&self, part: RowPart<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { sparse256::row_sums(part, acc) }
    }

    fn sparse_limits(&self) -> SparseLimits {
        sparse256::AVX2_LIMITS
    }

    fn lookup_tile(&self, tile: LookupTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2.
        unsafe { lookup256::lookup_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found AVX2 and FMA.
        unsafe { dense256::dense_tile(tile, acc) }
    }
}

#[target_feature(enable = "avx2")]
fn tokens<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let any = tile.depth() > 0;
    if any && P == 5 && tile.tokens >= MANY_TOKENS {
        return many_tokens(tile, acc);
    }
    let mut t = 0;
    while t < tile.tokens {
        let left = tile.tokens - t;
        t += if any && P == 4 && left >= 6 {
            two_planes_each::<6>(tile, t, acc);
            6
        } else if any && P == 4 && left >= 4 {
            two_planes_each::<4>(tile, t, acc);
            4
        } else if left >= 2 {
            for half in 0..2 {
                block::<P, 2, 1>(tile, t, half, acc);
            }
            2
        } else {
            // Both halves of a block while it is at hand: memory would rest while the second of a
            // whole row tile is read from the cache.
            block::<P, 1, 2>(tile, t, 0, acc);
            1
        };
    }
}

/// `P` planes of `H` halves from `half` on against `T` tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn block<const P: usize, const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    t: usize,
    half: usize,
    acc: &mut [i32],
) {
    let x = tokens_from::<T>(tile, t);
    let ones = _mm256_set1_epi16(1);
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
                    let codes = codes::<P>(load(&weights[q], half + h));
                    for k in 0..T {
                        let x = _mm256_set1_epi32(word(x[k][q]));
                        for (pairs, codes) in pairs[k].iter_mut().zip(codes) {
                            *pairs = _mm256_add_epi16(*pairs, _mm256_maddubs_epi16(codes, x));
                        }
                    }
                }
            }
        }
        for (sums, pairs) in sums.iter_mut().zip(pairs) {
            for k in 0..T {
                for (sum, pairs) in sums[k].iter_mut().zip(pairs[k]) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
    for (h, sums) in sums.iter().enumerate() {
        for (k, sums) in sums.iter().enumerate() {
            for (out, &sum) in planes_of(acc, t + k, P).iter_mut().zip(sums) {
                store(out, half + h, sum);
            }
        }
    }
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

/// Writes the sums of eight rows, with what is there added where `more` says so.
#[inline]
#[target_feature(enable = "avx2")]
fn add_to(acc: &mut [i32; LANES], half: usize, mut sum: __m256i, more: bool) {
    if more {
        sum = _mm256_add_epi32(sum, load_sums(acc, half));
    }
    store(acc, half, sum);
}

/// Five planes: takes codes apart once for all tokens, of as many deep blocks as stay in the nearest cache with their
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

/// The codes 0…2 of each plane: sums of whole bytes would not fit i16.
#[inline]
#[target_feature(enable = "avx2")]
fn codes<const P: usize>(mut w: __m256i) -> [__m256i; P] {
    let mut out = [w; P];
    if P == 4 {
        let mask = _mm256_set1_epi8(3);
        for out in &mut out {
            *out = _mm256_and_si256(w, mask);
            w = _mm256_srli_epi16::<2>(w);
        }
    } else {
        out.copy_from_slice(&digits(w)[..P]);
    }
    out
}

/// The five digits of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn digits(w: __m256i) -> [__m256i; 5] {
    let [pair, _, rest] = pair_and_rest(w);
    let low = |w| _mm256_and_si256(w, _mm256_set1_epi8(3));
    [
        _mm256_shuffle_epi8(halves(&FIRST), pair),
        _mm256_shuffle_epi8(halves(&SECOND), pair),
        low(rest),
        low(_mm256_srli_epi16::<2>(rest)),
        low(_mm256_srli_epi16::<4>(rest)),
    ]
}

/// Weights 0…255: products with activations do not fit i16 in pairs, so both are widened.
#[target_feature(enable = "avx2")]
fn bytes(tile: PackedTile<'_>, acc: &mut [i32]) {
    for t in 0..tile.tokens {
        let x = tile.token(t);
        for half in 0..2 {
            // Columns 0 and 2, and 1 and 3, of each row.
            let mut sums = _mm256_setzero_si256();
            let low = _mm256_set1_epi16(0x00FF);
            for (weights, x) in tile.deep_blocks().iter().zip(x) {
                for (block, x) in weights.iter().zip(x.0.as_chunks::<QUAD>().0) {
                    let w = load(block, half);
                    let x = _mm256_set1_epi32(word(*x));
                    let even = _mm256_madd_epi16(
                        _mm256_and_si256(w, low),
                        _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
                    );
                    let odd =
                        _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(x));
                    sums = _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
                }
            }
            let [out] = planes_of(acc, t, 1) else {
                return;
            };
            store(out, half, sums);
        }
    }
}
