//! AVX-512 VNNI: `vpdpbusd` sums four columns for 16 rows at once.
//!
//! The weights of a plane are not shifted to the low bits of their bytes: see [`crate::layout`].
//! For 64 bytes of weights and one token that is three `and`s and four `vpdpbusd` for two bits a
//! weight, one load of weights and one broadcast of activations.

use std::arch::x86_64::*;

use super::prefetch::after_block;
use super::{avx2, base3_512, dense512, int6_512, lookup512, sparse512};
use super::{planes_of, quads_of, tokens_from, word};
use crate::kernel::{ColumnTile, DenseTile, Int6Tile, Kernel, LookupTile, PackedTile, RowPart};
use crate::layout::{LANES, WeightBlock};
use crate::planes::Planes;
use crate::sparse::SparseLimits;

/// A processor with AVX-512 F, BW and VNNI.
#[derive(Debug, Clone, Copy)]
pub struct Avx512Vnni {
    /// Whether it also has AVX-512 VBMI.
    vbmi: bool,
}

impl Avx512Vnni {
    /// Whether the processor has AVX-512 VBMI, too.
    pub(super) fn has_vbmi(self) -> bool {
        self.vbmi
    }

    /// The kernel, where this processor can run it.
    #[must_use]
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
            && avx2::Avx2::detect().is_some();
        found.then_some(Self {
            vbmi: is_x86_feature_detected!("avx512vbmi"),
        })
    }
}

impl Kernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "avx512vnni"
    }

    fn ternary_tile(&self, planes: Planes, tile: PackedTile<'_>, acc: &mut [i32]) {
        // SAFETY: `detect` has found AVX-512 F, BW and VNNI, and VBMI where `vbmi` says so.
        unsafe {
            match planes {
                Planes::TwoBit => two_bit(tile, acc),
                Planes::Base3 if self.vbmi => base3::<true>(tile, acc),
                Planes::Base3 => base3::<false>(tile, acc),
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
            6.. => block::<4, 6, 1, false>(tile, t, acc),
            4.. => block::<4, 4, 1, false>(tile, t, acc),
            2.. => block::<4, 2, 1, false>(tile, t, acc),
            _ => block::<4, 1, 2, false>(tile, t, acc),
        };
    }
    for acc in acc.chunks_exact_mut(Planes::TwoBit.tile_rows()) {
        Planes::TwoBit.separate(acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn base3<const VBMI: bool>(tile: PackedTile<'_>, acc: &mut [i32]) {
    let mut t = 0;
    while t < tile.tokens {
        t += match tile.tokens - t {
            4.. => block::<5, 4, 1, VBMI>(tile, t, acc),
            2.. => block::<5, 2, 1, VBMI>(tile, t, acc),
            _ => block::<5, 1, 2, VBMI>(tile, t, acc),
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
            16.. => block::<1, 16, 1, false>(tile, t, acc),
            4.. => block::<1, 4, 2, false>(tile, t, acc),
            2.. => block::<1, 2, 4, false>(tile, t, acc),
            _ => block::<1, 1, 4, false>(tile, t, acc),
        };
    }
}

/// `P` planes against `T` tokens in `C` chains of additions each, since `vpdpbusd` takes five
/// cycles and two may start in each; returns `T`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn block<const P: usize, const T: usize, const C: usize, const VBMI: bool>(
    tile: PackedTile<'_>,
    t: usize,
    acc: &mut [i32],
) -> usize {
    let x = tokens_from::<T>(tile, t);
    let mut sums = [[[_mm512_setzero_si512(); P]; T]; C];
    for (d, weights) in tile.deep_blocks().iter().enumerate() {
        let x = quads_of(&x, d);
        // Chains by a loop of their own, which is unrolled: indexed by a variable, the sums would
        // be in memory.
        for (i, weights) in weights.as_chunks::<C>().0.iter().enumerate() {
            for c in 0..C {
                // The next tokens find the weights in a cache.
                if t == 0 {
                    after_block(&weights[c]);
                }
                let planes = numbers::<P, VBMI>(load(&weights[c]));
                for k in 0..T {
                    let x = _mm512_set1_epi32(word(x[k][i * C + c]));
                    for p in 0..P {
                        sums[c][k][p] = _mm512_dpbusd_epi32(sums[c][k][p], planes[p], x);
                    }
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

/// The numbers whose sums [`Planes::separate`] takes for `P` planes; a byte itself where `P` is 1.
/// `VBMI` as in [`base3_512::numbers`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn numbers<const P: usize, const VBMI: bool>(w: __m512i) -> [__m512i; P] {
    let mut out = [w; P];
    if P == 4 {
        for (out, mask) in out.iter_mut().zip([0x03, 0x0F, 0x3F]) {
            *out = _mm512_and_si512(w, _mm512_set1_epi8(mask));
        }
    } else if P == 5 {
        // SAFETY: `VBMI` is true for loops that are chosen where the processor has it: by
        // `ternary_tile` above, and by `Amx`, which asks for it.
        let numbers = unsafe { base3_512::numbers::<VBMI>(w) };
        out.copy_from_slice(&numbers[..P]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::ActBlock;
    use crate::scalar::Scalar;

    /// The tables that processors without VBMI use, on one that has it too.
    #[test]
    fn five_trits_come_apart_with_and_without_vbmi() {
        let Some(kernel) = Avx512Vnni::detect() else {
            eprintln!("skipped: no AVX-512 VNNI");
            return;
        };
        let number = |i: usize| i * 2_654_435_761 % 243;
        let byte = |i: usize| {
            let digit = |plane: usize| (number(i) / 3usize.pow(plane as u32) % 3) as u8;
            (0..5).map(|p| Planes::Base3.digit(p, digit(p))).sum::<u8>()
        };
        let weights: Vec<WeightBlock> = (0..32)
            .map(|b| WeightBlock(std::array::from_fn(|i| byte(64 * b + i))))
            .collect();
        let x: Vec<ActBlock> = (0..2 * 9)
            .map(|b| ActBlock(std::array::from_fn(|i| (64 * b + i * i) as i8)))
            .collect();
        for tokens in 0..=9 {
            let tile = PackedTile {
                weights: &weights,
                x: &x,
                stride: 2,
                tokens,
            };
            let sums = |kernel: &dyn Kernel| {
                let mut acc = vec![-1; tokens * Planes::Base3.tile_rows()];
                kernel.ternary_tile(Planes::Base3, tile, &mut acc);
                acc
            };
            let want = sums(&Scalar);
            assert_eq!(sums(&kernel), want);
            assert_eq!(sums(&Avx512Vnni { vbmi: false }), want);
        }
    }
}
