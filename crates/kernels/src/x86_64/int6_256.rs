//! Six-bit weights with AVX2 and AVX-VNNI: as `int6_512`, half a block at a time.

use std::arch::x86_64::*;

use super::half_block::{HALF, load, store};
use super::prefetch::after_chunk;
use super::word;
use crate::int6::{Chunk, GROUP, GROUPS};
use crate::kernel::Int6Tile;
use crate::layout::{LANES, QUAD};

/// Quads of a group.
const QUADS: usize = GROUP / QUAD;

/// The activations of four quads.
type Quads = [[i8; QUAD]; QUADS];

/// See [`crate::Kernel::int6_tile`].
#[target_feature(enable = "avx2")]
pub(super) fn avx2_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    for half in 0..2 {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (c, chunk) in tile.chunks.iter().enumerate() {
            // The other half is then in the cache.
            if half == 0 {
                after_chunk::<false>(chunk);
            }
            for g in 0..GROUPS {
                let codes = codes(chunk, g, half);
                let levels = levels(chunk, g, half);
                for (d, sum) in sums.iter_mut().enumerate() {
                    let offset = _mm256_set1_epi32(tile.offsets[d][c][g]);
                    let x = quads(&tile.x[d][c].0, g);
                    *sum = add(*sum, pairs(codes, x, offset), levels);
                }
            }
        }
        acc.iter_mut()
            .zip(sums)
            .for_each(|(acc, sum)| store(acc, half, sum));
    }
}

/// See [`crate::Kernel::int6_tile`].
#[target_feature(enable = "avx2,avxvnni")]
pub(super) fn avxvnni_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    for half in 0..2 {
        let mut sums = [_mm256_setzero_si256(); 2];
        for (c, chunk) in tile.chunks.iter().enumerate() {
            // The other half is then in the cache.
            if half == 0 {
                after_chunk::<false>(chunk);
            }
            for g in 0..GROUPS {
                let codes = codes(chunk, g, half);
                let levels = levels(chunk, g, half);
                for (d, sum) in sums.iter_mut().enumerate() {
                    let mut of_group = _mm256_set1_epi32(tile.offsets[d][c][g]);
                    for (codes, x) in codes.iter().zip(quads(&tile.x[d][c].0, g)) {
                        of_group = _mm256_dpbusd_avx_epi32(of_group, *codes, broadcast(x));
                    }
                    *sum = add(*sum, of_group, levels);
                }
            }
        }
        acc.iter_mut()
            .zip(sums)
            .for_each(|(acc, sum)| store(acc, half, sum));
    }
}

/// `offset` and the products of a group. Sums of two pairs of products fit i16: 4 · 63 · 128.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(codes: [__m256i; QUADS], x: &Quads, offset: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let product = |i: usize| _mm256_maddubs_epi16(codes[i], broadcast(&x[i]));
    let first = _mm256_add_epi16(product(0), product(1));
    let second = _mm256_add_epi16(product(2), product(3));
    let sum = _mm256_add_epi32(offset, _mm256_madd_epi16(first, ones));
    _mm256_add_epi32(sum, _mm256_madd_epi16(second, ones))
}

/// `sum + of_group · levels`.
#[inline]
#[target_feature(enable = "avx2")]
fn add(sum: __m256i, of_group: __m256i, levels: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_mullo_epi32(of_group, levels))
}

/// The codes of group `g`, 0…63.
#[inline]
#[target_feature(enable = "avx2")]
fn codes(chunk: &Chunk, g: usize, half: usize) -> [__m256i; QUADS] {
    let mut codes = [_mm256_setzero_si256(); QUADS];
    for (i, codes) in codes.iter_mut().enumerate() {
        let (high, low) = (load(&chunk.high[i], half), load(&chunk.low[g / 2][i], half));
        let high = match g {
            0 => _mm256_slli_epi16::<4>(high),
            1 => _mm256_slli_epi16::<2>(high),
            2 => high,
            _ => _mm256_srli_epi16::<2>(high),
        };
        let low = if g.is_multiple_of(2) {
            low
        } else {
            _mm256_srli_epi16::<4>(low)
        };
        *codes = _mm256_or_si256(
            _mm256_and_si256(high, _mm256_set1_epi8(0x30)),
            _mm256_and_si256(low, _mm256_set1_epi8(0x0F)),
        );
    }
    codes
}

/// The levels of half the rows in a group.
#[inline]
#[target_feature(enable = "avx2")]
fn levels(chunk: &Chunk, g: usize, half: usize) -> __m256i {
    let levels = &chunk.levels.0.as_chunks::<HALF>().0[2 * g + half];
    // SAFETY: the array is 8 bytes.
    _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(levels.as_ptr().cast()) })
}

/// The activations of group `g` of 64 columns.
#[inline]
fn quads<const N: usize>(x: &[i8; N], g: usize) -> &Quads {
    &x.as_chunks().0.as_chunks().0[g]
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(x: &[i8; QUAD]) -> __m256i {
    _mm256_set1_epi32(word(*x))
}
