//! The ternary weight quantiser of BitNet b1.58 (arXiv 2402.17764, Eq. 1–3).

/// Lower bound of every quantiser's scale, of weights and activations alike: keeps an all-zero
/// tensor from dividing by zero.
pub const EPS: f32 = 1e-5;

/// Values that [`absmean`] adds one after another before it adds pairwise.
const BLOCK: usize = 64;

/// Mean of `|w|`, at least [`EPS`]: the scale of a ternary tensor.
///
/// The sum is pairwise in f32, so its error grows with the logarithm of the length and the result
/// depends on nothing but the values. NaN anywhere, or an empty tensor, gives [`EPS`].
#[must_use]
pub fn absmean(w: &[f32]) -> f32 {
    (sum_abs(w) / w.len() as f32).max(EPS)
}

fn sum_abs(w: &[f32]) -> f32 {
    sum_by(w, f32::abs)
}

/// Sum in f32, pairwise, so that it depends on nothing but the values and their order.
#[must_use]
pub fn sum_pairwise(w: &[f32]) -> f32 {
    sum_by(w, |v| v)
}

fn sum_by(w: &[f32], f: impl Fn(f32) -> f32 + Copy) -> f32 {
    if w.len() <= BLOCK {
        return w.iter().map(|&v| f(v)).sum();
    }
    let half = (w.len() / 2).next_multiple_of(BLOCK);
    let (left, right) = w.split_at(half);
    sum_by(left, f) + sum_by(right, f)
}

/// One ternary code: `round(w · (1 / scale))`, half to even, clamped to −1…1. NaN gives 0.
///
/// The reciprocal is what PyTorch's implementations multiply by; dividing would round a few codes
/// the other way.
#[must_use]
#[inline]
pub fn ternary_code(w: f32, scale: f32) -> i8 {
    // `as` maps NaN to 0.
    (w * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0) as i8
}

/// The codes of a tensor under `scale` (see [`absmean`]), in the order of `w`.
#[must_use]
pub fn ternary_codes(w: &[f32], scale: f32) -> Vec<i8> {
    w.iter().map(|&v| ternary_code(v, scale)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_go_to_even_and_nan_to_zero() {
        let w = [
            0.5,
            -0.5,
            0.500_001,
            1.5,
            -1.5,
            9.0,
            f32::NAN,
            f32::INFINITY,
        ];
        assert_eq!(ternary_codes(&w, 1.0), [0, 0, 1, 1, -1, 1, 0, 1]);
    }

    #[test]
    fn scale_never_falls_below_eps() {
        assert_eq!(absmean(&[]), EPS);
        assert_eq!(absmean(&[0.0; 100]), EPS);
        assert_eq!(absmean(&[f32::NAN, 1.0]), EPS);
        assert_eq!(absmean(&[-2.0, 4.0]), 3.0);
    }

    proptest! {
        #[test]
        fn absmean_is_close_to_the_f64_mean(w in prop::collection::vec(-3f32..3.0, 1..3000)) {
            let exact = w.iter().map(|v| f64::from(v.abs())).sum::<f64>() / w.len() as f64;
            let got = f64::from(absmean(&w));
            prop_assert!((got - exact.max(f64::from(EPS))).abs() <= 1e-6 * exact.max(1e-5));
        }

        #[test]
        fn codes_are_ternary_and_keep_the_sign(w in prop::collection::vec(-3f32..3.0, 1..300)) {
            let scale = absmean(&w);
            for (&v, code) in w.iter().zip(ternary_codes(&w, scale)) {
                prop_assert!((-1..=1).contains(&code));
                prop_assert!(f32::from(code) * v >= 0.0);
                prop_assert!((code != 0) == (v.abs() / scale > 0.5));
            }
        }
    }
}
