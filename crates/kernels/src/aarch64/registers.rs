//! Loads, stores and instructions without stable intrinsics.

use core::arch::aarch64::*;
use core::arch::asm;

use super::word;
use crate::layout::QUAD;

/// `sum + a · b`, four bytes of each to a lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: an instruction on registers, which the feature says exists; its intrinsic is not
    // stable.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// [`sdot`] with lane `L` of `b` in place of each lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot_lane<const L: i32>(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!(
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[{3}]",
            inout(vreg) sum, in(vreg) a, in(vreg) b, const L,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// `sum + a · bᵀ`, each a matrix of two rows of eight bytes.
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as in `sdot`.
    unsafe {
        asm!(
            "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) sum, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// 16 bytes of weights or of a table.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: the array is 16 bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// 16 activations.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_codes(x: &[i8; 16]) -> int8x16_t {
    // SAFETY: the array is 16 bytes.
    unsafe { vld1q_s8(x.as_ptr()) }
}

/// Eight activations of each of two tokens.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_pair(a: &[i8; 8], b: &[i8; 8]) -> int8x16_t {
    // SAFETY: the arrays are 8 bytes.
    unsafe { vcombine_s8(vld1_s8(a.as_ptr()), vld1_s8(b.as_ptr())) }
}

/// Four activations twice.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn broadcast(x: &[i8; QUAD]) -> int8x8_t {
    vreinterpret_s8_s32(vdup_n_s32(word(*x)))
}

/// Writes four sums.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(out: &mut [i32; 4], sums: int32x4_t) {
    // SAFETY: the array is 16 bytes.
    unsafe { vst1q_s32(out.as_mut_ptr(), sums) }
}

/// Writes two sums.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store_pair(out: &mut [i32; 2], sums: int32x2_t) {
    // SAFETY: the array is 8 bytes.
    unsafe { vst1_s32(out.as_mut_ptr(), sums) }
}
