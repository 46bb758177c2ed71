//! Row-wise and elementwise loops.

use rayon::prelude::*;
use tritburn_quant::config::HiddenAct;
use tritburn_quant::ternary::EPS;

use super::super::AdamWStep;
use super::wide;

/// Values a task handles at the least: below that, starting it costs more than it saves.
const CHUNK: usize = 16 * 1024;

/// Rows of `features` values in one task.
fn rows_per_task(features: usize) -> usize {
    (CHUNK / features.max(1)).max(1)
}

/// Dot product in 16 running sums, so that the compiler may use vectors.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0.0f32; 16];
    let (a16, a_tail) = a.as_chunks::<16>();
    let (b16, b_tail) = b.as_chunks::<16>();
    for (a, b) in a16.iter().zip(b16) {
        for i in 0..16 {
            acc[i] += a[i] * b[i];
        }
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    acc.iter().sum::<f32>() + tail
}

/// Sum, in 16 running sums.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    let mut acc = [0.0f32; 16];
    let (x16, tail) = x.as_chunks::<16>();
    for x in x16 {
        for i in 0..16 {
            acc[i] += x[i];
        }
    }
    acc.iter().sum::<f32>() + tail.iter().sum::<f32>()
}

/// Largest value.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; 16];
    let (x16, tail) = x.as_chunks::<16>();
    for x in x16 {
        for i in 0..16 {
            acc[i] = if x[i] > acc[i] { x[i] } else { acc[i] };
        }
    }
    let all = acc.iter().chain(tail);
    all.fold(f32::NEG_INFINITY, |m, &x| m.max(x))
}

/// `e^x` to 2 units in the last place; flushes to 0 below −87 and to `e^88` above 88.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    /// Adding it leaves the nearest whole number in the low bits; unlike a cast, which checks for
    /// overflow, this stays in vectors.
    const TO_INT: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * std::f32::consts::LOG2_E + TO_INT;
    let n = shifted - TO_INT;
    let r = clamped - n * LN2_HI - n * LN2_LO;
    // Taylor series of e^r, |r| ≤ ln(2)/2: the seventh term is below 2⁻²⁴.
    let p = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let pow2 = f32::from_bits((shifted.to_bits() + 127) << 23);
    p * pow2
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `σ(2 · √(2/π) · (x + 0.044715 · x³)) = (1 + tanh(…)) / 2`, the gate of GELU in its tanh form
/// (arXiv 1606.08415), and its derivative.
#[inline(always)]
fn gelu_gate(x: f32) -> (f32, f32) {
    const SLOPE: f32 = 1.595_769_2;
    const CUBIC: f32 = 0.044_715;
    // Beyond ±1000 the gate is 0 or 1 to the last bit.
    let square = (x * x).min(1e6);
    let s = sigmoid(SLOPE * x * (1.0 + CUBIC * square));
    (s, s * (1.0 - s) * SLOPE * (1.0 + 3.0 * CUBIC * square))
}

/// Partial sums of fixed chunks, added in order.
pub(super) fn sum_squares(x: &[f32]) -> f32 {
    let parts: Vec<f32> = x
        .par_chunks(CHUNK)
        .map(|x| {
            let mut part = 0.0;
            wide(
                #[inline(always)]
                || part = dot(x, x),
            );
            part
        })
        .collect();
    parts.iter().sum()
}

pub(super) fn ternary(weight: &[f32], scale: f32) -> Vec<f32> {
    let inv = 1.0 / scale;
    let mut codes = vec![0.0; weight.len()];
    codes
        .par_chunks_mut(CHUNK)
        .zip(weight.par_chunks(CHUNK))
        .for_each(|(codes, weight)| {
            wide(
                #[inline(always)]
                || {
                    for (c, w) in codes.iter_mut().zip(weight) {
                        *c = (w * inv).round_ties_even().clamp(-1.0, 1.0);
                    }
                },
            );
        });
    codes
}

pub(super) fn int8_tokens(x: &[f32], features: usize) -> (Vec<f32>, Vec<f32>) {
    let mut codes = vec![0.0; x.len()];
    let mut step = vec![0.0; x.len() / features];
    let rows = rows_per_task(features);
    codes
        .par_chunks_mut(rows * features)
        .zip(x.par_chunks(rows * features))
        .zip(step.par_chunks_mut(rows))
        .for_each(|((codes, x), step)| {
            wide(
                #[inline(always)]
                || {
                    let rows = codes
                        .chunks_exact_mut(features)
                        .zip(x.chunks_exact(features));
                    for ((codes, x), step) in rows.zip(step.iter_mut()) {
                        let mut lanes = [EPS; 16];
                        let (x16, tail) = x.as_chunks::<16>();
                        for x in x16 {
                            for i in 0..16 {
                                let a = x[i].abs();
                                lanes[i] = if a > lanes[i] { a } else { lanes[i] };
                            }
                        }
                        let absmax = lanes
                            .iter()
                            .copied()
                            .chain(tail.iter().map(|x| x.abs()))
                            .fold(EPS, f32::max);
                        let inv = 127.0 / absmax;
                        for (c, x) in codes.iter_mut().zip(x) {
                            *c = (x * inv).round_ties_even().clamp(-128.0, 127.0);
                        }
                        *step = absmax / 127.0;
                    }
                },
            );
        });
    (codes, step)
}

pub(super) fn scale_rows(y: &mut [f32], features: usize, step: &[f32], scale: f32) {
    let rows = rows_per_task(features);
    y.par_chunks_mut(rows * features)
        .zip(step.par_chunks(rows))
        .for_each(|(y, step)| {
            wide(
                #[inline(always)]
                || {
                    for (y, step) in y.chunks_exact_mut(features).zip(step) {
                        let factor = step * scale;
                        for y in y {
                            *y *= factor;
                        }
                    }
                },
            );
        });
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#[inline(always)]
fn inv_rms(x: &[f32], eps: f64) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + eps as f32).sqrt()
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f64) -> Vec<f32> {
    let features = weight.len();
    let mut y = vec![0.0; x.len()];
    let size = rows_per_task(features) * features;
    y.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .for_each(|(y, x)| {
            wide(
                #[inline(always)]
                || {
                    for (y, x) in y.chunks_exact_mut(features).zip(x.chunks_exact(features)) {
                        let inv = inv_rms(x, eps);
                        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                            *y = x * inv * w;
                        }
                    }
                },
            );
        });
    y
}

#[allow(clippy::cast_precision_loss)]
pub(super) fn rms_norm_grad(
    x: &[f32],
    weight: &[f32],
    eps: f64,
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let features = weight.len();
    let mut grad_x = vec![0.0; x.len()];
    let size = rows_per_task(features) * features;
    let partial: Vec<Vec<f32>> = grad_x
        .par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .zip(grad.par_chunks(size))
        .map(|((grad_x, x), grad)| {
            let mut grad_w = vec![0.0f32; features];
            let mut scaled = vec![0.0f32; features];
            wide(
                #[inline(always)]
                || {
                    let rows = grad_x
                        .chunks_exact_mut(features)
                        .zip(x.chunks_exact(features))
                        .zip(grad.chunks_exact(features));
                    for ((grad_x, x), grad) in rows {
                        let inv = inv_rms(x, eps);
                        let ins = grad.iter().zip(x).zip(weight);
                        let outs = grad_w.iter_mut().zip(scaled.iter_mut());
                        for ((sum, scaled), ((grad, x), w)) in outs.zip(ins) {
                            *sum += grad * x * inv;
                            *scaled = grad * w;
                        }
                        let along = dot(&scaled, x) * inv * inv / features as f32;
                        for ((out, scaled), x) in grad_x.iter_mut().zip(&scaled).zip(x) {
                            *out = (scaled - x * along) * inv;
                        }
                    }
                },
            );
            grad_w
        })
        .collect();
    let mut grad_w = vec![0.0f32; features];
    for part in partial {
        for (sum, p) in grad_w.iter_mut().zip(part) {
            *sum += p;
        }
    }
    (grad_x, grad_w)
}

pub(super) fn gated_act(gate: &[f32], up: &[f32], act: HiddenAct) -> Vec<f32> {
    let mut y = vec![0.0; gate.len()];
    y.par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .for_each(|((y, gate), up)| {
            wide(
                #[inline(always)]
                || {
                    let all = y.iter_mut().zip(gate).zip(up);
                    match act {
                        HiddenAct::Silu => all.for_each(|((y, g), u)| *y = g * sigmoid(*g) * u),
                        HiddenAct::Relu2 => all.for_each(|((y, g), u)| {
                            let r = g.max(0.0);
                            *y = r * r * u;
                        }),
                        HiddenAct::GeluTanh => {
                            all.for_each(|((y, g), u)| *y = g * gelu_gate(*g).0 * u);
                        }
                    }
                },
            );
        });
    y
}

pub(super) fn gated_act_grad(
    gate: &[f32],
    up: &[f32],
    act: HiddenAct,
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut grad_gate = vec![0.0; gate.len()];
    let mut grad_up = vec![0.0; gate.len()];
    grad_gate
        .par_chunks_mut(CHUNK)
        .zip(grad_up.par_chunks_mut(CHUNK))
        .zip(
            gate.par_chunks(CHUNK)
                .zip(up.par_chunks(CHUNK))
                .zip(grad.par_chunks(CHUNK)),
        )
        .for_each(|((grad_gate, grad_up), ((gate, up), grad))| {
            wide(
                #[inline(always)]
                || {
                    let out = grad_gate.iter_mut().zip(grad_up.iter_mut());
                    let all = out.zip(gate.iter().zip(up).zip(grad));
                    match act {
                        HiddenAct::Silu => all.for_each(|((dg, du), ((g, u), dy))| {
                            let s = sigmoid(*g);
                            *dg = dy * u * s * (1.0 + g * (1.0 - s));
                            *du = dy * g * s;
                        }),
                        HiddenAct::Relu2 => all.for_each(|((dg, du), ((g, u), dy))| {
                            let r = g.max(0.0);
                            *dg = dy * u * 2.0 * r;
                            *du = dy * r * r;
                        }),
                        HiddenAct::GeluTanh => all.for_each(|((dg, du), ((g, u), dy))| {
                            let (s, slope) = gelu_gate(*g);
                            *dg = dy * u * (s + g * slope);
                            *du = dy * g * s;
                        }),
                    }
                },
            );
        });
    (grad_gate, grad_up)
}

pub(super) fn rope(
    x: &[f32],
    width: usize,
    cos: &[f32],
    sin: &[f32],
    head_dim: usize,
    seq: usize,
) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let half = head_dim / 2;
    let rows = rows_per_task(width);
    let size = rows * width;
    y.par_chunks_mut(size)
        .zip(x.par_chunks(size))
        .enumerate()
        .for_each(|(task, (y, x))| {
            wide(
                #[inline(always)]
                || {
                    for (i, (y, x)) in y
                        .chunks_exact_mut(width)
                        .zip(x.chunks_exact(width))
                        .enumerate()
                    {
                        let at = (task * rows + i) % seq * head_dim;
                        let (cos, sin) = (&cos[at..at + head_dim], &sin[at..at + head_dim]);
                        for (y, x) in y.chunks_exact_mut(head_dim).zip(x.chunks_exact(head_dim)) {
                            let (y_low, y_high) = y.split_at_mut(half);
                            let (x_low, x_high) = x.split_at(half);
                            let x = || x_low.iter().zip(x_high);
                            let low = cos[..half].iter().zip(&sin[..half]);
                            for ((y, (low, high)), (c, s)) in y_low.iter_mut().zip(x()).zip(low) {
                                *y = low * c - high * s;
                            }
                            let high = cos[half..].iter().zip(&sin[half..]);
                            for ((y, (low, high)), (c, s)) in y_high.iter_mut().zip(x()).zip(high) {
                                *y = high * c + low * s;
                            }
                        }
                    }
                },
            );
        });
    y
}

pub(super) fn adamw(
    [param, grad, m, v]: [&[f32]; 4],
    weight_decay: f32,
    s: &AdamWStep,
) -> [Vec<f32>; 3] {
    let mut new = [param.to_vec(), m.to_vec(), v.to_vec()];
    let [param, m, v] = &mut new;
    param
        .par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(grad.par_chunks(CHUNK))
        .for_each(|(((param, m), v), grad)| {
            wide(
                #[inline(always)]
                || {
                    let state = param.iter_mut().zip(m.iter_mut()).zip(v.iter_mut());
                    for (((param, m), v), g) in state.zip(grad) {
                        let g = g * s.grad_scale;
                        *m = *m * s.beta1 + g * (1.0 - s.beta1);
                        *v = *v * s.beta2 + g * g * (1.0 - s.beta2);
                        let denom = (*v / s.bias2).sqrt() + s.eps;
                        let update = *m / denom * (s.lr / s.bias1);
                        *param = *param * (1.0 - s.lr * weight_decay) - update;
                    }
                },
            );
        });
    new
}
