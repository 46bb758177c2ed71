//! Attention of some tokens over one head of keys and values.

use std::cell::RefCell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

#[cfg(target_arch = "x86_64")]
use super::pieces::CodeBuffers;
use super::rows::{add_rows, scores_of};
use super::softmax::{State, weigh};
use super::{CHUNK, Call, Heads};
use crate::kv::Head;

/// Query rows that are computed side by side.
const TOGETHER: usize = 6;
/// The same where fewer are left.
const HALF: usize = 3;

/// Buffers of one task.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What [`Task::gather`] collects.
    queries: Vec<f32>,
    /// Keys or values of a piece.
    piece: Vec<f32>,
    /// `[query rows, CHUNK]`.
    pub(super) scores: Vec<f32>,
    /// `[query rows, width]`.
    pub(super) sums: Vec<f32>,
    pub(super) state: Vec<State>,
    #[cfg(target_arch = "x86_64")]
    pub(super) codes: CodeBuffers,
}

impl Scratch {
    /// As nothing has been seen by `rows` of `width` values.
    fn reset(&mut self, rows: usize, width: usize) {
        self.scores.resize(rows * CHUNK, 0.0);
        self.sums.clear();
        self.sums.resize(rows * width, 0.0);
        self.state.clear();
        self.state.resize(rows, State::NEW);
    }
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
            #[cfg(target_arch = "x86_64")]
            codes: CodeBuffers::NEW,
        })
    };
}

/// Some tokens of one key head.
pub(super) struct Task<'a, Q> {
    pub(super) call: &'a Call<'a>,
    pub(super) head: usize,
    pub(super) tokens: Range<usize>,
    /// The query of a token and a query head of the group.
    pub(super) query: Q,
    pub(super) keys: Head<'a>,
    pub(super) values: Head<'a>,
    /// What is read after these values.
    pub(super) next: Option<*const u8>,
}

impl<'a, Q: Fn(usize, usize) -> &'a [f32]> Task<'a, Q> {
    /// Computes the outputs.
    pub(super) fn run(self) {
        let heads = self.call.heads;
        let rows = self.tokens.len() * heads.group;
        if rows * heads.head_dim == 0 {
            return;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.reset(rows, heads.head_dim);
            #[cfg(target_arch = "x86_64")]
            let done = self.sum_one_token(scratch);
            #[cfg(not(target_arch = "x86_64"))]
            let done = false;
            if !done {
                Arch::new().dispatch(WithScratch {
                    task: &self,
                    scratch,
                });
            }
            self.finish(scratch);
        });
    }

    /// Writes the sums over the totals of the weights.
    fn finish(&self, scratch: &Scratch) {
        let Heads {
            group,
            head_dim: width,
            ..
        } = self.call.heads;
        let sums = scratch.sums.chunks_exact(width).zip(&scratch.state);
        for (row, (sums, state)) in sums.enumerate() {
            let (token, head) = (self.tokens.start + row / group, self.head * group);
            // SAFETY: each task has tokens and a head of its own.
            #[allow(unsafe_code)]
            let out = unsafe {
                let out = &self.call.out;
                out.strip(token, (head + row % group) * width, width)
            };
            let inv = 1.0 / state.total();
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum * inv;
            }
        }
    }

    /// Of a piece of `n` positions from `start` on, those that query row `row` sees.
    fn part(&self, row: usize, start: usize, n: usize) -> Range<usize> {
        let token = self.tokens.start + row / self.call.heads.group;
        let visible = self.call.visible(token);
        let at = |position: usize| position.saturating_sub(start).min(n);
        at(visible.start)..at(visible.end)
    }
}

/// A task and what it needs.
struct WithScratch<'s, 'a, Q> {
    task: &'s Task<'a, Q>,
    scratch: &'s mut Scratch,
}

impl<'a, Q: Fn(usize, usize) -> &'a [f32]> WithSimd for WithScratch<'_, 'a, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.task.compute(simd, self.scratch);
    }
}

impl<'a, Q: Fn(usize, usize) -> &'a [f32]> Task<'a, Q> {
    #[inline(always)]
    fn compute<S: Simd>(&self, simd: S, scratch: &mut Scratch) {
        let Heads {
            group,
            head_dim: width,
            ..
        } = self.call.heads;
        let rows = self.tokens.len() * group;
        let Scratch {
            queries,
            piece,
            scores,
            sums,
            state,
            ..
        } = scratch;
        piece.resize(2 * CHUNK * width, 0.0);
        self.gather(queries);
        let scale = 1.0 / (width as f32).sqrt();
        let begin = self.call.begin(self.tokens.start);
        let end = self.call.visible(self.tokens.end - 1).end;
        for start in (begin..end).step_by(CHUNK) {
            let n = CHUNK.min(end - start);
            let more = end - (start + n);
            // The first values come after these keys, and the next head's keys after the last
            // values.
            if start == begin {
                ask(self.values.address(start));
            }
            let keys = self.keys.read_lanes(start, n, more, piece);
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
                ask(self.next);
            }
            let values = self.values.read(start, n, more, piece);
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
    }

    /// Copies the queries to `[rows / T, width, T]`, `T` as they are computed together.
    fn gather(&self, out: &mut Vec<f32>) {
        let heads = self.call.heads;
        let rows = self.tokens.len() * heads.group;
        out.resize(rows * heads.head_dim, 0.0);
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
            group,
            head_dim: width,
            ..
        } = self.call.heads;
        let mut queries = [&[][..]; T];
        for (t, query) in queries.iter_mut().enumerate() {
            *query = (self.query)(self.tokens.start + (row + t) / group, (row + t) % group);
        }
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
        let width = self.call.heads.head_dim;
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

/// Asks for the beginning of what is read later, where there is a way to.
fn ask(next: Option<*const u8>) {
    #[cfg(target_arch = "x86_64")]
    next.iter().for_each(|next| crate::x86_64::ask_first(*next));
    #[cfg(not(target_arch = "x86_64"))]
    let _ = next;
}
