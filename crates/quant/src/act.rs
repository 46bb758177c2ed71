//! Activation quantisers of one token. Here the INT8 one of BitNet b1.58 (arXiv 2402.17764, §2), as
//! the code of "Training Tips, Code and FAQ" states it; the others in the modules below.

pub mod fp4;
pub mod int4;
mod token;
pub mod top_k;

pub use token::TokenQuantiser;

use crate::ternary::EPS;

/// Independent maxima in [`absmax`], so that the loop becomes vector code.
const LANES: usize = 16;

/// 1.5 · 2²³: adding it to `|v| < 2²²` leaves `round_ties_even(v)` in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// Largest `|x|`, at least [`EPS`]. NaN is passed over.
#[must_use]
#[inline]
pub fn absmax(x: &[f32]) -> f32 {
    let mut lanes = [EPS; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            let v = v.abs();
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let all = lanes.iter().copied().chain(tail.iter().map(|v| v.abs()));
    all.fold(EPS, f32::max)
}

/// Quantises one token and returns the step `s` by which a code is dequantised, `x ≈ s · code`.
///
/// `amax = max(|x|, 1e-5)`, `code = clamp(round_ties_even(x · (127 / amax)), −128, 127)`,
/// `s = amax / 127`, all in f32 and in this order, so that training and inference agree bit for
/// bit. NaN gets code 0.
///
/// # Panics
/// Where `x` and `codes` differ in length.
#[inline]
pub fn absmax_int8(x: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(x.len(), codes.len(), "one code per activation");
    let amax = absmax(x);
    let inv = 127.0f32 / amax;
    for (code, &v) in codes.iter_mut().zip(x) {
        // |v · inv| is at most 127 and a rounding error, where the sum rounds exactly as
        // `round_ties_even` does; the clamp to −128…127 can therefore never bite. Infinities
        // (inv = 0) make NaN.
        let scaled = v * inv;
        let rounded = (scaled + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        *code = if scaled.is_nan() { 0 } else { rounded as i8 };
    }
    amax / 127.0f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The formula as the paper's code has it, one operation after another.
    fn reference(x: &[f32]) -> (Vec<i8>, f32) {
        let amax = x.iter().fold(EPS, |m, v| v.abs().max(m));
        let inv = 127.0f32 / amax;
        let code = |v: &f32| (v * inv).round_ties_even().clamp(-128.0, 127.0) as i8;
        (x.iter().map(code).collect(), amax / 127.0f32)
    }

    fn check(x: &[f32]) {
        let mut codes = vec![99; x.len()];
        let step = absmax_int8(x, &mut codes);
        let (want, want_step) = reference(x);
        assert_eq!(codes, want);
        assert_eq!(step.to_bits(), want_step.to_bits());
    }

    #[test]
    fn ties_zeros_and_not_numbers() {
        check(&[]);
        check(&[0.0; 40]);
        check(&[
            127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5, -127.0,
        ]);
        check(&[f32::NAN, 1.0, -0.25]);
        check(&[f32::INFINITY, 1.0, f32::NEG_INFINITY]);
        check(&[f32::MAX, f32::MIN, 1e-38]);
        check(&[1e-9, -1e-7, 3e-6]);
    }

    proptest! {
        #[test]
        fn equals_the_formula(x in prop::collection::vec(-1e4f32..1e4, 0..200)) {
            check(&x);
        }

        #[test]
        fn equals_the_formula_on_any_bits(bits in prop::collection::vec(any::<u32>(), 0..64)) {
            check(&bits.into_iter().map(f32::from_bits).collect::<Vec<_>>());
        }
    }
}
