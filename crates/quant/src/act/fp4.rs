//! The per-token 4-bit float quantisers of BitNet a4.8 (arXiv 2411.04965, Eq. 8–9).

use crate::act::absmax;

/// A 4-bit float format as whole numbers: every value of the format times a constant is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp4 {
    /// Code of the largest value.
    pub max: i8,
    /// Below this code neighbours are 1 apart; every doubling doubles the distance.
    pub fine_below: i8,
}

/// 2 exponent bits, 1 mantissa bit: codes 0, 1, 2, 3, 4, 6, 8, 12 and their negatives.
pub const E2M1: Fp4 = Fp4 {
    max: 12,
    fine_below: 4,
};

/// 1 exponent bit, 2 mantissa bits: codes 0 to 7 and their negatives.
pub const E1M2: Fp4 = Fp4 {
    max: 7,
    fine_below: 8,
};

impl Fp4 {
    /// Quantises one token and returns its step.
    ///
    /// `amax = max(|x|, 1e-5)` maps to the largest code: `u = x · (max / amax)`, rounded half to
    /// even to a multiple of 1, 2 or 4 by the magnitude of `u`; `step = amax / max`. NaN gets code
    /// 0.
    ///
    /// # Panics
    /// Where `x` and `codes` differ in length.
    pub fn quantise(self, x: &[f32], codes: &mut [i8]) -> f32 {
        assert_eq!(x.len(), codes.len(), "one code per activation");
        let (max, fine) = (f32::from(self.max), f32::from(self.fine_below));
        let amax = absmax(x);
        let inv = max / amax;
        for (code, v) in codes.iter_mut().zip(x) {
            let u = v * inv;
            let apart = if u.abs() < fine {
                1.0
            } else if u.abs() < 2.0 * fine {
                2.0
            } else {
                4.0
            };
            *code = ((u / apart).round_ties_even() * apart) as i8;
        }
        amax / max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_values_of_the_format() {
        let x: Vec<f32> = (-240..=240).map(|i| i as f32 / 20.0).collect();
        let mut codes = vec![0; x.len()];
        for (format, values) in [
            (E2M1, &[0, 1, 2, 3, 4, 6, 8, 12][..]),
            (E1M2, &[0, 1, 2, 3, 4, 5, 6, 7]),
        ] {
            format.quantise(&x, &mut codes);
            let mut found: Vec<i8> = codes.iter().map(|c| c.abs()).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, values);
        }
    }
}
