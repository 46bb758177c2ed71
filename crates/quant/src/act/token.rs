//! Every activation quantiser for one token on the host.

use crate::act::absmax_int8;
use crate::act::fp4::{E1M2, E2M1};
use crate::act::int4::absmean_int4;
use crate::act::top_k::keep_largest;
use crate::scheme::{ActQuant, Grid};

/// Quantises tokens to whole-number codes and one step each, `x ≈ codes · step`.
///
/// The Hadamard transform, being linear and differentiable, stands before it (see
/// [`Factors`](crate::hadamard::Factors)).
#[derive(Debug, Clone)]
pub struct TokenQuantiser {
    quant: ActQuant,
    magnitudes: Vec<f32>,
}

impl TokenQuantiser {
    /// A quantiser of tokens; none where `quant` has no grid, as there are no codes then.
    #[must_use]
    pub fn new(quant: ActQuant) -> Option<Self> {
        (quant.grid != Grid::None).then(|| Self {
            quant,
            magnitudes: Vec::new(),
        })
    }

    /// Quantises one token and returns its step. Dropped values get code 0.
    ///
    /// # Panics
    /// Where `x` and `codes` differ in length.
    pub fn quantise(&mut self, x: &[f32], codes: &mut [i8]) -> f32 {
        let step = match self.quant.grid {
            Grid::None => unreachable!("refused by new"),
            Grid::Int8 => absmax_int8(x, codes),
            Grid::Int4 => absmean_int4(x, codes),
            Grid::Fp4E2m1 => E2M1.quantise(x, codes),
            Grid::Fp4E1m2 => E1M2.quantise(x, codes),
        };
        let Some(top_k) = self.quant.top_k else {
            return step;
        };
        let (kept, run) = top_k.run(x.len());
        for (x, codes) in x.chunks(run).zip(codes.chunks_mut(run)) {
            let dropped = |i: usize| codes[i] = 0;
            keep_largest(x, kept, &mut self.magnitudes, dropped);
        }
        if self.quant.rescale {
            step * rescale(x, codes, step)
        } else {
            step
        }
    }
}

/// Factor that brings `codes · step` to the L2 norm of `x`; 1 where there is nothing to bring.
fn rescale(x: &[f32], codes: &[i8], step: f32) -> f32 {
    let before = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    let after = codes
        .iter()
        .map(|&c| f32::from(c) * f32::from(c))
        .sum::<f32>();
    let after = after.sqrt() * step;
    let factor = before / after;
    if factor.is_finite() && after > 0.0 {
        factor
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn quantise(quant: &str, x: &[f32]) -> (Vec<i8>, f32) {
        let mut codes = vec![99; x.len()];
        let mut quantiser = TokenQuantiser::new(quant.parse().unwrap()).unwrap();
        let step = quantiser.quantise(x, &mut codes);
        (codes, step)
    }

    const ALL: [&str; 9] = [
        "int8",
        "int4",
        "fp4-e2m1",
        "fp4-e1m2",
        "top50%+int8",
        "top2:4+int8",
        "top50%+int8+l2",
        "top40%+int4",
        "top25%+fp4-e2m1",
    ];

    #[test]
    fn zeros_and_not_numbers_are_defined() {
        for quant in ALL {
            let (codes, step) = quantise(quant, &[0.0; 8]);
            assert_eq!(codes, [0; 8], "{quant}");
            assert!(step > 0.0 && step.is_finite(), "{quant}");
            let (codes, step) = quantise(quant, &[f32::NAN, 1.0, -1.0, 0.5, 0.25, 0.0, 3.0, -2.0]);
            assert_eq!(codes[0], 0, "{quant}");
            assert!(step.is_finite(), "{quant}");
            // An infinity takes the whole range: nothing else is told from zero, and the step says
            // that the token is lost.
            let (codes, step) =
                quantise(quant, &[f32::INFINITY, 1.0, -1.0, 0.5, 0.0, 0.0, 3.0, -2.0]);
            assert!(
                codes.iter().all(|&c| c == 0) && step.is_infinite(),
                "{quant}: {codes:?}"
            );
            let (codes, step) = quantise(quant, &[1e-40; 8]);
            assert_eq!(codes, [0; 8], "{quant}");
            assert!(step > 0.0);
        }
    }

    #[test]
    fn the_largest_survive_with_the_scale_of_the_whole_token() {
        let x = [4.0, -3.0, 2.0, -1.0, 8.0, 0.1, 0.2, 0.3];
        let (all, whole) = quantise("int8", &x);
        let (half, step) = quantise("top50%+int8", &x);
        assert_eq!((&half[..3], half[4], step), (&all[..3], all[4], whole));
        assert_eq!((half[3], &half[5..]), (0, &[0; 3][..]));
        let (blocks, _) = quantise("top2:4+int8", &x);
        assert_eq!(
            blocks.map_zeros(),
            [false, false, true, true, false, true, true, false]
        );
    }

    trait Zeros {
        fn map_zeros(&self) -> Vec<bool>;
    }

    impl Zeros for Vec<i8> {
        fn map_zeros(&self) -> Vec<bool> {
            self.iter().map(|&c| c == 0).collect()
        }
    }

    #[test]
    fn rescaling_keeps_the_norm() {
        let x: Vec<f32> = (0..64)
            .map(|i| ((i * 29 % 17) as f32 - 8.0) / 3.0)
            .collect();
        let (codes, step) = quantise("top40%+int8+l2", &x);
        let norm = |v: Vec<f32>| v.iter().map(|v| v * v).sum::<f32>().sqrt();
        let after = norm(codes.iter().map(|&c| f32::from(c) * step).collect());
        assert!((after - norm(x.clone())).abs() < 1e-4 * after);
    }

    proptest! {
        /// INT4 is left out: absmean is another after rounding, so its codes move the second time.
        #[test]
        fn codes_survive_a_second_time(
            x in prop::collection::vec(-50f32..50.0, 8..9), which in 0usize..4,
        ) {
            let quant = ["int8", "fp4-e2m1", "fp4-e1m2", "top50%+int8"][which];
            let (codes, step) = quantise(quant, &x);
            let back: Vec<f32> = codes.iter().map(|&c| f32::from(c) * step).collect();
            prop_assert_eq!(quantise(quant, &back).0, codes);
        }

        #[test]
        fn codes_do_not_see_the_scale(
            x in prop::collection::vec(-50f32..50.0, 16..17), which in 0usize..9, power in -4i32..8,
        ) {
            let factor = 2f32.powi(power);
            prop_assume!(x.iter().any(|v| v.abs() > 0.01));
            let scaled: Vec<f32> = x.iter().map(|v| v * factor).collect();
            let (a, b) = (quantise(ALL[which], &x), quantise(ALL[which], &scaled));
            prop_assert_eq!(a.0, b.0);
            prop_assert_eq!(a.1 * factor, b.1);
        }
    }
}
