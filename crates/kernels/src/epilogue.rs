//! From integer sums to outputs: the one place where scales enter, shared by all kernels, so that
//! their outputs are the same bit for bit.

use crate::vectors::vectorized;

/// What the sums of one token are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factor<'a> {
    /// One step for all rows.
    Step(f32),
    /// A step, and a scale for each row.
    Rows(f32, &'a [f32]),
}

/// `out[r] = (acc[r] − sum) · factor`: the integer difference, then `step · scale`, then the
/// product, each rounded once.
pub(crate) fn scale(acc: &[i32], sum: i32, factor: Factor<'_>, out: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || scale_token(acc, sum, factor, out),
    );
}

/// [`scale`] as a part of a loop that is compiled for vectors.
#[inline(always)]
pub(crate) fn scale_token(acc: &[i32], sum: i32, factor: Factor<'_>, out: &mut [f32]) {
    match factor {
        Factor::Step(step) => {
            for (out, acc) in out.iter_mut().zip(acc) {
                *out = acc.wrapping_sub(sum) as f32 * step;
            }
        }
        Factor::Rows(step, scales) => {
            for ((out, acc), scale) in out.iter_mut().zip(acc).zip(scales) {
                *out = acc.wrapping_sub(sum) as f32 * (step * scale);
            }
        }
    }
}

/// `total[r] += (acc[r] − sum) · scales[r] · step`.
pub(crate) fn add_group(acc: &[i32], sum: i32, scales: &[f32], step: f32, total: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            for ((total, acc), scale) in total.iter_mut().zip(acc).zip(scales) {
                *total += acc.wrapping_sub(sum) as f32 * scale * step;
            }
        },
    );
}

/// `out[r] = total[r] · step`.
pub(crate) fn scale_total(total: &[f32], step: f32, out: &mut [f32]) {
    for (out, total) in out.iter_mut().zip(total) {
        *out = total * step;
    }
}

/// `total[r] += high[r] · 128 + low[r]`, the sums of the two digits of wide activations.
pub(crate) fn add_digits(high: &[i32], low: &[i32], total: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            let sums = high.iter().zip(low);
            for (total, (h, l)) in total.iter_mut().zip(sums) {
                *total += *h as f32 * 128.0 + *l as f32;
            }
        },
    );
}

/// `out[r] = total[r] · (step · scales[r])`.
pub(crate) fn scale_rows(total: &[f32], step: f32, scales: &[f32], out: &mut [f32]) {
    for ((out, total), scale) in out.iter_mut().zip(total).zip(scales) {
        *out = total * (step * scale);
    }
}

/// `out[r] = (high[r] · 128 + low[r]) · (step · scales[r])`, the sums of the two digits of wide
/// activations, each less its share of the offset 128 of the weights.
pub(crate) fn scale_wide(
    high: (&[i32], i32),
    low: (&[i32], i32),
    step: f32,
    scales: &[f32],
    out: &mut [f32],
) {
    vectorized(
        #[inline(always)]
        || {
            let sums = high.0.iter().zip(low.0);
            for ((out, (h, l)), scale) in out.iter_mut().zip(sums).zip(scales) {
                let h = h.wrapping_sub(high.1.wrapping_mul(128)) as f32;
                let l = l.wrapping_sub(low.1.wrapping_mul(128)) as f32;
                *out = (h * 128.0 + l) * (step * scale);
            }
        },
    );
}
