//! Half precision to single by the processor's own conversion: one instruction for eight values,
//! where shifts and masks take nine.

use std::arch::x86_64::*;

use super::prefetch::after_line;

/// Values of a line of memory.
const LINE: usize = 32;

/// Widens values that are no NaN, the first of `from`, to as many as `out` has; says whether the
/// processor can. Those behind them are asked for, since they come next.
pub(crate) fn widen(from: &[u16], out: &mut [f32]) -> bool {
    let found = is_x86_feature_detected!("f16c") && is_x86_feature_detected!("avx2");
    if found {
        // SAFETY: AVX2 and F16C have been found.
        unsafe { widen_lines(from, out) }
    }
    found
}

#[target_feature(enable = "avx2,f16c")]
fn widen_lines(all: &[u16], out: &mut [f32]) {
    let (lines, rest) = all[..out.len()].as_chunks::<LINE>();
    let (outs, out_rest) = out.as_chunks_mut::<LINE>();
    let end = all.as_ptr_range().end.cast();
    for (out, line) in outs.iter_mut().zip(lines) {
        after_line(line.as_ptr().cast(), end);
        widen_line(line, out);
    }
    if !rest.is_empty() {
        let (mut last, mut wide) = ([0; LINE], [0.0; LINE]);
        last[..rest.len()].copy_from_slice(rest);
        widen_line(&last, &mut wide);
        out_rest.copy_from_slice(&wide[..rest.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_line(line: &[u16; LINE], out: &mut [f32; LINE]) {
    let outs = out.as_chunks_mut::<8>().0;
    for (out, from) in outs.iter_mut().zip(line.as_chunks::<8>().0) {
        // SAFETY: the arrays are 16 and 32 bytes.
        unsafe {
            let halves = _mm_loadu_si128(from.as_ptr().cast());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
}
