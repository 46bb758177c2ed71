//! Ternary codes and full-precision values as they are stored.

use super::kind::{I2S_TAIL, TensorKind};
use super::requant;

/// Appends a row of codes, each −1, 0 or +1, as whole blocks of a ternary type. `scales` are what a
/// code of 1 stands for in each block; types with f16 scales hold the nearest f16,
/// [`TensorKind::I2S`] has one in [`i2s_tail`].
///
/// # Panics
/// Where the row is no multiple of the blocks of `kind`, or there are not as many scales.
pub(super) fn ternary_row(kind: TensorKind, codes: &[i8], scales: &[f32], out: &mut Vec<u8>) {
    let len = kind.block_len();
    assert_eq!(codes.len(), scales.len() * len, "whole blocks");
    for (block, scale) in codes.chunks_exact(len).zip(scales) {
        let scale = half::f16::from_f32(*scale).to_le_bytes();
        match kind {
            TensorKind::I2S => two_bits(block, |quarter| 6 - 2 * quarter, out),
            TensorKind::Tq2_0 => {
                for half in block.chunks_exact(128) {
                    two_bits(half, |quarter| 2 * quarter, out);
                }
                out.extend(scale);
            }
            TensorKind::Q2_0 => {
                out.extend(scale);
                let bits = |code: &i8| (code + 1).cast_unsigned();
                let byte = |four: &[i8; 4]| four.iter().rev().fold(0, |b, c| b << 2 | bits(c));
                out.extend(block.as_chunks().0.iter().map(byte));
            }
            _ => {
                base_3(block, out);
                out.extend(scale);
            }
        }
    }
}

/// What follows the codes of an [`TensorKind::I2S`] tensor.
pub(super) fn i2s_tail(scale: f32) -> [u8; I2S_TAIL] {
    let mut tail = [0; I2S_TAIL];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    tail
}

/// 128 codes in 32 bytes, one of each quarter in a byte.
fn two_bits(codes: &[i8], shift: impl Fn(usize) -> usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 32, 0);
    for (quarter, codes) in codes.chunks_exact(32).enumerate() {
        for (byte, code) in out[start..].iter_mut().zip(codes) {
            *byte |= (code + 1).cast_unsigned() << shift(quarter);
        }
    }
}

/// 256 codes as digits to base 3: five a byte for the first 240, four for the others. A byte is the
/// number as a fraction of 256, rounded up, so that its digits come out by multiplying with 3.
fn base_3(codes: &[i8], out: &mut Vec<u8>) {
    let mut rest = codes;
    for (bytes, digits) in [(32, 5), (16, 5), (4, 4)] {
        let (part, others) = rest.split_at(bytes * digits);
        for i in 0..bytes {
            let digit = |d: usize| u16::from((part[d * bytes + i] + 1).cast_unsigned());
            let number = (0..digits).fold(0, |n, d| 3 * n + digit(d));
            // Four digits count as five of which the last is 0.
            let number = if digits == 4 { 3 * number } else { number };
            out.push((number * 256).div_ceil(243) as u8);
        }
        rest = others;
    }
}

/// Appends a row of values as `kind`, F32, F16, BF16, Q8_0 or Q6_K. Says whether all of them are
/// finite there.
pub(super) fn values(kind: TensorKind, values: &[f32], out: &mut Vec<u8>) -> bool {
    if matches!(kind, TensorKind::Q8_0 | TensorKind::Q6K) {
        return requant::row(kind, values, out);
    }
    let mut finite = true;
    for &v in values {
        match kind {
            TensorKind::F16 => {
                let v = half::f16::from_f32(v);
                finite &= v.is_finite();
                out.extend(v.to_le_bytes());
            }
            TensorKind::Bf16 => {
                let v = half::bf16::from_f32(v);
                finite &= v.is_finite();
                out.extend(v.to_le_bytes());
            }
            _ => {
                finite &= v.is_finite();
                out.extend(v.to_le_bytes());
            }
        }
    }
    finite
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::ternary::{TernaryScales, decode};
    use super::*;

    proptest! {
        #[test]
        fn codes_and_scales_come_back(
            codes in prop::collection::vec(-1i8..=1, 512), scale in 1e-3f32..10.0,
        ) {
            prop_assume!(codes.iter().any(|&c| c != 0));
            for kind in [TensorKind::Tq1_0, TensorKind::Tq2_0, TensorKind::Q2_0, TensorKind::I2S] {
                let mut bytes = Vec::new();
                let scales = vec![scale; 256 / kind.block_len()];
                codes.chunks(256).for_each(|row| ternary_row(kind, row, &scales, &mut bytes));
                let want = if kind == TensorKind::I2S {
                    bytes.extend(i2s_tail(scale));
                    scale
                } else {
                    half::f16::from_f32(scale).to_f32()
                };
                prop_assert_eq!(bytes.len(), kind.tensor_bytes(2, 256).unwrap());
                let back = decode(kind, &bytes, 256).unwrap().unwrap();
                prop_assert_eq!(&back.codes, &codes);
                prop_assert_eq!(back.scales, TernaryScales::Tensor(want));
            }
        }
    }

    #[test]
    fn values_too_large_for_f16_are_told() {
        let mut out = Vec::new();
        assert!(values(TensorKind::F16, &[1.0, 65504.0], &mut out));
        assert!(!values(TensorKind::F16, &[7e4], &mut out));
        assert!(!values(TensorKind::Bf16, &[f32::NAN], &mut out));
        assert!(values(TensorKind::F32, &[1e30], &mut out));
    }
}
