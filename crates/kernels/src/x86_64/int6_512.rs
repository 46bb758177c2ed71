//! Six-bit weights with AVX-512 VNNI.
//!
//! For 16 columns of 16 rows: four codes a row are put together by a shift or two, a choice between
//! low and high bits and a mask, and multiplied with both digits of the activations; the sums of
//! the group start at what the bias of the codes costs and are multiplied with the levels.

use std::arch::x86_64::*;

use super::avx512vnni::load;
use super::prefetch::after_chunk;
use super::{quads_of, word};
use crate::int6::{Chunk, GROUP, GROUPS};
use crate::kernel::Int6Tile;
use crate::layout::{LANES, QUAD, WeightBlock};

/// Quads of a group.
const QUADS: usize = GROUP / QUAD;

/// See [`crate::Kernel::int6_tile`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int6_tile(tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
    let mut sums = [_mm512_setzero_si512(); 2];
    for (c, chunk) in tile.chunks.iter().enumerate() {
        after_chunk::<true>(chunk);
        let x = quads_of(&tile.x, c);
        let offsets = [&tile.offsets[0][c], &tile.offsets[1][c]];
        let high = loads(&chunk.high);
        let low = loads(&chunk.low[0]);
        sums = group::<0>(chunk, high, low, x, offsets, sums);
        sums = group::<1>(chunk, high, low, x, offsets, sums);
        let low = loads(&chunk.low[1]);
        sums = group::<2>(chunk, high, low, x, offsets, sums);
        sums = group::<3>(chunk, high, low, x, offsets, sums);
    }
    for (acc, sums) in acc.iter_mut().zip(sums) {
        // SAFETY: the array is 64 bytes.
        unsafe { _mm512_storeu_si512(acc.as_mut_ptr().cast(), sums) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn loads(blocks: &[WeightBlock; QUADS]) -> [__m512i; QUADS] {
    let mut out = [_mm512_setzero_si512(); QUADS];
    // A loop: see what `x86_64` says of closures.
    for (out, block) in out.iter_mut().zip(blocks) {
        *out = load(block);
    }
    out
}

/// Adds group `G` of a chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn group<const G: usize>(
    chunk: &Chunk,
    high: [__m512i; QUADS],
    low: [__m512i; QUADS],
    x: [&[[i8; QUAD]]; 2],
    offsets: [&[i32; GROUPS]; 2],
    mut sums: [__m512i; 2],
) -> [__m512i; 2] {
    let mut of_group = [_mm512_setzero_si512(); 2];
    for (sum, offsets) in of_group.iter_mut().zip(offsets) {
        *sum = _mm512_set1_epi32(offsets[G]);
    }
    for i in 0..QUADS {
        let codes = codes::<G>(high[i], low[i]);
        for (sum, x) in of_group.iter_mut().zip(x) {
            let x = _mm512_set1_epi32(word(x[G * QUADS + i]));
            *sum = _mm512_dpbusd_epi32(*sum, codes, x);
        }
    }
    let levels = levels(chunk, G);
    for (sum, of_group) in sums.iter_mut().zip(of_group) {
        *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(of_group, levels));
    }
    sums
}

/// The codes of group `G`, 0…63, from the blocks that hold their bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn codes<const G: usize>(high: __m512i, low: __m512i) -> __m512i {
    let high = match G {
        0 => _mm512_slli_epi16::<4>(high),
        1 => _mm512_slli_epi16::<2>(high),
        2 => high,
        _ => _mm512_srli_epi16::<2>(high),
    };
    let low = if G.is_multiple_of(2) {
        low
    } else {
        _mm512_srli_epi16::<4>(low)
    };
    // mask ? low : high
    let both = _mm512_ternarylogic_epi32::<0xCA>(_mm512_set1_epi8(15), low, high);
    _mm512_and_si512(both, _mm512_set1_epi8(63))
}

/// The levels of the rows in a group.
#[inline]
#[target_feature(enable = "avx512f")]
fn levels(chunk: &Chunk, g: usize) -> __m512i {
    let levels = &chunk.levels.0.as_chunks::<LANES>().0[g];
    // SAFETY: the array is 16 bytes.
    _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(levels.as_ptr().cast()) })
}
