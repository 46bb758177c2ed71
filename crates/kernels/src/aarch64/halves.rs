//! Half precision to single by the processor's own conversion: one instruction for four values,
//! where shifts and masks take five.

use core::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

/// Values of a register of halves.
const LANES: usize = 8;

/// Widens values that are no NaN, the first of `from`, to as many as `out` has; says whether the
/// processor can.
pub(crate) fn widen(from: &[u16], out: &mut [f32]) -> bool {
    let found = is_aarch64_feature_detected!("neon");
    if found {
        // SAFETY: NEON has been found.
        unsafe { widen_all(&from[..out.len()], out) }
    }
    found
}

#[target_feature(enable = "neon")]
fn widen_all(from: &[u16], out: &mut [f32]) {
    let (registers, rest) = from.as_chunks::<LANES>();
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    for (out, from) in outs.iter_mut().zip(registers) {
        widen_register(from, out);
    }
    if !rest.is_empty() {
        let (mut last, mut wide) = ([0; LANES], [0.0; LANES]);
        last[..rest.len()].copy_from_slice(rest);
        widen_register(&last, &mut wide);
        out_rest.copy_from_slice(&wide[..rest.len()]);
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn widen_register(from: &[u16; LANES], out: &mut [f32; LANES]) {
    let [low, high] = out.as_chunks_mut::<4>().0 else {
        return;
    };
    // SAFETY: the arrays are 16 bytes each.
    unsafe {
        let halves = vreinterpretq_f16_u16(vld1q_u16(from.as_ptr()));
        vst1q_f32(low.as_mut_ptr(), vcvt_f32_f16(vget_low_f16(halves)));
        vst1q_f32(high.as_mut_ptr(), vcvt_high_f32_f16(halves));
    }
}
