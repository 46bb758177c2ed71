//! Values as blocks of the types that embeddings are stored in: Q8_0 and Q6_K.

use super::kind::TensorKind;

/// Values of a Q6_K block that share a scale.
const SUB: usize = 16;
/// Values of a Q6_K block.
const SUPER: usize = 256;

/// Appends a row as whole blocks of `kind`, Q8_0 or Q6_K. Says whether every block has a finite
/// scale.
///
/// # Panics
/// Where the row is no multiple of the blocks of `kind`.
pub(super) fn row(kind: TensorKind, values: &[f32], out: &mut Vec<u8>) -> bool {
    let len = kind.block_len();
    assert!(values.len().is_multiple_of(len), "whole blocks");
    let mut finite = true;
    for block in values.chunks_exact(len) {
        finite &= block.iter().all(|v| v.is_finite());
        finite &= match kind {
            TensorKind::Q8_0 => q8_0(block, out),
            _ => q6_k(block, out),
        };
    }
    finite
}

/// The largest value becomes ±127. Codes are of the scale before it is rounded to f16, halves away
/// from zero: the bytes that llama.cpp's reference makes.
fn q8_0(values: &[f32], out: &mut Vec<u8>) -> bool {
    let step = values.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let stored = half::f16::from_f32(step);
    out.extend(stored.to_le_bytes());
    out.extend(values.iter().map(|v| (v * inverse).round() as i8 as u8));
    stored.is_finite()
}

/// Six bits a value, eight bits a scale of 16 values, and one f16 for all.
fn q6_k(values: &[f32], out: &mut Vec<u8>) -> bool {
    let mut steps = [0f32; SUPER / SUB];
    for (step, part) in steps.iter_mut().zip(values.chunks_exact(SUB)) {
        *step = best_step(part);
    }
    // The largest becomes −128, which the codes of scales reach and 128 is none of.
    let largest = steps.iter().fold(0f32, |m, &s| match s.abs() > m.abs() {
        true => s,
        false => m,
    });
    let unit = half::f16::from_f32(largest / -128.0);
    let rounded = unit.to_f32();
    let start = out.len();
    out.resize(start + TensorKind::Q6K.block_bytes(), 0);
    let block = &mut out[start..];
    block[208..].copy_from_slice(&unit.to_le_bytes());
    if rounded == 0.0 || !rounded.is_finite() {
        return rounded.is_finite();
    }
    for (i, (step, part)) in steps.iter().zip(values.chunks_exact(SUB)).enumerate() {
        let scale = (step / rounded).round_ties_even().clamp(-128.0, 127.0) as i8;
        block[192 + i] = scale.cast_unsigned();
        let step = rounded * f32::from(scale);
        for (j, v) in part.iter().enumerate() {
            put(block, i * SUB + j, code(*v, step));
        }
    }
    true
}

/// Writes code −32…31 of value `at` where the reader looks for it.
fn put(block: &mut [u8], at: usize, code: i8) {
    let bits = (code + 32).cast_unsigned();
    let (half, at) = (at / 128, at % 128);
    let (quarter, l) = (at / 32, at % 32);
    block[64 * half + l + 32 * (quarter % 2)] |= (bits & 15) << (4 * (quarter / 2));
    block[128 + 32 * half + l] |= (bits >> 4) << (2 * quarter);
}

fn code(value: f32, step: f32) -> i8 {
    if step == 0.0 {
        return 0;
    }
    (value / step).round_ties_even().clamp(-32.0, 31.0) as i8
}

/// The step that leaves the smallest squared error on values that become codes −32…31.
///
/// The value that is furthest from zero takes the end of the range, which is the negative one. Steps
/// around that are tried, each replaced by the least-squares step of the codes that it gives.
fn best_step(values: &[f32]) -> f32 {
    let far = values.iter().fold(0f32, |m, &v| match v.abs() > m.abs() {
        true => v,
        false => m,
    });
    let end = far / -32.0;
    if end == 0.0 || !end.is_finite() {
        return 0.0;
    }
    let error = |step: f32| -> f64 {
        let loss = |v: &f32| f64::from(*v - step * f32::from(code(*v, step))).powi(2);
        values.iter().map(loss).sum()
    };
    let mut best = (error(end), end);
    for tenths in -9i8..=9 {
        if best.0 == 0.0 {
            break;
        }
        let tried = far / -(32.0 + 0.1 * f32::from(tenths));
        let (mut product, mut square) = (0f64, 0f64);
        for v in values {
            let q = f64::from(code(*v, tried));
            product += q * f64::from(*v);
            square += q * q;
        }
        let step = if square > 0.0 { product / square } else { 0.0 } as f32;
        let loss = error(step);
        if loss < best.0 {
            best = (loss, step);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::dequant::dequantize;
    use super::*;

    /// Largest error of a value of a block.
    fn bound(kind: TensorKind, block: &[f32]) -> f32 {
        let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        match kind {
            // Half a step, and the step's own rounding to 11 bits over 127 steps.
            TensorKind::Q8_0 => largest * (0.5 / 127.0 + 1.0 / 2048.0) * 1.001,
            // A step of 1/32 at most: values at the positive end are cut off.
            _ => largest * (1.2 / 32.0),
        }
    }

    fn back(kind: TensorKind, bytes: &[u8], len: usize) -> Vec<f32> {
        let mut values = vec![0.0; len];
        dequantize(kind, bytes, &mut values);
        values
    }

    proptest! {
        #[test]
        fn errors_stay_within_the_steps(
            values in prop::collection::vec(-4f32..4.0, 512), scale in 1e-3f32..100.0,
        ) {
            let values: Vec<f32> = values.iter().map(|v| v * scale).collect();
            for kind in [TensorKind::Q8_0, TensorKind::Q6K] {
                let mut bytes = Vec::new();
                prop_assert!(row(kind, &values, &mut bytes));
                prop_assert_eq!(bytes.len(), kind.tensor_bytes(1, 512).unwrap());
                let len = kind.block_len();
                let found = back(kind, &bytes, 512);
                for (want, found) in values.chunks(len).zip(found.chunks(len)) {
                    let bound = bound(kind, want);
                    for (want, found) in want.iter().zip(found) {
                        prop_assert!((want - found).abs() <= bound, "{kind:?} {want} {found}");
                    }
                }
            }
        }

        /// Blocks that use the whole range of their codes are what they become again.
        #[test]
        fn stored_values_come_back_bit_for_bit(
            codes in prop::collection::vec(-32i8..=31, SUPER),
            scales in prop::collection::vec(prop_oneof![-128i8..=-1, 1i8..=127], SUPER / SUB),
            unit in 1u16..64,
        ) {
            let unit = half::f16::from_f32(f32::from(unit) / 1024.0).to_f32();
            let mut values = Vec::new();
            for (i, (codes, scale)) in codes.chunks(SUB).zip(&scales).enumerate() {
                // The first scale is the largest, the first code of each part the last.
                let scale = if i == 0 { -128.0 } else { f32::from(*scale) };
                values.extend(codes.iter().enumerate().map(|(j, code)| {
                    unit * scale * if j == 0 { -32.0 } else { f32::from(*code) }
                }));
            }
            let mut bytes = Vec::new();
            prop_assert!(row(TensorKind::Q6K, &values, &mut bytes));
            prop_assert_eq!(back(TensorKind::Q6K, &bytes, SUPER), values);

            let mut values: Vec<f32> = codes.iter().map(|c| f32::from(*c) * unit).collect();
            values.iter_mut().step_by(32).for_each(|v| *v = -127.0 * unit);
            bytes.clear();
            prop_assert!(row(TensorKind::Q8_0, &values, &mut bytes));
            prop_assert_eq!(back(TensorKind::Q8_0, &bytes, SUPER), values);
        }
    }

    /// A number for other formats of six bits to compare with.
    #[test]
    fn q6_k_leaves_3e_4_of_normal_values() {
        let mut state = 9u64;
        let mut uniform = || {
            let factor = 6_364_136_223_846_793_005;
            state = state
                .wrapping_mul(factor)
                .wrapping_add(1_442_695_040_888_963);
            ((state >> 33) as f64 + 0.5) / f64::from(1u32 << 31)
        };
        let mut normal = || {
            let (a, b) = (uniform(), uniform());
            ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
        };
        let values: Vec<f32> = (0..640 * SUPER).map(|_| normal()).collect();
        let mut bytes = Vec::new();
        assert!(row(TensorKind::Q6K, &values, &mut bytes));
        let read = back(TensorKind::Q6K, &bytes, values.len());
        let square = |v: f32| f64::from(v) * f64::from(v);
        let lost: f64 = values.iter().zip(&read).map(|(v, r)| square(v - r)).sum();
        let share = lost / values.iter().map(|v| square(*v)).sum::<f64>();
        eprintln!("{share:e}");
        assert!((share - 2.99e-4).abs() < 0.03e-4, "{share:e}");
    }

    #[test]
    fn zeros_tiny_and_damaged_values() {
        for kind in [TensorKind::Q8_0, TensorKind::Q6K] {
            for (value, fits) in [(0.0, true), (1e-30, true), (f32::NAN, false), (3e38, false)] {
                let mut bytes = Vec::new();
                assert_eq!(row(kind, &[value; SUPER], &mut bytes), fits, "{value}");
                let zeros = back(kind, &bytes, SUPER).iter().all(|v| *v == 0.0);
                assert!(zeros || !fits);
            }
        }
    }
}
