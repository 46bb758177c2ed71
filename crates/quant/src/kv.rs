//! Quantisers of the key and value cache (BitNet a4.8, arXiv 2411.04965, §3.1): unsigned codes,
//! absmax of each head of each position, after the rotary embedding.
//!
//! The paper says neither how unsigned codes stand for signed values nor what a scale covers. Here
//! zero is the middle code, `2^(bits − 1)`, and the largest magnitude of a head maps to a distance
//! of `2^(bits − 1) − 1` from it.

use crate::ternary::EPS;

/// Widths of cache codes.
pub const BITS: [u8; 3] = [8, 4, 3];

/// Bits of the first position (bos), whose outliers 3 bits would lose.
#[must_use]
pub fn bits_at(bits: u8, position: usize) -> u8 {
    if bits == 3 && position == 0 { 4 } else { bits }
}

/// Largest distance of a code from the middle one.
#[must_use]
pub fn levels(bits: u8) -> f32 {
    f32::from((1u16 << (bits - 1)) - 1)
}

/// Quantises one head and returns its step: `x ≈ (code − 2^(bits − 1)) · step`.
///
/// `amax = max(|x|, 1e-5)`, `step = amax / levels`, `code = round_ties_even(x · (levels / amax)) +
/// 2^(bits − 1)`, in f32 and in this order. NaN gets the middle code.
///
/// # Panics
/// Where `x` and `codes` differ in length.
pub fn quantise_head(x: &[f32], bits: u8, codes: &mut [u8]) -> f32 {
    assert_eq!(x.len(), codes.len(), "one code per value");
    let (levels, middle) = (levels(bits), 1i16 << (bits - 1));
    let amax = x.iter().fold(EPS, |m, v| v.abs().max(m));
    let inv = levels / amax;
    for (code, v) in codes.iter_mut().zip(x) {
        // `as` maps NaN to 0.
        let signed = (v * inv).round_ties_even().clamp(-levels, levels) as i16;
        *code = (signed + middle) as u8;
    }
    amax / levels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_magnitude_and_zero_are_exact() {
        for bits in BITS {
            let mut codes = [0; 4];
            let step = quantise_head(&[-2.0, 0.0, 2.0, f32::NAN], bits, &mut codes);
            let middle = 1u8 << (bits - 1);
            let top = middle + (middle - 1);
            assert_eq!(codes, [1, middle, top, middle]);
            assert!((step * f32::from(middle - 1) - 2.0).abs() < 1e-6);
        }
        assert_eq!([bits_at(3, 0), bits_at(3, 1), bits_at(8, 0)], [4, 3, 8]);
    }

    proptest! {
        #[test]
        fn errors_stay_below_half_a_step(
            x in prop::collection::vec(-50f32..50.0, 1..80), which in 0usize..3,
        ) {
            let bits = BITS[which];
            let mut codes = vec![0; x.len()];
            let step = quantise_head(&x, bits, &mut codes);
            let middle = f32::from(1u8 << (bits - 1));
            for (v, &code) in x.iter().zip(&codes) {
                prop_assert!(u16::from(code) < 1 << bits);
                let error = (f32::from(code) - middle) * step - v;
                prop_assert!(error.abs() <= 0.5001 * step);
            }
        }
    }
}
