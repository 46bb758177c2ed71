//! Uncertainty of scores.

use serde::{Deserialize, Serialize};

/// Standard error of a mean of zeros and ones, `√(p(1 − p)/(n − 1))` as in lm-eval; 0 for fewer
/// than two samples.
pub fn stderr_of_share(share: f64, samples: usize) -> f64 {
    if samples < 2 {
        return 0.0;
    }
    (share * (1.0 - share) / (samples - 1) as f64).sqrt()
}

/// Mean of values and its standard error, the sample's deviation over √n; (0, 0) for no values.
pub fn stderr_of_mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

/// McNemar's exact test on paired outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Samples that only the first model got right.
    pub only_first: u64,
    /// Samples that only the second model got right.
    pub only_second: u64,
    /// Two-sided p-value under the hypothesis that both models err equally often.
    pub p_value: f64,
}

/// Tests whether two models that differ on `only_first + only_second` samples are equally good:
/// the two-sided binomial test with p = ½.
pub fn mcnemar(only_first: u64, only_second: u64) -> McNemar {
    let n = only_first + only_second;
    let smaller = only_first.min(only_second);
    // Terms C(n, i)/2ⁿ as logarithms: 2⁻ⁿ underflows beyond a thousand samples.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for i in 1..=smaller {
        log_term += ((n - i + 1) as f64).ln() - (i as f64).ln();
        tail += log_term.exp();
    }
    McNemar {
        only_first,
        only_second,
        p_value: (2.0 * tail).min(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_errors_are_lm_evals() {
        // 88 % of the 9,815 rows of MNLI: 0.33 points.
        assert!((stderr_of_share(0.88, 9815) - 0.00328).abs() < 1e-5);
        assert_eq!(stderr_of_share(1.0, 10), 0.0);
        assert_eq!(stderr_of_share(0.5, 1), 0.0);
    }

    #[test]
    fn means_of_zeros_and_ones_agree_with_shares() {
        let values = [1.0, 0.0, 1.0, 1.0];
        let (mean, stderr) = stderr_of_mean(&values);
        assert_eq!(mean, 0.75);
        assert!((stderr - stderr_of_share(0.75, 4)).abs() < 1e-12);
        assert_eq!(stderr_of_mean(&[2.0]), (2.0, 0.0));
        assert_eq!(stderr_of_mean(&[]), (0.0, 0.0));
    }

    #[test]
    fn mcnemar_matches_hand_computed_values() {
        // 2 · (1 + 10 + 45)/1024.
        assert!((mcnemar(2, 8).p_value - 0.109_375).abs() < 1e-12);
        assert!((mcnemar(8, 2).p_value - 0.109_375).abs() < 1e-12);
        assert!((mcnemar(0, 5).p_value - 0.0625).abs() < 1e-12);
        assert_eq!(mcnemar(0, 0).p_value, 1.0);
        assert_eq!(mcnemar(5, 5).p_value, 1.0);
    }

    #[test]
    fn large_counts_do_not_underflow() {
        let p = mcnemar(4900, 5100).p_value;
        // The normal approximation with continuity correction: z = 199/100.
        assert!((p - 0.0466).abs() < 0.001, "{p}");
    }
}
