//! Attention of new tokens over stored keys and values.

mod rows;

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use crate::columns::Columns;
use crate::exec::Exec;
use crate::kv::{KvRows, LANES};
use crate::ops::exp;
use rows::{add_rows, scores_of};

/// Keys whose scores are held at once; pieces begin at multiples of it.
const CHUNK: usize = 64;
/// Query rows that are computed side by side.
const TOGETHER: usize = 6;
/// The same where fewer are left.
const HALF: usize = 3;
/// Query rows of a task, which share what is read of the keys and values.
const TASK_ROWS: usize = 48;

/// Scores below which other threads are not asked.
const MIN_PARALLEL: usize = 1 << 8;

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

/// Buffers of one task.
#[derive(Debug, Default)]
struct Scratch {
    /// What [`Task::gather`] collects.
    queries: Vec<f32>,
    /// Keys or values of a piece.
    piece: Vec<f32>,
    /// `[query rows, CHUNK]`.
    scores: Vec<f32>,
    /// `[query rows, width]`.
    sums: Vec<f32>,
    state: Vec<State>,
}

/// What a query row has seen so far.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Largest score.
    max: f32,
    /// Sums of the weights, lane by lane.
    total: [f32; LANES],
}

thread_local! {
    /// Kept by each thread so that decoding allocates nothing.
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch {
            queries: Vec::new(),
            piece: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
            state: Vec::new(),
        })
    };
}

/// Causal attention, scaled by `1 / √head_dim`, of new tokens: `q` and `out` are `[tokens, kv_heads
/// · group · head_dim]`. Token `t` sees the first `seen + t + 1` positions, with a `window` of `n`
/// only the last `n` of them.
///
/// One pass over keys and values in pieces, with the sums rescaled when a larger score comes
/// (Milakov & Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135). What one token gets
/// depends neither on the others nor on `exec`.
///
/// # Panics
/// Where `q` and `out` are not whole tokens of the same number, or rows are missing.
pub fn causal(
    exec: &Exec,
    heads: Heads,
    q: &[f32],
    (keys, values): (&KvRows, &KvRows),
    seen: usize,
    window: Option<usize>,
    out: &mut [f32],
) {
    assert_eq!(q.len(), out.len(), "as many outputs as queries");
    assert_eq!(keys.width(), heads.head_dim, "keys as wide as heads");
    let width = heads.group * heads.head_dim;
    let tokens = q.len() / (width * heads.kv_heads).max(1);
    let out = Columns::new(out, tokens, heads.kv_heads * width);
    let block = (TASK_ROWS / heads.group.max(1)).max(1);
    let task = |i: usize| {
        let (first, head) = (i / heads.kv_heads * block, i % heads.kv_heads);
        SCRATCH.with_borrow_mut(|scratch| {
            Arch::new().dispatch(Task {
                heads,
                head,
                tokens: first..tokens.min(first + block),
                seen,
                window: window.unwrap_or(usize::MAX),
                q,
                keys,
                values,
                scratch,
                out: &out,
            });
        });
    };
    let tasks = tokens.div_ceil(block) * heads.kv_heads;
    if tokens * heads.kv_heads * heads.group * (seen + tokens) < MIN_PARALLEL {
        (0..tasks).for_each(task);
    } else {
        exec.pool.run(tasks, &task);
    }
}

/// Some tokens of one key head.
struct Task<'a> {
    heads: Heads,
    head: usize,
    tokens: Range<usize>,
    seen: usize,
    window: usize,
    q: &'a [f32],
    keys: &'a KvRows,
    values: &'a KvRows,
    scratch: &'a mut Scratch,
    out: &'a Columns<'a, f32>,
}

impl Task<'_> {
    /// The positions that a token sees.
    fn visible(&self, token: usize) -> Range<usize> {
        let end = self.seen + token + 1;
        end.saturating_sub(self.window)..end
    }

    /// Of a piece of `n` positions from `start` on, those that query row `row` sees.
    fn part(&self, row: usize, start: usize, n: usize) -> Range<usize> {
        let visible = self.visible(self.tokens.start + row / self.heads.group);
        let at = |position: usize| position.saturating_sub(start).min(n);
        at(visible.start)..at(visible.end)
    }
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Heads {
            group,
            head_dim: width,
            ..
        } = self.heads;
        let rows = self.tokens.len() * group;
        if rows * width == 0 {
            return;
        }
        let mut scratch = std::mem::take(self.scratch);
        let Scratch {
            queries,
            piece,
            scores,
            sums,
            state,
        } = &mut scratch;
        piece.resize(2 * CHUNK * width, 0.0);
        scores.resize(rows * CHUNK, 0.0);
        sums.clear();
        sums.resize(rows * width, 0.0);
        state.clear();
        state.resize(
            rows,
            State {
                max: f32::NEG_INFINITY,
                total: [0.0; LANES],
            },
        );
        self.gather(queries);
        let scale = 1.0 / (width as f32).sqrt();
        let begin = self.visible(self.tokens.start).start / CHUNK * CHUNK;
        let end = self.visible(self.tokens.end - 1).end;
        for start in (begin..end).step_by(CHUNK) {
            let n = CHUNK.min(end - start);
            let more = end - (start + n);
            let first = self.head * self.values.positions() + start;
            // The first values come after these keys, and the next head's keys after the last
            // values.
            if start == begin {
                self.values.ask(first);
            }
            let keys = self.keys.read_lanes(self.head, start, n, more, piece);
            let scores = scores.as_chunks_mut::<CHUNK>().0;
            let mut row = 0;
            while row < rows {
                let (q, scores) = (&queries[row * width..], &mut scores[row..]);
                row += match together(rows - row) {
                    TOGETHER => some_scores::<S, TOGETHER>(simd, q, keys, width, scores),
                    HALF => some_scores::<S, HALF>(simd, q, keys, width, scores),
                    _ => some_scores::<S, 1>(simd, q, keys, width, scores),
                };
            }
            let sums_of = sums.chunks_exact_mut(width);
            let each = scores.iter_mut().zip(&mut *state).zip(sums_of);
            for (row, ((scores, state), sums)) in each.enumerate() {
                let part = self.part(row, start, n);
                if !part.is_empty() {
                    scores[..part.start].fill(f32::NEG_INFINITY);
                    scores[part.end..].fill(f32::NEG_INFINITY);
                    weigh(scores, scale, state, sums);
                }
            }
            if more == 0 {
                self.keys
                    .ask((self.head + 1) * self.keys.positions() + begin);
            }
            let values = self.values.read(first, n, more, piece);
            let mut row = 0;
            while row < rows {
                let (piece, sums) = ((start, n, values), (&*scores, &mut sums[..]));
                row += match together(rows - row) {
                    TOGETHER => self.add_values::<S, TOGETHER>(simd, row, piece, sums),
                    HALF => self.add_values::<S, HALF>(simd, row, piece, sums),
                    _ => self.add_values::<S, 1>(simd, row, piece, sums),
                };
            }
        }
        for (row, (sums, state)) in sums.chunks_exact(width).zip(&*state).enumerate() {
            let (token, head) = (self.tokens.start + row / group, self.head * group);
            // SAFETY: each task has tokens and a head of its own.
            #[allow(unsafe_code)]
            let out = unsafe { self.out.strip(token, (head + row % group) * width, width) };
            let inv = 1.0 / state.total.iter().sum::<f32>();
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * inv;
            }
        }
        *self.scratch = scratch;
    }
}

impl Task<'_> {
    /// Copies the queries to `[rows / T, width, T]`, `T` as they are computed together.
    fn gather(&self, out: &mut Vec<f32>) {
        let rows = self.tokens.len() * self.heads.group;
        out.resize(rows * self.heads.head_dim, 0.0);
        let mut row = 0;
        while row < rows {
            row += match together(rows - row) {
                TOGETHER => self.gather_rows::<TOGETHER>(row, out),
                HALF => self.gather_rows::<HALF>(row, out),
                _ => self.gather_rows::<1>(row, out),
            };
        }
    }

    /// [`Self::gather`] for `T` rows; returns `T`.
    fn gather_rows<const T: usize>(&self, row: usize, out: &mut [f32]) -> usize {
        let Heads {
            kv_heads,
            group,
            head_dim: width,
        } = self.heads;
        let queries: [&[f32]; T] = std::array::from_fn(|t| {
            let (token, part) = (self.tokens.start + (row + t) / group, (row + t) % group);
            let head = (token * kv_heads + self.head) * group + part;
            &self.q[head * width..][..width]
        });
        let lines = out[row * width..][..T * width].as_chunks_mut::<T>().0;
        for (i, line) in lines.iter_mut().enumerate() {
            for (value, q) in line.iter_mut().zip(queries) {
                *value = q[i];
            }
        }
        T
    }

    /// Adds the weighted values of a piece of `n` positions from `start` on to the sums of `T`
    /// rows: what all of them see at once, what only some see before and after it. Returns `T`.
    #[inline(always)]
    fn add_values<S: Simd, const T: usize>(
        &self,
        simd: S,
        row: usize,
        (start, n, values): (usize, usize, &[f32]),
        (scores, sums): (&[[f32; CHUNK]], &mut [f32]),
    ) -> usize {
        let width = self.heads.head_dim;
        let values = |part: &Range<usize>| &values[part.start * width..part.end * width];
        let (weights, _) = scores[row..].as_chunks::<T>();
        let weights = &weights[0];
        let mut outs = [(); T].map(|()| &mut [][..]);
        for (out, sums) in outs
            .iter_mut()
            .zip(sums[row * width..].chunks_exact_mut(width))
        {
            *out = sums;
        }
        // Both ends of what a row sees grow with the row.
        let shared = self.part(row + T - 1, start, n).start..self.part(row, start, n).end;
        let shared = shared.start..shared.end.max(shared.start);
        for (t, (out, weights)) in outs.iter_mut().zip(weights).enumerate() {
            let part = self.part(row + t, start, n);
            let before = part.start..part.end.min(shared.start);
            let weights = std::array::from_ref(weights);
            add_rows(simd, weights, before.start, values(&before), [out]);
        }
        let all = outs.each_mut().map(|out| &mut **out);
        add_rows(simd, weights, shared.start, values(&shared), all);
        for (t, (out, weights)) in outs.iter_mut().zip(weights).enumerate() {
            let part = self.part(row + t, start, n);
            let after = part.start.max(shared.end).min(part.end)..part.end;
            let weights = std::array::from_ref(weights);
            add_rows(simd, weights, after.start, values(&after), [out]);
        }
        T
    }
}

/// How many of the rows that are left are computed side by side.
#[inline(always)]
fn together(left: usize) -> usize {
    match left {
        TOGETHER.. => TOGETHER,
        HALF.. => HALF,
        _ => 1,
    }
}

/// The scores of `T` rows; returns `T`.
#[inline(always)]
fn some_scores<S: Simd, const T: usize>(
    simd: S,
    q: &[f32],
    keys: &[f32],
    width: usize,
    scores: &mut [[f32; CHUNK]],
) -> usize {
    let (q, _) = q[..T * width].as_chunks::<T>();
    let (scores, _) = scores.as_chunks_mut::<T>();
    scores_of(simd, q, keys, &mut scores[0]);
    T
}

/// Makes the scores of a piece weights, `e^(scale · score − max)`, and rescales what a query row
/// has so far.
#[inline(always)]
fn weigh(scores: &mut [f32; CHUNK], scale: f32, state: &mut State, sums: &mut [f32]) {
    let lines = scores.as_chunks_mut::<LANES>().0;
    let mut largest = [state.max; LANES];
    for line in lines.iter_mut() {
        for (s, max) in line.iter_mut().zip(&mut largest) {
            *s *= scale;
            *max = if *s > *max { *s } else { *max };
        }
    }
    let max = largest_of(largest);
    // With the largest as before nothing changes, and with no score before there is nothing.
    if max > state.max {
        if state.max > f32::NEG_INFINITY {
            let shrink = exp(state.max - max);
            state.total.iter_mut().for_each(|v| *v *= shrink);
            sums.iter_mut().for_each(|v| *v *= shrink);
        }
        state.max = max;
    }
    for line in lines {
        for (s, total) in line.iter_mut().zip(&mut state.total) {
            *s = exp(*s - max);
            *total += *s;
        }
    }
}

#[inline(always)]
fn largest_of(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = if lanes[i + half] > lanes[i] {
                lanes[i + half]
            } else {
                lanes[i]
            };
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests;
