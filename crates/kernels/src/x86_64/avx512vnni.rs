//! AVX-512 VNNI: `vpdpbusd` sums four columns for 16 rows at once.
//!
//! The weights of a plane are not shifted to the low bits of their bytes: see [`crate::layout`]. For
//! 64 bytes of weights and one token that is three `and`s and four `vpdpbusd` for two bits a
//! weight, one load of weights and one broadcast of activations.

use std::arch::x86_64::*;

use super::planes_of;
use super::prefetch::after_block;
use super::{avx2, dense512, int6_512, lookup512, sparse512};
use crate::activations::ActBlock;
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::{DEPTH_BLOCKS, LANES, QUAD, WeightBlock};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// A processor with AVX-512 F, BW and VNNI.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && avx2::Avx2::detect().is_some();
        found.then_some(Self(()))
    }
}

impl Kernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "avx512vnni"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe {
            match planes {
                Planes::TwoBit => two_bit(tile, acc),
                Planes::Base3 => base3(tile, acc),
            }
        }
    }

    fn byte_tile(&self, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe { bytes(tile, acc) }
    }

    fn int6_tile(&self, tile: Int6Tile<'_>, acc: &mut [[i32; LANES]; 2]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe { int6_512::int6_tile(tile, acc) }
    }

    fn column_tile(&self, tile: ColumnTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe { sparse512::column_tile(tile, acc) }
    }

    fn row_sums(&self, part: RowPart<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI.
        unsafe { sparse512::row_sums(part, acc) }
    }

    fn sparse_limits(&self) -> SparseLimits {
        sparse512::LIMITS
    }

    fn lookup_tile(&self, tile: LookupTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F and BW.
        unsafe { lookup512::lookup_tile(tile, acc) }
    }

    fn dense_tile(&self, tile: DenseTile<'_>, acc: &mut [f32]) {
        // SAFETY: `detect` has found AVX-512 F.
        unsafe { dense512::dense_tile(tile, acc) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn two_bit(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            6.. => block::<4, 6, 1>(tile, t, acc),
            4.. => block::<4, 4, 1>(tile, t, acc),
            2.. => block::<4, 2, 1>(tile, t, acc),
            _ => block::<4, 1, 2>(tile, t, acc),
        };
    }
    for acc in acc.chunks_exact_mut(Planes::TwoBit.tile_rows()) {
        Planes::TwoBit.separate(acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn base3(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            4.. => block::<5, 4, 1>(tile, t, acc),
            2.. => block::<5, 2, 1>(tile, t, acc),
            _ => block::<5, 1, 2>(tile, t, acc),
        };
    }
    for acc in acc.chunks_exact_mut(Planes::Base3.tile_rows()) {
        Planes::Base3.separate(acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bytes(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            16.. => block::<1, 16, 1>(tile, t, acc),
            4.. => block::<1, 4, 2>(tile, t, acc),
            2.. => block::<1, 2, 4>(tile, t, acc),
            _ => block::<1, 1, 4>(tile, t, acc),
        };
    }
}

/// `P` planes against `T` tokens in `C` chains of additions each, since `vpdpbusd` takes five
/// cycles and two may start in each; returns `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn block<const P: usize, const T: usize, const C: usize>(
    tile: PackedTile<'_>,
    t: usize,
    acc: &mut [i32],
) -> usize {
    let x: [&[ActBlock]; T] = std::array::from_fn(|k| tile.token(t + k));
    let mut sums = [[[_mm512_setzero_si512(); P]; T]; C];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let x: [&[[i8; QUAD]]; T] = x.map(|x| x[d].0.as_chunks().0);
        for q in 0..DEPTH_BLOCKS {
            // For more tokens the arithmetic takes longer than memory.
            if T <= 2 {
                after_block(&weights[q]);
            }
            let planes = prefixes::<P>(load(&weights[q]));
            for k in 0..T {
                let x = _mm512_set1_epi32(i32::from_ne_bytes(x[k][q].map(i8::cast_unsigned)));
                for (sum, plane) in sums[q % C][k].iter_mut().zip(planes) {
                    *sum = _mm512_dpbusd_epi32(*sum, plane, x);
                }
            }
        }
    }
    for k in 0..T {
        for (p, out) in planes_of(acc, t + k, P).iter_mut().enumerate() {
            let mut sum = sums[0][k][p];
            for chain in &sums[1..] {
                sum = _mm512_add_epi32(sum, chain[k][p]);
            }
            store(out, sum);
        }
    }
    T
}

/// The numbers that the first 1, 2, … `P` planes of each byte form; a byte itself where `P` is 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn prefixes<const P: usize>(w: __m512i) -> [__m512i; P] {
    let mut out = [w; P];
    if P == 4 {
        for (out, mask) in out.iter_mut().zip([0x03, 0x0F, 0x3F]) {
            *out = _mm512_and_si512(w, _mm512_set1_epi8(mask));
        }
    } else if P == 5 {
        // Quotients of bytes from products of words: an even byte alone in its word gives it in the
        // low byte, an odd one in the high byte above what is then replaced. The factors are
        // 2¹⁶ / 3ⁿ rounded up, exact for every byte up to 242.
        let low = _mm512_set1_epi16(0x00FF);
        let even = _mm512_and_si512(w, low);
        let odd = _mm512_andnot_si512(low, w);
        for (out, factor) in out.iter_mut().zip([810, 2428, 7282, 21846]) {
            let factor = _mm512_set1_epi16(factor);
            let (even, odd) = (
                _mm512_mulhi_epu16(even, factor),
                _mm512_mulhi_epu16(odd, factor),
            );
            // low ? even : odd
            *out = _mm512_ternarylogic_epi32::<0xCA>(low, even, odd);
        }
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(block: &WeightBlock) -> __m512i {
    // SAFETY: a `WeightBlock` is 64 bytes and aligned to 64.
    unsafe { _mm512_load_si512(block.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [i32; LANES], v: __m512i) {
    // SAFETY: the array is 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
}
