//! The per-token INT4 absmean quantiser of BitNet a4.8 (arXiv 2411.04965, Eq. 1–2).

use crate::ternary::absmean;

/// √7: the largest positive code's root, by which the paper scales the mean.
pub const SQRT_7: f32 = 2.645_751_3;

/// Quantises one token and returns its step.
///
/// `β = max(mean|x|, 1e-5)`, `code = clamp(round_ties_even(x · (√7 / β)), −8, 7)`, `step = β / √7`.
/// The paper leaves open what β covers; here a token, as in BitNet b1.58. NaN gets code 0.
///
/// # Panics
/// Where `x` and `codes` differ in length.
pub fn absmean_int4(x: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(x.len(), codes.len(), "one code per activation");
    let beta = mean_of_numbers(x);
    let inv = SQRT_7 / beta;
    for (code, v) in codes.iter_mut().zip(x) {
        *code = (v * inv).round_ties_even().clamp(-8.0, 7.0) as i8;
    }
    beta / SQRT_7
}

/// [`absmean`], where NaN counts as zero.
#[allow(clippy::cast_precision_loss)]
fn mean_of_numbers(x: &[f32]) -> f32 {
    let beta = absmean(x);
    if beta > crate::ternary::EPS || !x.iter().any(|v| v.is_nan()) {
        return beta;
    }
    let numbers: Vec<f32> = x
        .iter()
        .map(|v| if v.is_nan() { 0.0 } else { *v })
        .collect();
    absmean(&numbers)
}
