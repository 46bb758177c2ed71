//! Attention, one task a sequence: scores of one head stay in the cache.
//!
//! What a token does not see lies above the diagonal, is never written and stays zero.
// See `tile`.
#![allow(clippy::needless_range_loop)]

use rayon::prelude::*;

use super::super::AttentionShape;
use super::rows::{dot, exp, max, sum};
use super::tile::{COLS, Padded, ROWS, lanes, rank_one, transpose};
use super::wide;

/// Columns of the scores of rows `i..i + ROWS` that may differ from zero.
#[inline(always)]
fn end(i: usize, s: AttentionShape) -> usize {
    if s.causal { i + ROWS } else { s.seq }
}

/// `out = a · b` for scores `a` `[seq, seq]`.
#[inline(always)]
fn scores_times(a: &Padded, b: &Padded, s: AttentionShape, out: &mut Padded) {
    for i in (0..s.seq).step_by(ROWS) {
        for col in (0..b.stride).step_by(COLS) {
            let mut tile = [[0.0; COLS]; ROWS];
            let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &a.row(i + r)[..end(i, s)]);
            for j in 0..end(i, s) {
                let factors = std::array::from_fn(|r| rows[r][j]);
                rank_one(&mut tile, factors, lanes(b.row(j), col));
            }
            out.store(&tile, i, col);
        }
    }
}

/// `out = aᵀ · b` for scores `a` `[seq, seq]`.
#[inline(always)]
fn scores_transposed_times(a: &Padded, b: &Padded, s: AttentionShape, out: &mut Padded) {
    for j in (0..s.seq).step_by(ROWS) {
        let first = if s.causal { j } else { 0 };
        for col in (0..b.stride).step_by(COLS) {
            let mut tile = [[0.0; COLS]; ROWS];
            for i in first..s.seq {
                let column = &a.row(i)[j..j + ROWS];
                let factors = std::array::from_fn(|r| column[r]);
                rank_one(&mut tile, factors, lanes(b.row(i), col));
            }
            out.store(&tile, j, col);
        }
    }
}

/// `out[i, j] = a[i, ..] · b[j, ..]` for every `j` that `i` sees but for the window; `bt` is scratch
/// for `b` transposed.
#[inline(always)]
fn score_products(a: &Padded, b: &Padded, s: AttentionShape, bt: &mut Padded, out: &mut Padded) {
    let (seq, d) = (s.seq, s.head_dim);
    transpose(b, seq, d, bt);
    for i in (0..seq).step_by(ROWS) {
        for col in (0..end(i, s)).step_by(COLS) {
            let mut tile = [[0.0; COLS]; ROWS];
            let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &a.row(i + r)[..d]);
            for e in 0..d {
                let factors = std::array::from_fn(|r| rows[r][e]);
                rank_one(&mut tile, factors, lanes(bt.row(e), col));
            }
            for (r, lane) in tile.iter().enumerate().take(seq.saturating_sub(i)) {
                let seen = s.end_seen(i + r).saturating_sub(col).min(COLS);
                out.row_mut(i + r)[col..col + seen].copy_from_slice(&lane[..seen]);
            }
        }
    }
}

/// Row-wise softmax of what each row sees of `scale · scores`, in place; 0 before its `first_seen`.
#[inline(always)]
fn softmax_seen(scores: &mut Padded, s: AttentionShape, first_seen: &[usize], scale: f32) {
    for i in 0..s.seq {
        let (unseen, row) = scores.row_mut(i)[..s.end_seen(i)].split_at_mut(first_seen[i]);
        unseen.fill(0.0);
        let top = max(row);
        for x in row.iter_mut() {
            *x = exp((*x - top) * scale);
        }
        let inv = 1.0 / sum(row);
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
    q: Padded,
    k: Padded,
    v: Padded,
    p: Padded,
    transposed: Padded,
    y: Padded,
}

impl Scratch {
    fn new(s: AttentionShape) -> Self {
        let head = Padded::new(s.seq, s.head_dim);
        Self {
            q: head.clone(),
            k: head.clone(),
            v: head.clone(),
            p: Padded::new(s.seq, s.seq),
            transposed: Padded::new(s.head_dim, s.seq),
            y: head,
        }
    }

    /// Loads query head `head` with its key and value heads and fills `p` with probabilities.
    #[inline(always)]
    fn load(
        &mut self,
        [q, k, v]: [&[f32]; 3],
        head: usize,
        s: AttentionShape,
        first_seen: &[usize],
    ) {
        let (kv_head, d) = (head / (s.heads / s.kv_heads), s.head_dim);
        let (width, kv_width) = (s.heads * d, s.kv_heads * d);
        self.q.gather(q, width, head, d);
        self.k.gather(k, kv_width, kv_head, d);
        self.v.gather(v, kv_width, kv_head, d);
        score_products(&self.q, &self.k, s, &mut self.transposed, &mut self.p);
        softmax_seen(&mut self.p, s, first_seen, scale(s));
    }
}

/// `first_seen`: for each token of each sequence the place of the first that it sees.
pub(super) fn forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    s: AttentionShape,
    first_seen: &[usize],
) -> Vec<f32> {
    let (width, kv_width) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
    let mut out = vec![0.0; q.len()];
    out.par_chunks_mut(s.seq * width)
        .zip(q.par_chunks(s.seq * width))
        .zip(
            k.par_chunks(s.seq * kv_width)
                .zip(v.par_chunks(s.seq * kv_width)),
        )
        .zip(first_seen.par_chunks(s.seq))
        .for_each_init(
            || Scratch::new(s),
            |scratch, (((out, q), (k, v)), first_seen)| {
                wide(
                    #[inline(always)]
                    || {
                        for head in 0..s.heads {
                            scratch.load([q, k, v], head, s, first_seen);
                            scores_times(&scratch.p, &scratch.v, s, &mut scratch.y);
                            scratch.y.add_to_head(width, head, s.head_dim, out);
                        }
                    },
                );
            },
        );
    out
}

pub(super) fn grad(
    [q, k, v, grad]: [&[f32]; 4],
    s: AttentionShape,
    first_seen: &[usize],
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
        .zip(first_seen.par_chunks(s.seq))
        .for_each_init(
            || {
                (
                    Scratch::new(s),
                    Padded::new(s.seq, s.seq),
                    Padded::new(s.seq, s.head_dim),
                )
            },
            |(scratch, dp, dy), (((grad_q, (grad_k, grad_v)), ((q, grad), (k, v))), first_seen)| {
                wide(
                    #[inline(always)]
                    || {
                        let (seq, d) = (s.seq, s.head_dim);
                        for head in 0..s.heads {
                            let kv_head = head / (s.heads / s.kv_heads);
                            scratch.load([q, k, v], head, s, first_seen);
                            dy.gather(grad, width, head, d);
                            let Scratch {
                                q,
                                k,
                                v,
                                p,
                                transposed,
                                y,
                            } = &mut *scratch;
                            scores_transposed_times(p, dy, s, y);
                            y.add_to_head(kv_width, kv_head, d, grad_v);
                            score_products(dy, v, s, transposed, dp);
                            for i in 0..seq {
                                let p = &p.row(i)[..s.end_seen(i)];
                                let dp = &mut dp.row_mut(i)[..s.end_seen(i)];
                                let along = dot(p, dp);
                                for (d, p) in dp.iter_mut().zip(p) {
                                    *d = (*d - along) * p * scale(s);
                                }
                            }
                            scores_times(dp, k, s, y);
                            y.add_to_head(width, head, d, grad_q);
                            scores_transposed_times(dp, q, s, y);
                            y.add_to_head(kv_width, kv_head, d, grad_k);
                        }
                    },
                );
            },
        );
    (grad_q, grad_k, grad_v)
}
