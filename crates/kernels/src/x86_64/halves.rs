//! Half precision to single by the processor's own conversion: one instruction for eight values, where
//! shifts and masks take nine.

use std::arch::x86_64::*;

/// Widens values that are no NaN, as `from` has them, to as many in `out`; says whether the processor
/// can.
pub(crate) fn widen(from: &[u16], out: &mut [f32]) -> bool {
    let found = is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx2");
    if found {
        // SAFETY: AVX2 and F16C have been found.
        unsafe { widen_eight(from, out) }
    }
    found
}

#[target_feature(enable = "avx2,f16c")]
fn widen_eight(from: &[u16], out: &mut [f32]) {
    let (chunks, rest) = from.as_chunks::<8>();
    let (outs, out_rest) = out.as_chunks_mut::<8>();
    for (out, from) in outs.iter_mut().zip(chunks) {
        // SAFETY: the arrays are 16 and 32 bytes.
        unsafe {
            let halves = _mm_loadu_si128(from.as_ptr().cast());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
    if !rest.is_empty() {
        let (mut last, mut wide) = ([0; 8], [0.0; 8]);
        last[..rest.len()].copy_from_slice(rest);
        widen_eight(&last, &mut wide);
        out_rest.copy_from_slice(&wide[..rest.len()]);
    }
}
