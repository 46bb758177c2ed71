//! Attention of new tokens over stored keys and values.

mod rows;

use std::cell::RefCell;

use pulp::{Arch, Simd, WithSimd};

use crate::columns::Columns;
use crate::exec::Exec;
use crate::kv::KvRows;
use crate::ops::exp;
use rows::{add_rows, scores_of};

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

/// Tokens that share what is read of the keys and values.
const BLOCK: usize = 8;

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
        let (block, head) = (i / heads.kv_heads, i % heads.kv_heads);
        let mine = block * BLOCK..tokens.min((block + 1) * BLOCK);
        let (mut queries, mut outs) = ([&[][..]; BLOCK], [(); BLOCK].map(|()| &mut [][..]));
        for (k, token) in mine.clone().enumerate() {
            queries[k] = &q[(token * heads.kv_heads + head) * width..][..width];
            // SAFETY: each task has tokens and a head of its own.
            #[allow(unsafe_code)]
            let out = unsafe { out.strip(token, head * width, width) };
            outs[k] = out;
        }
        let (first, len) = (first_row(head), seen + mine.start + 1);
        let (q, out) = (&queries[..mine.len()], &mut outs[..mine.len()]);
        SCRATCH.with_borrow_mut(|s| attend(q, keys, values, first, len, scale, s, out));
    };
    let tasks = tokens.div_ceil(BLOCK) * heads.kv_heads;
    if tokens * heads.kv_heads * heads.group * (seen + tokens) < MIN_PARALLEL {
        (0..tasks).for_each(task);
    } else {
        exec.pool.run(tasks, &task);
    }
}

/// `out[t, h] = softmax(q[t, h] · Kᵀ · scale) · V` for query heads that share keys and values: token
/// `t` sees rows `first..first + len + t` of `keys` and `values`. Each of `q` and `out` is
/// `[heads, width]`; a token that sees nothing gets zeros.
///
/// One pass over keys and values in pieces, with the sums rescaled when a larger score comes
/// (Milakov & Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135). What one token gets
/// does not depend on the others.
///
/// # Panics
/// Where rows are missing or `q` and `out` differ in shape or are no whole number of heads.
#[expect(clippy::too_many_arguments, reason = "the operands of one operation")]
pub fn attend(
    q: &[&[f32]],
    keys: &KvRows,
    values: &KvRows,
    first: usize,
    len: usize,
    scale: f32,
    scratch: &mut AttentionScratch,
    out: &mut [&mut [f32]],
) {
    let width = keys.width();
    assert_eq!(q.len(), out.len(), "as many outputs as tokens");
    for (q, out) in q.iter().zip(&*out) {
        assert_eq!((q.len(), q.len() % width), (out.len(), 0), "whole heads");
    }
    Arch::new().dispatch(Attend {
        q,
        keys,
        values,
        first,
        len,
        scale,
        scratch,
        out,
    });
}

/// The arguments of [`attend`].
struct Attend<'a, 'b> {
    q: &'a [&'a [f32]],
    keys: &'a KvRows,
    values: &'a KvRows,
    first: usize,
    len: usize,
    scale: f32,
    scratch: &'a mut AttentionScratch,
    out: &'a mut [&'b mut [f32]],
}

impl WithSimd for Attend<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.keys.width();
        let heads = self.q.first().map_or(0, |q| q.len() / width);
        let AttentionScratch {
            rows: buffer,
            scores,
            state,
        } = self.scratch;
        buffer.resize(CHUNK * width, 0.0);
        scores.resize(self.q.len() * heads * CHUNK, 0.0);
        state.clear();
        state.resize(self.q.len() * heads, [f32::NEG_INFINITY, 0.0]);
        for out in self.out.iter_mut() {
            out.fill(0.0);
        }
        let longest = (self.len + self.q.len()).saturating_sub(1);
        for start in (0..longest).step_by(CHUNK) {
            let rows = CHUNK.min(longest - start);
            // Rows of this piece that token `t` sees.
            let (len, seen) = (self.len, |t: usize| {
                rows.min((self.len + t).saturating_sub(start))
            });
            let read = self.keys.read(self.first + start, rows, buffer);
            for (t, q) in self.q.iter().enumerate() {
                let scores = &mut scores[t * heads * CHUNK..];
                for (q, scores) in q.chunks_exact(width).zip(scores.chunks_exact_mut(CHUNK)) {
                    scores_of(simd, q, read, self.scale, &mut scores[..seen(t)]);
                }
            }
            let read = self.values.read(self.first + start, rows, buffer);
            for (t, out) in self.out.iter_mut().enumerate() {
                if start >= len + t {
                    continue;
                }
                let scores = scores[t * heads * CHUNK..].chunks_exact_mut(CHUNK);
                let outs = out.chunks_exact_mut(width).zip(scores);
                for ((out, scores), state) in outs.zip(&mut state[t * heads..]) {
                    add_piece(&mut scores[..seen(t)], read, state, out);
                }
            }
        }
        for (t, out) in self.out.iter_mut().enumerate() {
            for (out, [_, sum]) in out.chunks_exact_mut(width).zip(&state[t * heads..]) {
                // Nothing seen is nothing said, not 0 · ∞.
                let inv = if *sum == 0.0 { 0.0 } else { 1.0 / *sum };
                for o in out {
                    *o *= inv;
                }
            }
        }
    }
}

/// Adds the values of a piece, weighted by `e^score`, to what one query head has so far.
#[inline(always)]
fn add_piece(scores: &mut [f32], values: &[f32], [max, sum]: &mut [f32; 2], out: &mut [f32]) {
    let before = *max;
    *max = scores.iter().fold(before, |m, &s| m.max(s));
    let shrink = exp(before - *max);
    for s in scores.iter_mut() {
        *s = exp(*s - *max);
    }
    *sum *= shrink;
    for s in scores.iter() {
        *sum += s;
    }
    if before > f32::NEG_INFINITY {
        for o in out.iter_mut() {
            *o *= shrink;
        }
    }
    add_rows(scores, values, out);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
                attend(
                    &[q],
                    &keys,
                    &values,
                    2,
                    len,
                    0.5,
                    &mut scratch,
                    &mut [&mut out],
                );
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
        attend(
            &[&[1.0]],
            &keys,
            &values,
            0,
            2,
            1.0,
            &mut scratch,
            &mut [&mut out],
        );
        assert_eq!(out, [0.5]);
    }

    #[test]
    fn tokens_together_are_each_by_itself() {
        let (width, group, tokens, seen) = (24, 2, 21, 60);
        let all = noise((2 * (seen + tokens) + group * tokens) * width);
        let (k, rest) = all.split_at((seen + tokens) * width);
        let (v, q) = rest.split_at((seen + tokens) * width);
        let mut stores = [k, v].map(|rows| {
            let mut store = KvRows::new(KvFormat::F16, seen + tokens, width);
            let rows = rows.chunks(width).enumerate();
            rows.for_each(|(i, row)| store.set(i, row));
            store
        });
        let heads = Heads {
            kv_heads: 1,
            group,
            head_dim: width,
        };
        let exec = Exec::new(None, Some(3)).unwrap();
        let [keys, values] = &mut stores;
        let run = |first: usize, n: usize| {
            let q = &q[first * group * width..][..n * group * width];
            let mut out = vec![0.0; q.len()];
            let stored = (&*keys, &*values);
            causal(&exec, heads, q, stored, |_| 0, seen + first, &mut out);
            out
        };
        let together = run(0, tokens);
        let alone: Vec<f32> = (0..tokens).flat_map(|t| run(t, 1)).collect();
        assert_eq!(together, alone);
    }
}
