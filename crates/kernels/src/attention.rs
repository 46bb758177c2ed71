//! Attention of new tokens over stored keys and values.

use std::cell::RefCell;

use crate::columns::Columns;
use crate::exec::Exec;
use crate::kv::KvRows;
use crate::ops::exp;
use crate::vectors::vectorized;

/// Keys whose scores are held at once.
const CHUNK: usize = 64;

/// Buffers of [`attend`].
#[derive(Debug, Default)]
pub struct AttentionScratch {
    rows: Vec<f32>,
    scores: Vec<f32>,
    /// Largest score so far and sum of weights, for each query head.
    state: Vec<[f32; 2]>,
}

impl AttentionScratch {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rows: Vec::new(),
            scores: Vec::new(),
            state: Vec::new(),
        }
    }
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Values in a head.
    pub head_dim: usize,
}

thread_local! {
    /// Buffers of one task, kept by each thread so that decoding allocates nothing.
    static SCRATCH: RefCell<AttentionScratch> = const { RefCell::new(AttentionScratch::new()) };
}

/// Scores below which other threads are not asked.
const MIN_PARALLEL: usize = 1 << 12;

/// Causal attention, scaled by `1 / √head_dim`, of new tokens: `q` and `out` are
/// `[tokens, kv_heads · group · head_dim]`. Keys and values of key head `h` are the rows from
/// `first_row(h)` on; token `t` sees the first `seen + t + 1` of them.
///
/// # Panics
/// Where `q` and `out` are not whole tokens of the same number, or rows are missing.
pub fn causal(
    exec: &Exec,
    heads: Heads,
    q: &[f32],
    (keys, values): (&KvRows, &KvRows),
    first_row: impl Fn(usize) -> usize + Sync,
    seen: usize,
    out: &mut [f32],
) {
    let width = heads.group * heads.head_dim;
    let tokens = q.len() / (width * heads.kv_heads).max(1);
    let scale = 1.0 / (heads.head_dim as f32).sqrt();
    let out = Columns::new(out, tokens, heads.kv_heads * width);
    let task = |i: usize| {
        let (token, head) = (i / heads.kv_heads, i % heads.kv_heads);
        // SAFETY: each task has a token and head of its own.
        #[allow(unsafe_code)]
        let out = unsafe { out.strip(token, head * width, width) };
        let q = &q[i * width..][..width];
        let (first, len) = (first_row(head), seen + token + 1);
        SCRATCH.with_borrow_mut(|s| attend(q, keys, values, first, len, scale, s, out));
    };
    let tasks = tokens * heads.kv_heads;
    if tasks * heads.group * (seen + tokens) < MIN_PARALLEL {
        (0..tasks).for_each(task);
    } else {
        exec.pool.run(tasks, &task);
    }
}

/// `out[h] = softmax(q[h] · Kᵀ · scale) · V` for query heads that share keys and values: rows
/// `first..first + len` of `keys` and `values`. `q` and `out` are `[heads, width]`.
///
/// One pass over keys and values in pieces, with the sums rescaled when a larger score comes
/// (Milakov & Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135).
///
/// # Panics
/// Where rows are missing or the lengths of `q` and `out` differ or are no whole number of heads.
#[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
pub fn attend(
    q: &[f32],
    keys: &KvRows,
    values: &KvRows,
    first: usize,
    len: usize,
    scale: f32,
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let width = keys.width();
    assert_eq!((q.len(), q.len() % width), (out.len(), 0), "whole heads");
    vectorized(
        #[inline(always)]
        || {
            let heads = q.len() / width;
            scratch.rows.resize(CHUNK * width, 0.0);
            scratch.scores.resize(heads * CHUNK, 0.0);
            scratch.state.clear();
            scratch.state.resize(heads, [f32::NEG_INFINITY, 0.0]);
            out.fill(0.0);
            for start in (0..len).step_by(CHUNK) {
                let n = CHUNK.min(len - start);
                let rows = keys.read(first + start, n, &mut scratch.rows);
                let scores = &mut scratch.scores[..];
                for (k, row) in rows.chunks_exact(width).enumerate() {
                    for (h, q) in q.chunks_exact(width).enumerate() {
                        scores[h * CHUNK + k] = dot(q, row) * scale;
                    }
                }
                let rows = values.read(first + start, n, &mut scratch.rows);
                for (h, out) in out.chunks_exact_mut(width).enumerate() {
                    let scores = &mut scores[h * CHUNK..][..n];
                    let [max, sum] = &mut scratch.state[h];
                    let before = *max;
                    *max = scores.iter().fold(before, |m, &s| m.max(s));
                    let shrink = exp(before - *max);
                    *sum *= shrink;
                    for s in scores.iter_mut() {
                        *s = exp(*s - *max);
                    }
                    for s in scores.iter() {
                        *sum += s;
                    }
                    if start > 0 {
                        for o in out.iter_mut() {
                            *o *= shrink;
                        }
                    }
                    add_rows(scores, rows, out);
                }
            }
            for (out, [_, sum]) in out.chunks_exact_mut(width).zip(&scratch.state) {
                let inv = 1.0 / sum;
                for o in out {
                    *o *= inv;
                }
            }
        },
    );
}

/// Lanes of a vector of sums.
const LANES: usize = 16;

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = a.as_chunks::<LANES>();
    let (b, b_tail) = b.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        lanes = std::array::from_fn(|i| lanes[i] + a[i] * b[i]);
    }
    let mut half: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    half = std::array::from_fn(|i| half[i] + half[i ^ 4]);
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    (half[0] + half[1]) + (half[2] + half[3]) + tail
}

/// `out += Σ weights[i] · rows[i]`, four rows at a time.
#[inline(always)]
fn add_rows(weights: &[f32], rows: &[f32], out: &mut [f32]) {
    let width = out.len();
    let (fours, rest) = weights.as_chunks::<4>();
    let (four_rows, rest_rows) = rows.split_at(fours.len() * 4 * width);
    for (w, rows) in fours.iter().zip(four_rows.chunks_exact(4 * width)) {
        let (a, rows) = rows.split_at(width);
        let (b, rows) = rows.split_at(width);
        let (c, d) = rows.split_at(width);
        for ((((o, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *o += (a * w[0] + b * w[1]) + (c * w[2] + d * w[3]);
        }
    }
    for (w, row) in rest.iter().zip(rest_rows.chunks_exact(width)) {
        for (o, v) in out.iter_mut().zip(row) {
            *o += w * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::KvFormat;

    fn noise(n: usize) -> Vec<f32> {
        let mut seed = 3u32;
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn attention_is_close_to_its_definition() {
        for (width, len, heads) in [
            (8, 1, 1),
            (16, 63, 2),
            (24, 64, 3),
            (128, 65, 4),
            (64, 300, 1),
        ] {
            let all = noise((2 * len + heads) * width);
            let (k, rest) = all.split_at(len * width);
            let (v, q) = rest.split_at(len * width);
            for (format, error) in [
                (KvFormat::F32, 1e-6),
                (KvFormat::F16, 2e-3),
                (KvFormat::Int8, 2e-2),
            ] {
                let store = |rows: &[f32]| {
                    let mut store = KvRows::new(format, len + 2, width);
                    for (i, row) in rows.chunks(width).enumerate() {
                        store.set(i + 2, row);
                    }
                    store
                };
                let (keys, values) = (store(k), store(v));
                let mut out = vec![9.0; heads * width];
                let mut scratch = AttentionScratch::new();
                attend(q, &keys, &values, 2, len, 0.5, &mut scratch, &mut out);
                for (h, q) in q.chunks(width).enumerate() {
                    let score = |k: &[f32]| k.iter().zip(q).map(|(a, b)| a * b).sum::<f32>() * 0.5;
                    let weights: Vec<f32> = k.chunks(width).map(|k| score(k).exp()).collect();
                    let total: f32 = weights.iter().sum();
                    for c in 0..width {
                        let sum: f32 = (0..len).map(|i| weights[i] * v[i * width + c]).sum();
                        let (got, want) = (out[h * width + c], sum / total);
                        assert!((got - want).abs() < error, "{format:?} {got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn huge_scores_do_not_overflow() {
        let mut keys = KvRows::new(KvFormat::F32, 2, 1);
        let mut values = keys.clone();
        (0..2).for_each(|i| keys.set(i, &[1e30]));
        (0..2).for_each(|i| values.set(i, &[i as f32]));
        let mut out = [0.0];
        let mut scratch = AttentionScratch::new();
        attend(&[1.0], &keys, &values, 0, 2, 1.0, &mut scratch, &mut out);
        assert_eq!(out, [0.5]);
    }
}
