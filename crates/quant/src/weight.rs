//! Every weight quantiser on the host: the codes and scales that export writes, equal to those of
//! the training forward pass.

use crate::scheme::{Granularity, WeightQuant};
use crate::ternary::{EPS, absmean, sum_pairwise, ternary_code};

/// A quantised matrix `[out, in]`: `codes · scale` approximates the master weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightCodes {
    /// Row-major, −1, 0 or +1.
    pub codes: Vec<i8>,
    /// One for the matrix, one a row, or `in / group` a row.
    pub scales: Vec<f32>,
}

/// Codes of `sign(w − mean)`, where zero counts as negative (BitNet b1, Eq. 1–2).
#[must_use]
#[inline]
pub fn binary_code(w: f32, mean: f32) -> i8 {
    if w - mean > 0.0 { 1 } else { -1 }
}

/// Quantises a matrix with rows of `width` values; none for [`WeightQuant::None`].
///
/// A scale is mean|W| over what it covers, at least [`EPS`], in f32. NaN counts as zero in codes.
///
/// # Panics
/// Where `width` does not divide `w`, or groups do not divide `width` (see
/// [`WeightQuant::problem`]).
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn quantise(w: &[f32], width: usize, quant: WeightQuant) -> Option<WeightCodes> {
    assert!(w.is_empty() || w.len().is_multiple_of(width), "ragged rows");
    if quant == WeightQuant::None {
        return None;
    }
    let run = match quant.granularity() {
        Granularity::Tensor => w.len().max(1),
        Granularity::Row => width.max(1),
        Granularity::Group(size) => {
            assert!(width.is_multiple_of(size), "groups that straddle rows");
            size
        }
    };
    let scales: Vec<f32> = if w.is_empty() {
        vec![EPS]
    } else {
        w.chunks_exact(run).map(absmean).collect()
    };
    let codes = if quant == WeightQuant::B1 {
        let mean = sum_pairwise(w) / w.len().max(1) as f32;
        w.iter().map(|&v| binary_code(v, mean)).collect()
    } else {
        let runs = w.chunks_exact(run).zip(&scales);
        runs.flat_map(|(w, &scale)| w.iter().map(move |&v| ternary_code(v, scale)))
            .collect()
    };
    Some(WeightCodes { codes, scales })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const ALL: [WeightQuant; 5] = [
        WeightQuant::B1,
        WeightQuant::Absmean,
        WeightQuant::AbsmeanRow,
        WeightQuant::AbsmeanBlock256,
        WeightQuant::AbsmeanGroup128,
    ];

    fn values(w: &WeightCodes, len: usize) -> Vec<f32> {
        let run = len / w.scales.len();
        let scale = |i: usize| w.scales[i / run];
        let codes = w.codes.iter().enumerate();
        codes.map(|(i, &c)| f32::from(c) * scale(i)).collect()
    }

    #[test]
    fn scales_cover_what_they_say() {
        let w: Vec<f32> = (0..4 * 512)
            .map(|i| ((i * 31 % 101) as f32 - 50.0) / 25.0)
            .collect();
        let counts = ALL.map(|q| quantise(&w, 512, q).unwrap().scales.len());
        assert_eq!(counts, [1, 1, 4, 8, 16]);
        assert!(quantise(&w, 512, WeightQuant::None).is_none());
    }

    #[test]
    fn zeros_and_not_numbers_are_defined() {
        for quant in ALL {
            let zero = quantise(&[0.0; 512], 256, quant).unwrap();
            let code = if quant == WeightQuant::B1 { -1 } else { 0 };
            assert!(zero.codes.iter().all(|&c| c == code), "{quant:?}");
            assert!(zero.scales.iter().all(|&s| s == EPS), "{quant:?}");
            let mut w = [0.5; 512];
            (w[3], w[300]) = (f32::NAN, f32::INFINITY);
            let odd = quantise(&w, 256, quant).unwrap();
            assert!(odd.codes.iter().all(|c| (-1..=1).contains(c)));
            assert!(quantise(&[], 256, quant).unwrap().codes.is_empty());
        }
    }

    proptest! {
        #[test]
        fn codes_survive_a_second_time(seed in prop::collection::vec(-3f32..3.0, 512)) {
            for quant in ALL {
                let first = quantise(&seed, 256, quant).unwrap();
                let again = quantise(&values(&first, 512), 256, quant).unwrap();
                prop_assert_eq!(&first.codes, &again.codes, "{:?}", quant);
            }
        }

        #[test]
        fn codes_do_not_see_the_scale(
            w in prop::collection::vec(-3f32..3.0, 512), power in -6i32..6,
        ) {
            let factor = 2f32.powi(power);
            let scaled: Vec<f32> = w.iter().map(|v| v * factor).collect();
            for quant in ALL {
                let (a, b) = (quantise(&w, 256, quant).unwrap(), quantise(&scaled, 256, quant).unwrap());
                prop_assert_eq!(&a.codes, &b.codes);
                prop_assert!(a.scales.iter().zip(&b.scales).all(|(a, b)| a * factor == *b));
            }
        }
    }
}
