//! AVX-VNNI: `vpdpbusd` on 256 bits, half a block of weights at a time; otherwise as
//! `avx512vnni`.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::half_block::{load, numbers, store};
use super::prefetch::after_block;
use super::{dense256, int6_256, lookup256, sparse256, token_tables};
use super::{planes_of, quads_of, tokens_from, word};
use crate::kernel::{
    ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart, Together,
};
use crate::layout::{DEPTH_BLOCKS, LANES};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// A processor with AVX-VNNI, AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct AvxVnni(Avx2);

impl AvxVnni {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        is_x86_feature_detected!("avxvnni").then_some(Self(avx2))
    }
}

impl Kernel for AvxVnni {
    fn name(&self) -> &'static str {
        "avxvnni"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2 and AVX-VNNI.
        unsafe {
            match planes {
                Planes::TwoBit => tokens::<4>(tile, acc),
                Planes::Base3 => tokens::<5>(tile, acc),
            }
        }
        for acc in acc.chunks_exact_mut(planes.tile_rows()) {
            planes.separate(acc);
        }
    }

    fn together(&self, planes: Planes, tokens: usize) -> Option<&dyn Together> {
        match planes {
            // Faster than products by a few per cent at most.
            Planes::TwoBit => None,
            Planes::Base3 => (tokens >= token_tables::WIDTH).then_some(&self.0),
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX2 and AVX-VNNI.
        unsafe { tokens::<1>(tile, acc) }
    }

    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        // SAFETY: `detect` has found AVX2 and AVX-VNNI.
        unsafe { int6_256::avxvnni_tile(tile, acc) }
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
        sparse256::AVXVNNI_LIMITS
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

#[target_feature(enable = "avx2,avxvnni")]
fn tokens<const P: usize>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += if tile.tokens - t >= 2 {
            for half in 0..2 {
                block::<P, 2, 1>(tile, t, half, acc);
            }
            2
        } else {
            // Both halves of a block while it is at hand.
            block::<P, 1, 2>(tile, t, 0, acc);
            1
        };
    }
}

/// `P` planes of `H` halves from `half` on against `T` tokens.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn block<const P: usize, const T: usize, const H: usize>(
    tile: PackedTile<'_>,
    t: usize,
    half: usize,
    acc: &mut [i32],
) {
    let x = tokens_from::<T>(tile, t);
    let mut sums = [[[_mm256_setzero_si256(); P]; T]; H];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let x = quads_of(&x, d);
        for q in 0..DEPTH_BLOCKS {
            // In the first pass; the others find the weights in a cache.
            if t == 0 && half == 0 {
                after_block(&weights[q]);
            }
            for (h, sums) in sums.iter_mut().enumerate() {
                let planes = numbers::<P>(load(&weights[q], half + h));
                for (k, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(word(x[k][q]));
                    for (sum, plane) in sums.iter_mut().zip(planes) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, plane, x);
                    }
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
