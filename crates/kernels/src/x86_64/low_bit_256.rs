//! Heads of 4 and 3 bits a value as f32 with AVX2, eight values at a time.

use std::arch::x86_64::*;

use crate::kv::low_bit::LowBits;

/// Lanes of a register, and of half of one, which a head of width 96 ends with.
const LANES: usize = 8;
const FEW: usize = LANES / 2;

/// A processor with AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowBitHalves(());

impl LowBitHalves {
    /// The loops, where this processor can run them.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Whether heads of this width can be read.
    #[inline]
    pub(crate) fn takes(width: usize) -> bool {
        width > 0 && width.is_multiple_of(8 * FEW)
    }

    /// `out[h, i] = (code h, i − 2^(b−1)) · steps[h]` for heads that [`Self::takes`] their width.
    ///
    /// # Panics
    /// Where the width is another, or `packed` has another length than so many heads need.
    #[inline]
    pub(crate) fn read(self, bits: LowBits, packed: &[u8], steps: &[f32], out: &mut [f32]) {
        let width = out.len().checked_div(steps.len()).unwrap_or(0);
        assert!(steps.is_empty() || Self::takes(width), "a width of lanes");
        let bytes = bits.bytes(width);
        assert_eq!(packed.len(), steps.len() * bytes, "all of the codes");
        // SAFETY: `detect` has found AVX2.
        unsafe {
            match bits {
                LowBits::Four => rows::<4>(packed, steps, out),
                LowBits::Three => rows::<3>(packed, steps, out),
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn rows<const B: usize>(packed: &[u8], steps: &[f32], out: &mut [f32]) {
    let n = steps.len().max(1);
    let heads = packed.chunks_exact((packed.len() / n).max(1));
    let outs = out.chunks_exact_mut((out.len() / n).max(1));
    for ((packed, &step), out) in heads.zip(steps).zip(outs) {
        let lanes = packed.len() / B;
        let mut first = 0;
        while lanes - first >= LANES {
            some_lanes::<B, LANES>(packed, step, (first, lanes), out);
            first += LANES;
        }
        if first < lanes {
            some_lanes::<B, FEW>(packed, step, (first, lanes), out);
        }
    }
}

/// `N` lanes, [`LANES`] or [`FEW`], of a head from `first` on.
#[inline]
#[target_feature(enable = "avx2")]
fn some_lanes<const B: usize, const N: usize>(
    packed: &[u8],
    step: f32,
    (first, lanes): (usize, usize),
    out: &mut [f32],
) {
    let mut words = _mm256_setzero_si256();
    // The highest byte first.
    for bytes in packed.chunks_exact(lanes).rev() {
        words = _mm256_or_si256(_mm256_slli_epi32::<8>(words), load::<N>(&bytes[first..]));
    }
    for out in out.chunks_exact_mut(lanes) {
        store::<N>(&mut out[first..], values::<B>(words, step));
        words = _mm256_srl_epi32(words, _mm_cvtsi32_si128(B as i32));
    }
}

/// What the codes in the lowest bits of `words` stand for.
#[inline]
#[target_feature(enable = "avx2")]
fn values<const B: usize>(words: __m256i, step: f32) -> __m256 {
    let code = _mm256_and_si256(words, _mm256_set1_epi32((1 << B) - 1));
    let code = _mm256_sub_epi32(code, _mm256_set1_epi32(1 << (B - 1)));
    _mm256_mul_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(step))
}

/// The first `N` of `bytes` as u32.
#[inline]
#[target_feature(enable = "avx2")]
fn load<const N: usize>(bytes: &[u8]) -> __m256i {
    let mut some = [0; LANES];
    some[..N].copy_from_slice(&bytes[..N]);
    _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(some)))
}

/// Writes the first `N` values.
#[inline]
#[target_feature(enable = "avx2")]
fn store<const N: usize>(out: &mut [f32], values: __m256) {
    let out = &mut out[..N];
    if N == LANES {
        // SAFETY: the slice is 32 bytes.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) }
    } else {
        assert_eq!(N, FEW, "all or half of a register");
        // SAFETY: the slice is 16 bytes.
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), _mm256_castps256_ps128(values)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::low_bit::read_portable;

    /// Machines with AVX-512 read by other loops.
    #[test]
    fn halves_read_what_the_portable_loop_reads() {
        let Some(halves) = LowBitHalves::detect() else {
            eprintln!("skipped: no AVX2");
            return;
        };
        for bits in [LowBits::Four, LowBits::Three] {
            for width in [32, 64, 96, 128, 160, 256] {
                assert!(LowBitHalves::takes(width));
                let steps = [0.5, -1.25, 3.0];
                let n = steps.len() * bits.bytes(width);
                let packed: Vec<u8> = (0..n).map(|i| (i * 73 % 251) as u8).collect();
                let mut both = [vec![0.0; 3 * width], vec![0.0; 3 * width]];
                halves.read(bits, &packed, &steps, &mut both[0]);
                read_portable(bits, &packed, &steps, &mut both[1]);
                assert_eq!(both[0], both[1], "{bits:?} {width}");
            }
            halves.read(bits, &[], &[], &mut []);
        }
        assert!(!LowBitHalves::takes(0) && !LowBitHalves::takes(40));
    }
}
