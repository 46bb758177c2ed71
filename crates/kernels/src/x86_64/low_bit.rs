//! Heads of 4 and 3 bits a value as f32, 16 values at a time.

use std::arch::x86_64::*;

use crate::kv::low_bit::LowBits;

/// A processor with AVX-512 F, BW and VL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowBitVectors(());

impl LowBitVectors {
    /// The loops, where this processor can run them.
    #[inline]
    pub(crate) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        found.then_some(Self(()))
    }

    /// `out[h, i] = (code h, i − 2^(b−1)) · steps[h]`.
    ///
    /// # Panics
    /// Where `packed` has another length than so many heads need.
    #[inline]
    pub(crate) fn read(self, bits: LowBits, packed: &[u8], steps: &[f32], out: &mut [f32]) {
        let heads = steps.len();
        let bytes = bits.bytes(out.len() / heads.max(1));
        assert_eq!(packed.len(), heads * bytes, "all of the codes");
        // SAFETY: `detect` has found AVX-512 F, BW and VL.
        unsafe {
            match bits {
                LowBits::Four => rows::<4>(packed, steps, out),
                LowBits::Three => rows::<3>(packed, steps, out),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn rows<const B: usize>(packed: &[u8], steps: &[f32], out: &mut [f32]) {
    let n = steps.len().max(1);
    let width = out.len() / n;
    let outs = out.chunks_exact_mut(width.max(1));
    let heads = packed.chunks_exact((packed.len() / n).max(1));
    let all = heads.zip(steps).zip(outs);
    // The widths of heads in use, for which all lengths and masks are constant.
    match width {
        128 => all.for_each(|((packed, step), out)| whole::<B, 16>(packed, *step, out)),
        96 => all.for_each(|((packed, step), out)| whole::<B, 12>(packed, *step, out)),
        64 => all.for_each(|((packed, step), out)| whole::<B, 8>(packed, *step, out)),
        _ => all.for_each(|((packed, step), out)| any::<B>(packed, *step, out)),
    }
}

/// `8 · L` values, `L` at most 16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn whole<const B: usize, const L: usize>(packed: &[u8], step: f32, out: &mut [f32]) {
    let mut words = _mm512_setzero_si512();
    // The highest byte first.
    for bytes in packed.as_chunks::<L>().0.iter().rev() {
        words = _mm512_or_si512(_mm512_slli_epi32::<8>(words), load(bytes));
    }
    for (i, out) in out.as_chunks_mut::<L>().0.iter_mut().enumerate() {
        let shift = _mm512_set1_epi32((B * i) as i32);
        store(out, values::<B>(_mm512_srlv_epi32(words, shift), step));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn any<const B: usize>(packed: &[u8], step: f32, out: &mut [f32]) {
    let lanes = packed.len() / B;
    for first in (0..lanes).step_by(16) {
        let mut words = _mm512_setzero_si512();
        for p in (0..B).rev() {
            let bytes = load(&packed[p * lanes..][..lanes][first..]);
            words = _mm512_or_si512(_mm512_slli_epi32::<8>(words), bytes);
        }
        for start in (first..out.len()).step_by(lanes) {
            let end = out.len().min(start + lanes - first);
            store(&mut out[start..end], values::<B>(words, step));
            words = _mm512_srl_epi32(words, _mm_cvtsi32_si128(B as i32));
        }
    }
}

/// What the codes in the lowest bits of `words` stand for.
#[inline]
#[target_feature(enable = "avx512f")]
fn values<const B: usize>(words: __m512i, step: f32) -> __m512 {
    let code = _mm512_and_si512(words, _mm512_set1_epi32((1 << B) - 1));
    let code = _mm512_sub_epi32(code, _mm512_set1_epi32(1 << (B - 1)));
    _mm512_mul_ps(_mm512_cvtepi32_ps(code), _mm512_set1_ps(step))
}

/// The first 16 of `bytes`, with zeros after the last, as u32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn load(bytes: &[u8]) -> __m512i {
    // SAFETY: only bytes of the slice are read.
    let bytes = unsafe { _mm_maskz_loadu_epi8(mask(bytes.len()), bytes.as_ptr().cast()) };
    _mm512_cvtepu8_epi32(bytes)
}

/// Writes as many of 16 values as `out` has room for.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32], values: __m512) {
    // SAFETY: only values of the slice are written.
    unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask(out.len()), values) }
}

/// The first `n` of 16 lanes, all where there are more.
#[inline]
fn mask(n: usize) -> u16 {
    (((1u32 << n.min(16)) - 1) & 0xFFFF) as u16
}
