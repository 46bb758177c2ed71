//! Bytes of five trits taken apart in 512-bit registers: see [`crate::base3`].

use std::arch::asm;
use std::arch::x86_64::*;

use crate::base3::{FIRST, FIRST_OF_64, MIDDLE, MIDDLE_OF_64, PAIR, PAIR_OF_64, QUOTIENT};

/// The numbers whose sums [`crate::planes::Planes::separate`] takes. With `VBMI` tables have 64
/// entries and not 16.
///
/// # Safety
/// With `VBMI` the processor must have AVX-512 VBMI. A function of that feature could not be part
/// of loops without it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn numbers<const VBMI: bool>(w: __m512i) -> [__m512i; 5] {
    let [first, counted, middle, left] = if VBMI {
        // SAFETY: the caller's promise.
        unsafe { by_permutes(w) }
    } else {
        by_shuffles(w)
    };
    let third = _mm512_and_si512(middle, _mm512_set1_epi8(3));
    [first, counted, third, middle, left]
}

/// # Safety
/// The processor must have AVX-512 VBMI.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn by_permutes(w: __m512i) -> [__m512i; 4] {
    // Bits of the neighbour come in above those that are an index.
    let bits = _mm512_srli_epi16::<2>(w);
    // SAFETY: the caller's promise.
    unsafe {
        let counted = permute(&PAIR_OF_64, bits);
        let left = _mm512_sub_epi8(w, counted);
        let middle = permute(&MIDDLE_OF_64, left);
        [permute(&FIRST_OF_64, bits), counted, middle, left]
    }
}

/// The entry of each byte's low six bits.
///
/// # Safety
/// The processor must have AVX-512 VBMI.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn permute(table: &[u8; 64], index: __m512i) -> __m512i {
    let out: __m512i;
    // SAFETY: the array is 64 bytes; the rest is an instruction on registers, which the caller
    // knows to exist.
    unsafe {
        let table = _mm512_loadu_si512(table.as_ptr().cast());
        asm!(
            "vpermb {}, {}, {}",
            lateout(zmm_reg) out, in(zmm_reg) index, in(zmm_reg) table,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn by_shuffles(w: __m512i) -> [__m512i; 4] {
    // Products of words: an even byte alone in its word gives the quotient in the low byte, an odd
    // one in the high byte above what is then replaced.
    let (low, factor) = (_mm512_set1_epi16(0x00FF), _mm512_set1_epi16(QUOTIENT));
    let even = _mm512_mulhi_epu16(_mm512_and_si512(w, low), factor);
    let odd = _mm512_mulhi_epu16(_mm512_andnot_si512(low, w), factor);
    // low ? even : odd
    let pair = _mm512_ternarylogic_epi32::<0xCA>(low, even, odd);
    let counted = _mm512_shuffle_epi8(quarters(&PAIR), pair);
    let left = _mm512_sub_epi8(w, counted);
    let upper = _mm512_test_epi8_mask(left, _mm512_set1_epi8(16));
    let lower = _mm512_shuffle_epi8(quarters(&MIDDLE[0]), left);
    let middle = _mm512_mask_shuffle_epi8(lower, upper, quarters(&MIDDLE[1]), left);
    let first = _mm512_shuffle_epi8(quarters(&FIRST), pair);
    [first, counted, middle, left]
}

/// The table in each quarter of a register.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(table: &[u8; 16]) -> __m512i {
    // SAFETY: the array is 16 bytes.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}
