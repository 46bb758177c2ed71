//! AVX2 and FMA.

use std::arch::x86_64::*;
use std::ops::RangeInclusive;

use super::half_block::{load, store};
use super::prefetch;
use super::{base3_256, dense256, int6_256, lookup256, sparse256, token_tables, two_bit_256};
use super::{planes_of, word};
use crate::kernel::{
    ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart, Together,
};
use crate::layout::{LANES, QUAD};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

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
                Planes::TwoBit => two_bit_256::tokens(tile, acc),
                Planes::Base3 => base3_256::tokens(tile, acc),
            }
        }
    }

    fn together(&self, planes: Planes, tokens: usize) -> Option<&dyn Together> {
        let fewest = match planes {
            Planes::TwoBit => token_tables::WIDTH,
            // Products take bytes apart once for so many tokens, too.
            Planes::Base3 => 2 * token_tables::WIDTH,
        };
        (tokens >= fewest).then_some(self)
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

impl Together for Avx2 {
    fn rows(&self) -> RangeInclusive<usize> {
        token_tables::ROWS
    }

    fn tokens_at_once(&self) -> usize {
        token_tables::WIDTH
    }

    fn most_tokens(&self) -> usize {
        token_tables::MOST_TOKENS
    }

    fn ternary_tiles(
        &self,
        planes: Planes,
        tiles: usize,
        tile: PackedTile<'_>,
        each: &mut dyn FnMut(usize, usize, &[i32]),
    ) {
        // SAFETY: `detect` has found AVX2.
        unsafe {
            match planes {
                Planes::TwoBit => token_tables::multiply::<4>(tiles, tile, each),
                Planes::Base3 => token_tables::multiply::<5>(tiles, tile, each),
            }
        }
    }
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
