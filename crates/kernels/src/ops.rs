//! Loops over f32 between the products, compiled for the widest vectors that the processor has.
//!
//! Sums go through a fixed number of lanes and no multiplication is fused with an addition, so that
//! every processor, and every number of tokens at once, gives the same bits.

use tritburn_quant::ternary::EPS;

use crate::activations::ActBlock;
use crate::vectors::vectorized;

/// Independent sums.
const LANES: usize = 16;
/// Largest wide code: `127 · 128`.
const WIDE: f32 = 16_256.0;

/// [`tritburn_quant::act::absmax_int8`], bit for bit: writes the codes and returns the step.
///
/// # Panics
/// Where the lengths differ.
pub fn absmax_codes(x: &[f32], codes: &mut [i8]) -> f32 {
    assert_eq!(x.len(), codes.len(), "one code per activation");
    vectorized(
        #[inline(always)]
        || {
            let amax = absmax(x);
            let inv = 127.0f32 / amax;
            for (code, x) in codes.iter_mut().zip(x) {
                *code = round_small(x * inv) as i8;
            }
            amax / 127.0f32
        },
    )
}

/// Sum of the codes of some blocks.
pub(crate) fn sum_codes(blocks: &[ActBlock]) -> i32 {
    vectorized(
        #[inline(always)]
        || {
            let all = blocks.iter().flat_map(|b| b.0.as_chunks::<LANES>().0);
            let mut lanes = [0i32; LANES];
            for chunk in all {
                for (lane, &code) in lanes.iter_mut().zip(chunk) {
                    *lane += i32::from(code);
                }
            }
            lanes.iter().sum()
        },
    )
}

/// The high or the low digit of `q = round(x · 16256 / max|x|) = 128 · high + low`, −64 ≤ low ≤ 64;
/// returns `max|x| / 16256`.
pub(crate) fn wide_digits(x: &[f32], high: bool, codes: &mut [i8]) -> f32 {
    vectorized(
        #[inline(always)]
        || {
            let amax = absmax(x);
            let inv = WIDE / amax;
            for (code, x) in codes.iter_mut().zip(x) {
                let q = round_small(x * inv);
                let h = (q + 64) >> 7;
                *code = if high { h } else { q - (h << 7) } as i8;
            }
            amax / WIDE
        },
    )
}

/// Largest absolute value, at least [`EPS`]; NaN is passed over.
#[inline(always)]
pub(crate) fn absmax(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [EPS; LANES];
    for chunk in chunks {
        lanes = larger(lanes, chunk.map(f32::abs));
    }
    tail.iter()
        .map(|v| v.abs())
        .chain(lanes)
        .fold(EPS, f32::max)
}

/// Lane by lane the larger; `a` where `b` is NaN.
#[inline(always)]
fn larger(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| if b[i] > a[i] { b[i] } else { a[i] })
}

/// `round_ties_even(v)` of `|v| < 2²²`; 0 for NaN.
#[inline(always)]
pub(crate) fn round_small(v: f32) -> i32 {
    const ROUND: f32 = 12_582_912.0;
    let rounded = (v + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    if v.is_nan() { 0 } else { rounded }
}

/// `y = x · w / √(mean(x²) + ε)` (RMSNorm, arXiv 1910.07467) of one token.
///
/// # Panics
/// Where the lengths differ.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    assert_eq!((x.len(), x.len()), (weight.len(), y.len()), "equal widths");
    vectorized(
        #[inline(always)]
        || {
            let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * w;
            }
        },
    );
}

/// [`rms_norm`], then int8 codes of the result: `y` is not stored. Returns the step.
///
/// # Panics
/// Where the lengths differ.
pub fn rms_norm_int8(x: &[f32], weight: &[f32], eps: f32, codes: &mut [i8]) -> f32 {
    assert_eq!(
        (x.len(), x.len()),
        (weight.len(), codes.len()),
        "equal widths"
    );
    vectorized(
        #[inline(always)]
        || {
            let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
            // Computed twice instead of stored: the vectors are short and the row is in the cache.
            let (xs, x_tail) = x.as_chunks::<LANES>();
            let (ws, w_tail) = weight.as_chunks::<LANES>();
            let mut lanes = [EPS; LANES];
            for (x, w) in xs.iter().zip(ws) {
                lanes = larger(lanes, std::array::from_fn(|i| (x[i] * scale * w[i]).abs()));
            }
            let tail = x_tail
                .iter()
                .zip(w_tail)
                .map(|(x, w)| (x * scale * w).abs());
            let amax = tail.chain(lanes).fold(EPS, f32::max);
            let inv = 127.0f32 / amax;
            for ((code, x), w) in codes.iter_mut().zip(x).zip(weight) {
                *code = round_small(x * scale * w * inv) as i8;
            }
            amax / 127.0f32
        },
    )
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane += v * v;
        }
    }
    lanes.iter().sum::<f32>() + tail.iter().map(|v| v * v).sum::<f32>()
}

/// `x += y`.
pub fn add(x: &mut [f32], y: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.iter_mut().zip(y) {
                *x += y;
            }
        },
    );
}

/// Turns a head by `cos` and `sin`, of half its width, in the order of Hugging Face: value `i` with value
/// `i + d / 2` (RoPE, arXiv 2104.09864).
///
/// # Panics
/// Where the lengths do not fit.
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert_eq!((2 * cos.len(), cos.len()), (head.len(), sin.len()), "half");
    let (low, high) = head.split_at_mut(cos.len());
    vectorized(
        #[inline(always)]
        || {
            for (((a, b), cos), sin) in low.iter_mut().zip(&mut *high).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        },
    );
}

/// `gate = gate / (1 + e^−gate) · up`: SwiGLU.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = *g / (1.0 + exp(-*g)) * u;
            }
        },
    );
}

/// `gate = max(gate, 0)² · up`: the squared ReLU of BitNet b1.58 2B4T (arXiv 2504.12285). A closed
/// gate gives +0 whatever `up` is, so that nobody has to compute it.
pub fn relu2_mul(gate: &mut [f32], up: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = if *g > 0.0 { *g * *g * u } else { 0.0 };
            }
        },
    );
}

/// Index of the largest value, the first where several are equal; NaN is passed over. `None` where
/// no value is a number.
#[must_use]
pub fn argmax(x: &[f32]) -> Option<usize> {
    let largest = vectorized(
        #[inline(always)]
        || {
            let (chunks, tail) = x.as_chunks::<LANES>();
            let mut lanes = [f32::NEG_INFINITY; LANES];
            for chunk in chunks {
                for (lane, &v) in lanes.iter_mut().zip(chunk) {
                    *lane = if v > *lane { v } else { *lane };
                }
            }
            lanes
                .iter()
                .chain(tail)
                .fold(f32::NEG_INFINITY, |m, &v| m.max(v))
        },
    );
    x.iter().position(|&v| v == largest)
}

/// `e^x` to about two units in the last place, in code that becomes vectors: `e^x = 2^n · e^r`,
/// `|r| ≤ ln 2 / 2`, with the polynomial of Cephes' `expf`. 0 below −87.3, infinite above 88.72.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.3, 88.72);
    let n = round_small(clamped * std::f32::consts::LOG2_E);
    let r = clamped - n as f32 * LN2_HIGH - n as f32 * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * r + c;
    }
    let e = p * r * r + r + 1.0;
    // In two halves, since 2^128 is no f32.
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = e * power(half) * power(n - half);
    if x > 88.72 {
        f32::INFINITY
    } else if x < -87.3 {
        0.0
    } else {
        // Also what NaN comes to.
        y + x * 0.0
    }
}

#[cfg(test)]
mod tests {
    use tritburn_quant::act::absmax_int8;

    use super::*;

    fn values(n: usize) -> Vec<f32> {
        let mut seed = 7u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn exp_is_close_to_std() {
        for i in -90_000..90_000 {
            let x = i as f32 * 1e-3;
            let (got, want) = (exp(x), x.exp());
            if (-87.3..88.72).contains(&x) {
                assert!((got - want).abs() <= want * 3e-7, "{x} {got} {want}");
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!((exp(-200.0), exp(f32::NEG_INFINITY)), (0.0, 0.0));
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn norm_scales_rows_to_unit_mean_square_and_weights_them() {
        let mut out = [0.0; 3];
        rms_norm(&[3.0, 0.0, -1.5], &[1.0, 2.0, 0.5], 0.25, &mut out);
        // mean of squares 3.75, plus 0.25 is 4.
        assert_eq!(out, [1.5, 0.0, -0.375]);
    }

    #[test]
    fn the_fused_norm_is_the_norm_and_then_the_codes() {
        for n in [1, 2, 15, 16, 17, 1023, 1025, 2560] {
            let (x, w) = (values(n), values(n));
            let (mut y, mut want, mut got) = (vec![0.0; n], vec![0; n], vec![0; n]);
            rms_norm(&x, &w, 1e-5, &mut y);
            let step = absmax_int8(&y, &mut want);
            let fused = rms_norm_int8(&x, &w, 1e-5, &mut got);
            assert_eq!((fused.to_bits(), got), (step.to_bits(), want));
        }
        let mut codes = [9; 3];
        rms_norm_int8(&[f32::NAN, 1.0, 2.0], &[1.0; 3], 1e-5, &mut codes);
        assert_eq!(codes, [0; 3]);
    }

    #[test]
    fn wide_digits_make_up_the_value() {
        let x = values(1000);
        let (mut high, mut low) = (vec![0; 1000], vec![0; 1000]);
        let step = wide_digits(&x, true, &mut high);
        assert_eq!(step, wide_digits(&x, false, &mut low));
        for ((x, h), l) in x.iter().zip(high).zip(low) {
            let back = (f32::from(h) * 128.0 + f32::from(l)) * step;
            assert!((x - back).abs() <= step * 0.501);
        }
    }

    #[test]
    fn gates() {
        let mut gate = [-2.0, 0.0, 3.0];
        relu2_mul(&mut gate, &[1.0, 1.0, 0.5]);
        assert_eq!(gate, [0.0, 0.0, 4.5]);
        let mut gate = [-1.0, f32::NAN, 0.0];
        relu2_mul(&mut gate, &[-1.0, 1.0, f32::NAN]);
        assert_eq!(gate.map(f32::to_bits), [0; 3]);
        let mut gate = [0.0, 1.0, -1e9];
        silu_mul(&mut gate, &[1.0, 2.0, 1.0]);
        assert!((gate[1] - 2.0 * 0.731_058_6).abs() < 1e-6);
        assert!(gate[0] == 0.0 && gate[2] == 0.0);
    }

    #[test]
    fn argmax_takes_the_first_and_no_nan() {
        let mut x = values(1003);
        x[1001] = 2.0;
        assert_eq!(argmax(&x), Some(1001));
        x[40] = 2.0;
        x[7] = f32::NAN;
        assert_eq!(argmax(&x), Some(40));
        assert_eq!(argmax(&[f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY]), Some(0));
    }
}
