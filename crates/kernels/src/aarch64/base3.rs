//! Bytes of five trits taken apart: see [`crate::base3`]. The first two digits are found by comparing,
//! which every processor does faster than it looks up tables of 64 entries.

use core::arch::aarch64::*;

use super::registers::load;
use crate::base3::table;

/// `d₂ + 4 d₃ + 16 d₄`, by what is left of a byte.
const REST: [[u8; 16]; 2] = [
    table!(|i| i / 9 % 3 + i / 3 % 3 * 4 + i % 3 * 16),
    table!(|i| (16 + i) / 9 % 3 + (16 + i) / 3 % 3 * 4 + (16 + i) % 3 * 16),
];

/// The first two digits, negated, and the other three side by side, `d₂ + 4 d₃ + 16 d₄`.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn negated_and_rest(w: uint8x16_t) -> [int8x16_t; 3] {
    let first = negated::<84>(w);
    let w = vmlaq_u8(w, first, vdupq_n_u8(84));
    let second = negated::<28>(w);
    let w = vmlaq_u8(w, second, vdupq_n_u8(28));
    let rest = vqtbl2q_u8(uint8x16x2_t(load(&REST[0]), load(&REST[1])), w);
    [
        vreinterpretq_s8_u8(first),
        vreinterpretq_s8_u8(second),
        vreinterpretq_s8_u8(rest),
    ]
}

/// How often `PLACE` goes into each byte, which is below three times that, negated.
#[inline]
#[target_feature(enable = "neon")]
fn negated<const PLACE: u8>(w: uint8x16_t) -> uint8x16_t {
    // A comparison that holds gives −1.
    let once = vcgeq_u8(w, vdupq_n_u8(PLACE));
    vaddq_u8(once, vcgeq_u8(w, vdupq_n_u8(2 * PLACE)))
}
