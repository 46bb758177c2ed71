//! Passes over the logits of a vocabulary, in vectors, for the choice of a token.

use crate::ops::exp;
use crate::vectors::vectorized;

/// Values of a block: what a choice looks at as a whole first.
pub const BLOCK: usize = 64;
/// Values that are compared and added side by side.
const LANES: usize = 16;

/// Puts `−∞` in place of what is no finite number.
pub fn drop_non_finite(x: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for x in x.iter_mut() {
                *x = if x.is_finite() { *x } else { f32::NEG_INFINITY };
            }
        },
    );
}

/// Writes the largest value of each [`BLOCK`] of `x`, which holds no NaN, to `maxima`.
pub fn block_maxima(x: &[f32], maxima: &mut Vec<f32>) {
    maxima.clear();
    vectorized(
        #[inline(always)]
        || {
            for block in x.chunks(BLOCK) {
                let (chunks, tail) = block.as_chunks::<LANES>();
                let mut lanes = [f32::NEG_INFINITY; LANES];
                for chunk in chunks {
                    for (lane, &v) in lanes.iter_mut().zip(chunk) {
                        *lane = if v > *lane { v } else { *lane };
                    }
                }
                let all = lanes.iter().chain(tail);
                maxima.push(all.fold(f32::NEG_INFINITY, |m, &v| m.max(v)));
            }
        },
    );
}

/// Replaces logits by `e^((x − max) / temperature)`, which is 1 for the largest, and writes their sum
/// over each [`BLOCK`] to `sums`.
pub fn weigh(x: &mut [f32], max: f32, temperature: f32, sums: &mut Vec<f32>) {
    sums.clear();
    vectorized(
        #[inline(always)]
        || {
            for block in x.chunks_mut(BLOCK) {
                for x in block.iter_mut() {
                    *x = exp((*x - max) / temperature);
                }
                let (chunks, tail) = block.as_chunks::<LANES>();
                let mut lanes = [0.0; LANES];
                for chunk in chunks {
                    for (lane, v) in lanes.iter_mut().zip(chunk) {
                        *lane += v;
                    }
                }
                sums.push(lanes.iter().chain(tail).sum());
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        let mut x: Vec<f32> = (0..n).map(|i| (i * 37 % 101) as f32 / 9.0 - 5.0).collect();
        for (i, odd) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY]
            .into_iter()
            .enumerate()
            .take(n / 20)
        {
            x[i * 17] = odd;
        }
        x
    }

    #[test]
    fn blocks_are_those_of_plain_loops() {
        for n in [0, 1, 15, 63, 64, 65, 1000] {
            let mut x = values(n);
            let want: Vec<f32> = x
                .iter()
                .map(|&v| if v.is_finite() { v } else { f32::NEG_INFINITY })
                .collect();
            drop_non_finite(&mut x);
            assert_eq!(x, want);
            let mut found = vec![7.0];
            block_maxima(&x, &mut found);
            let max = |b: &[f32]| b.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(found, x.chunks(BLOCK).map(max).collect::<Vec<_>>());
            let largest = max(&x);
            weigh(&mut x, largest, 0.7, &mut found);
            assert_eq!(found.len(), n.div_ceil(BLOCK));
            for (got, logit) in x.iter().zip(&want) {
                let want = ((logit - largest) / 0.7).exp();
                // An interpreter's `exp` is not exact either.
                assert!((got - want).abs() <= 1e-6 * want, "{got} {want}");
            }
            for (sum, block) in found.iter().zip(x.chunks(BLOCK)) {
                let want: f64 = block.iter().map(|&v| f64::from(v)).sum();
                assert!(
                    (f64::from(*sum) - want).abs() <= 1e-6 * want,
                    "{sum} {want}"
                );
            }
        }
    }
}
