//! Heads of 4 and 3 bits a value: the definition that training and inference share.
//!
//! The cache of BitNet a4.8 (arXiv 2411.04965, §3.1): after the rotary embedding each head of each
//! position is quantised by itself to *unsigned* integers with its largest magnitude. With `b` bits
//! and `top = 2^(b−1) − 1`
//!
//! ```text
//! amax = max(max|x|, 1e-5)
//! code = clamp(round_half_even(x · (top / amax)) + 2^(b−1), 0, 2^b − 1)
//! x    ≈ (code − 2^(b−1)) · step,   step = amax / top
//! ```
//!
//! each operation rounded once in f32, and the step kept as f32. The paper leaves granularity and
//! zero point open; this choice has an exact zero and no zero point to store. NaN counts as 0.
//!
//! Codes lie densely, eight in `b` bytes. For a head of `n` values and `L = ⌈n / 8⌉`, number `j < L`
//! of `8 b` bits holds the codes of values `j`, `L + j`, `2 L + j`, … from its lowest bits up, and
//! its byte `p` is byte `p · L + j`: neighbouring values then are neighbouring lanes of a vector
//! that is shifted as a whole.

use crate::ops::{absmax, round_small};
use crate::vectors::vectorized;

/// Codes that are packed together.
const GROUP: usize = 8;
/// Numbers of packed codes that are taken apart at once.
const LANES: usize = 8;

/// Width of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LowBits {
    /// 15 levels, two codes a byte.
    Four,
    /// Seven levels, eight codes in three bytes.
    Three,
}

impl LowBits {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Four, Self::Three];

    /// Bits of a code.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Three => 3,
        }
    }

    /// The code of 0.
    #[must_use]
    pub const fn zero(self) -> u8 {
        1 << (self.bits() - 1)
    }

    /// Bytes of a packed head of `width` values.
    #[must_use]
    pub const fn bytes(self, width: usize) -> usize {
        width.div_ceil(GROUP) * self.bits()
    }
}

/// Writes the codes of a head, `codes[i]` of `x[i]`, and returns the step.
///
/// # Panics
/// Where the lengths differ.
pub fn quantize(bits: LowBits, x: &[f32], codes: &mut [u8]) -> f32 {
    assert_eq!(x.len(), codes.len(), "one code per value");
    let zero = i32::from(bits.zero());
    let top = (zero - 1) as f32;
    vectorized(
        #[inline(always)]
        || {
            let amax = absmax(x);
            let inv = top / amax;
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (round_small(x * inv) + zero).clamp(0, 2 * zero - 1) as u8;
            }
            amax / top
        },
    )
}

/// `out[i] = (codes[i] − 2^(b−1)) · step`.
///
/// # Panics
/// Where the lengths differ.
pub fn dequantize(bits: LowBits, codes: &[u8], step: f32, out: &mut [f32]) {
    assert_eq!(codes.len(), out.len(), "one code per value");
    let zero = i32::from(bits.zero());
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (i32::from(*code) - zero) as f32 * step;
    }
}

/// Packs codes below `2^b` into [`LowBits::bytes`] bytes; where there are no more codes the bits are
/// zero.
///
/// # Panics
/// Where `packed` has another length.
pub fn pack(bits: LowBits, codes: &[u8], packed: &mut [u8]) {
    assert_eq!(packed.len(), bits.bytes(codes.len()), "room for the codes");
    let b = bits.bits();
    let lanes = packed.len() / b;
    for j in 0..lanes {
        let codes = codes[j..].iter().step_by(lanes).enumerate();
        let word = codes.fold(0, |w, (i, &code)| w | u32::from(code) << (b * i));
        let bytes = packed[j..].iter_mut().step_by(lanes);
        bytes.zip(word.to_le_bytes()).for_each(|(p, v)| *p = v);
    }
}

/// Undoes [`pack`].
///
/// # Panics
/// Where `packed` has another length than `codes` needs.
pub fn unpack(bits: LowBits, packed: &[u8], codes: &mut [u8]) {
    assert_eq!(packed.len(), bits.bytes(codes.len()), "all of the codes");
    each(bits, packed, codes, |code| code as u8);
}

/// [`unpack`] and [`dequantize`] of as many heads as there are `steps`.
pub(super) fn read(bits: LowBits, packed: &[u8], steps: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::x86_64::{LowBitHalves, LowBitVectors};
        if let Some(vectors) = LowBitVectors::detect() {
            return vectors.read(bits, packed, steps, out);
        }
        let width = out.len().checked_div(steps.len()).unwrap_or(0);
        if let Some(halves) = LowBitHalves::detect().filter(|_| LowBitHalves::takes(width)) {
            return halves.read(bits, packed, steps, out);
        }
    }
    read_portable(bits, packed, steps, out);
}

/// [`read`] by loops for any processor.
pub(crate) fn read_portable(bits: LowBits, packed: &[u8], steps: &[f32], out: &mut [f32]) {
    let zero = i32::from(bits.zero());
    let n = steps.len().max(1);
    vectorized(
        #[inline(always)]
        || {
            let heads = packed.chunks_exact((packed.len() / n).max(1));
            let outs = out.chunks_exact_mut((out.len() / n).max(1));
            for ((packed, step), out) in heads.zip(steps).zip(outs) {
                each(bits, packed, out, |code| (code as i32 - zero) as f32 * step);
            }
        },
    );
}

/// `out[h, i] = code h, i − 2^(b−1)` of packed heads of a width that is a multiple of eight: [`dequantize`] but for the
/// step.
#[cfg(target_arch = "x86_64")]
pub(super) fn signed(bits: LowBits, packed: &[u8], width: usize, out: &mut [i8]) {
    match bits {
        LowBits::Four => signed_of::<4>(packed, width, out),
        LowBits::Three => signed_of::<3>(packed, width, out),
    }
}

#[cfg(target_arch = "x86_64")]
fn signed_of<const B: usize>(packed: &[u8], width: usize, out: &mut [i8]) {
    vectorized(
        #[inline(always)]
        || {
            // The widths of heads in use, for which the lengths of all loops are constant.
            match width {
                128 => signed_rows::<B, 16>(packed, 1, out),
                96 => signed_rows::<B, 12>(packed, 1, out),
                64 => signed_rows::<B, 8>(packed, 1, out),
                _ => signed_rows::<B, 1>(packed, width / GROUP, out),
            }
        },
    );
}

/// Heads of `8 · n` times `L` values.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn signed_rows<const B: usize, const L: usize>(packed: &[u8], n: usize, out: &mut [i8]) {
    let (packed, out) = (packed.as_chunks::<L>().0, out.as_chunks_mut::<L>().0);
    let heads = packed.chunks_exact((B * n).max(1));
    for (bytes, out) in heads.zip(out.chunks_exact_mut((GROUP * n).max(1))) {
        for i in 0..GROUP {
            // Bits `B i` and following, of one byte or of two.
            let (byte, shift) = (B * i / 8, B * i % 8);
            for j in 0..n {
                let low = bytes[byte * n + j];
                let high = bytes[(byte + 1).min(B - 1) * n + j];
                for (out, (low, high)) in out[i * n + j].iter_mut().zip(low.into_iter().zip(high)) {
                    let code = (u16::from(low) | u16::from(high) << 8) >> shift & ((1 << B) - 1);
                    *out = code as i8 - (1 << (B - 1));
                }
            }
        }
    }
}

/// `out[i] = f(code i)`.
#[inline(always)]
fn each<T>(bits: LowBits, packed: &[u8], out: &mut [T], f: impl Fn(u32) -> T) {
    match bits {
        LowBits::Four => each_of::<T, 4>(packed, out, f),
        LowBits::Three => each_of::<T, 3>(packed, out, f),
    }
}

#[inline(always)]
fn each_of<T, const B: usize>(packed: &[u8], out: &mut [T], f: impl Fn(u32) -> T) {
    let lanes = packed.len() / B;
    let mut j = 0;
    // Where all numbers are full, a constant number of them at once, which becomes vectors.
    while out.len() == GROUP * lanes && lanes - j >= LANES {
        words_of::<T, B, LANES>(packed, lanes, j, out, &f);
        j += LANES;
    }
    while j < lanes {
        words_of::<T, B, 1>(packed, lanes, j, out, &f);
        j += 1;
    }
}

/// The codes of numbers `j..j + N` of `lanes`.
#[inline(always)]
fn words_of<T, const B: usize, const N: usize>(
    packed: &[u8],
    lanes: usize,
    j: usize,
    out: &mut [T],
    f: impl Fn(u32) -> T,
) {
    let mut words = [0u32; N];
    for p in 0..B {
        for (word, byte) in words.iter_mut().zip(&packed[p * lanes + j..][..N]) {
            *word |= u32::from(*byte) << (8 * p);
        }
    }
    for i in 0..GROUP {
        let Some(out) = out.get_mut(i * lanes + j..) else {
            return;
        };
        let Some(out) = out.first_chunk_mut::<N>() else {
            return;
        };
        for (out, word) in out.iter_mut().zip(words) {
            *out = f(word >> (B * i) & ((1 << B) - 1));
        }
    }
}
