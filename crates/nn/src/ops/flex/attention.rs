//! Causal attention, one task a sequence: scores of one head stay in the cache.

use pulp::Arch;
use rayon::prelude::*;

use super::super::AttentionShape;
use super::rows::exp;

/// Copies one head out of `[seq, heads · head_dim]`.
#[inline(always)]
fn gather(x: &[f32], width: usize, head: usize, head_dim: usize, out: &mut [f32]) {
    for (row, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(head_dim)) {
        out.copy_from_slice(&row[head * head_dim..(head + 1) * head_dim]);
    }
}

/// Adds one head into `[seq, heads · head_dim]`.
#[inline(always)]
fn scatter_add(x: &[f32], width: usize, head: usize, head_dim: usize, out: &mut [f32]) {
    for (row, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(width)) {
        let out = &mut out[head * head_dim..(head + 1) * head_dim];
        for (o, x) in out.iter_mut().zip(row) {
            *o += x;
        }
    }
}

/// `out[i, ..] += scale · Σ_j a[i, j] · b[j, ..]` for `j ≤ i`; `a` is `[seq, seq]`.
#[inline(always)]
fn lower_times(a: &[f32], b: &[f32], seq: usize, d: usize, out: &mut [f32]) {
    for i in 0..seq {
        let out = &mut out[i * d..(i + 1) * d];
        for j in 0..=i {
            let f = a[i * seq + j];
            for (o, b) in out.iter_mut().zip(&b[j * d..(j + 1) * d]) {
                *o += f * b;
            }
        }
    }
}

/// `out[j, ..] += Σ_i a[i, j] · b[i, ..]` for `j ≤ i`.
#[inline(always)]
fn lower_transposed_times(a: &[f32], b: &[f32], seq: usize, d: usize, out: &mut [f32]) {
    for i in 0..seq {
        let b = &b[i * d..(i + 1) * d];
        for j in 0..=i {
            let f = a[i * seq + j];
            for (o, b) in out[j * d..(j + 1) * d].iter_mut().zip(b) {
                *o += f * b;
            }
        }
    }
}

/// `out[i, j] = a[i, ..] · b[j, ..]` for `j ≤ i`; `bt` is scratch for `b` transposed.
#[inline(always)]
fn lower_products(a: &[f32], b: &[f32], seq: usize, d: usize, bt: &mut [f32], out: &mut [f32]) {
    for j in 0..seq {
        for e in 0..d {
            bt[e * seq + j] = b[j * d + e];
        }
    }
    for i in 0..seq {
        let out = &mut out[i * seq..i * seq + i + 1];
        out.fill(0.0);
        for e in 0..d {
            let f = a[i * d + e];
            for (o, b) in out.iter_mut().zip(&bt[e * seq..e * seq + i + 1]) {
                *o += f * b;
            }
        }
    }
}

/// Row-wise softmax of the lower triangle of `scale · scores`, in place.
#[inline(always)]
fn softmax_lower(scores: &mut [f32], seq: usize, scale: f32) {
    for i in 0..seq {
        let row = &mut scores[i * seq..i * seq + i + 1];
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in row.iter_mut() {
            *x = exp((*x - max) * scale);
        }
        let inv = 1.0 / row.iter().sum::<f32>();
        for x in row.iter_mut() {
            *x *= inv;
        }
    }
}

#[allow(clippy::cast_precision_loss)]
fn scale(s: AttentionShape) -> f32 {
    1.0 / (s.head_dim as f32).sqrt()
}

/// Buffers of one task.
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    p: Vec<f32>,
    transposed: Vec<f32>,
}

impl Scratch {
    fn new(s: AttentionShape) -> Self {
        let head = vec![0.0; s.seq * s.head_dim];
        Self {
            q: head.clone(),
            k: head.clone(),
            v: head.clone(),
            p: vec![0.0; s.seq * s.seq],
            transposed: head,
        }
    }

    /// Loads query head `head` with its key and value heads and fills `p` with probabilities.
    #[inline(always)]
    fn load(&mut self, q: &[f32], k: &[f32], v: &[f32], head: usize, s: AttentionShape) {
        let kv_head = head / (s.heads / s.kv_heads);
        let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        gather(q, width, head, s.head_dim, &mut self.q);
        gather(k, kv_width, kv_head, s.head_dim, &mut self.k);
        gather(v, kv_width, kv_head, s.head_dim, &mut self.v);
        lower_products(
            &self.q,
            &self.k,
            s.seq,
            s.head_dim,
            &mut self.transposed,
            &mut self.p,
        );
        softmax_lower(&mut self.p, s.seq, scale(s));
    }
}

pub(super) fn forward(q: &[f32], k: &[f32], v: &[f32], s: AttentionShape) -> Vec<f32> {
    let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let mut out = vec![0.0; q.len()];
    out.par_chunks_mut(s.seq * width)
        .zip(q.par_chunks(s.seq * width))
        .zip(
            k.par_chunks(s.seq * kv_width)
                .zip(v.par_chunks(s.seq * kv_width)),
        )
        .for_each_init(
            || (Scratch::new(s), vec![0.0; s.seq * s.head_dim]),
            |(scratch, y), ((out, q), (k, v))| {
                Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        for head in 0..s.heads {
                            scratch.load(q, k, v, head, s);
                            y.fill(0.0);
                            lower_times(&scratch.p, &scratch.v, s.seq, s.head_dim, y);
                            scatter_add(y, width, head, s.head_dim, out);
                        }
                    },
                );
            },
        );
    out
}

pub(super) fn grad(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    s: AttentionShape,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let (mut grad_q, mut grad_k, mut grad_v) =
        (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let ins = q
        .par_chunks(s.seq * width)
        .zip(grad.par_chunks(s.seq * width))
        .zip(
            k.par_chunks(s.seq * kv_width)
                .zip(v.par_chunks(s.seq * kv_width)),
        );
    grad_q
        .par_chunks_mut(s.seq * width)
        .zip(
            grad_k
                .par_chunks_mut(s.seq * kv_width)
                .zip(grad_v.par_chunks_mut(s.seq * kv_width)),
        )
        .zip(ins)
        .for_each_init(
            || {
                let head = vec![0.0; s.seq * s.head_dim];
                (
                    Scratch::new(s),
                    vec![0.0; s.seq * s.seq],
                    head.clone(),
                    head,
                )
            },
            |(scratch, dp, dy, dx), ((grad_q, (grad_k, grad_v)), ((q, grad), (k, v)))| {
                Arch::new().dispatch(
                    #[inline(always)]
                    || {
                        let (seq, d) = (s.seq, s.head_dim);
                        for head in 0..s.heads {
                            let kv_head = head / (s.heads / s.kv_heads);
                            scratch.load(q, k, v, head, s);
                            gather(grad, width, head, d, dy);
                            dx.fill(0.0);
                            lower_transposed_times(&scratch.p, dy, seq, d, dx);
                            scatter_add(dx, kv_width, kv_head, d, grad_v);
                            lower_products(dy, &scratch.v, seq, d, &mut scratch.transposed, dp);
                            for i in 0..seq {
                                let p = &scratch.p[i * seq..i * seq + i + 1];
                                let dp = &mut dp[i * seq..i * seq + i + 1];
                                let along: f32 = p.iter().zip(dp.iter()).map(|(p, d)| p * d).sum();
                                for (d, p) in dp.iter_mut().zip(p) {
                                    *d = (*d - along) * p * scale(s);
                                }
                            }
                            dx.fill(0.0);
                            lower_times(dp, &scratch.k, seq, d, dx);
                            scatter_add(dx, width, head, d, grad_q);
                            dx.fill(0.0);
                            lower_transposed_times(dp, &scratch.q, seq, d, dx);
                            scatter_add(dx, kv_width, kv_head, d, grad_k);
                        }
                    },
                );
            },
        );
    (grad_q, grad_k, grad_v)
}
