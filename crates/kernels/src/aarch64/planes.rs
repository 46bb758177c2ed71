//! Blocks of packed weights taken apart into planes.
//!
//! Arm multiplies signed bytes, so the numbers whose sums [`crate::planes::Planes::separate`] takes,
//! which go to 255, are of no use here. Digits are masked where they are instead, and their sums
//! multiples of what they count there.

use core::arch::aarch64::*;

use super::base3::negated_and_rest;

/// The digits of `P` planes, some of them negated or times a power of two, which [`separate`] undoes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiples<const P: usize>(w: uint8x16_t) -> [int8x16_t; P] {
    let mut out = [vreinterpretq_s8_u8(w); P];
    if P == 4 {
        let masked = |mask| vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(mask)));
        out[0] = masked(0x03);
        out[1] = masked(0x0C);
        out[2] = masked(0x30);
        out[3] = vreinterpretq_s8_u8(vshrq_n_u8::<6>(w));
    } else {
        let [first, second, rest] = negated_and_rest(w);
        out[0] = first;
        out[1] = second;
        out[2] = vandq_s8(rest, vdupq_n_s8(0x03));
        out[3] = vandq_s8(rest, vdupq_n_s8(0x0C));
        out[4] = vshrq_n_s8::<4>(rest);
    }
    out
}

/// Sums of digits from sums of [`multiples`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn separate<const P: usize>(mut sums: [int32x4_t; P]) -> [int32x4_t; P] {
    if P == 4 {
        sums[1] = vshrq_n_s32::<2>(sums[1]);
        sums[2] = vshrq_n_s32::<4>(sums[2]);
    } else {
        sums[0] = vnegq_s32(sums[0]);
        sums[1] = vnegq_s32(sums[1]);
        sums[3] = vshrq_n_s32::<2>(sums[3]);
    }
    sums
}

/// The digits of `P` planes, 0…2.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn digits<const P: usize>(w: uint8x16_t) -> [int8x16_t; P] {
    let mut out = multiples::<P>(w);
    if P == 4 {
        let low = |w| vreinterpretq_s8_u8(vandq_u8(w, vdupq_n_u8(0x03)));
        out[1] = low(vshrq_n_u8::<2>(w));
        out[2] = low(vshrq_n_u8::<4>(w));
    } else {
        out[0] = vnegq_s8(out[0]);
        out[1] = vnegq_s8(out[1]);
        out[3] = vshrq_n_s8::<2>(out[3]);
    }
    out
}
